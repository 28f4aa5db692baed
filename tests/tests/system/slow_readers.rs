//! Readers that crawl while their object is replaced and deleted.

use std::io::Read as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rampuddle_client::{Client, PutOptions};
use rampuddle_harness::{Cluster, ClusterOptions, Counts, Pattern, pace, puddle_binary, until};
use rampuddle_protocol::InfoRow;

use crate::objects::{bytes, get, is_soak, put};

const MIB: u64 = 1 << 20;
/// What the slow object has: no multiple of anything.
const LENGTH: u64 = 500_000_123;
/// How long a crawl takes in a long run: longer than a session outlives its
/// connections, and than holds are renewed.
const CRAWL: Duration = Duration::from_secs(45);
/// How long a server keeps what a reader held who is gone.
const LINGER: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(20);

/// `puddle get NAME -` into a pipe, which is read as slowly as the test likes.
struct Reader {
    child: Child,
    salt: u64,
    offset: u64,
}

impl Reader {
    fn start(cluster: &Cluster, salt: u64) -> Self {
        let mut command = Command::new(puddle_binary());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PUDDLE_") {
                command.env_remove(name);
            }
        }
        command.args(["--discovery", cluster.discovery(), "--cluster", cluster.name()]);
        command.args(["get", "o", "-"]).stdin(Stdio::null());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Self { child: child.expect("the binary runs"), salt, offset: 0 }
    }

    /// Reads on, `length` bytes at most, and compares them; returns how many came.
    fn read(&mut self, length: u64) -> u64 {
        let mut found = Vec::new();
        let stdout = self.child.stdout.as_mut().expect("piped above");
        stdout.take(length).read_to_end(&mut found).expect("a pipe can be read");
        let wanted = Pattern(self.salt).bytes(self.offset, found.len() as u64);
        assert!(wanted == found, "wrong bytes from offset {} on", self.offset);
        self.offset += found.len() as u64;
        found.len() as u64
    }

    /// Reads to the end, which may have come already.
    fn read_to_end(&mut self) {
        while self.read(4 * MIB) > 0 {}
    }

    /// How it ended, and what it said.
    fn end(mut self) -> (ExitStatus, String) {
        let mut said = String::new();
        let stderr = self.child.stderr.as_mut().expect("piped above");
        stderr.read_to_string(&mut said).expect("text");
        (self.child.wait().expect("it is our child"), said)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn infos(cluster: &Cluster, client: &Client) -> Vec<InfoRow> {
    let nodes = cluster.runtime().block_on(client.nodes());
    nodes.iter().map(|node| node.info.as_ref().expect("all servers answer").row).collect()
}

/// A sum over all servers.
fn sum(cluster: &Cluster, client: &Client, of: impl Fn(&InfoRow) -> u64) -> u64 {
    infos(cluster, client).iter().map(of).sum()
}

/// Waits until nothing is kept for anybody, and nothing used but so much.
fn until_only(cluster: &Cluster, client: &Client, used: u64, limit: Duration) {
    until("the memory to come back", limit, || {
        pace(Duration::from_millis(5));
        let rows = infos(cluster, client);
        let sum = |of: fn(&InfoRow) -> u64| rows.iter().map(of).sum::<u64>();
        sum(|row| row.superseded_bytes + row.reserved_bytes + row.holds) == 0
            && sum(|row| row.used_bytes) == used
    });
}

/// An object in one copy, on servers with room to keep all of it for readers.
fn stored(length: u64) -> (Cluster, Client) {
    // By chance all of few stripes may lie on one server, which keeps a quarter of
    // its memory for readers; of many no more than half of them do.
    let share = if length < LENGTH { 4 } else { 2 };
    let pool_mib = share * length.div_ceil(MIB) + 64;
    let cluster = Cluster::with(&ClusterOptions { pool_mib, ..ClusterOptions::default() });
    let client = cluster.client();
    let mut options = PutOptions::default();
    options.replicas = Some(1);
    let report = cluster.runtime().block_on(client.put(b"o", bytes(1, length), &options));
    assert_eq!(report.unwrap().bytes, length);
    (cluster, client)
}

/// Replaces the object, and deletes what replaced it.
fn replace_and_delete(cluster: &Cluster, client: &Client) {
    put(cluster, client, "o", bytes(2, 5 * MIB));
    assert!(get(cluster, client, "o").unwrap().unwrap() == bytes(2, 5 * MIB));
    assert!(cluster.runtime().block_on(client.delete(b"o")).unwrap().existed);
    assert_eq!(get(cluster, client, "o").unwrap(), None);
}

#[test]
fn soak_a_reader_that_crawls_gets_the_old_bytes_whole_and_then_their_memory_comes_back() {
    let mut counts = Counts::new("a reader that crawls");
    let (cluster, client) = stored(LENGTH);
    let mut reader = Reader::start(&cluster, 1);
    assert_eq!(reader.read(MIB), MIB);
    replace_and_delete(&cluster, &client);
    // All stripes are there still, for this reader alone.
    let kept = sum(&cluster, &client, |row| row.superseded_bytes);
    assert!(kept >= LENGTH, "{kept} bytes");
    let crawl = if is_soak() { CRAWL } else { Duration::from_millis(500) };
    let began = Instant::now();
    while began.elapsed() < crawl {
        assert_eq!(reader.read(64 << 10), 64 << 10);
        pace(Duration::from_millis(50));
        counts.one("steps of the crawl");
    }
    assert_eq!(sum(&cluster, &client, |row| row.superseded_bytes), kept);
    reader.read_to_end();
    assert_eq!(reader.offset, LENGTH);
    let (status, said) = reader.end();
    assert!(status.success(), "{status}: {said}");
    until_only(&cluster, &client, 0, PATIENCE);
    counts.add("bytes", LENGTH);
}

#[test]
fn soak_the_memory_that_a_reader_held_comes_back_when_it_is_killed() {
    let mut counts = Counts::new("a reader that is killed");
    let length = if is_soak() { LENGTH } else { LENGTH / 8 };
    let (cluster, client) = stored(length);
    let mut reader = Reader::start(&cluster, 1);
    assert_eq!(reader.read(MIB), MIB);
    replace_and_delete(&cluster, &client);
    let kept = sum(&cluster, &client, |row| row.superseded_bytes);
    assert!(kept >= length, "{kept} bytes");
    reader.child.kill().unwrap();
    reader.child.wait().unwrap();
    until_only(&cluster, &client, 0, LINGER + PATIENCE);
    counts.add("bytes kept for it", kept);
}

#[test]
fn a_reader_who_keeps_more_than_a_quarter_of_the_memory_gives_way_and_is_told_to_read_again() {
    let length = 90 * MIB + 77;
    let options = ClusterOptions { pool_mib: 112, ..ClusterOptions::default() };
    let cluster = Cluster::with(&options);
    let client = cluster.client();
    put(&cluster, &client, "o", bytes(1, length));
    // Two readers of the same object, and one of another that is kept.
    put(&cluster, &client, "kept", bytes(3, 9 * MIB));
    let mut readers = [Reader::start(&cluster, 1), Reader::start(&cluster, 1)];
    for reader in &mut readers {
        assert_eq!(reader.read(MIB), MIB);
    }
    assert!(sum(&cluster, &client, |row| row.holds) >= 6);
    let began = Instant::now();
    put(&cluster, &client, "o", bytes(2, 5 * MIB));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "the writer waited {took:?}");
    let rows = infos(&cluster, &client);
    assert!(rows.iter().all(|row| row.superseded_bytes <= row.pool_bytes / 4), "{rows:?}");
    assert!(rows.iter().all(|row| row.holds_broken >= 2), "{rows:?}");
    for mut reader in readers {
        reader.read_to_end();
        assert!(reader.offset < length, "{} bytes were read", reader.offset);
        let (status, said) = reader.end();
        assert_eq!(status.code(), Some(3), "{said}");
        assert!(said.contains("was replaced or deleted while it was read, try again"), "{said}");
        assert!(said.contains("gave way to writers"), "{said}");
    }
    let mut again = Reader::start(&cluster, 2);
    again.read_to_end();
    assert_eq!(again.offset, 5 * MIB);
    assert!(again.end().0.success());
    assert!(get(&cluster, &client, "kept").unwrap().unwrap() == bytes(3, 9 * MIB));
    // Two heads and two copies of the bytes of each.
    let pages = |bytes: u64| bytes.div_ceil(64 << 10) * (64 << 10);
    until_only(&cluster, &client, 2 * (2 * pages(1) + pages(5 * MIB) + pages(9 * MIB)), PATIENCE);
}

//! Objects over clusters of real processes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use std::{fs, io, process};

use rampuddle_client::{
    Client, CopyState, Error, GetOptions, PutCondition, PutOptions, PutReport, Source, WritePolicy,
};
use rampuddle_harness::{Cluster, ClusterOptions, Counts, Pattern, Seeded, until};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// How long a read may take beside a dead server: less than any of its time-outs.
const DEAD_SERVER_BOUND: Duration = Duration::from_secs(4);

/// Every byte of an object, from a pattern.
pub(crate) fn bytes(salt: u64, length: u64) -> Vec<u8> {
    Pattern(salt).bytes(0, length)
}

pub(crate) fn put(cluster: &Cluster, client: &Client, name: &str, bytes: Vec<u8>) -> PutReport {
    let options = PutOptions::default();
    let put = client.put(name.as_bytes(), bytes, &options);
    cluster.runtime().block_on(put).expect("the object is written")
}

pub(crate) fn get(
    cluster: &Cluster,
    client: &Client,
    name: &str,
) -> Result<Option<Vec<u8>>, Error> {
    let options = GetOptions::default();
    let value = cluster.runtime().block_on(client.get(name.as_bytes(), &options))?;
    Ok(value.map(|value| value.into_bytes().to_vec()))
}

pub(crate) fn used_bytes(cluster: &Cluster, client: &Client) -> u64 {
    let nodes = cluster.runtime().block_on(client.nodes());
    let rows = nodes.iter().filter_map(|node| node.info.as_ref()).map(|info| info.row);
    rows.map(|row| row.used_bytes + row.reserved_bytes).sum()
}

fn holds(cluster: &Cluster, client: &Client) -> u64 {
    let nodes = cluster.runtime().block_on(client.nodes());
    nodes.iter().filter_map(|node| node.info.as_ref()).map(|info| info.row.holds).sum()
}

/// A reader that never ends, at a few MiB a second at most.
struct Endless {
    salt: u64,
    offset: u64,
    given: Arc<AtomicU64>,
}

impl AsyncRead for Endless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = buffer.remaining().min(64 << 10);
        let offset = self.offset;
        Pattern(self.salt).fill(offset, buffer.initialize_unfilled_to(length));
        buffer.advance(length);
        self.offset += length as u64;
        self.given.store(self.offset, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

/// A writer that compares what it is given with a pattern, and calls back once
/// when so many bytes are in.
struct Comparing<F: FnMut() + Unpin> {
    salt: u64,
    offset: u64,
    call_at: u64,
    call: Option<F>,
}

impl<F: FnMut() + Unpin> AsyncWrite for Comparing<F> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        found: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wanted = Pattern(self.salt).bytes(self.offset, found.len() as u64);
        assert!(wanted == found, "wrong bytes from offset {} on", self.offset);
        self.offset += found.len() as u64;
        if self.offset >= self.call_at
            && let Some(mut call) = self.call.take()
        {
            call();
        }
        Poll::Ready(Ok(found.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Reads an object into a comparing writer; `call` runs when `call_at` bytes are in.
pub(crate) fn get_comparing(
    cluster: &Cluster,
    client: &Client,
    name: &str,
    salt: u64,
    call_at: u64,
    call: impl FnMut() + Unpin + Send,
) -> Result<u64, Error> {
    let mut writer = Comparing { salt, offset: 0, call_at, call: Some(call) };
    let options = GetOptions::default();
    let read = client.get_to(name.as_bytes(), &mut writer, None, &options);
    let report = cluster.runtime().block_on(read)?.expect("the object is there");
    assert_eq!((report.bytes, report.object_bytes), (writer.offset, writer.offset));
    Ok(writer.offset)
}

#[test]
fn objects_of_every_boundary_length_come_back_from_memory_and_from_a_pipe() {
    let cluster = Cluster::with(&ClusterOptions { pool_mib: 96, ..ClusterOptions::default() });
    let client = cluster.client();
    let stripe = 4 * MIB;
    let mut counts = Counts::new("objects of boundary lengths");
    let mut lengths = vec![0, 1, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1];
    for boundary in [MIB, stripe, 2 * stripe] {
        lengths.extend([boundary - 1, boundary, boundary + 1]);
    }
    for length in lengths {
        let (name, object) = (format!("of-{length}"), bytes(length, length));
        let report = put(&cluster, &client, &name, object.clone());
        assert_eq!((report.bytes, report.copies, report.is_short()), (length, 2, false));
        assert!(get(&cluster, &client, &name).unwrap().unwrap() == object, "{length} from memory");
        let reader = Source::reader(io::Cursor::new(object.clone()));
        let options = PutOptions::default();
        cluster.runtime().block_on(client.put(b"piped", reader, &options)).unwrap();
        assert!(
            get(&cluster, &client, "piped").unwrap().unwrap() == object,
            "{length} from a pipe"
        );
        counts.add("bytes", 2 * length);
        counts.one("objects");
        cluster.runtime().block_on(client.delete(name.as_bytes())).unwrap();
    }
    assert_eq!(counts.of("objects"), 14);
}

#[test]
fn an_object_larger_than_any_one_pool_is_kept_by_all_of_them() {
    let cluster = Cluster::with(&ClusterOptions { pool_mib: 64, ..ClusterOptions::default() });
    let client = cluster.client();
    let object = bytes(1, 80 * MIB);
    let report = put(&cluster, &client, "large", object.clone());
    assert_eq!((report.copies, report.is_short()), (2, false), "{report:?}");
    assert!(get(&cluster, &client, "large").unwrap().unwrap() == object);
}

#[test]
fn an_object_survives_any_one_server_killed_before_a_read_and_in_the_middle_of_it() {
    let mut counts = Counts::new("reads beside a kill");
    let length = 48 * MIB + 12_345;
    for victim in 0..3 {
        for in_the_middle in [false, true] {
            let mut cluster =
                Cluster::with(&ClusterOptions { pool_mib: 96, ..ClusterOptions::default() });
            let client = cluster.client();
            put(&cluster, &client, "o", bytes(7, length));
            let pid = cluster.servers()[victim].pid();
            let kill = move || {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            };
            let call_at = if in_the_middle {
                length / 3
            } else {
                kill();
                u64::MAX
            };
            assert_eq!(get_comparing(&cluster, &client, "o", 7, call_at, kill).unwrap(), length);
            cluster.kill(victim);
            let mut random = Seeded::from_environment("ranges beside a kill");
            for _ in 0..20 {
                let start = random.below(length);
                let end = start + random.below(length - start + 1);
                let options = GetOptions::default();
                let range = client.get_range(b"o", start..end, &options);
                let began = Instant::now();
                let value = cluster.runtime().block_on(range).unwrap().unwrap();
                let took = began.elapsed();
                assert!(took < DEAD_SERVER_BOUND, "a server known to be dead cost {took:?}");
                assert!(value.into_bytes() == Pattern(7).bytes(start, end - start));
                counts.one("ranges");
            }
            counts.one("kills");
        }
    }
    assert_eq!((counts.of("kills"), counts.of("ranges")), (6, 120));
}

#[test]
fn found_absent_and_unknown_are_said_exactly_when_they_are_true() {
    let mut cluster = Cluster::start(3);
    let client = cluster.client();
    put(&cluster, &client, "small", bytes(1, 1_000));
    put(&cluster, &client, "large", bytes(2, 9 * MIB));
    let found = |cluster: &Cluster, client: &Client| {
        assert!(get(cluster, client, "small").unwrap().unwrap() == bytes(1, 1_000));
        assert!(get(cluster, client, "large").unwrap().unwrap() == bytes(2, 9 * MIB));
    };
    let is_unknown = |result: Result<Option<Vec<u8>>, Error>| {
        assert!(matches!(result, Err(Error::Unknown { .. })), "{result:?}");
    };
    assert_eq!(get(&cluster, &client, "none").unwrap(), None, "all three said no");
    for victim in 0..3 {
        cluster.kill(victim);
        found(&cluster, &client);
        is_unknown(get(&cluster, &client, "none"));
        // A new client, which never spoke to the dead server, says the same.
        is_unknown(get(&cluster, &cluster.client(), "none"));
        cluster.restart(victim);
        cluster.until_alive(3, Duration::from_secs(5));
        // The restarted server is empty, and says so.
        until("the restarted server is known", Duration::from_secs(10), || {
            matches!(get(&cluster, &client, "none"), Ok(None))
        });
        found(&cluster, &client);
        put(&cluster, &client, "small", bytes(1, 1_000));
        put(&cluster, &client, "large", bytes(2, 9 * MIB));
    }
    // With all copies gone and every server answering, the object is absent.
    (0..3).for_each(|victim| cluster.kill(victim));
    is_unknown(get(&cluster, &client, "small"));
    (0..3).for_each(|victim| cluster.restart(victim));
    cluster.until_alive(3, Duration::from_secs(5));
    until("all servers are known again", Duration::from_secs(10), || {
        matches!(get(&cluster, &client, "small"), Ok(None))
    });
}

#[test]
fn nobody_says_absent_while_the_registry_is_only_seconds_old() {
    let young = ClusterOptions { is_young: true, ..ClusterOptions::default() };
    let cluster = Cluster::with(&young);
    let client = cluster.client();
    put(&cluster, &client, "there", bytes(1, 10));
    assert!(matches!(get(&cluster, &client, "none"), Err(Error::Unknown { .. })));
    assert!(get(&cluster, &client, "there").unwrap().is_some());
    until("the registry is old enough", Duration::from_secs(12), || {
        matches!(get(&cluster, &client, "none"), Ok(None))
    });
}

#[test]
fn what_members_may_have_missed_is_short_while_the_registry_is_only_seconds_old() {
    let young = ClusterOptions { servers: 1, is_young: true, ..ClusterOptions::default() };
    let cluster = Cluster::with(&young);
    let client = cluster.client();
    let put = |options: &PutOptions| {
        let put = client.put(b"object", bytes(1, 10), options);
        cluster.runtime().block_on(put).expect("a server is there")
    };
    let mut one = PutOptions::default();
    one.replicas = Some(1);
    assert!(!put(&one).is_short());
    let report = put(&PutOptions::default());
    assert_eq!((report.copies, report.wanted, report.is_short()), (1, 2, true));
    assert!(report.problems.iter().any(|problem| problem.contains("only seconds old")));
    let deleted = cluster.runtime().block_on(client.delete(b"object")).expect("it is told");
    assert_eq!((deleted.applied, deleted.wanted, deleted.existed), (1, 2, true));
    until("the registry is old enough", Duration::from_secs(12), || {
        matches!(get(&cluster, &client, "none"), Ok(None))
    });
    assert_eq!(put(&PutOptions::default()).wanted, 1);
    let deleted = cluster.runtime().block_on(client.delete(b"object")).expect("it is told");
    assert!(!deleted.is_short());
}

#[test]
fn a_put_whose_future_is_dropped_leaves_nothing_on_the_servers() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    let given = Arc::new(AtomicU64::new(0));
    let reader = Endless { salt: 1, offset: 0, given: Arc::clone(&given) };
    let writer = client.clone();
    let task = cluster.runtime().spawn(async move {
        let limited = tokio::io::AsyncReadExt::take(reader, 40 * MIB);
        // Waits for ever at the end, so that the put cannot finish.
        let source = Source::reader(tokio::io::AsyncReadExt::chain(limited, Never));
        writer.put(b"o", source, &PutOptions::default()).await
    });
    until("stripes are written", Duration::from_secs(10), || {
        used_bytes(&cluster, &client) >= 2 * 36 * MIB
    });
    until("the whole source is read", Duration::from_secs(10), || {
        given.load(Ordering::Relaxed) >= 40 * MIB
    });
    assert_eq!(get(&cluster, &client, "o").unwrap(), None, "nothing is visible");
    task.abort();
    until("the stripes are gone", Duration::from_secs(30), || used_bytes(&cluster, &client) == 0);
}

/// A reader from which nothing ever comes.
struct Never;

impl AsyncRead for Never {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

/// In a process of its own: puts an object that never ends, with a short lease.
/// Run by the test below; does nothing when run by hand.
#[test]
fn helper_that_puts_for_ever() {
    let Ok(url) = std::env::var("HARNESS_PUTS_FOR_EVER") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut options = rampuddle_client::Options::new(url);
        options.cluster = "test".to_owned();
        options.upload_lease = Duration::from_secs(2);
        let client = Client::connect(options).await.unwrap();
        let given = Arc::new(AtomicU64::new(0));
        let reader = Endless { salt: 1, offset: 0, given };
        let limited = tokio::io::AsyncReadExt::take(reader, 40 * MIB);
        let source = Source::reader(tokio::io::AsyncReadExt::chain(limited, Never));
        let mut options = PutOptions::default();
        let ttl = std::env::var("HARNESS_TTL_SECONDS").ok();
        options.ttl = ttl.map(|seconds| Duration::from_secs(seconds.parse().unwrap()));
        let _ = client.put(b"o", source, &options).await;
    });
}

#[test]
fn a_put_whose_client_is_killed_leaves_nothing_visible_and_its_pages_come_back() {
    kill_who_puts(&[]);
}

/// The life of an object begins with its head: until then its stripes are an
/// upload's as all others.
#[test]
fn a_put_with_a_ttl_whose_client_is_killed_leaves_nothing_either() {
    kill_who_puts(&[("HARNESS_TTL_SECONDS", "1")]);
}

fn kill_who_puts(more: &[(&str, &str)]) {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    let mut child = process::Command::new(std::env::current_exe().unwrap())
        .args(["objects::helper_that_puts_for_ever", "--exact", "--nocapture"])
        .env("HARNESS_PUTS_FOR_EVER", cluster.discovery())
        .envs(more.iter().copied())
        .stdout(process::Stdio::null())
        .spawn()
        .unwrap();
    until("stripes are written", Duration::from_secs(20), || {
        used_bytes(&cluster, &client) >= 2 * 36 * MIB
    });
    // The lease is renewed while the client lives, longer than it lasts.
    let since = Instant::now();
    until("the first lease would have ended", Duration::from_secs(10), || {
        assert!(used_bytes(&cluster, &client) >= 2 * 36 * MIB, "the lease is renewed");
        since.elapsed() > Duration::from_secs(4)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(get(&cluster, &client, "o").unwrap(), None, "nothing is visible");
    until("the lease has ended", Duration::from_secs(10), || used_bytes(&cluster, &client) == 0);
}

#[test]
fn a_put_goes_on_when_a_server_is_killed_in_the_middle_of_it() {
    for victim in 0..3 {
        let mut cluster =
            Cluster::with(&ClusterOptions { pool_mib: 128, ..ClusterOptions::default() });
        let client = cluster.client();
        let length = 60 * MIB;
        let given = Arc::new(AtomicU64::new(0));
        let reader = Endless { salt: 3, offset: 0, given: Arc::clone(&given) };
        let source = Source::reader(tokio::io::AsyncReadExt::take(reader, length));
        let writer = client.clone();
        let put = cluster
            .runtime()
            .spawn(async move { writer.put(b"o", source, &PutOptions::default()).await });
        until("the put is half way", Duration::from_secs(20), || {
            given.load(Ordering::Relaxed) > length / 3
        });
        cluster.kill(victim);
        let report = cluster.runtime().block_on(put).unwrap().expect("two servers are left");
        assert_eq!((report.bytes, report.copies), (length, 2), "{report:?}");
        assert_eq!(get_comparing(&cluster, &client, "o", 3, u64::MAX, || {}).unwrap(), length);
        // Two whole copies are on the two that live: either may go.
        let other = (victim + 1) % 3;
        cluster.kill(other);
        assert_eq!(get_comparing(&cluster, &client, "o", 3, u64::MAX, || {}).unwrap(), length);
    }
}

#[test]
fn a_get_whose_future_is_dropped_holds_nothing_on_the_servers() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    put(&cluster, &client, "o", bytes(1, 20 * MIB));
    let reader = client.clone();
    let began = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&began);
    let task = cluster.runtime().spawn(async move {
        let mut writer = Stuck { began: seen };
        reader.get_to(b"o", &mut writer, None, &GetOptions::default()).await
    });
    until("the read has begun", Duration::from_secs(10), || began.load(Ordering::Relaxed));
    assert!(holds(&cluster, &client) > 0);
    task.abort();
    until("the holds are gone", Duration::from_secs(30), || holds(&cluster, &client) == 0);
}

/// A writer that takes nothing.
struct Stuck {
    began: Arc<AtomicBool>,
}

impl AsyncWrite for Stuck {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        self.began.store(true, Ordering::Relaxed);
        Poll::Pending
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

#[test]
fn a_slow_reader_gets_the_old_bytes_whole_while_the_object_is_replaced_and_deleted() {
    let cluster = Cluster::with(&ClusterOptions { pool_mib: 192, ..ClusterOptions::default() });
    let client = cluster.client();
    let length = 40 * MIB;
    put(&cluster, &client, "o", bytes(1, length));
    let other = cluster.client();
    let runtime = cluster.runtime().handle().clone();
    let change = || {
        let other = other.clone();
        let changed = runtime.spawn(async move {
            other.put(b"o", bytes(2, 5 * MIB), &PutOptions::default()).await.unwrap();
            other.delete(b"o").await.unwrap();
        });
        // Two threads run tasks: this one may wait for the other.
        while !changed.is_finished() {
            std::thread::yield_now();
        }
    };
    assert_eq!(get_comparing(&cluster, &client, "o", 1, 4 * MIB, change).unwrap(), length);
    assert_eq!(get(&cluster, &client, "o").unwrap(), None);
    until("the old bytes are gone", Duration::from_secs(30), || used_bytes(&cluster, &client) == 0);
}

#[test]
fn concurrent_writers_of_one_name_leave_one_whole_object_the_same_on_every_owner() {
    let cluster = Cluster::with(&ClusterOptions { pool_mib: 192, ..ClusterOptions::default() });
    let mut counts = Counts::new("concurrent writers");
    let clients: Vec<Client> = (0..4).map(|_| cluster.client()).collect();
    for round in 0..10_u64 {
        let length = if round.is_multiple_of(2) { 3_000 } else { 5 * MIB };
        let writers = clients.iter().enumerate().map(|(index, client)| {
            let (client, salt) = (client.clone(), round * 10 + index as u64);
            cluster.runtime().spawn(async move {
                client.put(b"o", bytes(salt, length), &PutOptions::default()).await
            })
        });
        let writers: Vec<_> = writers.collect();
        for writer in writers {
            let report = cluster.runtime().block_on(writer).unwrap().unwrap();
            assert!(!report.is_short(), "{report:?}");
            counts.one("puts");
        }
        let found = get(&cluster, &clients[0], "o").unwrap().unwrap();
        let is_one = |index: u64| found == bytes(round * 10 + index, length);
        assert!((0..4).any(is_one), "round {round}: a mix of several writes");
        let located = cluster.runtime().block_on(clients[1].locate(b"o")).unwrap().unwrap();
        let owners = located.copies.iter().filter(|copy| copy.is_owner);
        assert!(owners.clone().count() >= 2);
        assert!(owners.clone().all(|copy| copy.state == CopyState::Whole), "{located:?}");
    }
    assert_eq!(counts.of("puts"), 40);
    // What was overwritten is gone: two copies of the last object are left.
    let client = &clients[0];
    until("displaced stripes are gone", Duration::from_secs(10), || {
        used_bytes(&cluster, client) == 2 * (5 * MIB + 64 * KIB)
    });
}

#[test]
fn the_write_policy_decides_what_counts_as_short() {
    let mut cluster = Cluster::start(3);
    // A copy on every member: with one of three gone there is no stand-in.
    cluster.kill(0);
    for (policy, is_short) in
        [(WritePolicy::All, true), (WritePolicy::Quorum, false), (WritePolicy::One, false)]
    {
        let client = cluster.client();
        let mut options = PutOptions::default();
        (options.replicas, options.write) = (Some(3), Some(policy));
        let put = client.put(b"o", bytes(1, 5 * MIB), &options);
        let report = cluster.runtime().block_on(put).unwrap();
        assert_eq!((report.copies, report.wanted), (2, 3));
        assert_eq!(report.is_short(), is_short, "{policy:?}");
        assert!(get(&cluster, &client, "o").unwrap().unwrap() == bytes(1, 5 * MIB));
    }
}

#[test]
fn a_put_that_may_replace_nothing_goes_round_no_server_that_stands_still() {
    let mut cluster = Cluster::start(3);
    let client = cluster.client();
    let mut guarded = PutOptions::default();
    (guarded.condition, guarded.replicas) = (PutCondition::IfAbsent, Some(1));
    let first = client.put(b"o", bytes(1, 10), &guarded);
    cluster.runtime().block_on(first).unwrap();
    let located = cluster.runtime().block_on(client.locate(b"o")).unwrap().unwrap();
    let owner = located.copies.iter().find(|copy| copy.is_owner).unwrap().server.clone();
    let index = usize::from(owner.as_bytes()[0] - b'a');
    let pid = cluster.server(index).pid();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    for length in [10, 6 * MIB] {
        let second = cluster.client();
        let refused = cluster.runtime().block_on(second.put(b"o", bytes(2, length), &guarded));
        assert!(matches!(refused, Err(Error::Unknown { .. })), "{refused:?}");
    }
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    let third = cluster.client();
    let refused = cluster.runtime().block_on(third.put(b"o", bytes(3, 10), &guarded));
    assert!(matches!(refused, Err(Error::Exists { .. })), "{refused:?}");
    assert!(get(&cluster, &third, "o").unwrap().unwrap() == bytes(1, 10));
}

#[test]
fn a_put_that_finds_no_room_fails_and_leaves_what_is_there() {
    let cluster = Cluster::with(&ClusterOptions { pool_mib: 32, ..ClusterOptions::default() });
    let client = cluster.client();
    put(&cluster, &client, "kept", bytes(1, 20 * MIB));
    let before = used_bytes(&cluster, &client);
    let options = PutOptions::default();
    let refused = cluster.runtime().block_on(client.put(b"more", bytes(2, 60 * MIB), &options));
    assert!(matches!(refused, Err(Error::Failed { .. })), "{refused:?}");
    assert_eq!(used_bytes(&cluster, &client), before, "what came in before is gone again");
    assert!(get(&cluster, &client, "kept").unwrap().unwrap() == bytes(1, 20 * MIB));
    assert_eq!(get(&cluster, &client, "more").unwrap(), None);
}

#[test]
fn a_listing_names_every_object_once_and_the_servers_that_gave_no_answer() {
    let mut cluster = Cluster::start(3);
    let client = cluster.client();
    for index in 0..60 {
        put(&cluster, &client, &format!("a/{index:03}"), bytes(index, 100));
    }
    put(&cluster, &client, "b", bytes(1, 6 * MIB));
    cluster.runtime().block_on(client.delete(b"a/007")).unwrap();
    let list = |cluster: &Cluster, client: &Client, prefix: &[u8]| {
        cluster.runtime().block_on(async {
            let (mut listing, mut names) = (client.list(prefix), Vec::new());
            while let Some(stat) = listing.next().await {
                names.push(stat.unwrap().name);
            }
            (names, listing.unreachable().len())
        })
    };
    let wanted: Vec<Vec<u8>> = (0..60)
        .filter(|index| *index != 7)
        .map(|index| format!("a/{index:03}").into_bytes())
        .collect();
    assert_eq!(list(&cluster, &client, b"a/"), (wanted.clone(), 0));
    assert_eq!(list(&cluster, &client, b"").0.len(), 60);
    cluster.kill(1);
    assert_eq!(list(&cluster, &client, b"a/"), (wanted, 1));
}

/// The size of the long runs: `PUDDLE_SOAK=1` makes it the full one.
pub(crate) fn is_soak() -> bool {
    std::env::var_os("PUDDLE_SOAK").is_some_and(|value| value == "1")
}

#[test]
fn soak_a_real_file_is_whole_after_every_kill_and_in_every_range() {
    let mut counts = Counts::new("a real file");
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("toolchain.tar");
    let root = process::Command::new("rustc").args(["--print", "sysroot"]).output().unwrap();
    let root = String::from_utf8(root.stdout).unwrap();
    // The whole toolchain is more than a gigabyte; an ordinary run takes a part.
    let part = if is_soak() { "." } else { "bin" };
    let made = process::Command::new("tar")
        .args(["-C", root.trim(), "-cf"])
        .args([path.as_os_str(), part.as_ref()])
        .status();
    assert!(made.unwrap().success());
    let length = fs::metadata(&path).unwrap().len();
    assert!(length > if is_soak() { 1 << 30 } else { 1 << 20 }, "{length} bytes");
    println!("the file has {length} bytes");
    let wanted = sha256(&path);
    for victim in 0..3 {
        let pool_mib = length * 3 / 4 / MIB + 64;
        let mut cluster = Cluster::with(&ClusterOptions { pool_mib, ..ClusterOptions::default() });
        let client = cluster.client();
        let options = PutOptions::default();
        let report = cluster.runtime().block_on(client.put(b"f", Source::file(&path), &options));
        assert_eq!(report.unwrap().copies, 2);
        let copy = folder.path().join("copy");
        let fetch = |cluster: &Cluster| {
            let options = GetOptions::default();
            let read = client.get_to_file(b"f", &copy, None, &options);
            cluster.runtime().block_on(read).unwrap().unwrap();
            assert_eq!(sha256(&copy), wanted);
        };
        fetch(&cluster);
        // In the middle of a read: its progress says when.
        let progress = rampuddle_client::Progress::new();
        let mut watched = GetOptions::default();
        watched.progress = Some(Arc::clone(&progress));
        let reader = client.clone();
        let target = copy.clone();
        let read = cluster
            .runtime()
            .spawn(async move { reader.get_to_file(b"f", &target, None, &watched).await });
        until("the read is half way", Duration::from_secs(60), || {
            progress.done_bytes() > length / 3
        });
        cluster.kill(victim);
        cluster.runtime().block_on(read).unwrap().unwrap().unwrap();
        assert_eq!(sha256(&copy), wanted, "server {victim} killed in the middle");
        fetch(&cluster);
        counts.one("kills");
        let mut random = Seeded::from_environment("ranges of a real file");
        let whole = fs::File::open(&path).unwrap();
        for _ in 0..100 {
            let start = random.below(length);
            let bytes = random.below((length - start).min(8 * MIB) + 1);
            let mut expected = vec![0; bytes as usize];
            std::os::unix::fs::FileExt::read_exact_at(&whole, &mut expected, start).unwrap();
            let options = GetOptions::default();
            let range = client.get_range(b"f", start..start + bytes, &options);
            let value = cluster.runtime().block_on(range).unwrap().unwrap();
            assert!(value.into_bytes() == expected, "{bytes} bytes from {start} on");
            counts.one("ranges");
        }
    }
    assert_eq!((counts.of("kills"), counts.of("ranges")), (3, 300));
}

/// By the system's own tool, so that nothing of ours judges itself.
fn sha256(path: &std::path::Path) -> String {
    let output = process::Command::new("sha256sum").arg(path).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

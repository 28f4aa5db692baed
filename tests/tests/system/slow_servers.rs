//! Streams beside one server that is slow, or gives no answer any more: they are
//! about as fast as the others are.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rampuddle_client::blocking;
use rampuddle_client::{Client, GetOptions, Options, PutOptions};
use rampuddle_harness::{Cluster, ClusterOptions, Counts, Fault, Weather, puddle_binary};

use crate::objects::bytes;

const MIB: u64 = 1 << 20;
const LENGTH: u64 = 40 * MIB + 3;
/// Each connection to the slow server carries so many bytes per second, so that one
/// piece of 1 MiB takes more than a minute.
const RATE: u64 = 16 << 10;
/// What all of a stream takes at most, on whatever machine: less than one such piece.
const BEFORE_A_SLOW_PIECE: Duration = Duration::from_secs(MIB / RATE - 4);
/// How long a client waits for a server that moves no byte.
const PATIENCE: Duration = Duration::from_secs(90);

/// What becomes of the connections of one server, some bytes after they begin.
fn harm(fault: Fault) -> Weather {
    Weather { faults: vec![fault], spacing_bytes: 4 << 10 }
}

fn cluster() -> Cluster {
    let options = ClusterOptions { pool_mib: 128, is_proxied: true, ..ClusterOptions::default() };
    Cluster::with(&options)
}

fn patient(cluster: &Cluster) -> Options {
    let mut options = cluster.client_options();
    options.patience = PATIENCE;
    options
}

fn put(cluster: &Cluster, client: &Client, name: &str, salt: u64) {
    let options = PutOptions::default();
    let put = client.put(name.as_bytes(), bytes(salt, LENGTH), &options);
    assert!(!cluster.runtime().block_on(put).expect("it is written").is_short());
}

/// What a server gave, of what a report says.
fn served(served: &[(String, u64)], server: usize) -> u64 {
    let name = char::from(b'a' + server as u8).to_string();
    served.iter().filter(|(server, _)| *server == name).map(|(_, bytes)| bytes).sum()
}

#[test]
fn a_stream_waits_neither_for_a_slow_server_nor_for_one_that_says_nothing() {
    let cluster = cluster();
    let mut counts = Counts::new("streams beside a server in trouble");
    put(&cluster, &cluster.client(), "o", 1);
    for fault in [Fault::Rate(RATE), Fault::BlackHole] {
        // On a busy machine one that was late before the harm may not even be asked.
        let mut happened = 0;
        for harmed in 0..3 {
            // One that has connections to all servers.
            let client = cluster.client_with(patient(&cluster));
            let stream = |client: &Client| {
                let (mut stream, options) = (Vec::new(), GetOptions::default());
                let get = client.get_to(b"o", &mut stream, None, &options);
                let report = cluster.runtime().block_on(get).expect("it is read");
                assert!(stream == bytes(1, LENGTH), "the object's own bytes");
                report.expect("it is there")
            };
            stream(&client);
            cluster.proxies()[harmed].set_weather(harm(fault));
            let began = Instant::now();
            for _ in 0..2 {
                let report = stream(&client);
                let late = served(&report.served, harmed);
                assert!(late < MIB, "{} gave {late} bytes", fault.name());
                counts.one(fault.name());
            }
            assert!(began.elapsed() < BEFORE_A_SLOW_PIECE, "{:?}", began.elapsed());
            happened += cluster.proxies()[harmed].counts().of(fault);
            cluster.proxies()[harmed].set_weather(Weather::default());
        }
        assert!(happened > 0, "nothing was harmed");
    }
}

#[test]
fn a_blocking_reader_does_not_wait_for_a_server_that_says_nothing() {
    let cluster = cluster();
    put(&cluster, &cluster.client(), "o", 1);
    let client = blocking::Client::connect(patient(&cluster)).expect("the client connects");
    let read = || {
        let (mut all, options) = (Vec::new(), GetOptions::default());
        let report = client.get_to(b"o", &mut all, None, &options).expect("it is read");
        assert_eq!(report.expect("it is there").bytes, LENGTH);
        assert!(all == bytes(1, LENGTH));
    };
    read();
    let began = Instant::now();
    // On a busy machine one that was late before the harm may not even be asked.
    let mut happened = 0;
    for harmed in 0..3 {
        cluster.proxies()[harmed].set_weather(harm(Fault::BlackHole));
        (0..2).for_each(|_| read());
        happened += cluster.proxies()[harmed].counts().of(Fault::BlackHole);
        cluster.proxies()[harmed].set_weather(Weather::default());
    }
    assert!(happened > 0, "nothing was harmed");
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
}

/// Runs `puddle get` with more words behind it.
fn get(cluster: &Cluster, words: &[&str]) -> Output {
    let mut command = Command::new(puddle_binary());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PUDDLE_") {
            command.env_remove(name);
        }
    }
    command.args(["--discovery", cluster.discovery(), "--cluster", cluster.name(), "get"]);
    let output = command.args(words).stdin(Stdio::null()).output().expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn puddle_get_waits_for_no_slow_server_be_it_one_object_or_a_tree() {
    let cluster = cluster();
    let client = cluster.client();
    (0..3).for_each(|index| put(&cluster, &client, &format!("t/{index}"), index));
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let is_right = |path: &Path, salt| std::fs::read(path).expect("a file") == bytes(salt, LENGTH);
    let mut counts = Counts::new("puddle get beside a slow server");
    for slow in 0..3 {
        cluster.proxies()[slow].set_weather(harm(Fault::Rate(RATE)));
        let began = Instant::now();
        let piped = get(&cluster, &["t/0", "-"]);
        assert!(piped.stdout == bytes(0, LENGTH));
        get(&cluster, &["t/1", &path("one")]);
        assert!(is_right(&folder.path().join("one"), 1));
        assert!(began.elapsed() < BEFORE_A_SLOW_PIECE, "{:?}", began.elapsed());
        let (began, tree) = (Instant::now(), path(&format!("tree-{slow}")));
        get(&cluster, &["-r", "t/", &tree]);
        for index in 0..3 {
            assert!(is_right(&Path::new(&tree).join(index.to_string()), index));
            counts.one("files of a tree");
        }
        assert!(began.elapsed() < BEFORE_A_SLOW_PIECE, "{:?}", began.elapsed());
        assert!(cluster.proxies()[slow].counts().of(Fault::Rate(RATE)) > 0, "nothing was slow");
        cluster.proxies()[slow].set_weather(Weather::default());
    }
}

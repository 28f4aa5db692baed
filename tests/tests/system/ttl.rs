//! Objects that live for a time, over clusters of real processes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rampuddle_client::{Client, PutOptions, PutReport};
use rampuddle_harness::{Cluster, ClusterOptions, until};

use crate::objects::{bytes, get, get_comparing, put, used_bytes};

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

fn put_for(cluster: &Cluster, client: &Client, name: &str, bytes: Vec<u8>, ttl: u64) -> PutReport {
    let mut options = PutOptions::default();
    options.ttl = Some(Duration::from_secs(ttl));
    let put = client.put(name.as_bytes(), bytes, &options);
    let report = cluster.runtime().block_on(put).expect("the object is written");
    assert!(!report.is_short() && report.problems.is_empty(), "{report:?}");
    report
}

/// How far a clock that was compared with others may be off on a busy machine.
const CLOCK_SLACK_MS: i64 = 1_000;

/// Milliseconds from the end of the object to now; less than nothing before it.
fn since_end(report: &PutReport) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    now.as_millis() as i64 - report.expires_unix_ms.expect("it ends") as i64
}

#[test]
fn objects_with_a_ttl_are_absent_when_it_is_over_and_all_their_pages_come_back() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    let (small, large) = (bytes(1, 1_000), bytes(2, 9 * MIB));
    let reports = [
        put_for(&cluster, &client, "small", small.clone(), 2),
        put_for(&cluster, &client, "large", large.clone(), 2),
    ];
    for (name, object, report) in [("small", small, &reports[0]), ("large", large, &reports[1])] {
        until("the object to end", PATIENCE, || match get(&cluster, &client, name).unwrap() {
            Some(found) => {
                assert!(found == object);
                false
            }
            None => true,
        });
        let early = -since_end(report);
        assert!(early <= CLOCK_SLACK_MS, "\"{name}\" ended {early} ms too early");
        // Another client, which knows nothing of it, says the same.
        assert_eq!(get(&cluster, &cluster.client(), name).unwrap(), None);
    }
    until("all pages to come back", PATIENCE, || used_bytes(&cluster, &client) == 0);
    // The names are free again.
    put(&cluster, &client, "small", bytes(3, 10));
    assert!(get(&cluster, &client, "small").unwrap().unwrap() == bytes(3, 10));
}

#[test]
fn what_replaces_an_object_with_a_ttl_stays_and_the_other_way_round() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    let brief = put_for(&cluster, &client, "stays", bytes(1, 9 * MIB), 1);
    put(&cluster, &client, "stays", bytes(2, 6 * MIB));
    put(&cluster, &client, "goes", bytes(3, 9 * MIB));
    let other = put_for(&cluster, &client, "goes", bytes(4, 6 * MIB), 1);
    until("the lives to be over", PATIENCE, || since_end(&brief).min(since_end(&other)) > 0);
    until("the object to end", PATIENCE, || get(&cluster, &client, "goes").unwrap().is_none());
    assert!(get(&cluster, &client, "stays").unwrap().unwrap() == bytes(2, 6 * MIB));
    until("only what stays to be left", PATIENCE, || {
        used_bytes(&cluster, &client) == 2 * (6 * MIB + (64 << 10))
    });
    assert!(get(&cluster, &client, "stays").unwrap().unwrap() == bytes(2, 6 * MIB));
}

#[test]
fn a_reader_that_began_before_the_end_reads_the_object_whole() {
    let cluster = Cluster::with(&ClusterOptions { pool_mib: 192, ..ClusterOptions::default() });
    let client = cluster.client();
    let length = 40 * MIB;
    put_for(&cluster, &client, "o", bytes(1, length), 10);
    let other = cluster.client();
    let runtime = cluster.runtime().handle().clone();
    let over = || {
        let other = other.clone();
        let looked = runtime.spawn(async move {
            while other.stat(b"o").await.unwrap().is_some() {
                tokio::task::yield_now().await;
            }
        });
        // Two threads run tasks: this one may wait for the other.
        while !looked.is_finished() {
            std::thread::yield_now();
        }
    };
    assert_eq!(get_comparing(&cluster, &client, "o", 1, 4 * MIB, over).unwrap(), length);
    assert_eq!(get(&cluster, &client, "o").unwrap(), None);
    until("all pages to come back", PATIENCE, || used_bytes(&cluster, &client) == 0);
}

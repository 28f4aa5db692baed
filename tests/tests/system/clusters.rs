//! The harness's own clusters: members, the living, clients.

use std::time::Duration;

use rampuddle_client::{CreateItem, GatherItem, Target};
use rampuddle_harness::{Cluster, Counts, Oracle, Pattern, Transport, kill_hard};

const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn a_killed_server_is_down_at_once_and_stays_a_member() {
    let mut cluster = Cluster::start(3);
    cluster.until_alive(3, PATIENCE);
    let addresses = cluster.addresses();
    cluster.kill(1);
    cluster.until_alive(2, Duration::from_secs(1));
    let snapshot = cluster.snapshot();
    assert!(snapshot.alive("b").is_none() && snapshot.members.len() == 3);
    cluster.restart(1);
    cluster.until_alive(3, PATIENCE);
    assert_eq!(cluster.addresses(), addresses, "the same ports");
    kill_hard([cluster.server(0)]);
    cluster.until_alive(2, Duration::from_secs(1));
}

#[test]
fn values_placed_on_three_servers_are_all_read_back() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    let mut counts = Counts::new("values on three servers");
    let mut oracle = Oracle::new();
    let items: Vec<CreateItem> = (0..100_u64)
        .map(|number| {
            let key = format!("key {number}").into_bytes();
            oracle.created_value(&key, 70_000, 70_000, Pattern(number));
            CreateItem::new(key, Pattern(number).bytes(0, 70_000))
        })
        .collect();
    let created = cluster.runtime().block_on(client.raw().create(&Target::Placement, items));
    for answer in created {
        answer.expect("created");
        counts.one("created");
    }
    let keys: Vec<Vec<u8>> = oracle.keys().map(<[u8]>::to_vec).collect();
    let items = keys.iter().map(|key| GatherItem::whole(key.clone())).collect();
    let found = cluster.runtime().block_on(client.raw().gather(&Target::Placement, items));
    for (key, answer) in keys.iter().zip(found) {
        let answer = answer.expect("gathered");
        oracle.check(key, 0, &answer.bytes);
        counts.one("read back");
    }
    // Each server has some.
    for server in cluster.servers() {
        assert!(server.client(Transport::Unix).info().values > 0, "{}", server.name());
    }
    assert_eq!(counts.of("read back"), 100);
}

//! Objects over clusters of real processes, by each strategy of placement.

use std::time::Duration;

use rampuddle_client::{
    Client, CopyState, Error, GetOptions, ObjectStat, PutOptions, PutReport, WritePolicy,
};
use rampuddle_discovery::Strategy;
use rampuddle_harness::{Cluster, ClusterOptions, Counts, Pattern, until};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn cluster(strategy: Strategy, servers: usize) -> Cluster {
    let options = ClusterOptions { servers, pool_mib: 96, strategy, ..ClusterOptions::default() };
    let cluster = Cluster::with(&options);
    assert_eq!(cluster.snapshot().settings.map(|settings| settings.strategy), Some(strategy));
    cluster
}

fn bytes(salt: u64, length: u64) -> Vec<u8> {
    Pattern(salt).bytes(0, length)
}

fn put(cluster: &Cluster, client: &Client, name: &str, bytes: Vec<u8>) -> PutReport {
    put_with(cluster, client, name, bytes, &PutOptions::default()).expect("the object is written")
}

fn put_with(
    cluster: &Cluster,
    client: &Client,
    name: &str,
    bytes: Vec<u8>,
    options: &PutOptions,
) -> Result<PutReport, Error> {
    cluster.runtime().block_on(client.put(name.as_bytes(), bytes, options))
}

fn get(cluster: &Cluster, client: &Client, name: &str) -> Result<Option<Vec<u8>>, Error> {
    let options = GetOptions::default();
    let value = cluster.runtime().block_on(client.get(name.as_bytes(), &options))?;
    Ok(value.map(|value| value.into_bytes().to_vec()))
}

fn list(cluster: &Cluster, client: &Client) -> Vec<ObjectStat> {
    cluster.runtime().block_on(async {
        let (mut listing, mut stats) = (client.list(b""), Vec::new());
        while let Some(stat) = listing.next().await {
            stats.push(stat.unwrap());
        }
        assert!(listing.unreachable().is_empty());
        stats
    })
}

/// Bytes of the pool in use on each server that answers.
fn used_bytes(cluster: &Cluster, client: &Client) -> Vec<u64> {
    let nodes = cluster.runtime().block_on(client.nodes());
    let rows = nodes.iter().filter_map(|node| node.info.as_ref()).map(|info| info.row);
    rows.map(|row| row.used_bytes + row.reserved_bytes).collect()
}

#[track_caller]
fn assert_unknown(result: &Result<Option<Vec<u8>>, Error>) {
    assert!(matches!(result, Err(Error::Unknown { .. })), "{result:?}");
}

#[test]
fn objects_on_a_ring_are_written_read_listed_and_deleted() {
    let cluster = cluster(Strategy::Ring, 4);
    let client = cluster.client();
    let mut counts = Counts::new("objects on a ring");
    let lengths = [0, 1, 100, 64 * KIB, MIB, MIB + 1, 9 * MIB];
    for length in lengths {
        let report = put(&cluster, &client, &format!("{length:08}"), bytes(length, length));
        assert_eq!((report.copies, report.wanted, report.replicas), (2, 2, 2));
        assert!(report.stand_ins.is_empty(), "every owner took its copy");
    }
    // Another client finds them by the same ring.
    let other = cluster.client();
    for length in lengths {
        let found = get(&cluster, &other, &format!("{length:08}")).unwrap().unwrap();
        assert!(found == bytes(length, length));
        counts.one("read");
    }
    let names: Vec<Vec<u8>> = list(&cluster, &other).into_iter().map(|stat| stat.name).collect();
    let wanted = lengths.map(|length| format!("{length:08}").into_bytes());
    assert_eq!(names, wanted);
    assert!(used_bytes(&cluster, &other).iter().all(|used| *used > 0), "all four have some");
    for length in lengths {
        let name = format!("{length:08}");
        let report = cluster.runtime().block_on(other.delete(name.as_bytes())).unwrap();
        assert_eq!((report.existed, report.is_short()), (true, false), "{report:?}");
        assert_eq!(get(&cluster, &client, &name).unwrap(), None);
        counts.one("deleted");
    }
    assert_eq!(used_bytes(&cluster, &client), [0; 4]);
    assert_eq!((counts.of("read"), counts.of("deleted")), (7, 7));
}

#[test]
fn objects_on_a_ring_survive_any_one_server_and_a_miss_beside_a_dead_one_is_unknown() {
    let mut counts = Counts::new("a ring beside a kill");
    for victim in 0..3 {
        let mut cluster = cluster(Strategy::Ring, 3);
        let client = cluster.client();
        for number in 0..10 {
            let length = if number == 0 { 20 * MIB + 5 } else { 1_000 };
            put(&cluster, &client, &format!("o{number}"), bytes(number, length));
        }
        assert_eq!(get(&cluster, &client, "none").unwrap(), None);
        cluster.kill(victim);
        for number in 0..10 {
            let length = if number == 0 { 20 * MIB + 5 } else { 1_000 };
            let found = get(&cluster, &client, &format!("o{number}")).unwrap().unwrap();
            assert!(found == bytes(number, length), "server {victim} killed, object {number}");
            counts.one("read");
        }
        assert_unknown(&get(&cluster, &client, "none"));
        // A stand-in takes the copy of the owner that is gone.
        let report = put(&cluster, &client, "later", bytes(99, 6 * MIB));
        assert_eq!((report.copies, report.is_short()), (2, false), "{report:?}");
        assert!(get(&cluster, &cluster.client(), "later").unwrap().unwrap() == bytes(99, 6 * MIB));
    }
    assert_eq!(counts.of("read"), 30);
}

#[test]
fn a_cloned_cluster_has_a_copy_of_everything_on_every_server() {
    let cluster = cluster(Strategy::Clone, 4);
    let client = cluster.client();
    let mut counts = Counts::new("objects of a cloned cluster");
    for (name, length) in [("small", 1_000), ("large", 9 * MIB)] {
        let report = put(&cluster, &client, name, bytes(length, length));
        assert_eq!((report.copies, report.wanted, report.replicas), (4, 4, 255), "{report:?}");
        let located = cluster.runtime().block_on(client.locate(name.as_bytes())).unwrap().unwrap();
        let is_whole_owner =
            |copy: &&rampuddle_client::CopyPlace| copy.is_owner && copy.state == CopyState::Whole;
        let values = 1 + located.stat.stripes as usize;
        assert_eq!(located.copies.iter().filter(is_whole_owner).count(), 4 * values);
        assert_eq!(located.stat.replicas, 255);
        counts.add("copies", located.copies.len() as u64);
    }
    assert!(list(&cluster, &client).iter().all(|stat| stat.replicas == 255));
    // Each server alone has everything: its bytes are those of all others.
    let used = used_bytes(&cluster, &client);
    assert!(used[0] > 9 * MIB && used.iter().all(|one| *one == used[0]), "{used:?}");
    for name in ["small", "large"] {
        let report = cluster.runtime().block_on(client.delete(name.as_bytes())).unwrap();
        assert_eq!((report.existed, report.wanted, report.applied), (true, 4, 4), "{report:?}");
        assert_eq!(get(&cluster, &client, name).unwrap(), None);
    }
    assert_eq!(used_bytes(&cluster, &client), [0; 4]);
    assert_eq!(counts.of("copies"), 4 + 4 * 4);
}

#[test]
fn a_cloned_cluster_refuses_any_other_number_of_copies_before_anything_is_done() {
    let cluster = cluster(Strategy::Clone, 3);
    let client = cluster.client();
    let refused = |client: &Client, options: &PutOptions| {
        let refused = put_with(&cluster, client, "o", bytes(1, 10), options).unwrap_err();
        assert!(matches!(refused, Error::BadOption { .. }), "{refused:?}");
        let told = refused.to_string();
        assert!(told.contains("every member has a copy") && told.contains("--replicas"), "{told}");
    };
    let mut options = PutOptions::default();
    for replicas in [0, 1, 2, 3, 254] {
        options.replicas = Some(replicas);
        refused(&client, &options);
    }
    let mut of_client = cluster.client_options();
    of_client.replicas = Some(2);
    refused(&cluster.client_with(of_client), &PutOptions::default());
    assert_eq!(used_bytes(&cluster, &client), [0; 3]);
    options.replicas = Some(255);
    put_with(&cluster, &client, "o", bytes(1, 10), &options).unwrap();
}

#[test]
fn one_server_that_is_left_of_a_cloned_cluster_has_every_object_and_never_says_absent() {
    let mut cluster = cluster(Strategy::Clone, 4);
    let client = cluster.client();
    put(&cluster, &client, "small", bytes(1, 1_000));
    put(&cluster, &client, "large", bytes(2, 9 * MIB));
    assert_eq!(get(&cluster, &client, "none").unwrap(), None, "all four said no");
    for victim in [2, 0, 3] {
        cluster.kill(victim);
        assert!(get(&cluster, &client, "small").unwrap().unwrap() == bytes(1, 1_000));
        assert!(get(&cluster, &client, "large").unwrap().unwrap() == bytes(2, 9 * MIB));
        assert_unknown(&get(&cluster, &client, "none"));
        assert_unknown(&get(&cluster, &cluster.client(), "none"));
    }
    // What is written now is on one of four: there, but short.
    let report = put(&cluster, &client, "alone", bytes(3, 5 * MIB));
    assert_eq!((report.copies, report.wanted, report.is_short()), (1, 4, true), "{report:?}");
    let mut options = PutOptions::default();
    options.write = Some(WritePolicy::One);
    let report = put_with(&cluster, &client, "alone", bytes(4, 5 * MIB), &options).unwrap();
    assert!(!report.is_short() && report.stand_ins.is_empty(), "{report:?}");
    // A delete that three have missed says so.
    let report = cluster.runtime().block_on(client.delete(b"small")).unwrap();
    assert_eq!((report.wanted, report.applied, report.is_short()), (4, 1, true), "{report:?}");
    (0..4).filter(|index| *index != 1).for_each(|index| cluster.restart(index));
    cluster.until_alive(4, Duration::from_secs(5));
    until("the restarted servers are known", Duration::from_secs(10), || {
        matches!(get(&cluster, &client, "none"), Ok(None))
    });
    // They are empty; the one that stayed has the objects, whomever is asked first.
    for _ in 0..20 {
        assert!(get(&cluster, &cluster.client(), "alone").unwrap().unwrap() == bytes(4, 5 * MIB));
        assert_eq!(get(&cluster, &cluster.client(), "small").unwrap(), None);
    }
}

#[test]
fn an_object_that_only_the_last_rank_of_a_cloned_cluster_has_is_found() {
    // More servers than readers look at in another cluster, which is six.
    let mut cluster = cluster(Strategy::Clone, 8);
    let client = cluster.client();
    let ranks: Vec<usize> = {
        let slot = rampuddle_client::Slot::of(b"\xf8o", 0);
        let view = client.view();
        view.ranks(slot).iter().map(|name| usize::from(name.as_bytes()[0] - b'a')).collect()
    };
    put(&cluster, &client, "o", bytes(1, 5 * MIB));
    // All others lose their memory.
    for index in &ranks[..7] {
        cluster.kill(*index);
        cluster.restart(*index);
    }
    cluster.until_alive(8, Duration::from_secs(10));
    until("the restarted servers are known", Duration::from_secs(10), || {
        matches!(get(&cluster, &client, "none"), Ok(None))
    });
    assert!(get(&cluster, &cluster.client(), "o").unwrap().unwrap() == bytes(1, 5 * MIB));
    cluster.kill(ranks[7]);
    assert_unknown(&get(&cluster, &client, "o"));
    assert_unknown(&get(&cluster, &cluster.client(), "none"));
}

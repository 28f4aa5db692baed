//! What happens to a server in etcd in real life.

use std::time::Duration;

use rampuddle_discovery::{Member, Revision, Snapshot, Watch};
use rampuddle_harness::{Etcd, EtcdOptions, FakeAnswer, FakeHttp, Machine, pace};
use serde_json::json;

use crate::base64;
use crate::etcd::prefix;
use crate::support::{
    HEARTBEAT, PATIENCE, backend, check_a_freed_name, check_a_return, check_a_stopped_process,
    is_alive, is_dead, server, until, within,
};

/// etcd looks for leases that ended twice a second.
const GRANULARITY: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_lease_or_key_somebody_removes_is_back() {
    let Some(etcd) = Etcd::shared() else { return };
    let prefix = prefix();
    let (watcher, living) =
        (backend(&format!("etcd://{}/{prefix}", etcd.address())), server("a", 1));
    let (announced, machine) = (watcher.announce(&living).await.unwrap(), Machine::watched());
    let key = base64(format!("{prefix}/lab/living/a").as_bytes());
    for what in ["lease", "key", "value"] {
        let pair = etcd.api("/v3/kv/range", &json!({ "key": key }))["kvs"][0].clone();
        let call = match what {
            "lease" => ("/v3/lease/revoke", json!({ "ID": pair["lease"] })),
            "key" => ("/v3/kv/deleterange", json!({ "key": key })),
            _ => ("/v3/kv/put", json!({ "key": key, "value": base64(b"{}") })),
        };
        etcd.api(call.0, &call.1);
        until("lost", PATIENCE, &*watcher, is_dead(&living)).await;
        let lost = machine.now();
        let back = until("back", PATIENCE, &*watcher, is_alive(&living)).await;
        machine.assert_within(&format!("{what} removed: back"), lost, back, 2 * HEARTBEAT);
    }
    // Longer than a lease lasts by itself.
    pace(5 * HEARTBEAT);
    assert!(is_alive(&living)(&watcher.snapshot().await.unwrap()));
    announced.withdraw().await.unwrap();
    assert_eq!(watcher.snapshot().await.unwrap().living, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_compaction_all_is_read_again() {
    let Some(etcd) = Etcd::start(&EtcdOptions::default()) else { return };
    let url = format!("etcd://{}", etcd.address());
    let (watcher, writer) = (backend(&url), backend(&url));
    let (mut revision, machine) = (Revision::ABSENT, Machine::watched());
    for weight in [1.0, 2.0, 3.0] {
        assert_eq!(watcher.snapshot().await.unwrap().members.len(), usize::from(weight > 1.0));
        // What was read is forgotten by etcd before anybody waits for a change.
        for more in [0.1, 0.2, 0.3] {
            let member = Member::ready("a", weight + more);
            revision = writer.write_member(&member, revision).await.unwrap();
        }
        let compacted = etcd.compact();
        let began = machine.now();
        within("a compaction wakes", PATIENCE, watcher.changed()).await.unwrap();
        machine.assert_within("a compaction wakes", began, began.elapsed(), HEARTBEAT);
        let found = watcher.snapshot().await.unwrap();
        assert_eq!(found.member("a").unwrap().value.weight, weight + 0.3);
        println!("compacted at {compacted}: read again");
    }
    // And a watch goes on over it.
    let mut watch = Watch::start(watcher, PATIENCE).await.unwrap();
    for weight in [5.0, 6.0] {
        revision = writer.write_member(&Member::ready("a", weight), revision).await.unwrap();
        etcd.compact();
        let seen = async {
            while watch.current().members[0].value.weight < weight {
                watch.changed().await;
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.expect("the watch goes on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_back_within_two_heartbeats_of_etcds_return() {
    let Some(mut etcd) = Etcd::start(&EtcdOptions::default()) else { return };
    check_a_return("etcd", &mut etcd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_sees_changes_after_etcd_was_wiped() {
    let Some(mut etcd) = Etcd::start(&EtcdOptions::default()) else { return };
    let url = format!("etcd://{}", etcd.address());
    let (watcher, writer) = (backend(&url), backend(&url));
    let mut revision = Revision::ABSENT;
    for weight in 1..=9 {
        let member = Member::ready("a", f64::from(weight));
        revision = writer.write_member(&member, revision).await.unwrap();
    }
    let mut watch = Watch::start(watcher, PATIENCE).await.unwrap();
    etcd.kill();
    etcd.wipe();
    etcd.start_again();
    writer.write_member(&Member::ready("b", 1.0), Revision::ABSENT).await.unwrap();
    let seen = async {
        while watch.current().member("b").is_none() {
            watch.changed().await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("the watch reads again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_for_a_while_is_back_in_etcd_unless_another_has_its_name() {
    let Some(etcd) = Etcd::shared() else { return };
    let url = format!("etcd://{}/{}", etcd.address(), prefix());
    check_a_stopped_process(&url, GRANULARITY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_a_silent_server_is_freed_in_etcd() {
    let Some(etcd) = Etcd::shared() else { return };
    check_a_freed_name(&format!("etcd://{}/{}", etcd.address(), prefix())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_member_of_several_is_enough() {
    let Some(etcd) = Etcd::shared() else { return };
    let silent = FakeHttp::start(|_| FakeAnswer::Nothing);
    // Nobody listens at the first; the second takes requests and answers none.
    let hosts = format!("127.0.0.1:1,{},{}", silent.address(), etcd.address());
    for _ in 0..6 {
        let url = format!("etcd://{hosts}/{}", prefix());
        let (watcher, living) = (backend(&url), server("a", 1));
        let took = until("read", PATIENCE, &*watcher, Snapshot::is_empty).await;
        assert!(took < Duration::from_secs(5), "{took:?}");
        let announced = watcher.announce(&living).await.unwrap();
        assert_eq!(watcher.snapshot().await.unwrap().living, [living]);
        announced.withdraw().await.unwrap();
    }
}

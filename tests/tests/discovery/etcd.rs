//! etcd.

use std::sync::atomic::{AtomicUsize, Ordering};

use rampuddle_discovery::conformance::{Capability, Record, Service, run};
use rampuddle_discovery::open;
use rampuddle_harness::Etcd;
use serde_json::{Value, json};

use crate::base64;

/// A place of its own in the member that all tests share.
pub(crate) fn prefix() -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    format!("tested-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn empty_service() -> Service {
    let etcd = Etcd::shared().expect("it runs");
    let prefix = prefix();
    let url = format!("etcd://{}/{prefix}", etcd.address());
    let lease = etcd.api("/v3/lease/grant", &json!({ "TTL": 600 }))["ID"].clone();
    let plant = move |record: Record<'_>, text: &str| {
        let put = |key: &str, lease: &Value| {
            let key = base64(format!("{prefix}/lab/{key}").as_bytes());
            let put = json!({ "key": key, "value": base64(text.as_bytes()), "lease": lease });
            etcd.api("/v3/kv/put", &put);
        };
        match record {
            Record::Settings => put("settings", &json!(0)),
            Record::Member(name) => put(&format!("members/{name}"), &json!(0)),
            Record::Living(name) => put(&format!("living/{name}"), &lease),
            _ => panic!("no place for {record:?}"),
        }
    };
    Service::new(move |cluster| open(&url, cluster).unwrap()).planting(plant)
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_conforms() {
    let Some(etcd) = Etcd::shared() else { return };
    let report = run(empty_service, Capability::Records).await;
    println!("{}", report.told("etcd", &format!("etcd {}", etcd.version())));
    assert_eq!(report.sentences.len(), 24);
}

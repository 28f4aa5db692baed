//! Consul.

use std::sync::atomic::{AtomicUsize, Ordering};

use rampuddle_discovery::conformance::{Capability, Record, Service, run};
use rampuddle_discovery::open;
use rampuddle_harness::Consul;
use serde_json::json;

/// A place of its own in the agent that all tests share.
pub(crate) fn prefix() -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    format!("tested-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn empty_service() -> Service {
    let consul = Consul::shared().expect("it runs");
    let prefix = prefix();
    let url = format!("consul://{}/{prefix}", consul.address());
    let session = consul.json("PUT", "/v1/session/create", &json!({ "Behavior": "delete" }));
    let session = session["ID"].as_str().expect("a session has an id").to_owned();
    let plant = move |record: Record<'_>, text: &str| {
        let put = |key: &str, query: &str| {
            let target = format!("/v1/kv/{prefix}/lab/{key}{query}");
            assert_eq!(consul.json_of("PUT", &target, text.as_bytes()), true);
        };
        match record {
            Record::Settings => put("settings", ""),
            Record::Member(name) => put(&format!("members/{name}"), ""),
            Record::Living(name) => {
                let meta = json!({ "cluster": "lab", "name": name });
                let service = json!({
                    "ID": format!("{prefix}-{name}"), "Name": prefix, "Tags": ["lab"], "Meta": meta,
                });
                consul.json("PUT", "/v1/agent/service/register", &service);
                put(&format!("living/{name}"), &format!("?acquire={session}"));
            }
            _ => panic!("no place for {record:?}"),
        }
    };
    Service::new(move |cluster| open(&url, cluster).unwrap())
        .planting(plant)
        .planting_at_most(500 << 10)
}

#[tokio::test(flavor = "multi_thread")]
async fn consul_conforms() {
    let Some(consul) = Consul::shared() else { return };
    let report = run(empty_service, Capability::Records).await;
    println!("{}", report.told("consul", &format!("Consul {}", consul.version())));
    assert_eq!(report.sentences.len(), 24);
}

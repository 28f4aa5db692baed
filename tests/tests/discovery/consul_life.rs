//! What happens to a server in Consul in real life.

use std::time::Duration;

use rampuddle_harness::{Consul, ConsulOptions, Machine, pace};
use serde_json::{Value, json};

use crate::consul::prefix;
use crate::support::{
    HEARTBEAT, PATIENCE, backend, check_a_freed_name, check_a_return, check_a_stopped_process,
    is_alive, is_dead, server, until,
};

/// What Consul itself adds: its timers, and the way from the agent to its servers.
const GRANULARITY: Duration = Duration::from_secs(1);

fn services(consul: &Consul, prefix: &str) -> Vec<Value> {
    let all = consul.json("GET", "/v1/agent/services", &Value::Null);
    let all = all.as_object().expect("services by their id").values();
    all.filter(|service| service["Service"] == prefix).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_a_service_of_the_local_agent_whose_check_passes() {
    let Some(consul) = Consul::shared() else { return };
    let prefix = prefix();
    let url = format!("consul://{}/{prefix}?dc=dc1&tag=blue,fast", consul.address());
    let announced = backend(&url).announce(&server("a", 1)).await.unwrap();
    let found = services(&consul, &prefix);
    assert_eq!(found.len(), 1, "{found:?}");
    let id = found[0]["ID"].as_str().unwrap();
    assert!(id.starts_with(&format!("{prefix}-lab-a-01010101-")), "{id}");
    assert_eq!(found[0]["Tags"], json!(["lab", "blue", "fast"]));
    assert_eq!((&found[0]["Address"], &found[0]["Port"]), (&json!("127.0.0.1"), &json!(7001)));
    assert_eq!(found[0]["Meta"]["incarnation"], "01".repeat(16));
    // Longer than its check would pass by itself.
    pace(4 * HEARTBEAT);
    let passing = format!("/v1/health/service/{prefix}?passing=1&tag=fast");
    let passing = consul.json("GET", &passing, &Value::Null);
    assert_eq!(passing.as_array().unwrap().len(), 1);
    announced.withdraw().await.unwrap();
    assert_eq!(services(&consul, &prefix), Vec::<Value>::new());
    let elsewhere = backend(&format!("consul://{}/{prefix}?dc=nowhere", consul.address()));
    let error = elsewhere.snapshot().await.unwrap_err().explained();
    assert!(error.contains("No path to datacenter"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_service_session_or_key_somebody_removes_is_back() {
    let Some(consul) = Consul::shared() else { return };
    let prefix = prefix();
    let url = format!("consul://{}/{prefix}", consul.address());
    let (watcher, living) = (backend(&url), server("a", 1));
    let (announced, machine) = (watcher.announce(&living).await.unwrap(), Machine::watched());
    let key = format!("/v1/kv/{prefix}/lab/living/a");
    for what in ["service", "session", "key", "value"] {
        let pair = consul.json("GET", &key, &Value::Null)[0].clone();
        match what {
            "service" => {
                let id = services(&consul, &prefix)[0]["ID"].as_str().unwrap().to_owned();
                consul.json("PUT", &format!("/v1/agent/service/deregister/{id}"), &Value::Null);
            }
            "session" => {
                let session = pair["Session"].as_str().unwrap();
                consul.json("PUT", &format!("/v1/session/destroy/{session}"), &Value::Null);
            }
            "key" => _ = consul.json("DELETE", &key, &Value::Null),
            _ => _ = consul.json("PUT", &key, &json!({ "name": "a", "tcp": "127.0.0.1:1" })),
        }
        until("lost", PATIENCE, &*watcher, |found| !is_alive(&living)(found)).await;
        let lost = machine.now();
        let back = until("back", PATIENCE, &*watcher, is_alive(&living)).await;
        machine.assert_within(&format!("{what} removed: back"), lost, back, 2 * HEARTBEAT);
    }
    announced.withdraw().await.unwrap();
    until("gone", PATIENCE, &*watcher, is_dead(&living)).await;
    assert_eq!(services(&consul, &prefix), Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_back_within_two_heartbeats_of_its_agents_return() {
    let Some(mut consul) = Consul::start(&ConsulOptions::default()) else { return };
    check_a_return("consul", &mut consul).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_for_a_while_is_back_in_consul_unless_another_has_its_name() {
    let Some(consul) = Consul::shared() else { return };
    let url = format!("consul://{}/{}", consul.address(), prefix());
    check_a_stopped_process(&url, GRANULARITY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_a_silent_server_is_freed_in_consul() {
    let Some(consul) = Consul::shared() else { return };
    check_a_freed_name(&format!("consul://{}/{}", consul.address(), prefix())).await;
}

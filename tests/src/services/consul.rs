//! A Consul of one agent, which is its own server.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};

use serde_json::{Value, json};

use super::certificates::Certificates;
use super::daemon::{command_of, shared};
use super::local::{LocalService, is_local_service};
use super::plain_http;
use super::port::Port;

const SCRIPT: &str = "consul.sh";

/// How an agent is started.
#[derive(Debug, Clone, Default)]
pub struct ConsulOptions {
    /// The token that may do everything; nothing may be done without one then.
    pub token: Option<String>,
    /// Whether it listens with TLS as well, and wants certificates of its clients.
    pub certificates: Option<Arc<Certificates>>,
}

/// A running agent.
#[derive(Debug)]
pub struct Consul {
    service: LocalService,
    token: Option<String>,
    /// Of its servers, and of the gossip between them.
    _ports: [Port; 2],
}

is_local_service!(Consul);

static SHARED: Mutex<Weak<Consul>> = Mutex::new(Weak::new());

impl Consul {
    /// The agent that all tests of a process share; it is neither killed nor wiped. None
    /// where Consul cannot be had.
    pub fn shared() -> Option<Arc<Self>> {
        shared(&SHARED, || Self::start(&ConsulOptions::default()))
    }

    /// Starts an agent, and returns when it answers. None where Consul cannot be had.
    ///
    /// # Panics
    /// When it does not answer in time.
    pub fn start(options: &ConsulOptions) -> Option<Self> {
        let command = command_of(SCRIPT, &[])?;
        let token = options.token.clone();
        let mut service =
            LocalService::new("Consul", command, move |address| has_leader(address, &token));
        let ports = [Port::take(), Port::take()];
        let settings = settings(options, &mut service, &ports).to_string();
        let file = service.write("consul.json", settings);
        service.say(["agent".to_owned(), format!("-config-file={}", file.display())]);
        service.start_again();
        let mut agent = Self { service, token: options.token.clone(), _ports: ports };
        let version = agent.ask_version();
        agent.is_of_version(version);
        Some(agent)
    }

    /// Asks it, with the token that may do everything.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn api(&self, method: &str, target: &str, body: &[u8]) -> (u16, String) {
        self.try_api(method, target, body).expect("Consul answers")
    }

    /// Asks it for JSON.
    ///
    /// # Panics
    /// When it does not answer, or refuses.
    pub fn json(&self, method: &str, target: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.json_of(method, target, body.as_bytes())
    }

    /// Asks it for JSON, with any bytes.
    ///
    /// # Panics
    /// When it does not answer, or refuses.
    pub fn json_of(&self, method: &str, target: &str, body: &[u8]) -> Value {
        let (status, said) = self.api(method, target, body);
        assert_eq!(status, 200, "{method} {target}: {said}");
        serde_json::from_str(&said).unwrap_or(Value::Null)
    }

    fn try_api(&self, method: &str, target: &str, body: &[u8]) -> Option<(u16, String)> {
        call(self.address(), &self.token, method, target, body)
    }

    fn ask_version(&self) -> String {
        let agent = self.json("GET", "/v1/agent/self", &Value::Null);
        agent["Config"]["Version"].as_str().unwrap_or("of no known version").to_owned()
    }
}

fn call(
    address: SocketAddr,
    token: &Option<String>,
    method: &str,
    target: &str,
    body: &[u8],
) -> Option<(u16, String)> {
    let token = token.as_ref().map(|token| ("X-Consul-Token", token.as_str()));
    let headers: Vec<_> = token.into_iter().collect();
    plain_http::call(address, method, target, &headers, body)
}

/// Whether it takes what is written, and knows itself as a node.
fn has_leader(address: SocketAddr, token: &Option<String>) -> bool {
    let is_true = |answer: Option<(u16, String)>, wanted: &str| {
        answer.is_some_and(|(status, said)| status == 200 && said.contains(wanted))
    };
    is_true(call(address, token, "PUT", "/v1/kv/started", b""), "true")
        && is_true(call(address, token, "GET", "/v1/health/node/tested", b""), "serfHealth")
}

fn settings(options: &ConsulOptions, service: &mut LocalService, ports: &[Port; 2]) -> Value {
    let [server, gossip] = ports.each_ref().map(Port::number);
    let mut settings = json!({
        "data_dir": service.folder().join("data"),
        "server": true,
        "bootstrap_expect": 1,
        "bind_addr": "127.0.0.1",
        "client_addr": "127.0.0.1",
        "node_name": "tested",
        "disable_update_check": true,
        "log_level": "WARN",
        "performance": { "raft_multiplier": 1 },
        "ports": {
            "http": service.address().port(), "https": -1, "dns": -1, "grpc": -1,
            "server": server, "serf_lan": gossip, "serf_wan": -1,
        },
    });
    if let Some(token) = &options.token {
        settings["acl"] = json!({
            "enabled": true, "default_policy": "deny", "tokens": { "master": token, "agent": token },
        });
        settings["primary_datacenter"] = "dc1".into();
    }
    if let Some(certificates) = &options.certificates {
        settings["ports"]["https"] = service.listens_with_tls().into();
        settings["ca_file"] = certificates.authority().display().to_string().into();
        settings["cert_file"] = certificates.server().0.display().to_string().into();
        settings["key_file"] = certificates.server().1.display().to_string().into();
        settings["verify_incoming_https"] = true.into();
    }
    settings
}

//! A Consul of one agent, which is its own server.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::certificates::Certificates;
use super::daemon::{Daemon, command_of, free_port, shared};
use super::plain_http;
use crate::waiting::until;

const SCRIPT: &str = "consul.sh";
/// How long an agent may take until it has a leader.
const PATIENCE: Duration = Duration::from_secs(60);

/// How an agent is started.
#[derive(Debug, Clone, Default)]
pub struct ConsulOptions {
    /// The token that may do everything; nothing may be done without one then.
    pub token: Option<String>,
    /// Whether it listens with TLS as well, and wants certificates of its clients.
    pub certificates: Option<Arc<Certificates>>,
}

/// A running agent, killed when dropped.
#[derive(Debug)]
pub struct Consul {
    daemon: Option<Daemon>,
    command: Vec<String>,
    folder: TempDir,
    options: ConsulOptions,
    port: u16,
    tls_port: u16,
    version: String,
}

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
        let mut command = command_of(SCRIPT, &[])?;
        let folder = TempDir::new().expect("a temporary folder");
        let (port, tls_port) = (free_port(), free_port());
        let settings = settings(options, folder.path(), port, tls_port);
        let file = folder.path().join("consul.json");
        fs::write(&file, settings.to_string()).expect("the folder is ours");
        command.extend(["agent".to_owned(), format!("-config-file={}", file.display())]);
        let (daemon, version, options) = (None, String::new(), options.clone());
        let mut agent = Self { daemon, command, folder, options, port, tls_port, version };
        agent.start_again();
        agent.version = agent.ask_version();
        println!("Consul {} at {}", agent.version, agent.address());
        Some(agent)
    }

    /// Starts it again, with the same address and what is left of its data, and returns
    /// when it has a leader.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn start_again(&mut self) {
        let log = self.folder.path().join("log");
        self.daemon = Some(Daemon::start(&self.command, &[], &log));
        until("Consul has a leader", PATIENCE, || self.has_leader());
    }

    /// Whether it takes what is written, and knows itself as a node.
    fn has_leader(&self) -> bool {
        let is_true = |answer: Option<(u16, String)>, wanted: &str| {
            answer.is_some_and(|(status, said)| status == 200 && said.contains(wanted))
        };
        is_true(self.try_api("PUT", "/v1/kv/started", b""), "true")
            && is_true(self.try_api("GET", "/v1/health/node/tested", b""), "serfHealth")
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// SIGTERM, as whoever restarts an agent does, and waits until it has ended.
    ///
    /// # Panics
    /// When it does not run.
    pub fn stop(&mut self) {
        self.daemon.take().expect("it runs").stop();
    }

    /// SIGSTOP: it keeps its connections and answers nothing.
    pub fn pause(&self) {
        self.daemon.as_ref().expect("it runs").signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.daemon.as_ref().expect("it runs").signal(Signal::CONT);
    }

    /// Removes all its data, of an agent that was killed.
    ///
    /// # Panics
    /// When it runs.
    pub fn wipe(&mut self) {
        assert!(self.daemon.is_none(), "only one that was killed is wiped");
        fs::remove_dir_all(self.folder.path().join("data")).expect("the folder is ours");
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Where it listens with TLS.
    pub fn tls_address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.tls_port).into()
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
        let token = self.options.token.as_ref().map(|token| ("X-Consul-Token", token.as_str()));
        let headers: Vec<_> = token.into_iter().collect();
        plain_http::call(self.address(), method, target, &headers, body)
    }

    fn ask_version(&self) -> String {
        let agent = self.json("GET", "/v1/agent/self", &Value::Null);
        agent["Config"]["Version"].as_str().unwrap_or("of no known version").to_owned()
    }
}

fn settings(options: &ConsulOptions, folder: &Path, port: u16, tls_port: u16) -> Value {
    let mut settings = json!({
        "data_dir": folder.join("data"),
        "server": true,
        "bootstrap_expect": 1,
        "bind_addr": "127.0.0.1",
        "client_addr": "127.0.0.1",
        "node_name": "tested",
        "disable_update_check": true,
        "log_level": "WARN",
        "performance": { "raft_multiplier": 1 },
        "ports": {
            "http": port, "https": -1, "dns": -1, "grpc": -1,
            "server": free_port(), "serf_lan": free_port(), "serf_wan": -1,
        },
    });
    if let Some(token) = &options.token {
        settings["acl"] = json!({
            "enabled": true, "default_policy": "deny", "tokens": { "master": token, "agent": token },
        });
        settings["primary_datacenter"] = "dc1".into();
    }
    if let Some(certificates) = &options.certificates {
        settings["ports"]["https"] = tls_port.into();
        settings["ca_file"] = certificates.authority().display().to_string().into();
        settings["cert_file"] = certificates.server().0.display().to_string().into();
        settings["key_file"] = certificates.server().1.display().to_string().into();
        settings["verify_incoming_https"] = true.into();
    }
    settings
}

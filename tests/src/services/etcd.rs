//! An etcd of one member.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::certificates::Certificates;
use super::daemon::{Daemon, command_of, free_port, shared};
use super::plain_http;
use crate::waiting::until;

const SCRIPT: &str = "etcd.sh";
/// How long a member may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a member is started.
#[derive(Debug, Clone, Default)]
pub struct EtcdOptions {
    /// After how many seconds a user has to log in again, if not the usual.
    pub token_seconds: Option<u64>,
    /// Whether it listens with TLS as well, and wants certificates of its clients.
    pub certificates: Option<Arc<Certificates>>,
}

/// A running member, killed when dropped.
#[derive(Debug)]
pub struct Etcd {
    daemon: Option<Daemon>,
    command: Vec<String>,
    folder: TempDir,
    port: u16,
    tls_port: u16,
    version: String,
}

static SHARED: Mutex<Weak<Etcd>> = Mutex::new(Weak::new());

impl Etcd {
    /// The member that all tests of a process share; it is neither killed nor wiped.
    /// None where etcd cannot be had.
    pub fn shared() -> Option<Arc<Self>> {
        shared(&SHARED, || Self::start(&EtcdOptions::default()))
    }

    /// Starts a member, and returns when it answers. None where etcd cannot be had.
    ///
    /// # Panics
    /// When it does not answer in time.
    pub fn start(options: &EtcdOptions) -> Option<Self> {
        let mut command = command_of(SCRIPT, &[])?;
        let version = version_of(&command[0]);
        let folder = TempDir::new().expect("a temporary folder");
        let (port, tls_port, peer_port) = (free_port(), free_port(), free_port());
        let plain = format!("http://127.0.0.1:{port}");
        let peer = format!("http://127.0.0.1:{peer_port}");
        let mut listen = plain.clone();
        let mut say = |name: &str, value: String| command.extend([format!("--{name}"), value]);
        if let Some(certificates) = &options.certificates {
            let (certificate, key) = certificates.server();
            listen += &format!(",https://127.0.0.1:{tls_port}");
            say("cert-file", certificate.display().to_string());
            say("key-file", key.display().to_string());
            say("trusted-ca-file", certificates.authority().display().to_string());
            say("client-cert-auth", "true".to_owned());
        }
        if let Some(seconds) = options.token_seconds {
            say("auth-token-ttl", seconds.to_string());
        }
        say("name", "tested".to_owned());
        say("data-dir", folder.path().join("data").display().to_string());
        say("listen-client-urls", listen);
        say("advertise-client-urls", plain);
        say("listen-peer-urls", peer.clone());
        say("initial-advertise-peer-urls", peer.clone());
        say("initial-cluster", format!("tested={peer}"));
        // "--flag value" is not understood of flags that are true or false.
        let command = joined_flags(&command);
        let mut member = Self { daemon: None, command, folder, port, tls_port, version };
        member.start_again();
        println!("etcd {} at {}", member.version, member.address());
        Some(member)
    }

    /// Starts it again, with the same address and what is left of its data, and returns
    /// when it answers.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn start_again(&mut self) {
        let log = self.folder.path().join("log");
        // It only runs where it was tried, unless it is told to.
        let variables = [("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH.to_owned())];
        let variables = if cfg!(target_arch = "x86_64") { &[][..] } else { &variables[..] };
        self.daemon = Some(Daemon::start(&self.command, variables, &log));
        until("etcd answers", PATIENCE, || self.is_healthy());
    }

    fn is_healthy(&self) -> bool {
        let answer = plain_http::call(self.address(), "GET", "/health", &[], b"");
        answer.is_some_and(|(_, said)| said.contains("true"))
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// SIGSTOP: it keeps its connections and answers nothing.
    pub fn pause(&self) {
        self.daemon.as_ref().expect("it runs").signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.daemon.as_ref().expect("it runs").signal(Signal::CONT);
    }

    /// Removes all its data, of a member that was killed.
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

    /// Asks it over its JSON gateway.
    ///
    /// # Panics
    /// When it does not answer, or refuses.
    pub fn api(&self, target: &str, body: &Value) -> Value {
        self.api_as("", target, body)
    }

    /// Asks it with the token of a user.
    ///
    /// # Panics
    /// When it does not answer, or refuses.
    pub fn api_as(&self, token: &str, target: &str, body: &Value) -> Value {
        let headers = [("Authorization", token)];
        let headers = if token.is_empty() { &[][..] } else { &headers[..] };
        let body = body.to_string();
        let answer = plain_http::call(self.address(), "POST", target, headers, body.as_bytes());
        let (status, said) = answer.expect("etcd answers");
        assert_eq!(status, 200, "{target}: {said}");
        serde_json::from_str(&said).expect("etcd answers in JSON")
    }

    /// Forgets all revisions but the last one; returns that.
    pub fn compact(&self) -> u64 {
        let found = self.api("/v3/kv/range", &json!({ "key": "AA==" }));
        let revision = found["header"]["revision"].as_str().expect("etcd says its revision");
        self.api("/v3/kv/compaction", &json!({ "revision": revision, "physical": true }));
        revision.parse().expect("a number")
    }

    /// Gives back the room of what was forgotten; it answers nobody meanwhile.
    pub fn defragment(&self) {
        self.api("/v3/maintenance/defragment", &json!({}));
    }
}

/// `--name value` as `--name=value`.
fn joined_flags(command: &[String]) -> Vec<String> {
    let (program, flags) = command.split_first().expect("there is a program");
    let flags = flags.chunks(2).map(|pair| pair.join("="));
    std::iter::once(program.clone()).chain(flags).collect()
}

fn version_of(program: &str) -> String {
    let output = Command::new(program).arg("--version").output().expect("it can be started");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().next().unwrap_or_default();
    line.trim_start_matches("etcd Version: ").to_owned()
}

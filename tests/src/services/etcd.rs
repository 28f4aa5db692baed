//! An etcd of one member, or of three.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex, Weak};

use serde_json::{Value, json};

use super::certificates::Certificates;
use super::daemon::{command_of, shared};
use super::local::{LocalService, is_local_service};
use super::plain_http;
use super::port::Port;

const SCRIPT: &str = "etcd.sh";

/// How a member is started.
#[derive(Debug, Clone, Default)]
pub struct EtcdOptions {
    /// After how many seconds a user has to log in again, if not the usual.
    pub token_seconds: Option<u64>,
    /// Whether it listens with TLS as well, and wants certificates of its clients.
    pub certificates: Option<Arc<Certificates>>,
}

/// A running member.
#[derive(Debug)]
pub struct Etcd {
    service: LocalService,
    /// For other members.
    peer_port: Port,
}

is_local_service!(Etcd);

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
        let mut member = Self::new(options, "tested")?;
        let others = format!("tested={}", member.peer());
        member.say([format!("--initial-cluster={others}")]);
        member.start_again();
        Some(member)
    }

    /// Starts three members that know each other, and returns when they answer. None where
    /// etcd cannot be had.
    ///
    /// # Panics
    /// When they do not answer in time.
    pub fn start_three() -> Option<[Self; 3]> {
        let options = EtcdOptions::default();
        let mut members = [
            Self::new(&options, "first")?,
            Self::new(&options, "second")?,
            Self::new(&options, "third")?,
        ];
        let [first, second, third] = members.each_ref().map(Self::peer);
        let all = format!("first={first},second={second},third={third}");
        for member in &mut members {
            member.say([format!("--initial-cluster={all}")]);
            // One alone answers nobody.
            member.start_only();
        }
        members.iter().for_each(|member| member.until_it_answers());
        Some(members)
    }

    fn new(options: &EtcdOptions, name: &str) -> Option<Self> {
        let command = command_of(SCRIPT, &[])?;
        let version = version_of(&command[0]);
        let mut service = LocalService::new("etcd", command, is_healthy);
        // It only runs where it was tried, unless it is told to.
        if !cfg!(target_arch = "x86_64") {
            service.set("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH);
        }
        let mut member = Self { service, peer_port: Port::take() };
        let plain = format!("http://{}", member.address());
        let mut listen = plain.clone();
        let mut words = Vec::new();
        // "--flag value" is not understood of flags that are true or false.
        let mut say = |name: &str, value: &str| words.push(format!("--{name}={value}"));
        if let Some(certificates) = &options.certificates {
            let (certificate, key) = certificates.server();
            member.service.listens_with_tls();
            listen += &format!(",https://{}", member.tls_address());
            say("cert-file", &certificate.display().to_string());
            say("key-file", &key.display().to_string());
            say("trusted-ca-file", &certificates.authority().display().to_string());
            say("client-cert-auth", "true");
        }
        if let Some(seconds) = options.token_seconds {
            say("auth-token-ttl", &seconds.to_string());
        }
        say("name", name);
        say("data-dir", &member.folder().join("data").display().to_string());
        say("listen-client-urls", &listen);
        say("advertise-client-urls", &plain);
        say("listen-peer-urls", &member.peer());
        say("initial-advertise-peer-urls", &member.peer());
        member.say(words);
        member.is_of_version(version);
        Some(member)
    }

    /// Where other members find it.
    fn peer(&self) -> String {
        format!("http://{}", self.peer_port.address())
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

fn is_healthy(address: SocketAddr) -> bool {
    let answer = plain_http::call(address, "GET", "/health", &[], b"");
    answer.is_some_and(|(_, said)| said.contains("true"))
}

fn version_of(program: &str) -> String {
    let output = Command::new(program).arg("--version").output().expect("it can be started");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().next().unwrap_or_default();
    line.trim_start_matches("etcd Version: ").to_owned()
}

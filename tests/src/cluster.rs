//! Several servers over one directory.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rampuddle_client::{Client, Options};
use rampuddle_discovery::{Settings, Snapshot, Strategy, open};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::process::{ServeOptions, ServerProcess};
use crate::proxy::FaultProxy;
use crate::seed::Seeded;
use crate::waiting::until;

const CLUSTER: &str = "test";
/// Written beforehand, so that no client waits for a young registry to fill.
const OLD_UNIX_MS: u64 = 1_000;

/// What a cluster is like.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// How many servers.
    pub servers: usize,
    /// Pool of each, in MiB.
    pub pool_mib: u64,
    /// Whether the cluster was created just now, so that clients do not believe
    /// yet that they see all its members.
    pub is_young: bool,
    /// How keys find their owners.
    pub strategy: Strategy,
    /// Whether clients reach each server through a proxy that can harm what passes.
    pub is_proxied: bool,
    /// What a shell does first in the process of each server, by its place;
    /// nothing behind the last.
    pub shells: Vec<String>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            servers: 3,
            pool_mib: 64,
            is_young: false,
            strategy: Strategy::default(),
            is_proxied: false,
            shells: Vec::new(),
        }
    }
}

/// Servers `a`, `b`, `c`, ... and the directory that they share.
#[derive(Debug)]
pub struct Cluster {
    servers: Vec<ServerProcess>,
    proxies: Vec<FaultProxy>,
    discovery: String,
    runtime: Runtime,
    // Removed last.
    _folder: TempDir,
}

impl Cluster {
    /// Starts so many servers with small pools.
    pub fn start(servers: usize) -> Self {
        Self::with(&ClusterOptions { servers, ..ClusterOptions::default() })
    }

    /// Starts the servers, one after the other.
    ///
    /// # Panics
    /// When one does not become ready, or is not announced.
    pub fn with(options: &ClusterOptions) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let discovery = format!("dir:{}", folder.path().join("discovery").display());
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let created = if options.is_young { now.as_millis() as u64 } else { OLD_UNIX_MS };
        runtime.block_on(async {
            let backend = open(&discovery, CLUSTER).expect("a directory");
            let mut settings = Settings::new(CLUSTER, created);
            settings.strategy = options.strategy;
            backend.create_settings(&settings).await.expect("settings are written");
        });
        let mut proxies = Vec::new();
        let mut start = |index: usize| {
            let mut serve = ServeOptions {
                name: char::from(b'a' + index as u8).to_string(),
                discovery: Some(discovery.clone()),
                shell: options.shells.get(index).cloned(),
                ..ServeOptions::with_pool_mib(options.pool_mib)
            };
            if options.is_proxied {
                let proxy = FaultProxy::bind(Seeded::from_environment("faults"));
                // Clients of this machine would go by the socket, past the proxy.
                serve.has_socket = false;
                serve.arguments = vec!["--advertise".to_owned(), proxy.address().to_string()];
                proxies.push(proxy);
            }
            let server = ServerProcess::start(serve);
            assert_eq!(server.ready()["announced"], true, "{}", server.ready());
            if let Some(proxy) = proxies.get(index) {
                proxy.aim(server.address());
            }
            server
        };
        let servers = (0..options.servers).map(&mut start).collect();
        Self { servers, proxies, discovery, runtime, _folder: folder }
    }

    /// The URL of its discovery.
    pub fn discovery(&self) -> &str {
        &self.discovery
    }

    /// Its name.
    pub fn name(&self) -> &str {
        CLUSTER
    }

    /// A runtime to run clients on.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The servers.
    pub fn servers(&self) -> &[ServerProcess] {
        &self.servers
    }

    /// What lies between clients and each server, when the cluster is proxied.
    pub fn proxies(&self) -> &[FaultProxy] {
        &self.proxies
    }

    /// One of the servers.
    pub fn server(&mut self, index: usize) -> &mut ServerProcess {
        &mut self.servers[index]
    }

    /// Where each server listens.
    pub fn addresses(&self) -> Vec<String> {
        self.servers.iter().map(|server| server.address().to_string()).collect()
    }

    /// `kill -9`.
    pub fn kill(&mut self, index: usize) {
        self.servers[index].kill();
    }

    /// Starts a killed server again, on the same port.
    pub fn restart(&mut self, index: usize) {
        let dead = self.servers.remove(index);
        self.servers.insert(index, dead.restart());
    }

    /// What discovery says now.
    ///
    /// # Panics
    /// When it says nothing.
    pub fn snapshot(&self) -> Snapshot {
        let backend = open(&self.discovery, CLUSTER).expect("a directory");
        self.runtime.block_on(backend.snapshot()).expect("a snapshot")
    }

    /// Waits until discovery sees exactly so many servers alive.
    pub fn until_alive(&self, count: usize, limit: Duration) {
        until("servers alive", limit, || self.snapshot().living.len() == count);
    }

    /// The options of a client of this cluster.
    pub fn client_options(&self) -> Options {
        let mut options = Options::new(&self.discovery);
        options.cluster = CLUSTER.to_owned();
        options
    }

    /// A client with those options.
    ///
    /// # Panics
    /// When it cannot connect.
    pub fn client(&self) -> Client {
        self.client_with(self.client_options())
    }

    /// A client with other options.
    ///
    /// # Panics
    /// When it cannot connect.
    pub fn client_with(&self, options: Options) -> Client {
        self.runtime.block_on(Client::connect(options)).expect("the client connects")
    }

    /// The folder of a server.
    pub fn folder(&self, index: usize) -> &Path {
        self.servers[index].folder()
    }
}

//! A cluster of real servers on a real service.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rampuddle_client::{Client, Options, ViewFile};
use rampuddle_discovery::{Backend, Settings, Snapshot, forget, open};
use rampuddle_harness::{Machine, ServeOptions, ServerProcess};
use tokio::runtime::{Builder, Runtime};

use crate::service::Service;

pub(crate) const CLUSTER: &str = "test";
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long what must happen anyway may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How often discovery is asked.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// So that no client waits for a young registry to fill.
const OLD_UNIX_MS: u64 = 1_000;
const POOL_MIB: u64 = 64;

/// A service, servers that it knows, and somebody who asks it.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) servers: Vec<ServerProcess>,
    pub(crate) service: Service,
    pub(crate) machine: Machine,
    pub(crate) runtime: Runtime,
    observer: Arc<dyn Backend>,
}

impl Rig {
    /// So many servers `a`, `b`, `c`, ...
    pub(crate) fn start(service: Service, servers: usize) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let observer = {
            let _inside = runtime.enter();
            open(&service.url(), CLUSTER).expect("the url is good")
        };
        let settings = Settings::new(CLUSTER, OLD_UNIX_MS);
        runtime.block_on(observer.create_settings(&settings)).expect("settings are written");
        let start = |index: usize| {
            let server = ServerProcess::start(serve(&service.url(), name_of(index)));
            assert_eq!(server.ready()["announced"], true, "{}", server.ready());
            server
        };
        let servers = (0..servers).map(start).collect();
        Self { servers, service, machine: Machine::watched(), runtime, observer }
    }

    pub(crate) fn client_options(&self) -> Options {
        let mut options = Options::new(self.service.url());
        options.cluster = CLUSTER.to_owned();
        options.view_file = ViewFile::None;
        options
    }

    pub(crate) fn client(&self) -> Client {
        self.client_with(self.client_options())
    }

    pub(crate) fn client_with(&self, options: Options) -> Client {
        self.runtime.block_on(Client::connect(options)).expect("the client connects")
    }

    /// Starts a server again that was killed, at the same address.
    pub(crate) fn restart(&mut self, index: usize) {
        let dead = self.servers.remove(index);
        self.servers.insert(index, dead.restart());
    }

    /// What discovery says now.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, String> {
        let found = self.runtime.block_on(self.observer.snapshot());
        found.map_err(|error| error.explained())
    }

    /// Takes a server that was stopped out of the members.
    pub(crate) fn forget(&self, name: &str) {
        let forgotten = forget(&*self.observer, name, None, &|_| Box::pin(async { None }));
        self.runtime.block_on(forgotten).expect("the service is up");
    }

    /// Asks discovery again and again until it says what is wanted; when that was.
    #[track_caller]
    pub(crate) fn until_said(&self, what: &str, wanted: impl Fn(&Snapshot) -> bool) -> Instant {
        let began = Instant::now();
        loop {
            let found = self.snapshot();
            if found.as_ref().is_ok_and(&wanted) {
                return Instant::now();
            }
            assert!(began.elapsed() < PATIENCE, "waited in vain: {what}: {found:?}");
            rampuddle_harness::pace(LOOK_EVERY);
        }
    }

    /// Whether the living are just the servers, each as it runs now.
    pub(crate) fn has_all_alive(&self) -> impl Fn(&Snapshot) -> bool + use<> {
        let running: Vec<_> = self
            .servers
            .iter()
            .map(|server| (server.name().to_owned(), incarnation(server)))
            .collect();
        move |found| {
            let is_there = |(name, incarnation): &(String, String)| {
                let alive = found.alive(name).and_then(|living| living.incarnation);
                alive.is_some_and(|alive| alive.to_string() == *incarnation)
            };
            found.living.len() == running.len() && running.iter().all(is_there)
        }
    }

    /// Asks discovery again and again for a while; how long after a moment it was until
    /// all servers were alive and stayed so.
    pub(crate) fn alive_for_good_after(&self, moment: Instant, watched: Duration) -> Duration {
        let (all_alive, mut since, mut looks) = (self.has_all_alive(), None, 0);
        while moment.elapsed() < watched {
            let found = self.snapshot();
            match found.as_ref().is_ok_and(&all_alive) {
                true => _ = since.get_or_insert(moment.elapsed()),
                false => since = None,
            }
            looks += 1;
            rampuddle_harness::pace(LOOK_EVERY);
        }
        assert!(looks > 5, "only {looks} looks");
        since.unwrap_or_else(|| panic!("never: {:?}", self.snapshot()))
    }

    /// Fails when discovery, asked again and again for a while, ever lacks a server.
    #[track_caller]
    pub(crate) fn assert_stay_alive(&self, duration: Duration) {
        let (began, all_alive, mut looks) = (Instant::now(), self.has_all_alive(), 0);
        while began.elapsed() < duration {
            let found = self.snapshot().expect("the service is up");
            assert!(all_alive(&found), "after {:?}: {found:?}", began.elapsed());
            looks += 1;
            rampuddle_harness::pace(LOOK_EVERY);
        }
        assert!(looks > 5, "only {looks} looks");
    }

    /// The longest turn of each server's loop, as it says itself.
    pub(crate) fn longest_turns(&self, client: &Client) -> Vec<(String, Duration)> {
        let nodes = self.runtime.block_on(client.nodes());
        let turn = |node: &rampuddle_client::Node| {
            let info = node.info.as_ref()?;
            Some((node.name.to_string(), Duration::from_micros(info.row.turn_us_max)))
        };
        nodes.iter().filter_map(turn).collect()
    }
}

/// How a server of the cluster is started.
pub(crate) fn serve(url: &str, name: String) -> ServeOptions {
    let discovery = Some(url.to_owned());
    // As from another machine: over TCP.
    ServeOptions { name, discovery, has_socket: false, ..ServeOptions::with_pool_mib(POOL_MIB) }
}

pub(crate) fn name_of(index: usize) -> String {
    char::from(b'a' + index as u8).to_string()
}

/// As a server said itself when it was ready.
pub(crate) fn incarnation(server: &ServerProcess) -> String {
    server.ready()["incarnation"].as_str().expect("a server has one").to_owned()
}

//! `zk:` against a real ZooKeeper.

mod access;
mod names;
mod outages;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rampuddle_discovery::conformance::{Capability, Record, Service, run};
use rampuddle_discovery::{Backend, Id, Living, Snapshot, Watch, open};
use rampuddle_harness::{ZooKeeper, ZooKeeperClient};
use tokio::time::{sleep, timeout};

/// A heartbeat.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long a test waits for what must happen anyway.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a call may take at most, and some time for a busy machine.
const CALL_LIMIT: Duration = Duration::from_secs(7);
/// How often a test looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A path that no other test uses.
fn fresh_path() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("test/{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A cluster of its own in a ZooKeeper.
struct Place {
    url: String,
    path: String,
}

impl Place {
    fn fresh(server: &ZooKeeper) -> Self {
        let path = fresh_path();
        Self { url: format!("zk://{}/{path}", server.address()), path: format!("/{path}/lab") }
    }

    fn open(&self) -> Arc<dyn Backend> {
        open(&self.url, "lab").unwrap()
    }

    async fn watch(&self) -> Watch {
        Watch::start(self.open(), PATIENCE).await.unwrap()
    }

    fn living(&self) -> String {
        format!("{}/living/a", self.path)
    }

    /// The session that the entry of `a` ends with.
    fn owner(&self, others: &mut ZooKeeperClient) -> Option<i64> {
        others.get(&self.living()).map(|(_, owner)| owner)
    }
}

fn server_a(incarnation: u8) -> Living {
    Living::at("a", "127.0.0.1:7000", Id([incarnation; 16]))
}

async fn snapshot(backend: &dyn Backend) -> Snapshot {
    backend.snapshot().await.unwrap()
}

/// Waits until a look is as wanted; how long that took.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        sleep(LOOK_EVERY).await;
    }
    began.elapsed()
}

/// Waits for a view that is as wanted; how long that took.
async fn until_view(what: &str, watch: &mut Watch, is_so: impl Fn(&Snapshot) -> bool) -> Duration {
    let began = Instant::now();
    while !is_so(&watch.current()) {
        let changed = timeout(PATIENCE, watch.changed()).await;
        changed.unwrap_or_else(|_| panic!("waited in vain: {what}: {:?}", watch.current()));
    }
    began.elapsed()
}

fn empty_service(server: &Arc<ZooKeeper>) -> Service {
    let place = Place::fresh(server);
    let (url, path) = (place.url, place.path);
    let others = Mutex::new(ZooKeeperClient::connect(server.address()));
    let service = Service::new(move |cluster| open(&url, cluster).unwrap());
    service.planting(move |record, text| {
        let (name, is_ephemeral) = match record {
            Record::Settings => ("settings".to_owned(), false),
            Record::Member(name) => (format!("members/{name}"), false),
            Record::Living(name) => (format!("living/{name}"), true),
            _ => panic!("no place for {record:?}"),
        };
        others.lock().unwrap().put(&format!("{path}/{name}"), text.as_bytes(), is_ephemeral);
    })
}

#[tokio::test]
async fn zookeeper_conforms() {
    let Some(server) = ZooKeeper::shared() else { return };
    let report = run(|| empty_service(&server), Capability::Records).await;
    println!("{}", report.told("zookeeper", &format!("ZooKeeper {}", server.version())));
    assert_eq!(report.sentences.len(), 24);
}

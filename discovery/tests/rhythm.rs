//! How often a watcher reads everything while everything changes, under a clock that
//! jumps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rampuddle_discovery::{Backend, DiscoveryError, Settings, Snapshot, Watch};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// A registry of which nothing but the number of its changes is known. It tells of each
/// at once.
#[derive(Debug)]
struct Busy {
    changes: watch::Sender<u64>,
    read: AtomicU64,
    readings: AtomicU64,
    reading_takes: Duration,
}

impl Busy {
    fn new(reading_takes: Duration) -> Arc<Self> {
        let (changes, read, readings) = (watch::Sender::new(1), 0.into(), 0.into());
        Arc::new(Self { changes, read, readings, reading_takes })
    }

    fn change(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    async fn watch(self: &Arc<Self>) -> Watch {
        Watch::start(self.clone(), Duration::from_secs(10)).await.unwrap()
    }

    /// How long the watcher takes to see all changes.
    async fn is_seen_after(&self, watch: &mut Watch) -> Duration {
        let (began, all) = (Instant::now(), *self.changes.borrow());
        while watch.current().settings.as_ref().unwrap().created_unix_ms != all {
            watch.changed().await;
        }
        began.elapsed()
    }
}

impl Backend for Busy {
    fn url(&self) -> String {
        "busy:".to_owned()
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, DiscoveryError>> {
        let changes = *self.changes.borrow();
        self.read.store(changes, Ordering::Relaxed);
        self.readings.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            sleep(self.reading_takes).await;
            let settings = Some(Settings::new("lab", changes));
            Ok(Snapshot { settings, ..Snapshot::default() })
        })
    }

    fn changed(&self) -> BoxFuture<'_, Result<(), DiscoveryError>> {
        Box::pin(async {
            let read = self.read.load(Ordering::Relaxed);
            let is_other = |changes: &u64| *changes != read;
            let changed = self.changes.subscribe().wait_for(is_other).await.map(drop);
            changed.map_err(|_| DiscoveryError::Stopped)
        })
    }
}

/// It was read again for each change that it told of: up to 15 times a second.
#[tokio::test(start_paused = true)]
async fn a_thousand_changes_in_ten_seconds_cost_less_than_thirty_readings() {
    let registry = Busy::new(Duration::from_millis(50));
    let mut watch = registry.watch().await;
    for _ in 0..1_000 {
        registry.change();
        sleep(Duration::from_millis(10)).await;
    }
    let seen_after = registry.is_seen_after(&mut watch).await;
    let readings = registry.readings.load(Ordering::Relaxed);
    println!("{readings} readings, the last change seen after {seen_after:?}");
    assert!((10..30).contains(&readings), "{readings} readings");
    assert!(seen_after < Duration::from_secs(1), "{seen_after:?}");
}

#[tokio::test(start_paused = true)]
async fn readings_that_take_seconds_are_not_put_off_by_more_than_one() {
    let registry = Busy::new(Duration::from_secs(3));
    let mut watch = registry.watch().await;
    registry.change();
    sleep(Duration::from_secs(1)).await;
    // While that is read, and in vain for this one.
    registry.change();
    let seen_after = registry.is_seen_after(&mut watch).await;
    assert!(seen_after < Duration::from_secs(2 + 1 + 3), "{seen_after:?}");
}

#[tokio::test(start_paused = true)]
async fn one_change_is_seen_at_once() {
    let registry = Busy::new(Duration::from_millis(50));
    let mut watch = registry.watch().await;
    for pause in [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(100)] {
        sleep(pause).await;
        registry.change();
        let seen_after = registry.is_seen_after(&mut watch).await;
        assert!(seen_after <= Duration::from_millis(100), "{seen_after:?} after {pause:?}");
    }
}

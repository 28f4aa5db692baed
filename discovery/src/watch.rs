//! The last good view of a cluster, kept up to date.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use crate::backend::Backend;
use crate::error::DiscoveryError;
use crate::model::{Recorded, Snapshot};

/// The shortest pause after a failure.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest pause after a failure.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How long one reading may take before it counts as failed.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(10);

/// Follows a back end, in a task that ends when this is dropped.
///
/// Holds the last good view for ever: failures are logged and tried again. An
/// answer without settings and members never replaces one that has any, a
/// member whose record became unreadable stays as it was, and settings once
/// seen stay until there are others. Members that are removed while others
/// stay do go, and the living come and go freely: whether many that vanish at
/// once are believed to be gone is for whoever can ask them.
#[derive(Debug)]
pub struct Watch {
    view: watch::Receiver<Arc<Snapshot>>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Waits for the first good answer, for at most `patience`; then fails
    /// with the last failure, or [`DiscoveryError::TimedOut`].
    pub async fn start(
        backend: Arc<dyn Backend>,
        patience: Duration,
    ) -> Result<Self, DiscoveryError> {
        let first = first_snapshot(&*backend, patience).await?;
        log_complaints(&Snapshot::default(), &first);
        let (sender, view) = watch::channel(Arc::new(first));
        let task = tokio::spawn(async move { follow(&*backend, &sender).await });
        Ok(Self { view, task })
    }

    /// The last good view.
    pub fn current(&self) -> Arc<Snapshot> {
        self.view.borrow().clone()
    }

    /// Waits for a view that is newer than the last one returned here.
    pub async fn changed(&mut self) -> Arc<Snapshot> {
        if self.view.changed().await.is_err() {
            // The task is gone, with its runtime: there will be no newer view.
            std::future::pending::<()>().await;
        }
        self.view.borrow_and_update().clone()
    }

    /// Another receiver of the same views.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.view.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn first_snapshot(
    backend: &dyn Backend,
    patience: Duration,
) -> Result<Snapshot, DiscoveryError> {
    let deadline = Instant::now() + patience;
    let mut failures = Failures::default();
    let mut last = timed_out(backend, patience);
    while let Ok(answer) = timeout_at(deadline, backend.snapshot()).await {
        match answer {
            Ok(snapshot) => return Ok(snapshot),
            Err(error) => last = error,
        }
        if timeout_at(deadline, sleep(failures.next_pause())).await.is_err() {
            break;
        }
    }
    Err(last)
}

async fn follow(backend: &dyn Backend, sender: &watch::Sender<Arc<Snapshot>>) {
    let mut failures = Failures::default();
    loop {
        match next_snapshot(backend, failures.any()).await {
            Ok(snapshot) => {
                failures.end(backend);
                publish(sender, snapshot);
            }
            Err(error) => {
                failures.log(backend, &error);
                pause(backend, failures.next_pause()).await;
            }
        }
    }
}

/// After a failure the next reading does not wait for a change: the change
/// that it was about is already over.
async fn next_snapshot(backend: &dyn Backend, at_once: bool) -> Result<Snapshot, DiscoveryError> {
    if !at_once {
        backend.changed().await?;
    }
    let answer = timeout(SNAPSHOT_PATIENCE, backend.snapshot()).await;
    answer.unwrap_or_else(|_| Err(timed_out(backend, SNAPSHOT_PATIENCE)))
}

/// Ends early when something changes, but never at once.
async fn pause(backend: &dyn Backend, pause: Duration) {
    sleep(BACKOFF_MIN).await;
    tokio::select! {
        () = sleep(pause.saturating_sub(BACKOFF_MIN)) => {}
        Ok(()) = backend.changed() => {}
    }
}

fn timed_out(backend: &dyn Backend, waited: Duration) -> DiscoveryError {
    let backend = backend.url();
    DiscoveryError::TimedOut { backend, waited }
}

fn publish(sender: &watch::Sender<Arc<Snapshot>>, answer: Snapshot) {
    sender.send_if_modified(|view| {
        log_complaints(view, &answer);
        let next = merge(view, answer);
        let is_new = next != **view;
        if is_new {
            *view = Arc::new(next);
        }
        is_new
    });
}

/// The view after an answer: never less than the answer justifies.
fn merge(view: &Snapshot, mut answer: Snapshot) -> Snapshot {
    if answer.is_empty() {
        answer.settings = view.settings.clone();
        answer.members = view.members.clone();
        return answer;
    }
    if answer.settings.is_none() {
        answer.settings = view.settings.clone();
    }
    let kept = answer.unreadable.iter().filter_map(|name| view.member(name));
    let kept: Vec<Recorded<_>> = kept.cloned().collect();
    answer.members.extend(kept);
    answer.members.sort_by(|one, other| one.value.name.cmp(&other.value.name));
    answer
}

fn log_complaints(view: &Snapshot, answer: &Snapshot) {
    let new = |complaint: &&String| !view.complaints.contains(complaint);
    for complaint in answer.complaints.iter().filter(new) {
        warn!("discovery: {complaint}");
    }
}

/// The failures since the last good answer.
#[derive(Debug, Default)]
struct Failures {
    count: u32,
    logged: HashSet<Discriminant<DiscoveryError>>,
}

impl Failures {
    fn any(&self) -> bool {
        self.count > 0
    }

    /// Logs the first failure of each kind.
    fn log(&mut self, backend: &dyn Backend, error: &DiscoveryError) {
        if self.logged.insert(discriminant(error)) {
            let (url, error) = (backend.url(), error.explained());
            warn!("discovery by {url} fails, the last good view stays: {error}");
        }
    }

    fn end(&mut self, backend: &dyn Backend) {
        if self.any() {
            info!("discovery by {} works again", backend.url());
            *self = Self::default();
        }
    }

    /// A random pause of up to twice as long as the last time.
    fn next_pause(&mut self) -> Duration {
        let doubled = BACKOFF_MIN * (1 << self.count.min(10));
        self.count = self.count.saturating_add(1);
        let spread = doubled.min(BACKOFF_MAX) - BACKOFF_MIN;
        BACKOFF_MIN + spread.mul_f64(random_fraction())
    }
}

/// From 0 to 1. The standard library seeds each `RandomState` anew.
fn random_fraction() -> f64 {
    let random = RandomState::new().hash_one(());
    f64::from((random >> 32) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Member, Revision, Settings};

    fn view(names: &[&str]) -> Snapshot {
        let recorded =
            |name: &&str| Recorded { value: Member::ready(*name, 1.0), revision: Revision(1) };
        Snapshot {
            settings: Some(Settings::new("lab", 1)),
            members: names.iter().map(recorded).collect(),
            ..Snapshot::default()
        }
    }

    #[test]
    fn an_empty_answer_never_shrinks_a_view() {
        assert_eq!(merge(&view(&["a", "b"]), Snapshot::default()), view(&["a", "b"]));
    }

    #[test]
    fn a_member_that_was_removed_goes_and_one_that_is_unreadable_stays() {
        let mut answer = view(&["c"]);
        answer.settings = None;
        answer.unreadable = vec!["a".to_owned(), "never-seen".to_owned()];
        let merged = merge(&view(&["a", "b", "c"]), answer);
        assert_eq!(merged.members, view(&["a", "c"]).members);
        assert_eq!(merged.settings, view(&[]).settings);
    }

    #[test]
    fn pauses_grow_up_to_their_limit() {
        let mut failures = Failures::default();
        let pauses: Vec<_> = (0..1000).map(|_| failures.next_pause()).collect();
        assert_eq!(pauses[0], BACKOFF_MIN);
        assert!(pauses.iter().all(|pause| (BACKOFF_MIN..=BACKOFF_MAX).contains(pause)));
        assert!(pauses.iter().any(|pause| *pause > BACKOFF_MAX / 2));
    }
}

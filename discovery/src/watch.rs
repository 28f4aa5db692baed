//! The last good view of a cluster, kept up to date.

use std::collections::HashSet;
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use crate::backend::Backend;
use crate::error::DiscoveryError;
use crate::keeping::Keeper;
use crate::kept_view::KeptView;
use crate::model::{Recorded, Snapshot};
use crate::random::random_fraction;

/// The shortest pause after a failure.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest pause after a failure: whoever watches is to be back within two seconds
/// of the service.
const BACKOFF_MAX: Duration = Duration::from_millis(1_500);
/// The longest pause after an answer that is larger than any may be, and twice the
/// shortest: whoever sends it has much to do.
const BACKOFF_LARGE: Duration = Duration::from_secs(5);
/// How long the first reading may take where a kept view can take its place.
const KEPT_PATIENCE: Duration = Duration::from_secs(1);
/// How long one reading may take before it counts as failed.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(10);
/// How many times as long as a reading took there is no other one: when everything
/// changes at once, nobody reads all of it again for each change.
const REST_SHARE: u32 = 10;
/// The longest such rest: whatever changes is seen within a second, with its reading.
const REST_MAX: Duration = Duration::from_millis(750);

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
    seen_before: Option<Snapshot>,
    task: JoinHandle<()>,
}

/// What a [`Watch`] begins with.
#[derive(Debug)]
pub struct WatchStart {
    /// How long the service may take for its first good answer.
    pub patience: Duration,
    /// Where each good view is kept. When the service gives no answer within a second (or
    /// `patience`, if that is less), the watch begins with the view that is in it.
    pub file: Option<KeptView>,
    /// What the service said a moment ago, by the same back end: then it is not asked.
    pub answer: Option<Snapshot>,
}

impl Watch {
    /// Waits for the first good answer, for at most `patience`; then fails
    /// with the last failure, or [`DiscoveryError::TimedOut`]. Fails at once with
    /// [`DiscoveryError::NotAllowed`].
    pub async fn start(
        backend: Arc<dyn Backend>,
        patience: Duration,
    ) -> Result<Self, DiscoveryError> {
        Self::start_with(backend, WatchStart { patience, file: None, answer: None }).await
    }

    /// As [`Watch::start`], with what there is to begin with. That the file cannot be read
    /// or written is logged, and no failure; where it hangs, it is waited two seconds for.
    pub async fn start_with(
        backend: Arc<dyn Backend>,
        start: WatchStart,
    ) -> Result<Self, DiscoveryError> {
        let WatchStart { patience, file, answer } = start;
        let mut keeper = Keeper::load(file).await;
        let kept = keeper.kept();
        let patience = if kept.is_some() { patience.min(KEPT_PATIENCE) } else { patience };
        let mut failures = Failures::default();
        let mut seen_before = None;
        let answer = match answer {
            Some(answer) => Ok(answer),
            None => first_snapshot(&*backend, patience).await,
        };
        let first = match (answer, kept) {
            // A service that was wiped knows less than it did, also of where servers are.
            (Ok(answer), Some((kept, _age))) if answer.is_empty() => kept,
            (Ok(answer), Some((kept, _age))) => {
                log_complaints(&kept, &answer);
                let first = merge(&kept, answer);
                seen_before = keeper.may_doubt().then_some(kept);
                keeper.keep_first(&first).await;
                first
            }
            (Ok(answer), None) => {
                log_complaints(&Snapshot::default(), &answer);
                keeper.keep_first(&answer).await;
                answer
            }
            (Err(error), Some((kept, age))) => {
                failures.count = 1;
                failures.logged.insert(discriminant(&error));
                let (url, error, age) = (backend.url(), error.explained(), age.as_secs());
                warn!("discovery by {url} fails, going on with a view {age} s old: {error}");
                kept
            }
            (Err(error), None) => return Err(error),
        };
        let (sender, view) = watch::channel(Arc::new(first));
        let task = tokio::spawn(async move { follow(&*backend, &sender, failures, keeper).await });
        Ok(Self { view, seen_before, task })
    }

    /// What was kept of the cluster, where the watch began with a newer view than that:
    /// who doubts views that lack many members doubts the first one by this.
    pub fn seen_before(&self) -> Option<&Snapshot> {
        self.seen_before.as_ref()
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
            // Other credentials would help, and no other moment.
            Err(error @ DiscoveryError::NotAllowed { .. }) => return Err(error),
            Err(error) => last = error,
        }
        if timeout_at(deadline, sleep(failures.next_pause(&last))).await.is_err() {
            break;
        }
    }
    Err(last)
}

async fn follow(
    backend: &dyn Backend,
    sender: &watch::Sender<Arc<Snapshot>>,
    mut failures: Failures,
    mut keeper: Keeper,
) {
    loop {
        match next_snapshot(backend, failures.any()).await {
            Ok((snapshot, took)) => {
                failures.end(backend);
                if publish(sender, snapshot) {
                    let view = sender.borrow().clone();
                    keeper.keep(&view);
                }
                sleep((took * REST_SHARE).min(REST_MAX)).await;
            }
            Err(error) => {
                failures.log(backend, &error);
                let pause = failures.next_pause(&error);
                match is_too_large(&error) {
                    true => sleep(pause).await,
                    false => sleep_or_change(backend, pause).await,
                }
            }
        }
    }
}

/// The next reading, and how long it took. After a failure it does not wait for a change:
/// the change that it was about is already over.
async fn next_snapshot(
    backend: &dyn Backend,
    at_once: bool,
) -> Result<(Snapshot, Duration), DiscoveryError> {
    if !at_once {
        backend.changed().await?;
    }
    let began = Instant::now();
    match timeout(SNAPSHOT_PATIENCE, backend.snapshot()).await {
        Ok(answer) => Ok((answer?, began.elapsed())),
        Err(_) => Err(timed_out(backend, SNAPSHOT_PATIENCE)),
    }
}

/// Ends early when something changes, but never in its first half: something may always be
/// newer than the last reading that did not fail.
async fn sleep_or_change(backend: &dyn Backend, pause: Duration) {
    sleep(pause / 2).await;
    tokio::select! {
        () = sleep(pause / 2) => {}
        Ok(()) = backend.changed() => {}
    }
}

fn timed_out(backend: &dyn Backend, waited: Duration) -> DiscoveryError {
    let backend = backend.url();
    DiscoveryError::TimedOut { backend, waited }
}

/// Whether there is a new view.
fn publish(sender: &watch::Sender<Arc<Snapshot>>, answer: Snapshot) -> bool {
    sender.send_if_modified(|view| {
        log_complaints(view, &answer);
        let next = merge(view, answer);
        let is_new = next != **view;
        if is_new {
            *view = Arc::new(next);
        }
        is_new
    })
}

/// The view after an answer: never less than the answer justifies.
fn merge(view: &Snapshot, mut answer: Snapshot) -> Snapshot {
    if answer.is_empty() {
        answer.members = view.members.clone();
    }
    if answer.settings.is_none() {
        answer.settings = view.settings.clone();
        answer.is_kept = view.is_kept;
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

    /// A random pause of up to twice as long as the last time; a long one where the answer
    /// was too large.
    fn next_pause(&mut self, error: &DiscoveryError) -> Duration {
        let doubled = (BACKOFF_MIN * (1 << self.count.min(10))).min(BACKOFF_MAX);
        self.count = self.count.saturating_add(1);
        let (least, most) = match is_too_large(error) {
            true => (BACKOFF_LARGE / 2, BACKOFF_LARGE),
            false => (BACKOFF_MIN, doubled),
        };
        least + (most - least).mul_f64(random_fraction())
    }
}

fn is_too_large(error: &DiscoveryError) -> bool {
    matches!(error, DiscoveryError::AnswerTooLarge { .. })
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
    fn a_kept_view_stays_one_until_there_is_an_answer_with_settings() {
        let kept = Snapshot { is_kept: true, ..view(&["a", "b"]) };
        let unsettled = Snapshot { settings: None, ..view(&["a", "b"]) };
        for answer in [Snapshot::default(), unsettled] {
            assert_eq!(merge(&kept, answer), kept);
        }
        assert_eq!(merge(&kept, view(&["a", "b"])), view(&["a", "b"]));
    }

    #[test]
    fn pauses_grow_up_to_their_limit() {
        let mut failures = Failures::default();
        let mut pause = || failures.next_pause(&DiscoveryError::Stopped);
        let pauses: Vec<_> = (0..1000).map(|_| pause()).collect();
        assert_eq!(pauses[0], BACKOFF_MIN);
        assert!(pauses.iter().all(|pause| (BACKOFF_MIN..=BACKOFF_MAX).contains(pause)));
        assert!(pauses.iter().any(|pause| *pause > BACKOFF_MAX / 2));
    }

    #[test]
    fn pauses_after_an_answer_that_is_too_large_are_long_from_the_first() {
        let backend = String::new();
        let error = DiscoveryError::AnswerTooLarge { what: "list keys", backend, bytes_max: 1 };
        let mut failures = Failures::default();
        for _ in 0..100 {
            let pause = failures.next_pause(&error);
            assert!((BACKOFF_LARGE / 2..=BACKOFF_LARGE).contains(&pause), "{pause:?}");
        }
    }
}

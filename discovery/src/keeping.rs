//! What of the views of a [`Watch`](crate::Watch) is kept for the next start, and when.
//!
//! Beside the last good view that is where members were last seen that are not among the
//! living now. A view that lacks many of the members that are kept does not replace them
//! at once: for a while whoever starts doubts it too.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::blocking::blocking;
use crate::error::DiscoveryError;
use crate::kept_view::{Kept, KeptView};
use crate::model::{Living, Snapshot};

/// How long a view that lacks many members is doubted. Servers that a service forgot are
/// back by then.
const DOUBT: Duration = Duration::from_secs(10);

/// How long a start waits for the file: a home on another machine may hang for ever.
const PATIENCE: Duration = Duration::from_secs(2);

/// Keeps views in a file, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    /// What is in the file, or will be.
    kept: Option<Kept>,
    saver: Option<Saver>,
    /// Whether the file could not be read in time: nobody waits for it again.
    hangs: bool,
}

impl Keeper {
    /// Reads the file. One that cannot be read, or not in time, is logged, and written
    /// anew.
    pub(crate) async fn load(file: Option<KeptView>) -> Self {
        let Some(file) = file else { return Self::default() };
        let reading = file.clone();
        let kept = loaded(PATIENCE, move || reading.load()).await;
        let hangs = kept.is_none();
        let saver = Some(Saver::new(move |kept| file.save(kept)));
        Self { kept: kept.flatten(), saver, hangs }
    }

    /// The view that is kept, and how old it is.
    pub(crate) fn kept(&self) -> Option<(Snapshot, Duration)> {
        let kept = self.kept.as_ref()?;
        Some((kept.view.clone(), since(kept.saved_unix_ms)))
    }

    /// Whether a view that lacks many of the members that are kept is to be doubted.
    pub(crate) fn may_doubt(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| !kept.was_doubted_long_enough(unix_ms()))
    }

    /// Keeps a view, if it is worth it, and waits for nothing.
    pub(crate) fn keep(&mut self, view: &Snapshot) {
        let Some(saver) = &self.saver else { return };
        let Some(next) = to_keep(self.kept.as_ref(), view, unix_ms()) else { return };
        self.kept = Some(next.clone());
        saver.save(next);
    }

    /// Keeps the first view, and waits for a while until it is in the file: a process that
    /// ends soon shall have kept it.
    pub(crate) async fn keep_first(&mut self, view: &Snapshot) {
        self.keep(view);
        if let Some(saver) = self.saver.as_mut().filter(|_| !self.hangs) {
            saver.until_saved(PATIENCE).await;
        }
    }
}

/// What `load` finds, and nothing when it fails; `None` when it hangs. Warns of both.
async fn loaded(
    patience: Duration,
    load: impl FnOnce() -> Result<Option<Kept>, DiscoveryError> + Send + 'static,
) -> Option<Option<Kept>> {
    match timeout(patience, blocking(load)).await {
        Ok(Ok(kept)) => Some(kept),
        Ok(Err(error)) => {
            warn!("the kept view cannot be used: {}", error.explained());
            Some(None)
        }
        Err(_) => {
            warn!("the kept view could not be read within {patience:?}: going on without it");
            None
        }
    }
}

/// Saves views in a task of its own, one at a time, so that whoever has a new one never
/// waits for a disk. Of those that come meanwhile only the last is saved. What was given is
/// saved though this be dropped.
#[derive(Debug)]
struct Saver {
    wanted: watch::Sender<Option<Kept>>,
    /// How many saves came to an end.
    ended: watch::Receiver<u64>,
}

impl Saver {
    fn new(save: impl Fn(&Kept) -> Result<(), DiscoveryError> + Clone + Send + 'static) -> Self {
        let (wanted, mut next) = watch::channel(None::<Kept>);
        let (sender, ended) = watch::channel(0);
        tokio::spawn(async move {
            let mut has_failed = false;
            while next.changed().await.is_ok() {
                let Some(kept) = next.borrow_and_update().clone() else { continue };
                let save = save.clone();
                let saved = blocking(move || save(&kept)).await;
                sender.send_modify(|count| *count += 1);
                // Only the first failure: nothing depends on it now.
                if let Err(error) = saved
                    && !std::mem::replace(&mut has_failed, true)
                {
                    info!("the view is not kept for the next start: {}", error.explained());
                }
            }
        });
        Self { wanted, ended }
    }

    fn save(&self, kept: Kept) {
        self.wanted.send_replace(Some(kept));
    }

    /// Waits until something was saved, if anything is to be; no longer than that.
    async fn until_saved(&mut self, patience: Duration) {
        if self.wanted.borrow().is_some() {
            let _ = timeout(patience, self.ended.wait_for(|count| *count > 0)).await;
        }
    }
}

impl Kept {
    fn was_doubted_long_enough(&self, now_ms: u64) -> bool {
        // A clock that was set leaves nobody in doubt for ever.
        let doubted = |since: u64| now_ms.abs_diff(since) >= DOUBT.as_millis() as u64;
        self.doubted_unix_ms.is_some_and(doubted)
    }

    fn says_the_same_as(&self, other: &Self) -> bool {
        let said = |kept: &Self| {
            let Snapshot { settings, members, living, .. } = kept.view.clone();
            (settings, members, living, kept.doubted_unix_ms)
        };
        said(self) == said(other)
    }
}

/// What is to be kept now, unless it is kept already. A view without the living, as after
/// a wipe, helps nobody who starts: it has no address.
fn to_keep(kept: Option<&Kept>, view: &Snapshot, now_ms: u64) -> Option<Kept> {
    if view.living.is_empty() {
        return None;
    }
    let next = match kept {
        Some(kept) if view.lacks_many_of(&kept.view) && !kept.was_doubted_long_enough(now_ms) => {
            Kept { doubted_unix_ms: kept.doubted_unix_ms.or(Some(now_ms)), ..kept.clone() }
        }
        _ => Kept {
            view: with_last_addresses(view, kept.map(|kept| &kept.view)),
            saved_unix_ms: now_ms,
            doubted_unix_ms: None,
        },
    };
    kept.is_none_or(|kept| !kept.says_the_same_as(&next)).then_some(next)
}

/// The view, with the last known addresses of members that are not alive in it.
fn with_last_addresses(view: &Snapshot, before: Option<&Snapshot>) -> Snapshot {
    let mut view = view.clone();
    let is_missing = |known: &&Living| {
        let has_its_address = |other: &Living| other.address() == known.address();
        view.member(&known.name).is_some()
            && view.alive(&known.name).is_none()
            && !view.living.iter().any(has_its_address)
    };
    let missing = before.into_iter().flat_map(|before| &before.living).filter(is_missing);
    let missing: Vec<Living> = missing.cloned().collect();
    view.living.extend(missing);
    view.living.sort_by(|one, other| one.name.cmp(&other.name));
    view
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// How long ago a moment is; nothing when it lies ahead.
fn since(moment_ms: u64) -> Duration {
    Duration::from_millis(unix_ms().saturating_sub(moment_ms))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, mpsc};

    use super::*;
    use crate::Id;
    use crate::model::{Member, Recorded, Revision, Settings};

    const NOW_MS: u64 = 1_000_000;
    const DOUBT_MS: u64 = DOUBT.as_millis() as u64;

    /// A server that lives at a port of its own.
    fn living(name: char) -> Living {
        Living::at(name, format!("127.0.0.1:{}", name as u32), Id([name as u8; 16]))
    }

    fn view(members: &str, alive: &str) -> Snapshot {
        let recorded =
            |name: char| Recorded { value: Member::ready(name, 1.0), revision: Revision(1) };
        Snapshot {
            settings: Some(Settings::new("lab", 1)),
            members: members.chars().map(recorded).collect(),
            living: alive.chars().map(living).collect(),
            ..Snapshot::default()
        }
    }

    fn kept(members: &str, alive: &str) -> Kept {
        Kept { view: view(members, alive), saved_unix_ms: NOW_MS, doubted_unix_ms: None }
    }

    #[tokio::test]
    async fn a_file_that_hangs_is_not_waited_for() {
        let (release, released) = mpsc::channel::<()>();
        let load = move || {
            let _ = released.recv();
            Ok(Some(kept("ab", "ab")))
        };
        assert_eq!(loaded(Duration::from_millis(10), load).await, None);
        drop(release);
        let load = || Ok(Some(kept("ab", "ab")));
        assert_eq!(loaded(Duration::MAX, load).await, Some(Some(kept("ab", "ab"))));
        let load = || Err(DiscoveryError::Stopped);
        assert_eq!(loaded(Duration::MAX, load).await, Some(None));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn views_are_saved_one_at_a_time_and_of_those_that_wait_only_the_last() {
        let (began, has_begun) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let files = Arc::new(Mutex::new((began, released)));
        let mut saver = Saver::new(move |kept| {
            let files = files.try_lock().expect("one at a time");
            files.0.send(kept.saved_unix_ms).unwrap();
            let _ = files.1.recv();
            Ok(())
        });
        let at = |saved_unix_ms| Kept { saved_unix_ms, ..Kept::default() };
        saver.until_saved(Duration::MAX).await;
        saver.save(at(1));
        assert_eq!(has_begun.recv(), Ok(1));
        saver.save(at(2));
        saver.save(at(3));
        saver.until_saved(Duration::from_millis(10)).await;
        assert_eq!(*saver.ended.borrow(), 0, "the first still hangs");
        release.send(()).unwrap();
        saver.until_saved(Duration::MAX).await;
        // What waits is saved though nobody is left.
        drop((saver, release));
        assert_eq!(has_begun.recv(), Ok(3));
        assert!(has_begun.recv().is_err(), "nothing else is saved");
    }

    #[test]
    fn a_view_is_kept_once_and_none_without_addresses() {
        let first = to_keep(None, &view("ab", "ab"), NOW_MS);
        assert_eq!(first, Some(kept("ab", "ab")));
        assert_eq!(to_keep(first.as_ref(), &view("ab", "ab"), NOW_MS + 1), None);
        assert_eq!(to_keep(first.as_ref(), &view("ab", ""), NOW_MS), None);
        let more = to_keep(first.as_ref(), &view("abc", "abc"), NOW_MS);
        assert_eq!(more, Some(kept("abc", "abc")));
    }

    #[test]
    fn where_a_member_was_seen_last_is_kept_until_its_address_is_anothers() {
        let before = kept("abc", "abc");
        let one_is_down = to_keep(Some(&before), &view("abc", "bc"), NOW_MS);
        assert_eq!(one_is_down, None, "nothing new is known");
        let mut moved = view("abc", "bc");
        moved.living[0].tcp = living('a').tcp;
        let next = to_keep(Some(&before), &moved, NOW_MS).unwrap();
        assert_eq!(next.view.living, moved.living);
        // Who is no member any more is not remembered.
        let before = kept("abcdefgh", "abcdefgh");
        let next = to_keep(Some(&before), &view("bcdefgh", "bcdefgh"), NOW_MS).unwrap();
        assert_eq!(next, kept("bcdefgh", "bcdefgh"));
    }

    #[test]
    fn a_view_that_lacks_many_members_is_doubted_for_a_while_before_it_is_kept() {
        let (before, less) = (kept("abc", "abc"), view("a", "a"));
        let doubted = to_keep(Some(&before), &less, NOW_MS).unwrap();
        assert_eq!(doubted.view, before.view);
        assert_eq!(to_keep(Some(&doubted), &less, NOW_MS + DOUBT_MS - 1), None);
        let believed = to_keep(Some(&doubted), &less, NOW_MS + DOUBT_MS).unwrap();
        assert_eq!((believed.view, believed.doubted_unix_ms), (less, None));
        let back = to_keep(Some(&doubted), &before.view, NOW_MS).unwrap();
        assert_eq!(back, before, "all are back");
    }
}

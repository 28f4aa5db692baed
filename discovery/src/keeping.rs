//! What of the views of a [`Watch`](crate::Watch) is kept for the next start, and when.
//!
//! Beside the last good view that is where members were last seen that are not among the
//! living now. A view that lacks many of the members that are kept does not replace them
//! at once: for a while whoever starts doubts it too.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::{info, warn};

use crate::blocking::blocking;
use crate::kept_view::{Kept, KeptView};
use crate::model::{Living, Snapshot};

/// How long a view that lacks many members is doubted. Servers that a service forgot are
/// back by then.
const DOUBT: Duration = Duration::from_secs(10);

/// Keeps views in a file, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    file: Option<KeptView>,
    /// What is in it.
    kept: Option<Kept>,
    has_failed: bool,
}

impl Keeper {
    /// Reads the file. One that cannot be read is logged, and written anew.
    pub(crate) async fn load(file: Option<KeptView>) -> Self {
        let Some(file) = file else { return Self::default() };
        let kept = {
            let file = file.clone();
            blocking(move || file.load()).await
        };
        let kept = kept.unwrap_or_else(|error| {
            warn!("the kept view cannot be used: {}", error.explained());
            None
        });
        Self { file: Some(file), kept, has_failed: false }
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

    /// Keeps a view, if it is worth it. Logs only the first failure: nothing depends on
    /// it now.
    pub(crate) async fn keep(&mut self, view: &Snapshot) {
        let Some(file) = self.file.clone() else { return };
        let Some(next) = to_keep(self.kept.as_ref(), view, unix_ms()) else { return };
        self.kept = Some(next.clone());
        let saved = blocking(move || file.save(&next)).await;
        if let Err(error) = saved
            && !std::mem::replace(&mut self.has_failed, true)
        {
            info!("the view is not kept for the next start: {}", error.explained());
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

//! What the client knows of the cluster: members, the living, settings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use rampuddle_discovery::{Living, MemberState, Settings, Snapshot, Strategy, Watch};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::error::Error;
use crate::membership::{Membership, SILENCE};
use crate::placement::{Placement, Slot};

/// How often members that vanished from the registry are asked again: one that is
/// silent twice is gone.
const ASK_EVERY: Duration = SILENCE;

/// A registry younger than this may have been wiped: nobody says Absent yet.
const YOUNG_MS: u64 = 10_000;

/// The cluster at one moment. Never changes; ask the client for a newer one.
#[derive(Debug)]
pub struct View {
    settings: Settings,
    is_founded: bool,
    is_kept: bool,
    members: Vec<ViewMember>,
    living: BTreeMap<Arc<str>, Living>,
    placement: Arc<Placed>,
}

/// A member as written, whether it is alive or not.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ViewMember {
    /// Its name.
    pub name: Arc<str>,
    /// Its share of the keys relative to the others.
    pub weight: f64,
    /// What fails together with it; may be empty.
    pub zone: Arc<str>,
    /// Its written state.
    pub state: MemberState,
}

/// Placement with the names that its indices stand for, kept from view to view
/// while neither members nor settings change.
#[derive(Debug)]
struct Placed {
    /// Name and weight of the members that count for placement, by name.
    names: Vec<(Arc<str>, f64)>,
    settings: Settings,
    placement: Placement,
}

impl View {
    /// The view of a snapshot. Ranks computed for `before` are kept when they
    /// still hold.
    ///
    /// # Errors
    /// When the cluster's placement is one that this client lacks.
    pub(crate) fn new(
        snapshot: &Snapshot,
        cluster: &str,
        before: Option<&Self>,
    ) -> Result<Self, Error> {
        let settings = snapshot.settings.clone().unwrap_or_else(|| Settings::new(cluster, 0));
        let mut members: Vec<ViewMember> =
            snapshot.members.iter().map(|recorded| ViewMember::of(&recorded.value)).collect();
        members.sort_by(|one, other| one.name.cmp(&other.name));
        let living = snapshot.living.iter();
        let living = living.map(|living| (Arc::from(living.name.as_str()), living.clone()));
        let counted = members.iter().filter(|member| member.state.counts_for_placement());
        let names = counted.map(|member| (Arc::clone(&member.name), member.weight)).collect();
        let before = before.map(|view| &view.placement);
        let placement = Placed::of(names, &settings, before)?;
        let is_founded = snapshot.settings.is_some();
        let (is_kept, living) = (snapshot.is_kept, living.collect());
        Ok(Self { settings, is_founded, is_kept, members, living, placement })
    }

    /// The cluster's settings; the usual ones before the first server wrote them.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether the cluster's settings are written, or were assumed.
    pub fn is_founded(&self) -> bool {
        self.is_founded
    }

    /// Whether this is a view that was kept in a file, and discovery gave no answer since.
    pub fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// All members in the order of their names.
    pub fn members(&self) -> &[ViewMember] {
        &self.members
    }

    /// The member of that name.
    pub fn member(&self, name: &str) -> Option<&ViewMember> {
        let found = self.members.binary_search_by(|member| (*member.name).cmp(name));
        found.ok().map(|index| &self.members[index])
    }

    /// What discovery knows of a server that is alive.
    pub fn living(&self, name: &str) -> Option<&Living> {
        self.living.get(name)
    }

    /// All that are alive, members or not, in the order of their names.
    pub fn all_living(&self) -> impl Iterator<Item = (&Arc<str>, &Living)> {
        self.living.iter()
    }

    /// How many members count for placement.
    pub fn placed_members(&self) -> usize {
        self.placement.names.len()
    }

    /// The first `count` members by rank for a slot, alive or not; at most twice
    /// `replicas_max`.
    pub fn owners(&self, slot: Slot, count: usize) -> impl ExactSizeIterator<Item = &Arc<str>> {
        let placed = &*self.placement;
        placed.placement.owners(slot, count).map(|index| &placed.names[index].0)
    }

    /// All members that count for placement by their rank for a slot. Costs one
    /// score per member.
    pub fn ranks(&self, slot: Slot) -> Vec<&Arc<str>> {
        self.first_ranks(slot, usize::MAX)
    }

    /// The first `count` of them. Costs no score as long as these are at most
    /// twice `replicas_max`, or all members that there are.
    pub(crate) fn first_ranks(&self, slot: Slot, count: usize) -> Vec<&Arc<str>> {
        let ranks = self.placement.placement.ranks(slot, count);
        ranks.into_iter().map(|index| &self.placement.names[index].0).collect()
    }

    /// Whether every member has a copy of every object.
    pub fn is_cloned(&self) -> bool {
        self.settings.strategy == Strategy::Clone
    }

    /// Whether members may be missing: the registry was founded less than 10 s before
    /// `now_ms`, or has no settings at all, as after it was wiped; or this view
    /// [was kept](Self::is_kept).
    pub fn is_young(&self, now_ms: u64) -> bool {
        let created_ms = self.settings.created_unix_ms;
        let is_new = created_ms > 0 && now_ms < created_ms.saturating_add(YOUNG_MS);
        self.is_kept || !self.is_founded || is_new
    }
}

impl ViewMember {
    fn of(member: &rampuddle_discovery::Member) -> Self {
        Self {
            name: member.name.as_str().into(),
            weight: member.weight,
            zone: member.zone.as_str().into(),
            state: member.state,
        }
    }
}

impl Placed {
    fn of(
        names: Vec<(Arc<str>, f64)>,
        settings: &Settings,
        before: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, Error> {
        let same = before.filter(|before| before.names == names && before.settings == *settings);
        if let Some(before) = same {
            return Ok(Arc::clone(before));
        }
        let members = names.iter().map(|(name, weight)| (&**name, *weight));
        let Settings { strategy, slots, replicas_max, .. } = *settings;
        let placement = Placement::new(strategy, slots, replicas_max, members)?;
        Ok(Arc::new(Self { names, settings: settings.clone(), placement }))
    }
}

/// Hands out the latest view and follows discovery.
#[derive(Debug)]
pub(crate) struct Views {
    latest: watch::Sender<Arc<View>>,
}

impl Views {
    /// Begins with a view.
    pub(crate) fn new(first: Arc<View>) -> Self {
        Self { latest: watch::Sender::new(first) }
    }

    /// The latest view.
    pub(crate) fn current(&self) -> Arc<View> {
        Arc::clone(&self.latest.borrow())
    }

    /// The first view that is not this one.
    pub(crate) async fn other_than(&self, known: &Arc<View>) -> Arc<View> {
        let mut latest = self.latest.subscribe();
        let other = latest.wait_for(|view| !Arc::ptr_eq(view, known)).await;
        Arc::clone(&other.expect("the sender is a part of this"))
    }

    /// Follows discovery for ever, from what is known of the members. `on_view`
    /// sees each new view before it is handed out. A snapshot that cannot be used
    /// leaves the view as it is. `answers` asks a member itself whether it is
    /// there: see [`Membership`].
    pub(crate) async fn follow<A: Future<Output = bool> + Send>(
        &self,
        mut discovery: Watch,
        mut membership: Membership,
        on_view: impl Fn(&View),
        answers: impl Fn(&str) -> A,
    ) {
        let at_once = |membership: &Membership| {
            let doubted = membership.doubted().count();
            tracing::warn!(
                doubted,
                "members vanished from the registry at once: those that answer stay"
            );
            ask(membership, Duration::ZERO, &answers)
        };
        let is_in_doubt = |membership: &Membership| membership.doubted().next().is_some();
        let mut asking = is_in_doubt(&membership).then(|| at_once(&membership));
        loop {
            let has_changed = tokio::select! {
                snapshot = discovery.changed() => {
                    if membership.answered(Snapshot::clone(&snapshot)) {
                        asking = Some(at_once(&membership));
                    }
                    true
                }
                said = next_of(&mut asking) => {
                    asking = None;
                    let gone = membership.asked(said, Instant::now());
                    for name in &gone {
                        tracing::warn!(%name, "the member is gone from the registry, and silent");
                    }
                    !gone.is_empty()
                }
            };
            if asking.is_none() && is_in_doubt(&membership) {
                asking = Some(ask(&membership, ASK_EVERY, &answers));
            }
            if has_changed {
                self.show(&membership.believed(), &on_view);
            }
        }
    }

    fn show(&self, snapshot: &Snapshot, on_view: impl Fn(&View)) {
        let before = self.current();
        match View::new(snapshot, &before.settings.cluster, Some(&before)) {
            Ok(view) => {
                on_view(&view);
                self.latest.send_replace(Arc::new(view));
            }
            Err(error) => tracing::error!(%error, "the cluster's new state cannot be used"),
        }
    }
}

/// Asks all doubted members at once, after a while; returns whether each answers.
fn ask<'a, A: Future<Output = bool> + Send + 'a>(
    membership: &Membership,
    pause: Duration,
    answers: impl Fn(&str) -> A,
) -> BoxFuture<'a, Vec<(String, bool)>> {
    let one = |name: &str| (name.to_owned(), answers(name));
    let all: Vec<(String, A)> = membership.doubted().map(one).collect();
    let all = all.into_iter().map(|(name, answers)| async move { (name, answers.await) });
    let all = join_all(all);
    Box::pin(async move {
        sleep(pause).await;
        all.await
    })
}

/// What comes of a future, if there is one; else waits for ever.
async fn next_of<T>(future: &mut Option<BoxFuture<'_, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use rampuddle_discovery::{Member, Recorded, Revision};

    use super::*;

    fn snapshot(members: &[(&str, MemberState)]) -> Snapshot {
        let member = |(name, state): &(&str, MemberState)| {
            let (name, zone) = ((*name).to_owned(), String::new());
            Recorded {
                value: Member { name, weight: 1.0, zone, state: *state },
                revision: Revision::ABSENT,
            }
        };
        Snapshot { members: members.iter().map(member).collect(), ..Snapshot::default() }
    }

    #[test]
    fn written_states_decide_who_counts_and_liveness_does_not() {
        use MemberState::{Draining, Joining, Out, Ready};
        let members = [("a", Ready), ("b", Joining), ("c", Draining), ("d", Out)];
        let view = View::new(&snapshot(&members), "lab", None).unwrap();
        assert_eq!((view.placed_members(), view.members().len()), (2, 4));
        let mut ranks = view.ranks(Slot(7));
        assert_eq!(view.owners(Slot(7), 9).collect::<Vec<_>>(), ranks);
        ranks.sort();
        assert_eq!(ranks, [&Arc::from("a"), &Arc::from("b")]);
        assert!(view.living("a").is_none() && view.member("c").is_some());
    }

    #[test]
    fn the_order_of_members_in_a_snapshot_does_not_matter() {
        use MemberState::Ready;
        let one = snapshot(&[("a", Ready), ("b", Ready), ("c", Ready)]);
        let mut other = one.clone();
        other.members.reverse();
        let (one, other) =
            (View::new(&one, "lab", None).unwrap(), View::new(&other, "lab", None).unwrap());
        for slot in (0..=u16::MAX).step_by(97).map(Slot) {
            assert_eq!(one.ranks(slot), other.ranks(slot));
        }
    }

    #[test]
    fn ranks_are_kept_while_members_stay() {
        let first = snapshot(&[("a", MemberState::Ready)]);
        let before = View::new(&first, "lab", None).unwrap();
        let same = View::new(&first, "lab", Some(&before)).unwrap();
        assert!(Arc::ptr_eq(&before.placement, &same.placement));
        let other = snapshot(&[("a", MemberState::Ready), ("b", MemberState::Ready)]);
        let other = View::new(&other, "lab", Some(&before)).unwrap();
        assert!(!Arc::ptr_eq(&before.placement, &other.placement));
    }

    #[test]
    fn a_registry_is_young_for_ten_seconds() {
        let mut snapshot = snapshot(&[]);
        let young =
            |snapshot: &Snapshot, now| View::new(snapshot, "lab", None).unwrap().is_young(now);
        assert!(young(&snapshot, 5), "without settings nothing is known of its age");
        snapshot.settings = Some(Settings::new("lab", 1_000_000));
        assert!(young(&snapshot, 1_009_999) && !young(&snapshot, 1_010_000));
        snapshot.settings = Some(Settings::new("lab", 0));
        assert!(!young(&snapshot, 5));
    }

    #[test]
    fn a_kept_view_is_young_until_discovery_confirms_it() {
        let mut snapshot = snapshot(&[("a", MemberState::Ready)]);
        snapshot.settings = Some(Settings::new("lab", 1));
        snapshot.is_kept = true;
        assert!(View::new(&snapshot, "lab", None).unwrap().is_young(u64::MAX));
        snapshot.is_kept = false;
        assert!(!View::new(&snapshot, "lab", None).unwrap().is_young(u64::MAX));
    }
}

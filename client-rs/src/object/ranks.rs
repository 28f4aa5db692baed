//! Which servers an object's values belong to, and which may have them.

use std::sync::Arc;

use super::operation::Operation;
use crate::client::Core;
use crate::placement::Slot;
use crate::view::View;

/// Why members may be missing from a view that is young.
pub(super) fn why_young(view: &View) -> &'static str {
    if view.is_kept() {
        "discovery gave no answer yet, and servers may have joined since its view was kept"
    } else {
        "the cluster's registry is only seconds old, it may have been wiped"
    }
}

/// Copies that a write is to make of `replicas` asked for. While the registry is
/// young members may be missing from it: then no fewer than were asked for, so that
/// a write that they missed is not taken for a whole one.
pub(super) fn wanted_now(view: &View, replicas: u8, members: usize, now_ms: u64) -> usize {
    let of_members = wanted_of(replicas, members);
    if replicas == u8::MAX || !view.is_young(now_ms) {
        return of_members;
    }
    of_members.max(usize::from(replicas))
}

/// Copies wanted of `replicas` asked for, with so many members.
fn wanted_of(replicas: u8, members: usize) -> usize {
    if replicas == u8::MAX { members } else { usize::from(replicas).min(members) }
}

/// How far values may lie: readers look no further.
fn reach(view: &View) -> usize {
    if view.is_cloned() { usize::MAX } else { 2 * usize::from(view.settings().replicas_max) }
}

/// The first members by rank that may have a value of which so many copies are
/// wanted: owners and stand-ins.
fn first_ranks(view: &View, key: &[u8], replicas: u8) -> Vec<Arc<str>> {
    let count = reach(view).max(wanted_of(replicas, view.placed_members()));
    view.first_ranks(Slot::of(key, 0), count).into_iter().cloned().collect()
}

/// Where copies of a value go.
#[derive(Debug, Clone)]
pub(super) struct Candidates {
    /// By rank; the first `wanted` are the owners, as far as there are so many.
    pub(super) ranks: Vec<Arc<str>>,
    pub(super) wanted: usize,
}

impl Candidates {
    pub(super) fn of(view: &View, key: &[u8], replicas: u8, now_ms: u64) -> Self {
        // Who counts for placement is written to.
        let ranks = first_ranks(view, key, replicas);
        Self { wanted: wanted_now(view, replicas, ranks.len(), now_ms), ranks }
    }

    pub(super) fn owners(&self) -> &[Arc<str>] {
        &self.ranks[..self.wanted.min(self.ranks.len())]
    }
}

/// Members that may have a value.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// Those that placement ranks, by rank; then those on their way out, which
    /// do not count for placement, and have values still.
    members: Vec<Arc<str>>,
    placed: usize,
}

impl Places {
    /// Of an object of which nothing is known: the owners of as many replicas as
    /// the cluster allows, as many stand-ins, and members on their way out.
    pub(super) fn of(view: &View, key: &[u8]) -> Self {
        Self::of_copies(view, key, 0)
    }

    /// Of an object with so many copies: they may lie further than that.
    pub(super) fn of_copies(view: &View, key: &[u8], replicas: u8) -> Self {
        let mut members = first_ranks(view, key, replicas);
        let placed = members.len();
        let leaving = view
            .members()
            .iter()
            .filter(|member| member.state.is_read_from() && !member.state.counts_for_placement());
        members.extend(leaving.map(|member| Arc::clone(&member.name)));
        Self { members, placed }
    }

    pub(super) fn all(&self) -> &[Arc<str>] {
        &self.members
    }

    /// The owners of an object with so many copies, as far as they are among
    /// these; then all others.
    pub(super) fn split(&self, replicas: u8) -> (&[Arc<str>], &[Arc<str>]) {
        self.members.split_at(wanted_of(replicas, self.placed))
    }

    /// The owners of an object with so many copies, as far as they are among these.
    pub(super) fn owners(&self, replicas: u8) -> &[Arc<str>] {
        self.split(replicas).0
    }
}

/// Whether it is known where a server is, and it answered when it was asked last. That
/// discovery sees it alive is not needed: see [`Server::vanished`].
///
/// [`Server::vanished`]: crate::server::Server::vanished
pub(super) fn answers(core: &Core, server: &str) -> bool {
    core.servers.server(server).is_ok_and(|server| server.seems_alive())
}

/// Puts the servers that should be asked first in front: those that answer
/// before those that do not, those on this machine before others, and of two
/// drawn at random the less busy one.
pub(super) fn prefer(operation: &Operation, owners: &mut [Arc<str>]) {
    let environment = &operation.servers.access().environment;
    let mut salt = [0; 8];
    environment.random.fill(&mut salt);
    let salt = u64::from_le_bytes(salt);
    if owners.len() > 1 {
        let half = owners.len() as u64;
        owners.rotate_left((salt % half) as usize);
    }
    owners.sort_by_cached_key(|name| match operation.servers.server(name) {
        Ok(server) => {
            let is_slow = !answers(operation, name) || server.is_slow();
            (is_slow, !server.is_local(), server.in_flight())
        }
        Err(_) => (true, true, usize::MAX),
    });
}

#[cfg(test)]
mod tests {
    use rampuddle_discovery::{
        Member, MemberState, Recorded, Revision, Settings, Snapshot, Strategy,
    };

    use super::*;

    /// When the cluster was founded, and when its registry is not young any more.
    const FOUNDED_MS: u64 = 1_000_000;
    const OLD_MS: u64 = FOUNDED_MS + 10_000;

    /// Members `m0`, `m1`, ...; those in `leaving` are draining.
    fn view(members: usize, leaving: &[usize]) -> View {
        let member = |index: usize| {
            let is_leaving = leaving.contains(&index);
            let state = if is_leaving { MemberState::Draining } else { MemberState::Ready };
            let (name, zone) = (format!("m{index}"), String::new());
            let value = Member { name, weight: 1.0, zone, state };
            Recorded { value, revision: Revision::ABSENT }
        };
        let members = (0..members).map(member).collect();
        let settings = Some(Settings::new("lab", FOUNDED_MS));
        View::new(&Snapshot { settings, members, ..Snapshot::default() }, "lab", None).unwrap()
    }

    #[test]
    fn a_put_wants_as_many_copies_as_there_are_members_once_all_members_are_known() {
        let view = view(2, &[]);
        let wanted = |replicas, now_ms| Candidates::of(&view, b"key", replicas, now_ms).wanted;
        assert_eq!((wanted(1, FOUNDED_MS), wanted(2, FOUNDED_MS)), (1, 2));
        assert_eq!((wanted(3, OLD_MS - 1), wanted(3, OLD_MS)), (3, 2));
        assert_eq!(wanted(255, FOUNDED_MS), 2, "on every member that is known");
        assert_eq!(Candidates::of(&view, b"key", 3, FOUNDED_MS).owners().len(), 2);
    }

    fn cloned(members: usize, leaving: &[usize]) -> View {
        let view = view(members, leaving);
        let member = |member: &crate::view::ViewMember| {
            let value = Member::ready(&*member.name, member.weight);
            let value = Member { state: member.state, ..value };
            Recorded { value, revision: Revision::ABSENT }
        };
        let mut settings = view.settings().clone();
        settings.strategy = Strategy::Clone;
        let members = view.members().iter().map(member).collect();
        let snapshot = Snapshot { members, settings: Some(settings), ..Snapshot::default() };
        View::new(&snapshot, "lab", None).unwrap()
    }

    #[test]
    fn everybody_in_a_cloned_cluster_owns_everything_and_is_asked_for_it() {
        let view = cloned(10, &[3]);
        let places = Places::of(&view, b"key");
        assert_eq!((places.all().len(), places.owners(255).len()), (10, 9));
        let candidates = Candidates::of(&view, b"key", 255, OLD_MS);
        assert_eq!((candidates.owners().len(), candidates.ranks.len()), (9, 9));
        assert_eq!(places.owners(255), candidates.owners());
    }

    #[test]
    fn copies_on_every_member_are_looked_for_on_every_member() {
        let view = view(10, &[3]);
        let places = Places::of(&view, b"key");
        assert_eq!((places.all().len(), places.owners(255).len()), (7, 6));
        let places = Places::of_copies(&view, b"key", 255);
        assert_eq!((places.all().len(), places.owners(255).len()), (10, 9));
        assert_eq!(places.owners(2), &Candidates::of(&view, b"key", 2, OLD_MS).ranks[..2]);
        assert_eq!(places.owners(255), Candidates::of(&view, b"key", 255, OLD_MS).owners());
    }

    #[test]
    fn a_member_on_its_way_out_is_no_owner_though_copies_are_wanted_everywhere() {
        let places = Places::of(&view(4, &[1]), b"key");
        let leaving: Arc<str> = "m1".into();
        let (owners, others) = places.split(255);
        assert_eq!((owners.len(), others), (3, &[leaving][..]));
    }
}

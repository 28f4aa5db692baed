//! Sets of values, and the sessions that hold them.

use std::collections::{BTreeSet, HashMap};

use rampuddle_protocol::limits::LEASE_MS_MAX;
use rampuddle_protocol::{RowFlags, SetId, Status, TouchRow};

use super::entry::{EntryId, NO_ENTRY, Slab, State};
use super::{Now, Reply, Store, superseded_hash};

/// A session, by number.
pub(crate) type SessionIndex = u32;

/// Holds in force at once, over all sessions.
const HOLDS_MAX: usize = 65_536;
/// How long a reader is told to wait when too many are in force.
const BUSY_RETRY_MS: u64 = 100;

/// A set that has values here.
#[derive(Debug, Clone, Copy)]
struct SetRecord {
    /// The first of its visible values, and of those kept for holders.
    first: EntryId,
    first_superseded: EntryId,
    values: u32,
    holds: u32,
    superseded_pages: u32,
    /// Holds of an earlier era are broken.
    era: u64,
}

/// The sets that one session holds, each with its era at that time.
type Held = HashMap<SetId, u64, foldhash::quality::RandomState>;

/// All sets and holds.
#[derive(Debug)]
pub(super) struct Sets {
    records: HashMap<SetId, SetRecord, foldhash::quality::RandomState>,
    /// By session.
    held: Vec<Held>,
    holds: usize,
    /// Those of them that are not broken.
    kept: usize,
    /// The last era that was begun.
    era: u64,
    /// The sets that have superseded pages, and how many, fewest first.
    superseded: BTreeSet<(u32, SetId)>,
    superseded_pages: u32,
}

impl Sets {
    /// Most memory that a set can take: its record, with twice the room so that
    /// the table is cleaned up in place and never grows, and its place among
    /// those with superseded pages.
    pub(super) const BYTES_PER_SET: u64 =
        2 * (size_of::<SetId>() + size_of::<SetRecord>() + 1) as u64 * 16 / 7
            + 2 * size_of::<(u32, SetId)>() as u64;

    pub(super) fn new(sets_max: usize) -> Self {
        Self {
            records: HashMap::with_capacity_and_hasher(2 * sets_max, Default::default()),
            held: Vec::new(),
            holds: 0,
            kept: 0,
            era: 0,
            superseded: BTreeSet::new(),
            superseded_pages: 0,
        }
    }

    pub(super) fn superseded_pages(&self) -> u32 {
        self.superseded_pages
    }

    /// Holds that keep their set.
    pub(super) fn holds(&self) -> u64 {
        self.kept as u64
    }

    pub(super) fn is_held(&self, set: SetId) -> bool {
        !set.is_none() && self.records.get(&set).is_some_and(|record| record.holds > 0)
    }

    /// The first of a set's visible values.
    pub(super) fn first_of(&self, set: SetId) -> EntryId {
        self.records.get(&set).map_or(NO_ENTRY, |record| record.first)
    }

    /// Links a value into its set.
    pub(super) fn join(&mut self, slab: &mut Slab, id: EntryId) {
        let set = slab[id].set;
        if set.is_none() {
            return;
        }
        let record = self.records.entry(set).or_insert_with(|| {
            self.era += 1;
            SetRecord {
                first: NO_ENTRY,
                first_superseded: NO_ENTRY,
                values: 0,
                holds: 0,
                superseded_pages: 0,
                era: self.era,
            }
        });
        slab.push_front(&mut record.first, id);
        record.values += 1;
    }

    /// Unlinks a value from its set: a visible one, or a superseded one.
    pub(super) fn leave(&mut self, slab: &mut Slab, id: EntryId) {
        let set = slab[id].set;
        if set.is_none() {
            return;
        }
        let record = self.records.get_mut(&set).expect("the set of a value is known");
        match slab[id].state {
            State::Superseded => slab.take_out(&mut record.first_superseded, id),
            _ => slab.take_out(&mut record.first, id),
        }
        record.values -= 1;
        if record.values == 0 {
            // Values of a held set stay, so that nobody holds this one.
            self.records.remove(&set);
        }
    }

    /// Moves a value to those that are kept for holders.
    fn move_superseded(&mut self, slab: &mut Slab, id: EntryId) {
        let record = self.records.get_mut(&slab[id].set).expect("a held set has values");
        slab.take_out(&mut record.first, id);
        slab.push_front(&mut record.first_superseded, id);
        slab[id].state = State::Superseded;
    }

    fn count_superseded(&mut self, set: SetId, pages: u32, comes: bool) {
        let record = self.records.get_mut(&set).expect("the set of a held value is known");
        let before = record.superseded_pages;
        if comes {
            record.superseded_pages += pages;
            self.superseded_pages += pages;
        } else {
            record.superseded_pages -= pages;
            self.superseded_pages -= pages;
        }
        let after = record.superseded_pages;
        self.superseded.remove(&(before, set));
        if after > 0 {
            self.superseded.insert((after, set));
        }
    }

    /// Whether a session's hold of the set still keeps its values; `None`: it
    /// has none.
    fn is_kept(&self, session: SessionIndex, set: SetId) -> Option<bool> {
        let era = self.held.get(session as usize)?.get(&set)?;
        Some(self.records.get(&set).is_some_and(|record| record.era == *era))
    }

    fn hold(&mut self, session: SessionIndex, set: SetId) {
        let at = session as usize;
        if at >= self.held.len() {
            self.held.resize_with(at + 1, Held::default);
        }
        let record = self.records.get_mut(&set).expect("only sets with values are held");
        record.holds += 1;
        self.kept += 1;
        if self.held[at].insert(set, record.era).is_none() {
            self.holds += 1;
        }
    }

    /// Ends a session's hold, and says whether the set is free of holds now.
    fn release(&mut self, session: SessionIndex, set: SetId) -> Option<bool> {
        let kept = self.is_kept(session, set)?;
        let held = &mut self.held[session as usize];
        held.remove(&set);
        if held.is_empty() {
            *held = Held::default();
        }
        self.holds -= 1;
        if !kept {
            return Some(false);
        }
        let record = self.records.get_mut(&set).expect("a kept set has values");
        record.holds -= 1;
        self.kept -= 1;
        Some(record.holds == 0)
    }

    /// Breaks all holds of a set; returns how many there were.
    fn break_holds(&mut self, set: SetId) -> u64 {
        self.era += 1;
        let record = self.records.get_mut(&set).expect("the caller found it");
        record.era = self.era;
        let broken = std::mem::take(&mut record.holds);
        self.kept -= broken as usize;
        broken.into()
    }

    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn check_invariants(&self, slab: &Slab) {
        let mut superseded = 0;
        for (set, record) in &self.records {
            let (mut values, mut pages) = (0, 0);
            for (first, state) in
                [(record.first, State::Visible), (record.first_superseded, State::Superseded)]
            {
                let mut id = first;
                while id != NO_ENTRY {
                    assert_eq!((slab[id].set, slab[id].state), (*set, state));
                    values += 1;
                    pages += if state == State::Superseded { slab[id].body.pages } else { 0 };
                    id = slab[id].next;
                }
            }
            assert_eq!((values, pages), (record.values, record.superseded_pages), "{set}");
            let kept = |held: &&Held| held.get(set) == Some(&record.era);
            assert_eq!(self.held.iter().filter(kept).count(), record.holds as usize);
            assert!(record.values > 0, "an empty set is forgotten");
            let is_listed = self.superseded.contains(&(pages, *set));
            assert_eq!(is_listed, pages > 0, "{set}");
            superseded += pages;
        }
        assert_eq!(superseded, self.superseded_pages);
        assert_eq!(self.holds, self.held.iter().map(Held::len).sum::<usize>());
        let kept: u32 = self.records.values().map(|record| record.holds).sum();
        assert_eq!(self.kept, kept as usize);
    }
}

impl Store {
    /// Hold: keeps the set's values readable to the session.
    pub(crate) fn hold(&mut self, session: SessionIndex, set: SetId) -> Reply {
        if set.is_none() {
            return Reply::of(Status::BadRow);
        }
        let values = self.sets.records.get(&set).map_or(0, |record| record.values);
        if values == 0 {
            return Reply::of(Status::NotFound);
        }
        if self.sets.is_kept(session, set) != Some(true) {
            if self.sets.holds >= HOLDS_MAX {
                return Reply::with_detail(Status::Busy, BUSY_RETRY_MS);
            }
            self.sets.hold(session, set);
        }
        Reply::with_detail(Status::Ok, values.into())
    }

    /// Release: ends the session's hold of the set.
    pub(crate) fn release(&mut self, session: SessionIndex, set: SetId) -> Reply {
        let values = self.sets.records.get(&set).map_or(0, |record| record.values);
        match self.sets.release(session, set) {
            None => Reply::of(Status::NotFound),
            Some(last) => {
                if last {
                    self.free_superseded(set);
                }
                Reply::with_detail(Status::Ok, values.into())
            }
        }
    }

    /// Ends all holds of a session.
    pub(crate) fn release_all(&mut self, session: SessionIndex) {
        let held = self.sets.held.get(session as usize);
        let sets: Vec<SetId> = held.map_or_else(Vec::new, |held| held.keys().copied().collect());
        for set in sets {
            self.release(session, set);
        }
    }

    /// Whether a session has holds or reservations here.
    pub(crate) fn keeps_anything(&self, session: SessionIndex) -> bool {
        let holds = self.sets.held.get(session as usize).is_some_and(|held| !held.is_empty());
        holds || self.reservations.of_session(session) > 0
    }

    /// Touch: a new lease for all values of the set.
    pub(crate) fn touch(&mut self, row: &TouchRow, now: Now) -> Reply {
        if row.lease_ms > LEASE_MS_MAX || row.set.is_none() {
            return Reply::of(Status::BadRow);
        }
        let mut id = self.sets.records.get(&row.set).map_or(NO_ENTRY, |record| record.first);
        let mut touched = 0;
        while id != NO_ENTRY {
            let next = self.slab[id].next;
            let has_ended = self.slab[id].expires_ms <= now.monotonic_ms;
            if !has_ended {
                self.renew_lease(id, row, now);
                touched += 1;
            }
            id = next;
        }
        let status = if touched == 0 { Status::NotFound } else { Status::Ok };
        Reply::with_detail(status, touched)
    }

    /// A value that is permanent stays so, and no lease gets shorter unless it is
    /// to be exact, or any other once it is: a renewal may arrive late.
    fn renew_lease(&mut self, id: EntryId, row: &TouchRow, now: Now) {
        let entry = &mut self.slab[id];
        let is_exact = row.flags.has(RowFlags::EXACT);
        if entry.expires_ms == u64::MAX || (entry.has_exact_lease && !is_exact) {
            return;
        }
        entry.has_exact_lease = is_exact;
        let is_longer = entry.expires_ms < now.monotonic_ms + row.lease_ms;
        if is_exact || row.lease_ms == 0 || is_longer {
            self.set_lease(id, row.lease_ms, now);
        }
    }

    /// Keeps a removed value for the holders of its set. Over a quarter of the
    /// pool, the hold that keeps most is broken: writers never wait.
    pub(super) fn supersede(&mut self, id: EntryId) {
        let (set, pages) = (self.slab[id].set, self.slab[id].body.pages);
        self.sets.move_superseded(&mut self.slab, id);
        let hash = superseded_hash(self.slab[id].hash, set);
        let slab = &self.slab;
        let rehash = |id: &EntryId| superseded_hash(slab[*id].hash, slab[*id].set);
        self.superseded.insert_unique(hash, id, rehash);
        self.sets.count_superseded(set, pages, true);
        while self.sets.superseded_pages > self.pool.total_pages() / 4 {
            let Some((_, largest)) = self.sets.superseded.last().copied() else { break };
            self.counters.holds_broken += self.sets.break_holds(largest);
            self.free_superseded(largest);
        }
    }

    fn free_superseded(&mut self, set: SetId) {
        let first = |sets: &Sets| Some(sets.records.get(&set)?.first_superseded);
        while let Some(id) = first(&self.sets).filter(|id| *id != NO_ENTRY) {
            self.free_one_superseded(id);
        }
    }

    fn free_one_superseded(&mut self, id: EntryId) {
        let (set, pages) = (self.slab[id].set, self.slab[id].body.pages);
        let hash = superseded_hash(self.slab[id].hash, set);
        let found = self.superseded.find_entry(hash, |other| *other == id);
        found.expect("a superseded value is in its table").remove();
        self.sets.count_superseded(set, pages, false);
        self.sets.leave(&mut self.slab, id);
        self.retire(id);
    }

    /// The value of `set` under `key`: the current one, or one that this
    /// session's hold keeps.
    pub(super) fn find_held(
        &mut self,
        key: &[u8],
        set: SetId,
        session: SessionIndex,
        now: Now,
    ) -> Result<EntryId, Status> {
        if let Some(id) = self.find_value(key, now).filter(|id| self.slab[*id].set == set) {
            return Ok(id);
        }
        match self.sets.is_kept(session, set) {
            None => Err(Status::NotFound),
            Some(false) => Err(Status::Superseded),
            Some(true) => {
                let hash = superseded_hash(self.hash(key), set);
                let slab = &self.slab;
                let wanted = |id: &EntryId| slab[*id].set == set && slab.key(*id) == key;
                self.superseded.find(hash, wanted).copied().ok_or(Status::NotFound)
            }
        }
    }
}

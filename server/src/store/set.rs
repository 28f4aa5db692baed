//! Sets of values, and the sessions that hold them.

use std::collections::HashMap;

use rampuddle_protocol::limits::LEASE_MS_MAX;
use rampuddle_protocol::{SetId, Status, TouchRow};

use super::entry::{EntryId, NO_ENTRY, Slab, State};
use super::{Now, Reply, Store, superseded_hash};

/// A session, by number.
pub(crate) type SessionIndex = u32;

/// Holds in force at once, over all sessions.
const HOLDS_MAX: usize = 65_536;
/// How long a reader is told to wait when too many are in force.
const BUSY_RETRY_MS: u64 = 100;

/// A set that has values here or is held.
#[derive(Debug, Clone, Copy)]
struct SetRecord {
    first: EntryId,
    values: u32,
    holds: u32,
    superseded_pages: u32,
}

impl SetRecord {
    const EMPTY: Self = Self { first: NO_ENTRY, values: 0, holds: 0, superseded_pages: 0 };
}

/// Whether a hold still keeps anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HoldState {
    Kept,
    Broken,
}

/// All sets and holds.
#[derive(Debug)]
pub(super) struct Sets {
    records: HashMap<SetId, SetRecord, foldhash::quality::RandomState>,
    holds: HashMap<(SessionIndex, SetId), HoldState, foldhash::quality::RandomState>,
    superseded_pages: u32,
}

impl Sets {
    /// Most memory that a set can take.
    pub(super) const BYTES_PER_SET: u64 =
        (size_of::<SetId>() + size_of::<SetRecord>() + 1) as u64 * 16 / 7;

    pub(super) fn new(sets_max: usize) -> Self {
        Self {
            records: HashMap::with_capacity_and_hasher(sets_max, Default::default()),
            holds: HashMap::default(),
            superseded_pages: 0,
        }
    }

    pub(super) fn superseded_pages(&self) -> u32 {
        self.superseded_pages
    }

    pub(super) fn holds(&self) -> u64 {
        self.holds.len() as u64
    }

    pub(super) fn is_held(&self, set: SetId) -> bool {
        !set.is_none() && self.records.get(&set).is_some_and(|record| record.holds > 0)
    }

    /// Links a value into its set.
    pub(super) fn join(&mut self, slab: &mut Slab, id: EntryId) {
        let set = slab[id].set;
        if set.is_none() {
            return;
        }
        let record = self.records.entry(set).or_insert(SetRecord::EMPTY);
        (slab[id].previous, slab[id].next) = (NO_ENTRY, record.first);
        if record.first != NO_ENTRY {
            slab[record.first].previous = id;
        }
        record.first = id;
        record.values += 1;
    }

    /// Unlinks a value from its set.
    pub(super) fn leave(&mut self, slab: &mut Slab, id: EntryId) {
        let (set, previous, next) = (slab[id].set, slab[id].previous, slab[id].next);
        if set.is_none() {
            return;
        }
        let record = self.records.get_mut(&set).expect("the set of a value is known");
        match previous {
            NO_ENTRY => record.first = next,
            previous => slab[previous].next = next,
        }
        if next != NO_ENTRY {
            slab[next].previous = previous;
        }
        record.values -= 1;
        self.forget_if_empty(set);
    }

    fn forget_if_empty(&mut self, set: SetId) {
        let empty = |record: &SetRecord| record.values == 0 && record.holds == 0;
        if self.records.get(&set).is_some_and(empty) {
            self.records.remove(&set);
        }
    }

    fn count_superseded(&mut self, set: SetId, pages: u32, comes: bool) {
        let record = self.records.get_mut(&set).expect("the set of a held value is known");
        if comes {
            record.superseded_pages += pages;
            self.superseded_pages += pages;
        } else {
            record.superseded_pages -= pages;
            self.superseded_pages -= pages;
        }
    }

    /// Ends a session's hold, and says whether the set is free of holds now.
    fn release(&mut self, session: SessionIndex, set: SetId) -> Option<bool> {
        let state = self.holds.remove(&(session, set))?;
        if state == HoldState::Broken {
            return Some(false);
        }
        let record = self.records.get_mut(&set).expect("a held set is known");
        record.holds -= 1;
        Some(record.holds == 0)
    }

    fn largest_superseded(&self) -> Option<SetId> {
        let held = self.records.iter().filter(|(_, record)| record.superseded_pages > 0);
        held.max_by_key(|(_, record)| record.superseded_pages).map(|(set, _)| *set)
    }

    fn break_holds(&mut self, set: SetId) -> u64 {
        let mut broken = 0;
        for ((_, held), state) in &mut self.holds {
            if *held == set && *state == HoldState::Kept {
                *state = HoldState::Broken;
                broken += 1;
            }
        }
        if let Some(record) = self.records.get_mut(&set) {
            record.holds = 0;
        }
        broken
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self, slab: &Slab) {
        let mut superseded = 0;
        for (set, record) in &self.records {
            let (mut id, mut values, mut pages) = (record.first, 0, 0);
            while id != NO_ENTRY {
                assert_eq!(slab[id].set, *set);
                values += 1;
                if slab[id].state == State::Superseded {
                    pages += slab[id].body.pages;
                }
                id = slab[id].next;
            }
            assert_eq!((values, pages), (record.values, record.superseded_pages), "{set}");
            let kept = |(key, state): &(&(SessionIndex, SetId), &HoldState)| {
                key.1 == *set && **state == HoldState::Kept
            };
            assert_eq!(self.holds.iter().filter(kept).count(), record.holds as usize);
            assert!(record.values > 0 || record.holds > 0, "an empty set is forgotten");
            superseded += pages;
        }
        assert_eq!(superseded, self.superseded_pages);
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
        if self.sets.holds.get(&(session, set)) == Some(&HoldState::Kept) {
            return Reply::with_detail(Status::Ok, values.into());
        }
        if self.sets.holds.len() >= HOLDS_MAX {
            return Reply::with_detail(Status::Busy, BUSY_RETRY_MS);
        }
        self.sets.holds.insert((session, set), HoldState::Kept);
        self.sets.records.get_mut(&set).expect("looked up above").holds += 1;
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
                    self.sets.forget_if_empty(set);
                }
                Reply::with_detail(Status::Ok, values.into())
            }
        }
    }

    /// Ends all holds of a session.
    pub(crate) fn release_all(&mut self, session: SessionIndex) {
        let held: Vec<SetId> =
            self.sets.holds.keys().filter(|key| key.0 == session).map(|key| key.1).collect();
        for set in held {
            self.release(session, set);
        }
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
            if self.slab[id].state == State::Visible && !has_ended {
                self.renew_lease(id, row.lease_ms, now);
                touched += 1;
            }
            id = next;
        }
        let status = if touched == 0 { Status::NotFound } else { Status::Ok };
        Reply::with_detail(status, touched)
    }

    /// A value that is permanent stays so, and no lease gets shorter: a renewal
    /// may arrive late.
    fn renew_lease(&mut self, id: EntryId, lease_ms: u64, now: Now) {
        let ends_ms = self.slab[id].expires_ms;
        if lease_ms == 0 || (ends_ms != u64::MAX && ends_ms < now.monotonic_ms + lease_ms) {
            self.set_lease(id, lease_ms, now);
        }
    }

    /// Keeps a removed value for the holders of its set. Over a quarter of the
    /// pool, the hold that keeps most is broken: writers never wait.
    pub(super) fn supersede(&mut self, id: EntryId) {
        let (set, pages) = (self.slab[id].set, self.slab[id].body.pages);
        self.slab[id].state = State::Superseded;
        let hash = superseded_hash(self.slab[id].hash, set);
        let slab = &self.slab;
        let rehash = |id: &EntryId| superseded_hash(slab[*id].hash, slab[*id].set);
        self.superseded.insert_unique(hash, id, rehash);
        self.sets.count_superseded(set, pages, true);
        while self.sets.superseded_pages > self.pool.total_pages() / 4 {
            let Some(largest) = self.sets.largest_superseded() else { break };
            self.counters.holds_broken += self.sets.break_holds(largest);
            self.free_superseded(largest);
            self.sets.forget_if_empty(largest);
        }
    }

    fn free_superseded(&mut self, set: SetId) {
        let mut id = self.sets.records.get(&set).map_or(NO_ENTRY, |record| record.first);
        while id != NO_ENTRY {
            let next = self.slab[id].next;
            if self.slab[id].state == State::Superseded {
                self.free_one_superseded(id);
            }
            id = next;
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
        match self.sets.holds.get(&(session, set)) {
            None => Err(Status::NotFound),
            Some(HoldState::Broken) => Err(Status::Superseded),
            Some(HoldState::Kept) => {
                let hash = superseded_hash(self.hash(key), set);
                let slab = &self.slab;
                let wanted = |id: &EntryId| slab[*id].set == set && slab.key(*id) == key;
                self.superseded.find(hash, wanted).copied().ok_or(Status::NotFound)
            }
        }
    }
}

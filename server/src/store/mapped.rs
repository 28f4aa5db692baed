//! Values that clients on this machine read where they lie.
//!
//! One Map makes a *hold*: it names the values found, and keeps them in place until
//! the reader ends it, or is gone. Each hold pins its values as a request that reads
//! them would; so whatever removes one from under its key, its bytes stay.

use hashbrown::HashTable;
use rampuddle_protocol::limits::KEY_BYTES_MAX;
use rampuddle_protocol::{MapRow, MappedRow, RowFlags, SetId, Status};

use super::entry::{Entry, EntryId, NO_ENTRY};
use super::{Now, Store};
use crate::pool::{Cursor, Piece, PoolRange};

/// A mapping of the pool, by number.
pub(crate) type MappingIndex = u32;

/// Mappings at once.
pub(crate) const MAPPINGS_MAX: usize = 1_024;
/// Holds of all mappings at once.
const HOLDS_MAX: usize = 65_536;
/// Values of all holds at once, one in several holds counted in each.
const LINKS_MAX: usize = 262_144;
/// Values that one Map looks at.
const HOLD_VALUES_MAX: u32 = 32_768;
/// Values that are let go in one turn before the rest waits for another.
pub(crate) const RELEASED_MAX: u64 = 32_768;
/// How long a reader is told to wait when too much is kept.
const BUSY_RETRY_MS: u64 = 100;

type HoldId = u32;
type LinkId = u32;

/// No hold, no link.
const NONE: u32 = u32::MAX;

/// What one Map keeps.
#[derive(Debug, Clone, Copy)]
struct Hold {
    mapping: MappingIndex,
    values: u32,
    /// As the client calls it.
    number: u64,
    /// Of both, under which it is found.
    hash: u64,
    /// Its values.
    first: LinkId,
    /// Neighbours among the holds of its mapping.
    previous: HoldId,
    next: HoldId,
}

/// One value of a hold.
#[derive(Debug, Clone, Copy)]
struct Link {
    entry: EntryId,
    /// `NONE` while the link is free.
    hold: HoldId,
    next: LinkId,
}

/// Holds of all mappings, in memory that is taken once.
#[derive(Debug)]
pub(super) struct Mapped {
    holds: Vec<Hold>,
    free_hold: HoldId,
    links: Vec<Link>,
    free_link: LinkId,
    used_links: usize,
    by_number: HashTable<HoldId>,
    /// The first hold of each mapping.
    first: Vec<HoldId>,
    /// Mappings that are gone, and may have holds still.
    ending: Vec<MappingIndex>,
    /// Pages of values that are kept, each counted once.
    pages: u32,
}

/// How far an answer to Map is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MapPlace {
    link: LinkId,
    offset: u64,
    /// `None`: not looked up yet.
    cursor: Option<Cursor>,
}

/// A run of a value, as an answer to Map describes it.
#[derive(Debug)]
pub(crate) struct MappedRun<'s> {
    pub(crate) row: MappedRow,
    /// In the first run of a value.
    pub(crate) key: &'s [u8],
    pub(crate) tag: &'s [u8],
}

/// What of the store a Map asks for.
enum Wanted {
    /// The value under a key, and what else is of its set.
    Value(EntryId, SetId),
    Set(SetId),
}

impl Mapped {
    pub(super) fn new() -> Self {
        Self {
            holds: Vec::with_capacity(HOLDS_MAX),
            free_hold: NONE,
            links: Vec::with_capacity(LINKS_MAX),
            free_link: NONE,
            used_links: 0,
            // Twice the room, so that the table is cleaned up in place and never grows.
            by_number: HashTable::with_capacity(2 * HOLDS_MAX),
            first: vec![NONE; MAPPINGS_MAX],
            ending: Vec::with_capacity(MAPPINGS_MAX),
            pages: 0,
        }
    }

    /// Room for holds, for links, and in the table.
    #[cfg(test)]
    pub(super) fn capacities(&self) -> [usize; 3] {
        [self.holds.capacity(), self.links.capacity(), self.by_number.capacity()]
    }

    fn find(&self, hash: u64, mapping: MappingIndex, number: u64) -> Option<HoldId> {
        let is_it = |id: &HoldId| {
            let hold = &self.holds[*id as usize];
            (hold.mapping, hold.number) == (mapping, number)
        };
        self.by_number.find(hash, is_it).copied()
    }

    fn has_room(&self, values: u32) -> bool {
        self.by_number.len() < HOLDS_MAX && self.used_links + values as usize <= LINKS_MAX
    }

    /// A hold without values. There is room.
    fn insert(&mut self, hash: u64, mapping: MappingIndex, number: u64) -> HoldId {
        let next = self.first[mapping as usize];
        let hold = Hold { mapping, values: 0, number, hash, first: NONE, previous: NONE, next };
        let id = put(&mut self.holds, &mut self.free_hold, hold, |free| free.next);
        if next != NONE {
            self.holds[next as usize].previous = id;
        }
        self.first[mapping as usize] = id;
        let holds = &self.holds;
        self.by_number.insert_unique(hash, id, |id| holds[*id as usize].hash);
        id
    }

    /// Forgets a hold that has no values any more.
    fn remove(&mut self, hash: u64, id: HoldId) {
        let Hold { mapping, previous, next, .. } = self.holds[id as usize];
        match previous {
            NONE => self.first[mapping as usize] = next,
            previous => self.holds[previous as usize].next = next,
        }
        if next != NONE {
            self.holds[next as usize].previous = previous;
        }
        let found = self.by_number.find_entry(hash, |other| *other == id);
        found.expect("a hold is in its table").remove();
        self.holds[id as usize].next = self.free_hold;
        self.free_hold = id;
    }

    /// Adds a value in front of a hold's others.
    fn link(&mut self, hold: HoldId, entry: EntryId) {
        let link = Link { entry, hold, next: self.holds[hold as usize].first };
        let id = put(&mut self.links, &mut self.free_link, link, |free| free.next);
        self.used_links += 1;
        let hold = &mut self.holds[hold as usize];
        (hold.first, hold.values) = (id, hold.values + 1);
    }

    /// Takes a value out of a hold; `None` = it has none any more.
    fn unlink(&mut self, hold: HoldId) -> Option<EntryId> {
        let id = self.holds[hold as usize].first;
        if id == NONE {
            return None;
        }
        let Link { entry, next, .. } = self.links[id as usize];
        self.links[id as usize] = Link { entry: NO_ENTRY, hold: NONE, next: self.free_link };
        (self.free_link, self.used_links) = (id, self.used_links - 1);
        self.holds[hold as usize].first = next;
        Some(entry)
    }
}

/// Puts one more where one is free, or behind all; returns where. The free ones are
/// chained by `next`.
fn put<T>(all: &mut Vec<T>, free: &mut u32, one: T, next: fn(&T) -> u32) -> u32 {
    if *free == NONE {
        all.push(one);
        return all.len() as u32 - 1;
    }
    let id = *free;
    *free = next(&all[id as usize]);
    all[id as usize] = one;
    id
}

impl Store {
    /// Map: finds values and keeps them for a mapping, or goes on with an answer
    /// that was cut. Where to describe them from: see [`Store::next_run`].
    pub(crate) fn map(
        &mut self,
        mapping: MappingIndex,
        row: &MapRow,
        key: &[u8],
        now: Now,
    ) -> Result<MapPlace, MappedRow> {
        let hash = self.hash_hold(mapping, row.hold);
        let held = self.mapped.find(hash, mapping, row.hold);
        let wanted = match (key.is_empty(), row.set.is_none(), row.cursor) {
            _ if row.hold == 0 || key.len() > KEY_BYTES_MAX => None,
            (true, true, 1..) if row.flags == RowFlags::NONE => {
                return self.resume(held, row.cursor).ok_or(MappedRow::of(Status::BadRow));
            }
            (true, false, 0) if row.flags == RowFlags::NONE => Some(Wanted::Set(row.set)),
            (false, true, 0) => match self.find_value(key, now) {
                Some(id) => Some(Wanted::Value(id, self.set_asked_for(id, row.flags))),
                None => return Err(self.nothing_to_map(key, now)),
            },
            _ => None,
        };
        match wanted.filter(|_| held.is_none()) {
            Some(wanted) => self.keep(hash, mapping, row.hold, &wanted, now),
            None => Err(MappedRow::of(Status::BadRow)),
        }
    }

    fn set_asked_for(&self, id: EntryId, flags: RowFlags) -> SetId {
        if flags.has(RowFlags::SET) { self.slab[id].set } else { SetId::NONE }
    }

    fn nothing_to_map(&mut self, key: &[u8], now: Now) -> MappedRow {
        let version = self.not_found(key, now).outcome.version;
        MappedRow { version, ..MappedRow::of(Status::NotFound) }
    }

    fn hash_hold(&self, mapping: MappingIndex, number: u64) -> u64 {
        use std::hash::BuildHasher as _;
        self.hasher.hash_one((mapping, number))
    }

    /// Keeps what was asked for, all of it or nothing.
    fn keep(
        &mut self,
        hash: u64,
        mapping: MappingIndex,
        number: u64,
        wanted: &Wanted,
        now: Now,
    ) -> Result<MapPlace, MappedRow> {
        let (first, set) = match wanted {
            Wanted::Value(id, _) if !can_be_mapped(&self.slab[*id]) => {
                return Err(MappedRow::of(Status::Unsupported));
            }
            Wanted::Value(id, set) => (*id, *set),
            Wanted::Set(set) => (NO_ENTRY, *set),
        };
        let (mut seen, mut values, mut pages) = (0, 0, 0);
        let mut id = first_of(self, first, set);
        while id != NO_ENTRY && seen <= HOLD_VALUES_MAX {
            seen += 1;
            if id == first || self.is_kept_with(id, first, now) {
                values += 1;
                pages += if self.slab[id].mapped == 0 { self.slab[id].body.pages } else { 0 };
            }
            id = next_of(self, id, first, set);
        }
        if seen > HOLD_VALUES_MAX {
            return Err(MappedRow::of(Status::TooLarge));
        }
        if values == 0 {
            return Err(MappedRow::of(Status::NotFound));
        }
        let is_within = self.mapped.pages + pages <= self.pool.total_pages() / 4;
        if !is_within || !self.mapped.has_room(values) {
            return Err(MappedRow { detail: BUSY_RETRY_MS, ..MappedRow::of(Status::Busy) });
        }
        let hold = self.mapped.insert(hash, mapping, number);
        let mut id = first_of(self, NO_ENTRY, set);
        while id != NO_ENTRY {
            if self.is_kept_with(id, first, now) {
                self.keep_one(hold, id);
            }
            id = self.slab[id].next;
        }
        // The value under the key comes first.
        if first != NO_ENTRY {
            self.keep_one(hold, first);
        }
        let link = self.mapped.holds[hold as usize].first;
        Ok(MapPlace { link, offset: 0, cursor: None })
    }

    fn keep_one(&mut self, hold: HoldId, id: EntryId) {
        self.mapped.link(hold, id);
        self.pin(id);
        let entry = &mut self.slab[id];
        entry.mapped += 1;
        self.mapped.pages += if entry.mapped == 1 { entry.body.pages } else { 0 };
    }

    /// Whether a value of a set is kept beside `first`.
    fn is_kept_with(&self, id: EntryId, first: EntryId, now: Now) -> bool {
        let entry = &self.slab[id];
        id != first && entry.expires_ms > now.monotonic_ms && can_be_mapped(entry)
    }

    /// Where an answer goes on that was cut.
    fn resume(&self, hold: Option<HoldId>, cursor: u64) -> Option<MapPlace> {
        let link = u32::try_from(cursor >> 32).ok()?.checked_sub(1)?;
        let offset = cursor & u64::from(u32::MAX);
        let found = self.mapped.links.get(link as usize).filter(|link| Some(link.hold) == hold)?;
        let filled = self.slab[found.entry].body.filled;
        let is_within = offset == 0 || offset < filled;
        is_within.then_some(MapPlace { link, offset, cursor: None })
    }

    /// The run at `place`, which moves behind it; `None` = all are described.
    pub(crate) fn next_run(&self, place: &mut MapPlace) -> Option<MappedRun<'_>> {
        if place.link == NONE {
            return None;
        }
        let Link { entry: id, next, .. } = self.mapped.links[place.link as usize];
        let (entry, offset) = (&self.slab[id], place.offset);
        let range = self.run_from(entry, place);
        if place.offset >= entry.body.filled {
            *place = MapPlace { link: next, offset: 0, cursor: None };
        }
        let row = MappedRow {
            flags: entry.flags,
            length: entry.length,
            filled: entry.body.filled,
            version: entry.version,
            set: entry.set,
            offset: range.start,
            bytes: range.end - range.start,
            ..MappedRow::of(Status::Ok)
        };
        let is_first = offset == 0;
        let (key, tag) =
            if is_first { (self.slab.key(id), entry.tag()) } else { (&[][..], &[][..]) };
        Some(MappedRun { row, key, tag })
    }

    /// The longest stretch of the pool that has the value's bytes from `place` on.
    fn run_from(&self, entry: &Entry, place: &mut MapPlace) -> PoolRange {
        let (body, end) = (&entry.body, entry.body.filled);
        let mut cursor = place.cursor.unwrap_or_else(|| body.begin());
        let mut run: Option<PoolRange> = None;
        while place.offset < end {
            let mut ahead = cursor;
            let piece = self.pool.piece(body, &mut ahead, place.offset, end);
            let Piece::Pool(range) = piece else {
                unreachable!("every byte of a value that can be mapped was given")
            };
            match &mut run {
                Some(run) if run.end != range.start => break,
                Some(run) => run.end = range.end,
                None => run = Some(range.clone()),
            }
            cursor = ahead;
            place.offset += range.end - range.start;
        }
        place.cursor = Some(cursor);
        run.unwrap_or(0..0)
    }

    /// The number by which an answer goes on at `place`.
    pub(crate) fn cursor_of(place: &MapPlace) -> u64 {
        (u64::from(place.link) + 1) << 32 | place.offset
    }

    /// Unmap: ends a hold; how many values it kept. `None` = there is none.
    pub(crate) fn unmap(&mut self, mapping: MappingIndex, number: u64) -> Option<u32> {
        let hash = self.hash_hold(mapping, number);
        let hold = self.mapped.find(hash, mapping, number)?;
        let values = self.mapped.holds[hold as usize].values;
        while let Some(id) = self.mapped.unlink(hold) {
            let entry = &mut self.slab[id];
            entry.mapped -= 1;
            self.mapped.pages -= if entry.mapped == 0 { entry.body.pages } else { 0 };
            self.unpin(id);
        }
        self.mapped.remove(hash, hold);
        Some(values)
    }

    /// A mapping is gone: its holds end, some at each [`Store::end_mappings`].
    pub(crate) fn end_mapping(&mut self, mapping: MappingIndex) {
        self.mapped.ending.push(mapping);
    }

    /// Ends holds of mappings that are gone, but not too many at once; true when
    /// there are more. Costs nothing when none is.
    pub(crate) fn end_mappings(&mut self) -> bool {
        let mut released = 0;
        while let Some(mapping) = self.mapped.ending.last().copied() {
            match self.mapped.first[mapping as usize] {
                NONE => drop(self.mapped.ending.pop()),
                hold if released < RELEASED_MAX => {
                    let number = self.mapped.holds[hold as usize].number;
                    released += u64::from(self.unmap(mapping, number).unwrap_or(0)) + 1;
                }
                _ => return true,
            }
        }
        false
    }

    /// Whether a mapping has no hold, so that its number may be another's.
    pub(crate) fn is_unmapped(&self, mapping: MappingIndex) -> bool {
        let ending = self.mapped.ending.contains(&mapping);
        !ending && self.mapped.first[mapping as usize] == NONE
    }

    /// Pages of values that are kept for mappings, each counted once.
    pub(crate) fn mapped_pages(&self) -> u32 {
        self.mapped.pages
    }

    /// Asserts that holds, links and values agree. Costs a walk over all of them.
    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn check_mapped(&self) {
        let mut of_entry = std::collections::HashMap::<EntryId, u32>::new();
        let (mut links, mut holds) = (0, 0);
        for (mapping, first) in self.mapped.first.iter().enumerate() {
            let (mut id, mut previous) = (*first, NONE);
            while id != NONE {
                let hold = self.mapped.holds[id as usize];
                assert_eq!((hold.mapping as usize, hold.previous), (mapping, previous));
                let hash = self.hash_hold(hold.mapping, hold.number);
                assert_eq!(self.mapped.find(hash, hold.mapping, hold.number), Some(id));
                let (mut link, mut values) = (hold.first, 0);
                while link != NONE {
                    let Link { entry, hold, next } = self.mapped.links[link as usize];
                    assert_eq!(hold, id);
                    *of_entry.entry(entry).or_default() += 1;
                    (link, values) = (next, values + 1);
                }
                assert_eq!(values, hold.values);
                (links, holds) = (links + values as usize, holds + 1);
                (previous, id) = (id, hold.next);
            }
        }
        assert_eq!((links, holds), (self.mapped.used_links, self.mapped.by_number.len()));
        let mut pages = 0;
        for id in 0..self.slab.extent() {
            let entry = &self.slab[id];
            assert_eq!(entry.mapped, of_entry.get(&id).copied().unwrap_or(0), "entry {id}");
            assert!(entry.mapped <= entry.pins, "holds pin their values");
            pages += if entry.mapped > 0 { entry.body.pages } else { 0 };
        }
        assert_eq!(pages, self.mapped.pages);
        assert!(pages <= self.pool.total_pages() / 4, "a quarter of the pool");
    }
}

/// Whether readers may have a value's own memory: nobody writes into it any more,
/// and none of its bytes reads as zero without being so there.
fn can_be_mapped(entry: &Entry) -> bool {
    entry.flags.has(RowFlags::SEALED) && entry.body.prefix >= entry.body.filled
}

/// Where a walk over `first` and a set begins.
fn first_of(store: &Store, first: EntryId, set: SetId) -> EntryId {
    if first != NO_ENTRY { first } else { store.sets.first_of(set) }
}

/// Where it goes on.
fn next_of(store: &Store, id: EntryId, first: EntryId, set: SetId) -> EntryId {
    let next = if id == first { store.sets.first_of(set) } else { store.slab[id].next };
    // The first value was seen already.
    if next == first && next != NO_ENTRY { store.slab[next].next } else { next }
}

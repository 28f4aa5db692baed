//! Keys and their values. Everything that changes goes through
//! [`Store::publish`], [`Store::remove`] and [`Store::entomb`].
//!
//! The store knows no connections and no frames; time is an argument.

mod claim;
mod entry;
mod lease;
mod list;
mod mapped;
mod order;
mod random;
mod reservation;
mod set;
mod tombstone;
mod value;
mod verify;

use std::hash::BuildHasher;

use hashbrown::HashTable;
use rampuddle_protocol::limits::PAGE_BYTES;
use rampuddle_protocol::{Outcome, RowFlags, SetId, Status, Version};

use crate::pool::Pool;
use claim::Unfilled;
use entry::{Slab, State};
use lease::Endings;
use mapped::Mapped;
use order::KeyOrder;
use reservation::Reservations;
use set::Sets;
use tombstone::Tombstones;
use verify::Verifier;

pub(crate) use claim::Terms;
pub(crate) use entry::EntryId;
pub(crate) use mapped::{MAPPINGS_MAX, MapPlace, MappingIndex, RELEASED_MAX};
pub(crate) use reservation::Handle;
pub(crate) use set::SessionIndex;
pub(crate) use value::ReadPlace;

/// The clocks, read once per turn of the loop.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Now {
    /// Milliseconds of a clock that never steps.
    pub(crate) monotonic_ms: u64,
    /// Milliseconds since 1970.
    pub(crate) unix_ms: u64,
}

/// How a row fared, with the tag that goes with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reply {
    pub(crate) outcome: Outcome,
    tag: [u8; rampuddle_protocol::limits::TAG_BYTES_MAX],
    tag_bytes: u8,
}

impl Reply {
    pub(crate) fn of(status: Status) -> Self {
        Self::from(Outcome::of(status))
    }

    pub(crate) fn with_detail(status: Status, detail: u64) -> Self {
        Self::from(Outcome { detail, ..Outcome::of(status) })
    }

    pub(crate) fn tag(&self) -> &[u8] {
        &self.tag[..usize::from(self.tag_bytes)]
    }

    fn set_tag(&mut self, tag: &[u8]) {
        self.tag[..tag.len()].copy_from_slice(tag);
        self.tag_bytes = tag.len() as u8;
    }
}

impl From<Outcome> for Reply {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, tag: [0; _], tag_bytes: 0 }
    }
}

/// What happened since the start, for Info.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StoreCounters {
    pub(crate) no_space_rows: u64,
    pub(crate) leases_ended: u64,
    pub(crate) holds_broken: u64,
    pub(crate) tombstones_discarded: u64,
}

/// The values of one server.
///
/// Invariants: `used_pages + reserved_pages + free == total`; an entry is in
/// `keys` and `order` exactly when it is visible or a tombstone, and in
/// `superseded` exactly when it is superseded.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) pool: Pool,
    slab: Slab,
    keys: HashTable<EntryId>,
    superseded: HashTable<EntryId>,
    order: KeyOrder,
    hasher: foldhash::quality::RandomState,
    sets: Sets,
    mapped: Mapped,
    tombstones: Tombstones,
    reservations: Reservations,
    /// Pages of values that are visible, superseded or leaving.
    used_pages: u32,
    /// Pages of values that are being filled.
    reserved_pages: u32,
    /// Of values that come in one request, and of reservations.
    unfilled: [Unfilled; 2],
    visible: u32,
    endings: Endings,
    verifier: Verifier,
    pub(crate) counters: StoreCounters,
}

/// Index entries for a pool of `pages`: one per page, since every value takes
/// at least one, and room for tombstones.
fn entries_max(pages: u64) -> u64 {
    pages + tombstone::tombstones_max(pages)
}

/// Superseded values at once: each has a page, and all together a quarter of
/// them; the one with which that is passed is counted before one goes.
fn superseded_max(pages: u64) -> u64 {
    pages / 4 + 1
}

/// Most bytes that the index of a pool of `pool_bytes` can take.
pub(crate) fn index_bytes(pool_bytes: u64) -> u64 {
    let pages = pool_bytes / PAGE_BYTES;
    // Twice the room; a table has at most this many buckets for an entry.
    let table = 2 * (size_of::<EntryId>() as u64 + 1) * 16 / 7;
    let entries = entries_max(pages) * (Slab::BYTES_PER_ENTRY + table + Endings::BYTES_PER_ENTRY);
    let superseded = superseded_max(pages) * table;
    entries + superseded + pages * (Pool::RECORD_BYTES_PER_PAGE + Sets::BYTES_PER_SET)
}

impl Store {
    pub(crate) fn new(pool: Pool) -> Self {
        let pages = u64::from(pool.total_pages());
        let entries = entries_max(pages) as usize;
        let hasher = foldhash::quality::RandomState::default();
        Self {
            slab: Slab::new(entries as u32),
            // Twice the room, so that the tables are cleaned up in place and
            // never grow.
            keys: HashTable::with_capacity(2 * entries),
            superseded: HashTable::with_capacity(2 * superseded_max(pages) as usize),
            order: KeyOrder::new(hasher.hash_one(0)),
            sets: Sets::new(pages as usize),
            mapped: Mapped::new(),
            tombstones: Tombstones::new(pages),
            reservations: Reservations::new(hasher.hash_one(1)),
            hasher,
            pool,
            used_pages: 0,
            reserved_pages: 0,
            unfilled: [Unfilled::default(); 2],
            visible: 0,
            endings: Endings::new(entries),
            verifier: Verifier::new(),
            counters: StoreCounters::default(),
        }
    }

    /// A new turn of the loop has begun.
    pub(crate) fn begin_turn(&mut self) {
        self.verifier.begin_turn();
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    #[inline]
    fn find_hashed(&self, hash: u64, key: &[u8]) -> Option<EntryId> {
        self.keys.find(hash, |id| self.slab.key(*id) == key).copied()
    }

    /// The value or tombstone under `key`; one whose time is over is removed first.
    #[inline]
    fn find(&mut self, key: &[u8], now: Now) -> Option<EntryId> {
        let id = self.find_hashed(self.hash(key), key)?;
        if self.slab[id].expires_ms <= now.monotonic_ms {
            self.expire(id);
            return None;
        }
        Some(id)
    }

    /// The value under `key`.
    #[inline]
    fn find_value(&mut self, key: &[u8], now: Now) -> Option<EntryId> {
        self.find(key, now).filter(|id| self.slab[*id].state == State::Visible)
    }

    /// NOT_FOUND, with the version of the tombstone under `key` if there is one.
    fn not_found(&mut self, key: &[u8], now: Now) -> Reply {
        let held = self.find(key, now).filter(|id| self.slab[*id].state == State::Tombstone);
        let version = held.map_or(Version::NONE, |id| self.slab[id].version);
        Reply::from(Outcome { version, ..Outcome::of(Status::NotFound) })
    }

    /// What an answer says about a value: version, checksum, set, flags and tag.
    fn describe(&self, id: EntryId, status: Status, with_tag: bool) -> Reply {
        let entry = &self.slab[id];
        let mut flags = entry.flags;
        if entry.state == State::Superseded {
            flags |= RowFlags::HELD;
        }
        let mut reply = Reply::from(Outcome {
            flags,
            version: entry.version,
            crc32c: entry.crc32c,
            set: entry.set,
            ..Outcome::of(status)
        });
        if with_tag {
            reply.set_tag(entry.tag());
        }
        reply
    }

    /// Enters a filled entry under its key, where no other stands.
    fn publish(&mut self, id: EntryId) {
        let pages = self.slab[id].body.pages;
        self.end_claim(id);
        self.used_pages += pages;
        self.slab[id].state = State::Visible;
        self.visible += 1;
        self.enter(id);
        self.sets.join(&mut self.slab, id);
    }

    fn enter(&mut self, id: EntryId) {
        let hash = self.hash(self.slab.key(id));
        self.slab[id].hash = hash;
        let slab = &self.slab;
        self.keys.insert_unique(hash, id, |id| slab[*id].hash);
        self.order.insert(&mut self.slab, id);
    }

    fn leave(&mut self, id: EntryId) {
        let hash = self.slab[id].hash;
        let found = self.keys.find_entry(hash, |other| *other == id);
        found.expect("what stands under a key is in the table").remove();
        self.order.remove(&mut self.slab, id);
    }

    /// Takes a visible value from under its key. Its bytes stay while a request
    /// uses them or a session holds its set.
    fn remove(&mut self, id: EntryId) {
        self.leave(id);
        self.visible -= 1;
        self.end_lease(id);
        if self.sets.is_held(self.slab[id].set) {
            self.supersede(id);
        } else {
            self.sets.leave(&mut self.slab, id);
            self.retire(id);
        }
    }

    /// Puts a tombstone under `key`, where no value stands, or moves the one there.
    fn entomb(&mut self, key: &[u8], version: Version, place: tombstone::Place, now: Now) {
        if let Some(id) = self.find(key, now) {
            self.forget_tombstone(id);
        }
        let Some(expires_ms) = tombstone::expiry(version, now) else { return };
        if self.tombstones.is_full() {
            self.counters.tombstones_discarded += 1;
            self.forget_tombstone(self.tombstones.oldest());
        }
        // Only tombstones take entries beyond one per page, and their number is
        // bounded, so that an entry is free here.
        let Some(id) = self.slab.take(key) else { return };
        let entry = &mut self.slab[id];
        entry.state = State::Tombstone;
        entry.version = version;
        (entry.slot, entry.placement_bytes, entry.tenant) =
            (place.slot, place.placement_bytes, place.tenant);
        self.set_ending(id, expires_ms);
        self.enter(id);
        self.tombstones.push(&mut self.slab, id);
    }

    fn forget_tombstone(&mut self, id: EntryId) {
        self.leave(id);
        self.end_lease(id);
        self.tombstones.take_out(&mut self.slab, id);
        self.slab.give_back(id);
    }

    /// Frees a value that nobody can find any more, or lets it live until the
    /// last request that uses it has ended.
    fn retire(&mut self, id: EntryId) {
        if self.slab[id].pins > 0 {
            self.slab[id].state = State::Leaving;
            return;
        }
        let body = self.slab[id].body;
        self.used_pages -= body.pages;
        self.verifier.forget(id);
        self.pool.give_back_body(body);
        self.slab.give_back(id);
    }

    /// Keeps a value for a request. Ended by [`Store::unpin`].
    pub(crate) fn pin(&mut self, id: EntryId) {
        self.slab[id].pins += 1;
    }

    /// Ends a request's use of a value.
    pub(crate) fn unpin(&mut self, id: EntryId) {
        let entry = &mut self.slab[id];
        entry.pins -= 1;
        if entry.pins == 0 && entry.state == State::Leaving {
            self.retire(id);
        }
    }

    /// Steps over runs of pages since the start: what scattered values cost.
    #[inline]
    pub(crate) fn steps(&self) -> u64 {
        self.pool.steps()
    }

    pub(crate) fn total_bytes(&self) -> u64 {
        u64::from(self.pool.total_pages()) * PAGE_BYTES
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        u64::from(self.used_pages) * PAGE_BYTES
    }

    pub(crate) fn reserved_bytes(&self) -> u64 {
        u64::from(self.reserved_pages) * PAGE_BYTES
    }

    pub(crate) fn superseded_bytes(&self) -> u64 {
        u64::from(self.sets.superseded_pages()) * PAGE_BYTES
    }

    pub(crate) fn values(&self) -> u64 {
        self.visible.into()
    }

    pub(crate) fn tombstone_count(&self) -> u64 {
        self.tombstones.len().into()
    }

    pub(crate) fn holds(&self) -> u64 {
        self.sets.holds()
    }

    pub(crate) fn reservation_count(&self) -> u64 {
        self.reservations.len() as u64
    }

    pub(crate) fn entries_max(&self) -> u64 {
        self.slab.capacity().into()
    }

    /// Asserts that the books balance. Costs nothing.
    pub(crate) fn check_books(&self) {
        let counted = self.used_pages + self.reserved_pages + self.pool.free_pages();
        assert_eq!(counted, self.pool.total_pages(), "used + reserved + free == pool");
    }

    /// Whether a request uses a value. Costs a walk over all entries.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn has_pins(&self) -> bool {
        (0..self.slab.extent()).any(|id| self.slab[id].pins > 0)
    }

    /// Asserts every invariant. Costs a walk over all entries and pages.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn check_invariants(&self) {
        self.check_books();
        self.pool.check_invariants();
        let mut pages = [0_u32; 2];
        let (mut visible, mut tombstones, mut leased, mut superseded) = (0, 0, 0, 0);
        let mut unfilled = [0; 2];
        for id in 0..self.slab.extent() {
            let entry = &self.slab[id];
            let body = &entry.body;
            assert!(body.prefix <= body.filled && body.filled <= entry.length.max(body.filled));
            leased += usize::from(entry.state != State::Free && entry.expires_ms != u64::MAX);
            match entry.state {
                State::Free => {}
                State::Claimed => {
                    pages[1] += body.pages;
                    unfilled[usize::from(entry.is_reserved)] += entry.expected - body.prefix;
                }
                State::Tombstone => tombstones += 1,
                State::Visible | State::Superseded | State::Leaving => pages[0] += body.pages,
            }
            visible += u32::from(entry.state == State::Visible);
            superseded += usize::from(entry.state == State::Superseded);
            if matches!(entry.state, State::Visible | State::Tombstone) {
                assert_eq!(self.find_hashed(entry.hash, self.slab.key(id)), Some(id));
                let mut walk = self.order.walk(&self.slab, self.slab.key(id), true);
                assert_eq!(walk.next(&self.slab), Some(id));
            }
        }
        assert_eq!(pages, [self.used_pages, self.reserved_pages]);
        assert_eq!((visible, tombstones), (self.visible, self.tombstones.len()));
        assert_eq!(self.keys.len() as u32, visible + tombstones);
        assert_eq!(self.superseded.len(), superseded);
        assert_eq!(unfilled, self.unfilled.map(|book| book.bytes));
        assert_eq!(leased, self.endings.len());
        self.endings.check_invariants(&self.slab);
        self.sets.check_invariants(&self.slab);
        self.check_mapped();
    }
}

/// The hash under which a superseded value is found.
fn superseded_hash(key_hash: u64, set: SetId) -> u64 {
    let half = |at: usize| u64::from_le_bytes(set.0[at..at + 8].try_into().expect("eight bytes"));
    (key_hash ^ half(0)).rotate_left(29).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ half(8)
}

#[cfg(test)]
mod tests;

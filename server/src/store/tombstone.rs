//! Deletes that are remembered: bounded in life and in number.

use rampuddle_protocol::limits::TOMBSTONE_LIFE_MS;
use rampuddle_protocol::{DeleteRow, RowFlags, Status, Version};

use super::entry::{EntryId, NO_ENTRY, Slab, State};
use super::{Now, Reply, Store};

/// Fewest tombstones that a server has room for.
const TOMBSTONES_MIN: u64 = 1_024;

/// Tombstones that a pool of `pages` has room for.
pub(super) fn tombstones_max(pages: u64) -> u64 {
    (pages / 4).max(TOMBSTONES_MIN)
}

/// What a key's placement is made of, kept with its tombstone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) slot: u16,
    pub(super) placement_bytes: u16,
    pub(super) tenant: u32,
}

/// When the memory of a delete ends, in monotonic milliseconds: counted from its
/// version's time, so that all servers forget it together. `None` = it has ended.
pub(super) fn expiry(version: Version, now: Now) -> Option<u64> {
    let end = version.unix_ms().saturating_add(TOMBSTONE_LIFE_MS);
    let left = end.checked_sub(now.unix_ms).filter(|left| *left > 0)?;
    Some(now.monotonic_ms + left)
}

/// The tombstones in the order they were made.
#[derive(Debug)]
pub(super) struct Tombstones {
    oldest: EntryId,
    newest: EntryId,
    count: u32,
    max: u32,
}

impl Tombstones {
    pub(super) fn new(pages: u64) -> Self {
        Self { oldest: NO_ENTRY, newest: NO_ENTRY, count: 0, max: tombstones_max(pages) as u32 }
    }

    pub(super) fn len(&self) -> u32 {
        self.count
    }

    pub(super) fn is_full(&self) -> bool {
        self.count == self.max
    }

    pub(super) fn oldest(&self) -> EntryId {
        self.oldest
    }

    pub(super) fn push(&mut self, slab: &mut Slab, id: EntryId) {
        (slab[id].previous, slab[id].next) = (self.newest, NO_ENTRY);
        match self.newest {
            NO_ENTRY => self.oldest = id,
            newest => slab[newest].next = id,
        }
        self.newest = id;
        self.count += 1;
    }

    pub(super) fn take_out(&mut self, slab: &mut Slab, id: EntryId) {
        if id == self.newest {
            self.newest = slab[id].previous;
        }
        slab.take_out(&mut self.oldest, id);
        self.count -= 1;
    }
}

impl Store {
    /// Delete: removes the value under `key` and remembers that.
    pub(crate) fn delete(&mut self, row: &DeleteRow, key: &[u8], now: Now) -> Reply {
        if let Some(refusal) = self.refuse_version(row.version, now) {
            return refusal;
        }
        let place =
            Place { slot: row.slot, placement_bytes: row.placement_bytes, tenant: row.tenant };
        let held = self.find(key, now);
        let value = held.filter(|id| self.slab[*id].state == State::Visible);
        let value_version = value.map_or(Version::NONE, |id| self.slab[id].version);
        if !row.if_version.is_none() && row.if_version != value_version {
            return self.mismatch(value);
        }
        let Some(id) = held else {
            self.entomb(key, row.version, place, now);
            return Reply::of(Status::NotFound);
        };
        let held_version = self.slab[id].version;
        let refused = if row.version < held_version {
            Some(Status::Older)
        } else if row.version == held_version && value.is_none() {
            Some(Status::Same)
        } else {
            None
        };
        if let Some(status) = refused {
            return self.describe(id, status, true);
        }
        let mut reply = self.describe(id, Status::Ok, true);
        if value.is_some() {
            reply.outcome.flags |= RowFlags::DISPLACED;
            self.remove(id);
        } else {
            reply.outcome.status = Status::NotFound as u8;
        }
        self.entomb(key, row.version, place, now);
        reply
    }
}

//! One entry of the index, and the slab that all of them live in.

use rampuddle_protocol::limits::{KEY_BYTES_MAX, TAG_BYTES_MAX};
use rampuddle_protocol::{RowFlags, SetId, Version};

use crate::pool::Body;

/// An entry, by number.
pub(crate) type EntryId = u32;

/// No entry.
pub(crate) const NO_ENTRY: EntryId = u32::MAX;

/// What an entry is; every change of it is one function of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// In the free list.
    Free,
    /// Being filled; found by nobody.
    Claimed,
    /// A value under its key.
    Visible,
    /// A delete that is remembered under its key.
    Tombstone,
    /// Deleted or replaced, kept for the holders of its set.
    Superseded,
    /// Removed; lives until the last request that uses it ends.
    Leaving,
}

/// Where an entry stands in the ordered index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    pub(crate) left: EntryId,
    pub(crate) right: EntryId,
    pub(crate) priority: u32,
    /// The key's first eight bytes, big-endian: decides most comparisons.
    pub(crate) prefix: u64,
}

/// Keys up to this length lie in the entry itself.
const SHORT_KEY_BYTES: usize = 64;

/// A value, a tombstone, or a value on its way in or out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) state: State,
    tag_bytes: u8,
    key_bytes: u16,
    /// Copies wanted of the object, as the client said.
    pub(crate) replicas: u8,
    /// KEEP, SEALED, CHECKSUM.
    pub(crate) flags: RowFlags,
    pub(crate) slot: u16,
    pub(crate) placement_bytes: u16,
    pub(crate) tenant: u32,
    pub(crate) crc32c: u32,
    /// Requests that use the value now.
    pub(crate) pins: u32,
    /// Holds of mappings that keep the value; each pins it, too.
    pub(crate) mapped: u32,
    pub(crate) version: Version,
    pub(crate) set: SetId,
    pub(crate) length: u64,
    pub(crate) body: Body,
    /// Bytes that count as unfilled until they are given or the claim ends.
    pub(crate) expected: u64,
    /// The claim is a reservation.
    pub(crate) is_reserved: bool,
    /// Its stored bytes were compared with its checksum, and differ.
    pub(crate) is_damaged: bool,
    /// Monotonic milliseconds; `u64::MAX` = never.
    pub(crate) expires_ms: u64,
    /// Only an exact lease takes the place of its lease.
    pub(crate) has_exact_lease: bool,
    /// Its place among what ends by itself.
    pub(crate) ending: u32,
    pub(crate) hash: u64,
    pub(crate) order: Order,
    /// Neighbours in the set's list, or in the list of tombstones by age.
    pub(crate) next: EntryId,
    pub(crate) previous: EntryId,
    tag: [u8; TAG_BYTES_MAX],
    short_key: [u8; SHORT_KEY_BYTES],
}

impl Entry {
    const FREE: Self = Self {
        state: State::Free,
        tag_bytes: 0,
        key_bytes: 0,
        replicas: 0,
        flags: RowFlags::NONE,
        slot: 0,
        placement_bytes: 0,
        tenant: 0,
        crc32c: 0,
        pins: 0,
        mapped: 0,
        version: Version::NONE,
        set: SetId::NONE,
        length: 0,
        body: Body::EMPTY,
        expected: 0,
        is_reserved: false,
        is_damaged: false,
        expires_ms: u64::MAX,
        has_exact_lease: false,
        ending: NO_ENTRY,
        hash: 0,
        order: Order { left: NO_ENTRY, right: NO_ENTRY, priority: 0, prefix: 0 },
        next: NO_ENTRY,
        previous: NO_ENTRY,
        tag: [0; TAG_BYTES_MAX],
        short_key: [0; SHORT_KEY_BYTES],
    };

    /// The tag that was stored with the value.
    pub(crate) fn tag(&self) -> &[u8] {
        &self.tag[..usize::from(self.tag_bytes)]
    }

    pub(crate) fn set_tag(&mut self, tag: &[u8]) {
        self.tag[..tag.len()].copy_from_slice(tag);
        self.tag_bytes = tag.len() as u8;
    }

    /// The checksum of the bytes given, or that they have none.
    pub(crate) fn set_checksum(&mut self, crc32c: Option<u32>) {
        self.flags = self.flags.without(RowFlags::CHECKSUM);
        self.crc32c = crc32c.unwrap_or(0);
        if crc32c.is_some() {
            self.flags |= RowFlags::CHECKSUM;
        }
    }

    /// Version and checksum: what orders values of one key.
    pub(crate) fn rank(&self) -> (Version, u32) {
        (self.version, self.crc32c)
    }
}

/// All entries, in one block that never moves and never grows beyond its capacity.
#[derive(Debug)]
pub(crate) struct Slab {
    entries: Vec<Entry>,
    /// Keys too long for their entry, each at its entry's number. Only pages
    /// that are used take memory.
    long_keys: Vec<u8>,
    free: EntryId,
    capacity: u32,
}

impl Slab {
    /// Most memory that an entry can take.
    pub(crate) const BYTES_PER_ENTRY: u64 = (size_of::<Entry>() + KEY_BYTES_MAX) as u64;

    pub(crate) fn new(capacity: u32) -> Self {
        Self {
            entries: Vec::with_capacity(capacity as usize),
            long_keys: vec![0; capacity as usize * KEY_BYTES_MAX],
            free: NO_ENTRY,
            capacity,
        }
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// A blank entry with this key; `None` when all are taken.
    pub(crate) fn take(&mut self, key: &[u8]) -> Option<EntryId> {
        let id = if self.free != NO_ENTRY {
            let id = self.free;
            self.free = self.entries[id as usize].next;
            id
        } else if self.entries.len() < self.capacity as usize {
            self.entries.push(Entry::FREE);
            self.entries.len() as EntryId - 1
        } else {
            return None;
        };
        self.entries[id as usize] = Entry::FREE;
        self.set_key(id, key);
        Some(id)
    }

    fn set_key(&mut self, id: EntryId, key: &[u8]) {
        let entry = &mut self.entries[id as usize];
        entry.key_bytes = key.len() as u16;
        let mut prefix = [0; 8];
        let shared = key.len().min(8);
        prefix[..shared].copy_from_slice(&key[..shared]);
        entry.order.prefix = u64::from_be_bytes(prefix);
        if key.len() <= SHORT_KEY_BYTES {
            entry.short_key[..key.len()].copy_from_slice(key);
        } else {
            self.long_keys[id as usize * KEY_BYTES_MAX..][..key.len()].copy_from_slice(key);
        }
    }

    /// The entry's key.
    #[inline]
    pub(crate) fn key(&self, id: EntryId) -> &[u8] {
        let entry = &self.entries[id as usize];
        let bytes = usize::from(entry.key_bytes);
        if bytes <= SHORT_KEY_BYTES {
            &entry.short_key[..bytes]
        } else {
            &self.long_keys[id as usize * KEY_BYTES_MAX..][..bytes]
        }
    }

    pub(crate) fn give_back(&mut self, id: EntryId) {
        let free = self.free;
        let entry = &mut self.entries[id as usize];
        assert!(entry.state != State::Free, "entry {id} was given back twice");
        (entry.state, entry.next) = (State::Free, free);
        self.free = id;
    }

    /// Links an entry in front of the list that begins with `first`.
    pub(crate) fn push_front(&mut self, first: &mut EntryId, id: EntryId) {
        (self[id].previous, self[id].next) = (NO_ENTRY, *first);
        if *first != NO_ENTRY {
            self[*first].previous = id;
        }
        *first = id;
    }

    /// Unlinks an entry from the list that begins with `first`.
    pub(crate) fn take_out(&mut self, first: &mut EntryId, id: EntryId) {
        let (previous, next) = (self[id].previous, self[id].next);
        match previous {
            NO_ENTRY => *first = next,
            previous => self[previous].next = next,
        }
        if next != NO_ENTRY {
            self[next].previous = previous;
        }
    }

    /// Entries ever used; ids are below this.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn extent(&self) -> u32 {
        self.entries.len() as u32
    }
}

impl std::ops::Index<EntryId> for Slab {
    type Output = Entry;
    #[inline]
    fn index(&self, id: EntryId) -> &Entry {
        &self.entries[id as usize]
    }
}

impl std::ops::IndexMut<EntryId> for Slab {
    #[inline]
    fn index_mut(&mut self, id: EntryId) -> &mut Entry {
        &mut self.entries[id as usize]
    }
}

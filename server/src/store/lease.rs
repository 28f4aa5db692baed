//! What ends by itself: leases of values, and tombstones.

use rampuddle_protocol::limits::LEASE_MS_MAX;

use super::entry::{EntryId, NO_ENTRY, Slab, State};
use super::{Now, Store};

/// Entries that one sweep removes at most.
const SWEEP_STEP: u32 = 1_024;

/// Entries that end by themselves, the one that ends first on top: a binary
/// heap in which each entry knows its place, so that one whose end moves is
/// found at once.
#[derive(Debug)]
pub(super) struct Endings {
    /// When, in monotonic milliseconds, and who.
    heap: Vec<(u64, EntryId)>,
}

impl Endings {
    /// Memory of one entry's ending.
    pub(super) const BYTES_PER_ENTRY: u64 = size_of::<(u64, EntryId)>() as u64;

    /// Room for all entries of a store.
    pub(super) fn new(entries_max: usize) -> Self {
        Self { heap: Vec::with_capacity(entries_max) }
    }

    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    /// The entry that ends first, and when.
    fn first(&self) -> Option<(u64, EntryId)> {
        self.heap.first().copied()
    }

    /// Notes when an entry ends that has no end yet.
    fn insert(&mut self, slab: &mut Slab, id: EntryId, ends_ms: u64) {
        self.heap.push((ends_ms, id));
        self.rise(slab, self.heap.len() - 1);
    }

    /// Forgets the end of an entry that has one.
    fn remove(&mut self, slab: &mut Slab, id: EntryId) {
        let at = slab[id].ending as usize;
        slab[id].ending = NO_ENTRY;
        let moved = self.heap.pop().expect("the entry is in the heap");
        if at < self.heap.len() {
            self.heap[at] = moved;
            let at = self.rise(slab, at);
            self.sink(slab, at);
        }
    }

    fn place(&mut self, slab: &mut Slab, at: usize, item: (u64, EntryId)) {
        self.heap[at] = item;
        slab[item.1].ending = at as u32;
    }

    fn rise(&mut self, slab: &mut Slab, mut at: usize) -> usize {
        let item = self.heap[at];
        while at > 0 && item.0 < self.heap[(at - 1) / 2].0 {
            self.place(slab, at, self.heap[(at - 1) / 2]);
            at = (at - 1) / 2;
        }
        self.place(slab, at, item);
        at
    }

    fn sink(&mut self, slab: &mut Slab, mut at: usize) {
        let item = self.heap[at];
        loop {
            let left = 2 * at + 1;
            let children = left..self.heap.len().min(left + 2);
            let Some(earliest) = children.min_by_key(|child| self.heap[*child].0) else { break };
            if item.0 <= self.heap[earliest].0 {
                break;
            }
            self.place(slab, at, self.heap[earliest]);
            at = earliest;
        }
        self.place(slab, at, item);
    }

    /// Asserts that the heap is one, and that entries know their places.
    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn check_invariants(&self, slab: &Slab) {
        for (at, (ends_ms, id)) in self.heap.iter().enumerate() {
            assert!(at == 0 || self.heap[(at - 1) / 2].0 <= *ends_ms, "a heap at {at}");
            assert_eq!((slab[*id].ending as usize, slab[*id].expires_ms), (at, *ends_ms));
        }
    }
}

impl Store {
    /// Gives a value a lease from now on; 0 = none.
    pub(super) fn set_lease(&mut self, id: EntryId, lease_ms: u64, now: Now) {
        self.end_lease(id);
        if lease_ms > 0 {
            self.set_ending(id, now.monotonic_ms + lease_ms.min(LEASE_MS_MAX));
        }
    }

    /// Lets an entry that has no end yet end by itself.
    pub(super) fn set_ending(&mut self, id: EntryId, ends_ms: u64) {
        self.slab[id].expires_ms = ends_ms;
        self.endings.insert(&mut self.slab, id, ends_ms);
    }

    pub(super) fn end_lease(&mut self, id: EntryId) {
        if self.slab[id].expires_ms != u64::MAX {
            self.slab[id].expires_ms = u64::MAX;
            self.endings.remove(&mut self.slab, id);
        }
    }

    /// Removes a value or tombstone whose time is over.
    pub(super) fn expire(&mut self, id: EntryId) {
        match self.slab[id].state {
            State::Visible => {
                self.counters.leases_ended += 1;
                self.remove(id);
            }
            State::Tombstone => self.forget_tombstone(id),
            state => unreachable!("{state:?} entries have no end"),
        }
    }

    /// Removes what has ended, and lets go of what readers who are gone kept, but
    /// not too much at once; true when there is more. Costs nothing while nothing
    /// has ended.
    pub(crate) fn sweep(&mut self, now: Now) -> bool {
        let has_more_holds = self.end_mappings();
        self.sweep_endings(now) || has_more_holds
    }

    fn sweep_endings(&mut self, now: Now) -> bool {
        for _ in 0..SWEEP_STEP {
            match self.endings.first() {
                Some((ends_ms, id)) if ends_ms <= now.monotonic_ms => self.expire(id),
                _ => return false,
            }
        }
        self.has_ended(now)
    }

    /// Whether anything has ended that is not removed yet.
    pub(super) fn has_ended(&self, now: Now) -> bool {
        self.endings.first().is_some_and(|(ends_ms, _)| ends_ms <= now.monotonic_ms)
    }

    /// Whether anything will end by itself.
    pub(crate) fn has_leases(&self) -> bool {
        self.endings.len() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Seeded;

    #[test]
    fn entries_end_in_the_order_of_their_ends_however_these_were_moved() {
        let mut random = Seeded::from_environment();
        let (mut slab, mut endings) = (Slab::new(300), Endings::new(300));
        let ids: Vec<EntryId> = (0..300_u32)
            .map(|number| slab.take(&number.to_le_bytes()).expect("there is room"))
            .collect();
        for _ in 0..3_000 {
            let id = ids[random.below(300) as usize];
            if slab[id].expires_ms != u64::MAX {
                slab[id].expires_ms = u64::MAX;
                endings.remove(&mut slab, id);
            }
            if random.below(3) > 0 {
                let ends_ms = random.below(100);
                slab[id].expires_ms = ends_ms;
                endings.insert(&mut slab, id, ends_ms);
            }
            endings.check_invariants(&slab);
        }
        let mut before = 0;
        while let Some((ends_ms, id)) = endings.first() {
            assert!(before <= ends_ms);
            before = ends_ms;
            endings.remove(&mut slab, id);
        }
        assert!(before > 90);
    }
}

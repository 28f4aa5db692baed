//! What ends by itself: leases of values, and tombstones.

use rampuddle_protocol::limits::LEASE_MS_MAX;

use super::entry::{EntryId, State};
use super::{Now, Store};

/// Entries that one sweep looks at.
const SWEEP_STEP: u32 = 4_096;

impl Store {
    /// Gives a claimed or visible value a lease from now on; 0 = none.
    pub(super) fn set_lease(&mut self, id: EntryId, lease_ms: u64, now: Now) {
        self.end_lease(id);
        if lease_ms > 0 {
            self.leased += 1;
            self.slab[id].expires_ms = now.monotonic_ms + lease_ms.min(LEASE_MS_MAX);
        }
    }

    pub(super) fn end_lease(&mut self, id: EntryId) {
        if self.slab[id].expires_ms != u64::MAX {
            self.leased -= 1;
            self.slab[id].expires_ms = u64::MAX;
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
            State::Free | State::Claimed | State::Superseded | State::Leaving => {}
        }
    }

    /// Removes some of what has ended; called again and again it finds all.
    /// Costs nothing while nothing has a lease.
    pub(crate) fn sweep(&mut self, now: Now) {
        if self.leased == 0 {
            return;
        }
        let extent = self.slab.extent();
        for _ in 0..SWEEP_STEP.min(extent) {
            self.sweep_at = if self.sweep_at + 1 < extent { self.sweep_at + 1 } else { 0 };
            if self.slab[self.sweep_at].expires_ms <= now.monotonic_ms {
                self.expire(self.sweep_at);
            }
        }
    }

    /// Whether anything will end by itself.
    pub(crate) fn has_leases(&self) -> bool {
        self.leased > 0
    }
}

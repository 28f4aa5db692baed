//! Looking at keys: Stat and List.

use rampuddle_protocol::{ListRow, RowFlags, StatRow, Status};

use super::entry::{EntryId, NO_ENTRY, State};
use super::{Now, Store};

/// Entries that one List looks at, whatever it finds.
const LIST_STEPS_MAX: usize = 4_096;

impl Store {
    fn stat_row(&self, id: EntryId, now: Now) -> StatRow {
        let entry = &self.slab[id];
        let tombstone = entry.state == State::Tombstone;
        let flags = if tombstone { RowFlags::TOMBSTONE } else { entry.flags };
        let lease_ms = match entry.expires_ms {
            u64::MAX => 0,
            end => end.saturating_sub(now.monotonic_ms).max(1),
        };
        StatRow {
            status: Status::Ok as u8,
            flags,
            length: entry.length,
            filled: entry.body.filled,
            version: entry.version,
            crc32c: entry.crc32c,
            slot: entry.slot,
            placement_bytes: entry.placement_bytes,
            set: entry.set,
            lease_ms,
            tenant: entry.tenant,
            runs: entry.body.runs,
            replicas: entry.replicas,
            ..StatRow::default()
        }
    }

    /// Stat: what is known of `key`, and its tag. A tombstone is NOT_FOUND with
    /// its version.
    pub(crate) fn stat(&mut self, key: &[u8], now: Now) -> (StatRow, &[u8]) {
        let Some(id) = self.find(key, now) else {
            return (StatRow { status: Status::NotFound as u8, ..StatRow::default() }, &[]);
        };
        let mut row = self.stat_row(id, now);
        if self.slab[id].state == State::Tombstone {
            row.status = Status::NotFound as u8;
        }
        (row, self.slab[id].tag())
    }

    /// List: calls `each` with row, key and tag of every key with the prefix
    /// behind the cursor, in bytewise order, until it answers false. Returns
    /// the cursor for what follows, if anything may.
    pub(crate) fn list(
        &self,
        row: &ListRow,
        prefix: &[u8],
        cursor: &[u8],
        now: Now,
        mut each: impl FnMut(&StatRow, &[u8], &[u8]) -> bool,
    ) -> Option<EntryId> {
        let from_prefix = cursor < prefix;
        let start = if from_prefix { prefix } else { cursor };
        let mut walk = self.order.walk(&self.slab, start, from_prefix);
        let (mut last, mut rows) = (NO_ENTRY, 0);
        for _ in 0..LIST_STEPS_MAX {
            let within = |id: &EntryId| self.slab.key(*id).starts_with(prefix);
            let id = walk.next(&self.slab).filter(within)?;
            if self.is_listed(id, row.flags, now) {
                if rows == row.rows_max && row.rows_max > 0 {
                    return Some(last);
                }
                if !each(&self.stat_row(id, now), self.slab.key(id), self.slab[id].tag()) {
                    return (last != NO_ENTRY).then_some(last);
                }
                rows += 1;
            }
            last = id;
        }
        Some(last)
    }

    fn is_listed(&self, id: EntryId, flags: RowFlags, now: Now) -> bool {
        let entry = &self.slab[id];
        let wanted = entry.state == State::Visible || flags.has(RowFlags::TOMBSTONE);
        wanted && entry.expires_ms > now.monotonic_ms
    }

    /// The key of an entry that [`Store::list`] returned.
    pub(crate) fn key(&self, id: EntryId) -> &[u8] {
        self.slab.key(id)
    }
}

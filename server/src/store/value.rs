//! Reading from values and writing into them.

use rampuddle_protocol::{DropRow, GatherRow, RowFlags, ScatterRow, Status};

use super::entry::{EntryId, State};
use super::set::SessionIndex;
use super::{Now, Reply, Store};
use crate::pool::{Cursor, Piece, PoolRange};

/// A stretch of a value that an answer still has to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadPlace {
    pub(crate) entry: EntryId,
    pub(crate) offset: u32,
    pub(crate) end: u32,
    cursor: Cursor,
}

impl Store {
    /// Gather: finds what a row asks for, within the value and within `room`
    /// bytes, and pins it. The reply's length is what will be sent.
    pub(crate) fn begin_gather(
        &mut self,
        row: &GatherRow,
        key: &[u8],
        room: u64,
        session: SessionIndex,
        now: Now,
    ) -> (Reply, Option<ReadPlace>) {
        let id = match self.find_for_gather(row, key, session, now) {
            Ok(id) => id,
            Err(refusal) => return (refusal, None),
        };
        let mut reply = self.describe(id, Status::Ok, row.flags.has(RowFlags::TAG));
        let entry = &self.slab[id];
        reply.outcome.detail = entry.length;
        if !row.if_version.is_none() && row.if_version != entry.version {
            reply.outcome.status = Status::Mismatch as u8;
            return (reply, None);
        }
        let filled = row.flags.has(RowFlags::FILLED);
        let limit = if filled { entry.body.filled.min(entry.length) } else { entry.length };
        let offset = row.offset.min(limit);
        let bytes = row.length.min(limit - offset);
        if bytes > room {
            reply.outcome.status = Status::TooLarge as u8;
            return (reply, None);
        }
        reply.outcome.length = bytes;
        if bytes == 0 {
            return (reply, None);
        }
        let cursor = entry.body.begin();
        let (offset, end) = (offset as u32, (offset + bytes) as u32);
        self.pin(id);
        (reply, Some(ReadPlace { entry: id, offset, end, cursor }))
    }

    fn find_for_gather(
        &mut self,
        row: &GatherRow,
        key: &[u8],
        session: SessionIndex,
        now: Now,
    ) -> Result<EntryId, Reply> {
        if row.set.is_none() {
            return match self.find_value(key, now) {
                Some(id) => Ok(id),
                None => Err(self.not_found(key, now)),
            };
        }
        self.find_held(key, row.set, session, now).map_err(|status| match status {
            Status::NotFound => self.not_found(key, now),
            status => Reply::of(status),
        })
    }

    /// The next piece of a stretch that is being read.
    #[inline]
    pub(crate) fn next_piece(&self, place: &mut ReadPlace, max: u64) -> Piece {
        let (offset, end) = (u64::from(place.offset), u64::from(place.end));
        let body = &self.slab[place.entry].body;
        self.pool.piece(body, &mut place.cursor, offset, end.min(offset.saturating_add(max)))
    }

    /// Whether nobody ever writes into a value again.
    pub(crate) fn is_sealed(&self, id: EntryId) -> bool {
        self.slab[id].flags.has(RowFlags::SEALED)
    }

    /// A cursor for writing into a value.
    pub(crate) fn write_cursor(&self, id: EntryId) -> Cursor {
        self.slab[id].body.begin()
    }

    /// Makes a value ready for bytes at `offset`.
    pub(crate) fn begin_write(&mut self, id: EntryId, cursor: &mut Cursor, offset: u64) {
        let body = self.slab[id].body;
        self.pool.prepare(&body, cursor, offset);
    }

    /// Where the next bytes of `offset..end` go: a prefix of that, in one run.
    #[inline]
    pub(crate) fn write_room(
        &self,
        id: EntryId,
        cursor: &mut Cursor,
        offset: u64,
        end: u64,
    ) -> PoolRange {
        self.pool.room(&self.slab[id].body, cursor, offset, end)
    }

    /// Notes that `offset..end` of a value was written.
    #[inline]
    pub(crate) fn wrote(&mut self, id: EntryId, cursor: &mut Cursor, offset: u64, end: u64) {
        let entry = &mut self.slab[id];
        let before = entry.body.prefix;
        self.pool.wrote(&mut entry.body, cursor, offset, end);
        if entry.state == State::Claimed {
            let book = usize::from(entry.is_reserved);
            self.unfilled[book].bytes -= entry.body.prefix - before;
        }
    }

    /// Scatter by key: finds the value, checks the row, and pins the value. The
    /// reply's length is what will be written.
    pub(crate) fn begin_scatter(
        &mut self,
        row: &ScatterRow,
        key: &[u8],
        now: Now,
    ) -> (Reply, Option<EntryId>) {
        let Some(id) = self.find_value(key, now) else {
            return (self.not_found(key, now), None);
        };
        let mut reply = self.describe(id, Status::Ok, false);
        let entry = &self.slab[id];
        let refusal = if !row.if_version.is_none() && row.if_version != entry.version {
            Some(Status::Mismatch)
        } else if entry.flags.has(RowFlags::SEALED) {
            Some(Status::Sealed)
        } else if row.offset > entry.length {
            reply.outcome.detail = entry.length;
            Some(Status::BadRange)
        } else {
            None
        };
        if let Some(status) = refusal {
            reply.outcome.status = status as u8;
            return (reply, None);
        }
        reply.outcome.length = row.value_bytes.min(entry.length - row.offset);
        if reply.outcome.length == 0 {
            return (reply, None);
        }
        // From the first byte on, the checksum is no longer the value's.
        let entry = &mut self.slab[id];
        entry.set_checksum(None);
        reply.outcome.flags = reply.outcome.flags.without(RowFlags::CHECKSUM);
        reply.outcome.crc32c = 0;
        self.pin(id);
        (reply, Some(id))
    }

    /// Drop: removes exactly this version, without a tombstone.
    pub(crate) fn drop_version(&mut self, row: &DropRow, key: &[u8], now: Now) -> Reply {
        let Some(id) = self.find_value(key, now) else {
            return self.not_found(key, now);
        };
        if self.slab[id].version != row.version {
            return self.describe(id, Status::Mismatch, true);
        }
        let reply = self.describe(id, Status::Ok, true);
        self.remove(id);
        reply
    }
}

//! Requests with payload: Create and Scatter, row by row as the bytes come in.

use rampuddle_protocol::canary::{Canary, is_planted};
use rampuddle_protocol::limits::TRAILER_BYTES_MAX;
use rampuddle_protocol::{
    Checksum, CreateRow, Header, Opcode, Row, RowFlags, ScatterRow, Status, Table, TableError,
    Trailer,
};

use super::buffer::Buffers;
use super::draft::Draft;
use super::outbox::{Outbox, Place};
use super::request::check_row;
use crate::core::Core;
use crate::pool::{Cursor, PoolRange};
use crate::store::{EntryId, Handle, Reply, SessionIndex, Store, Terms};

/// How long a writer is told to wait while another writes into its reservation.
const WRITTEN_RETRY_MS: u64 = 20;

/// What happens to a row's bytes.
#[derive(Debug)]
enum Sink {
    /// They are dropped: the row was refused, or has none.
    Drain,
    /// They fill a claimed value, which is published with the last of them.
    Claim { terms: Terms, checksum: Option<(Checksum, Stated)> },
    /// They go into a value that is there.
    Value,
    /// They go into a reservation.
    Reservation(Handle),
}

/// What the checksum of a value must be.
#[derive(Debug)]
enum Stated {
    /// This, as its row says.
    Row(u32),
    /// As the trailer says.
    Trailer(Incoming),
}

/// A trailer on its way in.
#[derive(Debug)]
struct Incoming {
    bytes: [u8; TRAILER_BYTES_MAX as usize],
    filled: usize,
    length: usize,
}

impl Incoming {
    fn left(&self) -> usize {
        self.length - self.filled
    }

    /// Returns how many of the bytes were its.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let used = self.left().min(bytes.len());
        self.bytes[self.filled..][..used].copy_from_slice(&bytes[..used]);
        self.filled += used;
        used
    }
}

/// The bytes of a value that a row writes.
#[derive(Debug)]
struct Target {
    entry: EntryId,
    cursor: Cursor,
    /// Where the next byte goes.
    offset: u64,
    /// Where the last one ends.
    end: u64,
}

/// The row whose bytes come in now: `skip` bytes to drop, then those of the
/// target, then a trailer, then `rest` bytes to drop.
#[derive(Debug)]
struct Current {
    sink: Sink,
    reply: Reply,
    skip: u64,
    target: Option<Target>,
    rest: u64,
}

impl Current {
    fn drained(reply: Reply, bytes: u64) -> Self {
        Self { sink: Sink::Drain, reply, skip: 0, target: None, rest: bytes }
    }

    fn left(&self) -> u64 {
        let of_trailer = self.trailer().map_or(0, Incoming::left);
        self.skip + self.target_left() + of_trailer as u64 + self.rest
    }

    fn target_left(&self) -> u64 {
        self.target.as_ref().map_or(0, |target| target.end - target.offset)
    }

    fn trailer(&self) -> Option<&Incoming> {
        match &self.sink {
            Sink::Claim { checksum: Some((_, Stated::Trailer(trailer))), .. } => Some(trailer),
            _ => None,
        }
    }

    fn trailer_mut(&mut self) -> Option<&mut Incoming> {
        match &mut self.sink {
            Sink::Claim { checksum: Some((_, Stated::Trailer(trailer))), .. } => Some(trailer),
            _ => None,
        }
    }
}

/// What a request with payload needs to go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Advance {
    /// Nothing: its last row has ended.
    Ended,
    /// More bytes.
    WantsBytes,
    /// Another turn: it has taken long.
    WantsTurn,
}

/// A Create or Scatter under way.
#[derive(Debug)]
pub(super) struct Transfer {
    header: Header,
    opcode: Opcode,
    session: SessionIndex,
    received_ms: u64,
    /// Rows begun, and where in the table the next one's key lies.
    rows: usize,
    variable: usize,
    current: Option<Current>,
    draft: Draft,
    place: Place,
}

/// Checks the table of a request with payload, before anything is set aside for it.
pub(super) fn check_table(opcode: Opcode, header: &Header, table: &[u8]) -> Result<(), TableError> {
    match opcode {
        Opcode::Create => Table::<CreateRow>::parse(header, table).map(drop),
        _ => Table::<ScatterRow>::parse(header, table).map(drop),
    }
}

impl Transfer {
    /// Begins a request whose table was checked.
    pub(super) fn new(
        header: &Header,
        opcode: Opcode,
        session: SessionIndex,
        received_ms: u64,
        place: Place,
    ) -> Self {
        Self {
            header: *header,
            opcode,
            session,
            received_ms,
            rows: 0,
            variable: header.rows as usize * usize::from(header.row_bytes),
            current: None,
            draft: Draft::new(header),
            place,
        }
    }

    /// Bytes of the row under way that have not come in yet.
    pub(super) fn row_left(&self) -> u64 {
        self.current.as_ref().map_or(0, Current::left)
    }

    /// Those of them that go to the pool.
    pub(super) fn target_left(&self) -> u64 {
        self.current.as_ref().map_or(0, Current::target_left)
    }

    /// Whether all bytes of a row are in that is neither the first nor the last.
    fn is_between_rows(&self) -> bool {
        self.row_left() == 0 && (2..self.header.rows as usize).contains(&self.rows)
    }

    /// Whether its table and its answer lie in a shared buffer.
    pub(super) fn is_borrowed(&self) -> bool {
        matches!(self.place, Place::Borrowed(_))
    }

    /// Whether the row under way fills a value that is claimed for it.
    pub(super) fn fills_claim(&self) -> bool {
        let sink = self.current.as_ref().map(|current| &current.sink);
        matches!(sink, Some(Sink::Claim { .. }))
    }

    /// Where in the pool the next bytes from the socket go, if they go there.
    pub(super) fn targets(&self, store: &Store, mut out: impl FnMut(PoolRange) -> bool) {
        let Some(Current { skip: 0, target: Some(target), .. }) = &self.current else { return };
        let (mut offset, mut cursor) = (target.offset, target.cursor);
        while offset < target.end {
            let room = store.write_room(target.entry, &mut cursor, offset, target.end);
            offset += room.end - room.start;
            if !out(room) {
                return;
            }
        }
    }

    /// Takes bytes of the row under way; returns how many were its.
    pub(super) fn take(&mut self, bytes: &[u8], core: &mut Core) -> usize {
        let Some(current) = &mut self.current else { return 0 };
        let mut used = current.skip.min(bytes.len() as u64) as usize;
        current.skip -= used as u64;
        while let Some(Target { entry, cursor, offset, end }) =
            current.target.as_mut().filter(|target| target.offset < target.end)
        {
            if used == bytes.len() {
                return used;
            }
            let until = (*end).min(*offset + (bytes.len() - used) as u64);
            let room = core.store.write_room(*entry, cursor, *offset, until);
            let piece = &bytes[used..][..(room.end - room.start) as usize];
            core.store.pool.each_mut(&[room], |room| room.copy_from_slice(piece));
            used += piece.len();
            current.landed(piece.len() as u64, self.session, core);
        }
        used += current.trailer_mut().map_or(0, |trailer| trailer.take(&bytes[used..]));
        let dropped = current.rest.min((bytes.len() - used) as u64);
        current.rest -= dropped;
        used += dropped as usize;
        if is_planted(Canary::SplitAtRow) && used == bytes.len() && self.is_between_rows() {
            used = used.saturating_sub(1);
        }
        used
    }

    /// Notes bytes that were read straight into the targets.
    pub(super) fn landed(&mut self, bytes: u64, core: &mut Core) {
        if let Some(current) = self.current.as_mut().filter(|_| bytes > 0) {
            current.landed(bytes, self.session, core);
        }
    }

    /// Ends the rows whose bytes are all in, and begins those that follow.
    /// `own_head` is the head of a request that needed no shared buffer. No row is
    /// begun once the store has counted `steps_end` steps.
    pub(super) fn advance(
        &mut self,
        own_head: &[u8],
        core: &mut Core,
        outbox: &mut Outbox,
        steps_end: u64,
    ) -> Advance {
        loop {
            match self.current.take() {
                Some(current) if current.left() > 0 => {
                    self.current = Some(current);
                    return Advance::WantsBytes;
                }
                Some(current) => {
                    let reply = current.end(core);
                    self.draft.push(outbox.bytes_mut(&mut self.place), &reply);
                }
                None => {}
            }
            if self.rows == self.header.rows as usize {
                return Advance::Ended;
            }
            if core.store.steps() >= steps_end {
                return Advance::WantsTurn;
            }
            self.current = Some(self.begin_row(own_head, core));
        }
    }

    fn begin_row(&mut self, own_head: &[u8], core: &mut Core) -> Current {
        let head = match &self.place {
            Place::Borrowed(buffer) => buffer.head(),
            Place::Ring(..) => own_head,
        };
        let table = self.header.table(head);
        let waited = core.now.monotonic_ms - self.received_ms;
        let deadline = u64::from(self.header.deadline_ms);
        let is_late = deadline > 0 && waited > deadline;
        let fixed = &table[self.rows * usize::from(self.header.row_bytes)..];
        let rest = &table[self.variable..];
        let (current, variable) = match self.opcode {
            Opcode::Create => {
                let (row, key, tag) = split_row::<CreateRow>(fixed, rest);
                (self.begin_create(&row, key, tag, is_late, core), key.len() + tag.len())
            }
            _ => {
                let (row, key, tag) = split_row::<ScatterRow>(fixed, rest);
                (self.begin_scatter(&row, key, tag, is_late, core), key.len() + tag.len())
            }
        };
        self.rows += 1;
        self.variable += variable;
        current
    }

    fn begin_create(
        &self,
        row: &CreateRow,
        key: &[u8],
        tag: &[u8],
        is_late: bool,
        core: &mut Core,
    ) -> Current {
        core.counters.create_rows += 1;
        let bytes = row.payload_bytes();
        let has = |flag| row.flags.has(flag);
        let is_reserve = has(RowFlags::RESERVE);
        let has_trailer = has(RowFlags::TRAILER);
        let is_bad = (is_reserve && bytes > 0) || (has_trailer && !has(RowFlags::CHECKSUM));
        let late = is_late.then(|| Reply::of(Status::Expired));
        let refusal = late
            .or_else(|| check_row(key, tag, row.flags, RowFlags::CREATE))
            .or_else(|| is_bad.then(|| Reply::of(Status::BadRow)));
        if let Some(refusal) = refusal {
            return Current::drained(refusal, bytes);
        }
        if is_reserve {
            let reply = core.store.reserve(row, key, tag, self.session, core.now);
            return Current::drained(reply, 0);
        }
        let (entry, terms) = match core.store.claim(row, key, tag, core.now) {
            Ok(claimed) => claimed,
            Err(refusal) => return Current::drained(refusal, bytes),
        };
        let stated = if has_trailer {
            let bytes = [0; TRAILER_BYTES_MAX as usize];
            Stated::Trailer(Incoming { bytes, filled: 0, length: row.trailer_bytes() })
        } else {
            Stated::Row(row.crc32c)
        };
        let checksum = has(RowFlags::CHECKSUM).then(|| (Checksum::new(), stated));
        let cursor = core.store.write_cursor(entry);
        Current {
            sink: Sink::Claim { terms, checksum },
            reply: Reply::of(Status::Ok),
            skip: 0,
            target: Some(Target { entry, cursor, offset: 0, end: row.value_bytes }),
            rest: 0,
        }
    }

    fn begin_scatter(
        &self,
        row: &ScatterRow,
        key: &[u8],
        tag: &[u8],
        is_late: bool,
        core: &mut Core,
    ) -> Current {
        core.counters.scatter_rows += 1;
        let bytes = row.value_bytes;
        // With a handle there is no key to check.
        let checked = if row.handle == 0 { key } else { b"-" };
        let late = is_late.then(|| Reply::of(Status::Expired));
        let refusal = late.or_else(|| check_row(checked, tag, row.flags, RowFlags::NONE));
        if let Some(refusal) = refusal {
            return Current::drained(refusal, bytes);
        }
        if row.handle != 0 {
            return self.begin_reserved(row, core);
        }
        let (reply, entry) = core.store.begin_scatter(row, key, core.now);
        let Some(entry) = entry else { return Current::drained(reply, bytes) };
        let mut cursor = core.store.write_cursor(entry);
        core.store.begin_write(entry, &mut cursor, row.offset);
        let written = reply.outcome.length;
        Current {
            sink: Sink::Value,
            reply,
            skip: 0,
            target: Some(Target { entry, cursor, offset: row.offset, end: row.offset + written }),
            rest: bytes - written,
        }
    }

    fn begin_reserved(&self, row: &ScatterRow, core: &mut Core) -> Current {
        let bytes = row.value_bytes;
        let Some(reservation) = core.store.reservation(row.handle, self.session) else {
            return Current::drained(Reply::of(Status::Expired), bytes);
        };
        let (entry, watermark) = (reservation.entry, reservation.watermark);
        if reservation.is_written {
            let busy = Reply::with_detail(Status::Busy, WRITTEN_RETRY_MS);
            return Current::drained(busy, bytes);
        }
        if row.offset > watermark {
            return Current::drained(Reply::with_detail(Status::BadRange, watermark), bytes);
        }
        let skip = bytes.min(watermark - row.offset);
        let end = row.offset.saturating_add(bytes).min(reservation.length);
        let mut reply = Reply::of(Status::Ok);
        reply.outcome.length = end.saturating_sub(row.offset);
        reply.outcome.detail = watermark.max(end);
        let offset = row.offset + skip;
        if offset >= end {
            return Current::drained(reply, bytes);
        }
        core.store.pin(entry);
        Current {
            sink: Sink::Reservation(row.handle),
            reply,
            skip,
            target: Some(Target { entry, cursor: core.store.write_cursor(entry), offset, end }),
            rest: bytes - skip - (end - offset),
        }
    }

    /// What is needed to queue the answer of a transfer whose last row has ended.
    pub(super) fn finish(mut self, outbox: &mut Outbox) {
        let head_bytes = self.draft.finish(outbox.bytes_mut(&mut self.place), 0);
        outbox.push(self.header.request_id, self.place, head_bytes, 0);
    }

    /// Gives up: the connection is gone. Rows that ended stay done.
    pub(super) fn abort(self, store: &mut Store, buffers: &mut Buffers, outbox: &mut Outbox) {
        if let Some(Current { sink, target: Some(target), .. }) = self.current {
            match sink {
                Sink::Claim { .. } => store.abandon(target.entry),
                Sink::Value | Sink::Reservation(_) => store.unpin(target.entry),
                Sink::Drain => {}
            }
        }
        outbox.give_back(self.place, buffers);
    }
}

impl Current {
    fn landed(&mut self, mut bytes: u64, session: SessionIndex, core: &mut Core) {
        let target = self.target.as_mut().expect("bytes land only in a target");
        while bytes > 0 {
            let end = target.end.min(target.offset + bytes);
            let room = core.store.write_room(target.entry, &mut target.cursor, target.offset, end);
            let length = room.end - room.start;
            match &mut self.sink {
                Sink::Claim { checksum: Some((checksum, _)), .. } => {
                    checksum.update(core.store.pool.bytes(room));
                }
                Sink::Reservation(handle) => {
                    core.store.reservation_progress(*handle, session, &room, core.now);
                }
                Sink::Claim { .. } | Sink::Value | Sink::Drain => {}
            }
            let next = target.offset + length;
            core.store.wrote(target.entry, &mut target.cursor, target.offset, next);
            target.offset = next;
            bytes -= length;
        }
    }

    fn end(self, core: &mut Core) -> Reply {
        let Some(Target { entry, .. }) = self.target else { return self.reply };
        match self.sink {
            Sink::Claim { terms, checksum } => {
                let is_sound = checksum.is_none_or(|(found, stated)| match stated {
                    Stated::Row(stated) => found.value() == stated,
                    Stated::Trailer(trailer) => Trailer::decode(&trailer.bytes[..trailer.length])
                        .filter(|trailer| trailer.crc32c == found.value())
                        .is_some_and(|trailer| {
                            core.store.describe_claim(entry, trailer.crc32c, trailer.tag);
                            true
                        }),
                });
                if is_sound {
                    return core.store.finish_claim(entry, &terms, core.now);
                }
                core.store.abandon(entry);
                Reply::of(Status::Corrupt)
            }
            Sink::Value | Sink::Reservation(_) => {
                core.store.unpin(entry);
                self.reply
            }
            Sink::Drain => self.reply,
        }
    }
}

/// The row at the begin of `fixed`, with its key and tag at the begin of
/// `variable`. That they lie within the table was checked when it came in.
fn split_row<'a, R: Row>(fixed: &[u8], variable: &'a [u8]) -> (R, &'a [u8], &'a [u8]) {
    let row = R::decode(fixed);
    let (key_bytes, tag_bytes) = row.variable_bytes();
    let (key, rest) = variable.split_at(key_bytes);
    (row, key, &rest[..tag_bytes])
}

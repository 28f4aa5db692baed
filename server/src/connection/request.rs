//! Requests without payload: judged and answered at once.

use rampuddle_protocol::limits::{KEY_BYTES_MAX, PAYLOAD_BYTES_MAX, STAT_ROWS_MAX, TAG_BYTES_MAX};
use rampuddle_protocol::{
    CancelRow, DeleteRow, DropRow, GatherRow, Header, HoldRow, InfoRow, ListRow, Opcode,
    PublishRow, ReleaseRow, Row, RowFlags, SharedRow, StatRequestRow, StatRow, Status, Table,
    TableError, TouchRow,
};

use super::buffer::ANSWER_BYTES;
use super::draft::{Draft, write_status};
use super::outbox::{Outbox, Place};
use super::page::RowsPage;
use crate::core::Core;
use crate::store::{Reply, SessionIndex};

/// What an answer's head came to: its length, and the reads that follow it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    pub(super) head_bytes: usize,
    pub(super) reads: u32,
}

impl Written {
    pub(super) fn head(head_bytes: usize) -> Self {
        Self { head_bytes, reads: 0 }
    }
}

/// Bytes of the answer's head that must be free before the request is begun.
pub(super) fn answer_bytes(opcode: Opcode, header: &Header) -> usize {
    match opcode {
        Opcode::Stat => Header::BYTES + header.rows as usize * STAT_ANSWER_BYTES,
        Opcode::List | Opcode::Map => ANSWER_BYTES,
        Opcode::Share => Header::BYTES + SharedRow::BYTES,
        Opcode::Info => Header::BYTES + InfoRow::BYTES + TAG_BYTES_MAX,
        _ => super::draft::answer_bytes(header.rows),
    }
}

/// Values that one Touch gives a new lease before its further rows are BUSY.
const TOUCHED_MAX: u64 = 32_768;
/// How long such a row is told to wait.
const TOUCH_RETRY_MS: u64 = 10;
/// Requests of more rows than this are not followed by another in the same turn.
const LIGHT_ROWS_MAX: u32 = 64;

/// Whether a request may take so long that others must have a turn behind it.
pub(super) fn is_heavy(opcode: Opcode, header: &Header) -> bool {
    let walks = matches!(opcode, Opcode::List | Opcode::Touch | Opcode::Map | Opcode::Unmap);
    walks || opcode == Opcode::Share || header.rows > LIGHT_ROWS_MAX
}

const STAT_ANSWER_BYTES: usize = StatRow::BYTES + KEY_BYTES_MAX + TAG_BYTES_MAX;
// The answer to the largest Stat fits a shared buffer.
const _: () = assert!(Header::BYTES + STAT_ROWS_MAX as usize * STAT_ANSWER_BYTES <= ANSWER_BYTES);

/// BAD_ROW for keys of no bytes or too many, UNSUPPORTED for flags of a newer
/// peer, BAD_ROW for flags that have no meaning here.
pub(super) fn check_row(
    key: &[u8],
    tag: &[u8],
    flags: RowFlags,
    allowed: RowFlags,
) -> Option<Reply> {
    let status = if !flags.only(RowFlags::KNOWN) {
        Status::Unsupported
    } else if !(1..=KEY_BYTES_MAX).contains(&key.len())
        || tag.len() > TAG_BYTES_MAX
        || !flags.only(allowed)
    {
        Status::BadRow
    } else {
        return None;
    };
    Some(Reply::of(status))
}

/// One request and where its answer goes.
pub(super) struct Request<'a> {
    pub(super) header: &'a Header,
    pub(super) table: &'a [u8],
    pub(super) session: SessionIndex,
    pub(super) is_late: bool,
    /// The connection can pass descriptors: its peer is on this machine.
    pub(super) is_local: bool,
}

impl Request<'_> {
    /// Executes the request, and writes its answer to `place`.
    pub(super) fn answer(
        &self,
        opcode: Opcode,
        core: &mut Core,
        outbox: &mut Outbox,
        place: &mut Place,
    ) -> Written {
        if self.is_late && matches!(opcode, Opcode::Info | Opcode::Ping | Opcode::Share) {
            // Their answers have no rows that could say it.
            return self.status(outbox.bytes_mut(place), Status::Expired);
        }
        let done = match opcode {
            Opcode::Gather => self.gather(core, outbox, place),
            Opcode::Delete => self.delete(core, outbox.bytes_mut(place)),
            Opcode::Publish => self.publish(core, outbox.bytes_mut(place)),
            Opcode::Cancel => self.cancel(core, outbox, place),
            Opcode::Drop => self.drop_versions(core, outbox.bytes_mut(place)),
            Opcode::Hold => self.hold(core, outbox.bytes_mut(place)),
            Opcode::Release => self.release(core, outbox.bytes_mut(place)),
            Opcode::Touch => self.touch(core, outbox.bytes_mut(place)),
            Opcode::Stat => self.stat(core, outbox.bytes_mut(place)),
            Opcode::List => self.list(core, outbox.bytes_mut(place)),
            Opcode::Info => Ok(self.info(core, outbox.bytes_mut(place))),
            Opcode::Ping => Ok(self.status(outbox.bytes_mut(place), Status::Ok)),
            Opcode::Share => Ok(self.share(core, outbox, place)),
            Opcode::Map => self.map(core, outbox.bytes_mut(place)),
            Opcode::Unmap => self.unmap(core, outbox.bytes_mut(place)),
            Opcode::Create | Opcode::Scatter | Opcode::Hello | Opcode::Proof => {
                unreachable!("these have their own paths")
            }
        };
        done.unwrap_or_else(|_| self.status(outbox.bytes_mut(place), Status::BadRow))
    }

    pub(super) fn status(&self, out: &mut [u8], status: Status) -> Written {
        write_status(out, self.header, status, false);
        Written::head(Header::BYTES)
    }

    /// Answers each row with what `each` says of it; rows that came too late,
    /// or break a rule, are not handed on.
    pub(super) fn each_row<R: Row>(
        &self,
        out: &mut [u8],
        check: impl Fn(&R, &[u8], &[u8]) -> Option<Reply>,
        mut each: impl FnMut(&R, &[u8]) -> Reply,
    ) -> Result<Written, TableError> {
        let table = Table::<R>::parse(self.header, self.table)?;
        let mut draft = Draft::new(self.header);
        for (row, key, tag) in &table {
            let late = self.is_late.then(|| Reply::of(Status::Expired));
            let refusal = late.or_else(|| check(&row, key, tag));
            draft.push(out, &refusal.unwrap_or_else(|| each(&row, key)));
        }
        Ok(Written::head(draft.finish(out, 0)))
    }

    fn gather(
        &self,
        core: &mut Core,
        outbox: &mut Outbox,
        place: &mut Place,
    ) -> Result<Written, TableError> {
        let table = Table::<GatherRow>::parse(self.header, self.table)?;
        core.counters.gather_rows += table.len() as u64;
        let (mut draft, mut payload, mut reads) = (Draft::new(self.header), 0, 0);
        for (row, key, tag) in &table {
            let late = self.is_late.then(|| Reply::of(Status::Expired));
            let refusal = late.or_else(|| check_row(key, tag, row.flags, RowFlags::GATHER));
            let (reply, read) = match refusal {
                Some(reply) => (reply, None),
                None => {
                    let room = PAYLOAD_BYTES_MAX - payload;
                    core.store.begin_gather(&row, key, room, self.session, core.now)
                }
            };
            if let Some(read) = read {
                payload += reply.outcome.length;
                reads += 1;
                outbox.push_read(read);
            }
            draft.push(outbox.bytes_mut(place), &reply);
        }
        let head_bytes = draft.finish(outbox.bytes_mut(place), payload);
        Ok(Written { head_bytes, reads })
    }

    fn delete(&self, core: &mut Core, out: &mut [u8]) -> Result<Written, TableError> {
        core.counters.delete_rows += u64::from(self.header.rows);
        let check = |row: &DeleteRow, key: &[u8], tag: &[u8]| {
            check_row(key, tag, row.flags, RowFlags::NONE)
        };
        self.each_row(out, check, |row, key| core.store.delete(row, key, core.now))
    }

    fn drop_versions(&self, core: &mut Core, out: &mut [u8]) -> Result<Written, TableError> {
        let check =
            |row: &DropRow, key: &[u8], tag: &[u8]| check_row(key, tag, row.flags, RowFlags::NONE);
        self.each_row(out, check, |row, key| core.store.drop_version(row, key, core.now))
    }

    fn publish(&self, core: &mut Core, out: &mut [u8]) -> Result<Written, TableError> {
        let check =
            |row: &PublishRow, _: &[u8], _: &[u8]| check_flags(row.flags, RowFlags::PUBLISH);
        self.each_row(out, check, |row, _| core.store.publish_reserved(row, self.session, core.now))
    }

    fn hold(&self, core: &mut Core, out: &mut [u8]) -> Result<Written, TableError> {
        let check = |row: &HoldRow, _: &[u8], _: &[u8]| check_flags(row.flags, RowFlags::NONE);
        self.each_row(out, check, |row, _| core.store.hold(self.session, row.set))
    }

    fn release(&self, core: &mut Core, out: &mut [u8]) -> Result<Written, TableError> {
        let check = |row: &ReleaseRow, _: &[u8], _: &[u8]| check_flags(row.flags, RowFlags::NONE);
        self.each_row(out, check, |row, _| core.store.release(self.session, row.set))
    }

    fn touch(&self, core: &mut Core, out: &mut [u8]) -> Result<Written, TableError> {
        let check = |row: &TouchRow, _: &[u8], _: &[u8]| check_flags(row.flags, RowFlags::TOUCH);
        let mut touched = 0;
        self.each_row(out, check, |row, _| {
            if touched > TOUCHED_MAX {
                return Reply::with_detail(Status::Busy, TOUCH_RETRY_MS);
            }
            let reply = core.store.touch(row, core.now);
            touched += reply.outcome.detail;
            reply
        })
    }

    fn cancel(
        &self,
        core: &mut Core,
        outbox: &mut Outbox,
        place: &mut Place,
    ) -> Result<Written, TableError> {
        let table = Table::<CancelRow>::parse(self.header, self.table)?;
        let mut draft = Draft::new(self.header);
        for (row, _, _) in &table {
            let found = outbox.cancel(row.request_id, &mut core.store);
            let status = if found { Status::Ok } else { Status::NotFound };
            draft.push(outbox.bytes_mut(place), &Reply::of(status));
        }
        Ok(Written::head(draft.finish(outbox.bytes_mut(place), 0)))
    }

    fn stat(&self, core: &mut Core, out: &mut [u8]) -> Result<Written, TableError> {
        let table = Table::<StatRequestRow>::parse(self.header, self.table)?;
        let mut rows = StatRows::new(table.len());
        for (row, key, tag) in &table {
            let late = self.is_late.then(|| Reply::of(Status::Expired));
            let refusal = late.or_else(|| check_row(key, tag, row.flags, RowFlags::NONE));
            // A refused key may be longer than there is room for: it is not returned.
            let key = if refusal.is_some() { &[] } else { key };
            let (stat, tag) = match refusal {
                Some(reply) => (StatRow::of(reply.outcome.status()), &[][..]),
                None => core.store.stat(key, core.now),
            };
            rows.push(out, &stat, key, tag);
        }
        Ok(Written::head(rows.finish(out, self.header)))
    }

    fn list(&self, core: &mut Core, out: &mut [u8]) -> Result<Written, TableError> {
        let table = Table::<ListRow>::parse(self.header, self.table)?;
        let Some((row, prefix, cursor)) = table.iter().next().filter(|_| table.len() == 1) else {
            return Ok(self.status(out, Status::BadRow));
        };
        if self.is_late {
            return Ok(self.status(out, Status::Expired));
        }
        if let Some(refusal) = check_flags(row.flags, RowFlags::LIST) {
            return Ok(self.status(out, refusal.outcome.status()));
        }
        if prefix.len().max(cursor.len()) > KEY_BYTES_MAX {
            return Ok(self.status(out, Status::BadRow));
        }
        let mut page = RowsPage::<StatRow>::new(out.len(), STAT_ANSWER_BYTES);
        let more = core
            .store
            .list(&row, prefix, cursor, core.now, |stat, key, tag| page.push(out, *stat, key, tag));
        if let Some(last) = more {
            let incomplete = StatRow::of(Status::Incomplete);
            page.push_last(out, incomplete, core.store.key(last));
        }
        Ok(Written::head(page.finish(out, self.header)))
    }

    fn info(&self, core: &Core, out: &mut [u8]) -> Written {
        let name = core.identity.name.as_bytes();
        let row = InfoRow { name_bytes: name.len() as u8, ..core.info() };
        row.encode(&mut out[Header::BYTES..]);
        out[Header::BYTES + InfoRow::BYTES..][..name.len()].copy_from_slice(name);
        let header = answer_header(self.header, 1, InfoRow::BYTES, InfoRow::BYTES + name.len());
        Written::head(seal(out, &header))
    }
}

pub(super) fn check_flags(flags: RowFlags, allowed: RowFlags) -> Option<Reply> {
    check_row(b"-", b"", flags, allowed)
}

pub(super) fn answer_header(
    request: &Header,
    rows: usize,
    row_bytes: usize,
    table_bytes: usize,
) -> Header {
    let mut header = Header::new(request.opcode, request.request_id);
    header.flags = rampuddle_protocol::FrameFlags::ANSWER;
    (header.rows, header.row_bytes) = (rows as u32, row_bytes as u16);
    header.table_bytes = table_bytes as u32;
    header
}

pub(super) fn seal(out: &mut [u8], header: &Header) -> usize {
    let head = &mut out[..header.head_bytes()];
    header.encode(head);
    Header::seal(head);
    head.len()
}

/// Stat rows whose number is known.
struct StatRows {
    rows: usize,
    done: usize,
    variable: usize,
}

impl StatRows {
    fn new(rows: usize) -> Self {
        Self { rows, done: 0, variable: 0 }
    }

    fn push(&mut self, out: &mut [u8], stat: &StatRow, key: &[u8], tag: &[u8]) {
        let row = StatRow { key_bytes: key.len() as u16, tag_bytes: tag.len() as u8, ..*stat };
        row.encode(&mut out[Header::BYTES + self.done * StatRow::BYTES..]);
        let at = Header::BYTES + self.rows * StatRow::BYTES + self.variable;
        out[at..at + key.len()].copy_from_slice(key);
        out[at + key.len()..][..tag.len()].copy_from_slice(tag);
        self.done += 1;
        self.variable += key.len() + tag.len();
    }

    fn finish(self, out: &mut [u8], request: &Header) -> usize {
        let table_bytes = self.rows * StatRow::BYTES + self.variable;
        seal(out, &answer_header(request, self.rows, StatRow::BYTES, table_bytes))
    }
}

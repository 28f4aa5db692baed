//! Values on their way in: claimed, filled, then published or abandoned.

use rampuddle_protocol::limits::{
    CLOCK_BOUND_MS, LEASE_MS_MAX, PAGE_BYTES, VALUE_BYTES_MAX, VALUE_BYTES_MIN,
};
use rampuddle_protocol::{CreateRow, RowFlags, Status, Version};

use super::entry::{EntryId, State};
use super::verify::Soundness;
use super::{Now, Reply, Store};
use crate::pool::Body;

/// How long a writer is told to wait when too much is claimed already.
const BUSY_RETRY_MS: u64 = 20;
/// How long a writer is told to wait while stored bytes are compared.
const VERIFY_RETRY_MS: u64 = 1;

/// Sweeps for one value: what has ended is freed for it, but not without bound.
const SWEEPS_MAX: usize = 8;
/// How long after a refusal somebody is taken to wait for room.
const WAITING_MS: u64 = 500;

/// Claims that are not filled: their bytes, and when one was refused for their sake.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Unfilled {
    pub(super) bytes: u64,
    refused_ms: Option<u64>,
}

/// On what terms a claimed value may be published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    if_version: Version,
    flags: RowFlags,
    lease_ms: u64,
    /// The checksum is known already, so that the terms can be judged exactly.
    crc_is_known: bool,
}

impl Terms {
    fn of(row: &CreateRow) -> Self {
        Self {
            if_version: row.if_version,
            flags: row.flags,
            lease_ms: row.lease_ms,
            crc_is_known: !row.flags.has(RowFlags::RESERVE) && !row.flags.has(RowFlags::TRAILER),
        }
    }
}

impl Store {
    /// CLOCK for versions too far ahead, BAD_ROW for none.
    pub(super) fn refuse_version(&self, version: Version, now: Now) -> Option<Reply> {
        if version.is_none() {
            return Some(Reply::of(Status::BadRow));
        }
        let ahead = version.unix_ms().saturating_sub(now.unix_ms);
        (ahead > CLOCK_BOUND_MS).then(|| Reply::with_detail(Status::Clock, ahead))
    }

    /// Begins a Create: judges the row and takes an entry and pages for it.
    pub(crate) fn claim(
        &mut self,
        row: &CreateRow,
        key: &[u8],
        tag: &[u8],
        now: Now,
    ) -> Result<(EntryId, Terms), Reply> {
        if row.value_bytes > row.length || row.lease_ms > LEASE_MS_MAX {
            return Err(Reply::of(Status::BadRow));
        }
        if row.length > VALUE_BYTES_MAX {
            return Err(Reply::with_detail(Status::TooLarge, VALUE_BYTES_MAX));
        }
        if let Some(refusal) = self.refuse_version(row.version, now) {
            return Err(refusal);
        }
        let terms = Terms::of(row);
        let has_crc = row.flags.has(RowFlags::CHECKSUM) && terms.crc_is_known;
        let crc32c = if has_crc { row.crc32c } else { 0 };
        self.judge(key, (row.version, crc32c), &terms, now)?;
        let length = row.length.max(VALUE_BYTES_MIN);
        let id = self.take_room(key, length, row.flags.has(RowFlags::RESERVE), now)?;
        let entry = &mut self.slab[id];
        entry.set_tag(tag);
        entry.replicas = row.replicas;
        entry.flags = row.flags.among(RowFlags::STORED);
        if !terms.crc_is_known {
            // The checksum comes with Publish, or with the trailer, which compares it.
            entry.flags = entry.flags.without(RowFlags::CHECKSUM);
        }
        (entry.slot, entry.placement_bytes) = (row.slot, row.placement_bytes);
        (entry.tenant, entry.crc32c) = (row.tenant, crc32c);
        (entry.version, entry.set, entry.length) = (row.version, row.set, length);
        Ok((id, terms))
    }

    /// An entry and pages for a value of `length`. What is not filled is bounded,
    /// for reservations and for values that come in one request apart, so that
    /// neither waits for the other.
    fn take_room(
        &mut self,
        key: &[u8],
        length: u64,
        is_reserved: bool,
        now: Now,
    ) -> Result<EntryId, Reply> {
        let book = &mut self.unfilled[usize::from(is_reserved)];
        if book.bytes > 0
            && book.bytes + length > u64::from(self.pool.total_pages()) * PAGE_BYTES / 4
        {
            book.refused_ms = Some(now.monotonic_ms);
            return Err(Reply::with_detail(Status::Busy, BUSY_RETRY_MS));
        }
        let Some(body) = self.take_pages(length, now) else {
            self.counters.no_space_rows += 1;
            return Err(Reply::of(Status::NoSpace));
        };
        let Some(id) = self.slab.take(key) else {
            self.pool.give_back_body(body);
            self.counters.no_space_rows += 1;
            return Err(Reply::of(Status::NoIndex));
        };
        self.reserved_pages += body.pages;
        self.unfilled[usize::from(is_reserved)].bytes += length;
        let entry = &mut self.slab[id];
        (entry.state, entry.body) = (State::Claimed, body);
        (entry.expected, entry.is_reserved) = (length, is_reserved);
        Ok(id)
    }

    /// Whether somebody waits for claims to be filled: reservations, or values
    /// that come in one request. Then the slow ones are given up sooner.
    pub(crate) fn claims_are_awaited(&self, is_reserved: bool, now: Now) -> bool {
        let refused_ms = self.unfilled[usize::from(is_reserved)].refused_ms;
        refused_ms.is_some_and(|at| now.monotonic_ms - at <= WAITING_MS)
    }

    /// Pages for a value; when too few are free, those of what has ended first.
    fn take_pages(&mut self, length: u64, now: Now) -> Option<Body> {
        for _ in 0..SWEEPS_MAX {
            let body = self.pool.take_body(length);
            if body.is_some() || !self.has_ended(now) {
                return body;
            }
            self.sweep(now);
        }
        self.pool.take_body(length)
    }

    /// Whether a value of this rank may stand under `key` now.
    fn judge(
        &mut self,
        key: &[u8],
        rank: (Version, u32),
        terms: &Terms,
        now: Now,
    ) -> Result<(), Reply> {
        let held = self.find(key, now);
        let value = held.filter(|id| self.slab[*id].state == State::Visible);
        let value_version = value.map_or(Version::NONE, |id| self.slab[id].version);
        if !terms.if_version.is_none() && terms.if_version != value_version {
            return Err(self.mismatch(value));
        }
        let Some(id) = held else { return Ok(()) };
        let held_rank = self.slab[id].rank();
        let status = if value.is_some() && held_rank.0 == rank.0 && !terms.crc_is_known {
            // Whether it is the same is known when its checksum is: at Publish.
            return Ok(());
        } else if value.is_some() && held_rank == rank {
            let rewrites = terms.flags.has(RowFlags::REWRITE);
            match rewrites.then(|| self.check_bytes(id)) {
                Some(Soundness::Damaged) => return Ok(()),
                Some(Soundness::NotKnownYet) => {
                    return Err(Reply::with_detail(Status::Busy, VERIFY_RETRY_MS));
                }
                Some(Soundness::Sound) | None => Status::Same,
            }
        } else if held_rank.0 > rank.0
            || (value.is_none() && held_rank.0 == rank.0)
            || (terms.crc_is_known && held_rank > rank)
        {
            // Of one version a delete wins, in either order of arrival.
            Status::Older
        } else if value.is_some() && !terms.flags.has(RowFlags::REPLACE) {
            Status::Exists
        } else {
            return Ok(());
        };
        Err(self.describe(id, status, true))
    }

    /// What refuses a filled claim, if anything does.
    pub(super) fn judge_claim(
        &mut self,
        id: EntryId,
        terms: &Terms,
        now: Now,
    ) -> Result<(), Reply> {
        let key = KeyCopy::of(self.slab.key(id));
        let terms = Terms { crc_is_known: true, ..*terms };
        self.judge(key.bytes(), self.slab[id].rank(), &terms, now)
    }

    /// MISMATCH, with what is held.
    pub(super) fn mismatch(&self, value: Option<EntryId>) -> Reply {
        match value {
            Some(id) => self.describe(id, Status::Mismatch, true),
            None => Reply::of(Status::Mismatch),
        }
    }

    /// Gives a claim the checksum and the tag that stood behind its bytes.
    pub(crate) fn describe_claim(&mut self, id: EntryId, crc32c: u32, tag: &[u8]) {
        let entry = &mut self.slab[id];
        entry.set_checksum(Some(crc32c));
        entry.set_tag(tag);
    }

    /// Ends a Create whose bytes are all in: makes the value visible, if that
    /// is still allowed, and says what it displaced.
    pub(crate) fn finish_claim(&mut self, id: EntryId, terms: &Terms, now: Now) -> Reply {
        match self.judge_claim(id, terms, now) {
            Ok(()) => self.enter_claim(id, terms, now),
            Err(refusal) => {
                self.abandon(id);
                refusal
            }
        }
    }

    /// Makes a claim visible that was judged just now.
    pub(super) fn enter_claim(&mut self, id: EntryId, terms: &Terms, now: Now) -> Reply {
        let key = KeyCopy::of(self.slab.key(id));
        let displaced = self.find(key.bytes(), now);
        let mut reply = match displaced {
            Some(old) if self.slab[old].state == State::Visible => {
                let mut reply = self.describe(old, Status::Ok, true);
                reply.outcome.flags |= RowFlags::DISPLACED;
                self.remove(old);
                reply
            }
            Some(tombstone) => {
                let mut reply = Reply::of(Status::Ok);
                reply.outcome.version = self.slab[tombstone].version;
                self.forget_tombstone(tombstone);
                reply
            }
            None => Reply::of(Status::Ok),
        };
        reply.outcome.length = self.slab[id].length;
        self.set_lease(id, terms.lease_ms, now);
        self.publish(id);
        reply
    }

    /// Gives up a claim; its pages come back when no request writes into it.
    pub(crate) fn abandon(&mut self, id: EntryId) {
        self.end_claim(id);
        self.used_pages += self.slab[id].body.pages;
        self.retire(id);
    }

    /// Takes a claim off the books of what is reserved.
    pub(super) fn end_claim(&mut self, id: EntryId) {
        let entry = &self.slab[id];
        assert!(entry.state == State::Claimed, "only claims are filled");
        self.reserved_pages -= entry.body.pages;
        self.unfilled[usize::from(entry.is_reserved)].bytes -= entry.expected - entry.body.prefix;
    }

    /// Gives back the pages of a claim that its final length does not need.
    pub(super) fn shorten_claim(&mut self, id: EntryId, length: u64) {
        let entry = &mut self.slab[id];
        let pages = entry.body.pages;
        self.pool.truncate_body(&mut entry.body, length);
        entry.length = length;
        self.reserved_pages -= pages - entry.body.pages;
    }
}

/// A key on the stack, so that the store can change while it is in use.
struct KeyCopy {
    bytes: [u8; rampuddle_protocol::limits::KEY_BYTES_MAX],
    length: usize,
}

impl KeyCopy {
    fn of(key: &[u8]) -> Self {
        let mut bytes = [0; rampuddle_protocol::limits::KEY_BYTES_MAX];
        bytes[..key.len()].copy_from_slice(key);
        Self { bytes, length: key.len() }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

//! Values that are filled over several requests: reserve, scatter, publish.

use rampuddle_protocol::limits::{PROGRESS_WINDOW_MS, SESSION_LINGER_MS, VALUE_BYTES_MIN};
use rampuddle_protocol::{Checksum, CreateRow, PublishRow, RowFlags, Status};

use super::claim::Terms;
use super::entry::EntryId;
use super::set::SessionIndex;
use super::{Now, Reply, Store};
use crate::pool::PoolRange;

/// Reservations open at once, over all sessions.
const RESERVATIONS_MAX: usize = 4_096;
/// A reservation into which nothing was written for this long is given up.
const RESERVATION_IDLE_MS: u64 = SESSION_LINGER_MS;
/// How long a writer is told to wait when too many are open.
const BUSY_RETRY_MS: u64 = 100;

const _: () = assert!(RESERVATION_IDLE_MS > PROGRESS_WINDOW_MS);

/// Names a reservation to the session that made it; never 0, and never guessed
/// right by another session.
pub(crate) type Handle = u64;

/// A reserved value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reserved {
    pub(crate) entry: EntryId,
    /// What was reserved.
    pub(crate) length: u64,
    /// All bytes below were given.
    pub(crate) watermark: u64,
}

#[derive(Debug)]
struct Reservation {
    handle: Handle,
    entry: EntryId,
    session: SessionIndex,
    terms: Terms,
    checksum: Checksum,
    progress_ms: u64,
}

/// The open reservations.
#[derive(Debug)]
pub(super) struct Reservations {
    open: Vec<Reservation>,
    random: u64,
}

impl Reservations {
    pub(super) fn new(seed: u64) -> Self {
        Self { open: Vec::new(), random: seed | 1 }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    fn find(&self, handle: Handle, session: SessionIndex) -> Option<usize> {
        let wanted = |one: &Reservation| one.handle == handle && one.session == session;
        self.open.iter().position(wanted)
    }

    fn draw_handle(&mut self) -> Handle {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

impl Store {
    /// Create with RESERVE: pages now, bytes later.
    pub(crate) fn reserve(
        &mut self,
        row: &CreateRow,
        key: &[u8],
        tag: &[u8],
        session: SessionIndex,
        now: Now,
    ) -> Reply {
        if self.reservations.open.len() >= RESERVATIONS_MAX {
            return Reply::with_detail(Status::Busy, BUSY_RETRY_MS);
        }
        let (entry, terms) = match self.claim(row, key, tag, now) {
            Ok(claimed) => claimed,
            Err(refusal) => return refusal,
        };
        let handle = self.reservations.draw_handle();
        self.reservations.open.push(Reservation {
            handle,
            entry,
            session,
            terms,
            checksum: Checksum::new(),
            progress_ms: now.monotonic_ms,
        });
        let mut reply = Reply::with_detail(Status::Ok, handle);
        reply.outcome.length = self.slab[entry].length;
        reply
    }

    /// The value behind a handle.
    pub(crate) fn reservation(&self, handle: Handle, session: SessionIndex) -> Option<Reserved> {
        let index = self.reservations.find(handle, session)?;
        let entry = self.reservations.open[index].entry;
        let (length, watermark) = (self.slab[entry].length, self.slab[entry].body.prefix);
        Some(Reserved { entry, length, watermark })
    }

    /// Notes bytes of a reservation that arrived at `offset` and lie at `range`.
    /// Those below the watermark were sent again and count for nothing.
    pub(crate) fn reservation_progress(
        &mut self,
        handle: Handle,
        session: SessionIndex,
        offset: u64,
        range: &PoolRange,
        now: Now,
    ) {
        let Some(index) = self.reservations.find(handle, session) else { return };
        let reservation = &mut self.reservations.open[index];
        let watermark = self.slab[reservation.entry].body.prefix;
        let known = watermark.saturating_sub(offset).min(range.end - range.start);
        if range.start + known < range.end {
            reservation.checksum.update(self.pool.bytes(range.start + known..range.end));
            reservation.progress_ms = now.monotonic_ms;
        }
    }

    /// Publish: makes a reserved value visible, whole or not at all. A refusal
    /// for want of bytes leaves the reservation open.
    pub(crate) fn publish_reserved(
        &mut self,
        row: &PublishRow,
        session: SessionIndex,
        now: Now,
    ) -> Reply {
        let Some(index) = self.reservations.find(row.handle, session) else {
            return Reply::of(Status::Expired);
        };
        let entry = self.reservations.open[index].entry;
        let (reserved, watermark) = (self.slab[entry].length, self.slab[entry].body.prefix);
        if row.value_bytes > row.length {
            return Reply::of(Status::BadRow);
        }
        if row.length > reserved || watermark > row.value_bytes {
            return Reply::with_detail(Status::BadRange, watermark);
        }
        if self.slab[entry].pins > 0 {
            // Another connection of the session still writes into it.
            return Reply::with_detail(Status::Busy, BUSY_RETRY_MS);
        }
        if watermark < row.value_bytes {
            return Reply::with_detail(Status::Incomplete, watermark);
        }
        let reservation = self.reservations.open.swap_remove(index);
        if row.flags.has(RowFlags::CHECKSUM) {
            if reservation.checksum.value() != row.crc32c {
                self.abandon(entry);
                return Reply::of(Status::Corrupt);
            }
            self.slab[entry].crc32c = row.crc32c;
            self.slab[entry].flags |= RowFlags::CHECKSUM;
        }
        self.shorten_claim(entry, row.length.max(VALUE_BYTES_MIN));
        self.finish_claim(entry, &reservation.terms, now)
    }

    /// Gives up the reservations into which nothing was written for long.
    pub(crate) fn expire_reservations(&mut self, now: Now) {
        self.abandon_reservations(|one| one.progress_ms + RESERVATION_IDLE_MS <= now.monotonic_ms);
    }

    /// Gives up the reservations of a session that has ended.
    pub(crate) fn end_reservations(&mut self, session: SessionIndex) {
        self.abandon_reservations(|one| one.session == session);
    }

    fn abandon_reservations(&mut self, ends: impl Fn(&Reservation) -> bool) {
        let mut index = 0;
        while index < self.reservations.open.len() {
            if ends(&self.reservations.open[index]) {
                let entry = self.reservations.open.swap_remove(index).entry;
                self.abandon(entry);
            } else {
                index += 1;
            }
        }
    }
}

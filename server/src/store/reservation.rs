//! Values that are filled over several requests: reserve, scatter, publish.

use std::collections::HashMap;

use rampuddle_protocol::limits::{
    PROGRESS_BYTES, PROGRESS_WINDOW_MS, SESSION_LINGER_MS, VALUE_BYTES_MAX, VALUE_BYTES_MIN,
};
use rampuddle_protocol::{Checksum, CreateRow, PublishRow, RowFlags, Status};

use super::claim::Terms;
use super::entry::{EntryId, Slab};
use super::random::Random;
use super::set::SessionIndex;
use super::{Now, Reply, Store};
use crate::pool::PoolRange;

/// Reservations open at once, over all sessions.
const RESERVATIONS_MAX: usize = 4_096;
/// Reservations that one session may have open.
const SESSION_RESERVATIONS_MAX: u32 = 1_024;
/// A reservation into which less than a step of progress was written for this
/// long is given up.
const RESERVATION_IDLE_MS: u64 = SESSION_LINGER_MS;
/// The same while others wait for room.
const AWAITED_IDLE_MS: u64 = 5_000;
/// How long a writer is told to wait when too many are open.
const BUSY_RETRY_MS: u64 = 100;
/// Bits of a handle that say where its reservation lies; the others are random.
const PLACE_BITS: u32 = RESERVATIONS_MAX.ilog2();

const _: () = assert!(RESERVATION_IDLE_MS > PROGRESS_WINDOW_MS);
const _: () = assert!(RESERVATIONS_MAX == 1 << PLACE_BITS);

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
    /// Another request writes into it now.
    pub(crate) is_written: bool,
}

#[derive(Debug)]
struct Reservation {
    handle: Handle,
    entry: EntryId,
    session: SessionIndex,
    terms: Terms,
    checksum: Checksum,
    /// When the last step of progress was made, and the watermark then.
    progress_ms: u64,
    progress_watermark: u64,
}

/// The open reservations.
#[derive(Debug)]
pub(super) struct Reservations {
    places: Vec<Option<Reservation>>,
    free: Vec<usize>,
    by_session: HashMap<SessionIndex, u32, foldhash::quality::RandomState>,
    random: Random,
}

impl Reservations {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            by_session: HashMap::default(),
            random: Random::new(seed),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// How many a session has open.
    pub(super) fn of_session(&self, session: SessionIndex) -> u32 {
        self.by_session.get(&session).copied().unwrap_or(0)
    }

    fn find(&mut self, handle: Handle, session: SessionIndex) -> Option<&mut Reservation> {
        let place = self.places.get_mut(handle as usize % RESERVATIONS_MAX)?.as_mut();
        place.filter(|one| one.handle == handle && one.session == session)
    }

    fn insert(&mut self, entry: EntryId, session: SessionIndex, terms: Terms, now: Now) -> Handle {
        let at = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        let mut drawn = 0;
        while drawn >> PLACE_BITS == 0 {
            drawn = self.random.draw();
        }
        let handle = drawn >> PLACE_BITS << PLACE_BITS | at as u64;
        self.places[at] = Some(Reservation {
            handle,
            entry,
            session,
            terms,
            checksum: Checksum::new(),
            progress_ms: now.monotonic_ms,
            progress_watermark: 0,
        });
        *self.by_session.entry(session).or_insert(0) += 1;
        handle
    }

    fn remove(&mut self, at: usize) -> Option<Reservation> {
        let reservation = self.places[at].take()?;
        self.free.push(at);
        let count = self.by_session.get_mut(&reservation.session).expect("every one is counted");
        *count -= 1;
        if *count == 0 {
            self.by_session.remove(&reservation.session);
        }
        Some(reservation)
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
        let (entry, terms) = match self.claim(row, key, tag, now) {
            Ok(claimed) => claimed,
            Err(refusal) => return refusal,
        };
        if self.reservations.len() >= RESERVATIONS_MAX
            || self.reservations.of_session(session) >= SESSION_RESERVATIONS_MAX
        {
            self.abandon(entry);
            return Reply::with_detail(Status::Busy, BUSY_RETRY_MS);
        }
        let handle = self.reservations.insert(entry, session, terms, now);
        let mut reply = Reply::with_detail(Status::Ok, handle);
        reply.outcome.length = self.slab[entry].length;
        reply
    }

    /// The value behind a handle.
    pub(crate) fn reservation(
        &mut self,
        handle: Handle,
        session: SessionIndex,
    ) -> Option<Reserved> {
        let entry = self.reservations.find(handle, session)?.entry;
        let value = &self.slab[entry];
        Some(Reserved {
            entry,
            length: value.length,
            watermark: value.body.prefix,
            is_written: value.pins > 0,
        })
    }

    /// Notes bytes of a reservation that arrived at its watermark and lie at `range`.
    pub(crate) fn reservation_progress(
        &mut self,
        handle: Handle,
        session: SessionIndex,
        range: &PoolRange,
        now: Now,
    ) {
        let Some(reservation) = self.reservations.find(handle, session) else { return };
        reservation.checksum.update(self.pool.bytes(range.clone()));
        let watermark = self.slab[reservation.entry].body.prefix + (range.end - range.start);
        if watermark - reservation.progress_watermark >= PROGRESS_BYTES {
            reservation.progress_watermark = watermark;
            reservation.progress_ms = now.monotonic_ms;
        }
    }

    /// Publish: makes a reserved value visible, whole or not at all. A refusal
    /// that may pass (INCOMPLETE, BUSY, BAD_RANGE) leaves the reservation open.
    pub(crate) fn publish_reserved(
        &mut self,
        row: &PublishRow,
        session: SessionIndex,
        now: Now,
    ) -> Reply {
        let Some(reservation) = self.reservations.find(row.handle, session) else {
            return Reply::of(Status::Expired);
        };
        let (entry, terms) = (reservation.entry, reservation.terms);
        let found = reservation.checksum.value();
        let (reserved, watermark) = (self.slab[entry].length, self.slab[entry].body.prefix);
        if row.value_bytes > row.length {
            return Reply::of(Status::BadRow);
        }
        if row.length > VALUE_BYTES_MAX {
            return Reply::with_detail(Status::TooLarge, VALUE_BYTES_MAX);
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
        let has_crc = row.flags.has(RowFlags::CHECKSUM);
        if has_crc && found != row.crc32c {
            self.end_reservation(row.handle);
            self.abandon(entry);
            return Reply::of(Status::Corrupt);
        }
        self.slab[entry].set_checksum(has_crc.then_some(row.crc32c));
        if let Err(refusal) = self.judge_claim(entry, &terms, now) {
            if refusal.outcome.status() != Status::Busy {
                self.end_reservation(row.handle);
                self.abandon(entry);
            }
            return refusal;
        }
        self.end_reservation(row.handle);
        self.shorten_claim(entry, row.length.max(VALUE_BYTES_MIN));
        self.enter_claim(entry, &terms, now)
    }

    fn end_reservation(&mut self, handle: Handle) {
        self.reservations.remove(handle as usize % RESERVATIONS_MAX);
    }

    /// Gives up the reservations into which too little was written for long.
    pub(crate) fn expire_reservations(&mut self, now: Now) {
        let is_awaited = self.claims_are_awaited(true, now);
        self.abandon_reservations(|one, slab| {
            let value = &slab[one.entry];
            // One whose bytes are all in keeps nobody waiting.
            let hurries = is_awaited && value.body.prefix < value.expected;
            let idle_ms = if hurries { AWAITED_IDLE_MS } else { RESERVATION_IDLE_MS };
            one.progress_ms + idle_ms <= now.monotonic_ms
        });
    }

    /// Gives up the reservations of a session that has ended.
    pub(crate) fn end_reservations(&mut self, session: SessionIndex) {
        if self.reservations.of_session(session) > 0 {
            self.abandon_reservations(|one, _| one.session == session);
        }
    }

    fn abandon_reservations(&mut self, ends: impl Fn(&Reservation, &Slab) -> bool) {
        for at in 0..self.reservations.places.len() {
            let one = self.reservations.places[at].as_ref();
            if one.is_some_and(|one| ends(one, &self.slab)) {
                let reservation = self.reservations.remove(at).expect("looked at just now");
                self.abandon(reservation.entry);
            }
        }
    }
}

//! The pool in the hands of clients on this machine: who has it, and who is gone.

use std::os::fd::OwnedFd;

use rampuddle_protocol::{SessionId, Status};

use crate::store::{MAPPINGS_MAX, MappingIndex, Store};

/// Mappings of one session: a client needs one, and another while the first ends.
const OF_SESSION_MAX: usize = 4;

/// Bits of a mapping's number that are its index; the others are drawn.
const INDEX_BITS: u32 = MAPPINGS_MAX.trailing_zeros();

const _: () = assert!(MAPPINGS_MAX.is_power_of_two());

/// A reader's mapping of the pool. It lives as long as the reader's lock.
#[derive(Debug, Clone, Copy)]
struct Mapping {
    number: u64,
    session: SessionId,
}

/// All mappings, by the byte of the pool that their readers have locked.
#[derive(Debug)]
pub(crate) struct Sharing {
    mappings: Vec<Option<Mapping>>,
    live: usize,
    is_on: bool,
}

impl Sharing {
    /// Nobody is given the pool.
    pub(crate) fn off() -> Self {
        Self { mappings: Vec::new(), live: 0, is_on: false }
    }

    /// Clients on this machine are given the pool.
    pub(crate) fn on() -> Self {
        Self { mappings: vec![None; MAPPINGS_MAX], live: 0, is_on: true }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Mappings that were alive when they were looked at last.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// A mapping for a session: its number, and the descriptor to send.
    ///
    /// # Errors
    /// UNSUPPORTED when the pool is not shared, BUSY when there are too many or
    /// the system gives no descriptor now.
    pub(crate) fn open(
        &mut self,
        session: SessionId,
        store: &mut Store,
    ) -> Result<(u64, OwnedFd), Status> {
        if !self.is_on {
            return Err(Status::Unsupported);
        }
        self.forget_the_gone_of(session, store);
        if self.of_session(session).count() >= OF_SESSION_MAX {
            return Err(Status::Busy);
        }
        let drawn = getrandom::u64().map_err(|_| Status::Busy)?;
        let index = self.free_index(store).ok_or(Status::Busy)?;
        let number = (drawn | 1) << INDEX_BITS | u64::from(index);
        let descriptor = store.pool.open_for_reader(index).map_err(|_| Status::Busy)?;
        self.mappings[index as usize] = Some(Mapping { number, session });
        self.live += 1;
        Ok((number, descriptor))
    }

    /// The mapping of that number, if it is the session's.
    pub(crate) fn find(&self, number: u64, session: SessionId) -> Option<MappingIndex> {
        let index = number & (MAPPINGS_MAX as u64 - 1);
        let mapping = self.mappings.get(index as usize)?.as_ref()?;
        let is_it = (mapping.number, mapping.session) == (number, session);
        is_it.then_some(index as MappingIndex)
    }

    /// A number whose last reader has left nothing behind.
    fn free_index(&self, store: &Store) -> Option<MappingIndex> {
        let free = |index: &MappingIndex| {
            self.mappings[*index as usize].is_none()
                && store.is_unmapped(*index)
                && !store.pool.has_reader(*index)
        };
        (0..MAPPINGS_MAX as MappingIndex).find(free)
    }

    fn of_session(&self, session: SessionId) -> impl Iterator<Item = MappingIndex> + use<'_> {
        let all = self.mappings.iter().enumerate();
        let of_session = all.filter(move |(_, one)| one.is_some_and(|one| one.session == session));
        of_session.map(|(index, _)| index as MappingIndex)
    }

    /// Ends the mappings whose readers are gone. Costs a system call for each that
    /// there is.
    pub(crate) fn forget_the_gone(&mut self, store: &mut Store) {
        if self.live == 0 {
            return;
        }
        for index in 0..self.mappings.len() {
            self.forget_if_gone(index, store);
        }
    }

    fn forget_the_gone_of(&mut self, session: SessionId, store: &mut Store) {
        for index in 0..self.mappings.len() {
            if self.mappings[index].is_some_and(|mapping| mapping.session == session) {
                self.forget_if_gone(index, store);
            }
        }
    }

    fn forget_if_gone(&mut self, index: usize, store: &mut Store) {
        let reader = index as MappingIndex;
        if self.mappings[index].is_some() && !store.pool.has_reader(reader) {
            self.mappings[index] = None;
            self.live -= 1;
            store.end_mapping(reader);
        }
    }
}

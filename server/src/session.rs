//! Sessions: what a client keeps on a server over all its connections.

use std::collections::HashMap;

use rampuddle_protocol::SessionId;
use rampuddle_protocol::limits::SESSION_LINGER_MS;

use crate::store::{Now, SessionIndex, Store};

#[derive(Debug)]
struct Session {
    id: SessionId,
    connections: u32,
    /// When its last connection left.
    left_ms: u64,
}

/// The sessions of a server, bounded in number.
#[derive(Debug)]
pub(crate) struct Sessions {
    by_id: HashMap<SessionId, SessionIndex, foldhash::quality::RandomState>,
    slots: Vec<Option<Session>>,
    max: usize,
}

impl Sessions {
    pub(crate) fn new(max: usize) -> Self {
        Self { by_id: HashMap::default(), slots: Vec::new(), max }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Joins a connection to its session, which begins with it if need be. When
    /// all are taken, one that has lost its last connection is ended early;
    /// `None` when every one has connections.
    pub(crate) fn join(&mut self, id: SessionId, store: &mut Store) -> Option<SessionIndex> {
        if let Some(index) = self.by_id.get(&id).copied() {
            self.slot(index).connections += 1;
            return Some(index);
        }
        let index = match self.slots.iter().position(Option::is_none) {
            Some(free) => free,
            None if self.slots.len() < self.max => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => {
                let longest = self.lingering().min_by_key(|(_, left_ms)| *left_ms)?.0;
                self.end(longest, store);
                longest
            }
        };
        self.slots[index] = Some(Session { id, connections: 1, left_ms: 0 });
        self.by_id.insert(id, index as SessionIndex);
        Some(index as SessionIndex)
    }

    /// Parts a connection from its session, which lingers when it was the last.
    pub(crate) fn leave(&mut self, index: SessionIndex, now: Now) {
        let session = self.slot(index);
        session.connections -= 1;
        session.left_ms = now.monotonic_ms;
    }

    fn slot(&mut self, index: SessionIndex) -> &mut Session {
        let slot = self.slots[index as usize].as_mut();
        slot.expect("a session lives while it has connections")
    }

    fn lingering(&self) -> impl Iterator<Item = (usize, u64)> {
        let lingering = |(index, slot): (usize, &Option<Session>)| {
            let session = slot.as_ref().filter(|session| session.connections == 0)?;
            Some((index, session.left_ms))
        };
        self.slots.iter().enumerate().filter_map(lingering)
    }

    fn end(&mut self, index: usize, store: &mut Store) {
        if let Some(session) = self.slots[index].take() {
            self.by_id.remove(&session.id);
            store.release_all(index as SessionIndex);
            store.end_reservations(index as SessionIndex);
        }
    }

    /// Ends the sessions that lost their last connection too long ago.
    pub(crate) fn expire(&mut self, store: &mut Store, now: Now) {
        let over = |(index, left_ms): (usize, u64)| {
            (left_ms + SESSION_LINGER_MS <= now.monotonic_ms).then_some(index)
        };
        let mut next = self.lingering().find_map(over);
        while let Some(index) = next {
            self.end(index, store);
            next = self.lingering().find_map(over);
        }
    }
}

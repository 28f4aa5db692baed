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

/// The sessions of a server, bounded in number. One that keeps nothing here ends
/// with its last connection; others linger, as many as there may be connections,
/// so that a newcomer always finds room.
#[derive(Debug)]
pub(crate) struct Sessions {
    by_id: HashMap<SessionId, SessionIndex, foldhash::quality::RandomState>,
    slots: Vec<Option<Session>>,
    free: Vec<SessionIndex>,
    lingering: usize,
    connections_max: usize,
}

impl Sessions {
    /// Room for the sessions of so many connections, and for as many that linger.
    pub(crate) fn new(connections_max: usize) -> Self {
        let max = 2 * connections_max + 1;
        let (slots, free) = (Vec::with_capacity(max), Vec::with_capacity(max));
        let by_id = HashMap::with_capacity_and_hasher(max, Default::default());
        Self { by_id, slots, free, lingering: 0, connections_max }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// The id of a session that lives.
    pub(crate) fn id(&self, index: SessionIndex) -> SessionId {
        let session = self.slots[index as usize].as_ref();
        session.expect("a session lives while it has connections").id
    }

    /// Joins a connection to its session, which begins with it if need be.
    /// `None` when there are more sessions than there may be connections.
    pub(crate) fn join(&mut self, id: SessionId) -> Option<SessionIndex> {
        if let Some(index) = self.by_id.get(&id).copied() {
            let session = self.slot(index);
            session.connections += 1;
            if session.connections == 1 {
                self.lingering -= 1;
            }
            return Some(index);
        }
        if self.by_id.len() - self.lingering >= self.connections_max {
            return None;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as SessionIndex - 1
        });
        self.slots[index as usize] = Some(Session { id, connections: 1, left_ms: 0 });
        self.by_id.insert(id, index);
        Some(index)
    }

    /// Parts a connection from its session.
    pub(crate) fn leave(&mut self, index: SessionIndex, store: &mut Store, now: Now) {
        let session = self.slot(index);
        session.connections -= 1;
        session.left_ms = now.monotonic_ms;
        if session.connections > 0 {
            return;
        }
        self.lingering += 1;
        if !store.keeps_anything(index) {
            self.end(index, store);
        } else if self.lingering > self.connections_max
            && let Some(longest) = self.longest_lingering()
        {
            self.end(longest, store);
        }
    }

    fn longest_lingering(&self) -> Option<SessionIndex> {
        let lingering = self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let session = slot.as_ref().filter(|session| session.connections == 0)?;
            Some((session.left_ms, index as SessionIndex))
        });
        lingering.min().map(|(_, index)| index)
    }

    fn slot(&mut self, index: SessionIndex) -> &mut Session {
        let slot = self.slots[index as usize].as_mut();
        slot.expect("a session lives while it has connections")
    }

    /// Ends a session that lingers.
    fn end(&mut self, index: SessionIndex, store: &mut Store) {
        if let Some(session) = self.slots[index as usize].take() {
            self.by_id.remove(&session.id);
            self.lingering -= 1;
            self.free.push(index);
            store.release_all(index);
            store.end_reservations(index);
        }
    }

    /// Ends the sessions that lost their last connection too long ago.
    pub(crate) fn expire(&mut self, store: &mut Store, now: Now) {
        for index in 0..self.slots.len() {
            let is_over = self.slots[index].as_ref().is_some_and(|session| {
                let ends_ms = session.left_ms + SESSION_LINGER_MS;
                session.connections == 0 && ends_ms <= now.monotonic_ms
            });
            if is_over {
                self.end(index as SessionIndex, store);
            }
        }
    }
}

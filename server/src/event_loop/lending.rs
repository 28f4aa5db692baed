//! Sockets that the system was lent bytes over, to their end.
//!
//! A connection may be over while the system still sends what it was lent. Then its
//! socket stays, and the values stay pinned, until the system is done; when the peer
//! has stalled, or is gone, the system is made to throw away what it has not sent.

use std::time::Instant;

use super::{EventLoop, Peer};
use crate::connection::{Connection, Lent};
use crate::core::Core;

impl Peer {
    fn lent_mut(&mut self) -> Option<&mut Lent> {
        let of_connection = self.connection.as_mut().and_then(Connection::lent_mut);
        of_connection.or(self.lent.as_deref_mut())
    }

    /// Takes what the system says of bytes that it was lent. Events say it once, so all
    /// is read.
    pub(super) fn collect(&mut self, core: &mut Core) {
        let Self { socket, connection, lent, .. } = self;
        let of_connection = connection.as_mut().and_then(Connection::lent_mut);
        if let Some(one) = of_connection.or(lent.as_deref_mut()) {
            socket.each_done(|done| core.handle_done(one, done));
        }
        self.lent.take_if(|lent| !lent.is_outstanding());
    }

    /// Looks whether the peer takes what is lent. Costs nothing when nothing is.
    pub(super) fn look_after_lent(&mut self, core: &mut Core) {
        let now_ms = core.now.monotonic_ms;
        if self.lent_mut().is_some_and(|lent| lent.is_outstanding()) {
            self.collect(core);
        }
        let untaken = match self.lent_mut() {
            Some(lent) if lent.is_outstanding() => self.socket.untaken(),
            _ => 0,
        };
        let Some(lent) = self.lent_mut() else { return };
        lent.handle_untaken(untaken, now_ms);
        // A connection that is not over yet judges itself.
        if lent.has_stalled(now_ms) && self.connection.is_none() {
            self.abort(core);
        }
    }

    fn abort(&mut self, core: &mut Core) {
        self.socket.abort();
        self.is_drained = true;
        self.collect(core);
    }
}

impl EventLoop {
    /// Closes a socket whose connection is over, and which has nothing to wait for but
    /// the system: at once, if that has nothing lent.
    pub(super) fn cut(&mut self, number: usize) {
        if let Some(peer) = self.peers[number].as_mut().filter(|peer| peer.lent.is_some()) {
            peer.abort(&mut self.core);
        }
        self.end_lingering(number);
    }

    /// Closes a socket that has lingered, unless the system may still send what it was
    /// lent.
    pub(super) fn end_lingering(&mut self, number: usize) {
        let is_stopping = self.listeners.is_empty();
        let Some(peer) = self.peers[number].as_mut() else { return };
        // The process ends soon, and the system sends on after it. What is lent stays
        // pinned, so that nobody writes there until then.
        if is_stopping && Instant::now() >= peer.lingers_until {
            peer.lent = None;
        }
        if peer.lent.is_none() {
            self.forget(number);
        }
    }
}

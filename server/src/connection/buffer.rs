//! A few large buffers that all connections share: for tables that do not fit a
//! connection's own.

use std::collections::VecDeque;

use rampuddle_protocol::limits::{HEADER_BYTES_MAX, ROWS_MAX, TABLE_BYTES_MAX, TAG_BYTES_MAX};
use rampuddle_protocol::{Header, Outcome};

/// Shared buffers of a server.
pub(crate) const BUFFERS: usize = 24;
const HEAD_BYTES: usize = TABLE_BYTES_MAX as usize + HEADER_BYTES_MAX as usize;
pub(super) const ANSWER_BYTES: usize =
    Header::BYTES + ROWS_MAX as usize * (Outcome::BYTES + TAG_BYTES_MAX);
/// Memory of all shared buffers.
pub(crate) const BUFFERS_BYTES: u64 = (BUFFERS * (HEAD_BYTES + ANSWER_BYTES)) as u64;

/// Room for the largest head of a request and the largest table of an answer.
#[derive(Debug)]
pub(crate) struct Buffer {
    head: Box<[u8]>,
    pub(super) answer: Box<[u8]>,
}

impl Buffer {
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    pub(super) fn head_mut(&mut self) -> &mut [u8] {
        &mut self.head
    }

    /// Takes the head's memory out while the answer is written.
    pub(super) fn take_head(&mut self) -> Box<[u8]> {
        std::mem::take(&mut self.head)
    }

    /// Puts it back.
    pub(super) fn put_head(&mut self, head: Box<[u8]>) {
        self.head = head;
    }

    fn new() -> Self {
        Self { head: vec![0; HEAD_BYTES].into(), answer: vec![0; ANSWER_BYTES].into() }
    }
}

/// The shared buffers that are free, and who waits for one.
#[derive(Debug)]
pub(crate) struct Buffers {
    free: Vec<Buffer>,
    waiting: VecDeque<usize>,
    /// The connection that was woken last: it goes before all that wait.
    granted: Option<usize>,
}

impl Buffers {
    pub(crate) fn new() -> Self {
        let free = (0..BUFFERS).map(|_| Buffer::new()).collect();
        Self { free, waiting: VecDeque::new(), granted: None }
    }

    /// A buffer, or `None`; then the connection is woken when it is its turn.
    pub(super) fn borrow(&mut self, connection: usize) -> Option<Buffer> {
        let is_next = self.waiting.is_empty() || self.granted == Some(connection);
        let buffer = if is_next { self.free.pop() } else { None };
        if buffer.is_some() {
            self.granted = None;
        } else if !self.waiting.contains(&connection) {
            self.waiting.push_back(connection);
        }
        buffer
    }

    pub(super) fn give_back(&mut self, buffer: Buffer) {
        self.free.push(buffer);
    }

    /// The connection waits no more.
    pub(super) fn forget(&mut self, connection: usize) {
        self.waiting.retain(|waiting| *waiting != connection);
    }

    /// Whether a connection waits for a buffer.
    pub(super) fn is_wanted(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The connection that has waited longest and may try again, as long as
    /// buffers are free.
    pub(crate) fn woken(&mut self) -> Option<usize> {
        self.granted = if self.free.is_empty() { None } else { self.waiting.pop_front() };
        self.granted
    }

    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn free_count(&self) -> usize {
        self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_longest_and_is_still_there_gets_the_next_buffer() {
        let mut buffers = Buffers::new();
        let mut lent: Vec<Buffer> = (0..BUFFERS).map(|_| buffers.borrow(0).unwrap()).collect();
        for connection in [1, 2, 3, 2] {
            assert!(buffers.borrow(connection).is_none());
        }
        assert_eq!(buffers.woken(), None);
        buffers.forget(1);
        buffers.give_back(lent.pop().unwrap());
        assert!(buffers.borrow(4).is_none(), "a newcomer waits behind the others");
        assert_eq!(buffers.woken(), Some(2));
        lent.push(buffers.borrow(2).unwrap());
        assert!(buffers.borrow(2).is_none(), "one turn, one buffer");
        assert_eq!(buffers.woken(), None);
        buffers.give_back(lent.pop().unwrap());
        // The next one does not want it any more: then it is the turn of the one behind.
        assert_eq!([buffers.woken(), buffers.woken()], [Some(3), Some(4)]);
        lent.push(buffers.borrow(4).unwrap());
        buffers.forget(2);
        assert!(!buffers.is_wanted());
    }
}

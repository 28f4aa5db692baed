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
    woken: VecDeque<usize>,
}

impl Buffers {
    pub(crate) fn new() -> Self {
        let free = (0..BUFFERS).map(|_| Buffer::new()).collect();
        Self { free, waiting: VecDeque::new(), woken: VecDeque::new() }
    }

    /// A buffer, or `None`; then the connection is woken when one comes back.
    pub(super) fn borrow(&mut self, connection: usize) -> Option<Buffer> {
        let buffer = self.free.pop();
        if buffer.is_none() && !self.waiting.contains(&connection) {
            self.waiting.push_back(connection);
        }
        buffer
    }

    pub(super) fn give_back(&mut self, buffer: Buffer) {
        self.free.push(buffer);
        // One buffer, one connection: whoever waits longest.
        self.woken.extend(self.waiting.pop_front());
    }

    /// Whether a connection waits for a buffer.
    pub(super) fn is_wanted(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Connections that waited and may try again.
    pub(crate) fn woken(&mut self) -> Option<usize> {
        self.woken.pop_front()
    }

    #[cfg(test)]
    pub(super) fn free_count(&self) -> usize {
        self.free.len()
    }
}

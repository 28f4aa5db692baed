//! Bytes that were received and not understood yet.

use std::ops::Range;

/// Room for small requests and for the begin of large ones.
pub(super) const INBOX_BYTES: usize = 16 * 1024;

/// A fixed buffer, filled behind and emptied in front.
#[derive(Debug)]
pub(super) struct Inbox {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; INBOX_BYTES].into(), start: 0, end: 0 }
    }

    /// What is in it.
    #[inline]
    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Where more may be received. Moves what is in it to the front first when
    /// the room behind is small.
    pub(super) fn room(&mut self) -> Range<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.bytes.len() - self.end < INBOX_BYTES / 2 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        self.end..self.bytes.len()
    }

    /// The bytes at a range that [`Inbox::room`] gave.
    pub(super) fn bytes_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.bytes[range]
    }

    /// Notes that bytes were received behind what is in it.
    pub(super) fn received(&mut self, bytes: usize) {
        self.end += bytes;
        assert!(self.end <= self.bytes.len(), "no more is received than there was room");
    }

    /// Forgets bytes in front.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        assert!(self.start <= self.end, "no more is consumed than was received");
    }
}

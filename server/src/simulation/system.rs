//! The system's side of a socket. Bytes that it is lent it keeps for a while, is done with
//! in any order, and looks then whether they are what they were. Descriptors it passes on.

use std::io::{self, IoSlice};
use std::os::fd::{BorrowedFd, OwnedFd};

use rampuddle_protocol::Checksum;

use crate::connection::Done;
use crate::pool::{Pool, PoolRange};

/// Draws that are the same in every run.
#[derive(Debug)]
pub(super) struct Draws(u64);

impl Draws {
    pub(super) fn new() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }
}

/// One send whose bytes the system may still read.
#[derive(Debug)]
struct Send {
    number: u32,
    ranges: Vec<PoolRange>,
    crc32c: u32,
}

impl Send {
    fn checksum(ranges: &[PoolRange], pool: &Pool) -> u32 {
        let mut checksum = Checksum::new();
        ranges.iter().for_each(|range| checksum.update(pool.bytes(range.clone())));
        checksum.value()
    }
}

/// The system's side of one connection.
#[derive(Debug, Default)]
pub(super) struct System {
    next: u32,
    /// By number.
    sends: Vec<Send>,
    /// Taken in the call that is under way.
    taken: Option<Vec<PoolRange>>,
    /// What the peer was passed, and has until its connection ends.
    passed: Vec<OwnedFd>,
}

impl System {
    /// Keeps the first `bytes` of what a connection lends, which must lie in the pool
    /// at `base`.
    pub(super) fn take(&mut self, slices: &[IoSlice<'_>], mut bytes: usize, base: usize) {
        let mut ranges = Vec::new();
        for slice in slices {
            let length = slice.len().min(bytes) as u64;
            let from = (slice.as_ptr() as usize).checked_sub(base);
            let from = from.expect("only the pool's bytes are lent") as u64;
            ranges.push(from..from + length);
            bytes -= length as usize;
        }
        self.taken = Some(ranges);
    }

    /// The call is over: what the bytes are now, they must stay.
    pub(super) fn keep_taken(&mut self, pool: &Pool) {
        let Some(ranges) = self.taken.take() else { return };
        let crc32c = Send::checksum(&ranges, pool);
        self.sends.push(Send { number: self.next, ranges, crc32c });
        self.next = self.next.wrapping_add(1);
    }

    /// Passes a descriptor to the peer.
    pub(super) fn pass(&mut self, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        self.passed.push(descriptor.try_clone_to_owned()?);
        Ok(())
    }

    /// Whether it may still read what it was lent.
    pub(super) fn is_sending(&self) -> bool {
        !self.sends.is_empty()
    }

    /// Is done with some sends that follow each other, anywhere among those that there
    /// are.
    ///
    /// # Panics
    /// When their bytes are not what they were.
    pub(super) fn end_some(&mut self, draws: &mut Draws, pool: &Pool) -> Option<Done> {
        if self.sends.is_empty() {
            return None;
        }
        let from = draws.below(self.sends.len());
        let mut to = from + 1;
        let follows = |at: usize, sends: &[Send]| {
            sends.get(at).is_some_and(|send| send.number == sends[at - 1].number.wrapping_add(1))
        };
        while follows(to, &self.sends) && draws.below(3) > 0 {
            to += 1;
        }
        let (first, last) = (self.sends[from].number, self.sends[to - 1].number);
        for send in self.sends.drain(from..to) {
            let found = Send::checksum(&send.ranges, pool);
            assert_eq!(found, send.crc32c, "lent bytes changed: send {}", send.number);
        }
        Some(Done { first, last, was_copied: draws.below(4) == 0 })
    }
}

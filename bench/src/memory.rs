//! The memory that values are sent from and read into: one of each, used again
//! and again by everybody who is measured.

use std::hint::black_box;

use anyhow::{Result, ensure};
use bytes::Bytes;

/// Places that are looked at after a read, evenly spread.
const PROBES: usize = 64;

/// Where values come from and go to.
pub(crate) struct Memory {
    from: Bytes,
    into: Vec<u8>,
}

impl Memory {
    /// Memory for values of at most so many bytes, touched already.
    pub(crate) fn new(largest: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        let mut from: Vec<u8> = (0..largest.div_ceil(8)).flat_map(|_| next()).collect();
        from.truncate(largest);
        Self { from: from.into(), into: vec![1; largest] }
    }

    /// A value of so many bytes, to be sent.
    pub(crate) fn value(&self, bytes: usize) -> Bytes {
        self.from.slice(..bytes)
    }

    /// Room for a value of so many bytes.
    pub(crate) fn room(&mut self, bytes: usize) -> &mut [u8] {
        &mut self.into[..bytes]
    }

    /// Both at once, for a copy.
    pub(crate) fn both(&mut self, bytes: usize) -> (&[u8], &mut [u8]) {
        (&self.from[..bytes], &mut self.into[..bytes])
    }

    /// Spoils what the next read must write.
    pub(crate) fn spoil(&mut self, bytes: usize) {
        for at in probes(bytes) {
            self.into[at] = !self.from[at];
        }
    }

    /// Whether a read has written the value.
    pub(crate) fn check(&self, bytes: usize) -> Result<()> {
        for at in probes(bytes) {
            ensure!(self.into[at] == self.from[at], "byte {at} of {bytes} is not what was put");
        }
        Ok(())
    }
}

/// Looks at every byte of all slices.
pub(crate) fn read_all<'a>(slices: impl IntoIterator<Item = &'a [u8]>) {
    let word = |word: &[u8]| u64::from_le_bytes(word.try_into().expect("eight bytes"));
    let sum = |slice: &[u8]| {
        let words = slice.chunks_exact(8);
        let rest: u64 = words.remainder().iter().map(|&byte| u64::from(byte)).sum();
        words.map(word).fold(rest, u64::wrapping_add)
    };
    black_box(slices.into_iter().map(sum).fold(0, u64::wrapping_add));
}

fn probes(bytes: usize) -> impl Iterator<Item = usize> {
    (0..PROBES).map(move |number| number * (bytes - 1) / (PROBES - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_read_is_noticed() {
        let mut memory = Memory::new(1000);
        memory.spoil(1000);
        assert!(memory.check(1000).is_err());
        let (from, into) = memory.both(999);
        into.copy_from_slice(from);
        assert!(memory.check(1000).is_err(), "the last byte is missing");
        let (from, into) = memory.both(1000);
        into.copy_from_slice(from);
        memory.check(1000).unwrap();
    }
}

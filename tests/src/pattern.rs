//! Bytes that are known at every offset.

use crate::seed::mixed;

/// An endless sequence of bytes that belongs to a salt. Any stretch of it can be
/// computed, so that nothing has to be kept to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern(pub u64);

impl Pattern {
    /// The bytes from `offset` on.
    pub fn bytes(self, offset: u64, length: u64) -> Vec<u8> {
        let mut bytes = vec![0; length as usize];
        self.fill(offset, &mut bytes);
        bytes
    }

    /// Fills `out` with the bytes from `offset` on.
    pub fn fill(self, offset: u64, out: &mut [u8]) {
        let (mut word, mut within) = (offset / 8, (offset % 8) as usize);
        let mut rest = out;
        while !rest.is_empty() {
            let bytes = mixed(self.0 ^ mixed(word + 1)).to_le_bytes();
            let piece = &bytes[within..];
            let now = piece.len().min(rest.len());
            let (head, tail) = rest.split_at_mut(now);
            head.copy_from_slice(&piece[..now]);
            (word, within, rest) = (word + 1, 0, tail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_is_the_same_wherever_it_is_computed_from() {
        let whole = Pattern(7).bytes(0, 100);
        for at in 0..100 {
            assert_eq!(Pattern(7).bytes(at, 100 - at), whole[at as usize..]);
        }
        assert_ne!(Pattern(8).bytes(0, 100), whole);
    }
}

//! CRC32C (Castagnoli), the one checksum on the wire and in stored formats.

use std::fmt;

use crc_fast::{CrcAlgorithm, Digest};

/// The CRC32C of `bytes`.
#[inline]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// The CRC32C of two stretches one behind the other, from the CRC32C of each and
/// the length of the second.
pub fn crc32c_combine(first: u32, second: u32, second_bytes: u64) -> u32 {
    let algorithm = CrcAlgorithm::Crc32Iscsi;
    crc_fast::checksum_combine(algorithm, first.into(), second.into(), second_bytes) as u32
}

/// A CRC32C that is fed piece by piece.
pub struct Checksum(Digest);

impl Checksum {
    /// The checksum of no bytes.
    pub fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    /// Appends `bytes`.
    #[inline]
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Appends `bytes` of zero, without having them.
    pub fn update_zeros(&mut self, mut bytes: u64) {
        const ZEROS: [u8; 4096] = [0; 4096];
        while bytes > 0 {
            let now = bytes.min(ZEROS.len() as u64);
            self.update(&ZEROS[..now as usize]);
            bytes -= now;
        }
    }

    /// The checksum of all bytes so far.
    pub fn value(&self) -> u32 {
        self.0.finalize() as u32
    }
}

impl Default for Checksum {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Checksum({:#010x})", self.value())
    }
}

/// Compares the library's accelerated paths with known answers and with a
/// bitwise computation, at every length up to a few hundred bytes. Called once
/// at start: a processor on which it fails must not store data.
pub fn self_test() -> Result<(), &'static str> {
    let known = crc32c(b"123456789") == 0xe306_9283 && crc32c(&[0; 32]) == 0x8a91_36aa;
    if !known {
        return Err("crc32c gives wrong answers on this processor");
    }
    let mut bytes = [0; 777];
    let mut state = 1_u32;
    for byte in &mut bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    for end in 0..bytes.len() {
        let mut pieces = Checksum::new();
        pieces.update(&bytes[..end / 3]);
        pieces.update(&bytes[end / 3..end]);
        let slow = bitwise(&bytes[..end]);
        if crc32c(&bytes[..end]) != slow || pieces.value() != slow {
            return Err("crc32c disagrees with its bitwise definition on this processor");
        }
    }
    Ok(())
}

fn bitwise(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_passes_its_own_test() {
        self_test().unwrap();
    }

    #[test]
    fn combined_checksums_are_those_of_the_whole() {
        let whole: Vec<u8> = (0..70_000_u32).map(|index| (index * 7) as u8).collect();
        for at in [0, 1, 32, 65_536, 70_000] {
            let (first, second) = whole.split_at(at);
            let combined = crc32c_combine(crc32c(first), crc32c(second), second.len() as u64);
            assert_eq!(combined, crc32c(&whole));
        }
    }

    #[test]
    fn zeros_count_as_bytes() {
        let mut zeros = Checksum::new();
        zeros.update(b"a");
        zeros.update_zeros(10_000);
        let mut bytes = vec![0; 10_001];
        bytes[0] = b'a';
        assert_eq!(zeros.value(), crc32c(&bytes));
    }
}

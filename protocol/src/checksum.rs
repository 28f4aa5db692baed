//! CRC32C (Castagnoli), the one checksum on the wire and in stored formats.

use std::fmt;

use crc_fast::{CrcAlgorithm, Digest};

/// The CRC32C of `bytes`.
#[inline]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// The CRC32C of two stretches one behind the other, from the CRC32C of each and
/// the length of the second. Costs some 20 ns for each bit that is set in that
/// length: the first is multiplied by x to the number of bits that follow it, modulo
/// the polynomial, by way of powers that are known; as Mark Adler does it in zlib's
/// `crc32_combine`.
pub fn crc32c_combine(first: u32, second: u32, second_bytes: u64) -> u32 {
    let mut shifted = first;
    let mut left = second_bytes;
    // x^(8n) = x^(n * 2^3), and x^(2^k) repeats with k modulo 31: the polynomial's
    // order divides 2^31 - 1.
    let mut power = 3;
    while left > 0 {
        if left & 1 == 1 {
            shifted = multiply(POWERS[power % 31], shifted);
        }
        (left, power) = (left >> 1, power + 1);
    }
    shifted ^ second
}

/// The polynomial of CRC32C, lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// x^(2^k) modulo the polynomial.
const POWERS: [u32; 31] = {
    let mut powers = [0; 31];
    let mut power = 1 << 30;
    let mut index = 0;
    while index < powers.len() {
        powers[index] = power;
        power = multiply(power, power);
        index += 1;
    }
    powers
};

/// The product of two polynomials modulo that of CRC32C.
const fn multiply(one: u32, mut other: u32) -> u32 {
    let (mut product, mut bit) = (0, 1 << 31);
    while bit != 0 {
        // All ones or zeros, so that nothing is guessed by the processor.
        product ^= other & 0_u32.wrapping_sub((one & bit != 0) as u32);
        other = (other >> 1) ^ (POLYNOMIAL & 0_u32.wrapping_sub(other & 1));
        bit >>= 1;
    }
    product
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
    fn checksums_combine_over_lengths_that_no_test_can_hold() {
        let algorithm = CrcAlgorithm::Crc32Iscsi;
        for bits in 0..64 {
            for length in [1_u64 << bits, (1 << bits) - 1, 0xA5A5_A5A5_A5A5_A5A5 >> bits] {
                let (first, second) = (0x1234_5678_u32.rotate_left(bits), 0x9ABC_DEF0);
                let expected =
                    crc_fast::checksum_combine(algorithm, first.into(), second.into(), length);
                assert_eq!(u64::from(crc32c_combine(first, second, length)), expected, "{length}");
            }
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

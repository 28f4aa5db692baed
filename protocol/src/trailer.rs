//! What stands behind the bytes of a value whose row has TRAILER: its checksum and
//! its tag, which a sender may know only when it has sent them.

use crate::{Checksum, Field};

/// Checksum and tag of a value, behind its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer<'t> {
    /// CRC32C of the value's bytes as given.
    pub crc32c: u32,
    /// The value's tag. That of the table has its length, and is not looked at.
    pub tag: &'t [u8],
}

impl<'t> Trailer<'t> {
    /// Length without the tag: the checksum of the value, and that of the trailer.
    pub const BYTES: usize = 8;

    /// Appends the trailer.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + Self::BYTES, 0);
        self.crc32c.put(&mut out[start..]);
        own(self.crc32c, self.tag).put(&mut out[start + 4..]);
        out.extend_from_slice(self.tag);
    }

    /// Reads a trailer, whose tag is all that follows its fixed part. `None` when it
    /// arrived damaged.
    ///
    /// # Panics
    /// When `bytes` is shorter than [`Trailer::BYTES`].
    pub fn decode(bytes: &'t [u8]) -> Option<Self> {
        let (fixed, tag) = bytes.split_at(Self::BYTES);
        let (crc32c, stated) = (u32::take(fixed), u32::take(&fixed[4..]));
        (own(crc32c, tag) == stated).then_some(Self { crc32c, tag })
    }
}

/// The checksum of a trailer: of the value's checksum, as it is sent, and of the tag.
fn own(crc32c: u32, tag: &[u8]) -> u32 {
    let mut checksum = Checksum::new();
    checksum.update(&crc32c.to_le_bytes());
    checksum.update(tag);
    checksum.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_of_a_trailer_is_seen() {
        for tag in [&b""[..], b"tag", &[7; 64]] {
            let mut bytes = Vec::new();
            Trailer { crc32c: 0x1234_5678, tag }.encode(&mut bytes);
            assert_eq!(bytes.len(), Trailer::BYTES + tag.len());
            assert_eq!(Trailer::decode(&bytes), Some(Trailer { crc32c: 0x1234_5678, tag }));
            for bit in 0..bytes.len() * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Trailer::decode(&bytes), None, "bit {bit}");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}

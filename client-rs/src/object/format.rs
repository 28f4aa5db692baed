//! How an object lies in values: keys, the head's tag, seeds of checksums.
//! `docs/object-format.md` has the tables.

use bytes::Bytes;
use rampuddle_protocol::limits::{KIB, MIB, TAG_BYTES_MAX, VALUE_BYTES_MAX};
use rampuddle_protocol::{Checksum, Field, SetId, Version, crc32c, crc32c_combine};

use super::codec::Codec;
use super::variable::BlockEntry;

/// First byte of the key of a head.
pub(crate) const HEAD_KIND: u8 = 0xF8;
/// First byte of the key of a stripe.
pub(crate) const STRIPE_KIND: u8 = 0xF9;
/// What a checksum covers.
pub(crate) const BLOCK_BYTES: u64 = MIB;
/// Objects up to this lie in their head.
pub(crate) const INLINE_BYTES_MAX: u64 = MIB;
/// The version of the format that this library writes.
const FORMAT: u8 = 1;
/// The bytes lie in the head.
const INLINE: u8 = 1;
/// The object ends at a moment that stands in its sections.
const ENDS: u8 = 1 << 1;

// An inline object is one block.
const _: () = assert!(INLINE_BYTES_MAX <= BLOCK_BYTES);
const _: () = assert!(Tag::BYTES == TAG_BYTES_MAX);
const _: () = assert!(BLOCK_BYTES > 64 * KIB);

/// The longest object with so many bytes of sections: its block table and they
/// just fit a value.
pub(crate) fn object_bytes_max(sections_bytes: u64) -> u64 {
    let table = VALUE_BYTES_MAX.saturating_sub(sections_bytes);
    table / BlockEntry::BYTES as u64 * BLOCK_BYTES
}

/// The key of an object's head.
pub(crate) fn head_key(name: &[u8]) -> Bytes {
    let mut key = Vec::with_capacity(1 + name.len());
    key.push(HEAD_KIND);
    key.extend_from_slice(name);
    key.into()
}

/// The key of a stripe: the index is big-endian, so that stripes list in order.
pub(crate) fn stripe_key(upload: SetId, stripe: u64) -> Bytes {
    let mut key = Vec::with_capacity(25);
    key.push(STRIPE_KIND);
    key.extend_from_slice(&upload.0);
    key.extend_from_slice(&stripe.to_be_bytes());
    key.into()
}

/// The version of every stripe of an upload. Its key is the upload's alone, so
/// any fixed version does; it is never drawn by a clock.
pub(crate) fn stripe_version(upload: SetId) -> Version {
    Version { time: 1, writer: u64::take(&upload.0) }
}

/// The fixed part of a head: the tag of its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag {
    /// Copies wanted, as the writer said; 255 = on every member.
    pub(crate) replicas: u8,
    /// How blocks are stored that are not stored as they are.
    pub(crate) codec: Codec,
    /// 0, or the length of every stripe but the last.
    pub(crate) stripe_bytes: u32,
    pub(crate) object_bytes: u64,
    pub(crate) upload: SetId,
    pub(crate) version: Version,
    /// Length of the variable part behind the data, 0 = none: an object of one
    /// block of which nothing is to be said.
    pub(crate) variable_bytes: u32,
    /// Checksum of the variable part, or without one that of the only block.
    pub(crate) crc32c: u32,
    /// With a codec: the length of an inline object as it is stored. Else 0.
    pub(crate) inline_stored_bytes: u32,
    /// The object ends; when, its sections say.
    pub(crate) ends: bool,
}

impl Tag {
    pub(crate) const BYTES: usize = 64;
    const CRC_OFFSET: usize = Self::BYTES - 4;

    /// Whether the object's bytes lie in the head.
    pub(crate) fn is_inline(&self) -> bool {
        self.stripe_bytes == 0
    }

    /// Number of stripes.
    pub(crate) fn stripes(&self) -> u64 {
        match self.stripe_bytes {
            0 => 0,
            bytes => self.object_bytes.div_ceil(bytes.into()),
        }
    }

    /// Number of blocks.
    pub(crate) fn blocks(&self) -> u64 {
        self.object_bytes.div_ceil(BLOCK_BYTES)
    }

    /// Bytes that the head's value was given: inline bytes, variable part.
    pub(crate) fn head_bytes(&self) -> u64 {
        self.inline_bytes() + u64::from(self.variable_bytes)
    }

    /// Bytes of the object that lie in the head, before the variable part.
    pub(crate) fn inline_bytes(&self) -> u64 {
        match self.codec {
            _ if !self.is_inline() => 0,
            Codec::None => self.object_bytes,
            _ => self.inline_stored_bytes.into(),
        }
    }

    /// How many of the bytes of a head with this tag, which is not checked yet, are
    /// the object's own as it is: those of an inline object without a codec.
    pub(crate) fn plain_inline_bytes(tag: &[u8]) -> u64 {
        let is_plain = tag.len() == Self::BYTES
            && Codec::from_number(tag[2]) == Some(Codec::None)
            && u32::take(&tag[4..]) == 0;
        if is_plain { u64::take(&tag[8..]) } else { 0 }
    }

    /// Whether the head describes its blocks: a plain object of one block without
    /// anything else to say needs no more than the tag.
    pub(crate) fn has_table(&self) -> bool {
        !self.is_inline() || self.variable_bytes > 0 || self.codec != Codec::None
    }

    /// Bytes of the block table, when there is a variable part.
    pub(crate) fn table_bytes(&self) -> u64 {
        self.blocks().saturating_mul(BlockEntry::BYTES as u64)
    }

    /// Whether something follows the block table.
    pub(crate) fn has_sections(&self) -> bool {
        self.has_table() && u64::from(self.variable_bytes) > self.table_bytes()
    }

    /// Its bytes; the last field is a checksum over the head's key and them.
    pub(crate) fn encode(&self, key: &[u8]) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let inline = if self.is_inline() { INLINE } else { 0 };
        let flags = inline | if self.ends { ENDS } else { 0 };
        bytes[..4].copy_from_slice(&[FORMAT, self.replicas, self.codec.number(), flags]);
        self.stripe_bytes.put(&mut bytes[4..]);
        self.object_bytes.put(&mut bytes[8..]);
        self.upload.put(&mut bytes[16..]);
        self.version.put(&mut bytes[32..]);
        self.variable_bytes.put(&mut bytes[48..]);
        self.crc32c.put(&mut bytes[52..]);
        self.inline_stored_bytes.put(&mut bytes[56..]);
        let crc = Self::checksum(key, &bytes);
        crc.put(&mut bytes[Self::CRC_OFFSET..]);
        bytes
    }

    fn checksum(key: &[u8], bytes: &[u8; Self::BYTES]) -> u32 {
        let mut checksum = Checksum::new();
        checksum.update(key);
        checksum.update(&bytes[..Self::CRC_OFFSET]);
        checksum.value()
    }

    /// Reads a tag; says what is wrong with it.
    pub(crate) fn decode(key: &[u8], tag: &[u8]) -> Result<Self, &'static str> {
        let bytes: &[u8; Self::BYTES] =
            tag.try_into().map_err(|_| "its tag does not have 64 bytes")?;
        if u32::take(&bytes[Self::CRC_OFFSET..]) != Self::checksum(key, bytes) {
            return Err("its tag does not have its checksum");
        }
        let codec = Codec::from_number(bytes[2]).filter(|_| bytes[0] == FORMAT);
        let codec = codec.ok_or("it is of a format or codec that this client does not know")?;
        let inline_stored = if codec == Codec::None { 0 } else { u32::take(&bytes[56..]) };
        let tag = Self {
            replicas: bytes[1],
            codec,
            stripe_bytes: u32::take(&bytes[4..]),
            object_bytes: u64::take(&bytes[8..]),
            upload: SetId::take(&bytes[16..]),
            version: Version::take(&bytes[32..]),
            variable_bytes: u32::take(&bytes[48..]),
            crc32c: u32::take(&bytes[52..]),
            inline_stored_bytes: inline_stored,
            ends: bytes[3] & ENDS != 0,
        };
        tag.check().map(|()| tag)
    }

    fn check(&self) -> Result<(), &'static str> {
        let is_whole_blocks = u64::from(self.stripe_bytes).is_multiple_of(BLOCK_BYTES);
        let is_too_long =
            self.object_bytes > INLINE_BYTES_MAX || self.inline_bytes() > self.object_bytes;
        if self.is_inline() && is_too_long || !is_whole_blocks {
            return Err("its lengths contradict each other");
        }
        if u64::from(self.variable_bytes) > VALUE_BYTES_MAX {
            return Err("its variable part is longer than a value may be");
        }
        if self.has_table() && self.table_bytes() > self.variable_bytes.into() {
            return Err("its block table is too short");
        }
        Ok(())
    }
}

/// Where a block belongs; its checksum begins with it, so that a block in the
/// wrong place, or of another object, is seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seed([u8; 32]);

impl Seed {
    /// The `block`th block of a stripe.
    pub(crate) fn new(upload: SetId, stripe: u64, block: u64) -> Self {
        let mut seed = [0; 32];
        upload.put(&mut seed);
        stripe.put(&mut seed[16..]);
        block.put(&mut seed[24..]);
        Self(seed)
    }

    /// The seeded checksum of bytes with this plain one.
    pub(crate) fn apply(&self, crc: u32, bytes: u64) -> u32 {
        crc32c_combine(crc32c(&self.0), crc, bytes)
    }

    /// A checksum that has the seed in it already.
    pub(crate) fn begin(&self) -> Checksum {
        let mut checksum = Checksum::new();
        checksum.update(&self.0);
        checksum
    }
}

/// A tag of an object of stripes of 4 MiB, in one copy, for tests.
#[cfg(test)]
pub(super) fn plain_tag(object_bytes: u64) -> Tag {
    Tag {
        replicas: 1,
        codec: Codec::None,
        stripe_bytes: 4 << 20,
        object_bytes,
        upload: SetId([1; 16]),
        version: Version { time: 1, writer: 1 },
        variable_bytes: 0,
        crc32c: 0,
        inline_stored_bytes: 0,
        ends: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag() -> Tag {
        Tag {
            replicas: 2,
            codec: Codec::None,
            stripe_bytes: 4 << 20,
            object_bytes: (9 << 20) + 5,
            upload: SetId([7; 16]),
            version: Version { time: 3, writer: 4 },
            variable_bytes: 80,
            crc32c: 9,
            inline_stored_bytes: 0,
            ends: true,
        }
    }

    #[test]
    fn a_tag_reads_back_under_its_own_key_only() {
        let bytes = tag().encode(b"key");
        assert_eq!(Tag::decode(b"key", &bytes), Ok(tag()));
        assert!(Tag::decode(b"kez", &bytes).is_err());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Tag::decode(b"key", &damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn stripes_and_blocks_are_counted_up() {
        assert_eq!((tag().stripes(), tag().blocks()), (3, 10));
    }

    #[test]
    fn a_seeded_checksum_is_that_of_seed_and_bytes() {
        let seed = Seed::new(SetId([1; 16]), 2, 3);
        let mut checksum = seed.begin();
        checksum.update(b"block");
        assert_eq!(checksum.value(), seed.apply(crc32c(b"block"), 5));
        let elsewhere = Seed::new(SetId([1; 16]), 2, 4);
        assert_ne!(checksum.value(), elsewhere.apply(crc32c(b"block"), 5));
    }
}

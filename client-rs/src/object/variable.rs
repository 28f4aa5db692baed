//! The variable part of a head: the block table, then sections.

use rampuddle_protocol::{Field, crc32c};

use super::codec::Codec;
use super::format::{BLOCK_BYTES, Seed, Tag};
use super::sections::Sections;

/// A block's stored length, when it is stored as it is.
const PLAIN: u32 = 1 << 31;

/// What a variable part says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Variable {
    /// One entry per block, in the object's order.
    pub(crate) table: Vec<BlockEntry>,
    pub(crate) sections: Sections,
}

impl Variable {
    /// The bytes of these entries, and of these sections behind them.
    pub(crate) fn encode(table: &[BlockEntry], sections: &[u8]) -> Vec<u8> {
        let length = table.len() * BlockEntry::BYTES + sections.len();
        let mut bytes = Vec::with_capacity(length);
        table.iter().for_each(|entry| entry.encode(&mut bytes));
        bytes.extend_from_slice(sections);
        bytes
    }

    /// Reads the variable part of the head with this tag; says what is wrong
    /// with it.
    pub(crate) fn decode(tag: &Tag, bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.len() as u64 != u64::from(tag.variable_bytes) || crc32c(bytes) != tag.crc32c {
            return Err("its variable part does not have its checksum");
        }
        let table = usize::try_from(tag.table_bytes()).ok();
        let table = table.and_then(|length| bytes.split_at_checked(length));
        let (table, sections) = table.ok_or("its block table is too short")?;
        Ok(Self { table: decode_table(tag, table)?, sections: Sections::decode(sections)? })
    }
}

fn decode_table(tag: &Tag, table: &[u8]) -> Result<Vec<BlockEntry>, &'static str> {
    let entries: Vec<BlockEntry> =
        table.chunks_exact(BlockEntry::BYTES).map(BlockEntry::decode).collect();
    if tag.codec == Codec::None && !entries.iter().all(|entry| entry.is_plain) {
        return Err("it has compressed blocks, and no codec");
    }
    let length = |index: u64| (tag.object_bytes - index * BLOCK_BYTES).min(BLOCK_BYTES);
    let fits = |(index, entry): (usize, &BlockEntry)| entry.fits(length(index as u64));
    let stored = entries.iter().map(|entry| u64::from(entry.stored_bytes));
    let fits_inline = !tag.is_inline() || stored.sum::<u64>() == tag.inline_bytes();
    if !fits_inline || !entries.iter().enumerate().all(fits) {
        return Err("its block table does not fit its length");
    }
    Ok(entries)
}

/// What the block table says of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockEntry {
    /// Length as stored.
    pub(crate) stored_bytes: u32,
    /// Whether it is stored as it is.
    pub(crate) is_plain: bool,
    /// Checksum of the stored bytes, seeded with their place.
    pub(crate) crc32c: u32,
}

impl BlockEntry {
    pub(crate) const BYTES: usize = 8;

    /// The entry of a block that is stored as it is.
    pub(crate) fn plain(seed: &Seed, bytes: u64, crc: u32) -> Self {
        Self { stored_bytes: bytes as u32, is_plain: true, crc32c: seed.apply(crc, bytes) }
    }

    /// The entry of a block of which a shorter form is stored: these are its
    /// length and plain checksum.
    pub(crate) fn compressed(seed: &Seed, bytes: u64, crc: u32) -> Self {
        Self { is_plain: false, ..Self::plain(seed, bytes, crc) }
    }

    /// Whether it can be that of a block of so many bytes.
    fn fits(&self, bytes: u64) -> bool {
        let stored = u64::from(self.stored_bytes);
        if self.is_plain { stored == bytes } else { (1..bytes).contains(&stored) }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let form = if self.is_plain { PLAIN } else { 0 };
        out.extend_from_slice(&(self.stored_bytes | form).to_le_bytes());
        out.extend_from_slice(&self.crc32c.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Self {
        let stored = u32::take(bytes);
        let (stored_bytes, is_plain) = (stored & !PLAIN, stored & PLAIN != 0);
        Self { stored_bytes, is_plain, crc32c: u32::take(&bytes[4..]) }
    }
}

#[cfg(test)]
mod tests {
    use rampuddle_protocol::{SetId, Version};

    use super::*;

    fn tag(variable: &[u8]) -> Tag {
        Tag {
            replicas: 2,
            codec: Codec::None,
            stripe_bytes: 4 << 20,
            object_bytes: (9 << 20) + 5,
            upload: SetId([7; 16]),
            version: Version { time: 3, writer: 4 },
            variable_bytes: variable.len() as u32,
            crc32c: crc32c(variable),
            inline_stored_bytes: 0,
            ends: false,
        }
    }

    fn entries() -> Vec<BlockEntry> {
        let stored = |index| if index < 9 { 1 << 20 } else { 5 };
        let entry =
            |index| BlockEntry { stored_bytes: stored(index), is_plain: true, crc32c: index };
        (0..10).map(entry).collect()
    }

    #[test]
    fn a_block_table_that_does_not_fit_the_object_is_refused() {
        let bytes = Variable::encode(&entries(), b"");
        let good = tag(&bytes);
        assert_eq!(Variable::decode(&good, &bytes).unwrap().table, entries());
        let wrong = Tag { crc32c: 9, ..good };
        assert!(Variable::decode(&wrong, &bytes).is_err(), "wrong checksum");
        for object_bytes in [good.object_bytes + 1, 1 << 40, u64::MAX] {
            let longer = Tag { object_bytes, ..good };
            assert!(Variable::decode(&longer, &bytes).is_err(), "wrong length");
        }
    }

    #[test]
    fn compressed_blocks_are_shorter_than_the_block_and_need_a_codec() {
        let with = |index: usize, stored_bytes| {
            let mut entries = entries();
            entries[index] = BlockEntry { stored_bytes, is_plain: false, crc32c: 7 };
            entries
        };
        let read = |codec, entries: &[BlockEntry]| {
            let bytes = Variable::encode(entries, b"");
            Variable::decode(&Tag { codec, ..tag(&bytes) }, &bytes).map(|read| read.table)
        };
        for (index, stored_bytes) in [(0, 1), (0, (1 << 20) - 1), (9, 1), (9, 4)] {
            let entries = with(index, stored_bytes);
            assert_eq!(read(Codec::Lz4, &entries).as_ref(), Ok(&entries));
            assert!(read(Codec::None, &entries).unwrap_err().contains("no codec"));
        }
        for (index, stored_bytes) in [(0, 0), (0, 1 << 20), (0, u32::MAX >> 1), (9, 0), (9, 5)] {
            let refused = read(Codec::Zstd, &with(index, stored_bytes));
            assert!(refused.unwrap_err().contains("does not fit"), "{index} {stored_bytes}");
        }
    }

    #[test]
    fn sections_lie_behind_the_block_table() {
        let sections = Sections { expires_ms: Some(5), ..Sections::default() };
        let bytes = Variable::encode(&entries(), &sections.encode());
        assert!(tag(&bytes).has_sections());
        let read = Variable::decode(&tag(&bytes), &bytes).unwrap();
        assert_eq!(read, Variable { table: entries(), sections });
        let cut = &bytes[..bytes.len() - 1];
        assert!(Variable::decode(&tag(cut), cut).unwrap_err().contains("sections"));
    }
}

//! The decoder of heads and of compressed blocks for fuzzers.

use bytes::Bytes;
use rampuddle_protocol::{Field, SetId};

use super::codec::{Codec, pack, unpack};
use super::format::Tag;
use super::variable::{BlockEntry, Variable};

/// What a head says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Length of the object.
    pub object_bytes: u64,
    /// Length of every stripe but the last; 0 = the bytes lie in the head.
    pub stripe_bytes: u64,
    /// Number of stripes.
    pub stripes: u64,
    /// Number of blocks.
    pub blocks: u64,
    /// Bytes of the object that lie in the head.
    pub inline_bytes: u64,
    /// How blocks are stored that are not plain.
    pub codec: Codec,
    /// The tag, written again.
    pub tag: Vec<u8>,
    /// What the variable part says; `None` when the object has none.
    pub variable: Option<VariablePart>,
}

/// What a variable part says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariablePart {
    /// The block table.
    pub blocks: Vec<Block>,
    /// Names and values of the user's metadata.
    pub metadata: Vec<(String, Bytes)>,
    /// The table, written again.
    pub table: Vec<u8>,
    /// The sections that are known, written again.
    pub sections: Vec<u8>,
}

/// What the block table says of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Length as stored.
    pub stored_bytes: u32,
    /// Whether it is stored as it is.
    pub is_plain: bool,
    /// Checksum of the stored bytes.
    pub crc32c: u32,
}

impl From<BlockEntry> for Block {
    fn from(entry: BlockEntry) -> Self {
        let BlockEntry { stored_bytes, is_plain, crc32c } = entry;
        Self { stored_bytes, is_plain, crc32c }
    }
}

impl From<Block> for BlockEntry {
    fn from(block: Block) -> Self {
        let Block { stored_bytes, is_plain, crc32c } = block;
        Self { stored_bytes, is_plain, crc32c }
    }
}

/// Reads the tag of the head under `key`, and its variable part if it has one.
///
/// # Errors
/// What is wrong with it.
pub fn read_head(key: &[u8], tag: &[u8], variable: &[u8]) -> Result<Head, &'static str> {
    let tag = Tag::decode(key, tag)?;
    let variable = tag.has_table().then(|| Variable::decode(&tag, variable)).transpose()?;
    let variable = variable.map(|variable| VariablePart {
        table: Variable::encode(&variable.table, b""),
        sections: variable.sections.encode(),
        blocks: variable.table.into_iter().map(Block::from).collect(),
        metadata: variable.sections.metadata.into_iter().collect(),
    });
    Ok(Head {
        object_bytes: tag.object_bytes,
        stripe_bytes: tag.stripe_bytes.into(),
        stripes: tag.stripes(),
        blocks: tag.blocks(),
        inline_bytes: tag.inline_bytes(),
        codec: tag.codec,
        tag: tag.encode(key).to_vec(),
        variable,
    })
}

/// The blocks of an inline object, or of a first stripe, as they are stored, and
/// the bytes of their table.
pub fn packed(codec: Codec, upload: [u8; 16], bytes: Vec<u8>) -> (Bytes, Vec<u8>) {
    let packed = pack(codec, SetId::take(&upload), 0, bytes.into());
    let table = Variable::encode(&packed.entries, b"");
    (packed.bytes, table)
}

/// Brings stored blocks into their own form again: `length` bytes in all.
///
/// # Errors
/// The number of the first block that does not become what it must.
pub fn unpacked(
    codec: Codec,
    blocks: &[Block],
    stored: &[u8],
    length: u64,
) -> Result<Vec<u8>, usize> {
    let entries: Vec<BlockEntry> = blocks.iter().map(|block| (*block).into()).collect();
    unpack(codec, &entries, stored, length)
}

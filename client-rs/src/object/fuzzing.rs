//! The decoder of heads for fuzzers.

use super::format::{Tag, decode_table, encode_table};

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
    /// The tag, written again.
    pub tag: Vec<u8>,
    /// What the variable part says; `None` when the object has none.
    pub table: Option<Table>,
}

/// What a block table says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Length as stored and checksum of each block.
    pub blocks: Vec<(u64, u32)>,
    /// The table, written again.
    pub bytes: Vec<u8>,
}

/// Reads the tag of the head under `key`, and its variable part if it has one.
///
/// # Errors
/// What is wrong with it.
pub fn read_head(key: &[u8], tag: &[u8], variable: &[u8]) -> Result<Head, &'static str> {
    let tag = Tag::decode(key, tag)?;
    let table = match tag.variable_bytes {
        0 => None,
        _ => {
            let entries = decode_table(&tag, variable)?;
            let block =
                |entry: &super::format::BlockEntry| (u64::from(entry.stored_bytes), entry.crc32c);
            let bytes = encode_table(&entries);
            Some(Table { blocks: entries.iter().map(block).collect(), bytes })
        }
    };
    Ok(Head {
        object_bytes: tag.object_bytes,
        stripe_bytes: tag.stripe_bytes.into(),
        stripes: tag.stripes(),
        blocks: tag.blocks(),
        tag: tag.encode(key).to_vec(),
        table,
    })
}

//! Codecs: blocks as they are, and as they are stored.

use std::fmt;

use bytes::Bytes;
use rampuddle_protocol::{SetId, crc32c, crc32c_combine};

use super::format::{BLOCK_BYTES, Seed};
use super::variable::BlockEntry;

/// A block is stored as it is unless a codec saves one part in so many.
const SAVES_ONE_IN: usize = 16;
/// How hard zstd tries: its own default.
const ZSTD_LEVEL: i32 = 3;

/// How the blocks of an object are stored. Each block of 1 MiB is compressed by
/// itself, so that ranges cost no more than their blocks; one that does not
/// become at least a sixteenth shorter is stored as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum Codec {
    /// As they are.
    #[default]
    None,
    /// LZ4 blocks: little work for both sides.
    Lz4,
    /// Zstandard frames of level 3: shorter, and more work for the writer.
    Zstd,
}

impl Codec {
    const ALL: [Self; 3] = [Self::None, Self::Lz4, Self::Zstd];

    /// Its number in a tag.
    pub(super) fn number(self) -> u8 {
        self as u8
    }

    /// The codec of a number in a tag.
    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

/// The blocks of a stripe, or of an inline object, as they are stored.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    /// One behind the other.
    pub(super) bytes: Bytes,
    /// Their part of the block table.
    pub(super) entries: Vec<BlockEntry>,
    /// The checksum of `bytes`, without a seed.
    pub(super) crc32c: u32,
    /// The same of the bytes as they are without a codec.
    pub(super) plain_crc32c: u32,
}

impl Packed {
    pub(super) fn is_compressed(&self) -> bool {
        self.entries.iter().any(|entry| !entry.is_plain)
    }
}

/// Compresses the blocks of a stripe. What does not pay is not copied either.
pub(super) fn pack(codec: Codec, upload: SetId, stripe: u64, bytes: Bytes) -> Packed {
    let mut compressor = Compressor::new(codec);
    let (mut entries, mut stored) = (Vec::new(), None::<Vec<u8>>);
    let (mut crc, mut plain_crc) = (0, 0);
    for (index, block) in bytes.chunks(BLOCK_BYTES as usize).enumerate() {
        let seed = Seed::new(upload, stripe, index as u64);
        let plain = crc32c(block);
        plain_crc = crc32c_combine(plain_crc, plain, block.len() as u64);
        let entry = match compressor.compress(block) {
            None => {
                stored.iter_mut().for_each(|stored| stored.extend_from_slice(block));
                crc = crc32c_combine(crc, plain, block.len() as u64);
                BlockEntry::plain(&seed, block.len() as u64, plain)
            }
            Some(compressed) => {
                let before = || bytes[..index * BLOCK_BYTES as usize].to_vec();
                stored.get_or_insert_with(before).extend_from_slice(compressed);
                let (length, short) = (compressed.len() as u64, crc32c(compressed));
                crc = crc32c_combine(crc, short, length);
                BlockEntry::compressed(&seed, length, short)
            }
        };
        entries.push(entry);
    }
    let bytes = stored.map_or(bytes, Bytes::from);
    Packed { bytes, entries, crc32c: crc, plain_crc32c: plain_crc }
}

/// Brings stored blocks into their own form again: `length` bytes in all, each
/// block but the last of 1 MiB.
///
/// # Errors
/// The number of the first block that does not become what it must.
pub(super) fn unpack(
    codec: Codec,
    entries: &[BlockEntry],
    mut stored: &[u8],
    length: u64,
) -> Result<Vec<u8>, usize> {
    let mut out = vec![0; length as usize];
    let mut blocks = out.chunks_mut(BLOCK_BYTES as usize);
    for (index, entry) in entries.iter().enumerate() {
        let split = stored.split_at_checked(entry.stored_bytes as usize);
        let (now, rest) = split.ok_or(index)?;
        let block = blocks.next().ok_or(index)?;
        match entry.is_plain {
            true if now.len() == block.len() => block.copy_from_slice(now),
            true => return Err(index),
            false => decompress(codec, now, block).ok_or(index)?,
        }
        stored = rest;
    }
    Ok(out)
}

/// Fills `block`; `None` when `stored` is anything else than its compressed form.
fn decompress(codec: Codec, stored: &[u8], block: &mut [u8]) -> Option<()> {
    let length = match codec {
        Codec::None => return None,
        Codec::Lz4 => lz4_flex::block::decompress_into(stored, block).ok()?,
        Codec::Zstd => zstd::bulk::decompress_to_buffer(stored, block).ok()?,
    };
    (length == block.len()).then_some(())
}

/// One codec at work.
struct Compressor {
    /// Without one nothing is compressed.
    engine: Option<Engine>,
    scratch: Vec<u8>,
}

enum Engine {
    Lz4,
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Compressor {
    fn new(codec: Codec) -> Self {
        let engine = match codec {
            Codec::None => None,
            Codec::Lz4 => Some(Engine::Lz4),
            // Without memory for it blocks stay as they are.
            Codec::Zstd => zstd::bulk::Compressor::new(ZSTD_LEVEL).ok().map(Engine::Zstd),
        };
        Self { engine, scratch: Vec::new() }
    }

    /// A shorter form of a block; `None` = it does not pay.
    fn compress(&mut self, block: &[u8]) -> Option<&[u8]> {
        let engine = self.engine.as_mut()?;
        let pays = block.len() - block.len().div_ceil(SAVES_ONE_IN);
        let room = match engine {
            Engine::Lz4 => lz4_flex::block::get_maximum_output_size(block.len()),
            // It stops where it does not pay.
            Engine::Zstd(_) => pays,
        };
        self.scratch.resize(room, 0);
        let length = match engine {
            Engine::Lz4 => lz4_flex::block::compress_into(block, &mut self.scratch).ok()?,
            Engine::Zstd(engine) => engine.compress_to_buffer(block, &mut self.scratch[..]).ok()?,
        };
        (1..=pays).contains(&length).then(|| &self.scratch[..length])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::{Random, SeededRandom};

    const UPLOAD: SetId = SetId([7; 16]);
    const MIB: usize = BLOCK_BYTES as usize;
    const CODECS: [Codec; 2] = [Codec::Lz4, Codec::Zstd];

    fn random(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        SeededRandom::new(length as u64).fill(&mut bytes);
        bytes
    }

    fn text(length: usize) -> Vec<u8> {
        b"one word after the other, ".iter().copied().cycle().take(length).collect()
    }

    #[test]
    fn every_length_and_kind_of_bytes_comes_back_as_it_was() {
        for codec in CODECS {
            for length in [0, 1, 15, 16, 100, 65_536, MIB - 1, MIB, MIB + 1, 3 * MIB + 5] {
                for bytes in [vec![0; length], random(length), text(length)] {
                    let bytes = Bytes::from(bytes);
                    let packed = pack(codec, UPLOAD, 3, bytes.clone());
                    assert_eq!(packed.entries.len(), length.div_ceil(MIB));
                    assert_eq!(packed.crc32c, crc32c(&packed.bytes));
                    assert_eq!(packed.plain_crc32c, crc32c(&bytes));
                    let back = unpack(codec, &packed.entries, &packed.bytes, length as u64);
                    assert!(back.unwrap() == bytes, "{codec} {length}");
                }
            }
        }
    }

    #[test]
    fn blocks_that_would_not_become_a_sixteenth_shorter_are_stored_as_they_are() {
        for codec in CODECS {
            // A block of noise, one of zeros, and one of which a little pays not.
            let hardly = [random(MIB - MIB / 20), vec![0; MIB / 20]].concat();
            let bytes = Bytes::from([random(MIB), vec![0; MIB], hardly].concat());
            let packed = pack(codec, UPLOAD, 0, bytes.clone());
            let plain: Vec<bool> = packed.entries.iter().map(|entry| entry.is_plain).collect();
            assert_eq!(plain, [true, false, true], "{codec}");
            assert!(packed.bytes.len() < 2 * MIB + MIB / 100);
            let noise = Bytes::from(random(2 * MIB));
            let packed = pack(codec, UPLOAD, 0, noise.clone());
            assert!(!packed.is_compressed());
            assert_eq!(packed.bytes.as_ptr(), noise.as_ptr(), "what stays is not copied");
        }
    }

    #[test]
    fn a_block_that_gives_more_or_less_than_it_must_is_named() {
        for codec in CODECS {
            let packed = pack(codec, UPLOAD, 0, text(2 * MIB).into());
            let (entries, stored) = (&packed.entries, &packed.bytes[..]);
            let all = 2 * MIB as u64;
            assert_eq!(unpack(codec, entries, stored, all - 1), Err(1), "more");
            let more = pack(codec, UPLOAD, 0, text(2 * MIB - 1).into());
            assert_eq!(unpack(codec, &more.entries, &more.bytes, all), Err(1), "less");
            assert_eq!(unpack(codec, entries, &stored[..stored.len() - 1], all), Err(1), "cut");
            assert_eq!(unpack(codec, entries, b"", all), Err(0));
            assert_eq!(unpack(Codec::None, entries, stored, all), Err(0));
        }
    }

    #[test]
    fn damaged_blocks_give_wrong_bytes_or_none_and_never_more() {
        let seed = 20_260_102;
        println!("seed {seed}");
        let draws = SeededRandom::new(seed);
        for codec in CODECS {
            let packed = pack(codec, UPLOAD, 0, text(50_000).into());
            let mut refused = 0;
            for _ in 0..3_000 {
                let mut draw = [0; 8];
                draws.fill(&mut draw);
                let mut stored = packed.bytes.to_vec();
                let at = u32::from_le_bytes([draw[0], draw[1], draw[2], 0]) as usize;
                let length = stored.len();
                stored[at % length] ^= draw[3] | 1;
                if draw[4] % 2 == 0 {
                    draws.fill(&mut stored[at % length..]);
                }
                match unpack(codec, &packed.entries, &stored, 50_000) {
                    Ok(bytes) => assert_eq!(bytes.len(), 50_000),
                    Err(block) => {
                        assert_eq!(block, 0);
                        refused += 1;
                    }
                }
            }
            assert!(refused > 100, "{codec}: {refused} refused");
        }
    }
}

//! The head of an object (its tag, its block table, its sections), and the
//! compressed blocks of one whose bytes lie in the head.
//!
//! An input is a byte that says what to make right first ([`SEAL_VARIABLE`],
//! [`SEAL_TAG`]), a byte for the length of the key, the key, 64 bytes of tag, two
//! bytes for the length of the stored bytes, those, and the variable part.

use rampuddle_client::Codec;
use rampuddle_client::fuzzing::{Head, VariablePart, packed, read_head, unpacked};
use rampuddle_protocol::limits::{KIB, MIB};
use rampuddle_protocol::{Checksum, crc32c};

use crate::counts::Counts;
use crate::layout::number;
use crate::random::Random;
use crate::target::Target;

/// Makes the tag's checksum suit.
pub const SEAL_TAG: u8 = 1;
/// Makes what the tag says of the variable part (length, checksum) suit.
pub const SEAL_VARIABLE: u8 = 2;

const TAG_BYTES: usize = 64;
const KEY: &[u8] = b"\xF8name";
const CODECS: [Codec; 3] = [Codec::None, Codec::Lz4, Codec::Zstd];
/// Objects up to this are unpacked: so many bytes are allocated for them.
const UNPACKED_MAX: u64 = 256 * KIB;

// Offset and length of fields: see docs/object-format.md.
const CODEC: (usize, usize) = (2, 1);
const STRIPE_BYTES: (usize, usize) = (4, 4);
const OBJECT_BYTES: (usize, usize) = (8, 8);
const UPLOAD: usize = 16;
const VARIABLE_BYTES: (usize, usize) = (48, 4);
const VARIABLE_CRC: (usize, usize) = (52, 4);
const INLINE_STORED: (usize, usize) = (56, 4);
const CRC: (usize, usize) = (60, 4);
/// A block that is stored as it is.
const PLAIN: u32 = 1 << 31;
/// A section's kind or a name's length, two reserved bytes, a length.
const PREFIX_BYTES: usize = 8;

/// The target.
#[derive(Debug)]
pub struct ObjectHead;

impl Target for ObjectHead {
    fn run(&mut self, input: &[u8], counts: &mut Counts) -> bool {
        let [mode, key_bytes, rest @ ..] = input else { return false };
        let (key, rest) = split(rest, usize::from(*key_bytes));
        let (tag, rest) = split(rest, TAG_BYTES);
        let (length, rest) = split(rest, 2);
        let (stored, variable) =
            split(rest, number(&[length, &[0; 2]].concat(), Some((0, 2))) as usize);
        let mut tag = tag.to_vec();
        if tag.len() == TAG_BYTES {
            seal(*mode, key, &mut tag, variable);
        }
        match read_head(key, &tag, variable) {
            Ok(head) => {
                assert_head(&head, &tag, variable);
                unpack(&head, stored, counts);
                counts.one(if head.variable.is_some() {
                    "variable parts read"
                } else {
                    "tags read"
                });
                true
            }
            Err(why) => {
                counts.one(why);
                !why.contains("its tag") && !why.contains("format or codec")
            }
        }
    }

    fn generate(&self, random: &mut Random) -> Vec<u8> {
        let mut made = made(random);
        let mut mode = SEAL_TAG | SEAL_VARIABLE;
        match random.below(10) {
            0..3 => {}
            3..5 => {
                let fields =
                    [CODEC, STRIPE_BYTES, OBJECT_BYTES, VARIABLE_BYTES, INLINE_STORED, (0, 4)];
                put(&mut made.tag, random.pick(&fields), random.edge());
                mode = if random.percent(60) { SEAL_TAG } else { mode };
            }
            5..8 => change(random, &mut made.variable),
            8 => change(random, &mut made.stored),
            _ => mode = random.below(4) as u8,
        }
        let stored = &made.stored[..made.stored.len().min(usize::from(u16::MAX))];
        let length = (stored.len() as u16).to_le_bytes();
        [&[mode, KEY.len() as u8], KEY, &made.tag, &length, stored, &made.variable].concat()
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        (0..32).map(|seed| self.generate(&mut Random::of_execution(1, seed))).collect()
    }
}

fn split(bytes: &[u8], at: usize) -> (&[u8], &[u8]) {
    bytes.split_at(at.min(bytes.len()))
}

fn seal(mode: u8, key: &[u8], tag: &mut [u8], variable: &[u8]) {
    if mode & SEAL_VARIABLE != 0 && !variable.is_empty() {
        put(tag, VARIABLE_BYTES, variable.len() as u64);
        put(tag, VARIABLE_CRC, crc32c(variable).into());
    }
    if mode & SEAL_TAG != 0 {
        let mut checksum = Checksum::new();
        checksum.update(key);
        checksum.update(&tag[..CRC.0]);
        put(tag, CRC, checksum.value().into());
    }
}

fn put(bytes: &mut [u8], (offset, length): (usize, usize), number: u64) {
    bytes[offset..offset + length].copy_from_slice(&number.to_le_bytes()[..length]);
}

/// A head and the stored bytes in it.
struct Made {
    tag: Vec<u8>,
    stored: Vec<u8>,
    variable: Vec<u8>,
}

/// A sound head but for its checksums.
fn made(random: &mut Random) -> Made {
    let mut tag = random.bytes(TAG_BYTES);
    let codec = random.pick(&CODECS);
    let is_inline = random.percent(60);
    tag[..4].copy_from_slice(&[1, random.below(4) as u8, codec as u8, u8::from(is_inline)]);
    put(&mut tag, VARIABLE_BYTES, 0);
    put(&mut tag, INLINE_STORED, 0);
    let (stored, mut variable) = if is_inline {
        inline(random, codec, &mut tag)
    } else {
        (Vec::new(), striped(random, &mut tag))
    };
    let has_table = !is_inline || codec != Codec::None || !variable.is_empty();
    if has_table {
        sections(random, &mut variable);
    }
    Made { tag, stored, variable }
}

/// An object that lies in its head: its stored bytes and its block table.
fn inline(random: &mut Random, codec: Codec, tag: &mut [u8]) -> (Vec<u8>, Vec<u8>) {
    let length = random.pick(&[0, 1, 100, 5_000, 60_000]);
    let bytes = if random.percent(30) {
        random.bytes(length)
    } else {
        (0..length).map(|at| (at / 7 % 11) as u8).collect()
    };
    put(tag, STRIPE_BYTES, 0);
    put(tag, OBJECT_BYTES, length as u64);
    let mut upload = [0; 16];
    upload.copy_from_slice(&tag[UPLOAD..UPLOAD + 16]);
    let (stored, table) = packed(codec, upload, bytes);
    if codec != Codec::None {
        put(tag, INLINE_STORED, stored.len() as u64);
    }
    let has_table = codec != Codec::None || random.percent(50);
    (stored.to_vec(), if has_table { table } else { Vec::new() })
}

/// The block table of an object in stripes.
fn striped(random: &mut Random, tag: &mut [u8]) -> Vec<u8> {
    let object = match random.below(3) {
        0 => random.below(5) as u64 * MIB,
        1 => random.below(9) as u64,
        _ => random.below(64 << 20) as u64,
    };
    put(tag, STRIPE_BYTES, random.pick(&[MIB, 4 * MIB]));
    put(tag, OBJECT_BYTES, object);
    let has_codec = tag[CODEC.0] != 0;
    let mut bytes = Vec::new();
    for block in 0..object.div_ceil(MIB) {
        let length = (object - block * MIB).min(MIB) as u32;
        let shorter = has_codec && length > 1 && random.percent(50);
        let stored =
            if shorter { 1 + random.below(length as usize - 1) as u32 } else { length | PLAIN };
        bytes.extend(stored.to_le_bytes());
        bytes.extend((random.draw() as u32).to_le_bytes());
    }
    bytes
}

/// Sections as this version knows them, and one of a later version.
fn sections(random: &mut Random, out: &mut Vec<u8>) {
    if random.percent(50) {
        let mut metadata = Vec::new();
        for name in [&b"a"[..], b"content-type", b"\xC3\xA4"] {
            let count = random.below(20);
            let value = random.bytes(count);
            prefixed(name.len() as u16, value.len(), &[name, &value].concat(), &mut metadata);
        }
        prefixed(1, metadata.len(), &metadata, out);
    }
    if random.percent(30) {
        prefixed(2, 8, &random.bytes(8), out);
    }
    if random.percent(30) {
        prefixed(3, 4, &random.bytes(4), out);
    }
    if random.percent(20) {
        let kind = random.pick(&[4, 77, 0x7FFF, 0x8000, 0xFFFF]);
        prefixed(kind, 5, b"later", out);
    }
}

fn prefixed(first: u16, length: usize, content: &[u8], out: &mut Vec<u8>) {
    out.extend(first.to_le_bytes());
    out.extend([0; 2]);
    out.extend((length as u32).to_le_bytes());
    out.extend(content);
}

/// Changes bytes, or a length, or how many there are.
fn change(random: &mut Random, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let at = random.below(bytes.len());
    match random.below(4) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes.truncate(at),
        2 => bytes.extend_from_within(at.max(bytes.len().saturating_sub(64))..),
        _ => {
            let at = at.min(bytes.len().saturating_sub(PREFIX_BYTES));
            let length = bytes.len().min(4);
            let at = at.min(bytes.len() - length);
            bytes[at..at + length].copy_from_slice(&random.edge().to_le_bytes()[..length]);
        }
    }
}

/// What was read is what the bytes say, and adds up.
fn assert_head(head: &Head, tag: &[u8], variable: &[u8]) {
    assert_eq!(head.object_bytes, number(tag, Some(OBJECT_BYTES)));
    assert_eq!(head.stripe_bytes, number(tag, Some(STRIPE_BYTES)));
    assert_eq!(head.blocks, head.object_bytes.div_ceil(MIB));
    assert_eq!(head.stripe_bytes % MIB, 0, "stripes are whole blocks");
    if head.stripe_bytes == 0 {
        assert!(head.object_bytes <= MIB && head.stripes == 0);
        assert!(head.inline_bytes <= head.object_bytes);
    } else {
        assert_eq!(head.stripes, head.object_bytes.div_ceil(head.stripe_bytes));
        assert_eq!(head.inline_bytes, 0);
    }
    // What is behind has no meaning without a codec, and is written as zero.
    let covers = |range: std::ops::Range<usize>| head.tag[range.clone()] == tag[range];
    assert!(covers(0..3) && covers(4..56), "a tag read back");
    if let Some(part) = &head.variable {
        assert_variable(head, part, variable);
    }
}

fn assert_variable(head: &Head, part: &VariablePart, variable: &[u8]) {
    assert_eq!(part.blocks.len() as u64, head.blocks);
    for (index, block) in part.blocks.iter().enumerate() {
        let length = (head.object_bytes - index as u64 * MIB).min(MIB);
        let stored = u64::from(block.stored_bytes);
        if block.is_plain {
            assert_eq!(stored, length, "a plain block is the block");
        } else {
            assert!(head.codec != Codec::None && (1..length).contains(&stored));
        }
    }
    if head.stripe_bytes == 0 {
        let stored: u64 = part.blocks.iter().map(|block| u64::from(block.stored_bytes)).sum();
        assert_eq!(stored, head.inline_bytes);
    }
    assert!(variable.starts_with(&part.table), "a table read back");
    let behind = variable.len() - part.table.len();
    assert!(part.sections.len() <= behind, "sections say no more than their bytes");
    assert!(part.metadata.is_sorted_by(|one, other| one.0 < other.0), "each name once");
    let said: usize = part.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(said <= behind && part.metadata.iter().all(|(name, _)| !name.is_empty()));
}

/// Unpacks what lies in the head: exactly as many bytes as the object has.
fn unpack(head: &Head, stored: &[u8], counts: &mut Counts) {
    let Some(part) = head.variable.as_ref().filter(|_| head.stripe_bytes == 0) else { return };
    if head.object_bytes > UNPACKED_MAX {
        return;
    }
    match unpacked(head.codec, &part.blocks, stored, head.object_bytes) {
        Ok(bytes) => {
            assert_eq!(bytes.len() as u64, head.object_bytes);
            counts.one("blocks unpacked");
        }
        Err(block) => {
            assert!(block < part.blocks.len(), "the block that is wrong is one of them");
            counts.one("blocks refused");
        }
    }
}

//! The head of an object: its tag and its block table.
//!
//! An input is a byte that says what to make right first ([`SEAL_TABLE`],
//! [`SEAL_TAG`]), a byte for the length of the key, the key, 64 bytes of tag,
//! and the variable part.

use rampuddle_client::fuzzing::{Head, read_head};
use rampuddle_protocol::limits::{MIB, VALUE_BYTES_MAX};
use rampuddle_protocol::{Checksum, crc32c};

use crate::counts::Counts;
use crate::layout::number;
use crate::random::Random;
use crate::target::Target;

/// Makes the tag's checksum suit.
pub const SEAL_TAG: u8 = 1;
/// Makes what the tag says of the variable part (length, checksum) suit.
pub const SEAL_TABLE: u8 = 2;

const TAG_BYTES: usize = 64;
const STRIPE_BYTES: (usize, usize) = (4, 4);
const OBJECT_BYTES: (usize, usize) = (8, 8);
const VARIABLE_BYTES: (usize, usize) = (48, 4);
const VARIABLE_CRC: (usize, usize) = (52, 4);
const CRC: (usize, usize) = (60, 4);
/// A block that is stored as it is.
const PLAIN: u32 = 1 << 31;

/// The target.
#[derive(Debug)]
pub struct ObjectHead;

impl Target for ObjectHead {
    fn run(&mut self, input: &[u8], counts: &mut Counts) -> bool {
        let [mode, key_bytes, rest @ ..] = input else { return false };
        let (key, rest) = rest.split_at(usize::from(*key_bytes).min(rest.len()));
        let (tag, variable) = rest.split_at(TAG_BYTES.min(rest.len()));
        let mut tag = tag.to_vec();
        if tag.len() == TAG_BYTES {
            seal(*mode, key, &mut tag, variable);
        }
        match read_head(key, &tag, variable) {
            Ok(head) => {
                assert_head(&head, &tag, variable);
                counts.one(if head.table.is_some() { "tables read" } else { "tags read" });
                true
            }
            Err(why) => {
                assert!(!why.is_empty());
                counts.one(why);
                why.contains("block") || why.contains("length")
            }
        }
    }

    fn generate(&self, random: &mut Random) -> Vec<u8> {
        let mut tag = tag(random);
        let blocks = number(&tag, Some(OBJECT_BYTES)).div_ceil(MIB);
        let is_striped = number(&tag, Some(STRIPE_BYTES)) > 0;
        let mut variable = if is_striped { table(random, &tag, blocks) } else { Vec::new() };
        let mut mode = SEAL_TAG | SEAL_TABLE;
        match random.below(10) {
            0..4 => {}
            4..7 => {
                let place = random.pick(&[STRIPE_BYTES, OBJECT_BYTES, VARIABLE_BYTES, (0, 4)]);
                put(&mut tag, place, random.edge());
                mode = if random.percent(60) { SEAL_TAG } else { mode };
            }
            7..9 if !variable.is_empty() => {
                let at = random.below(variable.len());
                variable[at] ^= 1 << random.below(8);
                let more = random.below(9);
                variable.resize(variable.len() + more, 0);
            }
            _ => mode = random.below(4) as u8,
        }
        let key = b"\xF8name";
        [&[mode, key.len() as u8], &key[..], &tag, &variable].concat()
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        (0..16).map(|seed| self.generate(&mut Random::of_execution(1, seed))).collect()
    }
}

fn seal(mode: u8, key: &[u8], tag: &mut [u8], variable: &[u8]) {
    if mode & SEAL_TABLE != 0 {
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

/// A sound tag but for its checksums.
fn tag(random: &mut Random) -> Vec<u8> {
    let mut tag = random.bytes(TAG_BYTES);
    tag[..4].copy_from_slice(&[1, random.below(4) as u8, 0, 0]);
    let is_inline = random.percent(30);
    let object = match random.below(4) {
        0 => random.below(5) as u64 * MIB,
        1 => random.below(9) as u64,
        _ => random.below(100 << 20) as u64,
    };
    tag[3] = u8::from(is_inline);
    put(&mut tag, STRIPE_BYTES, if is_inline { 0 } else { random.pick(&[MIB, 4 * MIB]) });
    put(&mut tag, OBJECT_BYTES, if is_inline { object.min(MIB) } else { object });
    put(&mut tag, VARIABLE_BYTES, 0);
    tag
}

fn table(random: &mut Random, tag: &[u8], blocks: u64) -> Vec<u8> {
    let object = number(tag, Some(OBJECT_BYTES));
    let mut bytes = Vec::new();
    for block in 0..blocks {
        let stored = (object - block * MIB).min(MIB) as u32;
        bytes.extend((stored | PLAIN).to_le_bytes());
        bytes.extend((random.draw() as u32).to_le_bytes());
    }
    bytes
}

/// What was read is what the bytes say, and adds up.
fn assert_head(head: &Head, tag: &[u8], variable: &[u8]) {
    assert_eq!(head.object_bytes, number(tag, Some(OBJECT_BYTES)));
    assert_eq!(head.stripe_bytes, number(tag, Some(STRIPE_BYTES)));
    assert_eq!(head.blocks, head.object_bytes.div_ceil(MIB));
    assert_eq!(head.stripe_bytes % MIB, 0, "stripes are whole blocks");
    if head.stripe_bytes == 0 {
        assert!(head.object_bytes <= MIB && head.stripes == 0);
    } else {
        assert_eq!(head.stripes, head.object_bytes.div_ceil(head.stripe_bytes));
    }
    // Fields that are no more than zeros today are written as zeros.
    let covers = |range: std::ops::Range<usize>| head.tag[range.clone()] == tag[range];
    assert!(covers(0..3) && covers(4..56), "a tag read back");
    let Some(table) = &head.table else { return };
    assert!(variable.len() as u64 <= VALUE_BYTES_MAX);
    assert_eq!(table.blocks.len() as u64, head.blocks);
    let stored: u64 = table.blocks.iter().map(|block| block.0).sum();
    assert_eq!(stored, head.object_bytes, "plain blocks are the object");
    assert!(variable.starts_with(&table.bytes), "a table read back");
}

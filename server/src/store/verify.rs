//! Comparing stored bytes with their checksum, a bounded stretch at a time.

use rampuddle_protocol::{Checksum, RowFlags, Version};

use super::Store;
use super::entry::EntryId;
use crate::pool::{Cursor, Piece};

/// Stored bytes that are compared in one turn of the loop.
const VERIFY_BYTES_PER_TURN: u64 = 16 << 20;
/// Turns after which a comparison that nobody asks for again gives way to another.
const PATIENCE_TURNS: u32 = 1_000;

/// What is known of a value's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Soundness {
    /// They have their checksum, or have none.
    Sound,
    /// They do not have it.
    Damaged,
    /// Not compared to the end; to be asked again.
    NotKnownYet,
}

/// A comparison under way.
#[derive(Debug)]
struct Comparison {
    entry: EntryId,
    version: Version,
    checksum: Checksum,
    cursor: Cursor,
    offset: u64,
    /// Turns since it went on.
    rested: u32,
}

/// The comparison under way, and how much may be compared in this turn.
#[derive(Debug)]
pub(super) struct Verifier {
    under_way: Option<Comparison>,
    left: u64,
}

impl Verifier {
    pub(super) fn new() -> Self {
        Self { under_way: None, left: VERIFY_BYTES_PER_TURN }
    }

    /// A new turn of the loop has begun.
    pub(super) fn begin_turn(&mut self) {
        self.left = VERIFY_BYTES_PER_TURN;
        if let Some(comparison) = &mut self.under_way {
            comparison.rested += 1;
        }
    }

    /// The entry's pages are about to be another's.
    pub(super) fn forget(&mut self, id: EntryId) {
        self.under_way.take_if(|one| one.entry == id);
    }
}

impl Store {
    /// Goes on comparing the stored bytes of a value with its checksum. One
    /// found damaged stays so. Costs a pass over at most 16 MiB; a value longer
    /// than what is left of that is asked for again until the end is reached.
    pub(super) fn check_bytes(&mut self, id: EntryId) -> Soundness {
        let (version, body) = (self.slab[id].version, self.slab[id].body);
        if self.slab[id].is_damaged {
            return Soundness::Damaged;
        }
        if !self.slab[id].flags.has(RowFlags::CHECKSUM) {
            return Soundness::Sound;
        }
        let is_this = |one: &Comparison| one.entry == id && one.version == version;
        let others = self.verifier.under_way.as_ref().filter(|one| !is_this(one));
        let fits = body.filled <= self.verifier.left;
        if !fits && others.is_some_and(|other| other.rested < PATIENCE_TURNS) {
            return Soundness::NotKnownYet;
        }
        let mut comparison =
            self.verifier.under_way.take_if(|one| is_this(one)).unwrap_or_else(|| Comparison {
                entry: id,
                version,
                checksum: Checksum::new(),
                cursor: body.begin(),
                offset: 0,
                rested: 0,
            });
        while comparison.offset < body.filled && self.verifier.left > 0 {
            let end = body.filled.min(comparison.offset + self.verifier.left);
            let piece = self.pool.piece(&body, &mut comparison.cursor, comparison.offset, end);
            comparison.offset += piece.len();
            self.verifier.left -= piece.len();
            match piece {
                Piece::Pool(range) => comparison.checksum.update(self.pool.bytes(range)),
                Piece::Zeros(bytes) => comparison.checksum.update_zeros(bytes),
            }
        }
        if comparison.offset < body.filled {
            comparison.rested = 0;
            self.verifier.under_way = Some(comparison);
            return Soundness::NotKnownYet;
        }
        if comparison.checksum.value() == self.slab[id].crc32c {
            return Soundness::Sound;
        }
        self.slab[id].is_damaged = true;
        Soundness::Damaged
    }
}

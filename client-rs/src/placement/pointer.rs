//! Where a key points: its SHA-512, and the slot that it falls into.

use std::cell::RefCell;

use sha2::{Digest, Sha512};

/// Placement classes: one per value of a pointer's first 16 bits.
pub(crate) const SLOTS: usize = 1 << 16;

/// One of the 65,536 placement classes. All keys of a slot have the same owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

impl Slot {
    /// The slot of a key whose first `placement_bytes` place it; 0 = all of it.
    /// Costs one SHA-512, unless this thread asked for the same one last: an operation
    /// does some five times.
    pub fn of(key: &[u8], placement_bytes: u16) -> Self {
        let part = placed_by(key, placement_bytes);
        LAST.with_borrow_mut(|last| {
            if last.part != part {
                let pointer = pointer(key, placement_bytes);
                last.slot = Self(u16::from_be_bytes([pointer[0], pointer[1]]));
                last.part.clear();
                last.part.extend_from_slice(part);
            }
            last.slot
        })
    }
}

/// The slot that a thread asked for last.
struct Last {
    part: Vec<u8>,
    slot: Slot,
}

thread_local! {
    static LAST: RefCell<Last> = const { RefCell::new(Last { part: Vec::new(), slot: OF_NOTHING }) };
}

/// The slot of no bytes.
const OF_NOTHING: Slot = Slot(0xcf83);

/// The SHA-512 of a key's placement part.
pub(crate) fn pointer(key: &[u8], placement_bytes: u16) -> [u8; 64] {
    Sha512::digest(placed_by(key, placement_bytes)).into()
}

/// The bytes that place a key.
fn placed_by(key: &[u8], placement_bytes: u16) -> &[u8] {
    match usize::from(placement_bytes) {
        0 => key,
        bytes => &key[..bytes.min(key.len())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_the_first_bits_of_sha_512() {
        // sha512("abc") = ddaf35a1..., sha512("") = cf83e135...
        assert_eq!(Slot::of(b"abc", 0), Slot(0xddaf));
        assert_eq!(Slot::of(b"", 0), Slot(0xcf83));
    }

    #[test]
    fn keys_with_the_same_placement_part_share_a_slot() {
        assert_eq!(Slot::of(b"abc/1", 3), Slot(0xddaf));
        assert_eq!(Slot::of(b"abc/2", 3), Slot(0xddaf));
        assert_eq!(Slot::of(b"abc", 900), Slot(0xddaf));
        assert_ne!(Slot::of(b"abc/1", 0), Slot::of(b"abc/2", 0));
    }
}

//! Rendezvous hashing: every slot is a contest of its own.
//!
//! ```text
//! h(slot, member) = mix(seed + (slot + 1) x 0x9E3779B97F4A7C15)
//! ```

use super::pointer::Slot;
use crate::environment::{GOLDEN, mixed};

/// The claim of the member with this seed on a slot.
pub(super) fn hash(seed: u64, slot: Slot) -> u64 {
    point(seed, u64::from(slot.0))
}

/// The number of that index of the sequence that a seed stands for (splitmix64).
pub(super) fn point(seed: u64, index: u64) -> u64 {
    mixed(seed.wrapping_add((index + 1).wrapping_mul(GOLDEN)))
}

//! Random numbers for what need not be secret: pauses, names of files.

use std::hash::{BuildHasher, RandomState};

/// Any number. The standard library seeds each `RandomState` anew, from the system's own
/// randomness.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(())
}

/// From 0 to 1.
pub(crate) fn random_fraction() -> f64 {
    f64::from((random() >> 32) as u32) / f64::from(u32::MAX)
}

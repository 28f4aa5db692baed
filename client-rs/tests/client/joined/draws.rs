//! Randomness that a seed decides.

use bytes::Bytes;
use rampuddle_client::{Random as _, SeededRandom};

/// The seed of the environment (`SEED=`), or a new one; printed, so that a run
/// can be had again.
pub(super) fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    let given = std::env::var("SEED").ok();
    let fresh = || RandomState::new().hash_one(std::process::id());
    let seed = given.map_or_else(fresh, |seed| seed.parse().expect("SEED is a number"));
    println!("SEED={seed}");
    seed
}

/// Draws from a seed.
#[derive(Debug)]
pub(super) struct Draws(SeededRandom);

impl Draws {
    pub(super) fn new(seed: u64) -> Self {
        Self(SeededRandom::new(seed))
    }

    pub(super) fn draw(&self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `end`.
    pub(super) fn below(&self, end: u64) -> u64 {
        (self.draw() >> 11) % end.max(1)
    }

    /// Whether something happens that does `times` in `of` draws.
    pub(super) fn happens(&self, times: u64, of: u64) -> bool {
        self.below(of) < times
    }

    /// A number from `least` to `most`, every order of magnitude as often as the
    /// others.
    pub(super) fn spread(&self, least: u64, most: u64) -> u64 {
        let part = self.below(1 << 20) as f64 / (1 << 20) as f64;
        let (low, high) = ((least as f64).ln(), (most as f64).ln());
        ((low + part * (high - low)).exp() as u64).clamp(least, most)
    }

    /// Bytes that no other draw gives.
    pub(super) fn bytes(&self, length: u64) -> Bytes {
        let (mut word, step) = (self.draw(), self.draw() | 1);
        let mut bytes = Vec::with_capacity(length as usize + 8);
        while (bytes.len() as u64) < length {
            word = word.wrapping_add(step);
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.truncate(length as usize);
        bytes.into()
    }
}

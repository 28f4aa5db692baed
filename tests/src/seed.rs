//! Randomness that can be run again.

use std::env;

/// The step of splitmix64.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Numbers from a seed: the same seed, the same numbers (splitmix64).
#[derive(Debug, Clone)]
pub struct Seeded {
    state: u64,
}

/// The finaliser of splitmix64.
pub(crate) const fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

impl Seeded {
    /// The numbers of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The seed of the environment (`SEED=`), or a new one; printed, so that a
    /// run that failed can be had again.
    ///
    /// # Panics
    /// When `SEED` is no number.
    pub fn from_environment(purpose: &str) -> Self {
        let seed = match env::var("SEED") {
            Ok(text) => text.parse().expect("SEED is a number"),
            Err(_) => fresh_seed(),
        };
        println!("{purpose}: SEED={seed}");
        Self::new(seed)
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mixed(self.state)
    }

    /// A number below `bound`.
    ///
    /// # Panics
    /// When `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    /// `count` random bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.draw().to_le_bytes());
        words.flatten().take(count).collect()
    }

    /// Puts `items` into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for index in (1..items.len()).rev() {
            items.swap(index, self.below(index as u64 + 1) as usize);
        }
    }
}

/// Sixteen fresh bytes, for identifiers.
pub(crate) fn fresh_bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&fresh_seed().to_le_bytes());
    bytes[8..].copy_from_slice(&fresh_seed().to_le_bytes());
    bytes
}

fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

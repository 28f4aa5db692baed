//! Seeded randomness for the unit tests.

/// A small generator (xorshift64*), whose seed is printed so that a failure can
/// be had again with `SEED=...`.
pub(crate) struct Seeded(u64);

impl Seeded {
    pub(crate) fn from_environment() -> Self {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| getrandom::u64().expect("the system has randomness"));
        println!("SEED={seed}");
        Self(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }
}

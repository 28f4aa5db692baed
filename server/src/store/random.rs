//! Numbers that clients cannot foresee without the seed: for handles and for
//! the shape of the ordered index.

/// A small generator (Marsaglia, "Xorshift RNGs", 2003).
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    /// `seed` comes from the system's randomness, or a test prints it.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next number, never 0.
    pub(super) fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

//! What generators draw from.

use rampuddle_client::{Random as _, SeededRandom};

/// Numbers from a seed: the same seed, the same numbers.
#[derive(Debug)]
pub struct Random(SeededRandom);

impl Random {
    /// The numbers of an execution: any one can be had again without the others.
    pub fn of_execution(seed: u64, execution: u64) -> Self {
        let mixed = SeededRandom::new(execution ^ seed.rotate_left(32)).next_u64();
        Self(SeededRandom::new(mixed ^ seed))
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `end`; 0 when that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.draw() >> 11) as usize % end.max(1)
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, share: usize) -> bool {
        self.below(100) < share
    }

    /// One of them.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// A number that is likely to lie at an edge of something.
    pub fn edge(&mut self) -> u64 {
        const EDGES: [u64; 14] = [
            0,
            1,
            63,
            64,
            255,
            256,
            1 << 10,
            1 << 16,
            1 << 20,
            1 << 22,
            1 << 30,
            1 << 31,
            1 << 32,
            1 << 63,
        ];
        let base = match self.below(4) {
            0 => self.draw(),
            1 => 1 << self.below(64),
            _ => self.pick(&EDGES),
        };
        base.wrapping_add(self.below(3) as u64).wrapping_sub(1)
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.draw().to_le_bytes()[..chunk.len()]);
        }
        bytes
    }
}

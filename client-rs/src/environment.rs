//! What the client takes from outside: time, randomness, connections. All
//! three are passed in, so that simulations decide them.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::transport::{Connector, TcpUnixConnector};

/// The wall clock. Waiting is measured by tokio's clock, not by this one.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Milliseconds since 1970.
    fn unix_ms(&self) -> u64;

    /// The same in units of 2^-16 ms, as the times of versions are: what two processes
    /// of one machine write within a millisecond has an order too. A clock that is no
    /// finer than a millisecond has nothing to add.
    fn unix_time(&self) -> u64 {
        self.unix_ms() << 16
    }
}

/// A source of randomness.
pub trait Random: Send + Sync + fmt::Debug {
    /// Fills `bytes` with bits that nobody can guess.
    fn fill(&self, bytes: &mut [u8]);

    /// Bits to balance load and to jitter waits with: cheap, may be guessable.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// Time, randomness and connections, each replaceable.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Environment {
    /// Where wall-clock time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where randomness comes from.
    pub random: Arc<dyn Random>,
    /// How connections are made.
    pub connector: Arc<dyn Connector>,
}

impl Environment {
    /// The given clock, randomness and connector.
    pub fn new(
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        connector: Arc<dyn Connector>,
    ) -> Self {
        Self { clock, random, connector }
    }

    /// Sixteen bytes that nobody can guess: session ids, nonces, upload ids.
    pub(crate) fn unguessable(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes);
        bytes
    }

    /// A duration drawn evenly from zero to `most` ("full jitter").
    pub(crate) fn jittered(&self, most: Duration) -> Duration {
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.random.next_u64() % nanos.saturating_add(1).max(1))
    }
}

impl Default for Environment {
    /// The machine's clock, the kernel's randomness, TCP and unix sockets.
    fn default() -> Self {
        Self::new(
            Arc::new(SystemClock),
            Arc::new(SystemRandom::default()),
            Arc::new(TcpUnixConnector::default()),
        )
    }
}

/// The machine's wall clock as it was when the process first asked, and the time that
/// went by since: somebody who sets the clock does not move it. What is known of the
/// servers' clocks is how far they are from this one, and stays true.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix_ms(&self) -> u64 {
        self.unix_time() >> 16
    }

    fn unix_time(&self) -> u64 {
        static FIRST: OnceLock<(Duration, Duration)> = OnceLock::new();
        let (wall, first) = *FIRST.get_or_init(|| (since_1970(), up()));
        let now = wall.saturating_add(up().saturating_sub(first));
        let time = (now.as_nanos() << 16) / 1_000_000;
        u64::try_from(time).unwrap_or(u64::MAX)
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Since the machine was started, the time in which it slept included.
fn up() -> Duration {
    let up = clock_gettime(ClockId::Boottime);
    Duration::new(up.tv_sec as u64, up.tv_nsec as u32)
}

/// The kernel's randomness, asked for some ids ahead: a process that is forked has the
/// same ids ahead of it, but it also shares the client's connections, and so must not use
/// it. Bits for load balancing come from a splitmix64 counter that the kernel seeds, so
/// that they cost no system call.
pub struct SystemRandom {
    state: AtomicU64,
    ahead: Mutex<Ahead>,
}

/// Random bytes that nobody was given yet: the last `left` of them.
struct Ahead {
    bytes: [u8; 256],
    left: usize,
}

impl Default for SystemRandom {
    fn default() -> Self {
        let mut seed = [0; 8];
        kernel_fill(&mut seed);
        let ahead = Mutex::new(Ahead { bytes: [0; 256], left: 0 });
        Self { state: AtomicU64::new(u64::from_le_bytes(seed)), ahead }
    }
}

impl fmt::Debug for SystemRandom {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SystemRandom").finish_non_exhaustive()
    }
}

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let Ahead { bytes: drawn, left } = &mut *ahead;
        if bytes.len() > drawn.len() {
            return kernel_fill(bytes);
        }
        if bytes.len() > *left {
            kernel_fill(drawn);
            *left = drawn.len();
        }
        let next = drawn.len() - *left;
        let given = &mut drawn[next..next + bytes.len()];
        bytes.copy_from_slice(given);
        // Who looks at this memory later finds no id.
        given.fill(0);
        *left -= bytes.len();
    }

    fn next_u64(&self) -> u64 {
        mixed(self.state.fetch_add(GOLDEN, Ordering::Relaxed).wrapping_add(GOLDEN))
    }
}

fn kernel_fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("without the kernel's randomness no id is safe to use");
}

/// Randomness from a seed, for simulations and tests: the same seed, the same bits.
#[derive(Debug)]
pub struct SeededRandom {
    state: Mutex<u64>,
}

impl SeededRandom {
    /// The sequence that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: Mutex::new(seed) }
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }

    fn next_u64(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(GOLDEN);
        mixed(*state)
    }
}

/// The step of splitmix64: 2^64 divided by the golden ratio.
pub(crate) const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The finaliser of splitmix64.
pub(crate) const fn mixed(mut bits: u64) -> u64 {
    bits ^= bits >> 30;
    bits = bits.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits ^= bits >> 27;
    bits = bits.wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bits() {
        let (one, other) = (SeededRandom::new(7), SeededRandom::new(7));
        let mut bytes = [0; 24];
        one.fill(&mut bytes);
        let words: Vec<u8> = (0..3).flat_map(|_| other.next_u64().to_le_bytes()).collect();
        assert_eq!(&bytes[..], &words[..]);
    }

    #[test]
    fn splitmix_is_the_published_one() {
        // First outputs for seed 0, from the reference implementation.
        let random = SeededRandom::new(0);
        assert_eq!(random.next_u64(), 0xE220_A839_7B1D_CDAF);
        assert_eq!(random.next_u64(), 0x6E78_9E6A_A1B9_65F4);
    }

    #[test]
    fn ids_drawn_ahead_are_given_once_each_in_any_length() {
        let random = SystemRandom::default();
        let mut ids = std::collections::HashSet::new();
        let lengths = [16, 16, 16, 200, 256, 257, 16, 1_000, 31].iter().cycle();
        for length in lengths.take(900) {
            let mut bytes = vec![0; *length];
            random.fill(&mut bytes);
            // Sixteen at the least, so that none is there twice by chance.
            for part in bytes.windows(16).step_by(16) {
                assert!(ids.insert(part.to_owned()), "{part:?} was given twice");
            }
        }
        assert!(ids.len() > 9_000);
    }

    #[test]
    fn jitter_stays_within_its_bound_and_takes_zero() {
        let environment = Environment::default();
        assert_eq!(environment.jittered(Duration::ZERO), Duration::ZERO);
        for _ in 0..100 {
            assert!(environment.jittered(Duration::from_millis(5)) <= Duration::from_millis(5));
        }
    }
}

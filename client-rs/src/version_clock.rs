//! The hybrid logical clock that versions are drawn from.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rampuddle_protocol::Version;
use rampuddle_protocol::limits::TOMBSTONE_LIFE_MS;

use crate::environment::{Clock, Environment, GOLDEN, mixed};

/// Versions seen further ahead than this are a broken server's and ignored:
/// following them would have every later write refused with CLOCK. Far beyond
/// what servers themselves accept (5 min), so that an honest one is never
/// ignored, even when the wall clock was set back by hours meanwhile.
const AHEAD_MS_MAX: u64 = TOMBSTONE_LIFE_MS;

/// Draws versions: `max(corrected now, seen + 1)`, always greater than the one
/// before and than everything observed.
///
/// The upper 48 bits of a time are milliseconds, the lower 16 the fraction of one, as
/// far as the clock knows it, and a counter within that; one number holds all, so that
/// an overflowing counter carries by itself.
#[derive(Debug)]
pub(crate) struct VersionClock {
    clock: Arc<dyn Clock>,
    offset_ms: AtomicI64,
    past: Mutex<Past>,
}

/// What versions to come must be greater than.
#[derive(Debug)]
struct Past {
    /// The greatest time drawn or observed.
    seen: u64,
    /// The greatest time observed: at least `seen` when nothing was drawn.
    observed: u64,
    writer: u64,
}

impl VersionClock {
    /// A clock with a random writer id.
    pub(crate) fn new(environment: &Environment) -> Self {
        let (writer, _) = halves(environment.unguessable());
        Self {
            clock: Arc::clone(&environment.clock),
            offset_ms: AtomicI64::new(0),
            past: Mutex::new(Past { seen: 0, observed: 0, writer }),
        }
    }

    /// A new version.
    pub(crate) fn draw(&self) -> Version {
        let now = self.now();
        let mut past = self.past();
        past.seen = now.max(past.seen.saturating_add(1));
        Version { time: past.seen, writer: past.writer }
    }

    /// Takes note of a version that a server holds, or held: those drawn from
    /// now on are greater.
    pub(crate) fn observe(&self, version: Version) {
        if version.unix_ms() <= self.now_ms().saturating_add(AHEAD_MS_MAX) {
            let mut past = self.past();
            past.seen = past.seen.max(version.time);
            past.observed = past.observed.max(version.time);
        }
    }

    /// Forgets versions that were drawn while the clock was ahead, and that were
    /// not observed. Those drawn from now on may be less than they are, and have
    /// another writer's id, so that none is drawn twice.
    pub(crate) fn rewind(&self) {
        let now = self.now();
        let mut past = self.past();
        if past.seen > now.max(past.observed) {
            past.seen = past.observed;
            past.writer = mixed(past.writer.wrapping_add(GOLDEN));
        }
    }

    /// Sets how far the servers' clocks are ahead of the local one.
    pub(crate) fn set_offset_ms(&self, offset_ms: i64) {
        self.offset_ms.store(offset_ms, Ordering::Relaxed);
    }

    /// The corrected time in milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        self.local_ms().saturating_add_signed(self.offset_ms.load(Ordering::Relaxed))
    }

    /// The corrected time, as a version's.
    fn now(&self) -> u64 {
        let offset = self.offset_ms.load(Ordering::Relaxed).saturating_mul(1 << 16);
        self.clock.unix_time().saturating_add_signed(offset)
    }

    /// The time of this machine, as it is.
    pub(crate) fn local_ms(&self) -> u64 {
        self.clock.unix_ms()
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn halves(bytes: [u8; 16]) -> (u64, u64) {
    let number = u128::from_le_bytes(bytes);
    (number as u64, (number >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::environment::SeededRandom;
    use crate::transport::TcpUnixConnector;

    #[derive(Debug, Default)]
    struct SetClock(AtomicU64);

    impl Clock for SetClock {
        fn unix_ms(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn clocks(now: u64) -> (Arc<SetClock>, VersionClock) {
        let clock = Arc::new(SetClock(AtomicU64::new(now)));
        let random = Arc::new(SeededRandom::new(1));
        let connector = Arc::new(TcpUnixConnector::default());
        let environment = Environment::new(clock.clone(), random, connector);
        (clock, VersionClock::new(&environment))
    }

    const NOW: u64 = 1_800_000_000_000;

    #[test]
    fn versions_grow_while_the_wall_clock_steps_back_an_hour() {
        let (clock, versions) = clocks(NOW);
        let mut last = versions.draw();
        for step in 0..1_000_u64 {
            if step == 10 {
                clock.0.store(NOW - 3_600_000, Ordering::Relaxed);
            }
            let next = versions.draw();
            assert!(next.time > last.time, "{next} after {last}");
            last = next;
        }
    }

    #[test]
    fn versions_are_greater_than_anything_observed() {
        let (_, versions) = clocks(NOW);
        let seen = Version { time: Version::from_unix_ms(NOW + 299_000, 0).time + 7, writer: 1 };
        versions.observe(seen);
        assert_eq!(versions.draw().time, seen.time + 1);
        versions.observe(Version::from_unix_ms(NOW - 5_000, u64::MAX));
        assert_eq!(versions.draw().time, seen.time + 2);
    }

    #[test]
    fn a_version_from_the_far_future_does_not_spoil_the_clock() {
        let (_, versions) = clocks(NOW);
        versions.observe(Version { time: u64::MAX, writer: u64::MAX });
        assert_eq!(versions.draw().unix_ms(), NOW);
    }

    #[test]
    fn versions_drawn_ahead_are_forgotten_and_those_observed_are_not() {
        let (clock, versions) = clocks(NOW);
        let observed = versions.draw();
        versions.observe(observed);
        clock.0.store(NOW + 3_600_000, Ordering::Relaxed);
        let ahead = versions.draw();
        versions.set_offset_ms(-3_600_000);
        assert!(versions.draw() > ahead, "nobody said yet that it was wrong");
        versions.rewind();
        let next = versions.draw();
        assert_eq!(next.unix_ms(), NOW);
        assert!(next.time > observed.time && next.writer != observed.writer);
        versions.observe(ahead);
        versions.rewind();
        assert!(versions.draw().time > ahead.time, "a server has it: it counts");
    }

    #[test]
    fn a_clock_that_is_not_ahead_has_nothing_to_forget() {
        let (_, versions) = clocks(NOW);
        let first = versions.draw();
        versions.rewind();
        assert_eq!(versions.draw(), Version { time: first.time + 1, ..first });
    }

    #[test]
    fn a_full_counter_carries_into_the_milliseconds() {
        let (_, versions) = clocks(NOW);
        versions.observe(Version { time: (NOW << 16) | 0xFFFF, writer: 0 });
        let next = versions.draw();
        assert_eq!((next.unix_ms(), next.time & 0xFFFF), (NOW + 1, 0));
    }

    #[test]
    fn the_servers_median_corrects_the_local_clock() {
        let (_, versions) = clocks(NOW);
        versions.set_offset_ms(-90_000);
        assert_eq!(versions.draw().unix_ms(), NOW - 90_000);
        versions.set_offset_ms(60_000);
        assert_eq!(versions.draw().unix_ms(), NOW + 60_000);
    }

    #[test]
    fn threads_never_draw_the_same_version() {
        let (_, versions) = clocks(NOW);
        let drawn: Vec<Version> = std::thread::scope(|scope| {
            let draw = || (0..1_000).map(|_| versions.draw()).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(draw)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let distinct: std::collections::BTreeSet<_> = drawn.iter().collect();
        assert_eq!(distinct.len(), 4_000);
    }
}

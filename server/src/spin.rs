//! Whether to stay awake for a moment before asking for work: waking up takes longer
//! than answering a small request.
//!
//! Asking again and again would cost a system call each time. So the loop waits, awake,
//! until the next request is likely to be there, and asks once: if it is not there
//! yet, the loop sleeps as ever, and waits longer the next time.

use std::time::Duration;

/// The longest wait. What comes later is not worth a processor's time.
const LONGEST: Duration = Duration::from_micros(50);
/// A call that took no longer found what it waited for at once.
const AT_ONCE: Duration = Duration::from_micros(2);

/// The part of what was missing that the wait grows by when the work was not there yet,
/// and that it shrinks by when it was. To sleep for a moment costs less than to be late.
const RISE: u32 = 32;
const FALL: u32 = 512;

/// How long to wait awake, learned from when requests came.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Spin {
    wait: Duration,
}

impl Spin {
    /// How long to wait now before asking; zero = not at all.
    pub(crate) fn wait(&self) -> Duration {
        self.wait
    }

    /// Learns from a call for work: how long the wait and the call took together, how
    /// long the call alone, and how much work there was.
    pub(crate) fn asked(&mut self, all: Duration, call: Duration, found: usize) {
        if found == 0 || all >= LONGEST {
            self.wait = Duration::ZERO;
        } else if call > AT_ONCE && found == 1 {
            // By little: one that came late says nothing of the next.
            self.wait = LONGEST.min(self.wait + all.saturating_sub(self.wait) / RISE);
        } else {
            // It may have been there for a while; much of it has.
            self.wait -= self.wait / FALL;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    /// Asks once, when work comes after `gap`; returns whether the loop slept.
    fn ask(spin: &mut Spin, gap: Duration) -> bool {
        let wait = spin.wait();
        let call = gap.saturating_sub(wait).max(US);
        spin.asked(wait + call, call, 1);
        call > AT_ONCE
    }

    #[test]
    fn work_that_follows_closely_is_mostly_there_when_it_is_asked_for() {
        let mut spin = Spin::default();
        for _ in 0..200 {
            ask(&mut spin, 12 * US);
        }
        let slept = (0..1_000).filter(|_| ask(&mut spin, 12 * US)).count();
        assert!((1..500).contains(&slept), "{slept} sleeps");
        assert!(spin.wait() >= 9 * US && spin.wait() <= 12 * US, "{:?}", spin.wait());
    }

    #[test]
    fn one_request_that_comes_late_makes_the_next_ones_hardly_later() {
        let mut spin = Spin::default();
        for _ in 0..200 {
            ask(&mut spin, 12 * US);
        }
        ask(&mut spin, 45 * US);
        assert!(spin.wait() < 15 * US, "{:?}", spin.wait());
    }

    #[test]
    fn rare_work_is_not_waited_for_awake() {
        let mut spin = Spin::default();
        ask(&mut spin, 12 * US);
        assert!(spin.wait() > Duration::ZERO);
        ask(&mut spin, 2_000 * US);
        assert_eq!(spin.wait(), Duration::ZERO);
        ask(&mut spin, 51 * US);
        assert_eq!(spin.wait(), Duration::ZERO);
        spin.asked(LONGEST, LONGEST, 0);
        assert_eq!(spin.wait(), Duration::ZERO);
    }
}

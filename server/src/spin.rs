//! Whether to look for work a little longer before sleeping: waking up takes longer
//! than answering a small request.

use std::time::Duration;

/// The longest look. What comes later is not worth a processor's time.
const LONGEST: Duration = Duration::from_micros(50);
/// A shorter look finds nothing that the call itself would not find.
const SHORTEST: Duration = Duration::from_micros(5);

/// How long to look for work before sleeping, learned from how long sleeps were: as
/// long as requests follow each other closely the longest, each time in vain half
/// as long, and in the end not at all.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Spin {
    budget: Duration,
}

impl Spin {
    /// How long to look now; zero = not at all.
    pub(crate) fn budget(&self) -> Duration {
        self.budget
    }

    /// Nothing came while we looked.
    pub(crate) fn missed(&mut self) {
        self.budget = if self.budget / 2 < SHORTEST { Duration::ZERO } else { self.budget / 2 };
    }

    /// Something came after a sleep of this length.
    pub(crate) fn woken(&mut self, slept: Duration) {
        if slept < LONGEST {
            self.budget = LONGEST;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_work_that_follows_closely_is_waited_for_awake() {
        let mut spin = Spin::default();
        assert_eq!(spin.budget(), Duration::ZERO);
        spin.woken(Duration::from_millis(2));
        assert_eq!(spin.budget(), Duration::ZERO);
        spin.woken(Duration::from_micros(20));
        assert_eq!(spin.budget(), LONGEST);
        let looks = std::iter::from_fn(|| {
            spin.missed();
            Some(spin.budget()).filter(|budget| !budget.is_zero())
        });
        assert!(looks.count() < 5, "an idle server sleeps soon");
    }
}

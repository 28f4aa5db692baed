//! Time per call, as the middle of several runs.

use std::time::{Duration, Instant};

/// How long to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Long enough for figures that can be written down.
    Full,
    /// Once, to see that it works.
    Tiny,
}

impl Effort {
    /// Runs of which the middle one counts.
    pub(crate) fn runs(self) -> usize {
        match self {
            Self::Full => 9,
            Self::Tiny => 1,
        }
    }

    /// How many calls each run has, of `most` that a full one has.
    pub(crate) fn calls(self, most: usize) -> usize {
        match self {
            Self::Full => most,
            Self::Tiny => most.min(64),
        }
    }
}

/// Nanoseconds per call: the middle of `runs` runs, each of which says how long
/// it took for how many calls.
pub(crate) fn nanoseconds(runs: usize, mut run: impl FnMut() -> (Duration, usize)) -> f64 {
    let mut all: Vec<f64> = (0..runs)
        .map(|_| {
            let (took, calls) = run();
            took.as_nanos() as f64 / calls as f64
        })
        .collect();
    all.sort_by(f64::total_cmp);
    all[runs / 2]
}

/// How long `work` took.
pub(crate) fn timed(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

//! How long operations took.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::snapshot::Latency;

/// What is told apart: microseconds up to an hour, within 1 %. What takes longer
/// counts as an hour.
const LONGEST: Duration = Duration::from_secs(3_600);
const DIGITS: u8 = 2;

/// The latencies of one kind of operation. Memory is taken with the first.
#[derive(Default)]
pub(super) struct Latencies(Mutex<Option<Histogram<u64>>>);

impl std::fmt::Debug for Latencies {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Latencies")
    }
}

impl Latencies {
    pub(super) fn enter(&self, took: Duration) {
        let mut histogram = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let histogram = histogram.get_or_insert_with(|| {
            let bounded = Histogram::new_with_bounds(1, micros(LONGEST), DIGITS);
            bounded.expect("an hour in microseconds at two digits is within its limits")
        });
        histogram.saturating_record(micros(took).max(1));
    }

    pub(super) fn snapshot(&self) -> Latency {
        let histogram = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(histogram) = &*histogram else { return Latency::default() };
        let at = |quantile| Duration::from_micros(histogram.value_at_quantile(quantile));
        Latency {
            count: histogram.len(),
            p50: at(0.50),
            p90: at(0.90),
            p99: at(0.99),
            max: Duration::from_micros(histogram.max()),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_within_a_hundredth_of_what_was_entered() {
        let latencies = Latencies::default();
        assert_eq!(latencies.snapshot(), Latency::default());
        for millis in 1..=1_000 {
            latencies.enter(Duration::from_millis(millis));
        }
        let found = latencies.snapshot();
        assert_eq!(found.count, 1_000);
        for (found, wanted) in
            [(found.p50, 500.0), (found.p90, 900.0), (found.p99, 990.0), (found.max, 1_000.0)]
        {
            let away = found.as_secs_f64() * 1_000.0 / wanted - 1.0;
            assert!(away.abs() < 0.01, "{found:?} for {wanted} ms");
        }
    }

    #[test]
    fn what_takes_no_time_or_for_ever_is_counted_too() {
        let latencies = Latencies::default();
        latencies.enter(Duration::ZERO);
        latencies.enter(Duration::MAX);
        let found = latencies.snapshot();
        assert_eq!((found.count, found.p50), (2, Duration::from_micros(1)));
        assert!(found.max >= LONGEST && found.max < LONGEST * 101 / 100, "{found:?}");
    }
}

//! When a request may be sent again, and how long to wait before.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::environment::Environment;

/// Attempts at one request, the first included.
pub(crate) const ATTEMPTS_MAX: u32 = 3;

/// What a request pays in, and a retry or hedge takes out: one in ten.
const DEPOSIT: u64 = 1;
const PRICE: u64 = 10;
/// Retries that a quiet client may make at once.
const BURST: u64 = 10 * PRICE;

const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_LAST: Duration = Duration::from_secs(2);

/// A token bucket over all requests of a client: retries and hedges together
/// are at most a tenth of the requests, so that a struggling cluster is not
/// drowned by those who wait for it.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    tokens: AtomicU64,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { tokens: AtomicU64::new(BURST) }
    }
}

impl RetryBudget {
    /// Notes a first attempt.
    pub(crate) fn note_request(&self) {
        let deposit = |tokens: u64| (tokens < BURST).then_some(tokens + DEPOSIT);
        let _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, deposit);
    }

    /// Takes what one retry or hedge costs; false when there is too little left.
    pub(crate) fn try_spend(&self) -> bool {
        let spend = |tokens: u64| tokens.checked_sub(PRICE);
        self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }
}

/// The wait before attempt number `attempt` (the first retry is 1), with full jitter.
pub(crate) fn backoff(environment: &Environment, attempt: u32) -> Duration {
    let most = BACKOFF_FIRST.saturating_mul(1 << attempt.clamp(1, 16).saturating_sub(1));
    environment.jittered(most.min(BACKOFF_LAST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_tenth_of_the_requests_after_the_burst() {
        let budget = RetryBudget::default();
        let burst = (0..1_000).filter(|_| budget.try_spend()).count();
        assert_eq!(burst as u64, BURST / PRICE);
        let mut retries = 0;
        for _ in 0..1_000 {
            budget.note_request();
            retries += u32::from(budget.try_spend());
        }
        assert_eq!(retries, 100);
    }

    #[test]
    fn quiet_hours_do_not_save_up_more_than_the_burst() {
        let budget = RetryBudget::default();
        (0..100_000).for_each(|_| budget.note_request());
        assert_eq!((0..1_000).filter(|_| budget.try_spend()).count() as u64, BURST / PRICE);
    }

    #[test]
    fn waits_grow_and_end() {
        let environment = Environment::default();
        for attempt in 1..40 {
            let most = BACKOFF_LAST.min(BACKOFF_FIRST * 2_u32.pow(attempt.min(8) - 1));
            assert!(backoff(&environment, attempt) <= most);
        }
    }
}

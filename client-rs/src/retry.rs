//! When a request may be sent again, and how long to wait before.
//!
//! | sending | counts as |
//! |---|---|
//! | of a request, for the first time, over a connection | a request: pays into the budget |
//! | of nothing, because no connection can be made | nothing: no server has work with it |
//! | of the same request to the same server, after it failed there or was answered BUSY | a retry: taken from the budget, three attempts at most, full jitter before each |
//! | of a read to a second server while the first still works on it | a hedge: taken from the budget |
//! | of a piece of a stripe to the *next* replica, after one failed, or was given up: in a stream outrun by another while it had this piece to give, or far too late | a failover: free, and pays nothing in |
//! | of a look at a head or a set to the next server | a request of its own: free, and pays in |
//!
//! A failover is what replicas are for, and must not be refused by an empty
//! budget. It needs none: it goes to each server that may answer once, and a
//! server that failed is asked last from then on, so that a dead server costs
//! each request under way one failover and the later ones none. Going round the
//! same servers a second time is a retry.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::deadline::{Deadline, pause_within};
use crate::environment::Environment;

/// Attempts at one request on one server, the first included.
pub(crate) const ATTEMPTS_MAX: u32 = 3;

/// What a request pays in, and a retry or hedge takes out: one in ten.
const DEPOSIT: u64 = 1;
const PRICE: u64 = 10;
/// Retries that a quiet client may make at once: so that a lone command gets
/// over a connection that breaks.
const BURST: u64 = 10 * PRICE;

const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_LAST: Duration = Duration::from_secs(2);

/// A token bucket over all requests of a client: retries and hedges together
/// are at most a tenth of the requests, so that a struggling cluster is not
/// drowned by those who wait for it.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    tokens: AtomicU64,
    retries: AtomicU64,
}

/// The attempts made at one request on one server.
#[derive(Debug)]
#[must_use = "attempts are counted to end them"]
pub(crate) struct Attempts {
    /// The one under way is counted.
    made: u32,
    is_noted: bool,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { tokens: AtomicU64::new(BURST), retries: AtomicU64::new(0) }
    }
}

impl RetryBudget {
    /// Counts the attempts at a request from now on. It pays in when it is noted.
    pub(crate) fn first_attempt(&self) -> Attempts {
        Attempts { made: 1, is_noted: false }
    }

    /// As [`RetryBudget::first_attempt`], at a request in the place of one that was given
    /// up: it pays nothing in.
    pub(crate) fn failover(&self) -> Attempts {
        Attempts { made: 1, is_noted: true }
    }

    /// Notes that there is a connection to send the request over. It pays in once,
    /// however often it is sent.
    pub(crate) fn note(&self, attempts: &mut Attempts) {
        if !std::mem::replace(&mut attempts.is_noted, true) {
            let deposit = |tokens: u64| (tokens < BURST).then_some(tokens + DEPOSIT);
            let _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, deposit);
        }
    }

    /// Whether a request that had no effect may be sent to the same server
    /// again; waits before that, at least `at_least`. False, without waiting,
    /// when it was sent three times, when the budget is spent, and when the
    /// deadline would be over.
    pub(crate) async fn again(
        &self,
        attempts: &mut Attempts,
        environment: &Environment,
        at_least: Duration,
        deadline: Deadline,
    ) -> bool {
        if attempts.made >= ATTEMPTS_MAX || !self.try_spend() {
            return false;
        }
        let pause = at_least + backoff(environment, attempts.made);
        attempts.made += 1;
        let goes_on = pause_within(deadline, pause).await;
        self.retries.fetch_add(u64::from(goes_on), Ordering::Relaxed);
        goes_on
    }

    /// How many requests were sent again so far.
    pub(crate) fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Takes what one retry or hedge costs; false when there is too little left.
    pub(crate) fn try_spend(&self) -> bool {
        let spend = |tokens: u64| tokens.checked_sub(PRICE);
        self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }
}

/// The wait behind attempt number `attempt` (the first is 1), with full jitter.
pub(crate) fn backoff(environment: &Environment, attempt: u32) -> Duration {
    let most = BACKOFF_FIRST.saturating_mul(1 << attempt.clamp(1, 16).saturating_sub(1));
    environment.jittered(most.min(BACKOFF_LAST))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn sent(budget: &RetryBudget) -> Attempts {
        let mut attempts = budget.first_attempt();
        budget.note(&mut attempts);
        attempts
    }

    #[test]
    fn retries_are_a_tenth_of_the_requests_after_the_burst() {
        let budget = RetryBudget::default();
        let burst = (0..1_000).filter(|_| budget.try_spend()).count();
        assert_eq!(burst as u64, BURST / PRICE);
        let mut retries = 0;
        for _ in 0..1_000 {
            let mut attempts = sent(&budget);
            budget.note(&mut attempts);
            retries += u32::from(budget.try_spend());
        }
        assert_eq!(retries, 100, "each request pays in once");
    }

    #[test]
    fn requests_that_are_not_sent_pay_nothing_in() {
        let budget = RetryBudget::default();
        while budget.try_spend() {}
        (0..1_000).for_each(|_| drop(budget.first_attempt()));
        assert!(!budget.try_spend());
    }

    #[test]
    fn failovers_pay_nothing_in() {
        let budget = RetryBudget::default();
        while budget.try_spend() {}
        (0..1_000).for_each(|_| budget.note(&mut budget.failover()));
        assert!(!budget.try_spend());
    }

    #[test]
    fn quiet_hours_do_not_save_up_more_than_the_burst() {
        let budget = RetryBudget::default();
        (0..100_000).for_each(|_| drop(sent(&budget)));
        assert_eq!((0..1_000).filter(|_| budget.try_spend()).count() as u64, BURST / PRICE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_sent_three_times_at_most_and_waits_between() {
        let (budget, environment) = (RetryBudget::default(), Environment::default());
        let mut attempts = sent(&budget);
        let (start, at_least) = (Instant::now(), Duration::from_millis(300));
        assert!(budget.again(&mut attempts, &environment, at_least, None).await);
        assert!(budget.again(&mut attempts, &environment, at_least, None).await);
        let waited = start.elapsed();
        assert!(waited >= 2 * at_least && waited <= 2 * at_least + 3 * BACKOFF_FIRST);
        assert!(!budget.again(&mut attempts, &environment, at_least, None).await);
        assert_eq!(start.elapsed(), waited, "the refusal comes at once");
    }

    #[tokio::test(start_paused = true)]
    async fn no_retry_is_waited_for_when_the_budget_or_the_time_is_spent() {
        let (budget, environment) = (RetryBudget::default(), Environment::default());
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut attempts = budget.first_attempt();
        let deadline = Some(start + second / 2);
        assert!(!budget.again(&mut attempts, &environment, second, deadline).await);
        while budget.try_spend() {}
        let mut attempts = budget.first_attempt();
        assert!(!budget.again(&mut attempts, &environment, Duration::ZERO, None).await);
        assert_eq!(start.elapsed(), Duration::ZERO);
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

//! How fast things are tried again.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::random::random_fraction;

/// The pauses between tries that fail: each up to twice as long as the last one, with
/// jitter, so that many who failed at once do not come back at once.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    last: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, last: Duration) -> Self {
        Self { first, last, next: first }
    }

    /// The pause before the next try.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = jittered(self.next);
        self.next = (self.next * 2).min(self.last);
        pause
    }

    /// The last try went well.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// From half of `most` to `most`.
pub(crate) fn jittered(most: Duration) -> Duration {
    most / 2 + (most / 2).mul_f64(random_fraction())
}

/// Keeps the begins of rounds apart, whatever is asked of it: a service that says at
/// once, again and again, that something changed is not asked more often than that.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// Waits until a round may begin, and notes that it does. Two rounds are `apart`
    /// at least, and up to half as much again.
    pub(crate) async fn round(&self, apart: Duration) {
        let begin = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = next.map_or_else(Instant::now, |next| next.max(Instant::now()));
            *next = Some(begin + apart + (apart / 2).mul_f64(random_fraction()));
            begin
        };
        sleep_until(begin).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_last_and_begin_anew() {
        let (first, last) = (Duration::from_millis(200), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, last);
        for most in [200, 400, 800, 1000, 1000] {
            let most = Duration::from_millis(most);
            let pause = backoff.pause();
            assert!((most / 2..=most).contains(&pause), "{pause:?}");
        }
        backoff.reset();
        assert!(backoff.pause() <= first);
    }

    #[tokio::test]
    async fn rounds_are_apart_and_the_first_begins_at_once() {
        let (pace, apart) = (Pace::default(), Duration::from_millis(20));
        let began = Instant::now();
        pace.round(apart).await;
        assert!(began.elapsed() < apart);
        for _ in 0..5 {
            pace.round(apart).await;
        }
        assert!(began.elapsed() >= apart * 5);
    }
}

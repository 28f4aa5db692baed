//! How long to wait: without a byte of progress, with too few, or at all.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use rampuddle_protocol::limits::{PROGRESS_BYTES, PROGRESS_WINDOW_MS};
use tokio::time::{Instant, timeout_at};

const WINDOW: Duration = Duration::from_millis(PROGRESS_WINDOW_MS);

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    /// No byte, or too few, for this long.
    Patience(Duration),
    /// The caller's deadline.
    Deadline,
}

/// The progress of one frame: a peer that trickles bytes, each within the
/// client's patience, is given up all the same. Looks at the time only when
/// the socket makes it wait.
#[derive(Debug, Default)]
pub(super) struct Pace {
    window: Option<Instant>,
    bytes: u64,
}

impl Pace {
    /// Notes bytes that moved.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Waits for `future` at most for `patience`, and until `deadline`. Makes no
    /// timer when the future is ready at once.
    pub(super) async fn wait<F: Future>(
        &mut self,
        patience: Duration,
        deadline: Option<Instant>,
        future: F,
    ) -> Result<F::Output, Waited> {
        let mut future = pin!(future);
        let at_once = poll_fn(|context| Poll::Ready(future.as_mut().poll(context)));
        if let Poll::Ready(output) = at_once.await {
            return Ok(output);
        }
        let now = Instant::now();
        self.check(now)?;
        let patient = now + patience;
        let until = deadline.map_or(patient, |deadline| deadline.min(patient));
        let reason = if until < patient { Waited::Deadline } else { Waited::Patience(patience) };
        timeout_at(until, future).await.map_err(|_| reason)
    }

    fn check(&mut self, now: Instant) -> Result<(), Waited> {
        match self.window {
            Some(start) if now - start >= WINDOW => {
                if self.bytes < PROGRESS_BYTES {
                    return Err(Waited::Patience(WINDOW));
                }
                *self = Self { window: Some(now), bytes: 0 };
            }
            Some(_) => {}
            // Waiting for the first byte is no lack of progress.
            None if self.bytes == 0 => {}
            None => self.window = Some(now),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn silence_ends_with_patience_and_the_deadline_comes_first() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let waited = pace.wait(PATIENCE, None, pending::<()>()).await;
        assert_eq!(waited, Err(Waited::Patience(PATIENCE)));
        assert_eq!(start.elapsed(), PATIENCE);
        let deadline = Some(Instant::now() + Duration::from_secs(1));
        assert_eq!(pace.wait(PATIENCE, deadline, pending::<()>()).await, Err(Waited::Deadline));
        assert_eq!(pace.wait(PATIENCE, deadline, ready(7)).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_ends_with_the_window_and_a_slow_stream_does_not() {
        for (bytes, is_enough) in [(1, false), (PROGRESS_BYTES as usize, true)] {
            let mut pace = Pace::default();
            let mut outcome = Ok(());
            for _ in 0..10 {
                let slow = tokio::time::sleep(Duration::from_secs(4));
                if let Err(waited) = pace.wait(PATIENCE, None, slow).await {
                    outcome = Err(waited);
                    break;
                }
                pace.moved(bytes);
            }
            let expected = if is_enough { Ok(()) } else { Err(Waited::Patience(WINDOW)) };
            assert_eq!(outcome, expected);
        }
    }
}

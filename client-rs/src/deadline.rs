//! When an operation must be done: one moment for all that it asks of servers.
//!
//! Every public operation, raw or of objects, begins with
//! [`Core::deadline_from_now`](crate::client::Core::deadline_from_now) and hands
//! the moment down: to [`RawClient::until`](crate::raw::RawClient), to
//! `Server::acquire`. Nothing below draws another one. Frames carry
//! what is left of it. What goes on in the background after an operation has
//! ended (renewals, releases, cleaning up) is no part of it, and has none.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The moment by which an operation must be done; `None` = as long as bytes move.
pub(crate) type Deadline = Option<Instant>;

/// Waits for `pause`. False, at once, when the deadline is over before its end:
/// there would be no time left for what was to follow.
pub(crate) async fn pause_within(deadline: Deadline, pause: Duration) -> bool {
    let end = Instant::now() + pause;
    if deadline.is_some_and(|deadline| deadline <= end) {
        return false;
    }
    sleep_until(end).await;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_would_outlast_the_deadline_is_not_begun() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        assert!(pause_within(None, second).await);
        assert!(pause_within(Some(Instant::now() + 2 * second), second).await);
        assert_eq!(start.elapsed(), 2 * second);
        assert!(!pause_within(Some(Instant::now() + second), second).await);
        assert_eq!(start.elapsed(), 2 * second);
    }
}

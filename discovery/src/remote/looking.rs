//! Waiting for a change at a service that may be gone without a word.

use tokio::time::{Instant, sleep_until};

use super::keeper::HEARTBEAT;
use super::pace::jittered;
use crate::error::DiscoveryError;

/// Waits for `news`, and looks about once a heartbeat whether the service answers and still
/// has what was read: it may be gone without a word, and so may the connection that the
/// news would come over, and a part of the service may be cut off from the rest. `look`
/// says whether all is as it was read, and has a time limit of its own. Nothing when one
/// finds something else, or when two fail, one behind the other: then all is to be read
/// again, which tells what is wrong. One alone may be late because the service has much
/// to do, and reading all would be more of it.
pub(crate) async fn news_or_look<T, L>(
    news: impl Future<Output = T>,
    look: impl Fn() -> L,
) -> Option<T>
where
    L: Future<Output = Result<bool, DiscoveryError>>,
{
    let looking = async {
        let (mut next, mut failed) = (Instant::now() + jittered(HEARTBEAT), false);
        loop {
            sleep_until(next).await;
            // Behind one that waited for its time to end there is another one at once.
            next = Instant::now() + jittered(HEARTBEAT);
            match look().await {
                Ok(true) => failed = false,
                Err(_) if !failed => failed = true,
                Ok(false) | Err(_) => return,
            }
        }
    };
    tokio::select! {
        news = news => Some(news),
        () = looking => None,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::pending;

    use super::*;

    async fn looks_until_read_again(script: &[Result<bool, ()>]) -> usize {
        let left = RefCell::new(script.iter());
        let look = || async {
            let next = left.borrow_mut().next().expect("no look behind the last");
            next.map_err(|()| DiscoveryError::Stopped)
        };
        assert!(news_or_look(pending::<()>(), look).await.is_none());
        script.len() - left.borrow().len()
    }

    #[tokio::test(start_paused = true)]
    async fn two_looks_that_fail_one_behind_the_other_mean_that_all_is_read_again() {
        let (same, other, failed) = (Ok(true), Ok(false), Err(()));
        assert_eq!(looks_until_read_again(&[same, other]).await, 2);
        assert_eq!(looks_until_read_again(&[failed, failed]).await, 2);
        assert_eq!(looks_until_read_again(&[failed, same, failed, same, failed, failed]).await, 6);
        assert_eq!(looks_until_read_again(&[failed, other]).await, 2);
    }
}

//! Waiting for a change at a service that may be gone without a word.

use tokio::time::sleep;

use super::keeper::HEARTBEAT;
use super::pace::jittered;
use crate::error::DiscoveryError;

/// Waits for `news`, and looks about once a heartbeat whether the service answers and still
/// has what was read: it may be gone without a word, and so may the connection that the
/// news would come over, and a part of the service may be cut off from the rest. `look`
/// says whether all is as it was read, and has a time limit of its own. Nothing when a
/// look fails or finds something else: then all is to be read again, which tells what is
/// wrong.
pub(crate) async fn news_or_look<T, L>(
    news: impl Future<Output = T>,
    look: impl Fn() -> L,
) -> Option<T>
where
    L: Future<Output = Result<bool, DiscoveryError>>,
{
    let looking = async {
        loop {
            sleep(jittered(HEARTBEAT)).await;
            if !look().await.is_ok_and(|is_as_read| is_as_read) {
                return;
            }
        }
    };
    tokio::select! {
        news = news => Some(news),
        () = looking => None,
    }
}

//! Calls on files, away from the runtime's own threads.

use std::panic::resume_unwind;

use crate::error::DiscoveryError;

/// Runs `work` on a blocking thread. Costs a hand-over of some ten
/// microseconds; fails with [`DiscoveryError::Stopped`] when the runtime ends.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DiscoveryError> + Send + 'static,
) -> Result<T, DiscoveryError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_cancelled) => Err(DiscoveryError::Stopped),
        },
    }
}

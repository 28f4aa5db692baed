//! Waiting for something, and being slow on purpose.

use std::thread;
use std::time::{Duration, Instant};

/// How long to rest between two looks.
const LOOK: Duration = Duration::from_millis(1);

/// Asks `condition` again and again until it is true.
///
/// # Panics
/// When it is not within `limit`; `what` says what was waited for.
#[track_caller]
pub fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < limit, "waited {limit:?} in vain: {what}");
        thread::park_timeout(LOOK);
    }
}

/// Does nothing for `duration`: the slowness of a hostile peer, or the window of
/// a measurement. Never used to wait for something to happen.
pub fn pace(duration: Duration) {
    let end = Instant::now() + duration;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    {
        thread::park_timeout(left);
    }
}

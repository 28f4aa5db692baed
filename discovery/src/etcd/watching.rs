//! Waiting for changes by a watch, from the revision of the last reading on. Whatever
//! ends a watch means that all is read again: also a compaction, after which etcd does
//! not know any more what changed. Beside it is looked whether all is as it was read, once
//! a heartbeat: a member may be gone without a word, and one that is cut off from the
//! others goes on with its watches, and tells nothing.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::api::{Api, Reading};
use super::json::Watched;
use crate::error::DiscoveryError;
use crate::remote::http::{CALL_LIMIT, bad};
use crate::remote::looking::news_or_look;
use crate::remote::pace::{Backoff, Pace, jittered};

/// How long one watch lasts.
const LASTS: Duration = Duration::from_secs(10);
/// Between the begins of two rounds.
const APART: Duration = Duration::from_millis(50);
/// The longest pause after a watch that ended for nothing.
const PAUSE_LAST: Duration = Duration::from_secs(2);

/// What is known of a cluster.
#[derive(Debug)]
pub(super) struct Watching {
    /// Nothing before the first reading.
    known: Mutex<Reading>,
    pace: Pace,
    absurd: Mutex<Backoff>,
}

/// What came of a watch.
enum News {
    Changed,
    /// It ended for nothing: what is known is of another time.
    ReadAgain,
}

impl Default for Watching {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            pace: Pace::default(),
            absurd: Mutex::new(Backoff::new(APART, PAUSE_LAST)),
        }
    }
}

impl Watching {
    /// Notes a reading: changes are those after it.
    pub(super) fn read(&self, reading: Reading) {
        *self.known() = reading;
    }

    /// Resolves when something may have changed since the last reading.
    pub(super) async fn changed(&self, api: &Api, root: &str) -> Result<(), DiscoveryError> {
        loop {
            self.pace.round(APART).await;
            let known = *self.known();
            let look = || api.is_as_read(root, known);
            let news = news_or_look(watch(api, root, known.revision), look).await;
            let Some(news) = news else { return Ok(()) };
            match news? {
                Some(News::Changed) => {
                    self.absurd().reset();
                    return Ok(());
                }
                Some(News::ReadAgain) => {
                    let pause = self.absurd().pause();
                    sleep(pause).await;
                    return Ok(());
                }
                None => {}
            }
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Reading> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn absurd(&self) -> std::sync::MutexGuard<'_, Backoff> {
        self.absurd.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches for a while; nothing when nothing happened.
async fn watch(api: &Api, root: &str, known: i64) -> Result<Option<News>, DiscoveryError> {
    if known <= 0 {
        // Nothing was read yet.
        return Ok(Some(News::ReadAgain));
    }
    let end = Instant::now() + jittered(LASTS);
    let mut messages = api.watch(root, known + 1).await?;
    let mut is_created = false;
    loop {
        let until = if is_created { end } else { Instant::now() + CALL_LIMIT };
        let Ok(message) = timeout_at(until, messages.next()).await else {
            return if is_created { Ok(None) } else { Err(silent(api)) };
        };
        let message = message?;
        if let Some(failure) = message.error {
            return Err(api.ended(&failure.message));
        }
        let missing = || bad("watch keys", api.service(), "a message has no result");
        let message = message.result.ok_or_else(missing)?;
        if let Some(news) = news_of(api, &message, known)? {
            return Ok(Some(news));
        }
        is_created = true;
    }
}

fn news_of(api: &Api, message: &Watched, known: i64) -> Result<Option<News>, DiscoveryError> {
    if message.canceled && message.compact_revision.0 > 0 {
        return Ok(Some(News::ReadAgain));
    }
    if message.canceled {
        return Err(api.ended(&message.cancel_reason));
    }
    if !message.events.is_empty() {
        return Ok(Some(News::Changed));
    }
    // Its data was wiped: the revision that is waited for may be far away.
    Ok((message.header.revision.0 < known).then_some(News::ReadAgain))
}

fn silent(api: &Api) -> DiscoveryError {
    DiscoveryError::TimedOut { backend: api.service().to_owned(), waited: CALL_LIMIT }
}

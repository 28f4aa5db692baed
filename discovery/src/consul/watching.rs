//! Waiting for changes by blocking queries, as Consul documents them: an index that goes
//! backwards starts anew, and what answers at once without anything new is asked less and
//! less often. Beside them it is looked at the index alone, once a heartbeat: an agent, its
//! way to the servers, or a connection may be gone without a word.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::time::{Instant, sleep};

use super::api::Api;
use crate::error::DiscoveryError;
use crate::remote::looking::news_or_look;
use crate::remote::pace::{Backoff, Pace, jittered};

/// How long one query may block.
const WAIT: Duration = Duration::from_secs(10);
/// Between the begins of two rounds.
const APART: Duration = Duration::from_millis(50);
/// An answer without anything new that comes sooner than this is none of Consul's.
const SOON: Duration = Duration::from_secs(1);
/// The longest pause after such answers.
const PAUSE_LAST: Duration = Duration::from_secs(2);

/// What is known of the two indexes of a cluster.
#[derive(Debug)]
pub(super) struct Watching {
    known: Mutex<Indexes>,
    pace: Pace,
    absurd: Mutex<Backoff>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Indexes {
    keys: u64,
    services: u64,
}

/// What an answer says about its index.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Changed,
    Nothing,
    Backwards,
}

impl News {
    fn of(known: u64, answered: u64) -> Self {
        match answered.cmp(&known) {
            // What never was read may always have changed; an index is at least 1.
            _ if known == 0 => Self::Changed,
            std::cmp::Ordering::Greater => Self::Changed,
            std::cmp::Ordering::Equal => Self::Nothing,
            std::cmp::Ordering::Less => Self::Backwards,
        }
    }
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
    /// Notes the indexes of a reading: changes are those after it.
    pub(super) fn read(&self, keys: u64, services: u64) {
        *self.known() = Indexes { keys, services };
    }

    /// Resolves when something may have changed since the last reading.
    pub(super) async fn changed(
        &self,
        api: &Api,
        root: &str,
        service: &str,
        tag: &str,
    ) -> Result<(), DiscoveryError> {
        loop {
            self.pace.round(APART).await;
            let known = *self.known();
            let began = Instant::now();
            let wait = jittered(WAIT);
            let news = async {
                let keys = Box::pin(api.wait_for_keys(root, known.keys, wait));
                let services = Box::pin(api.wait_for_passing(service, tag, known.services, wait));
                match select(keys, services).await {
                    Either::Left((answered, _)) => answered.map(|now| News::of(known.keys, now)),
                    Either::Right((answered, _)) => {
                        answered.map(|now| News::of(known.services, now))
                    }
                }
            };
            // Whatever becomes of a server, its key is written or removed.
            let look = || async move { Ok(api.index_of_keys(root).await? <= known.keys) };
            let Some(news) = news_or_look(news, look).await else { return Ok(()) };
            match news? {
                // A zero is no index: whoever answers it is not to be asked often.
                News::Changed if known.keys > 0 && known.services > 0 => {
                    self.absurd().reset();
                    return Ok(());
                }
                News::Nothing if began.elapsed() >= SOON => self.absurd().reset(),
                News::Nothing => self.pause().await,
                News::Changed | News::Backwards => {
                    *self.known() = Indexes::default();
                    self.pause().await;
                    return Ok(());
                }
            }
        }
    }

    async fn pause(&self) {
        let pause = self.absurd().pause();
        sleep(pause).await;
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Indexes> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn absurd(&self) -> std::sync::MutexGuard<'_, Backoff> {
        self.absurd.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_goes_backwards_is_not_taken_for_a_quiet_one() {
        assert_eq!(News::of(7, 8), News::Changed);
        assert_eq!(News::of(7, 7), News::Nothing);
        assert_eq!(News::of(7, 6), News::Backwards);
        assert_eq!(News::of(0, 0), News::Changed);
    }
}

//! Keeps a server known to others, on a thread of its own, and takes it back
//! when the server is asked to stop.

use std::collections::HashSet;
use std::fmt;
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rampuddle_client::{Random as _, SystemRandom, settings_fingerprint};
use rampuddle_discovery::{
    Announcement, Backend, DiscoveryError, JoinRequest, Joined, Living, Settings, Snapshot, join,
    join_again, record,
};
use rampuddle_protocol::Announced;
use rampuddle_server::Told;
use tokio::time::{sleep, timeout};

use crate::exit::is_settings_error;
use crate::probe::asking_for;

/// The first pause after discovery failed; it doubles up to the last, which is short
/// enough for a server to be back within two seconds of the service.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_LAST: Duration = Duration::from_secs(1);
/// The least time between two looks at what discovery says.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Discovery is looked at so often though it tells of no change.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often in a row the server is looked for in vain before something is done: an
/// announcement that was lost mostly comes back by itself.
const MISSES_MAX: u32 = 2;
/// How long discovery may take to forget the server.
const WITHDRAW_PATIENCE: Duration = Duration::from_secs(2);

/// What happened to the announcement.
#[derive(Debug)]
pub(crate) enum News {
    /// The server is announced.
    Announced {
        /// What the user should know.
        notes: Vec<String>,
        /// Whether it had been announced before and was lost.
        is_again: bool,
    },
    /// Discovery fails; the announcer keeps trying.
    Failing(DiscoveryError),
    /// Discovery took the announcement, and does not show the server. It is not announced
    /// again for that.
    NotShown {
        /// What discovery says of it, if it does.
        complaint: Option<String>,
    },
    /// Discovery answers again, or shows the server after all.
    Answering,
    /// The registry had lost what it kept of the cluster; it was written again.
    Recorded,
}

/// How discovery is opened. That is done anew after a failure: the place, or files that
/// the URL names, may have been made anew as well.
type Open = Box<dyn Fn() -> Result<Arc<dyn Backend>, DiscoveryError> + Send + Sync>;

/// Announces a server.
pub(crate) struct Announcer {
    open: Open,
    request: JoinRequest,
    told: Told,
    random: SystemRandom,
    backend: Option<Arc<dyn Backend>>,
    announcement: Option<Announcement>,
    was_announced: bool,
    /// Whether discovery took the announcement and does not show the server.
    is_not_shown: bool,
    failures: u32,
    /// The kinds of failures that were told since the last good answer.
    told_of: HashSet<Discriminant<DiscoveryError>>,
}

impl fmt::Debug for Announcer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Announcer").field("request", &self.request).finish_non_exhaustive()
    }
}

impl Announcer {
    /// An announcer that has not begun. When settings are created is its own
    /// business, whatever the request says.
    pub(crate) fn new(
        open: impl Fn() -> Result<Arc<dyn Backend>, DiscoveryError> + Send + Sync + 'static,
        request: JoinRequest,
        told: Told,
    ) -> Self {
        Self {
            open: Box::new(open),
            request,
            told,
            random: SystemRandom::default(),
            backend: None,
            announcement: None,
            was_announced: false,
            is_not_shown: false,
            failures: 0,
            told_of: HashSet::new(),
        }
    }

    /// Announces the server and watches over it for ever; returns only when
    /// the cluster refuses the server, which never was a part of it. Safe to
    /// drop at any moment.
    pub(crate) async fn keep(&mut self, mut tell: impl FnMut(News)) -> DiscoveryError {
        loop {
            match self.join().await {
                Ok(joined) => {
                    self.announcement = Some(joined.announcement);
                    self.answered(&joined.settings, !self.is_not_shown);
                    let is_again = std::mem::replace(&mut self.was_announced, true);
                    tell(News::Announced { notes: joined.notes, is_again });
                    self.until_lost(&mut tell).await;
                    self.told.announced(Announced::No);
                    self.withdraw().await;
                }
                Err(error) if is_settings_error(&error) && !self.was_announced => return error,
                Err(error) => self.failed(error, &mut tell).await,
            }
        }
    }

    /// Takes the announcement back, as far as discovery answers in time.
    pub(crate) async fn withdraw(&mut self) {
        if let Some(announcement) = self.announcement.take() {
            match timeout(WITHDRAW_PATIENCE, announcement.withdraw()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!("cannot withdraw: {}", error.explained()),
                Err(_) => tracing::warn!("cannot withdraw: no answer in {WITHDRAW_PATIENCE:?}"),
            }
        }
    }

    /// Only a server that starts asks whoever has its name: one that was a part of the
    /// cluster leaves the name to who took it.
    async fn join(&mut self) -> Result<Joined, DiscoveryError> {
        let (backend, request) = (self.backend()?, self.request_now());
        if self.was_announced {
            return join_again(&*backend, &request).await;
        }
        let name = &self.request.living.name;
        join(&*backend, &request, &asking_for(name, self.cluster())).await
    }

    /// Returns when the announcement is to be made anew: discovery, asked whenever it
    /// changes, no longer has the server. Writes again what else it lost, and tells the
    /// server the settings that it finds: a list is edited while servers run, and clients
    /// follow it.
    async fn until_lost(&mut self, tell: &mut impl FnMut(News)) {
        let (mut misses, mut was_seen) = (0, false);
        loop {
            let snapshot = match self.look().await {
                Ok(snapshot) => snapshot,
                // A service that gives no answer has not lost anything yet.
                Err(error) => {
                    self.failed(error, tell).await;
                    continue;
                }
            };
            let found = snapshot.alive(&self.request.living.name);
            let is_seen = found.is_some_and(|found| self.is_us(found));
            misses = if is_seen { 0 } else { misses + 1 };
            was_seen |= is_seen;
            if misses >= MISSES_MAX {
                if was_seen || found.is_some() || !self.is_kept_up() {
                    return;
                }
                self.not_shown(&snapshot, tell);
            } else if !is_seen {
                self.rest().await;
                continue;
            }
            match self.recorded(&snapshot, tell).await {
                Ok(settings) => {
                    let is_news = is_seen && (self.failures > 0 || self.is_not_shown);
                    self.is_not_shown &= !is_seen;
                    self.answered(&settings, is_seen);
                    if is_news {
                        tell(News::Answering);
                    }
                }
                Err(error) => {
                    self.failed(error, tell).await;
                    continue;
                }
            }
            self.until_changed().await;
            self.rest().await;
        }
    }

    /// To make the announcement again would change nothing, and is a change that all who
    /// watch hear of.
    fn not_shown(&mut self, found: &Snapshot, tell: &mut impl FnMut(News)) {
        self.told.announced(Announced::No);
        if !std::mem::replace(&mut self.is_not_shown, true) {
            let ours = format!("server \"{}\"", self.request.living.name);
            let names_us = |complaint: &&String| complaint.contains(&ours);
            let complaints = &found.complaints;
            let complaint = complaints.iter().find(names_us).or(complaints.first());
            tell(News::NotShown { complaint: complaint.cloned() });
        }
    }

    fn is_kept_up(&self) -> bool {
        self.announcement.as_ref().is_some_and(Announcement::is_kept_up)
    }

    /// However often something changes, there is a while between two looks.
    async fn rest(&self) {
        sleep(LOOK_PAUSE / 2 + self.jitter(LOOK_PAUSE / 2)).await;
    }

    async fn look(&mut self) -> Result<Snapshot, DiscoveryError> {
        self.backend()?.snapshot().await
    }

    /// The cluster's settings, written again if they or the server's own record are gone.
    async fn recorded(
        &mut self,
        found: &Snapshot,
        tell: &mut impl FnMut(News),
    ) -> Result<Settings, DiscoveryError> {
        let name = &self.request.member.name;
        let has_member = found.member(name).is_some() || found.unreadable.contains(name);
        if let Some(settings) = found.settings.clone().filter(|_| has_member) {
            return Ok(settings);
        }
        let settings = record(&*self.backend()?, &self.request_now()).await?;
        tell(News::Recorded);
        Ok(settings)
    }

    /// Returns when something may have changed, and now and then.
    async fn until_changed(&mut self) {
        let Ok(backend) = self.backend() else { return };
        // What fails, fails again when it is looked at.
        let _ = timeout(LOOK_EVERY, backend.changed()).await;
    }

    /// Discovery answers, and has the server, or does not show it.
    fn answered(&mut self, settings: &Settings, is_seen: bool) {
        self.failures = 0;
        self.told_of.clear();
        self.told.settings(settings_fingerprint(settings));
        self.told.announced(if is_seen { Announced::Yes } else { Announced::No });
    }

    /// Tells of the first failure of each kind in a row, and waits before the next
    /// attempt.
    async fn failed(&mut self, error: DiscoveryError, tell: &mut impl FnMut(News)) {
        self.backend = None;
        self.told.announced(Announced::No);
        if self.told_of.insert(discriminant(&error)) {
            tell(News::Failing(error));
        }
        sleep(self.pause()).await;
        self.failures = self.failures.saturating_add(1);
    }

    fn backend(&mut self) -> Result<Arc<dyn Backend>, DiscoveryError> {
        if let Some(backend) = &self.backend {
            return Ok(Arc::clone(backend));
        }
        let backend = (self.open)()?;
        self.backend = Some(Arc::clone(&backend));
        Ok(backend)
    }

    /// Settings that are written now are new, however long this server runs: others may
    /// be missing from that place still.
    fn request_now(&self) -> JoinRequest {
        let mut request = self.request.clone();
        request.settings_if_first.created_unix_ms = unix_ms();
        request
    }

    fn cluster(&self) -> &str {
        &self.request.settings_if_first.cluster
    }

    /// A written list does not know incarnations.
    fn is_us(&self, found: &Living) -> bool {
        found.incarnation.is_none() || found.incarnation == self.request.living.incarnation
    }

    fn pause(&self) -> Duration {
        let doubled = PAUSE_FIRST * (1 << self.failures.min(8));
        let most = doubled.min(PAUSE_LAST);
        most / 2 + self.jitter(most / 2)
    }

    /// From nothing to `most`.
    fn jitter(&self, most: Duration) -> Duration {
        most.mul_f64((self.random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests;

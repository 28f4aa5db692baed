//! Keeps a server known to others, on a thread of its own, and takes it back
//! when the server is asked to stop.

use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rampuddle_client::{Random as _, SystemRandom, settings_fingerprint};
use rampuddle_discovery::{
    Announcement, DiscoveryError, Id, JoinRequest, Joined, Living, join, open,
};
use rampuddle_server::ToldSettings;
use tokio::time::{sleep, timeout};

use crate::exit::is_settings_error;
use crate::probe::incarnation_at;

/// The first pause after discovery failed; it doubles up to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_LAST: Duration = Duration::from_secs(5);
/// How often the announcement is looked at: a directory can be wiped.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long discovery may take to forget the server.
const WITHDRAW_PATIENCE: Duration = Duration::from_secs(2);

type Asking = Pin<Box<dyn Future<Output = Option<Id>> + Send>>;

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
}

/// Announces a server.
#[derive(Debug)]
pub(crate) struct Announcer {
    url: String,
    request: JoinRequest,
    told: ToldSettings,
    random: SystemRandom,
    announcement: Option<Announcement>,
    was_announced: bool,
}

impl Announcer {
    /// An announcer that has not begun. When settings are created is its own
    /// business, whatever the request says.
    pub(crate) fn new(url: String, request: JoinRequest, told: ToldSettings) -> Self {
        let random = SystemRandom::default();
        Self { url, request, told, random, announcement: None, was_announced: false }
    }

    /// Announces the server and watches over it for ever; returns only when
    /// the cluster refuses the server, which never was a part of it. Safe to
    /// drop at any moment.
    pub(crate) async fn keep(&mut self, mut tell: impl FnMut(News)) -> DiscoveryError {
        let mut failures = 0;
        loop {
            match self.join().await {
                Ok(joined) => {
                    failures = 0;
                    self.announcement = Some(joined.announcement);
                    self.told.tell(settings_fingerprint(&joined.settings));
                    let is_again = std::mem::replace(&mut self.was_announced, true);
                    tell(News::Announced { notes: joined.notes, is_again });
                    self.until_lost().await;
                    self.announcement = None;
                }
                Err(error) if is_settings_error(&error) && !self.was_announced => return error,
                Err(error) => {
                    if failures == 0 {
                        tell(News::Failing(error));
                    }
                    sleep(self.pause(failures)).await;
                    failures += 1;
                }
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

    /// Opened anew each time: the place may have been made anew as well. Settings
    /// that are written then are new too, however long this server runs: others
    /// may be missing from that place still.
    async fn join(&self) -> Result<Joined, DiscoveryError> {
        let mut request = self.request.clone();
        request.settings_if_first.created_unix_ms = unix_ms();
        let cluster = &self.request.settings_if_first.cluster;
        let backend = open(&self.url, cluster)?;
        let probe =
            |address: String| -> Asking { Box::pin(incarnation_at(address, cluster.clone())) };
        join(&*backend, &request, &probe).await
    }

    /// Returns when discovery, asked now and then, no longer has the server. Tells
    /// it the settings that it finds: a list is edited while servers run, and clients
    /// follow it.
    async fn until_lost(&self) {
        let cluster = &self.request.settings_if_first.cluster;
        loop {
            sleep(LOOK_EVERY + self.jitter(LOOK_EVERY)).await;
            // A service that gives no answer has not lost anything yet.
            let Ok(backend) = open(&self.url, cluster) else { continue };
            let Ok(snapshot) = backend.snapshot().await else { continue };
            if let Some(settings) = &snapshot.settings {
                self.told.tell(settings_fingerprint(settings));
            }
            if !snapshot.alive(&self.request.living.name).is_some_and(|found| self.is_us(found)) {
                return;
            }
        }
    }

    /// A written list does not know incarnations.
    fn is_us(&self, found: &Living) -> bool {
        found.incarnation.is_none() || found.incarnation == self.request.living.incarnation
    }

    fn pause(&self, failures: u32) -> Duration {
        let doubled = PAUSE_FIRST * (1 << failures.min(8));
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

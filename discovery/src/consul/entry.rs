//! A living server in Consul: a service of the agent, a session tied to its check, and
//! the key that the session holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use tokio::time::{Instant, sleep};

use super::api::Api;
use super::json::{Check, Meta, Pair, Registration};
use crate::error::DiscoveryError;
use crate::model::Living;
use crate::records;
use crate::remote::keeper::{Beat, Entry, HEARTBEAT, LEASE};

/// Consul removes services that are down after this; it takes no less.
const DEREGISTER_AFTER: &str = "1m";
/// How long a check may take from the agent to Consul's servers. Mostly some
/// milliseconds; an agent whose own token lets it write less than it wants (its node) has
/// to begin again after a while.
const CHECK_PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked for meanwhile.
const CHECK_INTERVAL: Duration = Duration::from_millis(25);
/// How often a name is tried for that turns out to be free after all.
const CLAIMS_MAX: usize = 5;

/// Each announcement of this process is a service of its own: the end of one must not be
/// taken for that of the next.
static ANNOUNCEMENTS: AtomicU64 = AtomicU64::new(0);

/// Where an entry is.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) api: Arc<Api>,
    pub(super) key: String,
    pub(super) cluster: String,
    pub(super) service: String,
    pub(super) tags: Vec<String>,
}

/// The entry of a server of this process.
#[derive(Debug)]
pub(super) struct ConsulEntry {
    place: Place,
    living: Living,
    value: Vec<u8>,
    id: String,
    session: Option<String>,
}

/// What a server's service says about it.
pub(super) fn meta(cluster: &str, living: &Living) -> Meta {
    Meta {
        cluster: cluster.to_owned(),
        name: living.name.clone(),
        incarnation: living.incarnation.map(|id| id.to_string()).unwrap_or_default(),
    }
}

impl ConsulEntry {
    /// Takes the name for a server; fails when another lives under it. What was begun
    /// ends by itself when this is dropped half way.
    pub(super) async fn begin(place: Place, living: &Living) -> Result<Self, DiscoveryError> {
        let value = records::to_bytes(&place.key, living)?;
        let id = service_id(&place, living);
        let mut entry = Self { place, living: living.clone(), value, id, session: None };
        entry.check_free(false).await?;
        match entry.take(false).await {
            Ok(()) => Ok(entry),
            Err(error) => {
                let _ = entry.end().await;
                Err(error)
            }
        }
    }

    /// Registers the service and takes the name by a new session.
    async fn take(&mut self, is_ours: bool) -> Result<(), DiscoveryError> {
        self.register().await?;
        let session = self.create_session().await?;
        self.session = Some(session.clone());
        for _ in 0..CLAIMS_MAX {
            let Place { api, key, .. } = &self.place;
            if api.acquire(key, &session, &self.value).await? {
                return Ok(());
            }
            self.check_free(is_ours).await?;
        }
        Err(self.taken(None))
    }

    /// Fails when another server has the name. With `is_ours` what an earlier session of
    /// this same incarnation holds is let go.
    async fn check_free(&self, is_ours: bool) -> Result<(), DiscoveryError> {
        let Some(pair) = self.place.api.get(&self.place.key).await? else { return Ok(()) };
        match pair.session.as_deref().filter(|session| !session.is_empty()) {
            None => Ok(()),
            Some(session) if is_ours && self.is_of_us(&pair) => {
                self.place.api.destroy_session(session).await
            }
            Some(_) => Err(self.taken(self.holder(&pair))),
        }
    }

    fn holder(&self, pair: &Pair) -> Option<Living> {
        records::living(&self.place.key, &self.living.name, &pair.value.0).ok()
    }

    /// Whether our session holds the key, or an earlier one of this incarnation does.
    fn is_of_us(&self, pair: &Pair) -> bool {
        let is_ours = |holder: Living| holder.incarnation == self.living.incarnation;
        pair.session == self.session || self.holder(pair).is_some_and(is_ours)
    }

    fn taken(&self, holder: Option<Living>) -> DiscoveryError {
        DiscoveryError::NameTaken {
            name: self.living.name.clone(),
            address: holder.as_ref().map(Living::address).unwrap_or_default(),
            incarnation: holder.and_then(|holder| holder.incarnation),
        }
    }

    async fn register(&self) -> Result<(), DiscoveryError> {
        let tcp = self.living.tcp.as_deref().and_then(|tcp| tcp.rsplit_once(':'));
        let (address, port) = tcp.unwrap_or_default();
        let mut tags = vec![self.place.cluster.clone()];
        tags.extend(self.place.tags.iter().cloned());
        let registration = Registration {
            id: self.id.clone(),
            name: self.place.service.clone(),
            tags,
            address: address.trim_matches(['[', ']']).to_owned(),
            port: port.parse().unwrap_or(0),
            meta: meta(&self.place.cluster, &self.living),
            check: Check {
                ttl: format!("{}s", LEASE.as_secs()),
                deregister_after: DEREGISTER_AFTER,
                status: "passing",
            },
        };
        self.place.api.register(&registration).await
    }

    /// A check comes to Consul's servers a moment after it came to the agent, and must not
    /// run out meanwhile.
    async fn create_session(&self) -> Result<String, DiscoveryError> {
        let deadline = Instant::now() + CHECK_PATIENCE;
        let mut passed = Instant::now();
        loop {
            if passed.elapsed() >= HEARTBEAT {
                self.pass().await?;
                passed = Instant::now();
            }
            let name = format!("rampuddle {}", self.living.name);
            if let Some(session) = self.place.api.create_session(&name, &self.check()).await? {
                return Ok(session);
            }
            if Instant::now() >= deadline {
                let backend = self.place.api.service().to_owned();
                return Err(DiscoveryError::TimedOut { backend, waited: CHECK_PATIENCE });
            }
            sleep(CHECK_INTERVAL).await;
        }
    }

    fn check(&self) -> String {
        format!("service:{}", self.id)
    }

    /// Lets the check pass; registers again with an agent that forgot.
    async fn pass(&self) -> Result<(), DiscoveryError> {
        if self.place.api.pass(&self.check()).await? {
            return Ok(());
        }
        self.register().await
    }

    async fn renew(&self) -> Result<Beat, DiscoveryError> {
        self.pass().await?;
        let Some(pair) = self.place.api.get(&self.place.key).await? else {
            return Ok(Beat::Lost);
        };
        let is_as_written = pair.session == self.session && pair.value.0 == self.value;
        Ok(match pair.is_held() {
            true if is_as_written => Beat::Alive,
            true if !self.is_of_us(&pair) => Beat::Taken,
            _ => Beat::Lost,
        })
    }

    async fn take_again(&mut self) -> Result<(), DiscoveryError> {
        self.check_free(true).await?;
        self.end_session().await?;
        self.pass().await?;
        self.take(true).await
    }

    async fn end_session(&mut self) -> Result<(), DiscoveryError> {
        if let Some(session) = &self.session {
            self.place.api.destroy_session(session).await?;
        }
        self.session = None;
        Ok(())
    }

    /// Both are tried: either ends the entry.
    async fn end(&mut self) -> Result<(), DiscoveryError> {
        let ended = self.end_session().await;
        let taken_back = self.place.api.deregister(&self.id).await;
        ended.and(taken_back)
    }
}

fn service_id(place: &Place, living: &Living) -> String {
    let number = ANNOUNCEMENTS.fetch_add(1, Ordering::Relaxed) + 1;
    let incarnation = living.incarnation.map(|id| id.to_string()).unwrap_or_default();
    let incarnation = incarnation.get(..8).unwrap_or("unknown");
    format!("{}-{}-{}-{incarnation}-{number}", place.service, place.cluster, living.name)
}

impl Entry for ConsulEntry {
    fn name(&self) -> String {
        format!("\"{}\" at {}", self.living.name, self.place.api.service())
    }

    fn beat(&mut self) -> BoxFuture<'_, Result<Beat, DiscoveryError>> {
        self.renew().boxed()
    }

    fn claim(&mut self) -> BoxFuture<'_, Result<(), DiscoveryError>> {
        self.take_again().boxed()
    }

    fn release(&mut self) -> BoxFuture<'_, Result<(), DiscoveryError>> {
        self.end().boxed()
    }
}

//! How a client finds its cluster and behaves.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rampuddle_discovery::{Backend, KeptView, Snapshot, masked};
use rampuddle_protocol::limits::{HEAD_LEASE_MS, UPLOAD_LEASE_MS};
use serde::{Deserialize, Serialize};

use crate::environment::Environment;
use crate::error::Error;
use crate::token::Token;

/// Where the members are kept.
#[derive(Clone)]
pub enum DiscoverySource {
    /// As `rampuddle_discovery::open` takes it.
    Url(String),
    /// A back end that is open already.
    Backend(Arc<dyn Backend>),
}

impl fmt::Debug for DiscoverySource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => write!(formatter, "Url({:?})", masked(url)),
            Self::Backend(backend) => write!(formatter, "Backend({:?})", backend.url()),
        }
    }
}

/// Where a client keeps the last good view of its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ViewFile {
    /// Nowhere.
    None,
    /// In the user's cache, for services that can be down: see
    /// [`KeptView::usual`](rampuddle_discovery::KeptView::usual).
    #[default]
    Usual,
    /// There.
    At(PathBuf),
}

impl ViewFile {
    /// The file of a cluster by the back end with this URL (without secrets, see
    /// [`Backend::url`]), if there is one.
    pub fn of(&self, url: String, cluster: &str) -> Option<KeptView> {
        match self {
            Self::None => None,
            Self::Usual => KeptView::usual(&url, cluster),
            Self::At(path) => Some(KeptView::new(path, url, cluster)),
        }
    }
}

/// Memory kept for the next reads unless asked otherwise.
const BUFFER_BYTES: usize = 512 << 20;
/// The shortest lease that can be renewed in time.
const UPLOAD_LEASE_MIN: Duration = Duration::from_secs(1);

/// How many owners must have an object before a write counts as acked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WritePolicy {
    /// All of them.
    #[default]
    All,
    /// More than half.
    Quorum,
    /// One.
    One,
}

/// A text that names no write policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected one of all, quorum, one")]
#[non_exhaustive]
pub struct UnknownPolicy;

impl FromStr for WritePolicy {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        match text {
            "all" => Ok(Self::All),
            "quorum" => Ok(Self::Quorum),
            "one" => Ok(Self::One),
            _ => Err(UnknownPolicy),
        }
    }
}

impl WritePolicy {
    /// Copies that make a write of `wanted` a success.
    pub(crate) fn needed(self, wanted: usize) -> usize {
        match self {
            Self::All => wanted,
            Self::Quorum => wanted / 2 + 1,
            Self::One => wanted.min(1),
        }
    }
}

/// Options of a [`Client`](crate::Client), each with a default.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Where the members are kept. No default: see [`Options::new`].
    pub discovery: DiscoverySource,
    /// The cluster's name; servers of another are refused.
    pub cluster: String,
    /// The token to show, for servers that want one. With a token, servers that
    /// want none are refused.
    pub token: Option<Token>,
    /// Connections to each server at most, 1 to 1,024; a few of them are kept
    /// for small requests.
    pub connections_per_server: usize,
    /// How long a server may move no byte.
    pub patience: Duration,
    /// How long each call may take in all; `None` = as long as bytes move.
    pub deadline: Option<Duration>,
    /// How long discovery may take for its first answer.
    pub discovery_patience: Duration,
    /// What discovery said a moment ago, for who has asked the open back end already: the
    /// client then does not ask again.
    pub discovery_answer: Option<Snapshot>,
    /// Where the last good view is kept, for a start while discovery is down: then the
    /// client begins with it after a second.
    pub view_file: ViewFile,
    /// Copies of each object, 1 to 255; 255 = one on every member. `None` = the
    /// usual: 2, or one on every member where the cluster's strategy is `clone`,
    /// which has no other number.
    pub replicas: Option<u8>,
    /// When a write counts as acked.
    pub write: WritePolicy,
    /// Read values of servers on this machine where they lie, in the servers' own
    /// memory, when they allow that: see [`Value::is_mapped`](crate::Value::is_mapped).
    /// True unless set otherwise.
    pub map: bool,
    /// How long the stripes of an unfinished upload outlive a client that died.
    pub upload_lease: Duration,
    /// Memory of values that were read and dropped, and of sources that were put, that
    /// is kept for the next ones, at most: fresh memory costs as much as reading into
    /// it. The system takes it back when it needs it.
    pub buffer_bytes: usize,
    /// Time, randomness and connections.
    pub environment: Environment,
}

impl Options {
    /// The defaults, with the discovery URL of the cluster.
    pub fn new(discovery_url: impl Into<String>) -> Self {
        Self::with_source(DiscoverySource::Url(discovery_url.into()))
    }

    /// The defaults, with a back end that is open already.
    pub fn with_backend(backend: Arc<dyn Backend>) -> Self {
        Self::with_source(DiscoverySource::Backend(backend))
    }

    fn with_source(discovery: DiscoverySource) -> Self {
        Self {
            discovery,
            cluster: "default".to_owned(),
            token: None,
            connections_per_server: 8,
            patience: Duration::from_secs(5),
            deadline: None,
            discovery_patience: Duration::from_secs(10),
            discovery_answer: None,
            view_file: ViewFile::Usual,
            replicas: None,
            write: WritePolicy::All,
            map: true,
            upload_lease: Duration::from_millis(UPLOAD_LEASE_MS),
            buffer_bytes: BUFFER_BYTES,
            environment: Environment::default(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let bad =
            |option, found: String, expected| Err(Error::BadOption { option, found, expected });
        if !(1..=1_024).contains(&self.connections_per_server) {
            let found = self.connections_per_server.to_string();
            return bad("connections_per_server", found, "1 to 1,024");
        }
        if self.patience.is_zero() {
            return bad("patience", "0 s".to_owned(), "more than nothing");
        }
        if !(UPLOAD_LEASE_MIN..=Duration::from_millis(HEAD_LEASE_MS)).contains(&self.upload_lease) {
            let found = format!("{:?}", self.upload_lease);
            return bad("upload_lease", found, "1 s to 24 h");
        }
        if self.replicas == Some(0) {
            return bad("replicas", "0".to_owned(), "1 to 255");
        }
        if rampuddle_discovery::validate::name(&self.cluster).is_err() {
            let expected = "1 to 64 of A-Z a-z 0-9 . _ -";
            return bad("cluster", format!("{:?}", self.cluster), expected);
        }
        Ok(())
    }
}

//! The sentences that every back end must pass, as functions.
//!
//! A back end's own test says how to open it over an empty service and what it
//! can do; [`run`] panics at the first sentence that does not hold.
//!
//! ```
//! use rampuddle_discovery::conformance::{Capability, Service, run};
//! use rampuddle_discovery::open;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let empty_service = || {
//!     let folder = tempfile::tempdir().unwrap();
//!     Service::new(move |cluster| {
//!         open(&format!("dir:{}", folder.path().display()), cluster).unwrap()
//!     })
//! };
//! let report = run(empty_service, Capability::Records).await;
//! println!("{}", report.told("dir", "a file system"));
//! # }
//! ```

mod listed;
mod planted;
mod recorded;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::backend::Backend;
use crate::id::Id;
use crate::model::{Living, Snapshot};

/// How soon a watcher must see a change.
pub const VISIBLE_WITHIN: Duration = Duration::from_secs(1);

/// How long a check waits for what must happen anyway.
const PATIENCE: Duration = Duration::from_secs(10);

/// A discovery service with nothing in it, or with a fixed list of members;
/// the closure may own what is to be cleaned up afterwards.
pub struct Service {
    open: Box<Open>,
    plant: Option<Box<Plant>>,
    planted_bytes_max: usize,
}

type Open = dyn Fn(&str) -> Arc<dyn Backend> + Send + Sync;
type Plant = dyn Fn(Record<'_>, &str) + Send + Sync;

/// A record of the cluster `lab`, as a JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record<'a> {
    /// The cluster's settings.
    Settings,
    /// The member of that name.
    Member(&'a str),
    /// The living server of that name.
    Living(&'a str),
}

impl Service {
    /// Takes the function that opens a back end for a cluster of that name.
    pub fn new(open: impl Fn(&str) -> Arc<dyn Backend> + Send + Sync + 'static) -> Self {
        Self { open: Box::new(open), plant: None, planted_bytes_max: usize::MAX }
    }

    /// Takes the function that puts any text in the place of a record, as a broken
    /// program would, so that back ends see it from then on; one of the living is
    /// alive until the service is dropped. What the back end itself keeps around
    /// such a text (a revision) stays sound.
    #[must_use]
    pub fn planting(self, plant: impl Fn(Record<'_>, &str) + Send + Sync + 'static) -> Self {
        Self { plant: Some(Box::new(plant)), ..self }
    }

    /// The longest text that the service itself takes: longer ones are cut before they
    /// are planted.
    #[must_use]
    pub fn planting_at_most(self, bytes: usize) -> Self {
        Self { planted_bytes_max: bytes, ..self }
    }

    fn plant(&self, record: Record<'_>, text: &str) {
        let plant = self.plant.as_ref().expect("only a service that can is asked to");
        let end = text.floor_char_boundary(self.planted_bytes_max);
        plant(record, &text[..end]);
    }

    /// A back end object of its own for a cluster.
    fn open(&self, cluster: &str) -> Arc<dyn Backend> {
        (self.open)(cluster)
    }

    /// For sentences about one cluster only.
    fn backend(&self) -> Arc<dyn Backend> {
        self.open("lab")
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Service").finish_non_exhaustive()
    }
}

/// What a back end can do, hence which sentences apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Capability {
    /// It records members and the living. The service must be empty. Sentences
    /// about records that make no sense apply when it is [`Service::planting`].
    Records,
    /// It shows a written list. The list must have at least two members, not
    /// written in order of their names, and with literal IP addresses.
    Lists,
}

/// A sentence in words, and its check.
struct Sentence {
    text: &'static str,
    check: fn(Service) -> BoxFuture<'static, ()>,
}

/// What was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The sentences that hold.
    pub sentences: Vec<&'static str>,
}

impl Report {
    /// The line that tells of a run, which `tests/conformance.sh` looks for: which back end
    /// was checked, and against what of which version.
    pub fn told(&self, backend: &str, against: &str) -> String {
        format!("conforms: {backend}, {against}: {self}")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} sentences hold", self.sentences.len())
    }
}

/// Checks every sentence that applies, each over a service of its own.
///
/// # Panics
/// When one does not hold, naming it; or when there was nothing to check.
pub async fn run(make: impl Fn() -> Service, capability: Capability) -> Report {
    let sentences = match capability {
        Capability::Records => recorded::SENTENCES,
        Capability::Lists => listed::SENTENCES,
    };
    let planted = if make().plant.is_some() { planted::SENTENCES } else { &[] };
    let mut holding = Vec::new();
    for sentence in sentences.iter().chain(planted) {
        println!("conformance: {}", sentence.text);
        (sentence.check)(make()).await;
        holding.push(sentence.text);
    }
    assert!(!holding.is_empty(), "no sentence was checked");
    Report { sentences: holding }
}

/// A living server for the checks.
fn node(name: &str, port: u16, incarnation: u8) -> Living {
    let address = format!("127.0.0.1:{port}");
    Living::at(name, address, Id([incarnation; 16]))
}

async fn snapshot(backend: &dyn Backend) -> Snapshot {
    let snapshot = backend.snapshot().await;
    snapshot.expect("a service that is up gives a snapshot")
}

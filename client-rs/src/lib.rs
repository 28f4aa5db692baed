//! RamPuddle's client library: the memory of a cluster as one shared place for
//! large files.
//!
//! ```
//! use rampuddle_client::{Client, GetOptions, Options, PutOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let server = rampuddle_server::Server::bind(
//! #     rampuddle_server::Options::new("node-1", "default", 64 << 20),
//! # )?;
//! # let url = format!("static:node-1={}", server.local_address().unwrap());
//! # let stopper = server.stopper();
//! # let running = std::thread::spawn(move || server.run());
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! // `Options::from_env()` takes what the command `puddle` takes.
//! let mut options = Options::new(url);
//! options.replicas = Some(2);
//! let client = Client::connect(options).await?;
//!
//! let weights = vec![7; 5_000_000];
//! let report = client.put(b"weights", weights.clone(), &PutOptions::default()).await?;
//! assert_eq!((report.bytes, report.is_short()), (5_000_000, false));
//!
//! // The whole object, or a part of it; `None` = there is none, which every
//! // server that may have it has confirmed.
//! let value = client.get(b"weights", &GetOptions::default()).await?.expect("just put");
//! assert_eq!(value.into_bytes(), weights);
//! let part = client.get_range(b"weights", 10..20, &GetOptions::default()).await?;
//! assert_eq!(part.expect("still there").into_bytes(), [7; 10][..]);
//!
//! let mut listing = client.list(b"w");
//! while let Some(object) = listing.next().await {
//!     assert_eq!(object?.bytes, 5_000_000);
//! }
//! client.delete(b"weights").await?;
//! assert!(client.get(b"weights", &GetOptions::default()).await?.is_none());
//! # Ok::<_, rampuddle_client::Error>(())
//! # })?;
//! # stopper.stop();
//! # running.join().unwrap()?;
//! # Ok(())
//! # }
//! ```
//!
//! Programs without an async runtime use [`blocking::Client`]. What a client has
//! done is in [`Client::metrics`], and in spans at level DEBUG. Servers know
//! nothing of each other: placement, striping, replication and checksums are all
//! done here. More examples, each a program: `client-rs/examples`.
//!
//! ```text
//!   Client ---- View <-------- discovery (members, the living)
//!     |
//!     +-- objects: put, get, list, delete
//!     |
//!     +-- raw()  four operations on values, batches of any size
//!           |        placement: key -> slot -> members by rank
//!           |
//!           +-- Server (per member): pool, health, incarnation
//!                 |
//!                 +-- Connection: one operation at a time, pipelined frames,
//!                     bytes from the socket straight into the caller's buffer
//! ```
//!
//! There is no thread and no task per connection: whoever waits for an answer
//! reads it. Dropping the future of a call closes the connections that it used.
//!
//! Ways to find a cluster are features, all on by default: `consul`, `etcd`, `zookeeper`, `dns`
//! (`srv:` and `dns:`). `dir:`, `file:` and `static:` are always there.

#![deny(unsafe_code)]

pub mod blocking;
mod buffers;
mod client;
mod clocks;
pub mod configuration;
mod connection;
mod deadline;
mod environment;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing {
    //! What fuzzers feed. It may change with any version.

    pub use crate::object::fuzzing::{Block, Head, VariablePart, packed, read_head, unpacked};
    pub use crate::raw::fuzzing::{Conversation, Question, converse};
}
mod mapping;
mod membership;
mod metrics;
mod object;
mod offsets;
mod options;
mod placement;
mod raw;
mod retry;
mod server;
mod servers;
mod token;
mod token_file;
mod transport;
mod version_clock;
mod view;
mod work;
mod workers;

#[cfg(test)]
#[path = "../tests/client/support.rs"]
mod support;

pub use client::{Client, Node};
pub use configuration::{ConfigFile, Configuration, ConfigurationError};
pub use environment::{Clock, Environment, Random, SeededRandom, SystemClock, SystemRandom};
pub use error::{Error, Fate, Misbehaviour};
pub use metrics::{Latency, Metrics, OperationKind, OperationMetrics, OperationOutcome};
pub use object::{
    Codec, CompareOptions, Comparison, CopyPlace, CopyState, DeleteReport, GetOptions, GetReport,
    Listing, Located, Metadata, ObjectStat, Orphans, Progress, PutCondition, PutOptions, PutReport,
    RangeOf, Source, Unreadable, Value, Verification, Verified, VerifyOptions, VerifyState,
};
pub use options::{DiscoverySource, Options, UnknownPolicy, ViewFile, WritePolicy};
pub use placement::{Slot, settings_fingerprint};
pub use raw::{
    Answer, CreateItem, DeleteItem, DropItem, GatherItem, Info, ListPage, ListQuery, RawClient,
    ScatterItem, StatAnswer, Target,
};
pub use token::{Token, TokenError};
pub use transport::{Address, Connector, Duplex, Stream, TcpUnixConnector};
pub use view::{View, ViewMember};

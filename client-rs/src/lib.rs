//! RamPuddle's client library: placement, replication and striping over servers
//! that know nothing of each other.
//!
//! ```text
//!   Client ---- View <-------- discovery (members, the living)
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
//! ```no_run
//! use rampuddle_client::{Client, CreateItem, GatherItem, Options, Target};
//!
//! # async fn example() -> Result<(), rampuddle_client::Error> {
//! let client = Client::connect(Options::new("static:node-1=127.0.0.1:7440")).await?;
//! let raw = client.raw();
//! let made = raw.create(&Target::Placement, vec![CreateItem::new("key", "bytes")]).await;
//! assert!(made[0].as_ref().is_ok_and(|answer| answer.status.is_success()));
//! let read = raw.gather(&Target::Placement, vec![GatherItem::whole("key")]).await;
//! assert!(read[0].as_ref().is_ok_and(|answer| &answer.bytes[..] == b"bytes"));
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_code)]

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
mod membership;
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
mod workers;

#[cfg(test)]
#[path = "../tests/client/support.rs"]
mod support;

pub use client::{Client, Node};
pub use configuration::{ConfigFile, Configuration, ConfigurationError};
pub use environment::{Clock, Environment, Random, SeededRandom, SystemClock, SystemRandom};
pub use error::{Error, Fate, Misbehaviour};
pub use object::{
    Codec, CompareOptions, Comparison, CopyPlace, CopyState, DeleteReport, GetOptions, GetReport,
    Listing, Located, Metadata, ObjectStat, Orphans, Progress, PutCondition, PutOptions, PutReport,
    RangeOf, Source, Unreadable, Value, Verification, Verified, VerifyOptions, VerifyState,
};
pub use options::{DiscoverySource, Options, UnknownPolicy, WritePolicy};
pub use placement::{Slot, settings_fingerprint};
pub use raw::{
    Answer, CreateItem, DeleteItem, DropItem, GatherItem, Info, ListPage, ListQuery, RawClient,
    ScatterItem, StatAnswer, Target,
};
pub use token::{Token, TokenError};
pub use transport::{Address, Connector, Duplex, Stream, TcpUnixConnector};
pub use view::{View, ViewMember};

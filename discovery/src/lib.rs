//! Who is a member of a cluster, and who is alive.
//!
//! Two things are kept apart. **Members** (name, weight, zone, state) are
//! persistent, change by compare-and-set, and alone decide where keys are
//! placed. The **living** (addresses, incarnation) are ephemeral: an entry goes
//! with its process. So a restart of a server moves nothing.
//!
//! One URL picks the [`Backend`] that keeps both:
//!
//! | URL | what | written to by programs |
//! |---|---|---|
//! | `static:NAME=HOST:PORT*WEIGHT,...?strategy=WORD` | a list on the command line; the strategy `rendezvous` unless given | no |
//! | `file:PATH` | a list in TOML, watched | no |
//! | `dir:PATH` | a directory of one machine, locks for the living | yes |
//! | `consul://TOKEN@HOST:PORT/SERVICE` | keys of Consul; services of the local agent for the living | yes |
//! | `etcd://USER:PASSWORD@HOST:PORT,.../PREFIX` | keys of etcd; those with a lease for the living | yes |
//! | `zk://HOST:PORT,HOST:PORT/PATH` | ZooKeeper 3.6 or later; feature `zookeeper` | yes |
//! | `srv:NAME?server=ADDRESS:PORT&strategy=WORD` | SRV records in DNS; feature `dns` | no |
//! | `dns:NAME?members=FILE&server=ADDRESS:PORT` | a list in TOML, and the addresses that a name in DNS has for the living; feature `dns` | no |
//!
//! ```text
//!   server: join() ----> Backend <---- snapshot(), changed() ---- Watch :client
//!             |             |                                       |
//!        Announcement   dir: file: ...                      the last good view
//!   (alive until dropped)
//! ```
//!
//! A [`Watch`] never lets an empty, failing or garbled answer shrink a view
//! that works. Everything that comes from outside passes [`validate`]; an
//! entry that makes no sense is left out with one line in
//! [`Snapshot::complaints`]. Looking creates nothing: a place that no server
//! ever wrote to is an empty snapshot, without settings.
//!
//! Back ends run on a tokio runtime with time and I/O enabled; calls on files
//! are made on its blocking threads.
//!
//! ```
//! use std::time::Duration;
//! use rampuddle_discovery::{Id, JoinRequest, Living, Member, Settings, Watch, join, open};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let url = format!("dir:{}", folder.path().display());
//! // A server joins; the closure asks whoever answers at an address who it is.
//! let backend = open(&url, "lab")?;
//! let request = JoinRequest::new(
//!     Settings::new("lab", 1_767_225_600_000),
//!     Member::ready("node-1", 4.0),
//!     Living::at("node-1", "127.0.0.1:7000", Id([7; 16])),
//! );
//! let joined = join(&*backend, &request, &|_address| Box::pin(async { None })).await?;
//!
//! // A client watches.
//! let mut watch = Watch::start(open(&url, "lab")?, Duration::from_secs(5)).await?;
//! assert_eq!(watch.current().members[0].value.weight, 4.0);
//! assert!(watch.current().alive("node-1").is_some());
//!
//! // The server stops: no longer alive, still a member.
//! joined.announcement.withdraw().await?;
//! while watch.current().alive("node-1").is_some() {
//!     watch.changed().await;
//! }
//! assert!(watch.current().member("node-1").is_some());
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod assemble;
mod backend;
mod blocking;
pub mod conformance;
#[cfg(feature = "consul")]
mod consul;
mod default_directory;
mod dir;
#[cfg(feature = "dns")]
mod dns;
mod document;
mod error;
#[cfg(feature = "etcd")]
mod etcd;
mod events;
mod file;
mod forget;
mod host;
mod id;
mod join;
mod keeping;
mod kept_view;
mod listed;
mod model;
mod random;
mod records;
#[cfg(feature = "service")]
mod remote;
mod resolve;
mod static_list;
mod text;
mod url;
pub mod validate;
mod watch;
#[cfg(feature = "zookeeper")]
mod zookeeper;

pub use backend::{Announcement, Backend, Withdraw};
#[cfg(feature = "consul")]
pub use consul::ConsulBackend;
pub use default_directory::{create_default_directory, default_url, has_default_directory};
pub use dir::DirBackend;
#[cfg(feature = "dns")]
pub use dns::{DnsBackend, SrvBackend};
pub use error::DiscoveryError;
#[cfg(feature = "etcd")]
pub use etcd::EtcdBackend;
pub use file::FileBackend;
pub use forget::forget;
pub use host::host_id;
pub use id::{BadId, Id};
pub use join::{JoinRequest, Joined, Probe, join, join_again, record};
pub use kept_view::KeptView;
pub use model::{
    Living, Member, MemberState, Recorded, Revision, Settings, Snapshot, Strategy, UnknownWord,
};
pub use resolve::resolve;
pub use static_list::StaticBackend;
pub use url::{UrlProblem, is_beyond_this_machine, is_loopback, masked, open, place_of};
pub use watch::{Watch, WatchStart};
#[cfg(feature = "zookeeper")]
pub use zookeeper::ZooKeeperBackend;

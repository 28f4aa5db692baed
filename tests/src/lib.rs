//! What whole-system tests are made of: real `puddle serve` processes on port 0,
//! a blocking client that sends exactly what it is told, an oracle that knows
//! every byte, a canary that must never wait, and counts.
//!
//! ```text
//!   test ---- RawClient ---- TCP or unix socket ----> puddle serve (a process)
//!    |  \---- Canary    ----------------------------/      |
//!  Oracle                                             dir: discovery
//! ```
//!
//! Nothing here sleeps to wait for something: conditions are asked for again and
//! again, until a deadline (see [`until`]). Everything panics with what it
//! expected and what it found: this is for tests.

#![forbid(unsafe_code)]

mod binary;
mod canary;
mod cluster;
mod counts;
mod faketime;
mod machine;
mod oracle;
mod pattern;
mod process;
mod proxy;
mod raw;
mod seed;
mod services;
mod waiting;

pub use binary::puddle_binary;
pub use canary::{CANARY_BOUND, Canary};
pub use cluster::{Cluster, ClusterOptions};
pub use counts::Counts;
pub use faketime::WrongClock;
pub use machine::{Machine, Moment};
pub use oracle::Oracle;
pub use pattern::Pattern;
pub use process::{ServeOptions, ServerProcess, kill_hard, refused_start};
pub use proxy::{Fault, FaultCounts, FaultProxy, Weather};
pub use raw::{
    Answer, Door, Frame, MappedRun, RawClient, RawConnection, Stream, Transport, fresh_version,
};
pub use seed::Seeded;
pub use services::{
    Certificates, Consul, ConsulOptions, Etcd, EtcdOptions, FakeAnswer, FakeHttp, FakeRequest,
    LocalService, NameServer, ZooKeeper, ZooKeeperClient, ZooKeeperOptions, base64,
};
pub use waiting::{pace, until};

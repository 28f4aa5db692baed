//! Real discovery services, each a process of its own on a free port, with its data in a
//! temporary folder.
//!
//! Where the program cannot be had, a test says how to get it and is skipped, unless
//! `CI` or `PUDDLE_REQUIRE_SERVICES` is set.

mod base64;
mod certificates;
mod consul;
mod daemon;
mod dns;
mod etcd;
mod fake_http;
mod local;
mod plain_http;
mod port;
mod zookeeper;
mod zookeeper_client;

pub use base64::base64;
pub use certificates::Certificates;
pub use consul::{Consul, ConsulOptions};
pub use dns::NameServer;
pub use etcd::{Etcd, EtcdOptions};
pub use fake_http::{FakeAnswer, FakeHttp, FakeRequest};
pub use local::LocalService;
pub use zookeeper::{ZooKeeper, ZooKeeperOptions};
pub use zookeeper_client::ZooKeeperClient;

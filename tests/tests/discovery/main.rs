//! The back ends of discovery against the real services: what all must do, and what is
//! special about each.

mod absurd;
mod consul;
mod consul_life;
mod dns;
mod etcd;
mod etcd_life;
mod secured;
mod silent;
mod support;
mod zookeeper;

use rampuddle_harness::base64;

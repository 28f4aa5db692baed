//! What the back ends of services have in common: their URLs, secrets and TLS, where
//! records lie, and how an entry among the living is kept.
// Not every back end needs everything.
#![cfg_attr(not(all(feature = "consul", feature = "etcd")), allow(dead_code, unused_imports))]

#[cfg(feature = "http")]
pub(crate) mod base64;
#[cfg(feature = "http")]
pub(crate) mod http;
#[cfg(feature = "registry")]
pub(crate) mod keeper;
#[cfg(feature = "registry")]
pub(crate) mod layout;
#[cfg(feature = "http")]
pub(crate) mod looking;
mod options;
pub(crate) mod pace;
#[cfg(feature = "registry")]
mod secret;
#[cfg(feature = "registry")]
pub(crate) mod sockets;
#[cfg(feature = "registry")]
mod tls;
#[cfg(feature = "registry")]
mod url;

#[cfg(feature = "dns")]
pub(crate) use options::Options;
#[cfg(feature = "registry")]
pub(crate) use secret::{Credential, HeldSecret, Secret};
#[cfg(feature = "registry")]
pub(crate) use tls::Tls;
#[cfg(feature = "zookeeper")]
pub(crate) use url::HostPort;
#[cfg(feature = "registry")]
pub(crate) use url::ServiceUrl;

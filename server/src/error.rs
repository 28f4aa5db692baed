//! Why a server does not start, or stopped.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

use crate::options::MemorySum;

/// Why a server does not start. Each says what to change.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// A name is empty or too long.
    #[error("the {what} name {name:?} has {} bytes; it needs 1 to {limit}", name.len())]
    Name {
        /// Server or cluster.
        what: &'static str,
        /// As given.
        name: String,
        /// Most bytes.
        limit: usize,
    },
    /// The pool cannot have this size.
    #[error(
        "a pool of {bytes} bytes is not possible: it must be a multiple of {unit} bytes, from {unit} to {max}"
    )]
    PoolSize {
        /// As given.
        bytes: u64,
        /// What it must be a multiple of.
        unit: u64,
        /// The largest.
        max: u64,
    },
    /// The memory that the server may take is not there.
    #[error(
        "the server needs up to {} bytes, {limit} is {has} bytes; make the pool smaller:\n{needed}",
        needed.total()
    )]
    Memory {
        /// What the server may take.
        needed: MemorySum,
        /// What there is.
        has: u64,
        /// The limit that is too low.
        limit: &'static str,
    },
    /// So few bytes are copied sooner than they are lent to the system; so many there
    /// never are.
    #[error(
        "rows cannot be sent without a copy from {bytes} bytes on: choose {least} to {most} bytes (--zero-copy-from)"
    )]
    ZeroCopy {
        /// As given.
        bytes: u64,
        /// The fewest.
        least: u64,
        /// The most.
        most: u64,
    },
    /// Neither an address nor a socket was given.
    #[error("give an address or a unix socket to listen on")]
    NowhereToListen,
    /// Everybody could write.
    #[error(
        "{address} can be reached from other machines and no token is set: set one, listen on a loopback address, or say that the network is trusted (--insecure-public)"
    )]
    PublicWithoutToken {
        /// As given.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// As given.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The unix socket cannot be listened on.
    #[error("cannot listen on the unix socket {}", path.display())]
    Socket {
        /// As given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another server answers on the unix socket.
    #[error("another server answers on the unix socket {}; choose another path", path.display())]
    SocketTaken {
        /// As given.
        path: PathBuf,
    },
    /// The pool could not be had.
    #[error("cannot {what} the pool of {bytes} bytes{advice}")]
    Pool {
        /// Map, prefault or lock.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// What to do.
        advice: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The processor cannot be had.
    #[error("cannot run on processor {cpu}")]
    Cpu {
        /// As given.
        cpu: usize,
        /// Why.
        source: io::Error,
    },
    /// The processor computes wrong checksums.
    #[error("{0}; the server must not store data here")]
    Checksum(&'static str),
    /// Something of the system that every server needs was refused.
    #[error("cannot set up the event loop")]
    System(#[source] io::Error),
}

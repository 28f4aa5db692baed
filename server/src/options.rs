//! What a server is told at start, and whether that fits the machine.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rampuddle_protocol::limits::{KIB, MIB, PAGE_BYTES, SERVER_NAME_BYTES_MAX};

use crate::connection::{BUFFERS_BYTES, CONNECTION_BYTES, LENDING_BYTES};
use crate::core::{Token, Told};
use crate::error::StartError;
use crate::machine::{HUGE_PAGE_BYTES, Machine};
use crate::store::index_bytes;

/// Memory that a server takes besides pool, index and connections: the program
/// itself, shared buffers, sets, sessions, holds and reservations.
const FIXED_BYTES: u64 = 64 * MIB;
/// The largest pool: page numbers have 31 bits.
const POOL_BYTES_MAX: u64 = (1 << 30) * PAGE_BYTES;
/// Connections at once unless told otherwise.
const CONNECTIONS_MAX: u32 = 2_048;

// The shared buffers are by far the largest part of what is fixed.
const _: () = assert!(BUFFERS_BYTES <= FIXED_BYTES * 3 / 4);

/// What a server is told at start.
#[derive(Debug, Clone)]
pub struct Options {
    /// The member's name in its cluster.
    pub name: String,
    /// The cluster's name; clients of another are refused.
    pub cluster: String,
    /// Where to listen for TCP; port 0 lets the system choose.
    pub listen: Option<SocketAddr>,
    /// Where to listen on a unix socket. A socket left behind by a server that
    /// is gone is replaced.
    pub socket: Option<PathBuf>,
    /// Size of the pool in bytes, a multiple of 64 KiB.
    pub pool_bytes: u64,
    /// Connections at once; more are accepted and closed. Fewer when the
    /// process may not open so many descriptors.
    pub connections_max: u32,
    /// Take the pool from the system's reserved pages of 2 MiB.
    pub huge_pages: bool,
    /// Touch every page of the pool before serving.
    pub prefault: bool,
    /// Keep the pool from being swapped out.
    pub mlock: bool,
    /// Run the loop on this processor.
    pub cpu: Option<usize>,
    /// Never sleep: ask the sockets again and again.
    pub busy_poll: bool,
    /// Let clients on this machine, which come by the unix socket, read values where
    /// they lie: each is given the whole pool, to be read only.
    pub share_pool: bool,
    /// Rows of a Gather of so many bytes and more leave over TCP from where they lie
    /// (MSG_ZEROCOPY), if their values are SEALED; `None` = all are copied. 64 KiB to
    /// 1 MiB, which is what clients ask for at once at most. Worth it only where a network device can read the pool: over the
    /// loopback interface the system copies all the same.
    pub zero_copy_from: Option<u64>,
    /// Tokens of which clients must show one; none = everybody may do all.
    pub tokens: Vec<Token>,
    /// Listen on addresses beyond this machine without a token.
    pub insecure_public: bool,
    /// How long requests under way may take after a stop.
    pub stop_grace: Duration,
    /// Keep a clone to tell the server its cluster's settings (clients that place
    /// keys by others are refused then), and whether discovery has it.
    pub told: Told,
}

impl Options {
    /// A server of this name on a free port of the loopback interface.
    pub fn new(name: impl Into<String>, cluster: impl Into<String>, pool_bytes: u64) -> Self {
        Self {
            name: name.into(),
            cluster: cluster.into(),
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            socket: None,
            pool_bytes,
            connections_max: CONNECTIONS_MAX,
            huge_pages: false,
            prefault: true,
            mlock: false,
            cpu: None,
            busy_poll: false,
            share_pool: true,
            zero_copy_from: None,
            tokens: Vec::new(),
            insecure_public: false,
            stop_grace: Duration::from_secs(10),
            told: Told::default(),
        }
    }

    /// The memory that the server will take at most, line by line.
    pub fn memory(&self) -> MemorySum {
        let lending = self.zero_copy_from.map_or(0, |_| LENDING_BYTES);
        let connections = u64::from(self.connections_max) * (CONNECTION_BYTES + lending);
        MemorySum {
            pool_bytes: self.pool_bytes,
            index_bytes: index_bytes(self.pool_bytes),
            fixed_bytes: FIXED_BYTES,
            connections_max: self.connections_max,
            connections_bytes: connections,
        }
    }

    /// Whether these options can be served at all, on this machine.
    pub(crate) fn check(&self, machine: &Machine) -> Result<(), StartError> {
        for (what, name) in [("server", &self.name), ("cluster", &self.cluster)] {
            if name.is_empty() || name.len() > SERVER_NAME_BYTES_MAX {
                let name = name.clone();
                return Err(StartError::Name { what, name, limit: SERVER_NAME_BYTES_MAX });
            }
        }
        let unit = if self.huge_pages { HUGE_PAGE_BYTES } else { PAGE_BYTES };
        let in_range = (unit..=POOL_BYTES_MAX).contains(&self.pool_bytes);
        if !in_range || !self.pool_bytes.is_multiple_of(unit) {
            let (bytes, max) = (self.pool_bytes, POOL_BYTES_MAX);
            return Err(StartError::PoolSize { bytes, unit, max });
        }
        // Clients ask for objects in pieces of a MiB.
        let (least, most) = (PAGE_BYTES, MIB);
        if let Some(bytes) = self.zero_copy_from.filter(|bytes| !(least..=most).contains(bytes)) {
            return Err(StartError::ZeroCopy { bytes, least, most });
        }
        if self.listen.is_none() && self.socket.is_none() {
            return Err(StartError::NowhereToListen);
        }
        let open = self.tokens.is_empty() && !self.insecure_public;
        if let Some(address) = self.listen.filter(|address| open && !address.ip().is_loopback()) {
            return Err(StartError::PublicWithoutToken { address });
        }
        let needed = self.memory();
        match machine.limit_below(needed.total(), self.pool_bytes, self.huge_pages) {
            Some((limit, has)) => Err(StartError::Memory { needed, has, limit }),
            None => Ok(()),
        }
    }
}

/// The memory of a server, each line with its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemorySum {
    /// The values' bytes.
    pub pool_bytes: u64,
    /// Keys, tags and page records, when every entry is used and every key is
    /// as long as it may be.
    pub index_bytes: u64,
    /// The program and what all connections share.
    pub fixed_bytes: u64,
    /// Connections at once.
    pub connections_max: u32,
    /// Buffers of all connections.
    pub connections_bytes: u64,
}

impl MemorySum {
    /// All lines added up; of a pool that is refused for its size, at most what a
    /// number can say.
    pub fn total(&self) -> u64 {
        let lines = [self.index_bytes, self.fixed_bytes, self.connections_bytes];
        lines.into_iter().fold(self.pool_bytes, u64::saturating_add)
    }
}

impl std::fmt::Display for MemorySum {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: u64| bytes.div_ceil(KIB) as f64 / 1024.0;
        writeln!(formatter, "  pool        {:>12.1} MiB", mib(self.pool_bytes))?;
        writeln!(formatter, "  index       {:>12.1} MiB at most", mib(self.index_bytes))?;
        writeln!(formatter, "  fixed       {:>12.1} MiB at most", mib(self.fixed_bytes))?;
        writeln!(
            formatter,
            "  connections {:>12.1} MiB at most ({} of {} KiB)",
            mib(self.connections_bytes),
            self.connections_max,
            self.connections_bytes / u64::from(self.connections_max.max(1)) / KIB
        )?;
        write!(formatter, "  in all      {:>12.1} MiB", mib(self.total()))
    }
}

//! What connections share, and what kinds of requests there are.

use std::sync::Arc;
use std::time::Duration;

use rampuddle_protocol::SessionId;

use crate::clocks::Clocks;
use crate::environment::Environment;
use crate::token::Token;

/// What every connection of a client shares.
#[derive(Debug)]
pub(crate) struct Access {
    pub(crate) cluster: Arc<str>,
    pub(crate) session: SessionId,
    pub(crate) token: Option<Token>,
    pub(crate) environment: Environment,
    pub(crate) patience: Duration,
    pub(crate) connections_per_server: usize,
    /// The boot id of this machine: see [`rampuddle_discovery::host_id`].
    pub(crate) host: String,
    pub(crate) clocks: Clocks,
    /// Where probes run.
    pub(crate) runtime: tokio::runtime::Handle,
}

/// How much a request moves. A few connections are for small ones only, so that
/// they never wait behind bulk transfers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Small,
    Bulk,
}

impl Class {
    /// The most bytes, both ways together, of a small request.
    pub(crate) const SMALL_BYTES_MAX: u64 = 256 << 10;

    /// The class of a request that moves so many bytes.
    pub(crate) fn of(bytes: u64) -> Self {
        if bytes <= Self::SMALL_BYTES_MAX { Self::Small } else { Self::Bulk }
    }
}

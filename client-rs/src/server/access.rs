//! What connections share, and what kinds of requests there are.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rampuddle_protocol::SessionId;

use crate::buffers::Buffers;
use crate::clocks::Clocks;
use crate::environment::Environment;
use crate::metrics::Counters;
use crate::object::Cleanups;
use crate::placement::Placing;
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
    /// Values of servers on this machine are read where they lie.
    pub(crate) maps: bool,
    /// What goes on behind operations that were given up, and behind reads.
    pub(crate) cleanups: Cleanups,
    pub(crate) clocks: Clocks,
    /// What all operations count into.
    pub(crate) counters: Counters,
    /// Connections in use, over all servers.
    pub(crate) in_use: Arc<AtomicUsize>,
    /// Memory for what is read.
    pub(crate) buffers: Arc<Buffers>,
    /// What keys are placed by now; `None` before the first view.
    pub(crate) placing: RwLock<Option<Arc<Placing>>>,
    /// Where probes run.
    pub(crate) runtime: tokio::runtime::Handle,
}

impl Access {
    /// What keys are placed by now.
    pub(crate) fn placing(&self) -> Option<Arc<Placing>> {
        self.placing.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets what keys are placed by from now on.
    pub(crate) fn place_by(&self, placing: Placing) {
        *self.placing.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(placing));
    }
}

/// What a connection is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// For values that the cluster's settings give a place: client and server
    /// must have been told the same.
    Placing,
    /// To look at a server, or for values that the caller himself gives a
    /// place: works whatever the server was told.
    Looking,
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

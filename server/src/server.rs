//! A server from its options to its end.

use std::net::SocketAddr;
use std::sync::Arc;

use rampuddle_protocol::{Incarnation, StoreId, self_test};
use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::core::{Core, Identity, ZeroCopyCounts};
use crate::error::StartError;
use crate::event_loop::{Clock, EventLoop, Stopper};
use crate::listener::{Bound, Listener, claim};
use crate::machine::Machine;
use crate::options::{MemorySum, Options};
use crate::pool::Pool;
use crate::session::Sessions;
use crate::sharing::Sharing;
use crate::store::Store;

/// Descriptors that are not connections: the pool, listeners, the loop's own,
/// discovery, and what the program has open besides.
const OTHER_DESCRIPTORS: u32 = 32;

/// A server that listens, and serves when [`Server::run`] is called.
#[derive(Debug)]
pub struct Server {
    options: Options,
    event_loop: EventLoop,
    local_address: Option<SocketAddr>,
    incarnation: Incarnation,
    store_id: StoreId,
    zero_copy: ZeroCopyCounts,
}

impl Server {
    /// Checks the options, takes the memory and begins to listen.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left behind. Costs, unless told not to
    /// prefault, a touch of every page: about a third of a second per GiB.
    pub fn bind(mut options: Options) -> Result<Self, StartError> {
        self_test().map_err(StartError::Checksum)?;
        let connections = raise_descriptor_limit().saturating_sub(OTHER_DESCRIPTORS).max(1);
        options.connections_max = options.connections_max.min(connections);
        options.check(&Machine::read())?;
        // What is taken by somebody else is known before the memory is touched, but
        // nobody is let in until it is.
        let bound = options.listen.map(Bound::to).transpose()?;
        let local_address = bound.as_ref().map(Bound::address);
        options.socket.as_deref().map(claim).transpose()?;
        let pool = take_pool(&options)?;
        let listeners = [
            bound.map(Bound::listen).transpose()?,
            options.socket.as_deref().map(Listener::unix).transpose()?,
        ];
        let listeners = listeners.into_iter().flatten().collect();
        let (incarnation, store_id) = (Incarnation(random()?), StoreId(random()?));
        let identity = Identity {
            name: options.name.clone(),
            cluster: options.cluster.clone(),
            incarnation,
            store_id,
            tokens: options.tokens.clone(),
            told: options.told.clone(),
        };
        let clock = Clock::new();
        let connections_max = options.connections_max as usize;
        let sessions = Sessions::new(connections_max);
        let is_shared = options.share_pool && options.socket.is_some() && pool.can_be_shared();
        let mut core = Core::new(identity, Store::new(pool), sessions, clock.now());
        if is_shared {
            core.sharing = Sharing::on();
        }
        let zero_copy = ZeroCopyCounts(Arc::clone(&core.zero_copy));
        let event_loop =
            EventLoop::new(listeners, core, clock, &options).map_err(StartError::System)?;
        Ok(Self { options, event_loop, local_address, incarnation, store_id, zero_copy })
    }

    /// The address listened on, with its real port.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.local_address
    }

    /// Drawn for this start.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Names what is stored.
    pub fn store_id(&self) -> StoreId {
        self.store_id
    }

    /// The memory that the server takes at most.
    pub fn memory(&self) -> MemorySum {
        self.options.memory()
    }

    /// What comes of sending values from where they lie.
    pub fn zero_copy(&self) -> ZeroCopyCounts {
        self.zero_copy.clone()
    }

    /// What stops the server from another thread.
    pub fn stopper(&self) -> Stopper {
        self.event_loop.stopper()
    }

    /// Serves until stopped.
    ///
    /// # Errors
    /// When the processor asked for cannot be had, or the system refuses to
    /// wait for events.
    pub fn run(mut self) -> Result<(), StartError> {
        if let Some(cpu) = self.options.cpu {
            pin_to(cpu)?;
        }
        self.event_loop.run(self.options.stop_grace).map_err(StartError::System)
    }
}

fn take_pool(options: &Options) -> Result<Pool, StartError> {
    let bytes = options.pool_bytes;
    let error = |what, advice| move |source| StartError::Pool { what, bytes, advice, source };
    let reserve = if options.huge_pages {
        ": reserve enough pages of 2 MiB (sysctl vm.nr_hugepages), or do without --huge-pages"
    } else {
        ""
    };
    let pool = Pool::new(bytes, options.huge_pages).map_err(error("map", reserve))?;
    if options.prefault {
        pool.prefault().map_err(error("prefault", reserve))?;
    }
    if options.mlock {
        let raise = ": raise the limit of locked memory (ulimit -l), or do without --mlock";
        pool.lock().map_err(error("lock", raise))?;
    }
    Ok(pool)
}

/// Asks for as many descriptors as the system allows this process at most;
/// returns how many it may open.
fn raise_descriptor_limit() -> u32 {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Refused, the server has what it had.
    let _ = setrlimit(Resource::Nofile, limit);
    let current = getrlimit(Resource::Nofile).current;
    current.map_or(u32::MAX, |most| u32::try_from(most).unwrap_or(u32::MAX))
}

fn pin_to(cpu: usize) -> Result<(), StartError> {
    let mut cpus = CpuSet::new();
    if cpu >= CpuSet::MAX_CPU {
        let source = std::io::Error::from(std::io::ErrorKind::InvalidInput);
        return Err(StartError::Cpu { cpu, source });
    }
    cpus.set(cpu);
    sched_setaffinity(None, &cpus).map_err(|error| StartError::Cpu { cpu, source: error.into() })
}

fn random() -> Result<[u8; 16], StartError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| StartError::System(std::io::Error::other(error)))?;
    Ok(bytes)
}

//! One server: its addresses, its pool of connections, its health.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rampuddle_discovery::Living;
use rampuddle_protocol::{Incarnation, SessionId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::clocks::Clocks;
use crate::connection::{Connection, Failure, Grants, Greeting, Introduction};
use crate::environment::Environment;
use crate::error::{Error, Fate};
use crate::token::Token;
use crate::transport::{Address, Stream};

const PROBE_FIRST: Duration = Duration::from_millis(100);
const PROBE_LAST: Duration = Duration::from_secs(5);

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

/// A server, by its member name. It stays the same through restarts and changes
/// of address.
pub(crate) struct Server {
    name: Arc<str>,
    access: Arc<Access>,
    for_any: Arc<Semaphore>,
    for_small: Arc<Semaphore>,
    in_flight: AtomicUsize,
    is_suspect: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    living: Option<Living>,
    /// The one used last is at the end, and used next.
    idle: Vec<Connection>,
    greeting: Option<Greeting>,
    restarts: u64,
    probe: Option<AbortHandle>,
}

impl Server {
    /// A server that was not spoken to yet.
    pub(crate) fn new(name: Arc<str>, access: Arc<Access>) -> Self {
        let connections = access.connections_per_server.max(1);
        let reserved = connections.saturating_sub(1).min(if connections < 4 { 1 } else { 2 });
        Self {
            name,
            access,
            for_any: Arc::new(Semaphore::new(connections - reserved)),
            for_small: Arc::new(Semaphore::new(reserved)),
            in_flight: AtomicUsize::new(0),
            is_suspect: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Takes what discovery knows of it now. Connections to another address are
    /// dropped; a server that discovery saw restart is probed at once.
    pub(crate) fn update(self: &Arc<Self>, living: &Living) {
        let mut state = self.state();
        let before = state.living.replace(living.clone());
        if before.as_ref() == Some(living) {
            return;
        }
        state.idle.clear();
        if state.probe.is_some() {
            self.start_probe(&mut state, Duration::ZERO);
        }
    }

    /// A connection for one operation: from the pool, or a new one. Waits while
    /// too many of the class are in use.
    ///
    /// # Errors
    /// When no connection can be made; nothing was applied.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        class: Class,
        deadline: Option<Instant>,
    ) -> Result<Lease, Error> {
        let permit = self.permit(class, deadline).await?;
        let mut connection = match self.take_idle() {
            Some(connection) => connection,
            None => self.connect(deadline).await?,
        };
        connection.set_limits(self.access.patience, deadline);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Ok(Lease { connection: Some(connection), server: Arc::clone(self), _permit: permit })
    }

    /// How large its frames may be: known since the first handshake, for which
    /// this connects if need be.
    ///
    /// # Errors
    /// When no connection can be made.
    pub(crate) async fn grants(
        self: &Arc<Self>,
        deadline: Option<Instant>,
    ) -> Result<Grants, Error> {
        if let Some(greeting) = self.greeting() {
            return Ok(greeting.grants);
        }
        let lease = self.acquire(Class::Small, deadline).await?;
        let grants = lease.grants();
        lease.finish();
        Ok(grants)
    }

    /// Operations under way, to choose the less busy of two.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether the server failed lately and did not answer since. It is probed
    /// in the background; ask it only when nobody else can answer.
    pub(crate) fn is_suspect(&self) -> bool {
        self.is_suspect.load(Ordering::Relaxed)
    }

    /// What it said in its latest handshake. Another incarnation than before is a
    /// restart: holds and reservations are gone.
    pub(crate) fn greeting(&self) -> Option<Greeting> {
        self.state().greeting.clone()
    }

    /// Its incarnation as of the latest handshake.
    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        self.state().greeting.as_ref().map(|greeting| greeting.incarnation)
    }

    /// Restarts seen since this client looks.
    pub(crate) fn restarts(&self) -> u64 {
        self.state().restarts
    }

    /// Whether discovery says that it runs on this machine.
    pub(crate) fn is_local(&self) -> bool {
        let state = self.state();
        state.living.as_ref().is_some_and(|living| self.is_here(living))
    }

    async fn permit(
        &self,
        class: Class,
        deadline: Option<Instant>,
    ) -> Result<OwnedSemaphorePermit, Error> {
        let granted = async {
            let any = Arc::clone(&self.for_any);
            if class == Class::Bulk {
                return any.acquire_owned().await;
            }
            let small = Arc::clone(&self.for_small);
            tokio::select! {
                biased;
                permit = small.acquire_owned() => permit,
                permit = any.acquire_owned() => permit,
            }
        };
        let granted = match deadline {
            None => granted.await,
            Some(deadline) => timeout_at(deadline, granted).await.map_err(|_| {
                let (server, doing) = (Arc::clone(&self.name), "busy with other requests");
                Error::DeadlinePassed { server, doing, fate: Fate::NotSent }
            })?,
        };
        Ok(granted.expect("the semaphores are never closed"))
    }

    fn take_idle(&self) -> Option<Connection> {
        loop {
            let mut connection = self.state().idle.pop()?;
            if !connection.is_stale() {
                return Some(connection);
            }
        }
    }

    async fn connect(self: &Arc<Self>, deadline: Option<Instant>) -> Result<Connection, Error> {
        let mut last = Error::NoAddress { server: Arc::clone(&self.name) };
        for address in self.addresses() {
            match self.connect_to(Arc::new(address), deadline).await {
                Ok(connection) => {
                    self.greeted(connection.greeting())?;
                    self.recovered();
                    return Ok(connection);
                }
                Err(error) => last = error,
            }
        }
        let is_its_fault = !matches!(last, Error::NoAddress { .. } | Error::DeadlinePassed { .. });
        if is_its_fault {
            self.suspect();
        }
        Err(last)
    }

    async fn connect_to(
        &self,
        address: Arc<Address>,
        deadline: Option<Instant>,
    ) -> Result<Connection, Error> {
        let access = &*self.access;
        let stream = self.dial(&address, deadline).await?;
        let introduction = Introduction {
            server: &self.name,
            cluster: &access.cluster,
            session: access.session,
            token: access.token.as_ref(),
            environment: &access.environment,
            patience: access.patience,
            deadline,
        };
        Connection::open(stream, address, introduction).await
    }

    async fn dial(&self, address: &Address, deadline: Option<Instant>) -> Result<Stream, Error> {
        let patient = Instant::now() + self.access.patience;
        let until = deadline.map_or(patient, |deadline| deadline.min(patient));
        let dialled = timeout_at(until, self.access.environment.connector.connect(address)).await;
        let server = Arc::clone(&self.name);
        let source = match dialled {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(source)) => source,
            Err(_) if until < patient => {
                return Err(Error::DeadlinePassed {
                    server,
                    doing: "being connected to",
                    fate: Fate::NotSent,
                });
            }
            Err(_) => std::io::ErrorKind::TimedOut.into(),
        };
        Err(Error::Unreachable { server, address: address.clone(), source: Arc::new(source) })
    }

    /// Where to try, best first: the unix socket on the same machine, then TCP.
    fn addresses(&self) -> Vec<Address> {
        let state = self.state();
        let Some(living) = &state.living else { return Vec::new() };
        let unix = living.unix_socket.clone().filter(|path| self.is_here(living) && path.exists());
        let tcp = living.tcp.clone();
        unix.map(Address::Unix).into_iter().chain(tcp.map(Address::Tcp)).collect()
    }

    fn is_here(&self, living: &Living) -> bool {
        !living.host.is_empty() && living.host == self.access.host
    }

    fn greeted(&self, greeting: &Greeting) -> Result<(), Error> {
        self.access.clocks.greeted(&self.name, greeting.clock_offset_ms)?;
        let mut state = self.state();
        let before = state.greeting.replace(greeting.clone());
        let before = before.map(|greeting| greeting.incarnation);
        if before.is_some_and(|incarnation| incarnation != greeting.incarnation) {
            tracing::info!(server = %self.name, "the server restarted");
            state.idle.clear();
            state.restarts += 1;
        }
        Ok(())
    }

    fn give_back(&self, mut connection: Connection) {
        connection.rest();
        let mut state = self.state();
        let current = state.greeting.as_ref().map(|greeting| greeting.incarnation);
        let is_current = current == Some(connection.greeting().incarnation);
        if is_current && state.idle.len() < self.access.connections_per_server {
            state.idle.push(connection);
        }
    }

    /// Notes that the server answered.
    fn recovered(&self) {
        if self.is_suspect.swap(false, Ordering::Relaxed) {
            if let Some(probe) = self.state().probe.take() {
                probe.abort();
            }
            tracing::info!(server = %self.name, "the server answers again");
        }
    }

    /// Notes that the server failed, and begins to probe it.
    fn suspect(self: &Arc<Self>) {
        let mut state = self.state();
        // What else waits in the pool would cost its user another time-out.
        let idle = std::mem::take(&mut state.idle);
        if state.probe.is_none() {
            tracing::warn!(server = %self.name, "the server does not answer");
            self.is_suspect.store(true, Ordering::Relaxed);
            self.start_probe(&mut state, PROBE_FIRST);
        }
        drop(state);
        drop(idle);
    }

    fn start_probe(self: &Arc<Self>, state: &mut State, first: Duration) {
        let probe = self.access.runtime.spawn(probe(Arc::downgrade(self), first));
        if let Some(before) = state.probe.replace(probe.abort_handle()) {
            before.abort();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects to a suspect server again and again, ever more rarely, until it
/// answers or is forgotten.
async fn probe(server: Weak<Server>, first: Duration) {
    let mut pause = first;
    loop {
        let jitter = |server: Arc<Server>| server.access.environment.jittered(pause / 2);
        let Some(wait) = server.upgrade().map(jitter) else { return };
        sleep(pause / 2 + wait).await;
        let Some(server) = server.upgrade() else { return };
        if let Ok(connection) = server.connect(None).await {
            server.give_back(connection);
            return;
        }
        pause = (pause * 2).clamp(PROBE_FIRST, PROBE_LAST);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(probe) = self.state().probe.take() {
            probe.abort();
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut server = formatter.debug_struct("Server");
        server.field("name", &self.name).field("is_suspect", &self.is_suspect());
        server.field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

/// A connection lent to one operation. [`Lease::finish`] returns it; dropping it
/// closes it, which tells the server to give up whatever is under way.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: Option<Connection>,
    server: Arc<Server>,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    /// Returns the connection to the pool, unless something is owed on it.
    pub(crate) fn finish(mut self) {
        if let Some(connection) = self.connection.take_if(|connection| connection.is_reusable()) {
            self.server.recovered();
            self.server.give_back(connection);
        }
    }

    /// Whose connection it is.
    pub(crate) fn server(&self) -> &Arc<Server> {
        &self.server
    }
}

impl Deref for Lease {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("only finish and drop take it")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("only finish and drop take it")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.server.in_flight.fetch_sub(1, Ordering::Relaxed);
        let failure = self.connection.as_ref().and_then(|connection| connection.failure());
        if matches!(failure, Some(Failure::Lost | Failure::Misbehaved)) {
            self.server.suspect();
        }
    }
}

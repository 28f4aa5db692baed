//! One server: its addresses, its pool of connections, its health.

mod access;
mod health;
mod lease;
mod share;

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rampuddle_discovery::Living;
#[cfg(test)]
use rampuddle_protocol::Incarnation;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

pub(crate) use self::access::{Access, Class, Purpose};
pub(crate) use self::lease::Lease;
use self::share::Sharing;
use crate::connection::{Activity, Connection, Grants, Greeting, Introduction};
use crate::deadline::Deadline;
use crate::error::{Error, Fate};
use crate::placement::Placing;
use crate::transport::{Address, Stream};

/// How often whoever waits for a connection looks whether bytes move.
const LOOKS_PER_PATIENCE: u32 = 5;

/// A server, by its member name. It stays the same through restarts and changes
/// of address.
pub(crate) struct Server {
    name: Arc<str>,
    access: Arc<Access>,
    for_any: Arc<Semaphore>,
    for_small: Arc<Semaphore>,
    in_flight: AtomicUsize,
    is_suspect: AtomicBool,
    /// Discovery has said where it is.
    was_seen: AtomicBool,
    /// Tells of every probe's end.
    verdicts: Notify,
    /// Bytes that moved over all connections.
    activity: Arc<Activity>,
    /// Others were faster, and it has said nothing since.
    is_slow: AtomicBool,
    /// Pieces of streams that others are asked for first.
    passes_left: AtomicU32,
    /// Taken while the server is asked for its pool.
    sharing: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    living: Option<Living>,
    /// Whether discovery sees it alive now.
    is_listed: bool,
    /// When another server was faster last.
    outrun: Option<Instant>,
    /// The one used last is at the end, and used next.
    idle: Vec<Connection>,
    greeting: Option<Greeting>,
    restarts: u64,
    probe: Option<AbortHandle>,
    /// Why there was no use in connecting when that was tried last, or in the
    /// connection that was there; `None` = there was, or nobody tried.
    unreachable: Option<Error>,
    sharing: Sharing,
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
            was_seen: AtomicBool::new(false),
            verdicts: Notify::new(),
            activity: Arc::default(),
            is_slow: AtomicBool::new(false),
            passes_left: AtomicU32::new(0),
            sharing: Default::default(),
            state: Mutex::default(),
        }
    }

    /// What all servers of the client share.
    pub(crate) fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// Its name.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Takes what discovery knows of it now. Connections to another address are
    /// dropped; a server that discovery saw restart is probed at once.
    pub(crate) fn update(self: &Arc<Self>, living: &Living) {
        self.was_seen.store(true, Ordering::Relaxed);
        let mut state = self.state();
        state.is_listed = true;
        let before = state.living.replace(living.clone());
        if before.as_ref() == Some(living) {
            return;
        }
        state.idle.clear();
        let pool = std::mem::take(&mut state.sharing);
        // What failed was another run of it, or at another address.
        state.unreachable = None;
        if self.is_suspect() {
            self.start_probe(&mut state, Duration::ZERO);
        }
        drop(state);
        drop(pool);
    }

    /// Notes that discovery no longer sees it alive, and asks it at once: a registry
    /// forgets as well as servers end. Until it gives no answer it is what it was.
    pub(crate) fn vanished(self: &Arc<Self>) {
        let mut state = self.state();
        if std::mem::take(&mut state.is_listed) {
            tracing::info!(server = %self.name, "discovery no longer sees the server: asking it");
            self.start_probe(&mut state, Duration::ZERO);
        }
    }

    /// Where discovery has it, or had it last.
    pub(crate) fn address(&self) -> Option<String> {
        self.state().living.as_ref().map(Living::address)
    }

    /// Whether it can be asked, and answered when it was asked last.
    pub(crate) fn seems_alive(&self) -> bool {
        self.was_seen.load(Ordering::Relaxed) && !self.is_suspect()
    }

    /// A connection for one operation on what the cluster's settings give a
    /// place: from the pool, or a new one. Waits while too many of the class are
    /// in use, as long as bytes move on any of them.
    ///
    /// # Errors
    /// When no connection can be made, at once when that was found lately: see
    /// [`Server::is_suspect`]. Nothing was applied.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        class: Class,
        deadline: Deadline,
    ) -> Result<Lease, Error> {
        self.acquire_for(Purpose::Placing, class, deadline).await
    }

    /// As [`Server::acquire`], for a purpose.
    ///
    /// # Errors
    /// As [`Server::acquire`].
    pub(crate) async fn acquire_for(
        self: &Arc<Self>,
        purpose: Purpose,
        class: Class,
        deadline: Deadline,
    ) -> Result<Lease, Error> {
        let permit = self.permit(class, deadline).await?;
        let mut connection = match self.take_idle(purpose) {
            Some(connection) => connection,
            None => self.connect_unless_dead(purpose, deadline).await?,
        };
        connection.set_limits(self.access.patience, deadline);
        Ok(Lease::new(connection, Arc::clone(self), permit))
    }

    /// How large its frames may be: known since the first handshake, for which
    /// this connects if need be.
    ///
    /// # Errors
    /// When no connection can be made.
    pub(crate) async fn grants(self: &Arc<Self>, deadline: Deadline) -> Result<Grants, Error> {
        self.grants_for(Purpose::Placing, deadline).await
    }

    /// As [`Server::grants`], for a purpose.
    ///
    /// # Errors
    /// When no connection can be made.
    pub(crate) async fn grants_for(
        self: &Arc<Self>,
        purpose: Purpose,
        deadline: Deadline,
    ) -> Result<Grants, Error> {
        if let Some(greeting) = self.greeting() {
            return Ok(greeting.grants);
        }
        let lease = self.acquire_for(purpose, Class::Small, deadline).await?;
        let grants = lease.grants();
        lease.finish();
        Ok(grants)
    }

    /// Whether it has not shaken hands with this client yet, or is another one since.
    pub(crate) fn is_stranger(&self) -> bool {
        self.state().greeting.is_none()
    }

    /// Operations under way, to choose the less busy of two.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Bytes that came over all connections so far.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.activity.received.load(Ordering::Relaxed)
    }

    /// Whether it was silent while others answered, and has not answered since: who
    /// has a choice reads from others.
    pub(crate) fn is_slow(&self) -> bool {
        self.is_slow.load(Ordering::Relaxed)
    }

    /// Whether the server failed lately and did not answer since. It is probed
    /// in the background; ask it only when nobody else can answer. While no
    /// connection to it can be made, it fails at once.
    pub(crate) fn is_suspect(&self) -> bool {
        self.is_suspect.load(Ordering::Relaxed)
    }

    /// What it said in its latest handshake. Another incarnation than before is a
    /// restart: holds and reservations are gone.
    pub(crate) fn greeting(&self) -> Option<Greeting> {
        self.state().greeting.clone()
    }

    /// Its incarnation as of the latest handshake.
    #[cfg(test)]
    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        self.state().greeting.as_ref().map(|greeting| greeting.incarnation)
    }

    /// Restarts seen since this client looks.
    #[cfg(test)]
    pub(crate) fn restarts(&self) -> u64 {
        self.state().restarts
    }

    /// Whether discovery says that it runs on this machine.
    pub(crate) fn is_local(&self) -> bool {
        let state = self.state();
        state.living.as_ref().is_some_and(|living| self.is_here(living))
    }

    /// A permit to use one more connection. Given up when no byte moved on any
    /// connection of the server for the client's patience.
    async fn permit(
        &self,
        class: Class,
        deadline: Deadline,
    ) -> Result<OwnedSemaphorePermit, Error> {
        const DOING: &str = "busy with other requests";
        let mut granted = pin!(async {
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
        });
        let moved = || self.activity.moved.load(Ordering::Relaxed);
        let (mut last_moved, mut last_look) = (moved(), Instant::now());
        loop {
            let look = Instant::now() + self.access.patience / LOOKS_PER_PATIENCE;
            let until = deadline.map_or(look, |deadline| deadline.min(look));
            if let Ok(permit) = timeout_at(until, &mut granted).await {
                return Ok(permit.expect("the semaphores are never closed"));
            }
            let (now, server) = (Instant::now(), Arc::clone(&self.name));
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Err(Error::DeadlinePassed { server, doing: DOING, fate: Fate::NotSent });
            }
            let moved = moved();
            if moved != last_moved {
                (last_moved, last_look) = (moved, now);
            } else if now - last_look >= self.access.patience {
                let after = now - last_look;
                return Err(Error::TimedOut { server, after, doing: DOING, fate: Fate::NotSent });
            }
        }
    }

    /// The connection used last that suits the purpose.
    fn take_idle(&self, purpose: Purpose) -> Option<Connection> {
        let placing = self.access.placing().map_or(0, |placing| placing.fingerprint);
        loop {
            let mut state = self.state();
            let suits = |connection: &Connection| {
                purpose == Purpose::Looking || connection.greeting().settings == placing
            };
            let last = state.idle.iter().rposition(suits)?;
            let mut connection = state.idle.remove(last);
            drop(state);
            if !connection.is_stale() {
                return Some(connection);
            }
        }
    }

    /// A new connection. For placing, only if it was not found lately that none
    /// can be made; who names the server himself wants its own word.
    async fn connect_unless_dead(
        self: &Arc<Self>,
        purpose: Purpose,
        deadline: Deadline,
    ) -> Result<Connection, Error> {
        match self.unreachable().filter(|_| purpose == Purpose::Placing) {
            Some(error) => Err(error),
            // Seldom, and larger than all else that awaits it: what has a connection
            // already need not carry room for a handshake.
            None => Box::pin(self.connect(purpose, deadline)).await,
        }
    }

    async fn connect(
        self: &Arc<Self>,
        purpose: Purpose,
        deadline: Deadline,
    ) -> Result<Connection, Error> {
        let mut last = Error::NoAddress { server: Arc::clone(&self.name) };
        for address in self.addresses() {
            let connected = self.connect_to(Arc::new(address), purpose, deadline).await;
            let greeted = connected.and_then(|connection| {
                self.greeted(connection.greeting())?;
                Ok(connection)
            });
            match greeted {
                Ok(connection) => {
                    self.access.counters.connected();
                    self.recovered();
                    return Ok(connection);
                }
                Err(error) => last = error,
            }
        }
        match &last {
            Error::NoAddress { .. } => {}
            // Says little about the server: a probe has more time.
            Error::DeadlinePassed { .. } => self.probe_soon(&mut self.state(), Duration::ZERO),
            error if error.is_refusal() => self.recovered(),
            error => self.suspect(Some(error.clone())),
        }
        Err(last)
    }

    /// Shakes hands at an address. To look, without a word on settings when those
    /// of the server are others.
    async fn connect_to(
        &self,
        address: Arc<Address>,
        purpose: Purpose,
        deadline: Deadline,
    ) -> Result<Connection, Error> {
        let placing = self.access.placing();
        let shaken = self.shake_hands(&address, placing.as_deref(), deadline).await;
        if purpose == Purpose::Looking && matches!(shaken, Err(Error::OtherSettings { .. })) {
            return self.shake_hands(&address, None, deadline).await;
        }
        shaken
    }

    async fn shake_hands(
        &self,
        address: &Arc<Address>,
        placing: Option<&Placing>,
        deadline: Deadline,
    ) -> Result<Connection, Error> {
        let access = &*self.access;
        let stream = self.dial(address, deadline).await?;
        let introduction = Introduction {
            server: &self.name,
            cluster: &access.cluster,
            session: access.session,
            token: access.token.as_ref(),
            environment: &access.environment,
            patience: access.patience,
            deadline,
            placing,
            activity: &self.activity,
            in_use: &access.in_use,
        };
        Connection::open(stream, Arc::clone(address), introduction).await
    }

    async fn dial(&self, address: &Address, deadline: Deadline) -> Result<Stream, Error> {
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
            // Of a run that is over nothing is kept but what readers still have.
            let pool = std::mem::take(&mut state.sharing);
            drop(state);
            drop(pool);
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
pub(crate) mod tests;

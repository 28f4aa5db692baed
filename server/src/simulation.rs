//! A server without sockets, threads and clock: whoever has one moves the bytes
//! and the time. It runs the same connections and the same store as the loop,
//! so that tests can join it to a client in memory, and fuzzers can feed it.
//!
//! Only with the feature `simulation`, and not for anything else: it may change
//! with any version.

mod system;

use std::io::{self, IoSlice, IoSliceMut};
use std::sync::Arc;

use rampuddle_protocol::limits::PAGE_BYTES;
use rampuddle_protocol::{Incarnation, InfoRow, StoreId};

use crate::connection::{BUFFERS, Connection, Lent, Over, Way};
use crate::core::{Core, Identity, Token, Told, ZeroCopyCounts};
use crate::pool::Pool;
use crate::session::Sessions;
use crate::sharing::Sharing;
use crate::store::{Now, Store};
use system::{Draws, System};

/// Of so many sends that are to be lent one is refused.
const REFUSED: usize = 16;

/// Who the simulated server is, and how large.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name.
    pub name: String,
    /// Its cluster's name.
    pub cluster: String,
    /// Tokens that it knows; none = it wants no proof.
    pub tokens: Vec<Token>,
    /// Pages of its pool.
    pub pages: u64,
    /// Connections that it accepts at once.
    pub connections_max: usize,
    /// Rows of so many bytes and more are lent to the system, which keeps them for some
    /// turns and looks then whether they are what they were.
    pub zero_copy_from: Option<u64>,
    /// Its peers are on its machine, and can be given the pool.
    pub shares_pool: bool,
    /// Its wall clock at the begin, in milliseconds since 1970.
    pub unix_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "server".into(),
            cluster: "cluster".into(),
            tokens: Vec::new(),
            pages: 64,
            connections_max: 16,
            zero_copy_from: None,
            shares_pool: false,
            unix_ms: 1_700_000_000_000,
        }
    }
}

/// A server in memory. Its connections go by number.
#[derive(Debug)]
pub struct SimulatedServer {
    settings: Settings,
    core: Core,
    connections: Vec<Option<Connection>>,
    /// The system's side of each.
    systems: Vec<System>,
    /// Of connections that are over.
    ended: Vec<(Box<Lent>, System)>,
    /// Numbers whose peers are gone.
    free: Vec<usize>,
    starts: u8,
    draws: Draws,
}

impl SimulatedServer {
    /// Nothing stored, nobody connected.
    ///
    /// # Errors
    /// When the system has no memory for the pool.
    pub fn new(settings: Settings) -> io::Result<Self> {
        let pool = Pool::new(settings.pages * PAGE_BYTES, false)?;
        let identity = Identity {
            name: settings.name.clone(),
            cluster: settings.cluster.clone(),
            incarnation: Incarnation([1; 16]),
            store_id: StoreId([1; 16]),
            tokens: settings.tokens.clone(),
            told: Told::default(),
        };
        let now = Now { monotonic_ms: 0, unix_ms: settings.unix_ms };
        let sessions = Sessions::new(settings.connections_max);
        let core = Core::new(identity, Store::new(pool), sessions, now);
        Ok(Self::begin(settings, core, 1))
    }

    fn begin(settings: Settings, mut core: Core, starts: u8) -> Self {
        if settings.shares_pool {
            core.sharing = Sharing::on();
        }
        Self {
            settings,
            core,
            connections: Vec::new(),
            systems: Vec::new(),
            ended: Vec::new(),
            free: Vec::new(),
            starts,
            draws: Draws::new(),
        }
    }

    /// The same server killed and started again: its connections are cut, its
    /// values gone, its incarnation another; its clock goes on. Nothing is
    /// allocated anew, so that a fuzzer can do this for every input.
    pub fn restart(mut self) -> Self {
        (0..self.connections.len()).for_each(|number| self.end(number, Over::Done));
        let starts = self.starts.wrapping_add(1).max(1);
        let sessions = Sessions::new(self.settings.connections_max);
        let core = self.core.restarted(Incarnation([starts; 16]), sessions);
        // What the system was lent it still has: other memory than the next one's.
        Self::begin(self.settings, core, starts)
    }

    /// Accepts a connection; returns its number, or `None` when there are too
    /// many: then the peer finds it closed.
    pub fn connect(&mut self) -> Option<usize> {
        if self.core.counters.connections >= self.settings.connections_max as u64 {
            self.core.counters.refused_connections += 1;
            return None;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.systems.push(System::default());
            self.connections.len() - 1
        });
        let now_ms = self.core.now.monotonic_ms;
        let connection = match self.settings.shares_pool {
            true => Connection::local(number, now_ms),
            false => Connection::new(number, now_ms),
        };
        self.connections[number] = Some(match self.settings.zero_copy_from {
            Some(from) => connection.lending(from, now_ms),
            None => connection,
        });
        self.core.counters.connections += 1;
        Some(number)
    }

    /// Whether the server still has the connection.
    pub fn is_open(&self, number: usize) -> bool {
        self.connections.get(number).is_some_and(Option::is_some)
    }

    /// Offers bytes of the peer in one receive call; returns how many were
    /// taken. 0: it wants none now, or is closed.
    pub fn receive(&mut self, number: usize, bytes: &[u8], budget: u64) -> usize {
        let wants = |one: &&mut Connection| one.wants_input() && !bytes.is_empty();
        let Some(connection) = connection(&mut self.connections, number).filter(wants) else {
            return 0;
        };
        let received =
            connection.receive_with(&mut self.core, budget, |slices| Ok(copy_in(bytes, slices)));
        self.settle(number);
        received.map_or(0, |(count, _)| count)
    }

    /// The peer has sent its last byte.
    pub fn end_input(&mut self, number: usize) {
        if let Some(connection) = connection(&mut self.connections, number) {
            connection.handle_end(&mut self.core);
        }
        self.settle(number);
    }

    /// Takes at most `max` bytes for the peer in one send call, which would take
    /// as many as `budget`; returns how many.
    pub fn send(&mut self, number: usize, max: usize, budget: u64, out: &mut Vec<u8>) -> usize {
        let has_output = |one: &&mut Connection| one.has_output() && max > 0;
        let Some(connection) = connection(&mut self.connections, number).filter(has_output) else {
            return 0;
        };
        let before = out.len();
        let (system, draws) = (&mut self.systems[number], &mut self.draws);
        let lends = self.settings.zero_copy_from.is_some();
        let base = if lends { self.core.store.pool.bytes(0..0).as_ptr() as usize } else { 0 };
        let sent = connection.send_with(&mut self.core, budget.max(1), |slices, way| {
            if matches!(way, Way::Lent) && draws.below(REFUSED) == 0 {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            copy_out(slices, max, out);
            match way {
                Way::Lent => system.take(slices, out.len() - before, base),
                Way::Passing(descriptor) => system.pass(descriptor)?,
                Way::Copied | Way::CopiedMore => {}
            }
            Ok(out.len() - before)
        });
        if lends {
            system.keep_taken(&self.core.store.pool);
        }
        self.settle(number);
        sent.map_or(0, |(count, _)| count)
    }

    /// The peer is gone, whether the server has closed already or not. The
    /// number may be another connection's from now on.
    pub fn cut(&mut self, number: usize) {
        self.end(number, Over::Done);
        if number < self.connections.len() && !self.free.contains(&number) {
            self.free.push(number);
        }
    }

    /// Another turn of the loop: requests that waited for one go on, and so do
    /// connections that waited for a shared buffer.
    pub fn turn(&mut self) {
        self.core.store.begin_turn();
        for number in 0..self.connections.len() {
            if let Some(connection) = connection(&mut self.connections, number) {
                connection.handle_turn(&mut self.core);
            }
            self.settle(number);
        }
        self.end_some_sends();
        self.core.store.sweep(self.core.now);
        while let Some(number) = self.core.buffers.woken() {
            if let Some(connection) = connection(&mut self.connections, number) {
                connection.handle_woken(&mut self.core);
            }
            self.settle(number);
        }
        self.core.store.check_books();
    }

    /// The system is done with some of what it was lent, by any connection.
    fn end_some_sends(&mut self) {
        if self.settings.zero_copy_from.is_none() {
            return;
        }
        let Self { core, connections, systems, ended, draws, .. } = self;
        for (connection, system) in connections.iter_mut().zip(systems) {
            let lent = connection.as_mut().and_then(Connection::lent_mut);
            if let Some(lent) = lent.filter(|_| draws.below(3) == 0)
                && let Some(done) = system.end_some(draws, &core.store.pool)
            {
                core.handle_done(lent, done);
            }
        }
        ended.retain_mut(|(lent, system)| {
            if let Some(done) = system.end_some(draws, &core.store.pool) {
                core.handle_done(lent, done);
            }
            assert_eq!(lent.is_outstanding(), system.is_sending(), "both count alike");
            lent.is_outstanding()
        });
    }

    /// Sends that were lent, and sends that would have been but for the system.
    pub fn lent_sends(&self) -> (u64, u64) {
        let counts = ZeroCopyCounts(Arc::clone(&self.core.zero_copy));
        (counts.sends(), counts.refused())
    }

    /// Whether a connection waits for a turn to go on.
    pub fn wants_turn(&self) -> bool {
        self.connections.iter().flatten().any(Connection::is_paused)
    }

    /// Time passes, and everything is looked at that time alone decides.
    pub fn advance(&mut self, milliseconds: u64) {
        self.core.now.monotonic_ms = self.core.now.monotonic_ms.saturating_add(milliseconds);
        self.core.now.unix_ms = self.core.now.unix_ms.saturating_add(milliseconds);
        for number in 0..self.connections.len() {
            if let Some(connection) = connection(&mut self.connections, number) {
                connection.handle_time(&mut self.core);
            }
            self.settle(number);
        }
        self.core.handle_time();
        self.turn();
    }

    /// Somebody sets the wall clock.
    pub fn set_clock(&mut self, unix_ms: u64) {
        self.core.now.unix_ms = unix_ms;
    }

    /// Milliseconds since 1970 by the server's wall clock.
    pub fn unix_ms(&self) -> u64 {
        self.core.now.unix_ms
    }

    /// What Info would answer.
    pub fn info(&self) -> InfoRow {
        self.core.info()
    }

    /// Asserts every invariant of store and pool. Costs a walk over all of both.
    ///
    /// # Panics
    /// When one is broken.
    pub fn check_invariants(&self) {
        self.core.store.check_invariants();
    }

    /// Cuts all connections, lets the sessions end, and asserts that nothing
    /// is kept for anybody: no buffer, no hold, no reservation, no page but
    /// those of values.
    ///
    /// # Panics
    /// When something is.
    pub fn assert_nothing_leaks(&mut self) {
        (0..self.connections.len()).for_each(|number| self.end(number, Over::Done));
        while !self.ended.is_empty() {
            self.end_some_sends();
        }
        self.advance(rampuddle_protocol::limits::SESSION_LINGER_MS);
        self.check_invariants();
        let info = self.info();
        assert_eq!(info.connections, 0);
        assert_eq!(info.sessions, 0, "sessions linger");
        assert_eq!((info.holds, info.reservations), (0, 0), "holds and reservations");
        assert_eq!(info.mappings, 0, "readers of the pool");
        assert_eq!((info.reserved_bytes, info.superseded_bytes), (0, 0), "pages of nobody");
        assert!(info.used_bytes >= info.values * PAGE_BYTES, "every value has a page");
        assert_eq!(self.core.buffers.free_count(), BUFFERS, "shared buffers");
        assert!(!self.core.store.has_pins(), "requests that ended use values");
    }

    /// Lets a connection that is over go, as the loop does.
    fn settle(&mut self, number: usize) {
        let over = connection(&mut self.connections, number).and_then(|one| one.over());
        if let Some(over) = over {
            self.end(number, over);
        }
    }

    fn end(&mut self, number: usize, over: Over) {
        let Some(connection) = self.connections.get_mut(number).and_then(Option::take) else {
            return;
        };
        let counters = &mut self.core.counters;
        counters.connections -= 1;
        match over {
            Over::Framing => counters.framing_errors += 1,
            Over::Stalled => counters.stalled_connections += 1,
            Over::Done => {}
        }
        let system = std::mem::take(&mut self.systems[number]);
        match connection.release(&mut self.core) {
            Some(lent) => self.ended.push((lent, system)),
            None => assert!(!system.is_sending(), "the system still sends"),
        }
    }
}

fn connection(all: &mut [Option<Connection>], number: usize) -> Option<&mut Connection> {
    all.get_mut(number).and_then(Option::as_mut)
}

fn copy_in(mut bytes: &[u8], slices: &mut [IoSliceMut<'_>]) -> usize {
    let mut taken = 0;
    for slice in slices {
        let (now, rest) = bytes.split_at(slice.len().min(bytes.len()));
        slice[..now.len()].copy_from_slice(now);
        (taken, bytes) = (taken + now.len(), rest);
    }
    taken
}

fn copy_out(slices: &[IoSlice<'_>], max: usize, out: &mut Vec<u8>) {
    let mut left = max;
    for slice in slices {
        let now = slice.len().min(left);
        out.extend_from_slice(&slice[..now]);
        left -= now;
    }
}

#[cfg(test)]
mod tests;

//! The loop: the only file that knows mio.
//!
//! Events are edge-triggered, so each connection remembers whether it is
//! readable and writable, and those with something to do wait in a queue. A
//! connection gets a budget of bytes per turn; those with little to move go
//! first.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::{Events, Poll, Token, Waker};
use rampuddle_protocol::limits::KIB;

use crate::connection::{Connection, Over};
use crate::core::Core;
use crate::listener::{Listener, Socket};
use crate::store::Now;

/// Bytes that a connection may move in a turn while others are ready too.
const SHARED_TURN_BYTES: u64 = 128 * KIB;
/// Bytes that it may move when it is the only one.
const LONE_TURN_BYTES: u64 = 1024 * KIB;
/// A connection with less than this to move goes before those with more.
const SMALL_BYTES: u64 = 128 * KIB;
/// Events taken from the system at once.
const EVENTS_MAX: usize = 256;
/// Connections accepted in one turn.
const ACCEPTS_MAX: usize = 64;
/// How often the clock's rules are looked at.
const TICK: Duration = Duration::from_millis(250);
/// How long accepting rests after it failed for want of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

const WAKER: Token = Token(usize::MAX);
const LISTENERS: usize = usize::MAX - 16;

/// Stops a server from another thread.
#[derive(Debug, Clone)]
pub struct Stopper {
    asked: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl Stopper {
    /// Asks the server to finish what is under way and to end.
    pub fn stop(&self) {
        self.asked.store(true, Ordering::Release);
        // The loop looks at the flag at every tick as well.
        let _ = self.waker.wake();
    }
}

#[derive(Debug)]
struct Peer {
    socket: Socket,
    connection: Connection,
    readable: bool,
    writable: bool,
    /// The peer has sent its last byte.
    has_ended: bool,
    is_queued: bool,
}

/// The clock of a server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now() }
    }

    pub(crate) fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            monotonic_ms: self.start.elapsed().as_millis() as u64,
            unix_ms: unix.as_millis() as u64,
        }
    }
}

/// The loop with its sockets.
#[derive(Debug)]
pub(crate) struct EventLoop {
    poll: Poll,
    listeners: Vec<Listener>,
    accept_pending: bool,
    accept_rests_until: Option<Instant>,
    /// Given up for a moment when descriptors run out, so that a waiting
    /// connection can be accepted and closed.
    spare: Option<File>,
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
    ready: VecDeque<usize>,
    core: Core,
    clock: Clock,
    connections_max: usize,
    busy_poll: bool,
    stopper: Stopper,
    next_tick: Instant,
}

impl EventLoop {
    pub(crate) fn new(
        mut listeners: Vec<Listener>,
        core: Core,
        clock: Clock,
        connections_max: usize,
        busy_poll: bool,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        for (index, listener) in listeners.iter_mut().enumerate() {
            listener.register(poll.registry(), Token(LISTENERS + index))?;
        }
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        Ok(Self {
            poll,
            listeners,
            accept_pending: false,
            accept_rests_until: None,
            spare: File::open("/dev/null").ok(),
            peers: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            core,
            clock,
            connections_max,
            busy_poll,
            stopper: Stopper { asked: Arc::new(AtomicBool::new(false)), waker },
            next_tick: Instant::now(),
        })
    }

    pub(crate) fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Serves until stopped, then finishes what is under way for at most `grace`.
    pub(crate) fn run(&mut self, grace: Duration) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        while !self.stopper.asked.load(Ordering::Acquire) {
            self.turn(&mut events)?;
        }
        self.listeners.clear();
        let deadline = Instant::now() + grace;
        while self.core.counters.connections > 0 && Instant::now() < deadline {
            self.turn(&mut events)?;
            self.close_at_rest();
        }
        for number in 0..self.peers.len() {
            self.close(number, Over::Done);
        }
        Ok(())
    }

    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        match self.poll.poll(events, self.wait()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        let began = Instant::now();
        self.core.now = self.clock.now();
        self.core.store.begin_turn();
        for event in events.iter() {
            self.note(event);
        }
        self.accept();
        self.serve_ready();
        if began >= self.next_tick {
            self.next_tick = began + TICK;
            self.tick();
        }
        while let Some(number) = self.core.buffers.woken() {
            self.wake(number);
        }
        if cfg!(debug_assertions) {
            self.core.store.check_books();
        }
        let took_us = began.elapsed().as_micros() as u64;
        self.core.counters.turn_us_max = self.core.counters.turn_us_max.max(took_us);
        Ok(())
    }

    /// How long the system may let the loop sleep.
    fn wait(&self) -> Option<Duration> {
        let accepts = self.accept_pending && self.accept_rests_until.is_none();
        if self.busy_poll || !self.ready.is_empty() || accepts {
            return Some(Duration::ZERO);
        }
        let is_timed = self.core.counters.connections > 0
            || self.core.sessions.len() > 0
            || self.core.store.has_leases()
            || self.accept_pending;
        is_timed.then(|| self.next_tick.saturating_duration_since(Instant::now()).min(TICK))
    }

    fn note(&mut self, event: &mio::event::Event) {
        let Token(token) = event.token();
        if event.token() == WAKER {
            return;
        }
        if token >= LISTENERS {
            self.accept_pending = true;
            return;
        }
        if let Some(peer) = self.peers.get_mut(token).and_then(Option::as_mut) {
            peer.has_ended |= event.is_read_closed() || event.is_error();
            peer.readable |= event.is_readable() || peer.has_ended;
            peer.writable |= event.is_writable() || event.is_error();
            self.enqueue(token);
        }
    }

    fn enqueue(&mut self, number: usize) {
        if let Some(peer) = self.peers[number].as_mut().filter(|peer| !peer.is_queued) {
            peer.is_queued = true;
            self.ready.push_back(number);
        }
    }

    /// Serves each connection that was ready at the begin of the turn once:
    /// first those with little to move.
    fn serve_ready(&mut self) {
        let budget = if self.ready.len() > 1 { SHARED_TURN_BYTES } else { LONE_TURN_BYTES };
        for only_small in [true, false] {
            for _ in 0..self.ready.len() {
                let Some(number) = self.ready.pop_front() else { break };
                let backlog =
                    self.peers[number].as_ref().map(|peer| peer.connection.backlog_bytes());
                match backlog {
                    None => {}
                    Some(bytes) if only_small && bytes > SMALL_BYTES => {
                        self.ready.push_back(number);
                    }
                    Some(_) => self.serve(number, budget),
                }
            }
        }
    }

    /// Lets a connection that waited for a shared buffer go on.
    fn wake(&mut self, number: usize) {
        if let Some(peer) = self.peers.get_mut(number).and_then(Option::as_mut) {
            peer.connection.handle_woken(&mut self.core);
            self.enqueue(number);
        }
    }

    fn serve(&mut self, number: usize, budget: u64) {
        let Some(peer) = self.peers[number].as_mut() else { return };
        peer.is_queued = false;
        peer.connection.handle_turn(&mut self.core);
        let mut left = budget;
        while left > 0 {
            let moved = peer.send(&mut self.core, left).and_then(|sent| {
                let received = peer.receive(&mut self.core, left)?;
                Ok(sent + received)
            });
            match moved {
                Ok(0) => break,
                Ok(bytes) => left = left.saturating_sub(bytes),
                Err(_) => return self.close(number, Over::Done),
            }
        }
        if let Some(over) = peer.connection.over() {
            return self.close(number, over);
        }
        if peer.has_work() {
            self.enqueue(number);
        }
    }

    fn accept(&mut self) {
        let rests = self.accept_rests_until.is_some_and(|until| Instant::now() < until);
        if !self.accept_pending || rests {
            return;
        }
        (self.accept_pending, self.accept_rests_until) = (false, None);
        for index in 0..self.listeners.len() {
            for accepted in 0..=ACCEPTS_MAX {
                if accepted == ACCEPTS_MAX {
                    self.accept_pending = true;
                    break;
                }
                match self.listeners[index].accept() {
                    Ok(socket) => self.admit(socket),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if is_exhausted(&error) => {
                        self.refuse_one(index);
                        break;
                    }
                    // The peer went away while it waited; the next one may be there.
                    Err(error) if is_passing(&error) => {}
                    Err(_) => {
                        self.accept_pending = true;
                        self.accept_rests_until = Some(Instant::now() + ACCEPT_REST);
                        break;
                    }
                }
            }
        }
    }

    /// Out of descriptors: closes the connection that waits longest, so that its
    /// peer knows at once, and rests before it looks again.
    fn refuse_one(&mut self, index: usize) {
        self.accept_pending = true;
        self.accept_rests_until = Some(Instant::now() + ACCEPT_REST);
        if self.spare.take().is_some() && self.listeners[index].accept().is_ok() {
            self.core.counters.refused_connections += 1;
        }
        self.spare = File::open("/dev/null").ok();
    }

    fn admit(&mut self, mut socket: Socket) {
        if self.core.counters.connections >= self.connections_max as u64 {
            self.core.counters.refused_connections += 1;
            return;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.peers.push(None);
            self.peers.len() - 1
        });
        if socket.register(self.poll.registry(), Token(number)).is_err() {
            self.free.push(number);
            return;
        }
        let connection = Connection::new(number, self.core.now.monotonic_ms);
        self.core.counters.connections += 1;
        self.peers[number] = Some(Peer {
            socket,
            connection,
            readable: true,
            writable: true,
            has_ended: false,
            is_queued: false,
        });
        self.enqueue(number);
    }

    fn close(&mut self, number: usize, over: Over) {
        let Some(peer) = self.peers[number].take() else { return };
        match over {
            Over::Framing => self.core.counters.framing_errors += 1,
            Over::Stalled => self.core.counters.stalled_connections += 1,
            Over::Done => {}
        }
        peer.connection.release(&mut self.core);
        self.core.counters.connections -= 1;
        self.free.push(number);
        if self.accept_rests_until.is_some() {
            self.accept_rests_until = None;
        }
    }

    fn close_at_rest(&mut self) {
        for number in 0..self.peers.len() {
            let is_done = |peer: &Peer| !peer.readable && peer.connection.is_at_rest();
            if self.peers[number].as_ref().is_some_and(is_done) {
                self.close(number, Over::Done);
            }
        }
    }

    /// Looks at everything that time alone decides.
    fn tick(&mut self) {
        for number in 0..self.peers.len() {
            let Some(peer) = self.peers[number].as_mut() else { continue };
            peer.connection.handle_time(&mut self.core);
            match peer.connection.over() {
                Some(over) => self.close(number, over),
                None if peer.has_work() => self.enqueue(number),
                None => {}
            }
        }
        self.core.sessions.expire(&mut self.core.store, self.core.now);
        self.core.store.expire_reservations(self.core.now);
        self.core.store.sweep(self.core.now);
    }
}

impl Peer {
    fn has_work(&self) -> bool {
        self.connection.is_paused()
            || (self.readable && self.connection.wants_input())
            || (self.writable && self.connection.has_output())
    }

    /// Sends what there is; returns the bytes that left.
    fn send(&mut self, core: &mut Core, budget: u64) -> io::Result<u64> {
        if !self.writable || !self.connection.has_output() {
            return Ok(0);
        }
        match self.connection.send_with(core, budget, |slices| self.socket.write(slices)) {
            Ok((sent, all)) => {
                self.writable = all;
                Ok(sent as u64)
            }
            Err(error) => self.pause(error, false),
        }
    }

    /// Receives what there is; returns the bytes that came.
    fn receive(&mut self, core: &mut Core, budget: u64) -> io::Result<u64> {
        if !self.readable || !self.connection.wants_input() {
            return Ok(0);
        }
        match self.connection.receive_with(core, budget, |slices| self.socket.read(slices)) {
            Ok((0, _)) => {
                self.readable = false;
                self.connection.handle_end(core);
                Ok(0)
            }
            Ok((received, all)) => {
                // A call that came back with less than it could take has
                // emptied the socket; more raises a new event.
                self.readable = all || self.has_ended;
                Ok(received as u64)
            }
            Err(error) => self.pause(error, true),
        }
    }

    fn pause(&mut self, error: io::Error, reading: bool) -> io::Result<u64> {
        match error.kind() {
            io::ErrorKind::WouldBlock => {
                if reading {
                    self.readable = false;
                } else {
                    self.writable = false;
                }
                Ok(0)
            }
            // Tried again at the next turn: the connection still has work.
            io::ErrorKind::Interrupted => Ok(0),
            _ => Err(error),
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| code == Some(errno.raw_os_error()))
}

//! The loop: the only file that knows mio.
//!
//! Events are edge-triggered, so each connection remembers whether it is
//! readable and writable, and those with something to do wait in a queue. A
//! connection gets a budget of bytes per turn; those with little to move go
//! first.

mod lending;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::{Events, Poll, Token, Waker};
use rampuddle_protocol::limits::{KIB, MIB};

use crate::connection::{Connection, Lent, Over};
use crate::core::Core;
use crate::listener::{Listener, Socket};
use crate::options::Options;
use crate::spin::Spin;
use crate::store::Now;

/// Bytes that a connection may move in a turn while others are ready too.
const SHARED_TURN_BYTES: u64 = 128 * KIB;
/// Bytes that it may move when it is the only one.
const LONE_TURN_BYTES: u64 = 1024 * KIB;
/// A connection with less than this to move goes before those with more.
const SMALL_BYTES: u64 = 128 * KIB;
/// Less than this is left for the next turn: it costs about as much as a full packet.
const LEAST_BYTES: u64 = 64 * KIB;
/// Events taken from the system at once.
const EVENTS_MAX: usize = 256;
/// Connections accepted in one turn.
const ACCEPTS_MAX: usize = 64;
/// How often the clock's rules are looked at.
const TICK: Duration = Duration::from_millis(250);
/// A step over a run of pages counts as so many bytes moved.
const STEP_COST_BYTES: u64 = 512;
/// How long new requests are still begun after a stop.
const STOP_REQUESTS: Duration = Duration::from_secs(1);
/// How long a closed connection is still read, so that what was sent last
/// arrives: the system resets a connection that is closed with bytes unread.
const LINGER: Duration = Duration::from_millis(500);
/// Bytes that are read and dropped meanwhile at most.
const LINGER_BYTES: u64 = 8 * MIB;
/// How long the clock's rules wait for a loop that is behind.
const TICK_DELAY_MAX: Duration = Duration::from_secs(1);
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
    /// `None`: it is over, and the socket lingers.
    connection: Option<Connection>,
    /// The system can be lent what is sent.
    lends: bool,
    /// What a connection that is over has lent.
    lent: Option<Box<Lent>>,
    lingers_until: Instant,
    /// Bytes that were dropped meanwhile.
    dropped: u64,
    readable: bool,
    writable: bool,
    /// The peer has sent its last byte.
    has_ended: bool,
    /// That byte was read, or there is nothing to be read any more.
    is_drained: bool,
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
    /// Those with something to do, each once, here or in `large`.
    ready: VecDeque<usize>,
    /// Those of this turn that have much to move, and what they may still.
    large: VecDeque<(usize, u64)>,
    core: Core,
    clock: Clock,
    connections_max: usize,
    busy_poll: bool,
    zero_copy_from: Option<u64>,
    spin: Spin,
    /// Bytes of a connection served in this turn are on their way still.
    is_amid: bool,
    stopper: Stopper,
    next_tick: Instant,
    /// More has ended than was removed in one turn.
    sweeps: bool,
}

impl EventLoop {
    pub(crate) fn new(
        mut listeners: Vec<Listener>,
        core: Core,
        clock: Clock,
        options: &Options,
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
            large: VecDeque::new(),
            core,
            clock,
            connections_max: options.connections_max as usize,
            busy_poll: options.busy_poll,
            zero_copy_from: options.zero_copy_from,
            spin: Spin::default(),
            is_amid: false,
            stopper: Stopper { asked: Arc::new(AtomicBool::new(false)), waker },
            next_tick: Instant::now(),
            sweeps: false,
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
        let stopped = Instant::now();
        let (mut takes_requests, deadline) = (true, stopped + grace);
        while self.core.counters.connections > 0 && Instant::now() < deadline {
            self.turn(&mut events)?;
            self.close_at_rest();
            if takes_requests && stopped.elapsed() >= STOP_REQUESTS.min(grace) {
                takes_requests = false;
                self.end_requests();
            }
        }
        for number in 0..self.peers.len() {
            self.close(number, Over::Done);
        }
        Ok(())
    }

    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        match self.wait_for(events) {
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
        // Bytes that wait to be taken are looked at before the clock judges, unless
        // they never end.
        let is_behind = events.iter().count() == EVENTS_MAX;
        let is_due = began >= self.next_tick;
        if is_due && (!is_behind || began >= self.next_tick + TICK_DELAY_MAX) {
            self.next_tick = began + TICK;
            self.tick();
        }
        if self.sweeps {
            self.sweeps = self.core.store.sweep(self.core.now);
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

    /// Waits for events: awake until they are likely to be there, then asleep.
    fn wait_for(&mut self, events: &mut Events) -> io::Result<()> {
        let sleep = self.wait();
        // What is on its way comes, or leaves, as fast as it can, in pieces: whoever
        // waits for a while between them takes them later.
        if std::mem::take(&mut self.is_amid) || sleep == Some(Duration::ZERO) {
            return self.poll.poll(events, sleep);
        }
        let began = Instant::now();
        while began.elapsed() < self.spin.wait() {
            std::hint::spin_loop();
        }
        let asked = Instant::now();
        self.poll.poll(events, sleep)?;
        let ended = Instant::now();
        self.spin.asked(ended - began, ended - asked, events.iter().take(3).count());
        Ok(())
    }

    /// How long the system may let the loop sleep.
    fn wait(&self) -> Option<Duration> {
        let accepts = self.accept_pending && self.accept_rests_until.is_none();
        if self.busy_poll || self.sweeps || !self.ready.is_empty() || accepts {
            return Some(Duration::ZERO);
        }
        let is_timed = self.core.counters.connections > 0
            || self.core.sessions.len() > 0
            || self.core.sharing.len() > 0
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
            // An error of a socket that lends may be nothing but word from the system. A
            // real one is seen by the next read.
            let is_error = event.is_error();
            peer.has_ended |= event.is_read_closed() || is_error && !peer.lends;
            peer.readable |= event.is_readable() || peer.has_ended || is_error;
            peer.writable |= event.is_writable() || is_error;
            if is_error && peer.lends {
                peer.collect(&mut self.core);
            }
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
        let count = self.ready.len();
        let budget = if count > 1 { SHARED_TURN_BYTES } else { LONE_TURN_BYTES };
        for _ in 0..count {
            let Some(number) = self.ready.pop_front() else { break };
            let Some(peer) = self.peers[number].as_mut() else {
                // Closed while it was queued; now its number may be another's.
                self.free.push(number);
                continue;
            };
            peer.is_queued = false;
            let steps_before = self.core.store.steps();
            if let Some(connection) = &mut peer.connection {
                connection.handle_turn(&mut self.core);
            }
            let cost = (self.core.store.steps() - steps_before) * STEP_COST_BYTES;
            let left = self.serve(number, budget.saturating_sub(cost).max(1), count > 1);
            if let Some(left) = left {
                self.large.push_back((number, left));
            }
        }
        while let Some((number, left)) = self.large.pop_front() {
            self.serve(number, left, false);
        }
    }

    /// Lets a connection that waited for a shared buffer go on.
    fn wake(&mut self, number: usize) {
        if let Some(peer) = self.peers.get_mut(number).and_then(Option::as_mut) {
            if let Some(connection) = &mut peer.connection {
                connection.handle_woken(&mut self.core);
            }
            self.enqueue(number);
        }
    }

    /// Moves the bytes of one connection. One that turns out to have much to move
    /// can be told to wait behind the others: then what it may still move is
    /// returned.
    fn serve(&mut self, number: usize, budget: u64, only_small: bool) -> Option<u64> {
        let peer = self.peers[number].as_mut()?;
        if peer.connection.is_none() {
            match peer.drop_input(budget) {
                Dropped::All => {}
                Dropped::Some => self.enqueue(number),
                Dropped::Ended => {
                    peer.is_drained = true;
                    self.end_lingering(number);
                }
            }
            return None;
        }
        let mut left = budget;
        while left > 0 {
            let has_much = |one: &Connection| one.backlog_bytes() > SMALL_BYTES;
            if only_small && peer.connection.as_ref().is_some_and(has_much) {
                return Some(left);
            }
            let steps_before = self.core.store.steps();
            match peer.exchange(&mut self.core, left) {
                Ok(0) => break,
                Ok(bytes) => left = left.saturating_sub(bytes),
                Err(_) => {
                    peer.is_drained = true;
                    self.close(number, Over::Done);
                    return None;
                }
            }
            let steps = self.core.store.steps() - steps_before;
            left = left.saturating_sub(steps * STEP_COST_BYTES);
            if left < LEAST_BYTES {
                break;
            }
        }
        match peer.connection.as_ref().and_then(Connection::over) {
            Some(over) => self.close(number, over),
            None => {
                self.is_amid |= peer.connection.as_ref().is_some_and(Connection::is_amid);
                if peer.has_work() {
                    self.enqueue(number);
                }
            }
        }
        None
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
        let now_ms = self.core.now.monotonic_ms;
        let zero_copy_from = self.zero_copy_from.filter(|_| socket.lend());
        let connection = match (socket.is_local(), zero_copy_from) {
            (true, _) => Connection::local(number, now_ms),
            (false, None) => Connection::new(number, now_ms),
            (false, Some(from)) => Connection::new(number, now_ms).lending(from, now_ms),
        };
        self.core.counters.connections += 1;
        self.peers[number] = Some(Peer {
            socket,
            connection: Some(connection),
            lends: zero_copy_from.is_some(),
            lent: None,
            lingers_until: Instant::now(),
            dropped: 0,
            readable: true,
            writable: true,
            has_ended: false,
            is_drained: false,
            is_queued: false,
        });
        self.enqueue(number);
    }

    /// Ends a connection. Its socket lingers when the peer may still be sending
    /// and waits for what was sent to it.
    fn close(&mut self, number: usize, over: Over) {
        let Some(peer) = self.peers[number].as_mut() else { return };
        let Some(connection) = peer.connection.take() else { return };
        match over {
            Over::Framing => self.core.counters.framing_errors += 1,
            Over::Stalled => self.core.counters.stalled_connections += 1,
            Over::Done => {}
        }
        let lingers = !peer.is_drained && over != Over::Stalled && connection.has_spoken();
        peer.lent = connection.release(&mut self.core);
        let is_stalled = over == Over::Stalled;
        // What is lent is sent to its end.
        let lingers = lingers || peer.lent.is_some() && !is_stalled;
        if lingers && peer.socket.end_sending().is_ok() {
            peer.lingers_until = Instant::now() + LINGER;
            self.enqueue(number);
        } else {
            self.cut(number);
        }
    }

    /// Closes a socket whose connection is over.
    fn forget(&mut self, number: usize) {
        let Some(peer) = self.peers[number].take() else { return };
        self.core.counters.connections -= 1;
        if !peer.is_queued {
            self.free.push(number);
        }
        self.accept_rests_until = None;
    }

    fn close_at_rest(&mut self) {
        for number in 0..self.peers.len() {
            let Some(peer) = &self.peers[number] else { continue };
            let is_at_rest = peer.connection.as_ref().is_some_and(Connection::is_at_rest);
            if is_at_rest && !peer.readable {
                self.close(number, Over::Done);
            }
        }
    }

    /// Lets no connection begin another request.
    fn end_requests(&mut self) {
        for number in 0..self.peers.len() {
            let Some(peer) = self.peers[number].as_mut() else { continue };
            let Some(connection) = &mut peer.connection else { continue };
            connection.stop(&mut self.core);
            if let Some(over) = connection.over() {
                self.close(number, over);
            }
        }
    }

    /// Looks at everything that time alone decides.
    fn tick(&mut self) {
        let now = Instant::now();
        for number in 0..self.peers.len() {
            let Some(peer) = self.peers[number].as_mut() else { continue };
            if peer.lends {
                peer.look_after_lent(&mut self.core);
            }
            let Some(connection) = &mut peer.connection else {
                if now >= peer.lingers_until {
                    self.end_lingering(number);
                }
                continue;
            };
            connection.handle_time(&mut self.core);
            match connection.over() {
                Some(over) => self.close(number, over),
                None if peer.has_work() => self.enqueue(number),
                None => {}
            }
        }
        self.core.handle_time();
        self.sweeps = true;
    }
}

/// How far the input of a lingering socket was dropped.
enum Dropped {
    /// There is no more now.
    All,
    /// There is more, for another turn.
    Some,
    /// There will be no more, or it is not worth waiting for.
    Ended,
}

impl Peer {
    fn has_work(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| {
            connection.is_paused()
                || (self.readable && connection.wants_input())
                || (self.writable && connection.has_output())
        })
    }

    /// Sends and receives what there is, at most `budget` bytes in all and half
    /// of it in one direction while the other has something, too; returns the
    /// bytes that were moved.
    fn exchange(&mut self, core: &mut Core, budget: u64) -> io::Result<u64> {
        let Some(connection) = &mut self.connection else { return Ok(0) };
        let sends = self.writable && connection.has_output();
        let receives = self.readable && connection.wants_input();
        let share = if sends && receives { budget.div_ceil(2) } else { budget };
        let sent = if sends { self.send(core, share)? } else { 0 };
        let left = budget.saturating_sub(sent);
        let received = if left > 0 { self.receive(core, left)? } else { 0 };
        Ok(sent + received)
    }

    /// Sends what there is; returns the bytes that left.
    fn send(&mut self, core: &mut Core, budget: u64) -> io::Result<u64> {
        let Some(connection) = &mut self.connection else { return Ok(0) };
        let has_much = connection.backlog_bytes() > SMALL_BYTES;
        let burst = if has_much { self.socket.burst_bytes() } else { 1 };
        let budget = if budget < burst { budget } else { budget - budget % burst };
        match connection.send_with(core, budget, |slices, way| self.socket.write(slices, way)) {
            Ok((sent, all)) => {
                self.writable = all;
                Ok(sent as u64)
            }
            Err(error) => self.pause(error, false),
        }
    }

    /// Receives what there is; returns the bytes that came.
    fn receive(&mut self, core: &mut Core, budget: u64) -> io::Result<u64> {
        let wants = |one: &&mut Connection| self.readable && one.wants_input();
        let Some(connection) = self.connection.as_mut().filter(wants) else { return Ok(0) };
        match connection.receive_with(core, budget, |slices| self.socket.read(slices)) {
            Ok((0, _)) => {
                (self.readable, self.is_drained) = (false, true);
                connection.handle_end(core);
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

    /// Reads and drops what a lingering socket has, about `budget` bytes of it.
    fn drop_input(&mut self, budget: u64) -> Dropped {
        let mut bytes = [0; 16 * KIB as usize];
        let end = self.dropped.saturating_add(budget);
        while !self.is_drained && self.dropped < LINGER_BYTES {
            if self.dropped >= end {
                return Dropped::Some;
            }
            match self.socket.read(&mut [io::IoSliceMut::new(&mut bytes)]) {
                Ok(0) => return Dropped::Ended,
                Ok(received) => self.dropped += received as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Dropped::All,
                Err(_) => return Dropped::Ended,
            }
        }
        Dropped::Ended
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

//! Servers in memory, links to them, and the time: none of it is real, and a
//! seed decides all of it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Buf as _;
use futures_util::future::{BoxFuture, ready};
use rampuddle_client::{Address, Clock, Connector, Stream};
use rampuddle_protocol::InfoRow;
use rampuddle_server::simulation::{Settings, SimulatedServer};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::draws::Draws;
use super::link::{End, LINK_BYTES, Link};

/// The time at the begin.
const UNIX_MS: u64 = 1_700_000_000_000;
/// How far a server's clock may be off.
pub(super) const CLOCK_OFF_MS: u64 = 30_000;
/// A name in discovery, the connector's word for a server.
const FIRST_PORT: usize = 7_000;
/// How long nothing happens before somebody looks whether time alone did it.
const IDLE: Duration = Duration::from_millis(100);
/// As much as the server's loop moves for one connection in a turn.
const BUDGET: u64 = 128 << 10;

/// What happens besides bytes being moved, each so often in 100,000 steps.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weather {
    /// A link breaks.
    pub(super) cut: u64,
    /// A server moves no byte for up to 9 s.
    pub(super) silence: u64,
    /// The first server is killed and started again: its memory is lost.
    pub(super) kill: u64,
    /// Time jumps by up to 50 ms.
    pub(super) hop: u64,
    /// Time jumps by 50 ms to 1 s, less than anybody's patience.
    pub(super) skip: u64,
    /// Time jumps by 1 s to 30 min: over patience, deadlines, lives and leases.
    pub(super) leap: u64,
}

/// Bytes are cut anywhere, time goes on, and nobody has a reason to fail.
pub(super) const FAIR: Weather =
    Weather { cut: 0, silence: 0, kill: 0, hop: 20_000, skip: 500, leap: 0 };
/// All that can befall links and clocks.
pub(super) const ROUGH: Weather =
    Weather { cut: 60, silence: 20, kill: 0, hop: 20_000, skip: 500, leap: 50 };

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) steps: u64,
    pub(super) bytes: u64,
    pub(super) connections: u64,
    pub(super) cuts: u64,
    pub(super) silences: u64,
    pub(super) kills: u64,
    pub(super) hops: u64,
    pub(super) skips: u64,
    pub(super) leaps: u64,
    /// Of all that was moved, when, and where to: the same for the same run.
    pub(super) digest: u64,
}

/// All servers and links.
#[derive(Debug)]
pub(super) struct World {
    machines: Vec<Machine>,
    links: BTreeMap<u64, Link>,
    next_link: u64,
    draws: Draws,
    pub(super) weather: Weather,
    pub(super) done: Done,
    begin: Instant,
    /// The time that the servers know of.
    told: Instant,
}

/// A server.
#[derive(Debug)]
struct Machine {
    /// Always there, but while it is killed.
    server: Option<SimulatedServer>,
    silent_until: Instant,
}

impl Machine {
    fn server(&mut self) -> &mut SimulatedServer {
        self.server.as_mut().expect("who is killed starts again at once")
    }
}

/// A world that several hands hold.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    world: Arc<Mutex<World>>,
    changed: Arc<Notify>,
}

impl Shared {
    /// Servers `s0`, `s1`... of so many pages, and a task that moves everything.
    pub(super) fn start(servers: usize, pages: u64, seed: u64) -> Self {
        let draws = Draws::new(seed);
        let now = Instant::now();
        let machine = |index| {
            let settings = Settings {
                name: format!("s{index}"),
                cluster: "joined".into(),
                pages,
                unix_ms: UNIX_MS - CLOCK_OFF_MS + draws.below(2 * CLOCK_OFF_MS),
                connections_max: 64,
                // Every other one lends its values to the system.
                zero_copy_from: (index % 2 == 0).then_some(1),
                ..Settings::default()
            };
            let server = SimulatedServer::new(settings).expect("memory for a small pool");
            Machine { server: Some(server), silent_until: now }
        };
        let world = World {
            machines: (0..servers).map(machine).collect(),
            links: BTreeMap::new(),
            next_link: 0,
            weather: Weather::default(),
            done: Done::default(),
            begin: now,
            told: now,
            draws,
        };
        let shared = Self { world: Arc::new(Mutex::new(world)), changed: Arc::default() };
        tokio::spawn(shared.clone().drive());
        shared
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A discovery URL: the ports are made up, the connector knows the names.
    pub(super) fn url(&self) -> String {
        let entry = |index| format!("s{index}=127.0.0.1:{}", FIRST_PORT + index);
        let entries: Vec<_> = (0..self.lock().machines.len()).map(entry).collect();
        format!("static:{}", entries.join(","))
    }

    /// Lets one thing happen after the other. Between two of them the clients do
    /// what they can, and time may jump.
    async fn drive(self) {
        loop {
            let (has_moved, jump) = {
                let mut world = self.lock();
                (world.step(), world.jump())
            };
            match jump {
                Some(jump) => tokio::time::advance(jump).await,
                None if has_moved => tokio::task::yield_now().await,
                None => _ = tokio::time::timeout(IDLE, self.changed.notified()).await,
            }
        }
    }

    /// Does something with a link, which may be over.
    pub(super) fn with_link<T>(&self, id: u64, act: impl FnOnce(&mut Link) -> T) -> T {
        self.changed.notify_one();
        act(self.lock().links.get_mut(&id).expect("a link stays while the client has its end"))
    }

    /// The client drops its end. What it sent last arrives, or is lost.
    pub(super) fn leave(&self, id: u64) {
        let is_lost = self.lock().draws.happens(1, 2);
        self.with_link(id, |link| {
            link.is_left = true;
            link.down.clear();
            if is_lost {
                link.up.clear();
            }
        });
    }

    fn connect_to(&self, address: &Address) -> Option<Stream> {
        let port = address.to_string().rsplit(':').next().and_then(|port| port.parse().ok());
        let machine = port.unwrap_or(0_usize).checked_sub(FIRST_PORT)?;
        let mut world = self.lock();
        let number = world.machines.get_mut(machine)?.server().connect()?;
        let id = world.next_link;
        world.next_link += 1;
        world.done.connections += 1;
        world.links.insert(id, Link::new(machine, number));
        Some(Stream::other(End { shared: self.clone(), id }))
    }
}

impl Connector for Shared {
    fn connect<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Stream>> {
        let refused = || io::ErrorKind::ConnectionRefused.into();
        Box::pin(ready(self.connect_to(address).ok_or_else(refused)))
    }
}

impl World {
    /// The true time.
    pub(super) fn unix_ms(&self) -> u64 {
        UNIX_MS + self.begin.elapsed().as_millis() as u64
    }

    /// What each server says of itself.
    pub(super) fn infos(&mut self) -> Vec<InfoRow> {
        self.machines.iter_mut().map(|machine| machine.server().info()).collect()
    }

    /// Cuts whatever there is, and asserts that the servers keep nothing for anybody.
    pub(super) fn assert_nothing_leaks(&mut self) {
        self.pass_time();
        assert!(self.links.is_empty(), "the client has kept connections");
        self.machines.iter_mut().for_each(|machine| machine.server().assert_nothing_leaks());
    }

    /// Tells the servers the time, lets something befall them, and moves a piece
    /// over one link; returns whether there was one to move.
    fn step(&mut self) -> bool {
        self.done.steps += 1;
        self.pass_time();
        self.befall();
        let ids: Vec<u64> = self.links.keys().copied().collect();
        let first = self.draws.below(ids.len() as u64) as usize;
        let is_up_first = self.draws.happens(1, 2);
        let mut order = ids[first..].iter().chain(&ids[..first]);
        let has_moved = order.any(|id| {
            let (first, second) = (is_up_first, !is_up_first);
            self.moved(*id, first) || self.moved(*id, second)
        });
        let mut wants_turn = false;
        for machine in &mut self.machines {
            machine.server().turn();
            wants_turn |= machine.server().wants_turn();
        }
        self.tend();
        has_moved || wants_turn
    }

    fn pass_time(&mut self) {
        let passed = self.told.elapsed().as_millis() as u64;
        self.told += Duration::from_millis(passed);
        if passed > 0 {
            self.machines.iter_mut().for_each(|machine| machine.server().advance(passed));
        }
    }

    fn happens(&self, per_hundred_thousand: u64) -> bool {
        self.draws.happens(per_hundred_thousand, 100_000)
    }

    fn befall(&mut self) {
        let Weather { cut, silence, kill, .. } = self.weather;
        if self.happens(cut) && !self.links.is_empty() {
            let index = self.draws.below(self.links.len() as u64) as usize;
            let (_, link) = self.links.iter_mut().nth(index).expect("there are more");
            if !link.is_cut {
                self.machines[link.machine].server().cut(link.number);
                link.cut();
                self.done.cuts += 1;
            }
        }
        if self.happens(silence) {
            let machine = self.draws.below(self.machines.len() as u64) as usize;
            let pause = Duration::from_millis(self.draws.below(9_000));
            self.machines[machine].silent_until = Instant::now() + pause;
            self.done.silences += 1;
        }
        if self.happens(kill) {
            self.done.kills += 1;
            let first = &mut self.machines[0];
            first.server = first.server.take().map(SimulatedServer::restart);
            self.links.values_mut().filter(|link| link.machine == 0).for_each(Link::cut);
        }
    }

    /// How much time is skipped now.
    fn jump(&mut self) -> Option<Duration> {
        let Weather { hop, skip, leap, .. } = self.weather;
        let done = &mut self.done;
        let (count, least, most) = match self.draws.below(100_000) {
            draw if draw < hop => (&mut done.hops, 1, 50),
            draw if draw < hop + skip => (&mut done.skips, 50, 1_000),
            draw if draw < hop + skip + leap => (&mut done.leaps, 1_000, 1_800_000),
            _ => return None,
        };
        *count += 1;
        Some(Duration::from_millis(self.draws.spread(least, most)))
    }

    /// Bytes that are moved together: a few, or many.
    fn piece(&self) -> usize {
        let most = [16, 512, 16 << 10, 64 << 10][self.draws.below(4) as usize];
        1 + self.draws.below(most) as usize
    }

    /// Moves a piece up or down a link, if there is anything to move.
    fn moved(&mut self, id: u64, is_up: bool) -> bool {
        let piece = self.piece();
        let link = self.links.get_mut(&id).expect("it was listed");
        let machine = &mut self.machines[link.machine];
        if link.is_cut || Instant::now() < machine.silent_until {
            return false;
        }
        let server = machine.server();
        let count = if is_up {
            let piece = &link.up[..piece.min(link.up.len())];
            let count = server.receive(link.number, piece, BUDGET);
            link.up.advance(count);
            count
        } else {
            let room = LINK_BYTES.saturating_sub(link.down.len()).min(piece);
            let mut out = Vec::new();
            let count = server.send(link.number, room, BUDGET, &mut out);
            link.down.extend_from_slice(&out);
            count
        };
        if count == 0 {
            return false;
        }
        link.wake();
        self.done.bytes += count as u64;
        let now = self.begin.elapsed().as_millis() as u64;
        for word in [id, u64::from(is_up), count as u64, now] {
            self.done.digest =
                (self.done.digest.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        true
    }

    /// Closes what a server has closed, and forgets what nobody has any more.
    fn tend(&mut self) {
        let machines = &mut self.machines;
        self.links.retain(|_, link| {
            let server = machines[link.machine].server();
            if !link.is_cut && !link.is_closed && !server.is_open(link.number) {
                link.is_closed = true;
                link.wake();
            }
            if !link.is_left {
                return true;
            }
            link.down.clear();
            let is_over = link.is_cut || link.is_closed || link.up.is_empty();
            if is_over && !link.is_cut {
                server.end_input(link.number);
                server.cut(link.number);
            }
            !is_over
        });
    }
}

/// A client's wall clock.
#[derive(Debug)]
pub(super) struct WorldClock {
    begin: Instant,
    /// How far it is off.
    off_by_ms: i64,
}

impl WorldClock {
    pub(super) fn new(world: &Shared, off_by_ms: i64) -> Self {
        Self { begin: world.lock().begin, off_by_ms }
    }
}

impl Clock for WorldClock {
    fn unix_ms(&self) -> u64 {
        (UNIX_MS + self.begin.elapsed().as_millis() as u64).saturating_add_signed(self.off_by_ms)
    }
}

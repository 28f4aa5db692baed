//! A proxy between clients and a server that harms what passes through it.
//!
//! ```text
//!  client <----> FaultProxy <----> server
//!                 |  two threads for a connection, one for each direction
//!                 |  at a random byte: one of the faults of the weather
//!                 `- counts: which fault, in the middle of which frame
//! ```

mod frames;
mod pump;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::seed::Seeded;

/// What can go wrong with bytes on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// What follows comes so much later.
    Delay(Duration),
    /// The next 256 KiB come at so many bytes per second.
    Rate(u64),
    /// The next 4 KiB come byte by byte.
    OneByteSlices,
    /// What comes within this time comes in one piece, at its end.
    Coalesce(Duration),
    /// The connection is reset, both ways.
    Reset,
    /// The receiver sees the end of the stream; its own bytes still pass.
    HalfClose,
    /// One bit is another.
    FlippedBit,
    /// Nothing comes any more, either way, and nobody is told.
    BlackHole,
}

impl Fault {
    /// One of each, of a strength that a client should survive.
    pub const ALL: [Self; 8] = [
        Self::Delay(Duration::from_millis(300)),
        Self::Rate(1 << 20),
        Self::OneByteSlices,
        Self::Coalesce(Duration::from_millis(100)),
        Self::Reset,
        Self::HalfClose,
        Self::FlippedBit,
        Self::BlackHole,
    ];

    /// Its name, whatever its strength.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delay(_) => "delay",
            Self::Rate(_) => "rate",
            Self::OneByteSlices => "one-byte slices",
            Self::Coalesce(_) => "coalesced",
            Self::Reset => "reset",
            Self::HalfClose => "half-close",
            Self::FlippedBit => "flipped bit",
            Self::BlackHole => "black hole",
        }
    }
}

/// Which faults happen, and how often.
#[derive(Debug, Clone, Default)]
pub struct Weather {
    /// One of these at a time.
    pub faults: Vec<Fault>,
    /// Bytes of one direction from one fault to the next, on average.
    pub spacing_bytes: u64,
}

/// What happened: by fault and, when it hit one in flight, by frame.
#[derive(Debug, Clone, Default)]
pub struct FaultCounts(BTreeMap<(&'static str, Option<String>), u64>);

impl FaultCounts {
    /// Faults in all.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Those that hit a frame in flight.
    pub fn in_flight(&self) -> u64 {
        let hit = self.0.iter().filter(|((_, frame), _)| frame.is_some());
        hit.map(|(_, count)| count).sum()
    }

    /// Those of one kind.
    pub fn of(&self, fault: Fault) -> u64 {
        let same = self.0.iter().filter(|((name, _), _)| *name == fault.name());
        same.map(|(_, count)| count).sum()
    }

    /// Adds those of another proxy.
    pub fn add(&mut self, other: &Self) {
        for (kind, count) in &other.0 {
            *self.0.entry(kind.clone()).or_default() += count;
        }
    }
}

impl fmt::Display for FaultCounts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} faults, {} in flight:", self.total(), self.in_flight())?;
        self.0.iter().try_for_each(|((fault, frame), count)| {
            let frame = frame.as_deref().unwrap_or("between frames");
            write!(formatter, " {fault} in {frame} {count},")
        })
    }
}

/// What the proxy's threads share.
#[derive(Debug)]
struct Shared {
    target: Mutex<Option<SocketAddr>>,
    weather: Mutex<Weather>,
    counts: Mutex<FaultCounts>,
    seed: Mutex<Seeded>,
    ends: AtomicBool,
}

impl Shared {
    fn count(&self, fault: Fault, frame: Option<String>) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.0.entry((fault.name(), frame)).or_default() += 1;
    }

    fn weather(&self) -> Weather {
        self.weather.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn draw_seed(&self) -> Seeded {
        Seeded::new(self.seed.lock().unwrap_or_else(PoisonError::into_inner).draw())
    }
}

/// A proxy on a port of its own. Ends, with its connections, when dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// Listens; connections are closed until [`FaultProxy::aim`] is called.
    ///
    /// # Panics
    /// When no port is free.
    pub fn bind(seed: Seeded) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            target: Mutex::default(),
            weather: Mutex::default(),
            counts: Mutex::default(),
            seed: Mutex::new(seed),
            ends: AtomicBool::new(false),
        });
        let acceptor = Some(thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        }));
        Self { address, shared, acceptor }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where connections made from now on lead.
    pub fn aim(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(target);
    }

    /// What happens to bytes from now on.
    pub fn set_weather(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
    }

    /// What happened so far.
    pub fn counts(&self) -> FaultCounts {
        self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Release);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.ends.load(Ordering::Acquire) {
            return;
        }
        let Ok(client) = client else { continue };
        let target = *shared.target.lock().unwrap_or_else(PoisonError::into_inner);
        let server = target.and_then(|target| TcpStream::connect(target).ok());
        if let Some(server) = server {
            pump::start(client, server, shared);
        }
    }
}

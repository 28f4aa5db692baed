//! Moves the bytes of one connection, and harms them.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::connect_unspec;

use super::frames::Frames;
use super::{Fault, Shared};
use crate::seed::Seeded;
use crate::waiting::pace;

/// Bytes that a slower rate lasts for.
const SLOW_BYTES: usize = 256 << 10;
/// Bytes that come one by one.
const SLICED_BYTES: usize = 4 << 10;
/// Bytes that are collected at most.
const COALESCED_BYTES: usize = 4 << 20;
/// How often a thread looks whether the proxy ends.
const LOOK: Duration = Duration::from_millis(200);

/// Two threads that pass bytes on until either side ends.
pub(super) fn start(client: TcpStream, server: TcpStream, shared: &Arc<Shared>) {
    let sockets = [&client, &server];
    let is_ready = sockets.iter().all(|socket| {
        socket.set_nodelay(true).and_then(|()| socket.set_read_timeout(Some(LOOK))).is_ok()
    });
    let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else { return };
    if !is_ready {
        return;
    }
    let swallows = Arc::new(AtomicBool::new(false));
    for (from, to) in [(client, server), (server_too, client_too)] {
        let mut pump = Pump {
            from,
            to,
            frames: Frames::default(),
            random: shared.draw_seed(),
            until_fault: None,
            slow: None,
            sliced: 0,
            swallows: Arc::clone(&swallows),
            shared: Arc::clone(shared),
        };
        thread::spawn(move || pump.run());
    }
}

/// One direction of a connection.
struct Pump {
    from: TcpStream,
    to: TcpStream,
    frames: Frames,
    random: Seeded,
    /// Bytes until the next fault.
    until_fault: Option<u64>,
    /// Bytes per second, and bytes for which that lasts.
    slow: Option<(u64, usize)>,
    /// Bytes that still come one by one.
    sliced: usize,
    /// The connection leads nowhere any more.
    swallows: Arc<AtomicBool>,
    shared: Arc<Shared>,
}

/// The direction has ended.
struct Ended;

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl Pump {
    fn run(&mut self) {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(count) = self.receive(&mut bytes) {
            if count == 0 {
                let _ = self.to.shutdown(Shutdown::Write);
                return;
            }
            if self.pass(&mut bytes[..count]).is_err() {
                // The other direction ends with this one.
                let _ = self.from.shutdown(Shutdown::Both);
                let _ = self.to.shutdown(Shutdown::Both);
                return;
            }
        }
        let _ = self.to.shutdown(Shutdown::Both);
    }

    /// Waits for bytes; an error when the connection or the proxy has ended.
    fn receive(&mut self, bytes: &mut [u8]) -> Result<usize, Ended> {
        loop {
            match self.from.read(bytes) {
                Err(error) if is_timeout(&error) => {}
                other => return Ok(other?),
            }
            if self.shared.ends.load(Ordering::Acquire) {
                return Err(Ended);
            }
        }
    }

    fn pass(&mut self, mut bytes: &mut [u8]) -> Result<(), Ended> {
        while !bytes.is_empty() {
            let weather = self.shared.weather();
            if weather.faults.is_empty() || weather.spacing_bytes == 0 {
                self.until_fault = None;
                return self.send(bytes);
            }
            let until = match self.until_fault {
                Some(until) => until,
                None => 1 + self.random.below(2 * weather.spacing_bytes),
            };
            if until >= bytes.len() as u64 {
                self.until_fault = Some(until - bytes.len() as u64);
                return self.send(bytes);
            }
            let (before, behind) = bytes.split_at_mut(until as usize);
            self.send(before)?;
            self.until_fault = None;
            let fault = weather.faults[self.random.below(weather.faults.len() as u64) as usize];
            if !self.swallows.load(Ordering::Acquire) {
                self.shared.count(fault, self.frames.in_flight());
                if fault == Fault::FlippedBit {
                    let sound = behind[0];
                    behind[0] ^= 1 << self.random.below(8);
                    let flipped = [behind[0]];
                    self.frames.pass(&[sound]);
                    self.write(&flipped)?;
                    bytes = &mut behind[1..];
                    continue;
                }
                if let Fault::Coalesce(time) = fault {
                    return self.coalesce(behind.to_vec(), time);
                }
                self.harm(fault)?;
            }
            bytes = behind;
        }
        Ok(())
    }

    fn harm(&mut self, fault: Fault) -> Result<(), Ended> {
        match fault {
            Fault::Delay(time) => pace(time),
            Fault::Rate(per_second) => self.slow = Some((per_second, SLOW_BYTES)),
            Fault::OneByteSlices => self.sliced = SLICED_BYTES,
            Fault::Reset => {
                for socket in [&self.from, &self.to] {
                    // Dissolves the connection whatever still has it open: a reset.
                    let _ = connect_unspec(socket);
                }
                return Err(Ended);
            }
            Fault::HalfClose => {
                let _ = self.to.shutdown(Shutdown::Write);
                // What else comes is read, and goes nowhere.
                let mut bytes = [0; 4096];
                while self.receive(&mut bytes)? > 0 {}
                return Err(Ended);
            }
            Fault::BlackHole => self.swallows.store(true, Ordering::Release),
            // These take the bytes that follow along: see where they are passed on.
            Fault::Coalesce(_) | Fault::FlippedBit => {}
        }
        Ok(())
    }

    /// Sends `all` and what comes within the time in one piece.
    fn coalesce(&mut self, mut all: Vec<u8>, time: Duration) -> Result<(), Ended> {
        let until = Instant::now() + time;
        let mut bytes = vec![0; 64 << 10];
        while all.len() < COALESCED_BYTES && Instant::now() < until {
            match self.from.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => all.extend_from_slice(&bytes[..count]),
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.send(&all)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        self.frames.pass(bytes);
        self.write(bytes)
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Ended> {
        if self.swallows.load(Ordering::Acquire) {
            return Ok(());
        }
        while self.sliced > 0 && !bytes.is_empty() {
            self.to.write_all(&bytes[..1])?;
            (bytes, self.sliced) = (&bytes[1..], self.sliced - 1);
        }
        while let Some((per_second, left)) = self.slow.filter(|_| !bytes.is_empty()) {
            let count = bytes.len().min(left).min(8 << 10);
            self.to.write_all(&bytes[..count])?;
            pace(Duration::from_secs_f64(count as f64 / per_second as f64));
            bytes = &bytes[count..];
            self.slow = (left > count).then_some((per_second, left - count));
        }
        Ok(self.to.write_all(bytes)?)
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

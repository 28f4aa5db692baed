//! Ports for programs that are told where to listen.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};

/// Below those that the system gives to whoever connects, so that nobody gets one of them by
/// chance between two starts of a program.
const NUMBERS: std::ops::Range<u16> = 20_000..32_000;

/// A port of this machine that no other test has, in whatever process, until this is dropped.
#[derive(Debug)]
pub(super) struct Port {
    number: u16,
    /// Bound to a name that only one socket of the machine can have.
    _held: UnixDatagram,
}

impl Port {
    /// One that is free.
    ///
    /// # Panics
    /// When all are taken.
    pub(super) fn take() -> Self {
        let count = u64::from(NUMBERS.end - NUMBERS.start);
        // Where the search begins decides nothing.
        let first = RandomState::new().hash_one(()) % count;
        let numbers = (0..count).map(|step| NUMBERS.start + ((first + step) % count) as u16);
        numbers.filter_map(Self::try_take).next().expect("a port is free")
    }

    fn try_take(number: u16) -> Option<Self> {
        let name = UnixAddress::from_abstract_name(format!("rampuddle-port-{number}")).ok()?;
        let held = UnixDatagram::bind_addr(&name).ok()?;
        // A program that is no test may listen there.
        TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
        Some(Self { number, _held: held })
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }

    pub(super) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Two services that were started at the same time were told the same port.
    #[test]
    fn a_port_is_for_one_until_it_is_dropped() {
        let first = Port::take();
        assert!(Port::try_take(first.number()).is_none());
        let number = first.number();
        drop(first);
        assert!(Port::try_take(number).is_some());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, number)).unwrap();
        assert!(Port::try_take(number).is_none());
        drop(listener);
    }
}

//! One server and its clients, each on a host of its own or all on this one.

use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;

use super::{MixArguments, Place};
use crate::case::Who;
use crate::child::{Child, free_address};
use crate::hosts::gatherer::Gatherer;
use crate::hosts::network::{Network, shape, share};
use crate::hosts::reader::{Reader, ReaderArguments};
use crate::hosts::{self, command};
use crate::wire::Address;

/// The host of the server, of the reader of small values, and of the first stream.
const SERVER: usize = 1;
const SMALL: usize = 2;
const FIRST: usize = 3;

/// All of them, ready.
pub(super) struct Scene {
    /// The reader of small values.
    pub(super) small: Gatherer,
    streams: Vec<Reader>,
    /// How often each stream reads the value in a round, and how long it is.
    repeats: usize,
    bytes: usize,
    _server: Vec<Child>,
    _network: Option<Network>,
    _folder: TempDir,
}

impl Scene {
    /// Starts all; the values are written before any link is shaped.
    pub(super) fn open(arguments: &MixArguments, place: Place) -> Result<Self> {
        let folder = TempDir::new()?;
        let clients: Vec<usize> = (SMALL..FIRST + arguments.streams).collect();
        let network = place.has_links().then(|| Network::up(SERVER + clients.len())).transpose()?;
        let pool = 2 * arguments.size.0 + (64 << 20);
        let (server, url) = match &network {
            Some(network) => hosts::serve(network, 1, pool, folder.path())?,
            None => beside(pool, &folder)?,
        };
        let on = |host| network.as_ref().map_or_else(Vec::new, |it| it.on(host));
        let small = Gatherer::start(on(SMALL), &url, folder.path())?;
        let stream = |host| {
            let (from, put) = (url.clone(), (host == FIRST).then_some(1));
            let what = ReaderArguments {
                who: Who::Puddle,
                from,
                size: arguments.size,
                put,
                streamed: false,
            };
            Reader::start(on(host), &what, folder.path())
        };
        let streams = clients[1..].iter().map(|&host| stream(host)).collect::<Result<_>>()?;
        clients
            .iter()
            .filter(|_| place.has_links())
            .try_for_each(|&it| shape(it, arguments.mbit))?;
        match place {
            Place::Links => shape(SERVER, arguments.mbit * clients.len() as u64)?,
            Place::OneLink => share(SERVER, arguments.mbit, &clients)?,
            Place::Loopback => {}
        }
        let repeats = if place.has_links() { 1 } else { arguments.repeats };
        let bytes = arguments.size.0;
        let (_server, _network, _folder) = (server, network, folder);
        Ok(Self { small, streams, repeats, bytes, _server, _network, _folder })
    }

    /// Lets all streams read; MB/s of all together.
    pub(super) fn stream(&mut self) -> Result<f64> {
        for stream in &mut self.streams {
            (0..self.repeats).try_for_each(|_| stream.begin())?;
        }
        let mut sum = 0.0;
        for stream in &mut self.streams {
            let took = (0..self.repeats).map(|_| stream.took()).sum::<Result<Duration>>()?;
            sum += (self.bytes * self.repeats) as f64 / 1e6 / took.as_secs_f64();
        }
        Ok(sum)
    }
}

/// A server on this machine.
fn beside(pool: usize, folder: &TempDir) -> Result<(Vec<Child>, String)> {
    let listen = free_address()?;
    let url = format!("static:h1={listen}");
    let words = command(&url, "h1", &listen.to_string(), pool)?;
    let mut server = Child::start(&words, folder.path(), "server")?;
    server.wait_for(&Address::Tcp(listen))?;
    Ok((vec![server], url))
}

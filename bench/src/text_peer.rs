//! Peers that are spoken to in text: one connection, values sent from and read
//! into one buffer. The length of an answer is known before it comes, so that
//! head, value and tail are read by one call: no client of such a peer is faster.

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::case::{Case, Operation, Path, Size, Who};
use crate::child::Child;
use crate::memory::{Memory, read_all};
use crate::subject::{Processes, Reader, Subject, repeated, socket_offers, timed};
use crate::wire::{Address, Socket};

/// What is said, and what is answered when all is well.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dialect {
    /// What goes before a value that is set.
    pub(crate) set: fn(key: &str, bytes: usize) -> String,
    /// The answer to it.
    pub(crate) was_set: &'static str,
    /// The request for a value.
    pub(crate) get: fn(key: &str) -> String,
    /// What comes before it.
    pub(crate) found: fn(key: &str, bytes: usize) -> String,
    /// What comes behind it.
    pub(crate) end: &'static str,
}

/// Behind every value that is sent.
const LINE_END: &[u8] = b"\r\n";

fn key(bytes: usize) -> String {
    format!("key:{bytes:09}")
}

/// One connection.
pub(crate) struct Speaker {
    dialect: Dialect,
    socket: Socket,
}

impl Speaker {
    /// Speaks so on that connection.
    pub(crate) fn new(dialect: Dialect, socket: Socket) -> io::Result<Self> {
        socket.be_impatient()?;
        Ok(Self { dialect, socket })
    }

    /// Sets the value of that length.
    pub(crate) fn set(&mut self, value: &[u8]) -> io::Result<()> {
        let head = (self.dialect.set)(&key(value.len()), value.len());
        let parts = &mut [head.as_bytes(), value, LINE_END].map(IoSlice::new);
        self.socket.send(parts)?;
        self.expect(self.dialect.was_set, &mut [], "")
    }

    /// Gets the value of that length.
    pub(crate) fn get(&mut self, room: &mut [u8]) -> io::Result<()> {
        let key = key(room.len());
        let ask = (self.dialect.get)(&key);
        self.socket.send(&mut [IoSlice::new(ask.as_bytes())])?;
        let found = (self.dialect.found)(&key, room.len());
        self.expect(&found, room, self.dialect.end)
    }

    fn expect(&mut self, head: &str, room: &mut [u8], tail: &str) -> io::Result<()> {
        let wanted = |wanted: &str, came: &[u8]| {
            let is_so = wanted.as_bytes().starts_with(came);
            let came = String::from_utf8_lossy(came);
            let other = || io::Error::other(format!("it answered {came:?}, not {wanted:?}"));
            if is_so { Ok(()) } else { Err(other()) }
        };
        // Of lengths that are known here, without taking memory for each call.
        let (mut heads, mut tails) = ([0; 64], [0; 16]);
        let (came, last) = (&mut heads[..head.len()], &mut tails[..tail.len()]);
        self.socket.receive(came, room, last, |came| wanted(head, came))?;
        wanted(head, came)?;
        wanted(tail, last)
    }
}

/// A server, and a connection to it.
pub(crate) struct Door {
    /// The way.
    pub(crate) path: Path,
    /// Where it listens.
    pub(crate) address: Address,
    /// The number of its process.
    pub(crate) server: u32,
}

/// A peer with its servers.
pub(crate) struct TextPeer {
    who: Who,
    dialect: Dialect,
    doors: Vec<(Door, Speaker)>,
    there: BTreeSet<(Path, Size)>,
    _servers: Vec<Child>,
    _folder: TempDir,
}

impl TextPeer {
    /// Connects to servers that were started.
    pub(crate) fn new(
        who: Who,
        dialect: Dialect,
        doors: Vec<Door>,
        servers: Vec<Child>,
        folder: TempDir,
    ) -> Result<Self> {
        let connected = |door: Door| {
            let speaker = Speaker::new(dialect, Socket::connect(&door.address)?)?;
            Ok((door, speaker))
        };
        let doors = doors.into_iter().map(connected).collect::<Result<_>>()?;
        let there = BTreeSet::new();
        Ok(Self { who, dialect, doors, there, _servers: servers, _folder: folder })
    }

    fn door(&mut self, path: Path) -> Result<&mut (Door, Speaker)> {
        let found = self.doors.iter_mut().find(|(door, _)| door.path == path);
        found.context("it does not listen there")
    }
}

impl Subject for TextPeer {
    fn who(&self) -> Who {
        self.who
    }

    fn offers(&self) -> Vec<(Path, Operation)> {
        socket_offers(self.doors.iter().map(|(door, _)| door.path))
    }

    fn prepare(&mut self, case: Case, memory: &Memory) -> Result<()> {
        if self.there.insert((case.path, case.size)) {
            self.door(case.path)?.1.set(&memory.value(case.size.0))?;
        }
        Ok(())
    }

    fn run(&mut self, case: Case, calls: usize, memory: &mut Memory) -> Result<Vec<Duration>> {
        let bytes = case.size.0;
        let speaker = &mut self.door(case.path)?.1;
        match case.operation {
            Operation::Get => timed(calls, || Ok(speaker.get(memory.room(bytes))?)),
            Operation::GetAndRead => timed(calls, || {
                let room = memory.room(bytes);
                speaker.get(room)?;
                read_all([&*room]);
                Ok(())
            }),
            Operation::Put => timed(calls, || Ok(speaker.set(&memory.value(bytes))?)),
            other => bail!("it has no {other}"),
        }
    }

    fn processes(&self, path: Path) -> Processes {
        let servers = self.doors.iter().filter(|(door, _)| door.path == path);
        let servers = servers.map(|(door, _)| door.server).collect();
        Processes { servers, clients: Vec::new() }
    }

    fn reader(&self, path: Path, size: Size) -> Result<Box<dyn Reader>> {
        let found = self.doors.iter().find(|(door, _)| door.path == path);
        let (door, _) = found.context("it does not listen there")?;
        let speaker = Speaker::new(self.dialect, Socket::connect(&door.address)?)?;
        Ok(Box::new(TextReader { speaker, room: vec![1; size.0] }))
    }
}

struct TextReader {
    speaker: Speaker,
    room: Vec<u8>,
}

impl Reader for TextReader {
    fn read_for(&mut self, time: Duration) -> Result<(u64, Duration)> {
        repeated(time, || {
            self.speaker.get(&mut self.room)?;
            Ok(self.room.len())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;
    use crate::{memcached, redis};

    /// A server that must be told `asked` and answers `said`, byte by byte when
    /// it is slow.
    fn conversation<T>(
        dialect: Dialect,
        asked: &str,
        said: &str,
        is_slow: bool,
        talk: impl FnOnce(&mut Speaker) -> T,
    ) -> T {
        let (client, mut server) = UnixStream::pair().unwrap();
        let (asked, said) = (asked.to_owned(), said.to_owned());
        let serving = thread::spawn(move || {
            let mut came = vec![0; asked.len()];
            server.read_exact(&mut came).unwrap();
            assert_eq!(String::from_utf8(came).unwrap(), asked);
            let piece = if is_slow { 1 } else { said.len() };
            said.as_bytes().chunks(piece).for_each(|piece| server.write_all(piece).unwrap());
        });
        let mut speaker = Speaker::new(dialect, Socket::unix(client).unwrap()).unwrap();
        let result = talk(&mut speaker);
        serving.join().unwrap();
        result
    }

    #[test]
    fn values_are_set_and_got_in_the_words_of_each_peer() {
        let memcached = memcached::DIALECT;
        let redis = redis::DIALECT;
        for (dialect, asked, said) in [
            (memcached, "set key:000000005 0 0 5\r\nhello\r\n", "STORED\r\n"),
            (redis, "*3\r\n$3\r\nSET\r\n$13\r\nkey:000000005\r\n$5\r\nhello\r\n", "+OK\r\n"),
        ] {
            conversation(dialect, asked, said, false, |it| it.set(b"hello")).unwrap();
        }
        for (dialect, asked, said) in [
            (memcached, "get key:000000005\r\n", "VALUE key:000000005 0 5\r\nhello\r\nEND\r\n"),
            (redis, "*2\r\n$3\r\nGET\r\n$13\r\nkey:000000005\r\n", "$5\r\nhello\r\n"),
        ] {
            for is_slow in [false, true] {
                let mut room = [0; 5];
                conversation(dialect, asked, said, is_slow, |it| it.get(&mut room)).unwrap();
                assert_eq!(&room, b"hello");
            }
        }
    }

    #[test]
    fn another_answer_is_an_error_that_says_it() {
        let miss =
            conversation(memcached::DIALECT, "get key:000000005\r\n", "END\r\n", false, |it| {
                it.get(&mut [0; 5])
            });
        assert!(miss.unwrap_err().to_string().contains("END"));
        let refused = conversation(
            redis::DIALECT,
            "*3\r\n$3\r\nSET\r\n$13\r\nkey:000000001\r\n$1\r\nx\r\n",
            "-OOM command not allowed\r\n",
            false,
            |it| it.set(b"x"),
        );
        assert!(refused.unwrap_err().to_string().contains("-OOM"));
    }
}

//! memcached.

use std::path::Path as FilePath;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::case::{Path, Who};
use crate::child::{Child, first_line, free_address, installed};
use crate::text_peer::{Dialect, Door, TextPeer};
use crate::wire::Address;

/// Its text protocol.
pub(crate) const DIALECT: Dialect = Dialect {
    set: |key, bytes| format!("set {key} 0 0 {bytes}\r\n"),
    was_set: "STORED\r\n",
    get: |key| format!("get {key}\r\n"),
    found: |key, bytes| format!("VALUE {key} 0 {bytes}\r\n"),
    end: "\r\nEND\r\n",
};

const HOW_TO_GET: &str = "memcached is not installed: deploy/bench-peers.sh installs it";

/// Its version.
pub(crate) fn version() -> Option<String> {
    let line = first_line(installed("memcached")?, &["-V"])?;
    Some(line.trim_start_matches("memcached ").to_owned())
}

/// Starts it with one thread, and listening on both ways, or with as many threads
/// as it has by itself, on TCP. It listens on one way only, so each is a server.
/// `before` goes before its command.
pub(crate) fn start(who: Who, before: &[String]) -> Result<TextPeer> {
    let program = installed("memcached").context(HOW_TO_GET)?;
    let folder = TempDir::new()?;
    let mut ways = vec![Path::Tcp];
    if who == Who::Memcached {
        ways.push(Path::Unix);
    }
    let (mut servers, mut doors) = (Vec::new(), Vec::new());
    for path in ways {
        let address = address(path, folder.path())?;
        let words = [before, &command(&program, who, &address)].concat();
        let mut server = Child::start(&words, folder.path(), &format!("{path}"))?;
        server.wait_for(&address)?;
        doors.push(Door { path, address, server: server.id() });
        servers.push(server);
    }
    TextPeer::new(who, DIALECT, doors, servers, folder)
}

fn address(path: Path, folder: &FilePath) -> Result<Address> {
    Ok(match path {
        Path::Tcp => Address::Tcp(free_address()?),
        _ => Address::Unix(folder.join("memcached")),
    })
}

/// Items of up to 512 MiB, in up to 2 GiB of memory, which it takes as it needs it.
fn command(program: &FilePath, who: Who, address: &Address) -> Vec<String> {
    let mut words = vec![program.display().to_string()];
    words.extend(["-u", "root", "-m", "2048", "-I", "512m"].map(str::to_owned));
    if who == Who::Memcached {
        words.extend(["-t", "1"].map(str::to_owned));
    }
    match address {
        Address::Tcp(address) => {
            words.extend(["-l".to_owned(), address.ip().to_string()]);
            words.extend(["-p".to_owned(), address.port().to_string()]);
        }
        Address::Unix(path) => words.extend(["-s".to_owned(), path.display().to_string()]),
    }
    words
}

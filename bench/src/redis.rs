//! Redis.

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::case::{Path, Who};
use crate::child::{Child, first_line, free_address, installed, words};
use crate::text_peer::{Dialect, Door, TextPeer};
use crate::wire::Address;

/// RESP, its protocol.
pub(crate) const DIALECT: Dialect = Dialect {
    set: |key, bytes| format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${bytes}\r\n", key.len()),
    was_set: "+OK\r\n",
    get: |key| format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()),
    found: |_, bytes| format!("${bytes}\r\n"),
    end: "\r\n",
};

const HOW_TO_GET: &str = "redis-server is not installed: deploy/bench-peers.sh installs it";

/// Its version.
pub(crate) fn version() -> Option<String> {
    let line = first_line(installed("redis-server")?, &["--version"])?;
    let version = line.split_whitespace().find_map(|word| word.strip_prefix("v="));
    Some(version.unwrap_or(&line).to_owned())
}

/// Starts it as a memory only, listening on both ways. `before` goes before its
/// command.
pub(crate) fn start(before: &[String]) -> Result<TextPeer> {
    let program = installed("redis-server").context(HOW_TO_GET)?;
    let folder = TempDir::new()?;
    let (tcp, unix) = (free_address()?, folder.path().join("redis"));
    let mut command = before.to_vec();
    command.push(program.display().to_string());
    let port = tcp.port().to_string();
    command.extend(words(["--bind", "127.0.0.1", "--port", &port, "--save", ""]));
    command.extend(words(["--unixsocket", &unix.display().to_string()]));
    command.extend(words(["--appendonly", "no", "--proto-max-bulk-len", "1gb"]));
    command.extend(words(["--dir", &folder.path().display().to_string()]));
    let mut server = Child::start(&command, folder.path(), "redis-log")?;
    let ways = [(Path::Tcp, Address::Tcp(tcp)), (Path::Unix, Address::Unix(unix))];
    let mut doors = Vec::new();
    for (path, address) in ways {
        server.wait_for(&address)?;
        doors.push(Door { path, address, server: server.id() });
    }
    TextPeer::new(Who::Redis, DIALECT, doors, vec![server], folder)
}

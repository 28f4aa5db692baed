//! Hosts on one machine, the servers on them, and processes that read from there.

pub(crate) mod gatherer;
pub(crate) mod network;
pub(crate) mod reader;
mod worker;

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use self::network::{Network, address};
use crate::child::{Child, words};
use crate::puddle;

/// The cluster of all servers.
pub(crate) const CLUSTER: &str = "hosts";
/// The value.
pub(crate) const NAME: &[u8] = b"hosts/value";
/// Where servers listen.
pub(crate) const PORT: u16 = 7117;

/// Starts a server with a pool of so many bytes on each of the first hosts; with them
/// comes their discovery URL.
pub(crate) fn serve(
    network: &Network,
    servers: usize,
    pool: usize,
    folder: &Path,
) -> Result<(Vec<Child>, String)> {
    let hosts =
        || (1..=servers).map(|host| (host, name(host), format!("{}:{PORT}", address(host))));
    let members: Vec<String> =
        hosts().map(|(_, name, listen)| format!("{name}={listen}")).collect();
    let url = format!("static:{}", members.join(","));
    let start = |(host, name, listen): (usize, String, String)| {
        let words = [network.on(host), command(&url, &name, &listen, pool)?].concat();
        Child::start(&words, folder, &format!("server-{host}"))
    };
    let mut children = hosts().map(start).collect::<Result<Vec<_>>>()?;
    for (child, host) in children.iter_mut().zip(1..) {
        wait_for(network, child, host)?;
    }
    Ok((children, url))
}

fn name(host: usize) -> String {
    format!("h{host}")
}

/// The words that start a server.
pub(crate) fn command(url: &str, name: &str, listen: &str, pool: usize) -> Result<Vec<String>> {
    let more = words(["--insecure-public", "--no-prefault"]);
    Ok([puddle::serve(CLUSTER, url, name, listen, pool)?, more].concat())
}

/// Waits until somebody listens on a host.
pub(crate) fn wait_for(network: &Network, server: &mut Child, host: usize) -> Result<()> {
    server.wait_until("listens", || listens(network, host))
}

fn listens(network: &Network, host: usize) -> bool {
    let words = network.on(host);
    let mut command = Command::new(&words[0]);
    let seen = command.args(&words[1..]).args(["ss", "-ltnH"]).output();
    let output = seen.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).contains(&format!(":{PORT} "))
}

/// The words of a command of this program.
fn own(words: Vec<String>) -> Result<Vec<String>> {
    let program = std::env::current_exe()?.display().to_string();
    Ok([vec![program], words].concat())
}

//! A cluster to try things on.

#![allow(dead_code, reason = "each example uses a part")]

use std::error::Error;
use std::thread::JoinHandle;

use rampuddle_client::Options;
use rampuddle_client::configuration::variables;
use rampuddle_server::{Options as ServerOptions, Server, Stopper};

pub(crate) type Done = Result<(), Box<dyn Error>>;

/// The cluster that `PUDDLE_DISCOVERY` names, or else small servers in this
/// process, which end with it.
pub(crate) struct Cluster {
    servers: Vec<(Stopper, JoinHandle<()>)>,
    entries: Vec<(String, String)>,
}

impl Cluster {
    /// Starts so many servers, unless there is a cluster already.
    pub(crate) fn start(count: usize) -> Result<Self, Box<dyn Error>> {
        let mut cluster = Self { servers: Vec::new(), entries: Vec::new() };
        if std::env::var_os(variables::DISCOVERY).is_some() {
            return Ok(cluster);
        }
        for number in 1..=count {
            let name = format!("node-{number}");
            let server = Server::bind(ServerOptions::new(&name, "default", 128 << 20))?;
            let address = server.local_address().ok_or("the server listens nowhere")?;
            let stopper = server.stopper();
            let run = move || server.run().expect("the server runs");
            cluster.servers.push((stopper, std::thread::spawn(run)));
            cluster.entries.push((name, address.to_string()));
        }
        Ok(cluster)
    }

    /// The options of a client of the cluster.
    pub(crate) fn options(&self) -> Result<Options, Box<dyn Error>> {
        if self.entries.is_empty() {
            return Ok(Options::from_env()?);
        }
        let entries = self.entries.iter().map(|(name, address)| format!("{name}={address}"));
        Ok(Options::new(format!("static:{}", entries.collect::<Vec<_>>().join(","))))
    }

    /// Names and addresses of the servers of this process.
    pub(crate) fn entries(&self) -> &[(String, String)] {
        &self.entries
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (stopper, thread) in self.servers.drain(..) {
            stopper.stop();
            let _ = thread.join();
        }
    }
}

/// Bytes that are easily told from others.
pub(crate) fn pattern(length: usize, salt: u8) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8 ^ salt).collect()
}

//! A name server.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use rustix::process::Signal;

use super::daemon::command_of;
use super::local::{LocalService, is_local_service};
use crate::waiting::until;

/// How long the server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many answers in a row must have a zone until it counts as served.
const IN_A_ROW: usize = 20;
/// The type of record that says which version of a zone a server has.
const SOA: u8 = 6;

/// A name server for the zone `test.`, killed when dropped. It has a second zone,
/// `broken.`, of which it knows nothing: it answers SERVFAIL there.
#[derive(Debug)]
pub struct NameServer {
    service: LocalService,
    serial: u32,
}

is_local_service!(NameServer);

impl NameServer {
    /// Starts a server with these lines in its zone, and returns when it answers. None
    /// where no server can be had.
    ///
    /// # Panics
    /// When it does not answer in time.
    pub fn start(records: &str) -> Option<Self> {
        let command = command_of("dns.sh", &[])?;
        let mut service = LocalService::new("the name server", command, |_| true);
        let (port, path) = (service.address().port(), service.folder().display());
        let settings = format!(
            "server:\n  ip-address: 127.0.0.1@{port}\n  server-count: 1\n  username: \"\"\n  \
             chroot: \"\"\n  zonesdir: \"{path}\"\n  database: \"\"\n  pidfile: \"{path}/pid\"\n  \
             xfrdfile: \"{path}/xfrd\"\n  zonelistfile: \"{path}/zones\"\n  xfrdir: \"{path}\"\n\
             remote-control:\n  control-enable: no\n\
             zone:\n  name: \"test\"\n  zonefile: \"zone\"\n\
             zone:\n  name: \"broken\"\n  zonefile: \"missing\"\n"
        );
        let file = service.write("nsd.conf", settings);
        service.say(["-d".to_owned(), "-c".to_owned(), file.display().to_string()]);
        let mut server = Self { service, serial: 0 };
        server.write_zone(records);
        server.start_again();
        let said = server.said();
        let version = said.split_once("started (").and_then(|(_, rest)| rest.split_once(')'));
        let version = version.map(|(version, _)| version.to_owned()).unwrap_or_default();
        server.is_of_version(version);
        Some(server)
    }

    /// Starts it again at the same address, and returns when it answers.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn start_again(&mut self) {
        self.service.start_again();
        self.until_it_serves();
    }

    /// Gives the zone other records, and returns when they are served.
    ///
    /// # Panics
    /// When they are not in time.
    pub fn set(&mut self, records: &str) {
        self.write_zone(records);
        self.signal(Signal::HUP);
        self.until_it_serves();
    }

    fn write_zone(&mut self, records: &str) {
        self.serial += 1;
        let serial = self.serial;
        let head = format!("$TTL 1\n@ IN SOA ns root {serial} 3600 600 86400 1\n@ IN NS ns\n");
        // Renamed into place: the server may read it at any moment.
        let new = self.write("new", format!("{head}ns IN A 127.0.0.1\n{records}\n"));
        fs::rename(new, self.folder().join("zone")).expect("it is ours");
    }

    fn until_it_serves(&self) {
        // The processes that served the old zone answer for a moment beside the new ones.
        let is_served = || self.served_serial() == Some(self.serial);
        until("the name server answers", PATIENCE, || (0..IN_A_ROW).all(|_| is_served()));
    }

    /// The serial number of the zone `test.` that is served.
    fn served_serial(&self) -> Option<u32> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        socket.set_read_timeout(Some(Duration::from_millis(200))).ok()?;
        let question = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let name = [4, b't', b'e', b's', b't', 0, 0, SOA, 0, 1];
        socket.send_to(&[&question[..], &name].concat(), self.address()).ok()?;
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).ok()?;
        let answer = &answer[..length];
        // The record ends with the serial and four other numbers; then others follow.
        let at = answer.get(6..8).filter(|count| *count == [0, 1]).and_then(|_| {
            let tail: Vec<u8> =
                [3600_u32, 600, 86400, 1].iter().flat_map(|n| n.to_be_bytes()).collect();
            answer.windows(tail.len()).position(|window| window == tail)
        })?;
        let serial = answer.get(at.checked_sub(4)?..at)?;
        Some(u32::from_be_bytes(serial.try_into().ok()?))
    }
}

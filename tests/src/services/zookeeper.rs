//! A ZooKeeper of one server.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::certificates::Certificates;
use super::daemon::{Daemon, command_of, free_port, shared};
use crate::waiting::until;

const SCRIPT: &str = "zookeeper.sh";
/// How long a server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a ZooKeeper is started.
#[derive(Debug, Clone)]
pub struct ZooKeeperOptions {
    /// Its tick: sessions end at a multiple of it, and live at least two of it.
    pub tick: Duration,
    /// Memory for what it keeps, in MiB, if not what the tests have it start with.
    pub heap_mib: Option<u64>,
    /// With these it listens with TLS as well, and wants certificates of its clients.
    pub certificates: Option<Arc<Certificates>>,
}

impl Default for ZooKeeperOptions {
    /// As most are.
    fn default() -> Self {
        Self { tick: Duration::from_secs(2), heap_mib: None, certificates: None }
    }
}

/// A running server, killed when dropped.
#[derive(Debug)]
pub struct ZooKeeper {
    daemon: Option<Daemon>,
    command: Vec<String>,
    folder: TempDir,
    port: u16,
    tls_port: u16,
    version: String,
}

static SHARED: Mutex<Weak<ZooKeeper>> = Mutex::new(Weak::new());

impl ZooKeeper {
    /// The server that all tests of a process share; it is neither killed nor wiped.
    /// None where ZooKeeper cannot be had.
    pub fn shared() -> Option<Arc<Self>> {
        shared(&SHARED, || Self::start(&ZooKeeperOptions::default()))
    }

    /// Starts a server, and returns when it answers. None where ZooKeeper cannot be had.
    ///
    /// # Panics
    /// When it does not answer in time.
    pub fn start(options: &ZooKeeperOptions) -> Option<Self> {
        let mut command = command_of(SCRIPT, &[])?;
        if let Some(heap_mib) = options.heap_mib {
            let heap = command.iter_mut().find(|word| word.starts_with("-Xmx"));
            *heap.expect("the script says how much memory") = format!("-Xmx{heap_mib}m");
        }
        let folder = TempDir::new().expect("a temporary folder");
        let (port, tls_port) = (free_port(), free_port());
        let file = folder.path().join("zoo.cfg");
        let mut settings = format!(
            "tickTime={}\nclientPort={port}\nclientPortAddress=127.0.0.1\ndataDir={}\n\
             admin.enableServer=false\n4lw.commands.whitelist=srvr\nmaxClientCnxns=0\n",
            options.tick.as_millis(),
            folder.path().join("data").display(),
        );
        if let Some(certificates) = &options.certificates {
            settings += &tls_settings(folder.path(), tls_port, certificates);
        }
        fs::write(&file, settings).expect("the folder is ours");
        command.push(file.display().to_string());
        let (daemon, version) = (None, String::new());
        let mut server = Self { daemon, command, folder, port, tls_port, version };
        server.start_again();
        server.version = server.ask_version().expect("it just answered");
        println!("ZooKeeper {} at {}", server.version, server.address());
        Some(server)
    }

    /// Starts it again, with the same address and what is left of its data, and returns
    /// when it answers.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn start_again(&mut self) {
        // Nodes may be larger than usual: what reads them is tested with such.
        let options = "-Djute.maxbuffer=8388608".to_owned();
        let variables = [("JDK_JAVA_OPTIONS", options)];
        self.daemon = Some(Daemon::start(&self.command, &variables, &self.log()));
        until("ZooKeeper answers", PATIENCE, || self.ask_version().is_some());
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// SIGSTOP: it keeps its connections and answers nothing.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        self.daemon.as_ref().expect("it runs").signal(signal);
    }

    /// Removes all its data, of a server that was killed.
    ///
    /// # Panics
    /// When it runs.
    pub fn wipe(&mut self) {
        assert!(self.daemon.is_none(), "only one that was killed is wiped");
        fs::remove_dir_all(self.folder.path().join("data")).expect("the folder is ours");
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Where it listens with TLS.
    pub fn tls_address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.tls_port).into()
    }

    /// What it logged.
    pub fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn ask_version(&self) -> Option<String> {
        let limit = Some(Duration::from_secs(1));
        let mut stream = TcpStream::connect(self.address()).ok()?;
        stream.set_read_timeout(limit).ok()?;
        stream.write_all(b"srvr").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let version = text.strip_prefix("Zookeeper version: ")?.split(['-', ',']).next()?;
        Some(version.to_owned())
    }
}

impl Drop for ZooKeeper {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = self.said();
            let begin = said.len().saturating_sub(4_000);
            let begin = said.ceil_char_boundary(begin);
            eprintln!("--- ZooKeeper said at last:\n{}---", &said[begin..]);
        }
    }
}

/// Only netty takes TLS.
fn tls_settings(folder: &Path, port: u16, certificates: &Certificates) -> String {
    let read = |path: PathBuf| fs::read_to_string(path).expect("it was just made");
    let (certificate, key) = certificates.server();
    let pair = folder.join("server.pem");
    fs::write(&pair, read(certificate) + &read(key)).expect("the folder is ours");
    let mut settings = format!(
        "secureClientPort={port}\nsecureClientPortAddress=127.0.0.1\n\
         serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n\
         ssl.clientAuth=need\n"
    );
    for (setting, path) in [("keyStore", pair), ("trustStore", certificates.authority())] {
        let path = path.display();
        settings += &format!("ssl.{setting}.location={path}\nssl.{setting}.type=PEM\n");
    }
    settings
}

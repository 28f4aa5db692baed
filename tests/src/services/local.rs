//! A service of this machine that a test starts, kills and starts again: what Consul, etcd,
//! ZooKeeper and a name server have in common.

use std::fmt;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::daemon::Daemon;
use super::port::Port;
use crate::waiting::until;

/// How long a service may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much of what it said is shown when a test fails.
const SAID_BYTES_MAX: usize = 4_000;

/// A program, its folder and its ports. Killed when dropped.
pub struct LocalService {
    name: &'static str,
    version: String,
    daemon: Option<Daemon>,
    command: Vec<String>,
    variables: Vec<(&'static str, String)>,
    folder: TempDir,
    port: Port,
    tls_port: Port,
    has_tls: bool,
    answers: Box<Answers>,
}

/// Whether a service answers at an address.
type Answers = dyn Fn(SocketAddr) -> bool + Send + Sync;

impl LocalService {
    /// A service that was not started yet: its name for messages, the program, and how to
    /// tell that it answers.
    pub(super) fn new(
        name: &'static str,
        command: Vec<String>,
        answers: impl Fn(SocketAddr) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            name,
            version: String::new(),
            daemon: None,
            command,
            variables: Vec::new(),
            folder: TempDir::new().expect("a temporary folder"),
            port: Port::take(),
            tls_port: Port::take(),
            has_tls: false,
            answers: Box::new(answers),
        }
    }

    /// Words for its command line.
    pub(super) fn say(&mut self, words: impl IntoIterator<Item = String>) {
        self.command.extend(words);
    }

    /// A variable of its environment.
    pub(super) fn set(&mut self, variable: &'static str, value: impl Into<String>) {
        self.variables.push((variable, value.into()));
    }

    /// What it says of its version, once it runs.
    pub(super) fn is_of_version(&mut self, version: String) {
        self.version = version;
        println!("{} {} at {}", self.name, self.version, self.address());
    }

    /// It listens with TLS too, as its settings say: the port to put there.
    pub(super) fn listens_with_tls(&mut self) -> u16 {
        self.has_tls = true;
        self.tls_address().port()
    }

    /// Writes a file into its folder.
    pub(super) fn write(&self, file: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder().join(file);
        fs::write(&path, text).expect("the folder is ours");
        path
    }

    /// Its folder: `data` in it is what [`wipe`](Self::wipe) removes.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it again, with the same address and what is left of its data, and returns
    /// when it answers.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn start_again(&mut self) {
        self.start_only();
        self.until_it_answers();
    }

    pub(super) fn start_only(&mut self) {
        self.daemon = Some(Daemon::start(&self.command, &self.variables, &self.log()));
    }

    pub(super) fn until_it_answers(&self) {
        let what = format!("{} answers", self.name);
        until(&what, PATIENCE, || (self.answers)(self.address()));
        if self.has_tls {
            let what = format!("{} takes connections with TLS", self.name);
            until(&what, PATIENCE, || TcpStream::connect(self.tls_address()).is_ok());
        }
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// SIGTERM, as whoever restarts a service does, and waits until it has ended.
    ///
    /// # Panics
    /// When it does not run.
    pub fn stop(&mut self) {
        self.daemon.take().expect("it runs").stop();
    }

    /// SIGSTOP: it keeps its connections and answers nothing.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    ///
    /// # Panics
    /// When it does not run.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    pub(super) fn signal(&self, signal: Signal) {
        self.daemon.as_ref().expect("it runs").signal(signal);
    }

    /// Removes all its data, of a service that was killed.
    ///
    /// # Panics
    /// When it runs.
    pub fn wipe(&mut self) {
        assert!(self.daemon.is_none(), "only one that was killed is wiped");
        fs::remove_dir_all(self.folder().join("data")).expect("the folder is ours");
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Where it listens with TLS, if it does.
    pub fn tls_address(&self) -> SocketAddr {
        self.tls_port.address()
    }

    /// What it logged.
    pub fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn log(&self) -> PathBuf {
        self.folder().join("log")
    }
}

impl fmt::Debug for LocalService {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} at {}", self.name, self.version, self.address())
    }
}

impl Drop for LocalService {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = self.said();
            let begin = said.ceil_char_boundary(said.len().saturating_sub(SAID_BYTES_MAX));
            eprintln!("--- {} said at last:\n{}---", self.name, &said[begin..]);
        }
    }
}

/// A service can what a [`LocalService`] can.
macro_rules! is_local_service {
    ($service:ident) => {
        impl std::ops::Deref for $service {
            type Target = crate::services::LocalService;

            fn deref(&self) -> &Self::Target {
                &self.service
            }
        }

        impl std::ops::DerefMut for $service {
            fn deref_mut(&mut self) -> &mut Self::Target {
                &mut self.service
            }
        }
    };
}
pub(super) use is_local_service;

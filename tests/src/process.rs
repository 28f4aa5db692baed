//! One `puddle serve` as a process.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::Value;
use tempfile::TempDir;

use crate::binary::puddle_binary;
use crate::raw::{Door, RawClient, Transport};
use crate::waiting::until;

/// How long a server may take until it is ready.
const READY_PATIENCE: Duration = Duration::from_secs(30);
/// How long a killed process may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// How to start a server.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// The member's name.
    pub name: String,
    /// The cluster's name.
    pub cluster: String,
    /// Size of the pool in bytes.
    pub pool_bytes: u64,
    /// Where to listen; port 0 for any.
    pub listen: String,
    /// Discovery; `None` = a directory of its own.
    pub discovery: Option<String>,
    /// Whether it listens on a unix socket as well.
    pub has_socket: bool,
    /// Lines of a token file.
    pub tokens: Option<String>,
    /// More arguments of `serve`.
    pub arguments: Vec<String>,
    /// What a shell does first, in the process that becomes the server: limits
    /// and control groups.
    pub shell: Option<String>,
}

impl ServeOptions {
    /// A lone server with a pool of so many MiB.
    pub fn with_pool_mib(pool_mib: u64) -> Self {
        Self {
            name: "alone".to_owned(),
            cluster: "test".to_owned(),
            pool_bytes: pool_mib << 20,
            listen: "127.0.0.1:0".to_owned(),
            discovery: None,
            has_socket: true,
            tokens: None,
            arguments: Vec::new(),
            shell: None,
        }
    }

    fn command(&self, folder: &Path) -> Command {
        let mut words: Vec<OsString> = vec![puddle_binary().into()];
        let mut push = |word: &str| words.push(word.into());
        push("--json");
        push("--cluster");
        push(&self.cluster);
        push("--discovery");
        let own = format!("dir:{}", folder.join("discovery").display());
        push(self.discovery.as_ref().unwrap_or(&own));
        if let Some(tokens) = &self.tokens {
            let file = folder.join("tokens");
            fs::write(&file, tokens).expect("the temporary folder can be written");
            let private = fs::Permissions::from_mode(0o600);
            fs::set_permissions(&file, private).expect("the file is ours");
            push("--token-file");
            push(&file.to_string_lossy());
        }
        push("serve");
        push("--name");
        push(&self.name);
        push("--listen");
        push(&self.listen);
        if self.has_socket {
            push("--socket");
            push(&folder.join("socket").to_string_lossy());
        }
        push("--pool");
        push(&self.pool_bytes.to_string());
        self.arguments.iter().for_each(|argument| push(argument));
        let mut command = match &self.shell {
            None => Command::new(words.remove(0)),
            Some(script) => {
                let mut command = Command::new("sh");
                command.arg("-c").arg(format!("{script}\nexec \"$@\"")).arg("sh");
                command
            }
        };
        command.args(words);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PUDDLE_") {
                command.env_remove(name);
            }
        }
        command
    }
}

/// A running server. Killed when dropped; what it said on stderr is shown when
/// the test fails.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    options: ServeOptions,
    folder: Arc<TempDir>,
    ready: Value,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    address: SocketAddr,
    exited: Option<ExitStatus>,
}

impl ServerProcess {
    /// Starts a server, and returns when it is ready.
    ///
    /// # Panics
    /// When it is not ready in time; the message has what it said.
    pub fn start(options: ServeOptions) -> Self {
        let folder = Arc::new(TempDir::new().expect("a temporary folder"));
        Self::start_in(options, folder)
    }

    /// A lone server with a pool of so many MiB.
    pub fn with_pool_mib(pool_mib: u64) -> Self {
        Self::start(ServeOptions::with_pool_mib(pool_mib))
    }

    fn start_in(options: ServeOptions, folder: Arc<TempDir>) -> Self {
        let mut command = options.command(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary can be started");
        let (stderr, errors) = collect(child.stderr.take().expect("piped above"));
        let (lines, output) = read_lines(child.stdout.take().expect("piped above"));
        let ready = lines.recv_timeout(READY_PATIENCE);
        let Ok(ready) = ready else {
            let _ = child.kill();
            let status = child.wait();
            let _ = errors.join();
            panic!("the server is not ready ({status:?}); it said:\n{}", text_of(&stderr));
        };
        let ready: Value = serde_json::from_str(&ready).expect("the ready line is JSON");
        assert_eq!(ready["event"], "ready", "{ready}");
        let address = ready["address"].as_str().and_then(|text| text.parse().ok());
        let address = address.unwrap_or_else(|| panic!("no address in {ready}"));
        let readers = vec![errors, output];
        Self { child, options, folder, ready, stderr, readers, address, exited: None }
    }

    /// Starts a server with the same options at the same address, after this
    /// one was killed or has ended.
    pub fn restart(mut self) -> Self {
        assert!(self.has_exited(), "only one that has ended is restarted");
        let mut options = self.options.clone();
        options.listen = self.address.to_string();
        Self::start_in(options, Arc::clone(&self.folder))
    }

    /// Its line when it became ready.
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    /// The member's name.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// Where it listens for TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its folder, where discovery lies too unless it was told otherwise.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file that says that it lives, when it has a directory of its own.
    pub fn living_file(&self) -> PathBuf {
        let cluster = self.folder().join("discovery").join(&self.options.cluster);
        cluster.join("living").join(format!("{}.json", self.options.name))
    }

    /// How to reach it.
    pub fn door(&self, transport: Transport) -> Door {
        let cluster = self.options.cluster.clone();
        let door = match transport {
            Transport::Tcp => Door::tcp(self.address, cluster),
            Transport::Unix => Door::unix(self.folder().join("socket"), cluster),
        };
        door.of_process(self.pid())
    }

    /// A client that has shaken hands.
    pub fn client(&self, transport: Transport) -> RawClient {
        RawClient::connect(&self.door(transport))
    }

    /// The number of the process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Everything it said on stderr so far.
    pub fn stderr(&self) -> String {
        text_of(&self.stderr)
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone already.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the server is there");
    }

    /// SIGTERM.
    pub fn ask_to_stop(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGSTOP: the process neither runs nor answers.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let status = self.wait(KILL_PATIENCE);
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{status}");
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Panics
    /// When it does not within `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        until("the end of the server", limit, || self.has_exited());
        self.exited.expect("just seen")
    }

    /// Whether the process has ended.
    pub fn has_exited(&mut self) -> bool {
        if self.exited.is_none() {
            self.exited = self.child.try_wait().expect("the process is a child");
        }
        self.exited.is_some()
    }

    /// Memory that the process has in RAM, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = self.proc_file("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        kib.expect("the kernel says VmRSS") * 1024
    }

    /// Descriptors that the process has open.
    pub fn open_descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.child.id());
        fs::read_dir(folder).expect("the process is there").count()
    }

    /// Lets the process open no more than so many descriptors from now on.
    pub fn limit_descriptors(&self, most: u64) {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        prlimit(Some(self.pid()), Resource::Nofile, limit).expect("the process is a child");
    }

    /// Processor time that the process has used so far.
    pub fn processor_time(&self) -> Duration {
        let stat = self.proc_file("stat");
        // The name may have spaces; what follows it has not.
        let (_, rest) = stat.rsplit_once(')').expect("the name stands in brackets");
        let fields: Vec<u64> =
            rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        let ticks = fields[11] + fields[12];
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }

    fn proc_file(&self, name: &str) -> String {
        let path = format!("/proc/{}/{name}", self.child.id());
        fs::read_to_string(path).expect("the process is there")
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let had_exited = self.has_exited();
        if !had_exited {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        if thread::panicking() {
            let ended = if had_exited { "had ended" } else { "was running" };
            eprintln!("--- server \"{}\" {ended}; it said:", self.options.name);
            eprintln!("{}---", self.stderr());
        } else {
            let said = self.stderr();
            assert!(!said.contains("panicked"), "the server panicked:\n{said}");
        }
    }
}

/// Kills several servers at once, as a power cut would.
pub fn kill_hard<'a>(servers: impl IntoIterator<Item = &'a mut ServerProcess>) {
    let servers: Vec<&mut ServerProcess> = servers.into_iter().collect();
    servers.iter().for_each(|server| server.signal(Signal::KILL));
    for server in servers {
        server.wait(KILL_PATIENCE);
    }
}

/// Starts a server that must refuse to serve: its exit code, and what it said.
///
/// # Panics
/// When it does not end in time.
pub fn refused_start(options: &ServeOptions) -> (i32, String) {
    let folder = TempDir::new().expect("a temporary folder");
    let mut command = options.command(folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary can be started");
    let (stderr, errors) = collect(child.stderr.take().expect("piped above"));
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("the process is a child") {
            break status;
        }
        if began.elapsed() > READY_PATIENCE {
            let _ = child.kill();
            panic!("the server was to refuse, and runs; it said:\n{}", text_of(&stderr));
        }
        thread::yield_now();
    };
    let _ = errors.join();
    (status.code().unwrap_or(-1), text_of(&stderr))
}

fn text_of(text: &Mutex<String>) -> String {
    text.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn collect(stream: impl std::io::Read + Send + 'static) -> (Arc<Mutex<String>>, JoinHandle<()>) {
    let text = Arc::new(Mutex::new(String::new()));
    let thread = thread::spawn({
        let text = Arc::clone(&text);
        move || {
            let (mut stream, mut bytes) = (stream, [0; 4096]);
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                let piece = String::from_utf8_lossy(&bytes[..count]);
                text.lock().unwrap_or_else(PoisonError::into_inner).push_str(&piece);
            }
        }
    });
    (text, thread)
}

fn read_lines(stream: impl std::io::Read + Send + 'static) -> (Receiver<String>, JoinHandle<()>) {
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            // Read on when nobody listens any more: the pipe must not fill.
            let _ = sender.send(line);
        }
    });
    (receiver, thread)
}

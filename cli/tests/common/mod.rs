//! Runs the real binary.

#![allow(dead_code, reason = "each test file uses a part")]

use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, Error, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rampuddle_discovery::{Settings, open};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A command of `puddle` that nothing outside reaches.
pub(crate) fn puddle<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_puddle"));
    for (variable, _) in std::env::vars_os() {
        if variable.as_encoded_bytes().starts_with(b"PUDDLE_") {
            command.env_remove(variable);
        }
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// The same command behind one that starts it: `nohup`, `env` with options.
pub(crate) fn behind(words: &[&str], command: &Command) -> Command {
    let mut behind = Command::new(words[0]);
    behind.args(&words[1..]).arg(command.get_program()).args(command.get_args());
    copy_surroundings(command, &mut behind);
    behind
}

fn copy_surroundings(from: &Command, to: &mut Command) {
    for (name, value) in from.get_envs() {
        match value {
            Some(value) => to.env(name, value),
            None => to.env_remove(name),
        };
    }
    if let Some(folder) = from.get_current_dir() {
        to.current_dir(folder);
    }
    to.stdin(Stdio::null());
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).expect("utf-8")
    }

    /// Each line of stdout as JSON.
    pub(crate) fn json(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// Fails the test unless the command ended with this code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Fails the test unless stderr says this.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "wanted {text:?}: {self:?}");
        self
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { code: output.status.code(), stdout: output.stdout, stderr }
    }
}

/// Runs a command to its end, with nobody to read what it prints.
pub(crate) fn run_unread(mut command: Command) -> Ran {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    command.stdout(writer).stderr(Stdio::piped());
    command.spawn().expect("the binary runs").wait_with_output().expect("it ends").into()
}

/// A command on a terminal of its own. Its output is everything that the terminal
/// shows. `script` is a part of util-linux.
pub(crate) fn on_terminal(command: &Command) -> Command {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().expect("text"))).collect();
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]);
    copy_surroundings(command, &mut script);
    // Where it is not said what the terminal is like, nothing is drawn.
    script.env("TERM", "xterm");
    script
}

/// Runs a command on a terminal, on which somebody types.
pub(crate) fn run_on_terminal(command: &Command, typed: &[u8]) -> Ran {
    run_with(on_terminal(command), typed)
}

/// Runs a command to its end.
pub(crate) fn run(mut command: Command) -> Ran {
    command.output().expect("the binary runs").into()
}

/// The same, with something on stdin.
pub(crate) fn run_with(mut command: Command, stdin: &[u8]) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    // Who does not read all of it is not at fault.
    let _ = child.stdin.take().expect("a pipe").write_all(stdin);
    child.wait_with_output().expect("it ends").into()
}

/// A command that goes on, killed when the test ends.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let stdout = child.stdout.take().map(BufReader::new);
        Self { child, stdout }
    }

    /// The next line of stdout, as JSON. Waits no longer than the patience.
    pub(crate) fn line(&mut self) -> Value {
        let mut stdout = self.stdout.take().expect("one reader at a time");
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let _ = stdout.read_line(&mut line);
            let _ = sender.send((stdout, line));
        });
        let (stdout, line) = receiver.recv_timeout(PATIENCE).expect("a line in time");
        self.stdout = Some(stdout);
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}: {}", self.stderr()))
    }

    /// No one reads stdout any more.
    pub(crate) fn close_stdout(&mut self) {
        self.stdout = None;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.child.id() as i32).expect("a child has a number");
        kill_process(id, signal).expect("the child lives");
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end, no longer than the patience.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let id = Pid::from_raw(self.child.id() as i32).expect("a child has a number");
        let (done, is_done) = mpsc::channel::<()>();
        let watchdog = thread::spawn(move || {
            let is_late = is_done.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout);
            if is_late {
                let _ = kill_process(id, Signal::KILL);
            }
            is_late
        });
        let status = self.child.wait().expect("a child can be waited for");
        drop(done);
        assert!(!watchdog.join().unwrap(), "it did not end in time");
        status
    }

    /// What stderr has said, after the end.
    pub(crate) fn stderr(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = self.child.kill();
            let _ = stderr.read_to_string(&mut text);
        }
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with servers whose members are kept in it.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) folder: TempDir,
    pub(crate) servers: Vec<(Running, Value)>,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), servers: Vec::new() }
    }

    /// With so many servers that are ready, of a cluster that was founded long ago:
    /// a name that is not there is known not to be there.
    pub(crate) fn with_servers(count: usize) -> Self {
        let lab = Self::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let settings = Settings::new("default", 1_000);
            let backend = open(&lab.discovery(), &settings.cluster).expect("a directory");
            backend.create_settings(&settings).await.expect("settings are written");
        });
        lab.joined_by(count)
    }

    /// The same of one that is founded by its first server now.
    pub(crate) fn young_with_servers(count: usize) -> Self {
        Self::new().joined_by(count)
    }

    fn joined_by(mut self, count: usize) -> Self {
        for number in 1..=count {
            self.serve(&format!("s{number}"), &[]);
        }
        self
    }

    pub(crate) fn discovery(&self) -> String {
        format!("dir:{}", self.folder.path().join("members").display())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file of so many bytes that no other test has.
    pub(crate) fn file(&self, name: &str, bytes: usize) -> PathBuf {
        let mut state = bytes as u64 + 1;
        let content: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        })
        .take(bytes)
        .collect();
        let path = self.path(name);
        std::fs::write(&path, content).expect("room for a file");
        path
    }

    /// A file of tokens that nobody else may read.
    pub(crate) fn token_file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("room for a file");
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("our own file");
        path
    }

    pub(crate) fn serve_command(&self, name: &str, more: &[&str]) -> Command {
        let mut command = puddle(["serve", "--json"]);
        let discovery = self.discovery();
        let usual = [("--listen", "127.0.0.1:0"), ("--pool", "32MiB"), ("--name", name)];
        for (flag, value) in usual.into_iter().chain([("--discovery", discovery.as_str())]) {
            if !more.contains(&flag) {
                command.args([flag, value]);
            }
        }
        command.args(more);
        command
    }

    /// Starts a server and waits until it is ready.
    pub(crate) fn serve(&mut self, name: &str, more: &[&str]) -> &mut (Running, Value) {
        let mut server = Running::start(self.serve_command(name, more));
        let ready = server.line();
        assert_eq!(ready["event"], "ready");
        self.servers.push((server, ready));
        self.servers.last_mut().expect("just pushed")
    }

    /// The servers as a written list, which is never young.
    pub(crate) fn static_list(&self) -> String {
        let entry = |(_, ready): &(Running, Value)| {
            format!("{}={}", text(&ready["name"]), text(&ready["address"]))
        };
        let entries: Vec<_> = self.servers.iter().map(entry).collect();
        format!("static:{}", entries.join(","))
    }

    /// A client command.
    pub(crate) fn puddle<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = puddle(arguments);
        command.env("PUDDLE_DISCOVERY", self.discovery()).current_dir(self.folder.path());
        command
    }

    /// Runs a client command to its end.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ran {
        run(self.puddle(arguments))
    }
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

/// Removes a folder in which servers may write meanwhile.
pub(crate) fn wipe(folder: &Path) {
    let is_written_to = |error: &Error| error.kind() == ErrorKind::DirectoryNotEmpty;
    until("the folder is gone", || {
        !std::fs::remove_dir_all(folder).is_err_and(|it| is_written_to(&it))
    });
}

/// Asks again and again until the answer is yes; the question takes a while
/// by itself.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::yield_now();
    }
}

/// Whether a process with this number runs.
pub(crate) fn runs(id: &str) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let state = state.rsplit(')').next().unwrap_or_default().trim_start().to_owned();
    !state.is_empty() && !state.starts_with(['Z', 'X'])
}

/// The processes of `puddle` that were started by this one.
pub(crate) fn children_of(parent: u32) -> Vec<String> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// What is left in a folder.
pub(crate) fn left_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

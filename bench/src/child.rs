//! Servers as child processes.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::wire::{Address, Socket};

/// How long a server may take until it answers.
const READY_PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at whether it does.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Ends a process together with the one that started it, where it is installed.
const LEASH: &str = "/usr/bin/setpriv";

/// A process that ends with this value.
pub(crate) struct Child {
    process: Process,
    log: PathBuf,
}

impl Child {
    /// Starts `command`, whose words begin with a program. What it says goes to
    /// a file in `folder`.
    pub(crate) fn start(command: &[String], folder: &Path, name: &str) -> Result<Self> {
        Self::with(command, folder, name, Stdio::null(), None)
    }

    /// The same, with pipes to its input and from its output.
    pub(crate) fn piped(
        command: &[String],
        folder: &Path,
        name: &str,
    ) -> Result<(Self, ChildStdin, ChildStdout)> {
        let mut child = Self::with(command, folder, name, Stdio::piped(), Some(Stdio::piped()))?;
        let input = child.process.stdin.take().context("it has an input")?;
        let output = child.process.stdout.take().context("it has an output")?;
        Ok((child, input, output))
    }

    fn with(
        words: &[String],
        folder: &Path,
        name: &str,
        input: Stdio,
        output: Option<Stdio>,
    ) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let said = File::create(&log)?;
        let mut command = leashed(words);
        command.stdin(input).stderr(said.try_clone()?);
        command.stdout(output.unwrap_or_else(|| said.into()));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PUDDLE_") {
                command.env_remove(name);
            }
        }
        let process = command.spawn().with_context(|| format!("cannot start {}", words[0]))?;
        Ok(Self { process, log })
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it said so far.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until somebody answers at `address`.
    pub(crate) fn wait_for(&mut self, address: &Address) -> Result<()> {
        self.wait_until("answers", || Socket::connect(address).is_ok())
    }

    /// Waits until `is_so`.
    pub(crate) fn wait_until(&mut self, what: &str, is_so: impl Fn() -> bool) -> Result<()> {
        let begin = Instant::now();
        while !is_so() {
            if let Some(status) = self.process.try_wait()? {
                bail!("it ended ({status}) and said: {}", shortened(&self.said()));
            }
            if begin.elapsed() > READY_PATIENCE {
                bail!("nobody {what} within {READY_PATIENCE:?}; it said: {}", self.said());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(&mut self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.process), signal)?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// So that nothing is left behind when this process is killed.
fn leashed(words: &[String]) -> Command {
    if !Path::new(LEASH).exists() {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        return command;
    }
    let mut command = Command::new(LEASH);
    command.args(["--pdeathsig", "KILL", "--"]).args(words);
    command
}

/// The last lines, in one.
fn shortened(said: &str) -> String {
    let lines: Vec<&str> = said.lines().rev().take(3).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("; ")
}

/// The words of a command.
pub(crate) fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

/// An address on the loopback interface at which nobody listens.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Where a program lies, if it is installed.
pub(crate) fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// What a program prints, its first line.
pub(crate) fn first_line(program: impl AsRef<OsStr>, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned())
}

//! A cluster of child processes on this machine, for `up` and `demo`.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rampuddle_discovery::Strategy;
use rampuddle_discovery::validate::UNIX_SOCKET_BYTES_MAX;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::exit::{Exit, refusal};
use crate::machine;
use crate::output::counted;
use crate::settings::Settings;
use crate::size::{Size, rounded};

/// A server may finish for 10 s what is in flight; it gets a little more.
const STOP_PATIENCE: Duration = Duration::from_secs(12);
/// The system may take a while to give a killed server's memory back.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// Pages that a server touches besides its pool.
const SERVER_BYTES: u64 = 32 << 20;

/// What of this process's own environment the servers have too.
const KEPT_VARIABLES: [&str; 3] =
    ["PUDDLE_LOG", "PUDDLE_DISCOVERY_USER", "PUDDLE_DISCOVERY_PASSWORD"];

/// Which servers to start.
#[derive(Debug)]
pub(crate) struct Plan {
    /// How many.
    pub(crate) servers: u16,
    /// Each one's pool.
    pub(crate) pool: Size,
    /// Where the members are kept; `None` = in the cluster's own folder.
    pub(crate) discovery: Option<String>,
    /// How keys find their owners, in a new cluster.
    pub(crate) strategy: Option<Strategy>,
}

impl Plan {
    /// Says what the servers need and what there is. Each server looks only at
    /// itself: together they could take more than the machine has.
    ///
    /// # Errors
    /// When it is not there, with the advice.
    pub(crate) fn check_memory(&self, advice: &str) -> anyhow::Result<String> {
        let servers = u64::from(self.servers);
        let needed = self.pool.0.saturating_add(SERVER_BYTES).saturating_mul(servers);
        let available = machine::available_bytes().unwrap_or(u64::MAX);
        let told = format!(
            "{} with pools of {} need {} of memory, {} is available",
            counted(servers, "server"),
            rounded(self.pool.0),
            rounded(needed),
            rounded(available)
        );
        if needed > available { Err(refusal(format!("{told}: {advice}"))) } else { Ok(told) }
    }
}

/// Servers in a folder that goes with them.
///
/// The servers die with the thread that starts them: it must be the one that
/// lives longest, the main thread.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Where the members are kept.
    pub(crate) discovery: String,
    /// The servers, by name.
    pub(crate) servers: Vec<ServerProcess>,
    // Behind the servers: they are killed before their folder goes.
    folder: TempDir,
}

/// A server that is ready.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    /// What it said of itself.
    pub(crate) ready: ReadyLine,
    /// Whether it is known to have ended.
    pub(crate) has_ended: bool,
    child: Process,
    // Held, so that the server's stdout stays open.
    _stdout: BufReader<ChildStdout>,
}

/// A child that is killed and waited for when it is dropped.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        if self.0.start_kill().is_err() {
            return;
        }
        let deadline = Instant::now() + KILL_PATIENCE;
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The line with which a server says that it is up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReadyLine {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) pool_bytes: u64,
    pub(crate) announced: bool,
}

impl Cluster {
    /// Starts the servers and waits until all are ready. Dropping the future
    /// kills those that were started, and removes the folder.
    ///
    /// # Errors
    /// When a server does not start; it has said why on stderr.
    pub(crate) async fn start(settings: &Settings, plan: &Plan) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("puddle-").tempdir();
        let folder = folder.context("cannot create a folder for temporary files")?;
        let own = || format!("dir:{}", folder.path().join("members").display());
        let discovery = plan.discovery.clone().unwrap_or_else(own);
        let mut starting = Vec::new();
        for number in 1..=plan.servers {
            let name = format!("server-{number}");
            let mut command = server_command(settings, &discovery, plan, &name)?;
            if let Some(socket) = socket_path(folder.path(), &name) {
                command.arg("--socket").arg(socket);
            }
            let child = command.spawn().context("cannot start a server")?;
            starting.push((name, Process(child)));
        }
        let mut servers = Vec::new();
        for (name, child) in starting {
            servers.push(ServerProcess::when_ready(&name, child).await?);
        }
        Ok(Self { discovery, servers, folder })
    }

    /// The folder that goes with the cluster.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits until a server ends that nobody stopped: which one, and how.
    pub(crate) async fn next_death(&mut self) -> (String, ExitStatus) {
        let living = self.servers.iter_mut().filter(|server| !server.has_ended);
        let mut deaths: Vec<_> = living.map(|server| Box::pin(server.death())).collect();
        std::future::poll_fn(|context| {
            let ready = deaths.iter_mut().find_map(|death| match death.as_mut().poll(context) {
                std::task::Poll::Ready(death) => Some(death),
                std::task::Poll::Pending => None,
            });
            ready.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        })
        .await
    }

    /// Kills a server as `kill -9` does, and waits for its end.
    pub(crate) async fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        let server = self.servers.iter_mut().find(|server| server.ready.name == name);
        let server = server.with_context(|| format!("there is no server \"{name}\""))?;
        server.child.0.kill().await.with_context(|| format!("cannot kill server \"{name}\""))?;
        server.has_ended = true;
        Ok(())
    }

    /// Asks all servers to stop, waits for them and removes the folder.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        for server in self.servers.iter().filter(|server| !server.has_ended) {
            server.ask_to_stop();
        }
        for server in self.servers.iter_mut().filter(|server| !server.has_ended) {
            if timeout(STOP_PATIENCE, server.child.0.wait()).await.is_err() {
                let name = &server.ready.name;
                tracing::warn!("server \"{name}\" did not stop in {STOP_PATIENCE:?}: killing it");
                server.child.0.kill().await?;
            }
        }
        let path = self.folder.path().to_owned();
        self.folder.close().with_context(|| format!("cannot remove {}", path.display()))
    }
}

impl ServerProcess {
    /// Waits for the line that says so.
    async fn when_ready(name: &str, mut child: Process) -> anyhow::Result<Self> {
        let stdout = child.0.stdout.take().context("the server's stdout is a pipe")?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line).await?;
        if line.is_empty() {
            let status = child.0.wait().await?;
            let message = format!("server \"{name}\" did not start ({status})");
            let is_refusal = status.code() == Some(Exit::Refused as i32);
            return Err(if is_refusal { refusal(message) } else { anyhow::anyhow!(message) });
        }
        let ready: ReadyLine = serde_json::from_str(&line)
            .with_context(|| format!("server \"{name}\" says something strange"))?;
        if !ready.announced {
            bail!("server \"{name}\" could not be announced");
        }
        Ok(Self { ready, has_ended: false, child, _stdout: stdout })
    }

    async fn death(&mut self) -> (String, ExitStatus) {
        loop {
            if let Ok(status) = self.child.0.wait().await {
                self.has_ended = true;
                return (self.ready.name.clone(), status);
            }
        }
    }

    fn ask_to_stop(&self) {
        let id = self.child.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(id) = id {
            // It may have ended by itself; then there is nothing to ask.
            let _ = kill_process(id, Signal::TERM);
        }
    }
}

/// `puddle serve` as a child that no setting of this process's environment
/// reaches but who it is where members are kept, in a process group of its own:
/// Ctrl-C is for the parent, which stops its children.
fn server_command(
    settings: &Settings,
    discovery: &str,
    plan: &Plan,
    name: &str,
) -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("where this program is, is not known")?;
    let mut command = Command::new(program);
    for (variable, _) in std::env::vars_os() {
        let is_kept = KEPT_VARIABLES.iter().any(|kept| variable == *kept);
        if variable.as_bytes().starts_with(b"PUDDLE_") && !is_kept {
            command.env_remove(variable);
        }
    }
    command
        .args(["serve", "--json", "--quiet", "--listen", "127.0.0.1:0", "--name", name])
        .args(["--cluster", &settings.cluster])
        // Whoever lists processes sees arguments, and a URL may have a secret in it.
        .env("PUDDLE_DISCOVERY", discovery)
        .args(["--pool", &plan.pool.to_string()])
        .arg(format!("--exit-with-parent={}", std::process::id()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0);
    if let Some(strategy) = plan.strategy {
        command.args(["--strategy", &strategy.to_string()]);
    }
    if let Some(path) = &settings.chosen.token_file {
        command.arg("--token-file").arg(path);
    }
    Ok(command)
}

/// A path for a server's unix socket, unless the folder's is too long for one.
fn socket_path(folder: &Path, name: &str) -> Option<PathBuf> {
    let path = folder.join(format!("{name}.socket"));
    (path.to_str()?.len() <= UNIX_SOCKET_BYTES_MAX).then_some(path)
}

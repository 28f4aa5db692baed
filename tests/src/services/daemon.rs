//! A program that a test starts, kills and starts again.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

/// A running program. Killed when dropped, and when this process ends however it does.
#[derive(Debug)]
pub(super) struct Daemon {
    orders: Sender<Order>,
}

enum Order {
    Signal(Signal, Sender<()>),
    /// Ends it by a signal, and waits for its end.
    End(Signal, Sender<()>),
}

impl Daemon {
    /// Starts a program; what it says goes to a file.
    ///
    /// # Panics
    /// When it cannot be started.
    pub(super) fn start(
        command: &[String],
        variables: &[(&'static str, String)],
        log: &Path,
    ) -> Self {
        let output = std::fs::File::options().create(true).append(true).open(log);
        let output = output.expect("the log can be written");
        let errors = output.try_clone().expect("a descriptor is left");
        // The kernel kills it with the thread that started it, so that one stays.
        let mut program = Command::new("setpriv");
        program.args(["--pdeathsig", "KILL", "--"]).args(command);
        program.envs(variables.iter().map(|(name, value)| (name, value)));
        program.stdin(Stdio::null()).stdout(output).stderr(errors);
        let (orders, queue) = mpsc::channel();
        let (started, is_started) = mpsc::channel();
        thread::spawn(move || {
            let child = program.spawn().expect("the program can be started");
            let _ = started.send(());
            attend(child, &queue);
        });
        is_started.recv().expect("the program can be started");
        Self { orders }
    }

    /// SIGKILL, and waits until the process is gone.
    pub(super) fn kill(&self) {
        self.order(|done| Order::End(Signal::KILL, done));
    }

    /// SIGTERM, and waits until the process has ended.
    pub(super) fn stop(&self) {
        self.order(|done| Order::End(Signal::TERM, done));
    }

    /// Sends a signal.
    pub(super) fn signal(&self, signal: Signal) {
        self.order(|done| Order::Signal(signal, done));
    }

    fn order(&self, order: impl FnOnce(Sender<()>) -> Order) {
        let (done, is_done) = mpsc::channel();
        // It may have ended, and its thread with it.
        let _ = self.orders.send(order(done));
        let _ = is_done.recv();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ends with the child.
fn attend(mut child: Child, queue: &Receiver<Order>) {
    for order in queue {
        match order {
            Order::Signal(signal, _done) => {
                let _ = kill_process(Pid::from_child(&child), signal);
            }
            Order::End(signal, _done) => {
                let _ = kill_process(Pid::from_child(&child), signal);
                let _ = child.wait();
                return;
            }
        }
    }
}

/// The command that a script of `deploy/` prints; none, with a word why, where the
/// program cannot be had.
///
/// # Panics
/// When it cannot be had though it is required.
pub(super) fn command_of(script: &str, arguments: &[&str]) -> Option<Vec<String>> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder above");
    let path = repository.join("deploy").join(script);
    let output = Command::new(&path).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{} cannot run: {error}", path.display()));
    if output.status.success() {
        let words = String::from_utf8(output.stdout).expect("the script prints text");
        return Some(words.split_whitespace().map(str::to_owned).collect());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    let is_required = ["CI", "PUDDLE_REQUIRE_SERVICES"].map(std::env::var_os);
    assert!(is_required.iter().all(Option::is_none), "deploy/{script} failed: {why}");
    eprintln!("skipped: {}", why.lines().last().unwrap_or("the program cannot be had"));
    None
}

/// What several tests use at the same time: started by the first, ended with the last.
pub(super) fn shared<T>(
    slot: &Mutex<Weak<T>>,
    start: impl FnOnce() -> Option<T>,
) -> Option<Arc<T>> {
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = slot.upgrade() {
        return Some(found);
    }
    let started = Arc::new(start()?);
    *slot = Arc::downgrade(&started);
    Some(started)
}

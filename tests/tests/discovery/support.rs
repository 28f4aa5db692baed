//! What the tests of several back ends have in common.

use std::future::Future;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rampuddle_discovery::{Backend, Id, Living, Snapshot, open};
use rustix::process::{Pid, Signal, kill_process};

/// Between two heartbeats of a server.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long what must happen anyway may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn backend(url: &str) -> Arc<dyn Backend> {
    open(url, "lab").expect("the url is good")
}

pub(crate) fn server(name: &str, incarnation: u8) -> Living {
    let port = 7000 + u16::from(incarnation);
    Living::at(name, format!("127.0.0.1:{port}"), Id([incarnation; 16]))
}

/// Looks again and again until a snapshot is as wanted; how long that took.
pub(crate) async fn until(
    what: &str,
    limit: Duration,
    backend: &dyn Backend,
    wanted: impl Fn(&Snapshot) -> bool,
) -> Duration {
    let began = Instant::now();
    loop {
        let found = backend.snapshot().await;
        if found.as_ref().is_ok_and(&wanted) {
            return began.elapsed();
        }
        assert!(began.elapsed() < limit, "waited {limit:?} in vain: {what}: {found:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn is_alive(living: &Living) -> impl Fn(&Snapshot) -> bool {
    move |found| found.alive(&living.name) == Some(living)
}

pub(crate) fn is_dead(living: &Living) -> impl Fn(&Snapshot) -> bool {
    move |found| found.alive(&living.name).is_none()
}

/// Fails when `work` takes longer than `limit`.
pub(crate) async fn within<T>(what: &str, limit: Duration, work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(limit, work).await;
    done.unwrap_or_else(|_| panic!("{what} takes longer than {limit:?}"))
}

/// A process that announces the server "a" of incarnation 1, until it is dropped.
#[derive(Debug)]
pub(crate) struct Announcer {
    child: Child,
}

impl Announcer {
    pub(crate) fn start(url: &str, variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("it is known"));
        command.args(["--exact", "support::announces_until_its_input_ends"]);
        command.args(["--ignored", "--nocapture"]);
        command.env("TESTED_URL", url).envs(variables.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a process can be started");
        let output = BufReader::new(child.stdout.take().expect("piped above"));
        let is_announced = |line: std::io::Result<String>| {
            line.is_ok_and(|line| line.ends_with("the server is announced"))
        };
        assert!(output.lines().any(is_announced), "the process announces its server");
        Self { child }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process is there");
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "the process of other tests"]
fn announces_until_its_input_ends() {
    let Ok(url) = std::env::var("TESTED_URL") else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let announced = runtime.block_on(async { backend(&url).announce(&server("a", 1)).await });
    let announced = announced.expect("the name is free");
    println!("the server is announced");
    let _ = std::io::stdin().lines().count();
    drop(announced);
}

/// A server whose process stops for longer than its lease is back when it goes on; but
/// not when another took its name meanwhile.
pub(crate) async fn check_a_stopped_process(url: &str, granularity: Duration) {
    let (first, second) = (server("a", 1), server("a", 2));
    let (watcher, process) = (backend(url), Announcer::start(url, &[]));
    until("alive", PATIENCE, &*watcher, is_alive(&first)).await;

    process.signal(Signal::STOP);
    let gone = until("gone", PATIENCE, &*watcher, is_dead(&first)).await;
    println!("stopped: gone after {gone:?}");
    assert!(gone < 3 * HEARTBEAT + granularity, "{gone:?}");
    process.signal(Signal::CONT);
    let back = until("back", PATIENCE, &*watcher, is_alive(&first)).await;
    println!("goes on: back after {back:?}");
    assert!(back < 2 * HEARTBEAT, "{back:?}");

    process.signal(Signal::STOP);
    until("gone", PATIENCE, &*watcher, is_dead(&first)).await;
    let taken = watcher.announce(&second).await.expect("the name is free");
    process.signal(Signal::CONT);
    let end = Instant::now() + 4 * HEARTBEAT;
    let mut looks = 0;
    while Instant::now() < end {
        let found = watcher.snapshot().await.expect("the service is up");
        assert_eq!(found.living, std::slice::from_ref(&second), "{:?}", found.complaints);
        looks += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(looks > 10);
    taken.withdraw().await.expect("the service is up");
    // Who lost the name does not come back for it.
    let began = Instant::now();
    while began.elapsed() < 2 * HEARTBEAT {
        let found = watcher.snapshot().await.expect("the service is up");
        assert_eq!(found.living, []);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

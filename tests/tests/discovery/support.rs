//! What the tests of several back ends have in common.

use std::future::Future;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rampuddle_discovery::{Backend, Id, Living, Member, Revision, Snapshot, open};
use rampuddle_harness::{LocalService, Machine, pace};
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
    let machine = Machine::watched();
    until("alive", PATIENCE, &*watcher, is_alive(&first)).await;

    let stopped = machine.now();
    process.signal(Signal::STOP);
    let gone = until("gone", PATIENCE, &*watcher, is_dead(&first)).await;
    machine.assert_within("stopped: gone", stopped, gone, 3 * HEARTBEAT + granularity);
    let goes_on = machine.now();
    process.signal(Signal::CONT);
    let back = until("back", PATIENCE, &*watcher, is_alive(&first)).await;
    machine.assert_within("goes on: back", goes_on, back, 2 * HEARTBEAT);

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

/// A server is back within two heartbeats of a service that was killed, and of one that lost
/// its data as well; the members are those that it has.
pub(crate) async fn check_a_return(scheme: &str, service: &mut LocalService) {
    let url = format!("{scheme}://{}/tested", service.address());
    let (watcher, living, machine) = (backend(&url), server("a", 1), Machine::watched());
    let member = Member::ready("a", 1.0);
    // The wiped service counts anew: what it counted before is more.
    for _ in 0..3 {
        let found = watcher.snapshot().await.expect("the service is up");
        let revision = found.member("a").map_or(Revision::ABSENT, |found| found.revision);
        watcher.write_member(&member, revision).await.expect("the service is up");
    }
    let announced = watcher.announce(&living).await.expect("the name is free");
    for is_wiped in [false, true] {
        service.kill();
        if is_wiped {
            service.wipe();
        }
        pace(4 * HEARTBEAT);
        service.start_again();
        let returned = machine.now();
        let back = until("back", PATIENCE, &*watcher, is_alive(&living)).await;
        let what = format!("started again, wiped: {is_wiped}: back");
        machine.assert_within(&what, returned, back, 2 * HEARTBEAT);
        let found = watcher.snapshot().await.expect("the service is up");
        assert_eq!(found.member("a").is_some(), !is_wiped);
    }
    // A change after the wipe is seen by who knew higher counts before.
    let changed = tokio::spawn({
        let watcher = watcher.clone();
        async move { watcher.changed().await }
    });
    let written = machine.now();
    watcher.write_member(&member, Revision::ABSENT).await.expect("the service is up");
    let changed = within("a change", PATIENCE, changed).await.expect("no panic");
    changed.expect("the service is up");
    machine.assert_within("a change after the wipe", written, written.elapsed(), HEARTBEAT);
    announced.withdraw().await.expect("the service is up");
}

/// The name of a silent server is freed for another; that of another incarnation is not.
pub(crate) async fn check_a_freed_name(url: &str) {
    let (watcher, other) = (backend(url), backend(url));
    let first = watcher.announce(&server("a", 1)).await.expect("the name is free");
    other.free_name(&server("a", 2)).await.expect("the service is up");
    assert!(other.announce(&server("a", 2)).await.is_err());
    other.free_name(&server("a", 1)).await.expect("the service is up");
    let second = other.announce(&server("a", 2)).await.expect("the name is free");
    assert_eq!(other.snapshot().await.expect("the service is up").living, [server("a", 2)]);
    first.withdraw().await.expect("the service is up");
    assert_eq!(other.snapshot().await.expect("the service is up").living, [server("a", 2)]);
    second.withdraw().await.expect("the service is up");
}

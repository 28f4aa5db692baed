//! What becomes of entries and views when ZooKeeper, or a server, is not there.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rampuddle_discovery::{DiscoveryError, Member, Revision, Settings};
use rampuddle_harness::{Machine, ZooKeeperClient, ZooKeeperOptions};
use rustix::process::{Pid, Signal, kill_process};

use super::*;

const URL_VARIABLE: &str = "RAMPUDDLE_TEST_ZOOKEEPER_URL";
/// How long a session lives, and how coarsely ZooKeeper counts it.
const SESSION: Duration = Duration::from_secs(4);
const TICK: Duration = Duration::from_secs(2);

/// A process that announced itself; killed at the latest when this is dropped.
struct Announcing(Child);

impl Announcing {
    fn start(url: &str) -> Self {
        let test = "zookeeper::outages::the_child_that_announces_itself";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture"])
            .env(URL_VARIABLE, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let started = Self(child);
        let mut lines = output.lines().map(Result::unwrap);
        assert!(lines.any(|line| line.contains("announced")), "it did not announce itself");
        started
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Announcing {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Does nothing unless the test below runs it in a process of its own.
#[tokio::test]
async fn the_child_that_announces_itself() {
    let Ok(url) = std::env::var(URL_VARIABLE) else { return };
    let backend = open(&url, "lab").unwrap();
    let _alive = backend.announce(&server_a(1)).await.unwrap();
    println!("announced");
    // Until it is killed; or the parent dies, which closes the pipe.
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_server_that_slept_longer_than_its_session_comes_back_with_another() {
    let Some(server) = ZooKeeper::shared() else { return };
    let place = Place::fresh(&server);
    let mut others = ZooKeeperClient::connect(server.address());
    let child = Announcing::start(&place.url);
    let first = place.owner(&mut others).unwrap();
    let (mut watch, machine) = (place.watch().await, Machine::watched());

    let stopped = machine.now();
    child.signal(Signal::STOP);
    let gone = until_view("it is gone", &mut watch, |view| view.alive("a").is_none()).await;
    machine.assert_within("asleep: gone", stopped, gone, SESSION + 2 * TICK);
    let goes_on = machine.now();
    child.signal(Signal::CONT);
    let back = until_view("it is back", &mut watch, |view| view.alive("a").is_some()).await;
    machine.assert_within("awake: back", goes_on, back, 2 * HEARTBEAT + TICK);
    assert_eq!(watch.current().living, [server_a(1)]);
    let second = place.owner(&mut others).unwrap();
    assert!(second != 0 && second != first);

    let ended = machine.now();
    child.signal(Signal::KILL);
    let dead = until_view("it is dead", &mut watch, |view| view.alive("a").is_none()).await;
    machine.assert_within("killed: gone", ended, dead, SESSION + 2 * TICK);
}

#[tokio::test]
async fn a_zookeeper_that_is_killed_and_started_again_loses_no_entry() {
    let Some(mut server) = ZooKeeper::start(&ZooKeeperOptions::default()) else { return };
    let place = Place::fresh(&server);
    let backend = place.open();
    let announcement = backend.announce(&server_a(1)).await.unwrap();
    let first = place.owner(&mut ZooKeeperClient::connect(server.address()));
    let mut watch = place.watch().await;

    for _ in 0..2 {
        server.kill();
        server.start_again();
        // Whoever asks after the return sees it, and its session goes on.
        let mut others = ZooKeeperClient::connect(server.address());
        for _ in 0..50 {
            assert_eq!(place.owner(&mut others), first);
            assert_eq!(snapshot(&*place.open()).await.living, [server_a(1)]);
            sleep(LOOK_EVERY).await;
        }
        assert!(watch.current().alive("a").is_some());
    }
    let began = Instant::now();
    announcement.withdraw().await.unwrap();
    until_view("it is withdrawn", &mut watch, |view| view.alive("a").is_none()).await;
    println!("seen withdrawn after {:?}", began.elapsed());
}

#[tokio::test]
async fn after_ten_seconds_without_zookeeper_entries_and_watches_are_back_at_once() {
    let Some(mut server) = ZooKeeper::start(&ZooKeeperOptions::default()) else { return };
    let place = Place::fresh(&server);
    let backend = place.open();
    let _announcement = backend.announce(&server_a(1)).await.unwrap();
    backend.write_member(&Member::ready("a", 1.0), Revision::ABSENT).await.unwrap();
    let mut watch = place.watch().await;

    server.kill();
    let failed = backend.snapshot().await.unwrap_err();
    assert!(matches!(failed, DiscoveryError::Unreachable { .. }), "{failed:?}");
    sleep(Duration::from_secs(10)).await;
    assert!(watch.current().alive("a").is_some() && watch.current().member("a").is_some());
    let machine = Machine::watched();
    server.start_again();
    let (began, returned) = (Instant::now(), machine.now());
    let second = Member::ready("b", 1.0);
    while backend.write_member(&second, Revision::ABSENT).await.is_err() {
        sleep(LOOK_EVERY).await;
    }
    let written = began.elapsed();
    until_view("a new member", &mut watch, |view| view.member("b").is_some()).await;
    let seen = began.elapsed();
    until_view("the entry", &mut watch, |view| view.alive("a").is_some()).await;
    let entry = began.elapsed();
    println!("after 10 s: written to after {written:?}, watched after {seen:?}");
    machine.assert_within("alive", returned, entry, 2 * HEARTBEAT + TICK);
    // It stays, and is renewed: longer than a session that nobody renews.
    let stays = timeout(SESSION + 2 * TICK, watch.changed()).await;
    assert!(stays.is_err(), "{:?}", watch.current());
}

#[tokio::test]
async fn after_its_data_was_wiped_an_entry_is_back_and_the_view_of_members_stays() {
    let Some(mut server) = ZooKeeper::start(&ZooKeeperOptions::default()) else { return };
    let place = Place::fresh(&server);
    let backend = place.open();
    backend.create_settings(&Settings::new("lab", 1)).await.unwrap();
    backend.write_member(&Member::ready("a", 1.0), Revision::ABSENT).await.unwrap();
    let _announcement = backend.announce(&server_a(1)).await.unwrap();
    let watch = place.watch().await;

    server.kill();
    server.wipe();
    server.start_again();
    let machine = Machine::watched();
    let returned = machine.now();
    let mut others = ZooKeeperClient::connect(server.address());
    let back = until("the entry is back", || place.owner(&mut others).is_some()).await;
    machine.assert_within("wiped: back", returned, back, 2 * HEARTBEAT + TICK);
    assert_eq!(snapshot(&*backend).await.living, [server_a(1)]);
    assert!(watch.current().member("a").is_some());
}

#[tokio::test]
async fn an_entry_that_somebody_removed_is_back_within_a_heartbeat() {
    let Some(server) = ZooKeeper::shared() else { return };
    let place = Place::fresh(&server);
    let _announcement = place.open().announce(&server_a(1)).await.unwrap();
    let (mut others, machine) = (ZooKeeperClient::connect(server.address()), Machine::watched());
    let removed = machine.now();
    others.delete(&place.living());
    let back = until("it is back", || place.owner(&mut others).is_some()).await;
    machine.assert_within("removed: back", removed, back, 2 * HEARTBEAT);
}

/// One that takes connections, and says nothing.
fn black_hole() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn a_zookeeper_that_says_nothing_holds_no_call_longer_than_its_limit() {
    let (_listener, address) = black_hole();
    let hosts = vec![address.to_string(); 8].join(",");
    let backend = open(&format!("zk://{hosts}"), "lab").unwrap();
    for call in 0..5 {
        let began = Instant::now();
        let failed = match call {
            0 => backend.snapshot().await.map(drop),
            1 => backend.create_settings(&Settings::new("lab", 1)).await.map(drop),
            2 => backend.write_member(&Member::ready("a", 1.0), Revision::ABSENT).await.map(drop),
            3 => backend.announce(&server_a(1)).await.map(drop),
            _ => backend.free_name(&server_a(1)).await,
        };
        assert!(failed.is_err());
        assert!(began.elapsed() < CALL_LIMIT, "{call}: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_zookeeper_that_falls_silent_holds_nobody_up_and_is_used_again_when_it_speaks() {
    let Some(server) = ZooKeeper::start(&ZooKeeperOptions::default()) else { return };
    let place = Place::fresh(&server);
    let backend = place.open();
    let announcement = backend.announce(&server_a(1)).await.unwrap();
    let mut watch = place.watch().await;
    server.pause();
    let began = Instant::now();
    assert!(backend.snapshot().await.is_err());
    assert!(began.elapsed() < CALL_LIMIT, "{:?}", began.elapsed());
    let began = Instant::now();
    assert!(announcement.withdraw().await.is_err());
    assert!(began.elapsed() < 2 * CALL_LIMIT, "{:?}", began.elapsed());
    server.resume();
    let gone = until_view("the entry is over", &mut watch, |view| view.alive("a").is_none()).await;
    println!("withdrawn in vain: gone {gone:?} after it spoke again");
    assert!(snapshot(&*backend).await.alive("a").is_none());
}

#[tokio::test]
async fn of_several_servers_one_that_answers_is_enough() {
    let Some(server) = ZooKeeper::shared() else { return };
    let (_listener, silent) = black_hole();
    let path = fresh_path();
    let live = server.address();
    let url = format!("zk://127.0.0.1:1,{silent},{live}/{path}");
    for number in 0..6 {
        let backend = open(&url, "lab").unwrap();
        let name = format!("m{number}");
        let written = backend.write_member(&Member::ready(name, 1.0), Revision::ABSENT).await;
        written.unwrap();
        assert_eq!(snapshot(&*backend).await.members.len(), number + 1);
    }
}

/// What a stranger on that port might answer to anything.
#[tokio::test]
async fn a_stranger_on_its_port_is_told_from_zookeeper() {
    let absurd = [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff; 64],
        &[0, 0, 0, 0],
        &[0, 0, 0, 4, 0, 0, 0, 0],
        b"",
    ];
    for answer in absurd {
        let (listener, address) = black_hole();
        std::thread::spawn(move || {
            for stream in listener.incoming().take(2) {
                use std::io::{Read as _, Write as _};
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 64]);
                let _ = stream.write_all(answer);
            }
        });
        let backend = open(&format!("zk://{address}"), "lab").unwrap();
        let refused = backend.snapshot().await.unwrap_err();
        let told = refused.explained();
        assert!(told.contains("zk://"), "{answer:?}: {told}");
    }
}

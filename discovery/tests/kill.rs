//! A server that is killed is seen as gone, however it dies.
//!
//! The test runs its own binary a second time as the server.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rampuddle_discovery::{
    DiscoveryError, Id, JoinRequest, Living, Member, Settings, Watch, join, open,
};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);
const URL_VARIABLE: &str = "RAMPUDDLE_TEST_DISCOVERY_URL";

/// A process that announced itself; killed at the latest when this is dropped.
struct Server(Child);

impl Server {
    fn start(url: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["the_child_that_announces_itself", "--exact", "--nocapture"])
            .env(URL_VARIABLE, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let server = Self(child);
        let announced = |line: String| line.contains("announced");
        let mut lines = output.lines().map(Result::unwrap);
        assert!(lines.any(announced), "the child ended without announcing itself");
        server
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn request(incarnation: u8) -> JoinRequest {
    JoinRequest::new(
        Settings::new("lab", 1),
        Member::ready("node-1", 4.0),
        Living::at("node-1", "127.0.0.1:7000", Id([incarnation; 16])),
    )
}

/// Does nothing unless the test below runs it in a process of its own.
#[tokio::test]
async fn the_child_that_announces_itself() {
    let Ok(url) = std::env::var(URL_VARIABLE) else {
        return;
    };
    let backend = open(&url, "lab").unwrap();
    let joined = join(&*backend, &request(1), &|_| Box::pin(async { None })).await;
    let _alive = joined.unwrap();
    println!("announced");
    // Until it is killed; or the parent dies, which closes the pipe.
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[tokio::test]
async fn a_server_killed_by_sigkill_is_seen_as_not_alive_within_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("dir:{}", folder.path().display());
    let mut slowest = Duration::ZERO;
    for _ in 0..5 {
        let server = Server::start(&url);
        let mut watch = Watch::start(open(&url, "lab").unwrap(), PATIENCE).await.unwrap();
        assert!(watch.current().alive("node-1").is_some());
        let start = Instant::now();
        server.kill();
        while watch.current().alive("node-1").is_some() {
            timeout(PATIENCE, watch.changed()).await.unwrap();
        }
        slowest = slowest.max(start.elapsed());
        let member = watch.current().member("node-1").unwrap().value.clone();
        assert_eq!(member, Member::ready("node-1", 4.0), "a death moves nothing");
    }
    println!("5 kills, seen after {slowest:?} at the latest");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

#[tokio::test]
async fn a_name_is_taken_while_its_process_lives_and_free_once_it_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("dir:{}", folder.path().display());
    let server = Server::start(&url);
    let backend = open(&url, "lab").unwrap();
    // Even when the server does not answer: it is stopped, not dead.
    let silence = |_address: String| -> futures_util::future::BoxFuture<'static, Option<Id>> {
        Box::pin(async { None })
    };
    let refused = join(&*backend, &request(2), &silence).await;
    let Err(DiscoveryError::NameTaken { address, incarnation, .. }) = refused else {
        panic!("the name is taken, but {refused:?}");
    };
    assert_eq!((address.as_str(), incarnation), ("127.0.0.1:7000", Some(Id([1; 16]))));
    drop(server);
    let joined = join(&*backend, &request(2), &silence).await.unwrap();
    let snapshot = backend.snapshot().await.unwrap();
    assert_eq!(snapshot.alive("node-1").unwrap().incarnation, Some(Id([2; 16])));
    drop(joined);
}

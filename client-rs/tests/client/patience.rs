//! How long operations take at most, how often requests are sent, and what
//! becomes of clocks that are wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::support::{Behaviour, FakeServer};
use rampuddle_client::{
    Client, Clock, CreateItem, DeleteItem, Environment, Error, Fate, GatherItem, Options,
    RawClient, SystemClock, SystemRandom, Target, TcpUnixConnector,
};
use rampuddle_protocol::{Header, Opcode, Outcome, Status};

fn options_of(servers: &[&FakeServer]) -> Options {
    let entries: Vec<String> = servers.iter().map(|server| server.entry()).collect();
    Options::new(format!("static:{}", entries.join(",")))
}

async fn raw_of(options: Options) -> RawClient {
    Client::connect(options).await.unwrap().raw()
}

async fn create(raw: &RawClient, key: &str, bytes: usize) -> Result<Status, Error> {
    let items = vec![CreateItem::new(key.to_owned(), vec![b'x'; bytes])];
    raw.create(&Target::Placement, items).await.remove(0).map(|answer| answer.status)
}

/// Gives every answer to `opcode` another status.
fn answering(opcode: Opcode, status: Status) -> Behaviour {
    let mangle = move |_, mut frame: Vec<u8>| {
        let header = Header::decode(&frame);
        if header.opcode == opcode as u8 {
            let row = Outcome { status: status as u8, ..Outcome::default() };
            row.encode(&mut frame[Header::BYTES..]);
            Header::seal(&mut frame[..header.head_bytes()]);
        }
        Some(frame)
    };
    Behaviour { mangle: Some(Arc::new(mangle)), ..Behaviour::default() }
}

#[tokio::test]
async fn one_deadline_covers_all_round_trips_of_an_operation() {
    let server = FakeServer::start("a").await;
    let raw = raw_of(options_of(&[&server])).await;
    assert_eq!(create(&raw, "long", 12 << 20).await.unwrap(), Status::Ok);
    // Each answer comes within the deadline, the last one does not.
    server.behave(Behaviour { pause: Duration::from_millis(400), ..Behaviour::default() });
    let mut options = options_of(&[&server]);
    options.deadline = Some(Duration::from_millis(700));
    let raw = raw_of(options).await;
    let answer = raw.gather(&Target::Placement, vec![GatherItem::whole("long")]).await.remove(0);
    let error = answer.unwrap_err();
    assert!(matches!(error, Error::DeadlinePassed { .. }), "{error}");
    let upload = create(&raw, "other", 12 << 20).await.unwrap_err();
    assert!(matches!(upload, Error::DeadlinePassed { .. }), "{upload}");
}

#[tokio::test]
async fn frames_carry_what_is_left_of_the_deadline() {
    let server = FakeServer::start("a").await;
    let mut options = options_of(&[&server]);
    options.deadline = Some(Duration::from_secs(100));
    let raw = raw_of(options).await;
    create(&raw, "k", 5).await.unwrap();
    let left = server.shared.deadline_ms.load(Ordering::SeqCst);
    assert!((1..=100_000).contains(&left), "{left}");
}

#[tokio::test]
async fn uploads_that_are_answered_busy_are_sent_again_as_far_as_the_budget_goes() {
    let server = FakeServer::with("a", answering(Opcode::Create, Status::Busy)).await;
    let raw = raw_of(options_of(&[&server])).await;
    let hellos_and_one_upload = 1 + 3;
    assert_eq!(create(&raw, "k", 5 << 20).await.unwrap(), Status::Busy);
    assert_eq!(*server.shared.frames.borrow(), hellos_and_one_upload, "three attempts");
    for _ in 0..20 {
        assert_eq!(create(&raw, "k", 5 << 20).await.unwrap(), Status::Busy);
    }
    // Ten retries at once, and one more for every ten requests.
    let (requests, retries) = (21, 10 + 21 / 10);
    let frames = *server.shared.frames.borrow() - server.accepted();
    assert!(frames <= requests + retries, "{frames} frames for {requests} requests");
}

#[tokio::test]
async fn reads_of_a_server_that_breaks_every_connection_are_at_most_a_tenth_retries() {
    let server = FakeServer::start("a").await;
    let raw = raw_of(options_of(&[&server])).await;
    let hang_up = Arc::new(|number, frame| (number == 0).then_some(frame));
    server.behave(Behaviour { mangle: Some(hang_up), ..Behaviour::default() });
    let requests = 100;
    for _ in 0..requests {
        let items = vec![GatherItem::new("k", 0, 1)];
        let error = raw.gather(&Target::Placement, items).await.remove(0).unwrap_err();
        assert!(matches!(error, Error::Broken { .. }), "{error}");
    }
    let frames = *server.shared.frames.borrow() - server.accepted();
    assert!(frames > requests && frames <= requests + 10 + requests / 10, "{frames}");
}

#[tokio::test]
async fn a_server_that_is_known_to_be_dead_costs_a_call_no_time_and_no_retry() {
    let server = FakeServer::start("a").await;
    let raw = raw_of(options_of(&[&server])).await;
    server.stop().await;
    let gather = async || {
        let items = vec![GatherItem::new("k", 0, 1)];
        raw.gather(&Target::Placement, items).await.remove(0).unwrap_err()
    };
    let error = gather().await;
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    let start = std::time::Instant::now();
    for _ in 0..1_000 {
        let error = gather().await;
        assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    }
    // A tenth of one probe's longest pause for each would be 100 s.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

/// The machine's clock, and how far it was moved.
#[derive(Debug, Default)]
struct MovedClock(AtomicI64);

impl Clock for MovedClock {
    fn unix_ms(&self) -> u64 {
        SystemClock.unix_ms().saturating_add_signed(self.0.load(Ordering::Relaxed))
    }
}

const HOUR_MS: i64 = 3_600_000;

fn with_clock(mut options: Options, clock: &Arc<MovedClock>) -> Options {
    let (random, connector) = (SystemRandom::default(), TcpUnixConnector::default());
    let clock: Arc<dyn Clock> = clock.clone();
    options.environment = Environment::new(clock, Arc::new(random), Arc::new(connector));
    options
}

async fn delete(raw: &RawClient, key: &'static str) -> Result<Status, Error> {
    let answer = raw.delete(&Target::Placement, vec![DeleteItem::new(key)]).await.remove(0);
    answer.map(|answer| answer.status)
}

/// A server whose clock is right, and a client whose clock is not.
struct RealServer {
    stopper: rampuddle_server::Stopper,
    thread: Option<std::thread::JoinHandle<()>>,
    url: String,
}

impl RealServer {
    fn start() -> Self {
        let options = rampuddle_server::Options::new("a", "default", 8 << 20);
        let server = rampuddle_server::Server::bind(options).unwrap();
        let url = format!("static:a={}", server.local_address().unwrap());
        let stopper = server.stopper();
        let thread = Some(std::thread::spawn(move || server.run().unwrap()));
        Self { stopper, thread, url }
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        self.stopper.stop();
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        assert!(ended.is_none_or(|ended| ended.is_ok()) || std::thread::panicking());
    }
}

#[tokio::test]
async fn the_first_write_of_a_client_whose_clock_is_an_hour_ahead_is_taken() {
    let server = RealServer::start();
    let clock = Arc::new(MovedClock(AtomicI64::new(HOUR_MS)));
    let raw = raw_of(with_clock(Options::new(&server.url), &clock)).await;
    assert_eq!(delete(&raw, "k").await.unwrap(), Status::NotFound, "a tombstone is there");
    let raw = raw_of(with_clock(Options::new(&server.url), &clock)).await;
    assert_eq!(create(&raw, "other", 5).await.unwrap(), Status::Ok);
}

#[tokio::test]
async fn writes_go_on_when_the_clock_steps_an_hour_ahead_and_back() {
    let server = RealServer::start();
    let clock = Arc::new(MovedClock::default());
    let raw = raw_of(with_clock(Options::new(&server.url), &clock)).await;
    for (round, moved) in [0, HOUR_MS, 0, -HOUR_MS, 2 * HOUR_MS].into_iter().enumerate() {
        clock.0.store(moved, Ordering::Relaxed);
        let keys: Vec<String> = (0..20).map(|number| format!("{round}/{number}")).collect();
        let items = keys.iter().map(|key| CreateItem::new(key.clone(), "x")).collect();
        let made = raw.create(&Target::Placement, items).await;
        let statuses: Vec<Status> = made.into_iter().map(|made| made.unwrap().status).collect();
        assert!(statuses.iter().all(|status| *status == Status::Ok), "{round}: {statuses:?}");
        let long = format!("{round}/long");
        assert_eq!(create(&raw, &long, 5 << 20).await.unwrap(), Status::Ok, "{round}");
        assert_eq!(delete(&raw, "gone").await.unwrap(), Status::NotFound, "{round}");
        let items = keys.into_iter().map(DeleteItem::new).collect();
        let gone = raw.delete(&Target::Placement, items).await;
        assert!(gone.into_iter().all(|gone| gone.unwrap().status == Status::Ok), "{round}");
        raw.delete(&Target::Placement, vec![DeleteItem::new(long)]).await;
    }
}

#[tokio::test]
async fn a_write_that_is_too_far_ahead_after_all_says_by_how_much() {
    let server = FakeServer::with("a", answering(Opcode::Create, Status::Clock)).await;
    let raw = raw_of(options_of(&[&server])).await;
    let error = create(&raw, "k", 5).await.unwrap_err();
    let Error::ClockAhead { ahead_by_ms, .. } = error else { panic!("{error}") };
    assert!(ahead_by_ms.abs() < 10_000, "the clocks agree, this server only says otherwise");
    assert_eq!(error.fate(), Fate::NotSent);
    // Hello, Create, Info, Create.
    assert_eq!(*server.shared.frames.borrow(), 4);
    // A version that the caller chose is his own business.
    let mut item = CreateItem::new("k", "x");
    item.version = rampuddle_protocol::Version { time: u64::MAX, writer: 1 };
    let answer = raw.create(&Target::Placement, vec![item]).await.remove(0).unwrap();
    assert_eq!((answer.status, *server.shared.frames.borrow()), (Status::Clock, 5));
}

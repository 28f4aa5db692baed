use std::io;
use std::task::Poll;

use futures_util::future::{BoxFuture, join_all};
use futures_util::poll;
use rampuddle_discovery::{Id, Settings, host_id};
use rampuddle_protocol::SessionId;

use super::*;
use crate::clocks::Clocks;
use crate::environment::{Environment, SeededRandom, SystemClock};
use crate::support::{Behaviour, FakeServer, Shared};
use crate::transport::Connector;

pub(crate) fn access(connections_per_server: usize) -> Arc<Access> {
    access_with(connections_per_server, Environment::default())
}

fn access_with(connections_per_server: usize, environment: Environment) -> Arc<Access> {
    Arc::new(Access {
        cluster: "default".into(),
        session: SessionId([1; 16]),
        token: None,
        patience: Duration::from_secs(5),
        connections_per_server,
        maps: true,
        cleanups: Default::default(),
        host: host_id(),
        counters: Default::default(),
        in_use: Default::default(),
        buffers: Default::default(),
        clocks: Clocks::new(&environment),
        placing: Default::default(),
        environment,
        runtime: tokio::runtime::Handle::current(),
    })
}

fn server(fake: &FakeServer, connections: usize) -> Arc<Server> {
    let server = Arc::new(Server::new("a".into(), access(connections)));
    server.update(&Living::at("a", &*fake.address, Id([0; 16])));
    server
}

/// What becomes of those who connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Swallows,
    Refuses,
    Connects,
}

/// A wire to one server, in memory.
struct Dialler {
    wire: Mutex<Wire>,
    dials: AtomicUsize,
    shared: Arc<Shared>,
}

impl fmt::Debug for Dialler {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Dialler({:?})", self.wire)
    }
}

impl Connector for Dialler {
    fn connect<'a>(&'a self, _: &'a Address) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(async move {
            self.dials.fetch_add(1, Ordering::Relaxed);
            let wire = *self.wire.lock().unwrap();
            match wire {
                Wire::Swallows => std::future::pending().await,
                Wire::Refuses => Err(io::ErrorKind::ConnectionRefused.into()),
                Wire::Connects => {
                    let (near, far) = tokio::io::duplex(1 << 16);
                    tokio::spawn(Arc::clone(&self.shared).serve(far));
                    Ok(Stream::other(near))
                }
            }
        })
    }
}

impl Dialler {
    fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().unwrap() = behaviour;
    }

    fn dials(&self) -> usize {
        self.dials.load(Ordering::Relaxed)
    }
}

/// A server at the end of a wire.
fn wired(wire: Wire, connections: usize) -> (Arc<Dialler>, Arc<Server>) {
    let shared = Arc::new(Shared::new("a", Behaviour::default()));
    let dialler = Dialler { wire: Mutex::new(wire), dials: AtomicUsize::new(0), shared };
    let dialler = Arc::new(dialler);
    let random = Arc::new(SeededRandom::new(1));
    let environment = Environment::new(Arc::new(SystemClock), random, dialler.clone());
    let server = Arc::new(Server::new("a".into(), access_with(connections, environment)));
    server.update(&Living::at("a", "wire:1", Id([0; 16])));
    (dialler, server)
}

async fn acquire(server: &Arc<Server>, class: Class) -> Result<Lease, Error> {
    server.acquire(class, None).await
}

#[tokio::test]
async fn small_requests_get_through_while_bulk_has_all_its_connections() {
    let fake = FakeServer::start("a").await;
    let server = server(&fake, 4);
    let bulk = [
        acquire(&server, Class::Bulk).await.unwrap(),
        acquire(&server, Class::Bulk).await.unwrap(),
    ];
    let third = server.acquire(Class::Bulk, None);
    tokio::pin!(third);
    assert!(poll!(&mut third).is_pending());
    let small = acquire(&server, Class::Small).await.unwrap();
    assert_eq!(server.in_flight(), 3);
    small.finish();
    // A small request leaves its permit to small ones.
    assert!(poll!(&mut third).is_pending());
    drop(bulk);
    third.await.unwrap().finish();
    assert_eq!(server.in_flight(), 0);
}

#[tokio::test]
async fn with_one_connection_both_classes_share_it() {
    let fake = FakeServer::start("a").await;
    let server = server(&fake, 1);
    let only = acquire(&server, Class::Bulk).await.unwrap();
    let deadline = Instant::now() + Duration::from_millis(1);
    let error = server.acquire(Class::Small, Some(deadline)).await.unwrap_err();
    assert!(matches!(error, Error::DeadlinePassed { .. }), "{error}");
    only.finish();
    acquire(&server, Class::Small).await.unwrap().finish();
    assert_eq!(fake.accepted(), 1);
}

#[tokio::test]
async fn a_stale_connection_is_replaced_without_an_error() {
    let fake = FakeServer::start("a").await;
    let server = server(&fake, 4);
    acquire(&server, Class::Small).await.unwrap().finish();
    fake.hang_up().await;
    let mut lease = acquire(&server, Class::Small).await.unwrap();
    assert_eq!(fake.accepted(), 2);
    assert!(!lease.is_stale() && lease.is_reusable());
    assert!(!server.is_suspect());
}

#[tokio::test]
async fn a_new_incarnation_is_a_restart() {
    let fake = FakeServer::start("a").await;
    let server = server(&fake, 4);
    let leases = [
        acquire(&server, Class::Small).await.unwrap(),
        acquire(&server, Class::Small).await.unwrap(),
    ];
    let before = server.incarnation().unwrap();
    leases.into_iter().for_each(Lease::finish);
    let old = acquire(&server, Class::Small).await.unwrap();
    *fake.shared.incarnation.lock().unwrap() = Incarnation([8; 16]);
    fake.hang_up().await;
    acquire(&server, Class::Small).await.unwrap().finish();
    assert_eq!((server.restarts(), server.incarnation()), (1, Some(Incarnation([8; 16]))));
    assert_ne!(before, Incarnation([8; 16]));
    // What was lent before the restart does not come back to the pool.
    old.finish();
    assert_eq!(server.state().idle.len(), 1);
}

#[tokio::test]
async fn a_server_that_fails_is_suspect_until_a_probe_reaches_it() {
    let fake = FakeServer::start("a").await;
    let server = server(&fake, 4);
    let address = fake.address.clone();
    acquire(&server, Class::Small).await.unwrap().finish();
    fake.stop().await;
    let error = acquire(&server, Class::Small).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert_eq!(error.fate(), Fate::NotSent);
    assert!(server.is_suspect());
    let fake = FakeServer::at(&address, "a", Behaviour::default()).await;
    fake.frames(1).await;
    while server.is_suspect() {
        tokio::task::yield_now().await;
    }
    // The probe's connection is of use.
    acquire(&server, Class::Small).await.unwrap().finish();
    assert_eq!(fake.accepted(), 1);
}

#[tokio::test]
async fn a_lease_that_failed_makes_its_server_suspect_and_one_that_was_dropped_does_not() {
    let fake = FakeServer::start("a").await;
    let server = server(&fake, 4);
    drop(acquire(&server, Class::Small).await.unwrap());
    assert!(!server.is_suspect());
    let mut lease = acquire(&server, Class::Small).await.unwrap();
    fake.hang_up().await;
    lease.request::<rampuddle_protocol::StatRequestRow>(rampuddle_protocol::Opcode::Ping, [], 0);
    let sent = lease.flush().await;
    assert!(sent.is_err() || lease.receive_head().await.is_err());
    lease.finish();
    assert!(server.is_suspect());
    assert_eq!(server.in_flight(), 0);
}

#[tokio::test]
async fn the_unix_socket_of_the_same_host_is_preferred_and_tcp_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let local = FakeServer::on_unix("a", &path).await;
    let fake = FakeServer::start("a").await;
    let living = |host: &str| Living {
        unix_socket: Some(path.clone()),
        host: host.to_owned(),
        ..Living::at("a", &*fake.address, Id([0; 16]))
    };
    let server = server(&fake, 4);
    server.update(&living(&host_id()));
    acquire(&server, Class::Small).await.unwrap().finish();
    assert_eq!((local.accepted(), fake.accepted(), server.is_local()), (1, 0, true));

    server.update(&living("another machine"));
    acquire(&server, Class::Small).await.unwrap().finish();
    assert_eq!((local.accepted(), fake.accepted(), server.is_local()), (1, 1, false));

    // A socket that nobody listens on any more.
    local.stop().await;
    server.update(&living(&host_id()));
    acquire(&server, Class::Small).await.unwrap().finish();
    assert_eq!(fake.accepted(), 2);
}

#[tokio::test]
async fn another_server_at_the_address_is_refused() {
    let fake = FakeServer::start("b").await;
    let server = server(&fake, 4);
    let error = acquire(&server, Class::Small).await.unwrap_err();
    assert!(matches!(&error, Error::WrongServer { found, .. } if found == "b"), "{error}");
}

#[tokio::test]
async fn the_third_server_whose_clock_disagrees_is_refused() {
    let access = access(4);
    let wrong = Behaviour { clock_unix_ms: Some(1_000), ..Behaviour::default() };
    let fakes = [
        FakeServer::start("a").await,
        FakeServer::start("b").await,
        FakeServer::with("c", wrong).await,
    ];
    let mut outcomes = Vec::new();
    for fake in &fakes {
        let name: Arc<str> = fake.shared.name.as_str().into();
        let server = Arc::new(Server::new(Arc::clone(&name), Arc::clone(&access)));
        server.update(&Living::at(&*name, &*fake.address, Id([0; 16])));
        outcomes.push(acquire(&server, Class::Small).await.map(Lease::finish));
    }
    assert!(outcomes[0].is_ok() && outcomes[1].is_ok());
    assert!(matches!(outcomes[2], Err(Error::ClockOff { .. })), "{outcomes:?}");
    assert!(access.clocks.now_ms() > 1_700_000_000_000);
}

/// A server whose clock is an hour ahead of two others', and the client's.
async fn with_a_wrong_clock() -> (FakeServer, Arc<Server>) {
    let access = access(4);
    let name = |name: &'static str| Arc::<str>::from(name);
    for other in ["x", "y"] {
        access.clocks.greeted(&name(other), 0).unwrap();
    }
    let fake = FakeServer::with("a", wrong_clock()).await;
    let server = Arc::new(Server::new("a".into(), access));
    server.update(&Living::at("a", &*fake.address, Id([0; 16])));
    (fake, server)
}

fn wrong_clock() -> Behaviour {
    Behaviour { clock_unix_ms: Some(1_000), ..Behaviour::default() }
}

/// It was not suspect, so every operation preferred it again, for nothing.
#[tokio::test]
async fn a_server_whose_clock_is_wrong_is_not_asked_until_it_is_right() {
    let (fake, server) = with_a_wrong_clock().await;
    for _ in 0..3 {
        let error = acquire(&server, Class::Small).await.unwrap_err();
        assert!(matches!(error, Error::ClockOff { .. }), "{error}");
        assert!(server.is_suspect() && server.is_unreachable());
    }
    fake.behave(Behaviour::default());
    while server.is_suspect() {
        tokio::task::yield_now().await;
    }
    acquire(&server, Class::Small).await.unwrap().finish();
}

/// It was said to refuse connections for ever.
#[tokio::test]
async fn a_dead_server_that_comes_back_with_a_wrong_clock_is_said_to_have_one() {
    let (fake, server) = with_a_wrong_clock().await;
    let address = fake.address.clone();
    fake.stop().await;
    let error = acquire(&server, Class::Small).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    let _back = FakeServer::at(&address, "a", wrong_clock()).await;
    while !matches!(server.unreachable(), Some(Error::ClockOff { .. })) {
        tokio::task::yield_now().await;
    }
    let error = acquire(&server, Class::Small).await.unwrap_err();
    assert!(matches!(error, Error::ClockOff { .. }), "{error}");
    assert!(server.answers().await, "it is there");
}

/// Stopped, not dead: it accepts, and shakes no hands.
#[tokio::test(start_paused = true)]
async fn a_server_that_is_silent_on_a_connection_costs_later_users_no_time() {
    let (dialler, server) = wired(Wire::Connects, 4);
    let mut lease = acquire(&server, Class::Small).await.unwrap();
    *dialler.wire.lock().unwrap() = Wire::Swallows;
    dialler.behave(Behaviour { is_silent: true, ..Behaviour::default() });
    lease.request::<rampuddle_protocol::StatRequestRow>(rampuddle_protocol::Opcode::Ping, [], 0);
    lease.flush().await.unwrap();
    let error = lease.receive_head().await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    drop(lease);
    for _ in 0..100 {
        let before = Instant::now();
        let error = acquire(&server, Class::Small).await.unwrap_err();
        assert_eq!((before.elapsed(), error.fate()), (Duration::ZERO, Fate::NotSent), "{error}");
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    // One connection may be silent and others not: that is seen at once.
    *dialler.wire.lock().unwrap() = Wire::Connects;
    dialler.behave(Behaviour::default());
    while server.is_suspect() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    acquire(&server, Class::Small).await.unwrap().finish();
}

#[tokio::test]
async fn waiting_for_a_connection_can_be_given_up() {
    let fake = FakeServer::start("a").await;
    let server = server(&fake, 1);
    let only = acquire(&server, Class::Bulk).await.unwrap();
    {
        let waiting = server.acquire(Class::Bulk, None);
        tokio::pin!(waiting);
        assert!(matches!(poll!(waiting), Poll::Pending));
    }
    drop(only);
    acquire(&server, Class::Bulk).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_swallows_packets_costs_its_users_their_patience_once() {
    let (dialler, server) = wired(Wire::Swallows, 4);
    let start = Instant::now();
    let both = join_all([acquire(&server, Class::Small), acquire(&server, Class::Small)]).await;
    assert!(both.iter().all(|lease| matches!(lease, Err(Error::Unreachable { .. }))));
    assert_eq!((start.elapsed(), dialler.dials()), (Duration::from_secs(5), 2));
    for _ in 0..100 {
        let before = Instant::now();
        let error = acquire(&server, Class::Small).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error}");
        assert_eq!(before.elapsed(), Duration::ZERO);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Each probe takes its patience as well.
    assert!((3..=4).contains(&dialler.dials()), "{}", dialler.dials());
    *dialler.wire.lock().unwrap() = Wire::Connects;
    let back = Instant::now();
    while server.is_suspect() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(back.elapsed() <= Duration::from_millis(6_010), "{:?}", back.elapsed());
    acquire(&server, Class::Small).await.unwrap().finish();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_connections_is_dialled_about_once_a_second_however_many_ask() {
    let (dialler, server) = wired(Wire::Refuses, 4);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(60) {
        let error = acquire(&server, Class::Small).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Pauses are drawn evenly from nothing to a second.
    assert!((60..180).contains(&dialler.dials()), "{}", dialler.dials());
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_for_the_next_probe_of_a_server_that_was_not_there_for_a_moment() {
    let (dialler, server) = wired(Wire::Refuses, 4);
    acquire(&server, Class::Small).await.unwrap_err();
    // Who asks this very server has it dialled.
    server.acquire_for(Purpose::Looking, Class::Small, None).await.unwrap_err();
    assert_eq!(dialler.dials(), 2);
    *dialler.wire.lock().unwrap() = Wire::Connects;
    let start = Instant::now();
    server.next_verdict(None).await;
    assert!(start.elapsed() <= Duration::from_millis(100));
    acquire(&server, Class::Small).await.unwrap().finish();
    assert_eq!(dialler.dials(), 3);
    server.next_verdict(None).await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_while_dialling_has_the_server_probed() {
    let (dialler, server) = wired(Wire::Swallows, 4);
    let deadline = Some(Instant::now() + Duration::from_millis(100));
    let error = server.acquire(Class::Small, deadline).await.unwrap_err();
    assert!(matches!(error, Error::DeadlinePassed { .. }), "{error}");
    assert!(!server.is_suspect(), "it had little time");
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(server.is_suspect());
    let deadline = Some(Instant::now() + Duration::from_millis(100));
    let error = server.acquire(Class::Small, deadline).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(dialler.dials() >= 2);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_connection_ends_with_patience_once_no_byte_moves() {
    let (_, server) = wired(Wire::Connects, 1);
    let only = acquire(&server, Class::Bulk).await.unwrap();
    let start = Instant::now();
    // While the connection in use moves bytes, others wait for it.
    let moving = async {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            server.activity.moved.fetch_add(1, Ordering::Relaxed);
        }
    };
    let (_, waited) = tokio::join!(moving, acquire(&server, Class::Bulk));
    let error = waited.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    assert_eq!(error.fate(), Fate::NotSent);
    assert!((25..=26).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    only.finish();
    acquire(&server, Class::Bulk).await.unwrap().finish();
}

#[tokio::test]
async fn who_places_keys_by_other_settings_is_refused_and_who_only_looks_is_not() {
    let behaviour = Behaviour { settings: 7, ..Behaviour::default() };
    let fake = FakeServer::with("a", behaviour).await;
    let server = server(&fake, 4);
    server.access.place_by(Placing::of(&Settings::new("default", 0)));
    let error = acquire(&server, Class::Small).await.unwrap_err();
    assert!(matches!(error, Error::OtherSettings { found: 7, .. }), "{error}");
    assert!(error.is_refusal() && error.to_string().contains("replicas_max 3"), "{error}");
    assert!(!server.is_suspect(), "it answers");
    server.acquire_for(Purpose::Looking, Class::Small, None).await.unwrap().finish();
    // That connection is kept, but not for placing.
    let dials = fake.accepted();
    server.acquire_for(Purpose::Looking, Class::Small, None).await.unwrap().finish();
    assert_eq!(fake.accepted(), dials);
    acquire(&server, Class::Small).await.unwrap_err();
    assert!(server.answers().await);
}

#[tokio::test]
async fn connections_of_other_settings_are_not_used_for_placing_any_more() {
    let fake = FakeServer::start("a").await;
    let server = server(&fake, 4);
    server.access.place_by(Placing::of(&Settings::new("default", 0)));
    acquire(&server, Class::Small).await.unwrap().finish();
    acquire(&server, Class::Small).await.unwrap().finish();
    assert_eq!(fake.accepted(), 1);
    let others = Settings { replicas_max: 5, ..Settings::new("default", 0) };
    server.access.place_by(Placing::of(&others));
    acquire(&server, Class::Small).await.unwrap().finish();
    assert_eq!((fake.accepted(), server.state().idle.len()), (2, 1));
}

#[tokio::test]
async fn a_server_of_another_cluster_is_a_refusal() {
    let fake = FakeServer::start("a").await;
    let environment = Environment::default();
    let mut access = Arc::into_inner(access_with(4, environment)).unwrap();
    access.cluster = "other".into();
    let server = Arc::new(Server::new("a".into(), Arc::new(access)));
    server.update(&Living::at("a", &*fake.address, Id([0; 16])));
    let error = acquire(&server, Class::Small).await.unwrap_err();
    assert!(matches!(error, Error::WrongCluster { .. }), "{error}");
    assert!(error.is_refusal() && !server.is_suspect());
}

#[tokio::test]
async fn streams_pass_over_a_server_that_was_outrun_and_come_back_to_it() {
    let server = Server::new("a".into(), access(1));
    let passed_over = || (0..1_000).take_while(|_| server.is_passed_over()).count();
    assert_eq!(passed_over(), 0);
    for _ in 0..2 {
        server.pass_over();
        assert!((100..1_000).contains(&passed_over()), "it is asked again, and not at once");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_of_a_server_after_it_was_outrun_is_not_given_up() {
    let server = Server::new("a".into(), access(1));
    let now = async || {
        tokio::time::advance(Duration::from_millis(1)).await;
        Instant::now()
    };
    let before = now().await;
    assert!(!server.was_outrun_after(before), "nobody was faster");
    now().await;
    server.pass_over();
    let after = now().await;
    assert!(server.was_outrun_after(before) && !server.was_outrun_after(after));
    while server.is_passed_over() {}
    assert!(!server.was_outrun_after(before), "it is asked again as any other");
}

use std::task::Poll;

use futures_util::poll;
use rampuddle_discovery::{Id, host_id};
use rampuddle_protocol::SessionId;

use super::*;
use crate::clocks::Clocks;
use crate::environment::Environment;
use crate::support::{Behaviour, FakeServer};

fn access(connections_per_server: usize) -> Arc<Access> {
    let environment = Environment::default();
    Arc::new(Access {
        cluster: "default".into(),
        session: SessionId([1; 16]),
        token: None,
        patience: Duration::from_secs(5),
        connections_per_server,
        host: host_id(),
        clocks: Clocks::new(&environment),
        environment,
        runtime: tokio::runtime::Handle::current(),
    })
}

fn server(fake: &FakeServer, connections: usize) -> Arc<Server> {
    let server = Arc::new(Server::new("a".into(), access(connections)));
    server.update(&Living::at("a", &*fake.address, Id([0; 16])));
    server
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

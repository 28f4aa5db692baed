//! Servers that die, restart or fall silent, and callers that give up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::support::{Behaviour, FakeServer};
use bytes::Bytes;
use rampuddle_client::{
    Client, CreateItem, DeleteItem, Error, Fate, GatherItem, Options, RawClient, Target,
};
use rampuddle_protocol::Status;

async fn raw_of(server: &FakeServer, connections: usize) -> RawClient {
    let mut options = Options::new(format!("static:{}", server.entry()));
    options.connections_per_server = connections;
    options.patience = Duration::from_millis(300);
    Client::connect(options).await.unwrap().raw()
}

/// Cuts off every answer but the hello after so many bytes, then closes.
fn cut_off_after(bytes: usize) -> Behaviour {
    let mangle = move |number, mut answer: Vec<u8>| {
        answer.truncate(if number == 0 { usize::MAX } else { bytes });
        Some(answer)
    };
    Behaviour { mangle: Some(Arc::new(mangle)), ..Behaviour::default() }
}

async fn create(raw: &RawClient, key: &str, bytes: usize) -> Result<Status, Error> {
    let item = CreateItem::new(key.to_owned(), vec![b'x'; bytes]);
    let answer = raw.create(&Target::Placement, vec![item]).await.remove(0);
    answer.map(|answer| answer.status)
}

async fn gather(raw: &RawClient, key: &str) -> Result<Bytes, Error> {
    let items = vec![GatherItem::whole(key.to_owned())];
    let answer = raw.gather(&Target::Placement, items).await.remove(0);
    answer.map(|answer| answer.bytes)
}

#[tokio::test]
async fn a_server_that_dies_in_mid_answer_leaves_doubt_about_writes() {
    let server = FakeServer::with("a", cut_off_after(70)).await;
    let raw = raw_of(&server, 4).await;
    let error = create(&raw, "k", 5).await.unwrap_err();
    assert!(matches!(error, Error::Broken { .. }), "{error}");
    assert_eq!(error.fate(), Fate::MaybeApplied);
    let deleted = raw.delete(&Target::Placement, vec![DeleteItem::new("k")]).await;
    assert_eq!(deleted[0].as_ref().unwrap_err().fate(), Fate::MaybeApplied);
    // Writes in doubt are never sent again by themselves: two hellos, two writes.
    assert_eq!((server.accepted(), *server.shared.frames.borrow()), (2, 4));
}

#[tokio::test]
async fn a_read_that_broke_is_sent_again_a_few_times() {
    let server = FakeServer::start("a").await;
    let raw = raw_of(&server, 4).await;
    create(&raw, "k", 100_000).await.unwrap();
    server.hang_up().await;
    server.behave(cut_off_after(5_000));
    let error = gather(&raw, "k").await.unwrap_err();
    let gathers = server.shared.gathers.load(Ordering::SeqCst);
    assert_eq!((error.fate(), gathers), (Fate::NotSent, 3), "{error}");
    server.behave(Behaviour::default());
    assert_eq!(gather(&raw, "k").await.unwrap().len(), 100_000);
}

#[tokio::test]
async fn an_upload_that_broke_before_its_publish_surely_had_no_effect() {
    let behaviour = Behaviour { dies_after_bytes: Some(1_000), ..Behaviour::default() };
    let server = FakeServer::with("a", behaviour).await;
    let raw = raw_of(&server, 4).await;
    let error = create(&raw, "large", 12 << 20).await.unwrap_err();
    assert!(matches!(error, Error::Broken { .. }), "{error}");
    assert!(server.accepted() > 1 || error.fate() == Fate::MaybeApplied);
    server.behave(Behaviour::default());
    assert_eq!(create(&raw, "large", 12 << 20).await.unwrap(), Status::Ok);
    assert_eq!(gather(&raw, "large").await.unwrap().len(), 12 << 20);
}

#[tokio::test]
async fn a_silent_server_is_waited_for_with_patience_and_not_asked_again() {
    let silent = Behaviour { is_silent: true, ..Behaviour::default() };
    let server = FakeServer::with("a", silent).await;
    let raw = raw_of(&server, 4).await;
    let start = std::time::Instant::now();
    let error = gather(&raw, "k").await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(2));
    // Nobody asks it before it is seen that it shakes hands still.
    loop {
        let error = create(&raw, "k", 5).await.unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
        if error.fate() == Fate::MaybeApplied {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(start.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn a_server_that_closed_idle_connections_is_used_without_an_error() {
    let server = FakeServer::start("a").await;
    let raw = raw_of(&server, 4).await;
    for round in 1..=5 {
        assert_eq!(create(&raw, &format!("k{round}"), 5).await.unwrap(), Status::Ok);
        assert_eq!(server.accepted(), round);
        server.hang_up().await;
    }
}

#[tokio::test]
async fn dropping_a_call_closes_its_connection_and_frees_its_permit() {
    let silent = Behaviour { is_silent: true, ..Behaviour::default() };
    let server = FakeServer::with("a", silent).await;
    let raw = raw_of(&server, 1).await;
    for round in 1..=3 {
        let call = tokio::spawn({
            let raw = raw.clone();
            async move { create(&raw, "k", 5).await }
        });
        server.frames(2 * round).await;
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        server.closed(round).await;
    }
    server.behave(Behaviour::default());
    assert_eq!(create(&raw, "k", 5).await.unwrap(), Status::Ok);
}

#[tokio::test]
async fn dropping_the_last_client_closes_its_connections() {
    let server = FakeServer::start("a").await;
    let raw = raw_of(&server, 4).await;
    create(&raw, "k", 5).await.unwrap();
    let other = raw.clone();
    drop(raw);
    assert_eq!(gather(&other, "k").await.unwrap(), "xxxxx");
    assert_eq!(server.accepted(), 1);
    drop(other);
    server.closed(1).await;
}

#[tokio::test]
async fn many_calls_share_few_connections() {
    let server = FakeServer::start("a").await;
    let raw = raw_of(&server, 4).await;
    let calls = (0..100).map(|call| {
        let raw = raw.clone();
        async move { create(&raw, &format!("{call}"), 1_000 * call).await.unwrap() }
    });
    let statuses = futures_util::future::join_all(calls).await;
    assert!(statuses.iter().all(|status| *status == Status::Ok));
    assert!(server.accepted() <= 4, "{}", server.accepted());
    assert_eq!(server.keys(), 100);
}

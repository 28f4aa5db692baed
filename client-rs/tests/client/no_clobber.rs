//! Puts that may replace nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::doors::{Doors, Verdict, at_once, bytes, head_key, open, ranks, until_used};
use rampuddle_client::{
    Client, CopyState, CreateItem, DeleteItem, Error, GetOptions, PutCondition, PutOptions,
    PutReport, Target,
};
use rampuddle_protocol::Status;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

const MIB: u64 = 1 << 20;

fn no_clobber(replicas: u8) -> PutOptions {
    let mut options = PutOptions::default();
    (options.condition, options.replicas) = (PutCondition::IfAbsent, Some(replicas));
    options
}

async fn put(client: &Client, what: &'static str, replicas: u8) -> Result<PutReport, Error> {
    client.put(b"o", what, &no_clobber(replicas)).await
}

async fn get(client: &Client) -> Option<Vec<u8>> {
    let value = client.get(b"o", &GetOptions::default()).await.unwrap();
    value.map(|value| value.into_bytes().to_vec())
}

/// How many servers have a head of the object.
async fn heads(client: &Client, servers: usize) -> usize {
    let mut heads = 0;
    for server in 0..servers {
        let target = Target::server(format!("s{server}"));
        let stat = client.raw().stat(&target, vec![head_key("o").into()]).await.remove(0);
        heads += usize::from(stat.unwrap().status == Status::Ok);
    }
    heads
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_writers_at_once_at_most_one_succeeds_and_its_object_stays() {
    let doors = Doors::start(3, 64 * MIB).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(doors.client().await);
    }
    let mut won = 0;
    for round in 0..24_u64 {
        let length = if round.is_multiple_of(4) { 2 * MIB as usize } else { 3_000 };
        let writers = clients.iter().enumerate().map(|(index, client)| {
            let (client, salt) = (client.clone(), round * 10 + index as u64);
            tokio::spawn(async move {
                (salt, client.put(b"o", bytes(length, salt), &no_clobber(2)).await)
            })
        });
        let writers: Vec<_> = writers.collect();
        let mut winners = Vec::new();
        for writer in writers {
            match writer.await.unwrap() {
                (salt, Ok(report)) => {
                    assert_eq!((report.copies, report.is_short()), (2, false), "{report:?}");
                    winners.push(salt);
                }
                (_, Err(error)) => assert!(matches!(error, Error::Exists { .. }), "{error}"),
            }
        }
        assert!(winners.len() <= 1, "round {round}: {winners:?}");
        let found = get(&clients[0]).await;
        assert_eq!(found, winners.first().map(|salt| bytes(length, *salt)));
        if let Some(located) = clients[1].locate(b"o").await.unwrap() {
            let mut owners = located.copies.iter().filter(|copy| copy.is_owner);
            assert!(owners.all(|copy| copy.state == CopyState::Whole), "{located:?}");
            assert!(located.copies.iter().all(|copy| copy.is_owner), "{located:?}");
            won += 1;
        }
        clients[2].delete(b"o").await.unwrap();
        // Losers leave nothing. What a reader held goes when its release arrives.
        until_used(&clients[0], 0).await;
    }
    assert_eq!(won, 24, "who comes first to the first owner wins");
}

#[tokio::test]
async fn no_stand_in_takes_the_place_of_an_owner_that_gives_no_answer() {
    let doors = Doors::start(3, 64 * MIB).await;
    let client = doors.client().await;
    put(&client, "first", 1).await.unwrap();
    let owner = ranks(&client, "o")[0];
    doors.set(at_once(move |frame| match frame.server == owner {
        true => Verdict::Cut,
        false => Verdict::Pass,
    }));
    let refused = put(&doors.client().await, "second", 1).await;
    assert!(matches!(refused, Err(Error::Unknown { .. })), "{refused:?}");
    let message = refused.unwrap_err().to_string();
    assert!(message.contains(&format!("\"s{owner}\"")), "{message}");
    doors.set(open());
    let reader = doors.client().await;
    assert_eq!(heads(&reader, 3).await, 1);
    assert_eq!(get(&reader).await.as_deref(), Some(&b"first"[..]));
}

#[tokio::test]
async fn an_owner_that_falls_silent_when_it_is_written_to_has_no_stand_in() {
    let doors = Doors::start(3, 64 * MIB).await;
    let client = doors.client().await;
    let owner = ranks(&client, "o")[0];
    let elsewhere = Arc::new(AtomicUsize::new(0));
    doors.set({
        let elsewhere = elsewhere.clone();
        at_once(move |frame| match frame.writes_a_head() {
            true if frame.server == owner => Verdict::Cut,
            is_head => {
                elsewhere.fetch_add(usize::from(is_head), Ordering::SeqCst);
                Verdict::Pass
            }
        })
    });
    // Nothing was found when it looked, and all owners answered then.
    let refused = put(&doors.client().await, "first", 1).await;
    assert!(
        matches!(refused, Err(Error::Unknown { .. } | Error::Indeterminate { .. })),
        "{refused:?}"
    );
    assert_eq!(elsewhere.load(Ordering::SeqCst), 0, "a head went to another server");
    doors.set(open());
    assert_eq!(heads(&doors.client().await, 3).await, 0);
}

#[tokio::test]
async fn a_server_that_is_no_owner_may_be_silent() {
    let doors = Doors::start(3, 64 * MIB).await;
    let client = doors.client().await;
    let last = ranks(&client, "o")[2];
    doors.set(at_once(move |frame| match frame.server == last {
        true => Verdict::Cut,
        false => Verdict::Pass,
    }));
    let report = put(&client, "first", 2).await.unwrap();
    assert_eq!((report.copies, report.stand_ins.len()), (2, 0));
    let refused = put(&client, "second", 2).await;
    assert!(matches!(refused, Err(Error::Exists { .. })), "{refused:?}");
}

#[tokio::test]
async fn what_was_written_is_taken_back_when_a_later_owner_gives_no_word() {
    let doors = Doors::start(3, 64 * MIB).await;
    let client = doors.client().await;
    let second = ranks(&client, "o")[1];
    doors.set(at_once(move |frame| match frame.server == second && frame.writes_a_head() {
        true => Verdict::Cut,
        false => Verdict::Pass,
    }));
    let refused = put(&client, "first", 2).await;
    // The owner may have it for all that anybody knows.
    assert!(matches!(refused, Err(Error::Indeterminate { .. })), "{refused:?}");
    doors.set(open());
    assert_eq!(heads(&doors.client().await, 3).await, 0, "the first owner's is taken back");
    put(&client, "second", 2).await.unwrap();
}

/// Begins a put that may replace nothing, whose first head waits at its door
/// until a permit is added.
async fn begin(doors: &Doors, client: &Client, replicas: u8) -> (Waiting, Arc<Semaphore>) {
    let (came, may_go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    doors.set({
        let (came, may_go) = (Arc::clone(&came), Arc::clone(&may_go));
        Arc::new(move |frame| {
            let (came, may_go) = (Arc::clone(&came), Arc::clone(&may_go));
            Box::pin(async move {
                if frame.writes_a_head() {
                    came.add_permits(1);
                    may_go.acquire().await.unwrap().forget();
                }
                Verdict::Pass
            })
        })
    });
    let client = client.clone();
    let waiting = tokio::spawn(async move { put(&client, "early", replicas).await });
    came.acquire().await.unwrap().forget();
    doors.set(open());
    (waiting, may_go)
}

type Waiting = JoinHandle<Result<PutReport, Error>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_at_a_later_owner_is_seen_and_the_head_taken_back() {
    let doors = Doors::start(3, 64 * MIB).await;
    let (early, late) = (doors.client().await, doors.client().await);
    let first = ranks(&early, "o")[0];
    let (waiting, may_go) = begin(&doors, &early, 2).await;
    // Meanwhile an object comes that the first owner misses.
    doors.set(at_once(move |frame| match frame.server == first && frame.writes_a_head() {
        true => Verdict::Cut,
        false => Verdict::Pass,
    }));
    let report = late.put(b"o", "late", &PutOptions::default()).await.unwrap();
    assert_eq!((report.copies, report.stand_ins.len()), (2, 1));
    doors.set(open());
    may_go.add_permits(1);
    let refused = waiting.await.unwrap();
    assert!(matches!(refused, Err(Error::Exists { .. })), "{refused:?}");
    let reader = doors.client().await;
    assert_eq!(heads(&reader, 3).await, 2, "the first owner's is taken back");
    assert_eq!(get(&reader).await.as_deref(), Some(&b"late"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_that_went_different_ways_around_a_full_owner_do_not_both_succeed() {
    let doors = Doors::start(3, 8 * MIB).await;
    let (early, late) = (doors.client().await, doors.client().await);
    let owner = ranks(&early, "o")[0];
    let (waiting, may_go) = begin(&doors, &early, 1).await;
    // Meanwhile the owner is full, and the second writer goes to a stand-in.
    let target = Target::server(format!("s{owner}"));
    let fillers = (0..8).map(|index| CreateItem::new(format!("f{index}"), bytes(MIB as usize, 1)));
    let made = late.raw().create(&target, fillers.collect()).await;
    assert!(made.iter().all(|answer| answer.as_ref().unwrap().status == Status::Ok), "{made:?}");
    let report = put(&late, "late", 1).await.unwrap();
    assert_eq!((report.copies, report.stand_ins.len()), (1, 1), "{report:?}");
    // Then there is room again, and the first writer's head arrives.
    let fillers = (0..8).map(|index| DeleteItem::new(format!("f{index}")));
    late.raw().delete(&target, fillers.collect()).await;
    may_go.add_permits(1);
    let refused = waiting.await.unwrap();
    assert!(matches!(refused, Err(Error::Exists { .. })), "{refused:?}");
    assert_eq!(heads(&late, 3).await, 1);
    assert_eq!(get(&late).await.as_deref(), Some(&b"late"[..]));
}

#[tokio::test]
async fn a_deleted_name_is_free_again() {
    let doors = Doors::start(3, 64 * MIB).await;
    let client = doors.client().await;
    for round in 0..3 {
        let report = put(&client, "again", 2).await.unwrap();
        assert_eq!(report.copies, 2, "{round}: {report:?}");
        let refused = put(&client, "more", 2).await;
        assert!(matches!(refused, Err(Error::Exists { .. })), "{refused:?}");
        client.delete(b"o").await.unwrap();
    }
}

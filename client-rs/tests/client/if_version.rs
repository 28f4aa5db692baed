//! Puts that may replace one version only.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::doors::{Doors, Frame, Rule, Verdict, at_once, bytes, holding, open, ranks, used_bytes};
use rampuddle_client::{Client, Error, GetOptions, PutCondition, PutOptions, PutReport};
use rampuddle_protocol::Version;
use tokio::sync::Semaphore;

const MIB: u64 = 1 << 20;
/// Pages of one copy of a striped object of 6 MiB, in bytes.
const STRIPED_BYTES: u64 = 6 * MIB + 65_536;

fn if_version(version: Version) -> PutOptions {
    let mut options = PutOptions::default();
    options.condition = PutCondition::IfVersion(version);
    options
}

async fn plain(client: &Client, object: Vec<u8>) -> PutReport {
    client.put(b"o", object, &PutOptions::default()).await.unwrap()
}

/// The object's bytes as the first owner has it.
async fn read(doors: &Doors) -> Vec<u8> {
    let mut options = doors.options();
    options.replicas = Some(1);
    let client = Client::connect(options).await.unwrap();
    let value = client.get(b"o", &GetOptions::default()).await.unwrap().unwrap();
    value.into_bytes().to_vec()
}

/// Does something to the frames that `which` names, the first `times` of them.
fn the_first(
    times: usize,
    verdict: Verdict,
    which: impl Fn(&Frame) -> bool + Send + Sync + 'static,
) -> Rule {
    let seen = AtomicUsize::new(0);
    at_once(move |frame| {
        let is_meant = which(frame) && seen.fetch_add(1, Ordering::SeqCst) < times;
        if is_meant { verdict } else { Verdict::Pass }
    })
}

#[track_caller]
fn assert_changed(result: &Result<PutReport, Error>, wanted: Option<Version>) {
    let Err(Error::Changed { held, .. }) = result else { panic!("{result:?}") };
    assert_eq!(*held, wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_writers_with_one_version_exactly_one_succeeds_and_the_others_leave_nothing() {
    let doors = Doors::start(3, 64 * MIB).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(doors.client().await);
    }
    let mut version = plain(&clients[0], bytes(6 * MIB as usize, 1_000)).await.version;
    for round in 0..16_u64 {
        let length = if round.is_multiple_of(4) { 6 * MIB as usize } else { 3_000 };
        let writers = clients.iter().enumerate().map(|(index, client)| {
            let (client, salt) = (client.clone(), round * 10 + index as u64);
            tokio::spawn(async move {
                (salt, client.put(b"o", bytes(length, salt), &if_version(version)).await)
            })
        });
        let writers: Vec<_> = writers.collect();
        let mut winners = Vec::new();
        for writer in writers {
            match writer.await.unwrap() {
                (salt, Ok(report)) => {
                    assert_eq!((report.copies, report.is_short()), (2, false), "{report:?}");
                    winners.push((salt, report.version));
                }
                (_, Err(Error::Changed { held, .. })) => assert!(held.unwrap() > version),
                (_, Err(error)) => panic!("{error}"),
            }
        }
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        assert!(winners[0].1 > version);
        version = winners[0].1;
        assert!(read(&doors).await == bytes(length, winners[0].0));
        let stripes = if length > 3_000 { 6 * MIB } else { 0 };
        assert_eq!(used_bytes(&clients[0]).await, 2 * (stripes + 65_536), "losers leave nothing");
    }
}

#[tokio::test]
async fn a_put_that_must_fail_says_so_before_it_sends_a_stripe() {
    let doors = Doors::start(3, 64 * MIB).await;
    let client = doors.client().await;
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    doors.set(at_once(move |frame| {
        counted.fetch_add(usize::from(frame.writes_a_stripe()), Ordering::SeqCst);
        Verdict::Pass
    }));
    let some = Version { time: 7, writer: 7 };
    let object = || bytes(6 * MIB as usize, 1);
    assert_changed(&client.put(b"o", object(), &if_version(some)).await, None);
    let version = plain(&client, b"one".to_vec()).await.version;
    assert_changed(&client.put(b"o", object(), &if_version(some)).await, Some(version));
    let later = Version { time: version.time + 1, ..version };
    assert_changed(&client.put(b"o", object(), &if_version(later)).await, Some(version));
    client.delete(b"o").await.unwrap();
    assert_changed(&client.put(b"o", object(), &if_version(version)).await, None);
    let refused = client.put(b"o", object(), &if_version(Version::NONE)).await;
    assert!(matches!(refused, Err(Error::BadOption { .. })), "{refused:?}");
    assert_eq!(sent.load(Ordering::SeqCst), 0);
    assert_eq!(used_bytes(&client).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_is_overtaken_while_it_sends_its_stripes_leaves_nothing() {
    let doors = Doors::start(3, 64 * MIB).await;
    let (slow, fast) = (doors.client().await, doors.client().await);
    let version = plain(&slow, b"one".to_vec()).await.version;
    let (came, may_go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    doors.set(holding(Frame::writes_a_stripe, &came, &may_go));
    let put = tokio::spawn(async move {
        slow.put(b"o", bytes(6 * MIB as usize, 1), &if_version(version)).await
    });
    came.acquire().await.unwrap().forget();
    let next = fast.put(b"o", "two", &if_version(version)).await.unwrap().version;
    may_go.close();
    assert_changed(&put.await.unwrap(), Some(next));
    assert_eq!(read(&doors).await, b"two");
    assert_eq!(used_bytes(&fast).await, 2 * 65_536);
}

#[tokio::test]
async fn a_first_owner_that_gives_no_word_is_not_gone_round() {
    let doors = Doors::start(3, 64 * MIB).await;
    let client = doors.client().await;
    let version = plain(&client, b"one".to_vec()).await.version;
    let first = ranks(&client, "o")[0];
    doors.set(at_once(move |frame| match frame.server == first {
        true => Verdict::Cut,
        false => Verdict::Pass,
    }));
    let writer = doors.client().await;
    let refused = writer.put(b"o", bytes(6 * MIB as usize, 1), &if_version(version)).await;
    let Err(Error::Unknown { problems, .. }) = &refused else { panic!("{refused:?}") };
    assert!(problems[0].contains(&format!("\"s{first}\"")), "{problems:?}");
    doors.set(open());
    assert_eq!(read(&doors).await, b"one");
    assert_eq!(used_bytes(&doors.client().await).await, 2 * 65_536, "nothing of it is left");
}

#[tokio::test]
async fn a_head_whose_answer_was_lost_is_written_once_and_known_to_be() {
    for length in [3_000, 6 * MIB as usize] {
        let doors = Doors::start(3, 64 * MIB).await;
        let client = doors.client().await;
        let version = plain(&client, bytes(6 * MIB as usize, 1)).await.version;
        let first = ranks(&client, "o")[0];
        let is_meant = move |frame: &Frame| frame.server == first && frame.writes_a_head();
        doors.set(the_first(1, Verdict::Unanswered, is_meant));
        let report = client.put(b"o", bytes(length, 2), &if_version(version)).await.unwrap();
        assert_eq!((report.copies, report.is_short()), (2, false), "{report:?}");
        assert!(read(&doors).await == bytes(length, 2));
        // What it took the place of is gone, though nobody said what that was.
        let stripes = if length > 3_000 { 6 * MIB } else { 0 };
        assert_eq!(used_bytes(&client).await, 2 * (stripes + 65_536));
    }
}

#[tokio::test]
async fn a_head_whose_answers_are_all_lost_is_there_or_not_and_nothing_else_is_said() {
    for verdict in [Verdict::Cut, Verdict::Unanswered] {
        let doors = Doors::start(3, 64 * MIB).await;
        let client = doors.client().await;
        let version = plain(&client, bytes(6 * MIB as usize, 1)).await.version;
        let first = ranks(&client, "o")[0];
        let is_meant = move |frame: &Frame| frame.server == first && frame.writes_a_head();
        doors.set(the_first(usize::MAX, verdict, is_meant));
        let unsure = client.put(b"o", bytes(6 * MIB as usize, 2), &if_version(version)).await;
        assert!(matches!(unsure, Err(Error::Indeterminate { .. })), "{unsure:?}");
        doors.set(open());
        let expected = if verdict == Verdict::Cut { 1 } else { 2 };
        assert!(read(&doors).await == bytes(6 * MIB as usize, expected), "{verdict:?}");
        // The other owner was not written, and the old object is whole there.
        let used = used_bytes(&client).await;
        assert_eq!(used, 2 * STRIPED_BYTES + 2 * 6 * MIB, "the stripes of both");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_and_another_object_in_its_place_leave_it_unknown() {
    let doors = Arc::new(Doors::start(3, 64 * MIB).await);
    let (client, other) = (doors.client().await, doors.client().await);
    let version = plain(&client, b"one".to_vec()).await.version;
    let first = ranks(&client, "o")[0];
    let heads = Arc::new(AtomicUsize::new(0));
    // Between the first attempt, which is taken, and the second one somebody
    // reads what was taken, and replaces it.
    doors.set(Arc::new(move |frame| {
        let (other, heads) = (other.clone(), Arc::clone(&heads));
        Box::pin(async move {
            if frame.server != first || !frame.writes_a_head() {
                return Verdict::Pass;
            }
            match heads.fetch_add(1, Ordering::SeqCst) {
                0 => Verdict::Unanswered,
                1 => {
                    other.put(b"o", "three", &PutOptions::default()).await.unwrap();
                    Verdict::Pass
                }
                _ => Verdict::Pass,
            }
        })
    }));
    let unsure = client.put(b"o", "two", &if_version(version)).await;
    assert!(matches!(unsure, Err(Error::Indeterminate { .. })), "{unsure:?}");
    doors.set(open());
    assert_eq!(read(&doors).await, b"three");
}

#[tokio::test]
async fn a_first_owner_that_missed_the_version_is_given_it_before_it_compares() {
    for had_older in [false, true] {
        let doors = Doors::start(3, 64 * MIB).await;
        let client = doors.client().await;
        if had_older {
            plain(&client, bytes(6 * MIB as usize, 1)).await;
        }
        let first = ranks(&client, "o")[0];
        let is_meant = move |frame: &Frame| frame.server == first && frame.writes_a_head();
        doors.set(the_first(usize::MAX, Verdict::Cut, is_meant));
        let missed = plain(&client, bytes(7 * MIB as usize, 2)).await;
        assert_eq!((missed.copies, missed.stand_ins.len()), (2, 1), "{missed:?}");
        doors.set(open());
        let writer = doors.client().await;
        let stale = Version { time: missed.version.time - 1, ..missed.version };
        assert_changed(&writer.put(b"o", "no", &if_version(stale)).await, Some(missed.version));
        let report = writer.put(b"o", "three", &if_version(missed.version)).await.unwrap();
        assert_eq!((report.copies, report.stand_ins.len()), (2, 0), "{report:?}");
        assert_eq!(read(&doors).await, b"three");
        assert_changed(
            &writer.put(b"o", "no", &if_version(missed.version)).await,
            Some(report.version),
        );
        // The stripes of both objects before it are gone; a stand-in's head of
        // the one that was missed is left, as after any put.
        assert!(used_bytes(&writer).await <= 3 * 65_536);
    }
}

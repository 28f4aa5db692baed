//! Objects that live for a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::doors::{
    Doors, Frame, PATIENCE, Verdict, at_once, bytes, cut, holding, open, ranks, until_used,
    used_bytes,
};
use crate::object_faults::adjustable;
use futures_util::future::join_all;
use rampuddle_client::{
    Client, Clock as _, CompareOptions, Comparison, Error, GetOptions, PutCondition, PutOptions,
    PutReport, RangeOf, SystemClock, Target, VerifyOptions, VerifyState,
};
use rampuddle_protocol::RowFlags;
use tokio::sync::Semaphore;
use tokio::task::yield_now;

const MIB: usize = 1 << 20;
/// How far a clock that was compared with others may be off on a busy machine.
const CLOCK_SLACK_MS: u64 = 1_000;
/// Shorter than a version may lie ahead of a server's clock.
const MINUTE: Duration = Duration::from_secs(60);

fn ttl(life: Duration) -> PutOptions {
    let mut options = PutOptions::default();
    options.ttl = Some(life);
    options
}

async fn get(client: &Client, name: &str) -> Option<Vec<u8>> {
    let value = client.get(name.as_bytes(), &GetOptions::default()).await.unwrap();
    value.map(|value| value.into_bytes().to_vec())
}

async fn names(client: &Client) -> Vec<String> {
    let (mut listing, mut names) = (client.list(b""), Vec::new());
    while let Some(stat) = listing.next().await {
        names.push(String::from_utf8(stat.unwrap().name).unwrap());
    }
    names
}

/// The longest lease of all values of an object that have one, and how many have none.
async fn leases(client: &Client, name: &str) -> (u64, usize) {
    let upload = client.stat(name.as_bytes()).await.unwrap().unwrap().upload;
    let (mut longest, mut without) = (0, 0);
    for server in ["s0", "s1", "s2"] {
        let page = client.raw().list(server, &Default::default()).await.unwrap();
        for entry in page.entries.iter().filter(|entry| entry.row.set == upload) {
            longest = longest.max(entry.row.lease_ms);
            without += usize::from(entry.row.lease_ms == 0);
        }
    }
    (longest, without)
}

fn is_over(report: &PutReport) -> bool {
    SystemClock.unix_ms() >= report.expires_unix_ms.expect("it ends")
}

#[tokio::test]
async fn an_object_is_there_for_its_ttl_and_all_its_pages_come_back_then() {
    for length in [3_000, 9 * MIB] {
        let doors = Doors::start(3, 64 << 20).await;
        let client = doors.client().await;
        let before = SystemClock.unix_ms();
        let options = ttl(Duration::from_secs(2));
        let report = client.put(b"o", bytes(length, 1), &options).await.unwrap();
        assert_eq!((report.copies, report.is_short()), (2, false), "{report:?}");
        assert!(report.problems.is_empty(), "{report:?}");
        let lives_ms = report.expires_unix_ms.unwrap() - before;
        assert!((2_000..4_000).contains(&lives_ms), "{lives_ms} ms");
        let stat = client.stat(b"o").await.unwrap().unwrap();
        assert_eq!(stat.expires_unix_ms, report.expires_unix_ms);
        let listed = client.list(b"").next().await.unwrap().unwrap();
        let off_by = listed.expires_unix_ms.unwrap().abs_diff(report.expires_unix_ms.unwrap());
        assert!(off_by < 1_000, "{off_by} ms");
        let (longest, without) = leases(&client, "o").await;
        assert!(longest <= 2_000 && without == 0, "{longest} ms, {without} without");
        while get(&client, "o").await.is_some_and(|found| found == bytes(length, 1)) {
            assert!(!is_over(&report) || SystemClock.unix_ms() < before + 5_000, "it never ends");
            yield_now().await;
        }
        let now = SystemClock.unix_ms() + CLOCK_SLACK_MS;
        assert!(now >= report.expires_unix_ms.unwrap(), "it ended too early");
        assert_eq!(get(&client, "o").await, None);
        assert!(client.stat(b"o").await.unwrap().is_none());
        // Listings go by the servers, whose leases began a little later.
        until_used(&client, 0).await;
        assert_eq!(names(&client).await, Vec::<String>::new());
        assert!(!client.delete(b"o").await.unwrap().existed);
    }
}

#[tokio::test]
async fn an_object_with_a_ttl_is_whole_while_it_lives_and_the_same_as_its_bytes() {
    let doors = Doors::start(3, 64 << 20).await;
    let client = doors.client().await;
    for (name, length) in [("small", 3_000), ("large", 9 * MIB)] {
        client.put(name.as_bytes(), bytes(length, 1), &ttl(MINUTE)).await.unwrap();
        let options = CompareOptions::default();
        let compared = client.compare(name.as_bytes(), bytes(length, 1), &options).await.unwrap();
        let Comparison::Same(stat) = &compared else { panic!("{compared:?}") };
        assert!(stat.expires_unix_ms.is_some());
    }
    let mut verification = client.verify(b"", &VerifyOptions::default());
    for _ in 0..2 {
        let verified = verification.next().await.unwrap().unwrap();
        assert_eq!((verified.state, verified.copies), (VerifyState::Whole, 2), "{verified:?}");
    }
    assert!(verification.next().await.is_none());
}

#[tokio::test]
async fn who_reads_goes_by_the_end_that_is_written_and_not_by_what_servers_still_have() {
    let doors = Doors::start(3, 64 << 20).await;
    let (client, (later, clock)) = (doors.client().await, adjustable(&doors).await);
    for (name, length) in [("small", 3_000), ("large", 9 * MIB)] {
        client.put(name.as_bytes(), bytes(length, 1), &ttl(MINUTE)).await.unwrap();
        assert!(get(&later, name).await.unwrap() == bytes(length, 1));
    }
    client.put(b"for good", "x", &PutOptions::default()).await.unwrap();
    assert_eq!(names(&later).await, ["for good", "large", "small"]);
    // Whoever has met the servers already, and whose clock jumps, sees the end.
    clock.set(59_000);
    assert!(later.stat(b"small").await.unwrap().is_some(), "not yet");
    clock.set(62_000);
    for name in ["small", "large"] {
        assert_eq!(get(&later, name).await, None);
        assert!(later.stat(name.as_bytes()).await.unwrap().is_none());
        assert!(later.locate(name.as_bytes()).await.unwrap().is_none());
        let range = [RangeOf::new(name.as_bytes(), 0..10)];
        let found = later.get_ranges(&range, &GetOptions::default()).await.remove(0);
        assert!(found.unwrap().is_none());
        assert!(get(&client, name).await.is_some(), "the servers have it");
    }
    assert!(get(&later, "for good").await.is_some());
    // Listings go by the servers, which have them still.
    assert_eq!(names(&later).await, ["for good", "large", "small"]);
    assert!(later.delete(b"large").await.unwrap().existed);
    until_used(&client, 2 * 2 * 65_536).await;
}

/// Reads the ends of many objects in one call; whether each is there.
async fn ends_of(client: &Client, objects: &[(String, usize)]) -> Vec<bool> {
    let range = |length: usize| length.saturating_sub(70_000) as u64..length as u64;
    let asked = objects.iter().map(|(name, length)| RangeOf::new(name.clone(), range(*length)));
    let asked: Vec<_> = asked.collect();
    let found = client.get_ranges(&asked, &GetOptions::default()).await;
    let found = objects.iter().zip(found).map(|((name, length), found)| {
        let found = found.unwrap_or_else(|error| panic!("{name}: {error}"));
        let Some(value) = found else { return false };
        let wanted = &bytes(*length, 1)[range(*length).start as usize..];
        assert!(value.into_bytes() == wanted, "{name}");
        true
    });
    found.collect()
}

#[tokio::test]
async fn of_ranges_of_many_objects_those_that_are_over_are_absent_on_every_road() {
    let doors = Doors::start(3, 96 << 20).await;
    let client = doors.client().await;
    // The end stands behind an inline object's bytes, which do not come all at once
    // where so many are asked for together, and behind the block table of others.
    let mut objects: Vec<_> = (0..50).map(|index| (format!("for good {index}"), 2_000)).collect();
    for length in [0, 3_000, 100_000, MIB, 5 * MIB, 9 * MIB] {
        objects.push((format!("to end {length}"), length));
        objects.push((format!("to end, astray {length}"), length));
    }
    let ends = |name: &str| name.starts_with("to end");
    let for_good: Vec<_> = objects.iter().map(|(name, _)| !ends(name)).collect();
    let began = Instant::now();
    loop {
        for (name, length) in &objects {
            let options = if ends(name) { ttl(MINUTE) } else { PutOptions::default() };
            // Who asks an owner that missed the head looks for it by itself.
            let is_astray = name.contains("astray");
            doors.set(if is_astray { cut(0, Frame::writes_a_head) } else { open() });
            client.put(name.as_bytes(), bytes(*length, 1), &options).await.unwrap();
        }
        doors.set(open());
        let (later, clock) = adjustable(&doors).await;
        assert_eq!(ends_of(&later, &objects).await, vec![true; objects.len()]);
        // Each asks all servers: as many connections as there will ever be use for.
        join_all((0..8).map(|_| later.stat(b"none"))).await;
        let connections = later.metrics().connections_opened;
        clock.set(62_000);
        let found = ends_of(&later, &objects).await;
        // Shaking hands sets its clock right again.
        if later.metrics().connections_opened == connections {
            assert_eq!(found, for_good);
            break;
        }
        assert!(began.elapsed() < PATIENCE, "it always needs new connections");
    }
    assert_eq!(ends_of(&client, &objects).await, vec![true; objects.len()], "servers have all");
}

#[tokio::test]
async fn an_older_copy_does_not_come_back_when_a_later_one_is_over() {
    let doors = Doors::start(3, 64 << 20).await;
    let (client, (later, clock)) = (doors.client().await, adjustable(&doors).await);
    client.put(b"o", "older", &PutOptions::default()).await.unwrap();
    assert_eq!(names(&later).await, ["o"], "it has met the servers");
    // The first owner misses what comes, and a stand-in takes it.
    let first = ranks(&client, "o")[0];
    doors.set(cut(first, Frame::writes_a_head));
    let report = client.put(b"o", "later", &ttl(MINUTE)).await.unwrap();
    doors.set(open());
    clock.set(62_000);
    // The owner that missed it may show what it has, until repair; whoever asks all
    // servers, as this put does, finds that there is nothing.
    let mut options = PutOptions::default();
    options.condition = PutCondition::IfVersion(report.version);
    let refused = later.put(b"o", "no", &options).await;
    assert!(matches!(refused, Err(Error::Changed { held: None, .. })), "{refused:?}");
}

#[tokio::test]
async fn what_replaces_an_object_with_a_ttl_does_not_end_with_it() {
    for (old, new) in [(3_000, 2_000), (9 * MIB, 6 * MIB), (9 * MIB, 3_000)] {
        let doors = Doors::start(3, 64 << 20).await;
        let client = doors.client().await;
        let report = client.put(b"o", bytes(old, 1), &ttl(Duration::from_secs(1))).await.unwrap();
        client.put(b"o", bytes(new, 2), &PutOptions::default()).await.unwrap();
        let used = used_bytes(&client).await;
        assert_eq!(client.stat(b"o").await.unwrap().unwrap().expires_unix_ms, None);
        let (longest, without) = leases(&client, "o").await;
        assert!(longest == 0 && without > 0, "{longest} ms, {without} without");
        while !is_over(&report) {
            assert!(get(&client, "o").await.unwrap() == bytes(new, 2));
        }
        assert!(get(&client, "o").await.unwrap() == bytes(new, 2));
        let stripes = if new > MIB { 2 * new as u64 } else { 0 };
        assert_eq!(used, 2 * 65_536 + stripes, "the old set is gone");
        assert_eq!(used_bytes(&client).await, used);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_that_arrives_behind_the_end_of_the_put_lengthens_nothing() {
    let doors = Doors::start(3, 64 << 20).await;
    let mut options = doors.options();
    options.upload_lease = Duration::from_secs(10);
    let client = Client::connect(options).await.unwrap();
    // The stripes take so long that their lease is renewed; the renewal gets
    // stuck on its way.
    let (came, may_go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (stripe_came, stripe_may_go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let is_renewal = |frame: &Frame| frame.touches(|row| row.lease_ms == 10_000);
    let (renewals, stripes) = (
        holding(is_renewal, &came, &may_go),
        holding(is_last_stripe, &stripe_came, &stripe_may_go),
    );
    doors.set(Arc::new(move |frame| {
        let (renewals, stripes) = (Arc::clone(&renewals), Arc::clone(&stripes));
        Box::pin(async move {
            stripes(frame.clone()).await;
            renewals(frame).await
        })
    }));
    let writer = client.clone();
    let options = ttl(Duration::from_secs(1));
    let put = tokio::spawn(async move { writer.put(b"o", bytes(9 * MIB, 1), &options).await });
    came.acquire().await.unwrap().forget();
    stripe_may_go.close();
    put.await.unwrap().unwrap();
    assert!(get(&client, "o").await.is_some());
    may_go.close();
    let began = Instant::now();
    until_used(&client, 0).await;
    assert!(began.elapsed() < Duration::from_secs(6), "the renewal was for 10 s");
}

fn is_last_stripe(frame: &Frame) -> bool {
    frame.writes_a_stripe() && frame.payload_bytes() / MIB as u64 == 1
}

#[tokio::test]
async fn an_object_whose_writer_dies_before_the_last_touch_is_whole_to_its_end() {
    let doors = Doors::start(3, 64 << 20).await;
    let mut options = doors.options();
    options.upload_lease = Duration::from_secs(1);
    let client = Client::connect(options).await.unwrap();
    doors.set(at_once(|frame| match frame.touches(|row| row.flags.has(RowFlags::EXACT)) {
        true => Verdict::Cut,
        false => Verdict::Pass,
    }));
    let options = ttl(Duration::from_secs(1));
    let report = client.put(b"o", bytes(9 * MIB, 1), &options).await.unwrap();
    assert!(report.is_short(), "nobody said that the stripes stay");
    doors.set(open());
    // The stripes end a second behind the head, not a day.
    let reader = doors.client().await;
    while let Some(found) = get(&reader, "o").await {
        assert!(
            found == bytes(9 * MIB, 1)
                && SystemClock.unix_ms() < report.expires_unix_ms.unwrap() + 2_000
        );
    }
    until_used(&reader, 0).await;
    assert!(SystemClock.unix_ms() < report.expires_unix_ms.unwrap() + PATIENCE.as_millis() as u64);
}

#[tokio::test]
async fn a_version_with_a_ttl_is_brought_to_its_first_owner_with_what_is_left_of_its_life() {
    let doors = Doors::start(3, 64 << 20).await;
    let client = doors.client().await;
    let first = ranks(&client, "o")[0];
    doors.set(cut(first, Frame::writes_a_head));
    let report = client.put(b"o", "one", &ttl(MINUTE)).await.unwrap();
    // Nothing else gets through to the first owner than the copy of the head.
    doors.set(cut(first, Frame::writes_a_head_on_condition));
    let mut options = PutOptions::default();
    options.condition = PutCondition::IfVersion(report.version);
    let writer = doors.client().await;
    let unsure = writer.put(b"o", "two", &options).await;
    assert!(matches!(unsure, Err(Error::Indeterminate { .. })), "{unsure:?}");
    doors.set(open());
    let target = Target::server(format!("s{first}"));
    let key = crate::doors::head_key("o");
    let stat = doors.client().await.raw().stat(&target, vec![key.into()]).await.remove(0).unwrap();
    assert_eq!(stat.row.version, report.version);
    assert!((30_000..=61_000).contains(&stat.row.lease_ms), "{stat:?}");
}

#[tokio::test]
async fn a_life_that_is_too_short_or_too_long_is_refused_before_anything_is_sent() {
    let doors = Doors::start(1, 16 << 20).await;
    let client = doors.client().await;
    doors.set(at_once(|_| Verdict::Cut));
    for life in [Duration::ZERO, Duration::from_millis(999), Duration::from_secs(315_360_001)] {
        let refused = client.put(b"o", "x", &ttl(life)).await;
        assert!(matches!(refused, Err(Error::BadOption { option: "TTL", .. })), "{refused:?}");
    }
}

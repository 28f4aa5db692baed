//! What a client counts of its own work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rampuddle_client::{
    Client, CompareOptions, Comparison, Error, GetOptions, Metrics, OperationKind,
    OperationMetrics, OperationOutcome, Options, PutOptions, Source, VerifyOptions,
};
use rampuddle_protocol::Opcode;

use crate::doors::{Doors, Frame, PATIENCE, Verdict, at_once, bytes, open};
use crate::objects::Cluster;
use crate::support::{Behaviour, FakeServer};

const MIB: usize = 1 << 20;

fn count(metrics: &Metrics, kind: OperationKind, outcome: OperationOutcome) -> u64 {
    metrics.of(kind).count(outcome)
}

#[tokio::test]
async fn operations_are_counted_by_kind_and_outcome_with_their_bytes_and_latencies() {
    let cluster = Cluster::start(3, 128 << 20);
    let client = cluster.client().await;
    let (get, put) = (GetOptions::default(), PutOptions::default());
    assert!(client.metrics().operations.iter().all(|operation| operation.total() == 0));
    for length in [1_000, 5 * MIB] {
        client.put(b"o", bytes(length, 1), &put).await.unwrap();
        client.get(b"o", &get).await.unwrap().unwrap();
        client.get_into(b"o", &mut vec![0; length], &get).await.unwrap().unwrap();
        client.get_to(b"o", &mut tokio::io::sink(), None, &get).await.unwrap().unwrap();
        client.get_range(b"o", 10..110, &get).await.unwrap().unwrap();
        client.get_to(b"o", &mut tokio::io::sink(), Some(0..7), &get).await.unwrap().unwrap();
        client.stat(b"o").await.unwrap().unwrap();
        client.locate(b"o").await.unwrap().unwrap();
        let mut listing = client.list(b"");
        while let Some(stat) = listing.next().await {
            stat.unwrap();
        }
        client.delete(b"o").await.unwrap();
    }
    assert!(client.get(b"none", &get).await.unwrap().is_none());
    assert!(client.stat(b"none").await.unwrap().is_none());
    assert!(!client.delete(b"none").await.unwrap().existed);
    assert!(client.get(b"", &get).await.is_err());
    drop(client.list(b""));
    let metrics = client.clone().metrics();
    use OperationKind::{Delete, Get, GetRange, List, Locate, Put, Stat};
    use OperationOutcome::{Abandoned, Absent, Done, Failed};
    for (kind, outcome, wanted) in [
        (Put, Done, 2),
        (Get, Done, 6),
        (Get, Absent, 1),
        (Get, Failed, 1),
        (GetRange, Done, 4),
        (Stat, Done, 2),
        (Stat, Absent, 1),
        (Locate, Done, 2),
        (List, Done, 2),
        (List, Abandoned, 1),
        (Delete, Done, 2),
        (Delete, Absent, 1),
    ] {
        assert_eq!(count(&metrics, kind, outcome), wanted, "{kind} {outcome}");
    }
    let total: u64 = metrics.operations.iter().map(OperationMetrics::total).sum();
    assert_eq!(total, 25);
    let all = (1_000 + 5 * MIB) as u64;
    assert_eq!((metrics.bytes_written, metrics.bytes_read), (all, 3 * all + 2 * 107));
    assert_eq!((metrics.failovers, metrics.checksum_failures, metrics.retries), (0, 0, 0));
    assert!(metrics.connections_opened >= 3, "one to each server at least");
    let latency = metrics.of(Get).latency;
    assert_eq!(latency.count, 8);
    assert!(latency.p50 > Duration::ZERO && latency.p50 <= latency.p90);
    assert!(latency.p90 <= latency.p99 && latency.p99 <= latency.max.mul_f64(1.01));
    assert_eq!(metrics.of(List).latency.count, 2, "one was given up");
}

async fn compare(client: &Client, name: &[u8], source: Vec<u8>) -> Result<Comparison, Error> {
    client.compare(name, source, &CompareOptions::default()).await
}

#[tokio::test]
async fn looks_at_copies_are_counted_as_what_they_are_and_move_no_bytes_to_readers() {
    use OperationKind::{Compare, List, Orphans, Verify};
    use OperationOutcome::{Abandoned, Absent, Done, Failed, Short, Unknown};
    let doors = Doors::start(2, 96 << 20).await;
    let client = doors.client().await;
    let (put, verify) = (PutOptions::default(), VerifyOptions::default());
    client.put(b"o", bytes(5 * MIB, 1), &put).await.unwrap();
    for (source, is_same) in [(bytes(5 * MIB, 1), true), (bytes(5 * MIB, 2), false)] {
        let compared = compare(&client, b"o", source).await.unwrap();
        assert_eq!(matches!(compared, Comparison::Same(_)), is_same, "{compared:?}");
    }
    assert!(matches!(compare(&client, b"none", Vec::new()).await, Ok(Comparison::Absent)));
    assert!(compare(&client, b"", Vec::new()).await.is_err());
    let mut verification = client.verify(b"", &verify);
    let verified = verification.next().await.unwrap().unwrap();
    assert!(verified.read_bytes >= 10 * MIB as u64, "{verified:?}");
    assert!(verification.next().await.is_none() && verification.next().await.is_none());
    drop(verification);
    drop(client.verify(b"", &verify));
    assert_eq!(client.orphans().await.unwrap().copies, 0);
    // One of the two servers is cut off.
    doors.set(at_once(|frame: &Frame| match frame.server {
        1 => Verdict::Cut,
        _ => Verdict::Pass,
    }));
    let thin = compare(&client, b"o", bytes(5 * MIB, 1)).await.unwrap();
    assert!(matches!(thin, Comparison::Thin(_)), "{thin:?}");
    assert!(matches!(compare(&client, b"none", Vec::new()).await, Err(Error::Unknown { .. })));
    let mut verification = client.verify(b"", &verify);
    while let Some(verified) = verification.next().await {
        verified.unwrap();
    }
    assert_eq!(client.orphans().await.unwrap().unreachable.len(), 1);
    // Both are.
    doors.set(at_once(|_| Verdict::Cut));
    assert!(client.orphans().await.is_err());
    assert!(client.verify(b"", &verify).next().await.unwrap().is_err());
    doors.set(open());
    let metrics = client.metrics();
    for (kind, outcome, wanted) in [
        (Compare, Done, 2),
        (Compare, Absent, 1),
        (Compare, Short, 1),
        (Compare, Unknown, 1),
        (Compare, Failed, 1),
        (Verify, Done, 1),
        (Verify, Short, 1),
        (Verify, Failed, 1),
        (Verify, Abandoned, 1),
        (Orphans, Done, 1),
        (Orphans, Short, 1),
        (Orphans, Failed, 1),
    ] {
        assert_eq!(count(&metrics, kind, outcome), wanted, "{kind} {outcome}");
    }
    let looks = [Compare, Verify, Orphans].map(|kind| metrics.of(kind).total());
    assert_eq!((looks, metrics.of(List).total()), ([6, 4, 3], 0), "verify is no listing");
    assert_eq!((metrics.of(Verify).latency.count, metrics.bytes_read), (3, 0));
}

#[tokio::test]
async fn an_operation_that_is_given_up_is_counted_as_that() {
    let cluster = Cluster::start(1, 64 << 20);
    let client = cluster.client().await;
    let (reader, _writer) = tokio::io::duplex(64);
    let options = PutOptions::default();
    let put = client.put(b"o", Source::reader(reader), &options);
    assert!(tokio::time::timeout(Duration::from_millis(20), put).await.is_err());
    let metrics = client.metrics();
    assert_eq!(count(&metrics, OperationKind::Put, OperationOutcome::Abandoned), 1);
    assert_eq!((metrics.of(OperationKind::Put).latency.count, metrics.bytes_written), (0, 0));
}

#[tokio::test]
async fn misses_beside_a_dead_server_are_unknown_and_reads_that_go_round_it_are_failovers() {
    let mut cluster = Cluster::start(3, 64 << 20);
    let client = cluster.client().await;
    let get = GetOptions::default();
    for number in 0..20 {
        let name = format!("o{number}");
        client.put(name.as_bytes(), bytes(1_000, number), &PutOptions::default()).await.unwrap();
    }
    cluster.stop(1);
    // Each new client may ask the dead server first, once.
    let began = std::time::Instant::now();
    loop {
        let client = cluster.client().await;
        for number in 0..20 {
            client.get(format!("o{number}").as_bytes(), &get).await.unwrap().unwrap();
        }
        let error = client.get(b"none", &get).await.unwrap_err();
        assert!(matches!(error, Error::Unknown { .. }), "{error:?}");
        let metrics = client.metrics();
        assert_eq!(count(&metrics, OperationKind::Get, OperationOutcome::Unknown), 1);
        if metrics.failovers > 0 {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "no client ever asked the dead server");
    }
}

#[tokio::test]
async fn bytes_that_are_not_as_they_were_written_are_counted() {
    // Of one server every byte is right, of the other the last of a long answer is not.
    let flips = Arc::new(AtomicBool::new(false));
    let is_flipping = Arc::clone(&flips);
    let mangle = move |_: usize, mut answer: Vec<u8>| {
        if answer.len() > 4_000 && is_flipping.load(Ordering::Relaxed) {
            *answer.last_mut().unwrap() ^= 1;
        }
        Some(answer)
    };
    let behaviour = Behaviour { mangle: Some(Arc::new(mangle)), ..Behaviour::default() };
    let (wrong, right) = (FakeServer::with("a", behaviour).await, FakeServer::start("b").await);
    let url = format!("static:{},{}", wrong.entry(), right.entry());
    let client = Client::connect(Options::new(url)).await.unwrap();
    let object = bytes(5_000, 1);
    client.put(b"o", object.clone(), &PutOptions::default()).await.unwrap();
    flips.store(true, Ordering::Relaxed);
    let began = std::time::Instant::now();
    while client.metrics().checksum_failures == 0 {
        let value = client.get(b"o", &GetOptions::default()).await.unwrap().unwrap();
        assert!(value.into_bytes() == object, "the other server has it");
        assert!(began.elapsed() < PATIENCE, "the wrong server was never asked");
    }
    assert_eq!(client.metrics().failovers, 1);
}

#[tokio::test]
async fn requests_that_are_sent_again_are_counted() {
    let doors = Doors::start(1, 16 << 20).await;
    let client = doors.client().await;
    client.put(b"o", "x", &PutOptions::default()).await.unwrap();
    let is_first = AtomicBool::new(true);
    doors.set(at_once(move |frame| {
        let is_cut = frame.opcode == Opcode::List && is_first.swap(false, Ordering::Relaxed);
        if is_cut { Verdict::Cut } else { Verdict::Pass }
    }));
    let before = client.metrics();
    let mut listing = client.list(b"");
    assert!(listing.next().await.unwrap().is_ok() && listing.next().await.is_none());
    let after = client.metrics();
    assert_eq!(after.retries - before.retries, 1);
    assert!(after.connections_opened > before.connections_opened);
    assert_eq!(count(&after, OperationKind::List, OperationOutcome::Done), 1);
}

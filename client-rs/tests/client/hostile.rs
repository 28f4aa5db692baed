//! Servers that break the protocol: an error that says so, and never a panic, a
//! hang or memory that nobody asked for.

use std::sync::Arc;
use std::time::Duration;

use crate::support::{Behaviour, FakeServer};
use bytes::Bytes;
use rampuddle_client::{
    Client, CreateItem, Error, GatherItem, ListQuery, Misbehaviour, Options, RawClient, Target,
};
use rampuddle_protocol::{FrameFlags, Header, Opcode, Outcome, Status};

/// A client of a server whose answers, the hello not counted, are changed by `mangle`.
async fn against(
    mangle: impl Fn(Vec<u8>) -> Vec<u8> + Send + Sync + 'static,
) -> (FakeServer, RawClient) {
    let server = FakeServer::start("a").await;
    let mut options = Options::new(format!("static:{}", server.entry()));
    options.patience = Duration::from_millis(300);
    let raw = Client::connect(options).await.unwrap().raw();
    let items = vec![CreateItem::new("k", "value"), CreateItem::new("l", "value")];
    let made = raw.create(&Target::Placement, items).await;
    assert!(made.iter().all(Result::is_ok));
    server.hang_up().await;
    let mangle = move |number, answer| Some(if number == 0 { answer } else { mangle(answer) });
    server.behave(Behaviour { mangle: Some(Arc::new(mangle)), ..Behaviour::default() });
    (server, raw)
}

/// A frame with another header, sealed again.
fn rewritten(mut frame: Vec<u8>, change: impl Fn(&mut Header)) -> Vec<u8> {
    let mut header = Header::decode(&frame);
    let head_bytes = header.head_bytes().min(frame.len());
    change(&mut header);
    header.encode(&mut frame);
    Header::seal(&mut frame[..head_bytes]);
    frame
}

/// A frame whose first row is another, sealed again.
fn with_outcome(mut frame: Vec<u8>, change: impl Fn(&mut Outcome)) -> Vec<u8> {
    let mut row = Outcome::decode(&frame[Header::BYTES..]);
    change(&mut row);
    row.encode(&mut frame[Header::BYTES..]);
    rewritten(frame, |_| {})
}

async fn gather(raw: &RawClient) -> Result<Bytes, Error> {
    let items = vec![GatherItem::new("k", 0, 100)];
    let call = raw.gather(&Target::Placement, items);
    let answers = tokio::time::timeout(Duration::from_secs(10), call).await.expect("no hang");
    answers.into_iter().next().unwrap().map(|answer| answer.bytes)
}

/// What a Gather ends with when answers are changed by `mangle`.
async fn found(mangle: impl Fn(Vec<u8>) -> Vec<u8> + Send + Sync + 'static) -> Misbehaviour {
    let (server, raw) = against(mangle).await;
    let found = match gather(&raw).await.unwrap_err() {
        Error::PeerMisbehaved { what, .. } => what,
        other => panic!("{other}"),
    };
    // The server behaves again: so does the client.
    server.behave(Behaviour::default());
    assert_eq!(gather(&raw).await.unwrap().len(), 100);
    found
}

#[tokio::test]
async fn answers_with_more_payload_than_asked_are_refused() {
    let what = found(|frame| {
        let mut frame = rewritten(frame, |header| header.payload_bytes = 101);
        frame.push(0);
        frame
    });
    assert_eq!(what.await, Misbehaviour::TooMuchPayload { limit: 100, found: 101 });
    let what = found(|frame| rewritten(frame, |header| header.payload_bytes = 4 << 20)).await;
    assert!(matches!(what, Misbehaviour::TooMuchPayload { .. }), "{what}");
}

#[tokio::test]
async fn rows_whose_bytes_do_not_add_up_are_refused() {
    for length in [99, 101, u64::MAX, 1 << 40] {
        let what = found(move |frame| with_outcome(frame, |row| row.length = length)).await;
        assert!(matches!(what, Misbehaviour::WrongShares { .. }), "{length}: {what}");
    }
}

#[tokio::test]
async fn lengths_beyond_the_limits_are_refused_before_anything_is_allocated() {
    let changes: [fn(&mut Header); 5] = [
        |header| header.payload_bytes = u64::MAX,
        |header| header.table_bytes = u32::MAX,
        |header| header.rows = u32::MAX,
        |header| header.row_bytes = u16::MAX,
        |header| header.header_bytes = 63,
    ];
    for change in changes {
        let what = found(move |frame| rewritten(frame, change)).await;
        assert!(matches!(what, Misbehaviour::Framing(_)), "{what}");
    }
}

#[tokio::test]
async fn damaged_answers_are_refused() {
    for at in [0, 1, 4, 17, 60, 70, 120] {
        let what = found(move |mut frame| {
            frame[at] ^= 0x40;
            frame
        });
        let what = what.await;
        assert!(matches!(what, Misbehaviour::Framing(_)), "{at}: {what}");
    }
}

#[tokio::test]
async fn answers_to_nothing_that_was_asked_are_refused() {
    let what = found(|frame| rewritten(frame, |header| header.request_id += 1_000)).await;
    assert!(matches!(what, Misbehaviour::UnknownRequest { .. }), "{what}");
    let what = found(|frame| rewritten(frame, |header| header.flags = FrameFlags::NONE)).await;
    assert_eq!(what, Misbehaviour::NotAnAnswer);
    let what = found(|frame| rewritten(frame, |header| header.opcode = Opcode::Stat as u8)).await;
    assert!(matches!(what, Misbehaviour::WrongOperation { .. }), "{what}");
    let what = found(|frame| rewritten(frame, |header| header.opcode = 200)).await;
    assert!(matches!(what, Misbehaviour::WrongOperation { found: 200, .. }), "{what}");
}

#[tokio::test]
async fn an_answer_given_twice_spoils_the_connection_only() {
    let (server, raw) = against(|frame| frame.repeat(2)).await;
    for _ in 0..3 {
        assert_eq!(gather(&raw).await.unwrap().len(), 100);
    }
    // What came unasked keeps a connection from being used again.
    assert_eq!(server.accepted(), 1 + 3);
}

#[tokio::test]
async fn answers_with_other_numbers_of_rows_are_refused() {
    let none = |header: &mut Header| (header.rows, header.payload_bytes) = (0, 0);
    let what = found(move |frame| rewritten(frame, none)).await;
    assert_eq!(what, Misbehaviour::WrongRows { wanted: 1, found: 0 });
    let refused = |header: &mut Header| header.status = Status::Busy as u8;
    let what = found(move |frame| rewritten(frame, refused)).await;
    assert_eq!(what, Misbehaviour::WrongRows { wanted: 0, found: 1 });
}

#[tokio::test]
async fn tables_that_do_not_add_up_are_refused() {
    let what = found(|frame| with_outcome(frame, |row| row.tag_bytes = 255)).await;
    assert!(matches!(what, Misbehaviour::Table(_)), "{what}");
    let what = found(|frame| rewritten(frame, |header| header.row_bytes = 8)).await;
    assert!(matches!(what, Misbehaviour::Table(_)), "{what}");
}

#[tokio::test]
async fn a_server_that_complains_about_our_frames_is_reported() {
    let what = found(|frame| {
        let mut header = Header::decode(&frame);
        header.flags = FrameFlags::ANSWER.with(FrameFlags::FRAMING_ERROR);
        header.status = Status::BadChecksum as u8;
        (header.rows, header.table_bytes, header.payload_bytes) = (0, 0, 0);
        let mut out = vec![0; Header::BYTES];
        header.encode(&mut out);
        Header::seal(&mut out);
        out.resize(frame.len(), 0);
        out
    });
    assert_eq!(what.await, Misbehaviour::Complaint(Status::BadChecksum));
}

#[tokio::test]
async fn bytes_that_never_end_end_the_conversation() {
    for byte in [0, b'P', 0xFF] {
        let what = found(move |frame| [frame, vec![byte; 1 << 20]].concat().split_off(164)).await;
        assert!(matches!(what, Misbehaviour::Framing(_)), "{what}");
    }
}

#[tokio::test]
async fn an_answer_that_stops_half_way_times_out() {
    // Nothing but the payload's begin, and the connection stays open.
    let server = FakeServer::start("a").await;
    let mut options = Options::new(format!("static:{}", server.entry()));
    options.patience = Duration::from_millis(300);
    let raw = Client::connect(options).await.unwrap().raw();
    raw.create(&Target::Placement, vec![CreateItem::new("k", "value")]).await;
    let promise = |number, frame: Vec<u8>| {
        if number < 2 {
            return Some(frame);
        }
        let mut frame = rewritten(frame, |header| header.payload_bytes = 100);
        frame = with_outcome(frame, |row| row.length = 100);
        Some(frame)
    };
    server.behave(Behaviour { mangle: Some(Arc::new(promise)), ..Behaviour::default() });
    let items = vec![GatherItem::new("k", 65_500, 100)];
    let error = raw.gather(&Target::Placement, items).await.remove(0).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
}

#[tokio::test]
async fn handshakes_that_make_no_sense_are_refused() {
    let cases: [fn(Vec<u8>) -> Vec<u8>; 9] = [
        |frame| vec![0; frame.len()],
        |frame| [b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), frame].concat(),
        |frame| [frame, vec![1]].concat(),
        |frame| rewritten(frame, |header| header.opcode = 1),
        |frame| rewritten(frame, |header| header.payload_bytes = 1),
        |frame| rewritten(frame, |header| header.version = 2),
        |frame| rewritten(frame, |header| header.flags = FrameFlags::NONE),
        |frame| rewritten(frame, |header| header.rows = 0),
        |mut frame| {
            frame[64] = 9; // the version agreed on
            rewritten(frame, |_| {})
        },
    ];
    for (number, case) in cases.into_iter().enumerate() {
        let mangle = move |_, frame| Some(case(frame));
        let behaviour = Behaviour { mangle: Some(Arc::new(mangle)), ..Behaviour::default() };
        let server = FakeServer::with("a", behaviour).await;
        let options = Options::new(format!("static:{}", server.entry()));
        let raw = Client::connect(options).await.unwrap().raw();
        let error = gather(&raw).await.unwrap_err();
        assert!(matches!(error, Error::PeerMisbehaved { .. }), "case {number}: {error}");
    }
}

#[tokio::test]
async fn listings_longer_than_asked_are_refused() {
    let (server, raw) = against(|frame| frame).await;
    server.behave(Behaviour::default());
    server.hang_up().await;
    // The answer to a request for all keys, whatever is asked.
    let all = raw.list("a", &ListQuery::default()).await.unwrap();
    assert_eq!((all.entries.len(), all.next), (2, None));
    let whole = std::sync::Mutex::new(None);
    let mangle = move |number, frame: Vec<u8>| {
        let mut whole = whole.lock().unwrap();
        let id = Header::decode(&frame).request_id;
        let once = if number == 0 { None } else { Some(whole.get_or_insert(frame.clone())) };
        Some(once.map_or(frame, |once| rewritten(once.clone(), |header| header.request_id = id)))
    };
    server.behave(Behaviour { mangle: Some(Arc::new(mangle)), ..Behaviour::default() });
    raw.list("a", &ListQuery::default()).await.unwrap();
    let mut query = ListQuery::default();
    query.rows_max = 1;
    let error = raw.list("a", &query).await.unwrap_err();
    assert!(matches!(error, Error::PeerMisbehaved { what: Misbehaviour::Listing, .. }), "{error}");
}

#[tokio::test]
async fn answers_about_other_keys_than_asked_are_refused() {
    let (server, raw) = against(|frame| frame).await;
    let stat = |key: &'static [u8]| raw.stat(&Target::Placement, vec![Bytes::from_static(key)]);
    assert_eq!(stat(b"k").await.remove(0).unwrap().key, "k");
    let other_key = |_, mut frame: Vec<u8>| {
        if Header::decode(&frame).opcode == Opcode::Stat as u8 {
            let head_bytes = Header::decode(&frame).head_bytes();
            *frame.last_mut().unwrap() = b'l';
            Header::seal(&mut frame[..head_bytes]);
        }
        Some(frame)
    };
    server.behave(Behaviour { mangle: Some(Arc::new(other_key)), ..Behaviour::default() });
    let error = stat(b"k").await.remove(0).unwrap_err();
    assert!(matches!(error, Error::PeerMisbehaved { what: Misbehaviour::OtherKey, .. }), "{error}");
}

#[tokio::test]
async fn clocks_at_the_ends_of_time_harm_nobody_else() {
    let mut entries = Vec::new();
    let mut servers = Vec::new();
    for name in ["a", "b", "c"] {
        let server = FakeServer::start(name).await;
        entries.push(server.entry());
        servers.push(server);
    }
    for clock in [0, i64::MAX as u64, 1 << 63, u64::MAX] {
        servers[2].behave(Behaviour { clock_unix_ms: Some(clock), ..Behaviour::default() });
        let options = Options::new(format!("static:{}", entries.join(",")));
        let raw = Client::connect(options).await.unwrap().raw();
        raw.info("a").await.unwrap();
        raw.info("b").await.unwrap();
        let error = raw.info("c").await.unwrap_err();
        assert!(matches!(error, Error::ClockOff { .. }), "{clock}: {error}");
        let items = vec![CreateItem::new(format!("{clock}"), "x")];
        let made = raw.create(&Target::server("a"), items).await.remove(0).unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let drawn = made.sent_version.unix_ms();
        assert!(drawn.abs_diff(now.as_millis() as u64) < 10_000, "{clock}: {drawn}");
    }
}

#[tokio::test]
async fn listings_that_go_round_in_circles_are_refused() {
    let (server, raw) = against(|frame| frame).await;
    server.behave(Behaviour::default());
    let mut query = ListQuery::prefix("");
    query.rows_max = 1;
    let page = raw.list("a", &query).await.unwrap();
    assert_eq!(page.next.as_deref(), Some(&b"k"[..]));
    // The same page again, though the cursor went on.
    let first = std::sync::Mutex::new(None);
    let mangle = move |number, frame: Vec<u8>| {
        let mut first = first.lock().unwrap();
        let once = first.get_or_insert(frame.clone()).clone();
        let id = Header::decode(&frame).request_id;
        Some(if number == 0 { frame } else { rewritten(once, |header| header.request_id = id) })
    };
    server.hang_up().await;
    server.behave(Behaviour::default());
    raw.list("a", &query).await.unwrap();
    server.behave(Behaviour { mangle: Some(Arc::new(mangle)), ..Behaviour::default() });
    raw.list("a", &query).await.unwrap();
    query.cursor = Bytes::from_static(b"k");
    let error = raw.list("a", &query).await.unwrap_err();
    assert!(matches!(error, Error::PeerMisbehaved { what: Misbehaviour::Listing, .. }), "{error}");
}

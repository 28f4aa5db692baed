use std::sync::Arc;

use rampuddle_protocol::limits::HELLO_FRAME_BYTES;
use rampuddle_protocol::{
    CreateRow, GatherRow, Outcome, ScatterRow, SessionId, StatRequestRow, Status, TableBuilder,
    Version,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::environment::Environment;
use crate::support::{Behaviour, Shared};

/// A connection through a pipe that holds few bytes.
async fn connect(behaviour: Behaviour, pipe_bytes: usize) -> (Connection, Arc<Shared>) {
    let shared = Arc::new(Shared::new("a", behaviour));
    let (near, far) = tokio::io::duplex(pipe_bytes);
    tokio::spawn(Arc::clone(&shared).serve(far));
    (open(near).await.unwrap(), shared)
}

async fn open(near: DuplexStream) -> Result<Connection, Error> {
    let environment = Environment::default();
    let introduction = Introduction {
        server: &"a".into(),
        cluster: &"default".into(),
        session: SessionId([1; 16]),
        token: None,
        environment: &environment,
        patience: Duration::from_secs(5),
        deadline: None,
        placing: None,
        activity: &Arc::default(),
        in_use: &Arc::default(),
    };
    let address = Arc::new(Address::Tcp("pipe".to_owned()));
    Connection::open(Stream::other(near), address, introduction).await
}

fn create(connection: &mut Connection, keys: &[&str], bytes: u64) -> u64 {
    let version = Version { time: 1, writer: 1 };
    let row = CreateRow { length: bytes, value_bytes: bytes, version, ..CreateRow::default() };
    let rows = keys.iter().map(|key| (row, key.as_bytes(), &b""[..]));
    connection.request(Opcode::Create, rows, 0)
}

async fn status(connection: &mut Connection) -> Status {
    let header = connection.receive_head().await.unwrap();
    assert_eq!(header.status, 0);
    let (row, ..) = connection.table::<Outcome>().unwrap().iter().next().unwrap();
    row.status()
}

#[tokio::test]
async fn payload_arrives_whole_whatever_the_pipe_holds() {
    let value: Vec<u8> = (0..100_000_u32).map(|index| (index / 7) as u8).collect();
    for pipe_bytes in [1, 63, 64, 65, 4_096, 1 << 20] {
        let (mut connection, _) = connect(Behaviour::default(), pipe_bytes).await;
        create(&mut connection, &["k"], value.len() as u64);
        connection.send(&[&value[..10], &[], &value[10..]]).await.unwrap();
        assert_eq!(status(&mut connection).await, Status::Ok);
        let row = GatherRow { length: value.len() as u64, ..GatherRow::default() };
        connection.request(Opcode::Gather, [(row, &b"k"[..], &b""[..])], row.length);
        connection.flush().await.unwrap();
        assert_eq!(status(&mut connection).await, Status::Ok);
        let (mut slice, mut seen) = (vec![0; 60_000], Vec::new());
        let piece = |bytes: &[u8]| seen.extend_from_slice(bytes);
        connection.receive_payload_into(&mut slice, piece).await.unwrap();
        assert!(slice == value[..60_000] && seen == slice, "{pipe_bytes}");
        let left = connection.payload_left();
        connection.skip_payload(left - 1).await.unwrap();
        let mut last = [0];
        connection.receive_payload_into(&mut last, |_| {}).await.unwrap();
        assert_eq!(last[0], value[value.len() - 1]);
        assert!(connection.is_reusable(), "{pipe_bytes}");
    }
}

#[tokio::test]
async fn a_create_cut_off_before_its_first_values_last_byte_surely_had_no_effect() {
    for (keys, cut, expected) in [
        (&["one"][..], 99_000, Fate::NotSent),
        (&["one", "two"][..], 50_000, Fate::NotSent),
        (&["one", "two"][..], 150_000, Fate::MaybeApplied),
    ] {
        let behaviour = Behaviour { dies_after_bytes: Some(cut), ..Behaviour::default() };
        let (mut connection, _) = connect(behaviour, 64).await;
        let id = create(&mut connection, keys, 100_000);
        let payload = vec![b'x'; 100_000 * keys.len()];
        let error = connection.send(&[payload]).await.unwrap_err();
        assert!(matches!(error, Error::Broken { .. }), "{error}");
        assert_eq!((error.fate(), connection.fate_of(id)), (expected, expected), "{keys:?} {cut}");
        assert!(!connection.is_reusable() && connection.failure() == Some(Failure::Lost));
    }
}

#[tokio::test]
async fn a_scatter_may_have_had_an_effect_from_its_first_byte_on() {
    let behaviour = Behaviour { dies_after_bytes: Some(100), ..Behaviour::default() };
    let (mut connection, _) = connect(behaviour, 64).await;
    let row = ScatterRow { value_bytes: 10_000, ..ScatterRow::default() };
    connection.request(Opcode::Scatter, [(row, &b"k"[..], &b""[..])], 0);
    let error = connection.send(&[vec![0; 10_000]]).await.unwrap_err();
    assert_eq!(error.fate(), Fate::MaybeApplied);
}

#[tokio::test]
async fn an_answer_cut_off_anywhere_leaves_doubt_about_writes_and_none_about_reads() {
    for cut in [0, 1, 63, 64, 65, 100, 127] {
        let shorter = move |number, mut answer: Vec<u8>| {
            answer.truncate(if number == 0 { usize::MAX } else { cut });
            Some(answer)
        };
        let behaviour = Behaviour { mangle: Some(Arc::new(shorter)), ..Behaviour::default() };
        let (mut connection, _) = connect(behaviour.clone(), 1 << 10).await;
        create(&mut connection, &["k"], 1);
        connection.send(&[b"x"]).await.unwrap();
        let error = connection.receive_head().await.unwrap_err();
        assert_eq!(error.fate(), Fate::MaybeApplied, "{cut}: {error}");

        let (mut connection, _) = connect(behaviour, 1 << 10).await;
        let row = GatherRow { length: 1, ..GatherRow::default() };
        connection.request(Opcode::Gather, [(row, &b"k"[..], &b""[..])], 1);
        connection.flush().await.unwrap();
        let error = connection.receive_head().await.unwrap_err();
        assert_eq!(error.fate(), Fate::NotSent, "{cut}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_ends_with_patience_and_deadlines_end_sooner() {
    let silent = Behaviour { is_silent: true, ..Behaviour::default() };
    let (mut connection, _) = connect(silent.clone(), 1 << 10).await;
    create(&mut connection, &["k"], 1);
    connection.send(&[b"x"]).await.unwrap();
    let start = Instant::now();
    let error = connection.receive_head().await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    assert_eq!((error.fate(), start.elapsed().as_secs()), (Fate::MaybeApplied, 5));

    let (mut connection, _) = connect(silent, 1 << 10).await;
    let deadline = Instant::now() + Duration::from_secs(1);
    connection.set_limits(Duration::from_secs(5), Some(deadline));
    create(&mut connection, &["k"], 1);
    connection.send(&[b"x"]).await.unwrap();
    let error = connection.receive_head().await.unwrap_err();
    assert!(matches!(error, Error::DeadlinePassed { .. }), "{error}");
    assert_eq!((Instant::now(), connection.failure()), (deadline, Some(Failure::Deadline)));
}

#[tokio::test]
async fn a_call_that_was_dropped_half_way_spoils_the_connection() {
    let silent = Behaviour { is_silent: true, ..Behaviour::default() };
    let (mut connection, _) = connect(silent, 1 << 10).await;
    create(&mut connection, &["k"], 1);
    connection.send(&[b"x"]).await.unwrap();
    assert!(futures_util::poll!(Box::pin(connection.receive_head())).is_pending());
    assert!(!connection.is_reusable() && connection.failure().is_none());
    assert!(connection.receive_head().await.is_err());
}

#[tokio::test]
async fn neither_side_ever_waits_for_the_other_to_read() {
    let (mut connection, _) = connect(Behaviour::default(), 1 << 10).await;
    let heavy = FrameSize { head_bytes: 100_000, answer_head_bytes: 147_000, ..Default::default() };
    let bulk = FrameSize {
        head_bytes: 200,
        answer_head_bytes: 208,
        payload_bytes: 4 << 20,
        ..Default::default()
    };
    let read = FrameSize { payload_bytes: 0, answer_payload_bytes: 4 << 20, ..bulk };
    for (size, expected) in [(heavy, 1), (bulk, 8), (read, 8)] {
        connection.outstanding.clear();
        let mut count = 0;
        while connection.has_room_for(&size) {
            count += 1;
            let (id, opcode, rows) = (count, Opcode::Create, 1);
            connection.outstanding.push(Outstanding::of_size(id, opcode, rows, size));
        }
        assert_eq!(count, expected, "{size:?}");
    }
}

/// A peer that sends these bytes, one every four seconds, for ever.
async fn trickle(bytes: Vec<u8>) -> DuplexStream {
    let (near, mut far) = tokio::io::duplex(1 << 10);
    tokio::spawn(async move {
        for byte in bytes.iter().cycle() {
            if far.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
    });
    near
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_trickles_in_is_given_up() {
    let start = Instant::now();
    let mut frame = Vec::new();
    ServerHello::default().frame(Status::Ok, "a", &mut frame);
    let error = open(trickle(frame).await).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    assert!(start.elapsed() <= Duration::from_secs(20), "{:?}", start.elapsed());
}

/// A server that sends the same answer to whatever was asked first, for ever.
async fn repeating(answer: impl FnOnce(&Header) -> Vec<u8>) -> Connection {
    let shared = Arc::new(Shared::new("a", Behaviour::default()));
    let (near, mut far) = tokio::io::duplex(1 << 10);
    let (hello_near, hello_far) = tokio::io::duplex(1 << 10);
    tokio::spawn(shared.serve(hello_far));
    // The handshake is an honest server's.
    let mut hello_near = hello_near;
    let mut hello = vec![0; HELLO_FRAME_BYTES];
    let near = async { open(near).await.unwrap() };
    let relayed = async {
        far.read_exact(&mut hello).await.unwrap();
        hello_near.write_all(&hello).await.unwrap();
        hello_near.read_exact(&mut hello).await.unwrap();
        far.write_all(&hello).await.unwrap();
    };
    let (mut connection, ()) = tokio::join!(near, relayed);
    connection.request::<StatRequestRow>(Opcode::Ping, [], 0);
    connection.flush().await.unwrap();
    let mut head = [0; Header::BYTES];
    far.read_exact(&mut head).await.unwrap();
    let answer = answer(&Header::parse(&head).unwrap());
    tokio::spawn(async move { while far.write_all(&answer).await.is_ok() {} });
    connection
}

#[tokio::test]
async fn answers_that_never_end_are_read_once_and_then_refused() {
    let ping = |header: &Header| {
        let mut out = Vec::new();
        TableBuilder::answer(&mut out, header, Status::Ok).finish(0);
        out
    };
    let mut connection = repeating(ping).await;
    connection.receive_head().await.unwrap();
    let error = connection.receive_head().await.unwrap_err();
    let what = Misbehaviour::UnknownRequest { request_id: 1 };
    assert!(matches!(&error, Error::PeerMisbehaved { what: found, .. } if *found == what));
    assert!(!connection.is_reusable() && connection.failure() == Some(Failure::Misbehaved));
    // Whatever it sent meanwhile lies in the kernel, or in buffers of fixed length.
    assert!(connection.inbox.len() == INBOX_BYTES && connection.head.capacity() <= INBOX_BYTES);
}

#[tokio::test]
async fn an_answer_with_a_table_that_nobody_asked_for_is_refused() {
    let full = |header: &Header| {
        let mut out = Vec::new();
        let mut table = TableBuilder::answer(&mut out, header, Status::Ok);
        (0..1_024).for_each(|_| table.push(&Outcome::default(), b"", &[7; 64]));
        table.finish(0);
        out
    };
    let mut connection = repeating(full).await;
    let error = connection.receive_head().await.unwrap_err();
    let what = Misbehaviour::WrongRows { wanted: 0, found: 1_024 };
    assert!(matches!(&error, Error::PeerMisbehaved { what: found, .. } if *found == what));
}

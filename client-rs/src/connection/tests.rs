use std::sync::Arc;

use rampuddle_protocol::{CreateRow, GatherRow, Outcome, ScatterRow, SessionId, Status, Version};
use tokio::io::DuplexStream;

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

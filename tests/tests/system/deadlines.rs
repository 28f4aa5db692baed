//! Deadlines and the progress rule, both ways, in real seconds: each of these
//! waits ten of them, so that all wait side by side.

use std::thread;
use std::time::{Duration, Instant};

use rampuddle_harness::{
    CANARY_BOUND, Canary, Door, Frame, Pattern, RawClient, RawConnection, ServerProcess, Transport,
    fresh_version, pace, until,
};
use rampuddle_protocol::limits::MIB;
use rampuddle_protocol::{CreateRow, GatherRow, Opcode, SessionId, Status};

use crate::{assert_status, over_both};

over_both! {
    whoever_does_not_move_is_closed_after_ten_seconds_and_whoever_does_is_not
}

const SOON: Duration = Duration::from_secs(10);
const LATE: Duration = Duration::from_secs(12);

fn whoever_does_not_move_is_closed_after_ten_seconds_and_whoever_does_is_not(transport: Transport) {
    let server = ServerProcess::with_pool_mib(64);
    let door = &server.door(transport);
    let mut watcher = RawClient::connect(door);
    let bytes = Pattern(1).bytes(0, 4 * MIB);
    assert_status!(watcher.create(b"key", 4 * MIB, &bytes), Ok);
    assert_status!(watcher.create(b"stalled", 4 * MIB, &bytes), Ok);
    let canary = Canary::start(door);
    let idle = &mut RawClient::connect(door);
    canary.assert_within(CANARY_BOUND, || {
        thread::scope(|scope| {
            scope.spawn(|| silence(door));
            scope.spawn(|| half_a_hello(door));
            scope.spawn(|| half_a_header(door));
            scope.spawn(|| half_a_large_table(door));
            scope.spawn(|| a_payload_of_a_byte_a_second(door));
            scope.spawn(|| a_refused_payload_that_stops(door));
            scope.spawn(|| a_slow_reader_that_reads_on(door, &bytes));
            scope.spawn(|| a_slow_writer_that_writes_on(door));
            scope.spawn(|| a_reader_that_stops(door, &mut watcher));
        });
    });
    idle.ping();
    let info = idle.info();
    assert!(info.stalled_connections >= 7, "{info:?}");
    assert_eq!(info.reserved_bytes, 0);
}

/// Waits for the server to close, which must be ten to twelve seconds after `since`.
#[track_caller]
fn closes_in_time(what: &str, connection: &mut RawConnection, since: Instant) -> Vec<u8> {
    let bytes = connection.receive_to_end(Duration::from_secs(20));
    let took = since.elapsed();
    assert!((SOON..=LATE).contains(&took), "{what}: closed after {took:?}");
    bytes
}

fn silence(door: &Door) {
    let since = Instant::now();
    let bytes = closes_in_time("silence", &mut door.connect(), since);
    assert!(bytes.is_empty());
}

fn half_a_hello(door: &Door) {
    let since = Instant::now();
    let mut connection = door.connect();
    // A byte now and then does not help: the deadline is absolute.
    for byte in b"PUDL\x01\x10" {
        connection.send(&[*byte]);
        pace(Duration::from_millis(900));
    }
    let bytes = closes_in_time("half a hello", &mut connection, since);
    assert!(bytes.is_empty());
}

fn half_a_header(door: &Door) {
    let mut client = RawClient::connect(door);
    client.ping();
    let since = Instant::now();
    let frame = Frame::bare(Opcode::Ping, 1).bytes;
    client.send(&frame[..20]);
    pace(Duration::from_secs(5));
    client.send(&frame[20..30]);
    closes_in_time("half a header", &mut client, since);
}

fn half_a_large_table(door: &Door) {
    let mut client = RawClient::connect(door);
    let row = GatherRow { length: 1, ..GatherRow::default() };
    let rows = vec![(row, &b"key"[..], &b""[..]); 1_000];
    let frame = Frame::new(Opcode::Gather, 1, &rows, b"");
    let since = Instant::now();
    client.send(&frame.bytes[..frame.bytes.len() / 2]);
    closes_in_time("half a table", &mut client, since);
}

fn create_frame(key: &[u8], length: u64, version_none: bool) -> Frame {
    let version = if version_none { Default::default() } else { fresh_version() };
    let row = CreateRow { length, value_bytes: length, version, ..CreateRow::default() };
    Frame::new(Opcode::Create, 1, &[(row, key, b"")], &Pattern(2).bytes(0, length))
}

fn a_payload_of_a_byte_a_second(door: &Door) {
    let mut client = RawClient::connect(door);
    let frame = create_frame(b"trickle", MIB, false);
    let since = Instant::now();
    client.send(&frame.bytes[..frame.head_bytes]);
    client.set_patience(Duration::from_secs(1));
    let mut at = frame.head_bytes;
    let closed = loop {
        // The pace is set by waiting for an answer that never comes.
        match client.receive_some(&mut [0; 64]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            end => break end,
        }
        let _ = client.try_send(&frame.bytes[at..=at]);
        at += 1;
    };
    let took = since.elapsed();
    assert!((SOON..=LATE + Duration::from_secs(1)).contains(&took), "{took:?}, {closed:?}");
    let mut other = RawClient::connect(door);
    assert_status!(other.stat(b"trickle"), NotFound);
}

fn a_refused_payload_that_stops(door: &Door) {
    let mut client = RawClient::connect(door);
    let frame = create_frame(b"refused", MIB, true);
    let since = Instant::now();
    client.send(&frame.bytes[..frame.head_bytes + 1_000]);
    let bytes = closes_in_time("a refused payload", &mut client, since);
    assert!(bytes.is_empty(), "the answer follows the payload");
}

fn a_slow_reader_that_reads_on(door: &Door, wanted: &[u8]) {
    let mut client = RawClient::connect(&door.clone().with_small_buffer());
    let row = GatherRow { length: 4 * MIB, ..GatherRow::default() };
    for _ in 0..2 {
        client.post(Opcode::Gather, &[(row, b"key", b"")], b"");
    }
    let began = Instant::now();
    let mut all = Vec::new();
    let (mut bytes, total) = (vec![0; 64 * 1024], 2 * (128 + 4 * MIB as usize));
    while all.len() < total {
        let count = client.receive_some(&mut bytes).expect("a reader that reads on is served");
        assert!(count > 0, "closed after {:?} and {} bytes", began.elapsed(), all.len());
        all.extend_from_slice(&bytes[..count]);
        // About 500 KB a second, whatever a read returns.
        pace(Duration::from_secs_f64(count as f64 / 500_000.0));
    }
    assert!(began.elapsed() > Duration::from_secs(13), "it was slow");
    let half = all.len() / 2;
    assert!(all[128..half] == *wanted && all[half + 128..] == *wanted);
    client.ping();
}

fn a_slow_writer_that_writes_on(door: &Door) {
    let mut client = RawClient::connect(door);
    let frame = create_frame(b"slow", MIB, false);
    let began = Instant::now();
    for piece in frame.bytes.chunks(20_000) {
        client.send(piece);
        pace(Duration::from_millis(250));
    }
    assert!(began.elapsed() > Duration::from_secs(12), "it was slow");
    assert_eq!(client.receive_answer().statuses(), [Status::Ok]);
    assert!(client.gather_all(b"slow").unwrap() == Pattern(2).bytes(0, MIB));
}

fn a_reader_that_stops(door: &Door, watcher: &mut RawClient) {
    let mut client = RawClient::connect(&door.clone().with_small_buffer());
    let row = GatherRow { length: 4 * MIB, ..GatherRow::default() };
    let before = watcher.info().gather_rows;
    let since = Instant::now();
    for _ in 0..8 {
        client.post(Opcode::Gather, &[(row, b"stalled", b"")], b"");
    }
    until("the reader to be known", Duration::from_secs(5), || {
        watcher.info().gather_rows >= before + 8
    });
    assert_status!(watcher.delete(b"stalled"), Ok);
    let session = SessionId([3; 16]);
    let mut keep = RawClient::join(door, session);
    let used = |client: &mut RawClient| client.info().used_bytes;
    let pinned = used(&mut keep);
    until("the pages of a reader that stopped", Duration::from_secs(20), || {
        pace(Duration::from_millis(5));
        // Others create values of a MiB and the canary's meanwhile.
        watcher.stat(b"slow");
        used(&mut keep) + 4 * MIB <= pinned + MIB
    });
    let took = since.elapsed();
    assert!((SOON..=LATE).contains(&took), "its pages came back after {took:?}");
    let rest = client.receive_to_end(Duration::from_secs(5));
    assert!((rest.len() as u64) < 32 * MIB, "it was closed in the middle");
}

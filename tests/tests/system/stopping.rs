//! SIGTERM: withdraw, finish for a bounded time, exit 0. SIGKILL: start again.

use std::thread;
use std::time::{Duration, Instant};

use rampuddle_harness::{
    Frame, Pattern, RawClient, ServeOptions, ServerProcess, Transport, pace, until,
};
use rampuddle_protocol::limits::MIB;
use rampuddle_protocol::{GatherRow, Opcode, Status};

use crate::{assert_status, over_both};

over_both! {
    a_server_at_rest_stops_at_once
    an_answer_under_way_is_finished_after_sigterm
    a_request_under_way_is_finished_after_sigterm
    a_second_signal_ends_a_server_that_waits_for_a_client
    a_client_that_keeps_asking_does_not_keep_a_server_from_stopping
    a_killed_server_starts_again_at_once_on_the_same_port
    a_paused_server_goes_on_where_it_was
}

const SECOND: Duration = Duration::from_secs(1);

fn a_server_at_rest_stops_at_once(transport: Transport) {
    let mut server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    client.ping();
    assert!(server.living_file().exists(), "{}", server.living_file().display());
    let began = Instant::now();
    server.ask_to_stop();
    assert!(client.receive_to_end(SECOND).is_empty());
    let status = server.wait(SECOND);
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(began.elapsed() < SECOND, "took {:?}", began.elapsed());
    assert!(!server.living_file().exists(), "the announcement is withdrawn");
    assert!(!server.folder().join("socket").exists(), "the socket is removed");
}

fn an_answer_under_way_is_finished_after_sigterm(transport: Transport) {
    let mut server = ServerProcess::with_pool_mib(8);
    let door = server.door(transport);
    let mut client = RawClient::connect(&door.clone().with_small_buffer());
    let bytes = Pattern(1).bytes(0, 4 * MIB);
    assert_status!(client.create(b"key", 4 * MIB, &bytes), Ok);
    let row = GatherRow { length: 4 * MIB, ..GatherRow::default() };
    let mut other = RawClient::connect(&door);
    for _ in 0..16 {
        client.post(Opcode::Gather, &[(row, b"key", b"")], b"");
    }
    until("all to be known", 5 * SECOND, || other.info().gather_rows == 16);
    let began = Instant::now();
    server.ask_to_stop();
    until("the announcement to be withdrawn", 2 * SECOND, || !server.living_file().exists());
    until("no new connections", 2 * SECOND, || {
        door.try_connect().is_err() || other.receive_some(&mut [0]).is_ok()
    });
    // 64 MiB, in about two seconds.
    for _ in 0..16 {
        let answer = client.receive_answer();
        assert!(answer.payload == bytes, "an answer under way is whole");
        pace(Duration::from_millis(100));
    }
    assert!(client.receive_to_end(SECOND).is_empty());
    let status = server.wait(11 * SECOND);
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(began.elapsed() < 11 * SECOND);
}

fn a_request_under_way_is_finished_after_sigterm(transport: Transport) {
    let mut server = ServerProcess::with_pool_mib(8);
    let mut other = server.client(transport);
    let (mut client, frame) = half_a_create(&server, transport);
    server.ask_to_stop();
    // The other one is at rest: closed.
    assert!(other.receive_to_end(2 * SECOND).is_empty());
    client.send(&frame.bytes[HALF_BYTES..]);
    assert_eq!(client.receive_answer().statuses(), [Status::Ok]);
    assert_eq!(server.wait(2 * SECOND).code(), Some(0));
}

fn a_second_signal_ends_a_server_that_waits_for_a_client(transport: Transport) {
    let mut server = ServerProcess::with_pool_mib(8);
    let (_client, _) = half_a_create(&server, transport);
    server.ask_to_stop();
    until("the announcement to be withdrawn", 2 * SECOND, || !server.living_file().exists());
    server.ask_to_stop();
    let status = server.wait(2 * SECOND);
    assert_eq!(status.code(), Some(3), "{status}");
}

/// Bytes of the first half of a Create.
const HALF_BYTES: usize = 500_000;

/// A client that has sent the first half of a Create, which has arrived.
fn half_a_create(server: &ServerProcess, transport: Transport) -> (RawClient, Frame) {
    let (mut client, mut other) = (server.client(transport), server.client(transport));
    let row = rampuddle_protocol::CreateRow {
        length: MIB,
        value_bytes: MIB,
        version: rampuddle_harness::fresh_version(),
        ..Default::default()
    };
    let payload = Pattern(1).bytes(0, MIB);
    let frame = Frame::new(Opcode::Create, 1, &[(row, b"k", b"")], &payload);
    client.send(&frame.bytes[..HALF_BYTES]);
    until("the first half", 5 * SECOND, || other.info().reserved_bytes == MIB);
    (client, frame)
}

fn a_client_that_keeps_asking_does_not_keep_a_server_from_stopping(transport: Transport) {
    let mut server = ServerProcess::with_pool_mib(8);
    let mut client = server.client(transport);
    assert_status!(client.create(b"key", 5, b"bytes"), Ok);
    let row = GatherRow { length: 5, ..GatherRow::default() };
    let began = Instant::now();
    server.ask_to_stop();
    // Never at rest: many more are always under way.
    let mut asked = 0;
    let mut ask = |client: &mut RawClient| {
        asked += 1;
        let frame = Frame::new(Opcode::Gather, asked, &[(row, b"key", b"")], b"");
        client.try_send(&frame.bytes).is_ok()
    };
    for _ in 0..64 {
        ask(&mut client);
    }
    while ask(&mut client) {
        let Ok(answer) = client.try_receive_answer() else { break };
        assert_eq!(answer.payload, b"bytes");
    }
    let status = server.wait(4 * SECOND);
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(began.elapsed() < 4 * SECOND, "took {:?}", began.elapsed());
}

#[test]
fn a_client_that_does_nothing_does_not_keep_a_server_from_stopping() {
    let wait = |transport: Transport| {
        let mut server = ServerProcess::with_pool_mib(8);
        let mut client = server.client(transport);
        assert_status!(client.create(b"key", 4 * MIB, b"x"), Ok);
        let row = GatherRow { length: 4 * MIB, ..GatherRow::default() };
        for _ in 0..8 {
            client.post(Opcode::Gather, &[(row, b"key", b"")], b"");
        }
        client.receive(64);
        let began = Instant::now();
        server.ask_to_stop();
        let status = server.wait(11 * SECOND);
        assert_eq!(status.code(), Some(0), "{status}");
        assert!(began.elapsed() > 5 * SECOND, "it was given time: {:?}", began.elapsed());
    };
    thread::scope(|scope| {
        for transport in Transport::BOTH {
            scope.spawn(move || wait(transport));
        }
    });
}

fn a_killed_server_starts_again_at_once_on_the_same_port(transport: Transport) {
    let mut server = ServerProcess::with_pool_mib(4);
    for round in 0..5 {
        let address = server.address();
        let mut client = server.client(transport);
        assert_status!(client.create(b"key", 5, b"bytes"), Ok);
        // Something is under way when it is killed.
        let row = GatherRow { length: MIB, ..GatherRow::default() };
        client.post(Opcode::Gather, &[(row, b"key", b"")], b"");
        server.kill();
        server = server.restart();
        assert_eq!(server.address(), address, "round {round}");
        assert_eq!(server.ready()["announced"], true);
        let mut again = server.client(transport);
        assert_ne!(again.server_hello().incarnation, client.server_hello().incarnation);
        assert_status!(again.stat(b"key"), NotFound);
    }
}

fn a_paused_server_goes_on_where_it_was(transport: Transport) {
    let server = ServerProcess::start(ServeOptions::with_pool_mib(4));
    let mut client = server.client(transport);
    assert_status!(client.create(b"key", 5, b"bytes"), Ok);
    server.pause();
    let row = GatherRow { length: 5, ..GatherRow::default() };
    client.post(Opcode::Gather, &[(row, b"key", b"")], b"");
    client.set_patience(Duration::from_millis(300));
    assert!(client.receive_some(&mut [0]).is_err(), "a stopped server answers nothing");
    server.resume();
    client.set_patience(5 * SECOND);
    assert_eq!(client.receive_answer().payload, b"bytes");
    client.ping();
}

//! Hello, tokens, roles.

use std::time::Duration;

use rampuddle_harness::{Door, RawClient, ServeOptions, ServerProcess, Transport, fresh_version};
use rampuddle_protocol::{
    ClientHello, CreateRow, DeleteRow, DropRow, GatherRow, HoldRow, Incarnation, ListRow, Nonce,
    Opcode, PublishRow, ReleaseRow, Role, Row, ScatterRow, SessionId, StatRequestRow, Status,
    TouchRow,
};

use crate::{assert_status, over_both};

over_both! {
    the_hello_says_who_the_server_is
    a_hello_to_another_cluster_or_server_is_a_mismatch
    a_hello_of_other_versions_is_unsupported
    a_hello_without_a_session_is_not_answered
    operations_before_the_hello_are_not_answered
    a_second_hello_is_out_of_order
    a_wrong_or_missing_token_is_denied
    a_role_allows_what_it_should_and_no_more
}

const PATIENCE: Duration = Duration::from_secs(5);
const SECRET: &[u8] = b"correct horse battery staple";
const TOKENS: &str = "# tokens of the test\n\
    admin:admin:correct horse battery staple\n\
    writer:write:correct horse battery staple\n\
    reader:read:000102030405060708090a0b0c0d0e0f\n";

fn hello(door: &Door, row: ClientHello, server: &str) -> Option<Status> {
    let mut connection = door.connect();
    let mut frame = Vec::new();
    row.frame(door.cluster(), server, &mut frame);
    connection.send(&frame);
    let bytes = connection.receive_or_end(256, PATIENCE)?;
    let header = rampuddle_protocol::Header::parse(&bytes).expect("a sound header");
    let status = Status::from_number(header.status).expect("a known status");
    if status != Status::Ok {
        assert!(connection.receive_to_end(PATIENCE).is_empty(), "closed after it");
    }
    Some(status)
}

fn good_hello() -> ClientHello {
    ClientHello {
        version_min: 1,
        version_max: 1,
        nonce: Nonce([1; 16]),
        session: SessionId([2; 16]),
        ..ClientHello::default()
    }
}

fn the_hello_says_who_the_server_is(transport: Transport) {
    let server = ServerProcess::with_pool_mib(1);
    let mut connection = server.door(transport).connect();
    connection.send_hello(SessionId([1; 16]));
    let (status, hello, name) = connection.receive_hello();
    assert_eq!((status, &name[..], hello.version), (Status::Ok, "alone", 1));
    assert_eq!(hello.incarnation.to_string(), server.ready()["incarnation"].as_str().unwrap());
    assert!(!hello.nonce.is_none() && !hello.store_id.is_none());
    assert_eq!((hello.proof_wanted, hello.rows_max), (0, 1_024));
    assert_eq!((hello.payload_bytes_max, hello.table_bytes_max), (4 << 20, 1 << 20));
    assert_eq!((hello.outstanding_requests_max, hello.outstanding_bytes_max), (128, 64 << 20));
    let now = fresh_version().unix_ms();
    assert!(hello.clock_unix_ms.abs_diff(now) < 10_000);
    let (_, other) = server.door(transport).connect().shake_hands(SessionId([1; 16]));
    assert_ne!(other.nonce, hello.nonce, "fresh for each connection");
    assert_ne!(hello.incarnation, Incarnation::NONE);
}

fn a_hello_to_another_cluster_or_server_is_a_mismatch(transport: Transport) {
    let server = ServerProcess::with_pool_mib(1);
    let door = server.door(transport);
    assert_eq!(hello(&door, good_hello(), "alone"), Some(Status::Ok));
    assert_eq!(hello(&door, good_hello(), "another"), Some(Status::Mismatch));
    for cluster in ["tes", "test2", "Test", ""] {
        let other = door.clone().of_cluster(cluster);
        assert_eq!(hello(&other, good_hello(), ""), Some(Status::Mismatch), "{cluster}");
    }
}

fn a_hello_of_other_versions_is_unsupported(transport: Transport) {
    let server = ServerProcess::with_pool_mib(1);
    let door = server.door(transport);
    for (version_min, version_max, wanted) in [
        (0, 0, Status::Unsupported),
        (2, 9, Status::Unsupported),
        (9, 2, Status::Unsupported),
        (1, 1, Status::Ok),
        (0, 255, Status::Ok),
        (1, 7, Status::Ok),
    ] {
        let row = ClientHello { version_min, version_max, ..good_hello() };
        assert_eq!(hello(&door, row, ""), Some(wanted), "{version_min} to {version_max}");
    }
}

fn a_hello_without_a_session_is_not_answered(transport: Transport) {
    let server = ServerProcess::with_pool_mib(1);
    let row = ClientHello { session: SessionId::NONE, ..good_hello() };
    assert_eq!(hello(&server.door(transport), row, ""), None);
}

fn operations_before_the_hello_are_not_answered(transport: Transport) {
    let server = ServerProcess::with_pool_mib(1);
    let door = server.door(transport);
    for opcode in Opcode::ALL.iter().filter(|opcode| **opcode != Opcode::Hello) {
        let mut connection = door.connect();
        let frame = rampuddle_harness::Frame::bare(*opcode, 1);
        connection.send(&frame.bytes);
        assert!(connection.receive_to_end(PATIENCE).is_empty(), "{opcode:?}");
    }
    let mut connection = door.connect();
    let row =
        CreateRow { length: 1, value_bytes: 1, version: fresh_version(), ..CreateRow::default() };
    let frame = rampuddle_harness::Frame::new(Opcode::Create, 1, &[(row, b"k", b"")], b"x");
    let _ = connection.try_send(&frame.bytes);
    assert!(connection.receive_to_end(PATIENCE).is_empty());
    assert_status!(server.client(transport).stat(b"k"), NotFound);
}

fn a_second_hello_is_out_of_order(transport: Transport) {
    let server = ServerProcess::with_pool_mib(1);
    let mut client = server.client(transport);
    client.send_hello(SessionId([1; 16]));
    let answer = client.receive_answer();
    assert!(answer.is_framing_error() && answer.status() == Status::OutOfOrder);
    assert!(client.receive_to_end(PATIENCE).is_empty());
}

fn server_with_tokens() -> ServerProcess {
    let tokens = Some(TOKENS.to_owned());
    ServerProcess::start(ServeOptions { tokens, ..ServeOptions::with_pool_mib(4) })
}

fn a_wrong_or_missing_token_is_denied(transport: Transport) {
    let server = server_with_tokens();
    let door = server.door(transport);
    let session = SessionId([1; 16]);
    let wrong = [
        ("admin", &b"correct horse battery stapl"[..], Role::Read),
        ("admin", b"", Role::Admin),
        ("admin", &[7; 10_000], Role::Admin),
        ("nobody", SECRET, Role::Read),
        ("", SECRET, Role::Read),
        // More than the token gives.
        ("writer", SECRET, Role::Admin),
        ("reader", &std::array::from_fn::<u8, 16, _>(|byte| byte as u8), Role::Write),
    ];
    for (key_id, secret, role) in wrong {
        let mut connection = door.connect();
        assert_eq!(connection.prove(session, key_id, secret, role), Status::Denied, "{key_id}");
        assert!(connection.receive_to_end(PATIENCE).is_empty(), "closed after it");
    }
    // No proof at all: an operation instead of it.
    let mut connection = door.connect();
    let (status, hello) = connection.shake_hands(session);
    assert_eq!((status, hello.proof_wanted), (Status::Ok, 1));
    connection.send(&rampuddle_harness::Frame::bare(Opcode::Info, 1).bytes);
    assert!(connection.receive_to_end(PATIENCE).is_empty());
    // A second hello instead of it.
    let mut connection = door.connect();
    connection.shake_hands(session);
    connection.send_hello(session);
    assert!(connection.receive_to_end(PATIENCE).is_empty());
    // The right ones work, also for less than the token gives.
    for role in [Role::Read, Role::Write, Role::Admin] {
        RawClient::connect_with_token(&door, "admin", SECRET, role).ping();
    }
}

/// The status of a whole request with one row.
fn status_of<R: Row>(client: &mut RawClient, opcode: Opcode, row: R, key: &[u8]) -> Status {
    client.ask(opcode, &[(row, key, b"")], b"").status()
}

fn a_role_allows_what_it_should_and_no_more(transport: Transport) {
    let server = server_with_tokens();
    let door = server.door(transport);
    let mut writer = RawClient::connect_with_token(&door, "writer", SECRET, Role::Write);
    assert_status!(writer.create(b"key", 5, b"bytes"), Ok);
    assert_status!(writer.scatter(b"key", 0, b"B"), Ok);
    let secret: [u8; 16] = std::array::from_fn(|byte| byte as u8);
    let mut reader = RawClient::connect_with_token(&door, "reader", &secret, Role::Read);
    let denied = [
        status_of(&mut reader, Opcode::Create, CreateRow::default(), b"key"),
        status_of(&mut reader, Opcode::Scatter, ScatterRow::default(), b"key"),
        status_of(&mut reader, Opcode::Delete, DeleteRow::default(), b"key"),
        status_of(&mut reader, Opcode::Publish, PublishRow::default(), b""),
        status_of(&mut reader, Opcode::Drop, DropRow::default(), b"key"),
        status_of(&mut reader, Opcode::Touch, TouchRow::default(), b""),
    ];
    assert_eq!(denied, [Status::Denied; 6]);
    // A payload that is refused is read and thrown away.
    let row = CreateRow { version: fresh_version(), ..CreateRow::default() };
    let row = CreateRow { length: 100_000, value_bytes: 100_000, ..row };
    let answer = reader.ask(Opcode::Create, &[(row, b"mine", b"")], &vec![7; 100_000]);
    assert_eq!((answer.status(), answer.header.rows), (Status::Denied, 0));
    let allowed = [
        status_of(&mut reader, Opcode::Gather, GatherRow::default(), b"key"),
        status_of(&mut reader, Opcode::Stat, StatRequestRow::default(), b"key"),
        status_of(&mut reader, Opcode::List, ListRow::default(), b"k"),
        status_of(&mut reader, Opcode::Hold, HoldRow::default(), b""),
        status_of(&mut reader, Opcode::Release, ReleaseRow::default(), b""),
    ];
    assert_eq!(allowed, [Status::Ok; 5]);
    reader.ping();
    assert_eq!(reader.info().values, 1);
    assert_eq!(&reader.gather(b"key", 0, 5).1, b"Bytes");
    // A token that could do more, asked for less, does less.
    let mut modest = RawClient::connect_with_token(&door, "admin", SECRET, Role::Read);
    assert_eq!(
        status_of(&mut modest, Opcode::Delete, DeleteRow::default(), b"key"),
        Status::Denied
    );
}

//! What comes before the hello is done: nothing is answered but a hello, and one
//! that does not suit is told so and closed.

use rampuddle_harness::{Frame, Seeded};
use rampuddle_protocol::{ClientHello, Header, Nonce, Opcode, Proof, SessionId, Status};

use super::{Case, Wanted};

const CLOSED: Wanted = Wanted::Closed { is_counted: true };
/// Who goes away in the middle has broken nothing.
const LEFT: Wanted = Wanted::Closed { is_counted: false };

/// A hello to this cluster that suits.
fn hello(cluster: &str) -> Frame {
    let row = ClientHello {
        version_min: 1,
        version_max: 1,
        nonce: Nonce([1; 16]),
        session: SessionId([2; 16]),
        ..ClientHello::default()
    };
    let mut bytes = Vec::new();
    row.frame(cluster, "", &mut bytes);
    let head_bytes = bytes.len();
    Frame { bytes, head_bytes }
}

pub(super) fn cases(cluster: &str) -> Vec<Case> {
    let mut cases = other_protocols();
    cases.extend(headers(&hello(cluster)));
    cases.extend(rows(&hello(cluster)));
    cases.extend(order(&hello(cluster)));
    cases
}

/// The first words of others who may find the port; HTTP, TLS, SSH, RESP and
/// memcached are in `hostile.rs`.
fn other_protocols() -> Vec<Case> {
    let mut random = Seeded::from_environment("other protocols");
    let words: [(&str, &[u8]); 22] = [
        ("HTTP 2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04\0\0\0\0\0"),
        ("a proxy's first line", b"PROXY TCP4 10.0.0.1 10.0.0.2 56324 443\r\n"),
        ("a proxy's first bytes", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"),
        ("a web socket", b"GET /chat HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"),
        ("PostgreSQL", b"\0\0\0\x08\x04\xd2\x16\x2f"),
        ("MySQL", b"\x20\0\0\x01\x85\xa6\xff\x01\0\0\0\x01\x21"),
        ("MongoDB", b"\x3f\0\0\0\x01\0\0\0\0\0\0\0\xd4\x07\0\0"),
        ("Kafka", b"\0\0\0\x1e\0\x12\0\0\0\0\0\x01\0\x08console"),
        ("ZooKeeper", b"ruok"),
        ("AMQP", b"AMQP\0\0\x09\x01"),
        ("MQTT", b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0"),
        ("LDAP", b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\0\x80\0"),
        ("SMB", b"\0\0\0\x45\xffSMB\x72\0\0\0\0"),
        ("RDP", b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\x03\0\0\0"),
        ("VNC", b"RFB 003.008\n"),
        ("FTP", b"USER anonymous\r\n"),
        ("SMTP", b"EHLO mail.example.org\r\n"),
        ("IRC", b"NICK x\r\nUSER x 0 * :x\r\n"),
        ("SIP", b"OPTIONS sip:nm SIP/2.0\r\nVia: SIP/2.0/TCP nm;branch=foo\r\n"),
        ("X11", b"l\0\x0b\0\0\0\0\0\0\0\0\0"),
        ("a script", b"#!/bin/sh\nrm -rf /\n"),
        ("the magic number in small letters", b"pudl\x01\x01\x40\0"),
    ];
    // Each is followed by more bytes, as a talker would who waits for no answer.
    let more = random.bytes(300);
    words.map(|(name, bytes)| Case::new(name, [bytes, &more].concat(), CLOSED)).into()
}

fn headers(good: &Frame) -> Vec<Case> {
    let with = |name, change: fn(&mut Header)| {
        Case::new(name, good.clone().with_header(change).bytes, CLOSED)
    };
    let mut damaged = good.clone();
    damaged.bytes[100] ^= 1;
    vec![
        with("a hello of protocol 0", |header| header.version = 0),
        with("a hello of protocol 255", |header| header.version = 255),
        with("a hello with a header of 63 bytes", |header| header.header_bytes = 63),
        with("a hello with a header of 65 bytes", |header| header.header_bytes = 65),
        with("a hello with a header of 65,535 bytes", |header| header.header_bytes = u16::MAX),
        with("a hello without a table", |header| header.table_bytes = 0),
        with("a hello with a table of 4 GiB", |header| header.table_bytes = u32::MAX),
        with("a hello with a payload", |header| header.payload_bytes = 1),
        with("a hello with a payload of 2^64 - 1", |header| header.payload_bytes = u64::MAX),
        with("a hello with no row", |header| header.rows = 0),
        with("a hello with two rows", |header| header.rows = 2),
        with("a hello with 2^32 - 1 rows", |header| header.rows = u32::MAX),
        with("a hello with rows of a byte", |header| header.row_bytes = 1),
        with("a hello with rows longer than the frame", |header| header.row_bytes = 200),
        with("a hello that says that it is an answer", |header| header.flags.0 = 1),
        with("a hello with every flag", |header| header.flags.0 = u16::MAX),
        Case::new("a hello with a damaged byte", damaged.bytes, CLOSED),
    ]
}

fn rows(good: &Frame) -> Vec<Case> {
    const ROW: usize = Header::BYTES;
    let with = |name, at: usize, size, number, wanted| {
        let mut frame = good.clone();
        frame.overwrite(ROW + at, size, number);
        Case::new(name, frame.bytes, wanted)
    };
    let mut strange = good.clone();
    let end = strange.bytes.len();
    strange.bytes[end - 8..].copy_from_slice(b"\x1b[2J\xff\0\n!");
    strange.overwrite(end - 1, 1, u64::from(b'!'));
    vec![
        with("a cluster's name of no bytes", 2, 2, 0, Wanted::Hello(Status::Mismatch)),
        with("a cluster's name of 65,535 bytes", 2, 2, 65_535, CLOSED),
        with("a cluster's name longer than the frame by one", 2, 2, 145, CLOSED),
        with("a server's name of 65,535 bytes", 4, 2, 65_535, CLOSED),
        with("names whose lengths wrap in 16 bits", 4, 2, 65_536 - 4, CLOSED),
        with("a server's name that is zeros", 4, 2, 60, Wanted::Hello(Status::Mismatch)),
        with("half a session", 24, 8, 0, Wanted::Hello(Status::Ok)),
        with("versions the wrong way round", 0, 2, 0x0109, Wanted::Hello(Status::Unsupported)),
        with("settings of nobody", 40, 8, u64::MAX, Wanted::Hello(Status::Mismatch)),
        Case::new("bytes behind the names", strange.bytes, Wanted::Hello(Status::Ok)),
    ]
}

fn order(good: &Frame) -> Vec<Case> {
    let mut proof = Vec::new();
    Proof::default().frame(&mut proof);
    let ping = Frame::bare(Opcode::Ping, 1).bytes;
    let bytes = good.bytes.clone();
    let unknown = Frame::of_header(Header::new(200, 1)).bytes;
    vec![
        Case::new("a proof instead of a hello", proof, CLOSED),
        Case::new("an operation that nobody has instead of a hello", unknown, CLOSED),
        Case::new("a request before the hello", [ping, bytes.clone()].concat(), CLOSED),
        Case::ended("nothing, and the end", b"".to_vec(), LEFT),
        Case::ended("a byte of a hello, and the end", &bytes[..1], LEFT),
        Case::ended("a header, and the end", &bytes[..64], LEFT),
        Case::ended("a hello less its last byte, and the end", &bytes[..255], LEFT),
    ]
}

//! The bytes on the wire are pinned: every frame in `testdata/` is decoded,
//! compared with what is written here, encoded again and compared byte by byte.
//!
//! A run never writes. After a change that is meant to change the bytes (there
//! should be none in version 1), `RECORD=1 cargo test -p rampuddle-protocol
//! --test dumps` writes the files anew; then read the diff.

use std::fmt::{Debug, Write as _};
use std::fs;
use std::sync::OnceLock;

use rampuddle_protocol::{
    CancelRow, ClientHello, CreateRow, DeleteRow, DropRow, FrameFlags, GatherRow, Header, HoldRow,
    Incarnation, InfoRow, Layout, ListRow, MapRow, MappedRow, Nonce, Opcode, Outcome,
    PlacementSettings, Proof, ProofAnswer, ProofInput, PublishRow, ReleaseRow, Role, Row, RowFlags,
    ScatterRow, ServerHello, SessionId, SetId, SharedRow, StatRequestRow, StatRow, Status, StoreId,
    Table, TableBuilder, TouchRow, UnmapRow, Version, crc32c, limits, prove,
};

mod support;

/// A frame as written in this test, and how to compare a recording with it.
struct Case {
    name: &'static str,
    /// What the frame says, for the head of its file.
    about: &'static str,
    frame: Vec<u8>,
    layout: Layout,
    decode: Compare,
}

/// Compares a recording with a frame of this test.
type Compare = Box<dyn Fn(&[u8])>;

/// One row of a frame: fixed part, key and tag.
type Item<R> = (R, &'static [u8], &'static [u8]);

/// What a frame holds beside its rows.
#[derive(Clone, Copy)]
struct Envelope {
    header: Header,
    payload: &'static [u8],
    /// Length of header and table at least; what is over the rows is zeros.
    head_bytes: usize,
}

impl Envelope {
    fn request(opcode: Opcode, request_id: u64) -> Self {
        Self { header: Header::new(opcode as u8, request_id), payload: b"", head_bytes: 0 }
    }

    fn answer(opcode: Opcode, request_id: u64) -> Self {
        let mut envelope = Self::request(opcode, request_id);
        envelope.header.flags = FrameFlags::ANSWER;
        envelope
    }

    fn handshake(self) -> Self {
        Self { head_bytes: limits::HELLO_FRAME_BYTES, ..self }
    }

    fn refused(mut self, status: Status) -> Self {
        self.header.status = status as u8;
        self
    }

    fn payload(self, payload: &'static [u8]) -> Self {
        Self { payload, ..self }
    }
}

/// The bytes of a frame, made by the crate.
fn encode<R: Row>(envelope: &Envelope, rows: &[(R, &[u8], &[u8])], payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    // The builder counts the rows from what the header says.
    let header = Header { rows: 0, row_bytes: 0, ..envelope.header };
    let mut table = TableBuilder::with_header(&mut frame, header);
    for (row, key, tag) in rows {
        table.push(row, key, tag);
    }
    table.finish_padded(payload.len() as u64, envelope.head_bytes);
    frame.extend_from_slice(payload);
    frame
}

/// Header, table and payload of a frame, checked.
fn split(frame: &[u8]) -> (Header, &[u8], &[u8]) {
    let header = Header::parse(frame).expect("a recorded header is sound");
    header.check(frame).expect("a recorded checksum is right");
    let payload = &frame[header.head_bytes()..];
    assert_eq!(payload.len() as u64, header.payload_bytes);
    (header, header.table(frame), payload)
}

/// The rows of a table; in the handshake zeros may follow them.
fn decode_rows<'a, R: Row>(
    header: &Header,
    table: &'a [u8],
    is_handshake: bool,
) -> Vec<(R, &'a [u8], &'a [u8])> {
    if !is_handshake {
        return Table::parse(header, table).expect("a recorded table adds up").iter().collect();
    }
    let fixed = usize::from(header.row_bytes);
    let (key_bytes, tag_bytes) = R::decode(table).variable_bytes();
    let end = fixed + key_bytes + tag_bytes;
    assert!(header.rows == 1 && table[end..].iter().all(|byte| *byte == 0));
    let exact = Header { table_bytes: end as u32, ..*header };
    Table::parse(&exact, &table[..end]).expect("a recorded hello adds up").iter().collect()
}

fn case<R: Row + PartialEq + Debug + 'static>(
    name: &'static str,
    about: &'static str,
    layout: Layout,
    envelope: Envelope,
    rows: Vec<Item<R>>,
) -> Case {
    let frame = encode(&envelope, &rows, envelope.payload);
    let decode = move |recorded: &[u8]| {
        let (header, table, payload) = split(recorded);
        let found = decode_rows::<R>(&header, table, envelope.head_bytes > 0);
        let wanted: Vec<_> = rows
            .iter()
            .map(|(row, key, tag)| {
                let mut row = *row;
                row.set_variable_bytes(key.len(), tag.len());
                (row, *key, *tag)
            })
            .collect();
        assert_eq!(found, wanted, "{name}: rows");
        assert_eq!(payload, envelope.payload, "{name}: payload");
        let stated = Header {
            rows: rows.len() as u32,
            row_bytes: if rows.is_empty() { 0 } else { R::BYTES as u16 },
            table_bytes: table.len() as u32,
            payload_bytes: payload.len() as u64,
            crc32c: crc32c(&[&recorded[..60], table].concat()),
            ..envelope.header
        };
        assert_eq!(header, stated, "{name}: header");
        let again = encode(&Envelope { header, ..envelope }, &found, payload);
        assert_eq!(again, recorded, "{name}: encoded again");
    };
    Case { name, about, frame, layout, decode: Box::new(decode) }
}

macro_rules! frame {
    ($name:literal, $about:literal, $row:ident, $envelope:expr, [$($item:expr),* $(,)?]) => {
        case::<$row>($name, $about, $row::LAYOUT, $envelope, vec![$( $item ),*])
    };
}

const CLIENT_NONCE: Nonce = Nonce(*b"client nonce 01.");
const SERVER_NONCE: Nonce = Nonce(*b"server nonce 02.");
const SESSION: SessionId = SessionId(*b"session 0123456.");
const INCARNATION: Incarnation = Incarnation(*b"incarnation 012.");
const STORE: StoreId = StoreId(*b"store id 012345.");
const SETTINGS: PlacementSettings<'_> =
    PlacementSettings { cluster: "lab", strategy: "rendezvous", replicas_max: 3, slots: 65_536 };
const UPLOAD: SetId = SetId(*b"upload id 01234.");
/// 2026-01-01 00:00:00 UTC.
const NOW_MS: u64 = 1_767_225_600_000;
const WRITER: u64 = 0x1122_3344_5566_7788;
const VERSION: Version = Version { time: (NOW_MS << 16) + 3, writer: WRITER };
const EARLIER: Version = Version { time: (NOW_MS - 60_000) << 16, writer: WRITER };
const HANDLE: u64 = 0x0000_0007_0000_0001;

fn handshake() -> Vec<Case> {
    let request = |opcode| Envelope::request(opcode, 0).handshake();
    let answer = |opcode| Envelope::answer(opcode, 0).handshake();
    let hello = ClientHello {
        version_min: 1,
        version_max: 1,
        nonce: CLIENT_NONCE,
        session: SESSION,
        settings: SETTINGS.fingerprint(),
        ..ClientHello::default()
    };
    let server_hello = ServerHello {
        version: 1,
        proof_wanted: 1,
        rows_max: limits::ROWS_MAX,
        nonce: SERVER_NONCE,
        store_id: STORE,
        incarnation: INCARNATION,
        clock_unix_ms: NOW_MS,
        mark_age_ms: u64::MAX,
        table_bytes_max: limits::TABLE_BYTES_MAX,
        payload_bytes_max: limits::PAYLOAD_BYTES_MAX as u32,
        outstanding_requests_max: limits::OUTSTANDING_REQUESTS_MAX,
        outstanding_bytes_max: limits::OUTSTANDING_BYTES_MAX as u32,
        settings: SETTINGS.fingerprint(),
        ..ServerHello::default()
    };
    vec![
        frame!(
            "hello_client",
            "client hello: cluster \"lab\", server \"alpha\"",
            ClientHello,
            request(Opcode::Hello),
            [(hello, b"lab", b"alpha")]
        ),
        frame!(
            "hello_server",
            "server hello of \"alpha\", which wants a proof",
            ServerHello,
            answer(Opcode::Hello),
            [(server_hello, b"alpha", b"")]
        ),
        frame!(
            "hello_server_refused",
            "server hello, MISMATCH: another cluster or server",
            ServerHello,
            answer(Opcode::Hello).refused(Status::Mismatch),
            [(ServerHello { proof_wanted: 0, settings: 0, ..server_hello }, b"alpha", b"")]
        ),
        frame!(
            "proof",
            "proof of the secret \"secret\" with key id \"reader-1\", role write",
            Proof,
            request(Opcode::Proof),
            [(
                Proof {
                    key_id: *b"reader-1\0\0\0\0\0\0\0\0",
                    role: Role::Write as u8,
                    mac: mac(true),
                    ..Proof::default()
                },
                b"",
                b""
            )]
        ),
        frame!(
            "proof_answer",
            "the server's proof to it",
            ProofAnswer,
            answer(Opcode::Proof),
            [(
                ProofAnswer { role: Role::Write as u8, mac: mac(false), ..ProofAnswer::default() },
                b"",
                b""
            )]
        ),
    ]
}

fn mac(from_client: bool) -> [u8; 32] {
    let input = ProofInput {
        client_nonce: CLIENT_NONCE,
        server_nonce: SERVER_NONCE,
        session: SESSION,
        incarnation: INCARNATION,
        role: Role::Write,
        cluster: "lab",
    };
    prove(b"secret", &input, from_client)
}

fn create() -> Vec<Case> {
    let plain = CreateRow {
        replicas: 2,
        flags: RowFlags::SEALED | RowFlags::CHECKSUM,
        length: 65_536,
        value_bytes: 5,
        version: VERSION,
        set: UPLOAD,
        lease_ms: limits::UPLOAD_LEASE_MS,
        crc32c: crc32c(b"hello"),
        slot: 57_379,
        ..CreateRow::default()
    };
    let replacing = CreateRow {
        replicas: 255,
        flags: RowFlags::KEEP | RowFlags::REPLACE,
        length: 131_072,
        value_bytes: 11,
        version: VERSION,
        if_version: EARLIER,
        slot: 20_494,
        placement_bytes: 8,
        tenant: 42,
        ..CreateRow::default()
    };
    let mut with_deadline = Envelope::request(Opcode::Create, 1).payload(b"hellohello again");
    with_deadline.header.deadline_ms = 5_000;
    let displaced = Outcome {
        flags: RowFlags::DISPLACED | RowFlags::KEEP,
        length: 131_072,
        version: EARLIER,
        set: UPLOAD,
        ..Outcome::default()
    };
    vec![
        frame!(
            "create",
            "create of two values with tags; 5 and 11 bytes of payload; deadline 5 s",
            CreateRow,
            with_deadline,
            [
                (plain, b"weights/layer-00", b"tag one"),
                (replacing, b"weights/layer-01", b"another tag"),
            ]
        ),
        frame!(
            "create_answer",
            "its answer: OK; OK, and a value with a tag was displaced",
            Outcome,
            Envelope::answer(Opcode::Create, 1),
            [
                (Outcome { length: 65_536, ..Outcome::default() }, b"", b""),
                (displaced, b"", b"old tag"),
            ]
        ),
        frame!(
            "create_reserve",
            "create of 64 MiB with RESERVE",
            CreateRow,
            Envelope::request(Opcode::Create, 2),
            [(
                CreateRow {
                    flags: RowFlags::SEALED | RowFlags::RESERVE,
                    length: 64 * limits::MIB,
                    value_bytes: 0,
                    crc32c: 0,
                    ..plain
                },
                b"\xf9upload id 01234.\0\0\0\0\0\0\0\x01",
                b""
            )]
        ),
        frame!(
            "create_reserve_answer",
            "its answer: the handle",
            Outcome,
            Envelope::answer(Opcode::Create, 2),
            [(
                Outcome { length: 64 * limits::MIB, detail: HANDLE, ..Outcome::default() },
                b"",
                b""
            )]
        ),
    ]
}

fn scatter_and_publish() -> Vec<Case> {
    let publish = PublishRow {
        flags: RowFlags::CHECKSUM,
        crc32c: crc32c(b"stripe bytes"),
        handle: HANDLE,
        length: 65_536,
        value_bytes: 12,
    };
    vec![
        frame!(
            "scatter_by_key",
            "scatter of 3 bytes at 4,096, if the version is held",
            ScatterRow,
            Envelope::request(Opcode::Scatter, 3).payload(b"abc"),
            [(
                ScatterRow {
                    offset: 4_096,
                    value_bytes: 3,
                    if_version: VERSION,
                    ..ScatterRow::default()
                },
                b"counters",
                b""
            )]
        ),
        frame!(
            "scatter_by_handle",
            "scatter of 12 bytes at the start of a reservation",
            ScatterRow,
            Envelope::request(Opcode::Scatter, 4).payload(b"stripe bytes"),
            [(ScatterRow { handle: HANDLE, value_bytes: 12, ..ScatterRow::default() }, b"", b"")]
        ),
        frame!(
            "scatter_by_handle_answer",
            "answer to a scatter past the watermark: BAD_RANGE, the watermark is 12",
            Outcome,
            Envelope::answer(Opcode::Scatter, 4),
            [(Outcome { detail: 12, ..Outcome::of(Status::BadRange) }, b"", b"")]
        ),
        frame!(
            "publish",
            "publish of a reservation: 64 KiB, 12 of them given",
            PublishRow,
            Envelope::request(Opcode::Publish, 5),
            [(publish, b"", b"")]
        ),
        frame!(
            "publish_answer",
            "answer to a publish: INCOMPLETE, the watermark is 7",
            Outcome,
            Envelope::answer(Opcode::Publish, 5),
            [(Outcome { detail: 7, ..Outcome::of(Status::Incomplete) }, b"", b"")]
        ),
    ]
}

fn gather() -> Vec<Case> {
    vec![
        frame!(
            "gather",
            "gather with FILLED, TAG and a set; and a range of another key",
            GatherRow,
            Envelope::request(Opcode::Gather, 6),
            [
                (
                    GatherRow {
                        flags: RowFlags::FILLED | RowFlags::TAG,
                        length: limits::MIB,
                        set: UPLOAD,
                        ..GatherRow::default()
                    },
                    b"\xf8model.safetensors",
                    b""
                ),
                (
                    GatherRow {
                        offset: 4_096,
                        length: 3,
                        if_version: EARLIER,
                        ..GatherRow::default()
                    },
                    b"counters",
                    b""
                ),
            ]
        ),
        frame!(
            "gather_answer",
            "its answer: 5 bytes with tag from a superseded value; MISMATCH",
            Outcome,
            Envelope::answer(Opcode::Gather, 6).payload(b"hello"),
            [
                (
                    Outcome {
                        flags: RowFlags::HELD | RowFlags::SEALED | RowFlags::CHECKSUM,
                        length: 5,
                        detail: 65_536,
                        version: VERSION,
                        crc32c: crc32c(b"hello"),
                        set: UPLOAD,
                        ..Outcome::default()
                    },
                    b"",
                    b"tag one"
                ),
                (Outcome { version: VERSION, ..Outcome::of(Status::Mismatch) }, b"", b""),
            ]
        ),
    ]
}

fn removal() -> Vec<Case> {
    vec![
        frame!(
            "delete",
            "delete of one key",
            DeleteRow,
            Envelope::request(Opcode::Delete, 7),
            [(
                DeleteRow {
                    placement_bytes: 8,
                    version: VERSION,
                    if_version: EARLIER,
                    slot: 20_494,
                    tenant: 42,
                    ..DeleteRow::default()
                },
                b"weights/layer-01",
                b""
            )]
        ),
        frame!(
            "delete_answer",
            "answer to a delete where nothing was but an earlier tombstone",
            Outcome,
            Envelope::answer(Opcode::Delete, 7),
            [(Outcome { version: EARLIER, ..Outcome::of(Status::NotFound) }, b"", b"")]
        ),
        frame!(
            "drop",
            "drop of an exact version",
            DropRow,
            Envelope::request(Opcode::Drop, 8),
            [(DropRow { version: VERSION, ..DropRow::default() }, b"weights/layer-00", b"")]
        ),
    ]
}

fn sets() -> Vec<Case> {
    vec![
        frame!(
            "hold",
            "hold of a set",
            HoldRow,
            Envelope::request(Opcode::Hold, 9),
            [(HoldRow { set: UPLOAD, ..HoldRow::default() }, b"", b"")]
        ),
        frame!(
            "release",
            "release of a set",
            ReleaseRow,
            Envelope::request(Opcode::Release, 10),
            [(ReleaseRow { set: UPLOAD, ..ReleaseRow::default() }, b"", b"")]
        ),
        frame!(
            "touch",
            "touch of a set: 24 h from now",
            TouchRow,
            Envelope::request(Opcode::Touch, 11),
            [(
                TouchRow { set: UPLOAD, lease_ms: limits::HEAD_LEASE_MS, ..TouchRow::default() },
                b"",
                b""
            )]
        ),
        frame!(
            "touch_exact",
            "touch of a set: 90 s from now, no more",
            TouchRow,
            Envelope::request(Opcode::Touch, 12),
            [(
                TouchRow {
                    set: UPLOAD,
                    flags: RowFlags::EXACT,
                    lease_ms: 90_000,
                    ..TouchRow::default()
                },
                b"",
                b""
            )]
        ),
        frame!(
            "touch_answer",
            "its answer: three values",
            Outcome,
            Envelope::answer(Opcode::Touch, 11),
            [(Outcome { detail: 3, ..Outcome::default() }, b"", b"")]
        ),
    ]
}

fn value_row() -> StatRow {
    StatRow {
        flags: RowFlags::SEALED | RowFlags::CHECKSUM,
        length: 65_536,
        filled: 5,
        version: VERSION,
        crc32c: crc32c(b"hello"),
        slot: 57_379,
        set: UPLOAD,
        lease_ms: 899_000,
        tenant: 42,
        runs: 1,
        replicas: 2,
        ..StatRow::default()
    }
}

fn stat_and_list() -> Vec<Case> {
    let tombstone = StatRow {
        flags: RowFlags::TOMBSTONE,
        version: EARLIER,
        slot: 20_494,
        placement_bytes: 8,
        ..StatRow::default()
    };
    let not_found = StatRow { status: Status::NotFound as u8, ..StatRow::default() };
    let more = StatRow { status: Status::Incomplete as u8, ..StatRow::default() };
    vec![
        frame!(
            "stat",
            "stat of two keys",
            StatRequestRow,
            Envelope::request(Opcode::Stat, 12),
            [
                (StatRequestRow::default(), b"weights/layer-00", b""),
                (StatRequestRow::default(), b"nothing", b""),
            ]
        ),
        frame!(
            "stat_answer",
            "its answer: a value with a tag; NOT_FOUND",
            StatRow,
            Envelope::answer(Opcode::Stat, 12),
            [(value_row(), b"weights/layer-00", b"tag one"), (not_found, b"nothing", b"")]
        ),
        frame!(
            "list",
            "list of a prefix after a cursor, tombstones too, at most 2 rows",
            ListRow,
            Envelope::request(Opcode::List, 13),
            [(
                ListRow { flags: RowFlags::TOMBSTONE, rows_max: 2, ..ListRow::default() },
                b"weights/",
                b"weights/a"
            )]
        ),
        frame!(
            "list_answer",
            "its answer: a value, a tombstone, and the cursor for what follows",
            StatRow,
            Envelope::answer(Opcode::List, 13),
            [
                (value_row(), b"weights/layer-00", b"tag one"),
                (tombstone, b"weights/layer-01", b""),
                (more, b"weights/layer-01", b""),
            ]
        ),
    ]
}

fn same_host() -> Vec<Case> {
    let (mapping, hold) = (0x0123_4567_89ab_0003, 7);
    let head = MappedRow {
        flags: RowFlags::SEALED | RowFlags::CHECKSUM,
        length: 65_536,
        filled: 80,
        version: VERSION,
        set: UPLOAD,
        offset: 3 * limits::PAGE_BYTES,
        bytes: 80,
        ..MappedRow::default()
    };
    let stripe = MappedRow {
        length: 3 * limits::PAGE_BYTES,
        filled: 131_077,
        offset: 4 * limits::PAGE_BYTES,
        bytes: 65_536,
        ..head
    };
    let rest = MappedRow { offset: 9 * limits::PAGE_BYTES, bytes: 65_541, ..stripe };
    let more = MappedRow { detail: 0x0000_0004_0001_0000, ..MappedRow::of(Status::Incomplete) };
    vec![
        frame!("share", "share", SharedRow, Envelope::request(Opcode::Share, 20), []),
        frame!(
            "share_answer",
            "its answer: a pool of 1 GiB; a descriptor comes with its first byte",
            SharedRow,
            Envelope::answer(Opcode::Share, 20),
            [(SharedRow { mapping, pool_bytes: limits::GIB }, b"", b"")]
        ),
        frame!(
            "map",
            "map of a value and its set",
            MapRow,
            Envelope::request(Opcode::Map, 21),
            [(
                MapRow { flags: RowFlags::SET, mapping, hold, ..MapRow::default() },
                b"\xf8model",
                b""
            )]
        ),
        frame!(
            "map_answer",
            "its answer: a value of one run with a tag, one of two, and the cursor for what follows",
            MappedRow,
            Envelope::answer(Opcode::Map, 21),
            [
                (head, b"\xf8model", b"tag one"),
                (stripe, b"\xf9upload id 01234.\0\0\0\0\0\0\0\0", b""),
                (rest, b"", b""),
                (more, b"", b""),
            ]
        ),
        frame!(
            "map_set",
            "map of all values of a set",
            MapRow,
            Envelope::request(Opcode::Map, 22),
            [(MapRow { mapping, hold: 8, set: UPLOAD, ..MapRow::default() }, b"", b"")]
        ),
        frame!(
            "unmap",
            "unmap of two holds",
            UnmapRow,
            Envelope::request(Opcode::Unmap, 23),
            [(UnmapRow { mapping, hold }, b"", b""), (UnmapRow { mapping, hold: 8 }, b"", b""),]
        ),
    ]
}

fn server() -> Vec<Case> {
    let info = InfoRow {
        mappings: 1_026,
        mapped_pages: 1_027,
        incarnation: INCARNATION,
        store_id: STORE,
        clock_unix_ms: NOW_MS,
        uptime_ms: 1_001,
        pool_bytes: limits::GIB,
        used_bytes: 1_002,
        reserved_bytes: 1_003,
        superseded_bytes: 1_004,
        values: 1_005,
        tombstones: 1_006,
        entries_max: 1_007,
        connections: 1_008,
        sessions: 1_009,
        holds: 1_010,
        reservations: 1_011,
        create_rows: 1_012,
        scatter_rows: 1_013,
        gather_rows: 1_014,
        delete_rows: 1_015,
        received_bytes: 1_016,
        sent_bytes: 1_017,
        no_space_rows: 1_018,
        leases_ended: 1_019,
        holds_broken: 1_020,
        tombstones_discarded: 1_021,
        framing_errors: 1_022,
        stalled_connections: 1_023,
        refused_connections: 1_024,
        turn_us_max: 1_025,
        ..InfoRow::default()
    };
    vec![
        frame!("info", "info", InfoRow, Envelope::request(Opcode::Info, 14), []),
        frame!(
            "info_answer",
            "its answer, of \"alpha\"",
            InfoRow,
            Envelope::answer(Opcode::Info, 14),
            [(info, b"alpha", b"")]
        ),
        // Ping has no rows, so any row will do.
        frame!("ping", "ping", CancelRow, Envelope::request(Opcode::Ping, 15), []),
        frame!("ping_answer", "its answer", CancelRow, Envelope::answer(Opcode::Ping, 15), []),
    ]
}

fn endings() -> Vec<Case> {
    let mut broken = Envelope::answer(Opcode::Gather, 18).refused(Status::BadChecksum);
    broken.header.flags |= FrameFlags::FRAMING_ERROR;
    vec![
        frame!(
            "cancel",
            "cancel of request 6",
            CancelRow,
            Envelope::request(Opcode::Cancel, 16),
            [(CancelRow { request_id: 6 }, b"", b"")]
        ),
        frame!(
            "cancelled_answer",
            "answer to the request that was cancelled",
            Outcome,
            Envelope::answer(Opcode::Gather, 6).refused(Status::Cancelled),
            []
        ),
        frame!(
            "refused_answer",
            "answer to a frame that was refused whole: DENIED",
            Outcome,
            Envelope::answer(Opcode::Create, 17).refused(Status::Denied),
            []
        ),
        frame!(
            "framing_error",
            "error frame, the last of a connection: BAD_CHECKSUM",
            Outcome,
            broken,
            []
        ),
    ]
}

const NEWER_ROW_BYTES: usize = GatherRow::BYTES + 8;
const NEWER_HEADER_BYTES: usize = Header::BYTES + 16;

fn newer_rows() -> [Item<GatherRow>; 2] {
    [
        (GatherRow { key_bytes: 1, length: 10, ..GatherRow::default() }, b"a", b""),
        (GatherRow { key_bytes: 2, offset: 5, length: 20, ..GatherRow::default() }, b"bc", b""),
    ]
}

/// A gather with a header of 80 bytes, rows of 64 and a priority. No builder
/// makes such a frame, so it is put together here and decoded only.
fn newer_peer() -> Case {
    let rows = newer_rows();
    let variable: Vec<u8> = rows.iter().flat_map(|(_, key, _)| *key).copied().collect();
    let header = Header {
        header_bytes: NEWER_HEADER_BYTES as u16,
        priority: 3,
        row_bytes: NEWER_ROW_BYTES as u16,
        rows: rows.len() as u32,
        table_bytes: (rows.len() * NEWER_ROW_BYTES + variable.len()) as u32,
        ..Header::new(Opcode::Gather as u8, 19)
    };
    let mut frame = vec![0xEE; header.head_bytes()];
    header.encode(&mut frame);
    for (index, (row, ..)) in rows.iter().enumerate() {
        row.encode(&mut frame[NEWER_HEADER_BYTES + index * NEWER_ROW_BYTES..]);
    }
    let end = frame.len() - variable.len();
    frame[end..].copy_from_slice(&variable);
    Header::seal(&mut frame);
    let wanted = frame.clone();
    let decode = move |recorded: &[u8]| {
        assert_eq!(recorded, wanted);
        let (found, table, payload) = split(recorded);
        assert_eq!(Header { crc32c: 0, ..found }, header);
        assert_eq!(decode_rows::<GatherRow>(&found, table, false), newer_rows());
        assert!(payload.is_empty());
    };
    Case {
        name: "newer_peer",
        about: "a newer peer's gather: 16 bytes more of header, 8 more of each row",
        frame,
        layout: GatherRow::LAYOUT,
        decode: Box::new(decode),
    }
}

fn cases() -> Vec<Case> {
    let groups = [
        handshake(),
        create(),
        scatter_and_publish(),
        gather(),
        removal(),
        sets(),
        stat_and_list(),
        server(),
        same_host(),
        endings(),
    ];
    groups.into_iter().flatten().chain([newer_peer()]).collect()
}

/// Writes a frame as the text of its file, field by field.
fn annotated(case: &Case) -> String {
    let header = Header::decode(&case.frame);
    let mut text = format!("# {}: {}\n", case.name, case.about);
    let mut rest = &case.frame[..];
    let mut part = |title: String, layout: Layout, length: usize| {
        let (bytes, tail) = rest.split_at(length);
        rest = tail;
        if length > 0 {
            write!(text, "\n# {title}\n").expect("a string takes all");
            write_fields(&mut text, layout, bytes);
        }
    };
    part("header".to_string(), Header::LAYOUT, usize::from(header.header_bytes));
    for index in 0..header.rows {
        part(format!("row {index}"), case.layout, usize::from(header.row_bytes));
    }
    let fixed = header.rows as usize * usize::from(header.row_bytes);
    part("keys and tags".to_string(), &[], header.table_bytes as usize - fixed);
    part("payload".to_string(), &[], header.payload_bytes as usize);
    text
}

fn write_fields(text: &mut String, layout: Layout, bytes: &[u8]) {
    let mut end = 0;
    for (name, offset, length) in layout {
        end = offset + length;
        write_lines(text, name, *offset, &bytes[*offset..end]);
    }
    let name = if layout.is_empty() { "" } else { "of a newer version" };
    write_lines(text, name, end, &bytes[end..]);
}

fn write_lines(text: &mut String, name: &str, offset: usize, bytes: &[u8]) {
    for (index, line) in bytes.chunks(16).enumerate() {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let comment = match (name, index) {
            ("", _) => line.escape_ascii().to_string(),
            (name, 0) => name.to_string(),
            _ => "...".to_string(),
        };
        writeln!(text, "{:48}# {:3} {comment}", hex.join(" "), offset + index * 16)
            .expect("a string takes all");
    }
}

/// The recorded frames, written anew before the first test reads them if that
/// is asked for.
fn recorded() -> &'static [(String, Vec<u8>)] {
    static RECORDED: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    RECORDED.get_or_init(|| {
        if std::env::var_os("RECORD").is_some_and(|value| value == "1") {
            for case in cases() {
                let path = support::testdata().join(format!("{}.hex", case.name));
                fs::write(path, annotated(&case)).expect("testdata can be written");
            }
        }
        support::recorded()
    })
}

#[test]
fn every_recorded_frame_is_read_and_written_byte_for_byte() {
    let cases = cases();
    let recorded = recorded();
    let mut names: Vec<&str> = cases.iter().map(|case| case.name).collect();
    names.sort_unstable();
    let files: Vec<&str> = recorded.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(files, names, "each file has its frame in this test, and each frame its file");
    for case in &cases {
        let (_, bytes) = recorded.iter().find(|(name, _)| name == case.name).expect("just seen");
        (case.decode)(bytes);
        assert_eq!(*bytes, case.frame, "{}", case.name);
    }
    println!("{} recorded frames", recorded.len());
    assert_eq!(recorded.len(), 43);
}

#[test]
fn the_frames_of_the_handshake_have_their_length_and_are_read_by_their_own_parsers() {
    let cases = handshake();
    let frame = |name| &cases.iter().find(|case| case.name == name).expect("a frame").frame[..];
    assert!(cases.iter().all(|case| case.frame.len() == limits::HELLO_FRAME_BYTES));
    let (header, table, _) = split(frame("hello_client"));
    let (hello, cluster, server) = ClientHello::parse(&header, table).unwrap();
    assert_eq!((cluster, server), (&b"lab"[..], &b"alpha"[..]));
    assert_eq!((hello.nonce, hello.session), (CLIENT_NONCE, SESSION));
    let (header, table, _) = split(frame("hello_server"));
    let (hello, name) = ServerHello::parse(&header, table).unwrap();
    assert_eq!((hello.proof_wanted, name), (1, &b"alpha"[..]));
    let (header, table, _) = split(frame("proof"));
    assert_eq!(Proof::parse(&header, table).unwrap().mac, mac(true));
    let (header, table, _) = split(frame("proof_answer"));
    assert_eq!(ProofAnswer::parse(&header, table).unwrap().mac, mac(false));
}

#[test]
fn the_handshake_frames_that_the_crate_makes_are_the_recorded_ones() {
    let recorded = recorded();
    let bytes = |name| &recorded.iter().find(|it| it.0 == name).expect("a recording").1;
    let made = |name, frame: &dyn Fn(&[u8], &mut Vec<u8>)| {
        let mut out = Vec::new();
        frame(split(bytes(name)).1, &mut out);
        assert_eq!(out, *bytes(name), "{name}");
    };
    made("hello_client", &|table, out| ClientHello::decode(table).frame("lab", "alpha", out));
    made("hello_server", &|table, out| {
        ServerHello::decode(table).frame(Status::Ok, "alpha", out);
    });
    made("hello_server_refused", &|table, out| {
        ServerHello::decode(table).frame(Status::Mismatch, "alpha", out);
    });
    made("proof", &|table, out| Proof::decode(table).frame(out));
    made("proof_answer", &|table, out| ProofAnswer::decode(table).frame(Status::Ok, out));
}

#[test]
fn every_operation_has_a_recorded_request() {
    let recorded = recorded();
    for opcode in Opcode::ALL {
        let of_opcode = recorded.iter().map(|(_, bytes)| split(bytes).0);
        let requests = of_opcode.filter(|header| header.operation() == Some(*opcode));
        let requests = requests.filter(|header| !header.flags.has(FrameFlags::ANSWER)).count();
        assert!(requests > 0, "no recorded request of {opcode:?}");
    }
}

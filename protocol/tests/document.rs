//! `docs/protocol.md` says what the code does: every layout, opcode, status,
//! flag, limit and test vector of that document is compared with the crate.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rampuddle_protocol::{
    CancelRow, ClientHello, CreateRow, DeleteRow, DropRow, FrameFlags, GatherRow, Header, HoldRow,
    Incarnation, InfoRow, Layout, ListRow, MapRow, MappedRow, Nonce, Opcode, Outcome,
    PlacementSettings, Proof, ProofAnswer, ProofInput, PublishRow, ReleaseRow, Role, RowFlags,
    ScatterRow, ServerHello, SessionId, SharedRow, StatRequestRow, StatRow, Status, TouchRow,
    UnmapRow, crc32c, limits, prove, verify,
};
use sha2::{Digest, Sha512};

/// Name, length and fields of each struct that lies on the wire.
macro_rules! layouts {
    ($($name:ident),* $(,)?) => {
        &[$( (stringify!($name), $name::BYTES, $name::LAYOUT) ),*]
    };
}

const LAYOUTS: &[(&str, usize, Layout)] = layouts![
    Header,
    ClientHello,
    ServerHello,
    Proof,
    ProofAnswer,
    CreateRow,
    ScatterRow,
    GatherRow,
    DeleteRow,
    PublishRow,
    CancelRow,
    DropRow,
    HoldRow,
    ReleaseRow,
    TouchRow,
    StatRequestRow,
    ListRow,
    MapRow,
    UnmapRow,
    Outcome,
    StatRow,
    InfoRow,
    MappedRow,
    SharedRow,
];

macro_rules! numbers {
    ($($name:ident),* $(,)?) => {
        &[$( (stringify!($name), limits::$name as u64) ),*]
    };
}

const SIZES: &[(&str, u64)] = numbers![
    KIB,
    MIB,
    GIB,
    PAGE_BYTES,
    VALUE_BYTES_MIN,
    VALUE_BYTES_MAX,
    KEY_BYTES_MAX,
    NAME_BYTES_MAX,
    TAG_BYTES_MAX,
    ROWS_MAX,
    STAT_ROWS_MAX,
    TABLE_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    TRAILER_BYTES_MAX,
    FRAME_PAYLOAD_BYTES_MAX,
    OUTSTANDING_REQUESTS_MAX,
    OUTSTANDING_BYTES_MAX,
    HEADER_BYTES_MAX,
    ROW_BYTES_MAX,
    HELLO_FRAME_BYTES,
    SERVER_NAME_BYTES_MAX,
];

const TIMES: &[(&str, u64)] = numbers![
    TABLE_DEADLINE_MS,
    PROGRESS_WINDOW_MS,
    PROGRESS_BYTES,
    IDLE_CONNECTION_MS,
    SESSION_LINGER_MS,
    UPLOAD_LEASE_MS,
    HEAD_LEASE_MS,
    TOMBSTONE_LIFE_MS,
    CLOCK_BOUND_MS,
    LEASE_MS_MAX,
];

/// A row of a table of the document, without the marks of code.
type Cells = Vec<String>;

/// The tables of the document by the heading above them, each with its heading row.
struct Document {
    tables: BTreeMap<String, Vec<Vec<Cells>>>,
}

impl Document {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
        Self::parse(&fs::read_to_string(path).expect("the document stands in docs/"))
    }

    fn parse(text: &str) -> Self {
        let mut tables = BTreeMap::<String, Vec<Vec<Cells>>>::new();
        let (mut heading, mut in_table) = (String::new(), false);
        for line in text.lines() {
            if line.starts_with('#') {
                heading = line.trim_start_matches('#').trim().replace('`', "");
            }
            let is_row = line.starts_with('|');
            let of_heading = tables.entry(heading.clone()).or_default();
            if is_row && !in_table {
                of_heading.push(Vec::new());
            }
            if let Some(table) = of_heading.last_mut().filter(|_| is_row) {
                table.push(cells(line));
            }
            in_table = is_row;
        }
        Self { tables }
    }

    /// The one table whose first columns are `columns` below this heading,
    /// without its heading and its rule.
    fn table(&self, heading: &str, columns: &[&str]) -> &[Cells] {
        self.find(heading, columns).unwrap_or_else(|problem| panic!("{problem}: {heading:?}"))
    }

    fn find(&self, heading: &str, columns: &[&str]) -> Result<&[Cells], &'static str> {
        let tables = self.tables.get(heading).ok_or("no such heading")?;
        let mut fitting = tables.iter().filter(|table| table[0].starts_with(&owned(columns)));
        let table = fitting.next().ok_or("no table with these columns")?;
        match table.as_slice() {
            _ if fitting.next().is_some() => Err("two tables with these columns"),
            [head, rows @ ..] if rows.iter().any(|row| row.len() != head.len()) => Err("ragged"),
            [_, rule, rows @ ..] if !rows.is_empty() && rule.iter().all(|cell| cell == "---") => {
                Ok(rows)
            }
            _ => Err("a table without a rule or without rows"),
        }
    }
}

fn cells(line: &str) -> Cells {
    let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
    inner.split('|').map(|cell| cell.trim().replace('`', "")).collect()
}

fn owned(strings: &[&str]) -> Cells {
    strings.iter().map(ToString::to_string).collect()
}

fn number(text: &str) -> u64 {
    text.replace(',', "").parse().unwrap_or_else(|_| panic!("{text:?} is not a number"))
}

fn hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "half a byte in {text:?}");
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// The first `count` cells of each row.
fn columns(rows: &[Cells], count: usize) -> Vec<Cells> {
    rows.iter().map(|row| row[..count].to_vec()).collect()
}

fn source(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
    fs::read_to_string(path).expect("the crate's own source is there")
}

#[test]
fn every_layout_stands_in_the_document_field_by_field() {
    let document = Document::read();
    let mut fields = 0;
    for (name, bytes, layout) in LAYOUTS {
        let heading = format!("{name}, {bytes} bytes");
        let rows = document.table(&heading, &["offset", "size", "field", "meaning"]);
        let stated = columns(rows, 3);
        let wanted: Vec<Cells> = layout
            .iter()
            .map(|(field, offset, size)| {
                vec![offset.to_string(), size.to_string(), (*field).into()]
            })
            .collect();
        assert_eq!(stated, wanted, "{heading}");
        assert!(rows.iter().all(|row| !row[3].is_empty()), "a field without a meaning: {heading}");
        fields += rows.len();
    }
    assert_eq!((LAYOUTS.len(), fields), (24, 191));
}

#[test]
fn the_document_has_no_layout_that_the_code_has_not() {
    let document = Document::read();
    let with_length = |heading: &&String| heading.ends_with(" bytes");
    assert_eq!(document.tables.keys().filter(with_length).count(), LAYOUTS.len());
}

#[test]
fn no_layout_of_the_source_is_left_out_of_this_test() {
    let laid_out: usize = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .expect("the crate's own source is there")
        .map(|entry| entry.expect("the folder can be read").file_name())
        .map(|file| source(file.to_str().expect("the names of sources are text")))
        .map(|text| text.matches("\nwire_layout! {").count())
        .sum();
    assert_eq!(laid_out, LAYOUTS.len());
}

#[test]
fn every_opcode_stands_in_the_document() {
    let document = Document::read();
    let head = ["number", "operation", "request row", "answer row", "payload", "least role"];
    let rows = document.table("Opcodes", &head);
    let wanted: Vec<Cells> = Opcode::ALL
        .iter()
        .map(|opcode| vec![(*opcode as u8).to_string(), format!("{opcode:?}")])
        .collect();
    assert_eq!(columns(rows, 2), wanted);
    assert_eq!(rows.len(), 19);
    for (row, opcode) in rows.iter().zip(Opcode::ALL) {
        assert_eq!(row[4] == "in the request", opcode.request_has_payload(), "{row:?}");
        assert_eq!(row[5] == "write", !Role::Read.allows(*opcode), "{row:?}");
        assert!(Role::Write.allows(*opcode) && Role::Admin.allows(*opcode), "{row:?}");
    }
}

#[test]
fn every_reserved_number_stands_in_the_document_and_has_no_operation() {
    let document = Document::read();
    let rows = document.table("Reserved opcodes", &["number", "reserved for"]);
    let wanted: Vec<Cells> =
        Opcode::RESERVED.iter().map(|(number, name)| owned(&[&number.to_string(), name])).collect();
    assert_eq!(columns(rows, 2), wanted);
    assert_eq!(rows.len(), 8);
    assert!(Opcode::RESERVED.iter().all(|(number, _)| Opcode::from_number(*number).is_none()));
}

#[test]
fn every_status_stands_in_the_document() {
    let document = Document::read();
    let rows = document.table("Statuses", &["number", "status", "meaning"]);
    let wanted: Vec<Cells> = Status::ALL
        .iter()
        .map(|status| owned(&[&(*status as u8).to_string(), status.name()]))
        .collect();
    assert_eq!(columns(rows, 2), wanted);
    assert_eq!(rows.len(), 27);
    let known = (0..=u8::MAX).filter(|number| Status::from_number(*number).is_some());
    assert_eq!(known.count(), rows.len());
}

#[test]
fn every_flag_stands_in_the_document() {
    let document = Document::read();
    let head = ["bit", "flag", "meaning"];
    let frame = document.table("Flags of a frame", &head);
    let wanted: Vec<Cells> = (0..u16::BITS)
        .filter(|bit| FrameFlags::KNOWN.has(FrameFlags(1 << bit)))
        .map(|bit| owned(&[&bit.to_string(), &flag_name(&FrameFlags(1 << bit))]))
        .collect();
    assert_eq!(columns(frame, 2), wanted);
    let row = document.table("Flags of a row", &head);
    let wanted: Vec<Cells> = (0..u32::BITS)
        .filter(|bit| RowFlags::KNOWN.has(RowFlags(1 << bit)))
        .map(|bit| owned(&[&bit.to_string(), &flag_name(&RowFlags(1 << bit))]))
        .collect();
    assert_eq!(columns(row, 2), wanted);
    assert_eq!((frame.len(), row.len()), (2, 14));
}

#[test]
fn the_flags_allowed_in_each_row_are_those_of_the_document() {
    let document = Document::read();
    let rows = document.table("Flags of a row", &["flags allowed in", "flags"]);
    let allowed = [
        ("CreateRow", RowFlags::CREATE),
        ("PublishRow", RowFlags::PUBLISH),
        ("GatherRow", RowFlags::GATHER),
        ("ListRow", RowFlags::LIST),
        ("TouchRow", RowFlags::TOUCH),
        ("MapRow", RowFlags::MAP),
    ];
    let mut wanted: Vec<Cells> =
        allowed.iter().map(|(row, flags)| owned(&[row, &flag_name(flags)])).collect();
    wanted.push(owned(&["every other request row", "none"]));
    assert_eq!(columns(rows, 2), wanted);
}

/// The names of flags, as their `Debug` writes them.
fn flag_name(flags: &impl std::fmt::Debug) -> String {
    format!("{flags:?}").trim_matches(['{', '}']).to_string()
}

#[test]
fn every_limit_stands_in_the_document() {
    let document = Document::read();
    for (heading, numbers, count) in [("Sizes and counts", SIZES, 21), ("Times", TIMES, 10)] {
        let rows = document.table(heading, &["constant", "value", "meaning"]);
        let stated: Vec<(&str, u64)> =
            rows.iter().map(|row| (row[0].as_str(), number(&row[1]))).collect();
        assert_eq!(stated, numbers, "{heading}");
        assert_eq!(rows.len(), count);
    }
}

#[test]
fn no_limit_of_the_source_is_left_out_of_this_test() {
    let text = source("limits.rs");
    let constants = text.lines().filter_map(|line| line.strip_prefix("pub const "));
    let named: Vec<&str> = constants.map(|rest| rest.split(':').next().unwrap_or(rest)).collect();
    let listed: Vec<&str> = SIZES.iter().chain(TIMES).map(|(name, _)| *name).collect();
    assert_eq!(named, listed);
}

#[test]
fn every_role_stands_in_the_document() {
    let document = Document::read();
    let rows = document.table("Roles", &["number", "role", "allows"]);
    let wanted: Vec<Cells> = (0..=u8::MAX)
        .filter_map(Role::from_number)
        .map(|role| vec![(role as u8).to_string(), format!("{role:?}").to_lowercase()])
        .collect();
    assert_eq!(columns(rows, 2), wanted);
    assert_eq!(rows.len(), 3);
    let named: Vec<String> = rows[..2]
        .iter()
        .flat_map(|row| row[2].trim_start_matches("those, and ").split(", "))
        .map(str::to_string)
        .collect();
    let handshake = [Opcode::Hello, Opcode::Proof];
    for opcode in Opcode::ALL.iter().filter(|opcode| !handshake.contains(opcode)) {
        let place = named.iter().position(|name| *name == format!("{opcode:?}"));
        let is_read = place.unwrap_or_else(|| panic!("{opcode:?} has no role")) < 11;
        assert_eq!(Role::Read.allows(*opcode), is_read, "{opcode:?}");
    }
    assert_eq!(named.len(), Opcode::ALL.len() - handshake.len());
}

#[test]
fn the_checksum_has_the_known_answers_of_the_document() {
    let document = Document::read();
    let rows = document.table("Conventions", &["subject", "rule"]);
    let rule = &rows.iter().find(|row| row[0] == "CRC32C").expect("a rule for CRC32C")[1];
    assert!(
        rule.contains(&format!("123456789: {:#010X}", crc32c(b"123456789")).replace("0X", "0x"))
    );
    assert!(rule.ends_with(&format!("no bytes: {}", crc32c(b""))));
}

/// Reads `content` of the document's HMAC input for one side, piece by piece.
fn proof_message(document: &Document, input: &ProofInput<'_>, side: &str) -> Vec<u8> {
    let rows = document.table("Proof", &["offset", "size", "content"]);
    let pieces: [&[u8]; 8] = [
        b"rampuddle proof 1 ",
        side.as_bytes(),
        &input.client_nonce.0,
        &input.server_nonce.0,
        &input.session.0,
        &input.incarnation.0,
        &[input.role as u8],
        input.cluster.as_bytes(),
    ];
    assert_eq!(rows.len(), pieces.len());
    let mut message = Vec::new();
    for (row, piece) in rows.iter().zip(pieces) {
        assert_eq!(number(&row[0]), message.len() as u64, "{row:?}");
        assert!(row[1] == "the rest" || number(&row[1]) == piece.len() as u64, "{row:?}");
        message.extend_from_slice(piece);
    }
    message
}

#[test]
fn the_proof_has_the_test_vector_of_the_document() {
    use hmac::{Hmac, KeyInit, Mac};

    let document = Document::read();
    let rows = document.table("Test vector of the proof", &["input", "value"]);
    assert_eq!(rows.len(), 9);
    let value = |name: &str| {
        let row = rows.iter().find(|row| row[0].starts_with(name));
        row.unwrap_or_else(|| panic!("no {name}"))[1].as_str()
    };
    let bytes = |name| <[u8; 16]>::try_from(hex(value(name))).expect("16 bytes");
    let input = ProofInput {
        client_nonce: Nonce(bytes("client nonce")),
        server_nonce: Nonce(bytes("server nonce")),
        session: SessionId(bytes("session")),
        incarnation: Incarnation(bytes("incarnation")),
        role: Role::from_number(number(value("role")) as u8).expect("a role"),
        cluster: value("cluster"),
    };
    let secret = value("secret").as_bytes();
    for (name, side, from_client) in
        [("mac of the client", "client", true), ("mac of the server", "server", false)]
    {
        let wanted = <[u8; 32]>::try_from(hex(value(name))).expect("32 bytes");
        assert_eq!(prove(secret, &input, from_client), wanted, "{name}");
        assert!(verify(secret, &input, from_client, &wanted), "{name}");
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret).expect("any length");
        mac.update(&proof_message(&document, &input, side));
        assert_eq!(mac.finalize().into_bytes()[..], wanted, "{name}, from the table of its input");
    }
}

#[test]
fn settings_have_the_fingerprints_of_the_document() {
    let document = Document::read();
    let head = ["cluster", "strategy", "replicas_max", "slots", "first 8 bytes", "fingerprint"];
    let rows = document.table("Test vectors of settings", &head);
    assert_eq!(rows.len(), 4);
    for row in rows {
        let settings = PlacementSettings {
            cluster: &row[0],
            strategy: &row[1],
            replicas_max: number(&row[2]) as u8,
            slots: number(&row[3]) as u32,
        };
        let fingerprint = settings.fingerprint();
        assert_eq!(fingerprint.to_le_bytes()[..], hex(&row[4]), "{row:?}");
        assert_eq!(format!("0x{fingerprint:016x}"), row[5], "{row:?}");
        let lines = document.table("Fingerprint of the settings", &["line", "content"]);
        let lines = lines.iter().map(|line| {
            let line = line[1].replace("CLUSTER", settings.cluster);
            let line = line.replace("STRATEGY", settings.strategy);
            let line = line.replace("REPLICAS", &settings.replicas_max.to_string());
            line.replace("SLOTS", &settings.slots.to_string()) + "\n"
        });
        let digest = Sha512::digest(lines.collect::<String>());
        assert_eq!(digest[..8], hex(&row[4]), "{row:?}, from the table of its input");
    }
}

#[test]
fn the_keys_have_the_pointers_and_slots_of_the_document() {
    let document = Document::read();
    let head = ["key, hex", "placement_bytes", "first 8 bytes of the pointer", "slot"];
    let rows = document.table("Test vectors of keys", &head);
    assert_eq!(rows.len(), 9);
    for row in rows {
        let key = hex(&row[0]);
        let placement_bytes = match number(&row[1]) as usize {
            0 => key.len(),
            some => some.min(key.len()),
        };
        let pointer = Sha512::digest(&key[..placement_bytes]);
        assert_eq!(pointer[..8], hex(&row[2]), "{row:?}");
        let slot = u16::from_be_bytes([pointer[0], pointer[1]]);
        assert_eq!(u64::from(slot), number(&row[3]), "{row:?}");
    }
}

/// The finaliser of splitmix64.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Name, weight and seed of each member of the test vectors.
fn members(document: &Document) -> Vec<(String, f64, u64)> {
    let rows = document.table("Test vectors of members", &["member", "weight", "seed"]);
    assert_eq!(rows.len(), 5);
    rows.iter()
        .map(|row| {
            let digest = Sha512::digest(row[0].as_bytes());
            let seed = u64::from_le_bytes(digest[..8].try_into().expect("eight bytes"));
            assert_eq!(format!("{seed:016x}"), row[2], "{row:?}");
            (row[0].clone(), row[1].parse().expect("a weight"), seed)
        })
        .collect()
}

fn point(seed: u64, index: u64) -> u64 {
    mix(seed.wrapping_add((index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)))
}

/// The steps of the chapter on the ring.
fn on_a_ring(seed: u64, slot: u64) -> u64 {
    let (segment, k) = (slot / 16, slot % 16);
    let (place, here) = (k << 60, point(seed, segment));
    if here >= place {
        return u64::MAX - (here - place);
    }
    place - 1 - (point(seed, (segment + 1) % 4096) >> 4) * k
}

/// The members by score: score, name and h. The platform's `ln` will do here:
/// the scores of the vectors lie far apart, and are compared with a tolerance.
fn ranked(
    members: &[(String, f64, u64)],
    slot: u64,
    claim: fn(u64, u64) -> u64,
) -> Vec<(f64, &str, u64)> {
    let mut ranked: Vec<(f64, &str, u64)> = members
        .iter()
        .map(|(name, weight, seed)| {
            let h = claim(*seed, slot);
            let u = ((h >> 12) as f64 + 0.5) * (-52_f64).exp2();
            (weight / -u.ln(), name.as_str(), h)
        })
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    ranked
}

#[test]
fn the_members_have_the_ranks_of_the_document() {
    let document = Document::read();
    let members = members(&document);
    check_ranks(&document, &members, "Test vectors of ranks", point);
    check_ranks(&document, &members, "Test vectors of ranks on a ring", on_a_ring);
}

fn check_ranks(
    document: &Document,
    members: &[(String, f64, u64)],
    heading: &str,
    claim: fn(u64, u64) -> u64,
) {
    let rows = document.table(heading, &["slot", "rank", "member", "h", "score"]);
    assert_eq!(rows.len(), 4 * members.len());
    for of_slot in rows.chunks(members.len()) {
        let ranked = ranked(members, number(&of_slot[0][0]), claim);
        for (row, (index, (score, name, h))) in of_slot.iter().zip(ranked.iter().enumerate()) {
            assert_eq!(row[0], of_slot[0][0], "{row:?}");
            assert_eq!((number(&row[1]), row[2].as_str()), (index as u64 + 1, *name), "{row:?}");
            assert_eq!(row[3], format!("{h:016x}"), "{row:?}");
            let stated: f64 = row[4].parse().expect("a score");
            assert!((stated - score).abs() < 1e-8, "{row:?}: {score}");
        }
    }
}

#[test]
fn a_missing_heading_table_rule_or_row_is_seen() {
    let good = "# A\n| x | y |\n|---|---|\n| `1` | 2 |\n| 3 | 4 |\ntext\n";
    let document = Document::parse(good);
    assert_eq!(document.find("A", &["x", "y"]), Ok(&[owned(&["1", "2"]), owned(&["3", "4"])][..]));
    assert!(document.find("B", &["x", "y"]).is_err());
    assert!(document.find("A", &["x", "z"]).is_err());
    let without_rule = good.replace("|---|---|\n", "");
    let without_rows = "# A\n| x | y |\n|---|---|\n";
    let ragged = good.replace("| 3 | 4 |", "| 3 |");
    let twice = format!("{good}{good}");
    for text in [&without_rule, without_rows, &ragged, &twice] {
        assert!(Document::parse(text).find("A", &["x", "y"]).is_err(), "{text}");
    }
}

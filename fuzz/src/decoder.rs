//! The decoder of frames, as servers use it for requests and clients for
//! answers, compared with a second one that reads the same bytes by the
//! document's layouts.
//!
//! An input is a byte that says how to read it ([`REPAIR`], [`SEAL`], [`SAY`],
//! [`CUT`]), and a frame.

use std::ops::Range;

use rampuddle_protocol::{
    CancelRow, ClientHello, CreateRow, DeleteRow, DropRow, FrameFlags, FramingError, GatherRow,
    Header, HoldRow, InfoRow, ListRow, MapRow, MappedRow, Opcode, Outcome, Proof, ProofAnswer,
    PublishRow, ReleaseRow, Role, Row, ScatterRow, ServerHello, SharedRow, StatRequestRow, StatRow,
    Status, Table, TableBuilder, TableError, TouchRow, UnmapRow, Version, crc32c, limits,
};

use crate::answers::answer;
use crate::corpus::recorded;
use crate::counts::Counts;
use crate::layout::{Kind, kind, number};
use crate::mutate::{damage, distort, repair, seal};
use crate::random::Random;
use crate::requests::{OPCODES, request};
use crate::target::Target;

/// Brings the header's lengths within their limits first.
pub const REPAIR: u8 = 1;
/// Makes the checksum suit first.
pub const SEAL: u8 = 2;
/// Writes out in words what was read.
pub const SAY: u8 = 4;
/// Reads the table before its last bytes are in, too.
pub const CUT: u8 = 8;

/// The target.
#[derive(Debug, Default)]
pub struct Decoder {
    frame: Vec<u8>,
}

impl Target for Decoder {
    fn run(&mut self, input: &[u8], counts: &mut Counts) -> bool {
        let Some((mode, frame)) = input.split_first() else { return false };
        self.frame.clear();
        self.frame.extend_from_slice(frame);
        if mode & REPAIR != 0 {
            repair(&mut self.frame);
        }
        if mode & SEAL != 0 {
            let head = Header::BYTES.min(self.frame.len());
            let head_bytes = if head < Header::BYTES { 0 } else { head_bytes(&self.frame) };
            seal(&mut self.frame[..head_bytes]);
        }
        read(&self.frame, *mode, counts)
    }

    fn generate(&self, random: &mut Random) -> Vec<u8> {
        let mut input = vec![0];
        let mut frame = frame(random);
        let mut mode = if random.percent(3) { SAY } else { 0 };
        mode |= if random.percent(10) { CUT } else { 0 };
        match random.below(10) {
            0..4 => mode |= SEAL,
            4..9 => {
                distort(random, &mut frame);
                mode |= SEAL | if random.percent(80) { REPAIR } else { 0 };
            }
            _ => damage(random, &mut frame),
        }
        input[0] = mode;
        input.extend(frame);
        input
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let modes = [SEAL, SEAL | REPAIR | SAY | CUT];
        let with = |mode: u8| recorded().iter().map(move |frame| [&[mode], &frame[..]].concat());
        modes.into_iter().flat_map(with).collect()
    }
}

/// Header and table of a frame as far as they are there.
fn head_bytes(frame: &[u8]) -> usize {
    Header::decode(frame).head_bytes().clamp(Header::BYTES, frame.len())
}

/// A sound frame: a request, an answer, or a recorded one.
fn frame(random: &mut Random) -> Vec<u8> {
    match random.below(10) {
        0..5 => {
            let opcode = random.pick(&OPCODES);
            let id = random.draw();
            request(random, opcode, id).head
        }
        5..8 => {
            let opcode = random.pick(Opcode::ALL);
            answer(random, opcode, 7).0
        }
        _ => {
            let frames = recorded();
            frames[random.below(frames.len())].clone()
        }
    }
}

/// Reads a frame as a peer would; true when its header is right.
fn read(frame: &[u8], mode: u8, counts: &mut Counts) -> bool {
    if frame.len() < Header::BYTES {
        counts.one("too short for a header");
        return false;
    }
    let header = match Header::parse(frame) {
        Ok(header) => header,
        Err(error) => {
            counts.one("header refused");
            assert_framing(&error, frame);
            return false;
        }
    };
    assert_limits(&header);
    if header.head_bytes() > frame.len() {
        counts.one("head cut off");
        return false;
    }
    let head = &frame[..header.head_bytes()];
    let found = crc32c(&[&head[..60], &head[64..]].concat());
    match header.check(head) {
        Ok(()) => assert_eq!(found, header.crc32c),
        Err(error) => {
            assert_ne!(found, header.crc32c);
            assert_framing(&error, frame);
            counts.one("checksum refused");
            return false;
        }
    }
    if mode & SAY != 0 {
        say(&header);
    }
    read_table(&header, head, mode, counts);
    true
}

fn assert_limits(header: &Header) {
    assert!((64..=limits::HEADER_BYTES_MAX).contains(&header.header_bytes));
    assert!(header.rows <= limits::ROWS_MAX && header.row_bytes <= limits::ROW_BYTES_MAX);
    assert!(header.table_bytes <= limits::TABLE_BYTES_MAX);
    assert!(header.payload_bytes <= limits::FRAME_PAYLOAD_BYTES_MAX);
    assert!(u64::from(header.rows) * u64::from(header.row_bytes) <= header.table_bytes.into());
}

/// The status of a refusal suits what is wrong.
fn assert_framing(error: &FramingError, frame: &[u8]) {
    let wanted = match error {
        FramingError::Magic(_) => Status::BadMagic,
        FramingError::Version(_) => Status::BadVersion,
        FramingError::Length { .. } => Status::BadLength,
        FramingError::Checksum { .. } => Status::BadChecksum,
    };
    assert_eq!(error.status(), wanted);
    assert!(!error.to_string().is_empty());
    let is_magic = frame[..4] == Header::MAGIC;
    assert_eq!(matches!(error, FramingError::Magic(_)), !is_magic);
}

fn say(header: &Header) {
    say_roles(header);
    let status = Status::from_number(header.status);
    let said = format!("{header:?} {:?} {status:?}", header.operation());
    assert!(said.contains("request_id"));
    if let Some(status) = status {
        assert_eq!(status.is_success(), matches!(status, Status::Ok | Status::Same));
        assert!(!status.to_string().is_empty());
    }
    let (mut flags, known) = (header.flags, FrameFlags::KNOWN);
    flags |= known;
    assert!(flags.has(known) && header.flags.without(known).among(known) == FrameFlags::NONE);
    assert_eq!(header.flags.only(known), header.flags.without(known) == FrameFlags::NONE);
    assert_eq!(header.flags.with(known), header.flags | known);
}

/// Higher roles allow what lower ones do.
fn say_roles(header: &Header) {
    let Some(opcode) = header.operation() else { return };
    let roles = (0..=255).filter_map(Role::from_number);
    let allowed: Vec<bool> = roles.map(|role| role.allows(opcode)).collect();
    assert!(allowed.len() == 3 && allowed.is_sorted() && allowed[2], "{opcode:?}: {allowed:?}");
    assert!(allowed[0] || !matches!(opcode, Opcode::Gather | Opcode::Stat | Opcode::List));
    assert!(!allowed[0] || !opcode.request_has_payload(), "readers write nothing");
    let of_status = Outcome::of(Status::Busy);
    assert_eq!(of_status.status(), Status::Busy);
}

fn read_table(header: &Header, head: &[u8], mode: u8, counts: &mut Counts) {
    let is_answer = header.flags.has(FrameFlags::ANSWER);
    let Some(opcode) = header.operation() else { return counts.one("unknown operation") };
    let Some(kind) = kind(opcode, is_answer) else { return counts.one("without rows") };
    macro_rules! rows {
        ($row:ident) => {
            compare::<$row>(header, header.table(head), &kind, mode, counts)
        };
    }
    match (opcode, is_answer) {
        (Opcode::Hello, false) => {
            let parsed = ClientHello::parse(header, header.table(head));
            padded(
                header,
                head,
                &kind,
                parsed.map(|(row, key, tag)| (wire(&row), key, tag)),
                counts,
            );
        }
        (Opcode::Hello, true) => {
            let parsed = ServerHello::parse(header, header.table(head));
            padded(
                header,
                head,
                &kind,
                parsed.map(|(row, name)| (wire(&row), name, &[][..])),
                counts,
            );
        }
        (Opcode::Proof, false) => {
            let parsed = Proof::parse(header, header.table(head));
            padded(header, head, &kind, parsed.map(|row| (wire(&row), &[][..], &[][..])), counts);
        }
        (Opcode::Proof, true) => {
            let parsed = ProofAnswer::parse(header, header.table(head));
            padded(header, head, &kind, parsed.map(|row| (wire(&row), &[][..], &[][..])), counts);
        }
        (Opcode::Create, false) => rows!(CreateRow),
        (Opcode::Scatter, false) => rows!(ScatterRow),
        (Opcode::Gather, false) => rows!(GatherRow),
        (Opcode::Delete, false) => rows!(DeleteRow),
        (Opcode::Publish, false) => rows!(PublishRow),
        (Opcode::Cancel, false) => rows!(CancelRow),
        (Opcode::Drop, false) => rows!(DropRow),
        (Opcode::Hold, false) => rows!(HoldRow),
        (Opcode::Release, false) => rows!(ReleaseRow),
        (Opcode::Touch, false) => rows!(TouchRow),
        (Opcode::Stat, false) => rows!(StatRequestRow),
        (Opcode::List, false) => rows!(ListRow),
        (Opcode::Stat | Opcode::List, true) => {
            rows!(StatRow);
            statuses::<StatRow>(header, head, StatRow::status);
        }
        (Opcode::Info, true) => rows!(InfoRow),
        (Opcode::Map, false) => rows!(MapRow),
        (Opcode::Unmap, false) => rows!(UnmapRow),
        (Opcode::Map, true) => {
            rows!(MappedRow);
            statuses::<MappedRow>(header, head, MappedRow::status);
        }
        (Opcode::Share, true) => rows!(SharedRow),
        _ => {
            rows!(Outcome);
            statuses::<Outcome>(header, head, Outcome::status);
        }
    }
}

/// Each row's first byte is its status; numbers of newer peers read as one.
fn statuses<R: Row>(header: &Header, head: &[u8], status: fn(&R) -> Status) {
    let Ok(table) = Table::<R>::parse(header, header.table(head)) else { return };
    for (row, ..) in &table {
        let number = wire(&row)[0];
        let known = Status::ALL.iter().find(|status| **status as u8 == number);
        assert_eq!(status(&row), known.copied().unwrap_or(Status::Unsupported));
    }
}

/// What a table must be taken for, by the rules of the document.
enum Verdict {
    Rows(Vec<Place>),
    ShortRows,
    Variable,
    Payload,
}

/// Where a row, its key and its tag lie in the table.
struct Place {
    row: usize,
    key: Range<usize>,
    tag: Range<usize>,
}

/// Reads a table by the layouts, with sums that cannot overflow.
fn judge(header: &Header, table: &[u8], kind: &Kind, is_padded: bool) -> Verdict {
    let (rows, row_bytes) = (header.rows as usize, usize::from(header.row_bytes));
    if rows > 0 && row_bytes < kind.bytes() {
        return Verdict::ShortRows;
    }
    if rows * row_bytes > table.len() {
        return Verdict::Variable;
    }
    let [key, tag, share] = kind.lengths();
    let is_answer = header.flags.has(FrameFlags::ANSWER);
    let is_create = header.opcode == Opcode::Create as u8 && !is_answer;
    let (mut places, mut at, mut payload) = (Vec::new(), (rows * row_bytes) as u128, 0_u128);
    for row in (0..rows).map(|index| index * row_bytes) {
        let fixed = &table[row..row + row_bytes];
        let (key, tag) = (u128::from(number(fixed, key)), u128::from(number(fixed, tag)));
        payload += u128::from(number(fixed, share));
        // Behind a value may stand a trailer: 8 bytes, and its tag.
        if is_create && number(fixed, kind.field("flags")) & (1 << 13) != 0 {
            payload += 8 + tag;
        }
        let place = |range: Range<u128>| range.start as usize..range.end as usize;
        places.push(Place { row, key: place(at..at + key), tag: place(at + key..at + key + tag) });
        at += key + tag;
    }
    let found = table.len() as u128;
    if at > found || (at < found && !is_padded) {
        return Verdict::Variable;
    }
    let has_payload = !is_answer && !is_padded;
    if has_payload && payload != u128::from(header.payload_bytes) {
        return Verdict::Payload;
    }
    Verdict::Rows(places)
}

fn compare<R: Row + std::fmt::Debug>(
    header: &Header,
    table: &[u8],
    kind: &Kind,
    mode: u8,
    counts: &mut Counts,
) {
    let parsed = Table::<R>::parse(header, table);
    match (&parsed, judge(header, table, kind, false)) {
        (Ok(parsed), Verdict::Rows(places)) => {
            counts.one("tables read");
            assert_rows(parsed, table, &places, mode, counts);
        }
        (Err(error), verdict) => {
            assert!(!error.to_string().is_empty());
            counts.one(assert_refusal(error, &verdict));
        }
        (Ok(_), _) => panic!("a table that breaks the rules was taken: {header:?}"),
    }
    if mode & CUT != 0 && !table.is_empty() {
        let short = &table[..table.len() - 1 - table.len() / 3];
        let refused = Table::<R>::parse(header, short);
        assert!(refused.is_err() == !matches!(judge(header, short, kind, false), Verdict::Rows(_)));
    }
}

fn assert_refusal(error: &TableError, verdict: &Verdict) -> &'static str {
    match (error, verdict) {
        (TableError::ShortRows { .. }, Verdict::ShortRows) => "short rows",
        (TableError::Variable { .. }, Verdict::Variable) => "keys that do not add up",
        (TableError::Payload { .. }, Verdict::Payload) => "shares that do not add up",
        (error, _) => panic!("refused for the wrong reason: {error}"),
    }
}

fn assert_rows<R: Row + std::fmt::Debug>(
    parsed: &Table<'_, R>,
    table: &[u8],
    places: &[Place],
    mode: u8,
    counts: &mut Counts,
) {
    assert_eq!((parsed.len(), parsed.is_empty()), (places.len(), places.is_empty()));
    let mut again = Vec::new();
    let mut builder = TableBuilder::with_header(&mut again, Header::new(0, 0));
    let mut rows = 0;
    for ((row, key, tag), place) in parsed.iter().zip(places) {
        assert!(key == &table[place.key.clone()] && tag == &table[place.tag.clone()]);
        let mut fixed = [0; 512];
        row.encode(&mut fixed);
        assert!(fixed[..R::BYTES] == table[place.row..][..R::BYTES], "a row read back");
        builder.push(&row, key, tag);
        if mode & SAY != 0 {
            assert!(!format!("{row:?}").is_empty());
        }
        rows += 1;
    }
    let table_bytes = builder.table_bytes();
    builder.finish(0);
    assert_eq!((rows, again.len()), (places.len(), Header::BYTES + table_bytes));
    assert_eq!(parsed.into_iter().count(), rows);
    counts.add("rows", rows as u64);
    say_versions(table, mode);
}

/// Versions and identifiers say themselves without a panic.
fn say_versions(table: &[u8], mode: u8) {
    if mode & SAY != 0 && table.len() >= 16 {
        let version = <Version as rampuddle_protocol::Field>::take(table);
        let set = <rampuddle_protocol::SetId as rampuddle_protocol::Field>::take(table);
        assert_eq!(version.is_none(), version == Version::NONE);
        assert!(version.unix_ms() <= u64::MAX >> 16);
        assert!(version.to_string().len() == 33 && !format!("{version:?}{set}{set:?}").is_empty());
        assert_eq!(set.is_none(), table[..16] == [0; 16]);
    }
}

fn wire<R: Row>(row: &R) -> Vec<u8> {
    let mut bytes = vec![0; R::BYTES];
    row.encode(&mut bytes);
    bytes
}

/// The only row of a hello or a proof as bytes, and its names.
type Greeting<'a> = Result<(Vec<u8>, &'a [u8], &'a [u8]), TableError>;

/// A frame of the handshake, behind whose only row anything may follow.
fn padded(header: &Header, head: &[u8], kind: &Kind, parsed: Greeting<'_>, counts: &mut Counts) {
    let table = header.table(head);
    match (parsed, judge(header, table, kind, true)) {
        (Ok((row, key, tag)), Verdict::Rows(places)) => {
            let place = places.first().expect("a hello has a row");
            assert!(row == table[place.row..][..row.len()]);
            let names = [&place.key, &place.tag].map(|range| &table[range.clone()]);
            assert_eq!(names, [key, tag]);
            counts.one("hellos and proofs read");
        }
        (Err(TableError::ShortRows { found: 0, .. }), Verdict::Rows(places)) => {
            assert!(places.is_empty(), "a hello without a row");
            counts.one("hellos and proofs refused");
        }
        (Err(error), verdict) => {
            assert_refusal(&error, &verdict);
            counts.one("hellos and proofs refused");
        }
        (Ok(_), _) => panic!("a hello that breaks the rules was taken: {header:?}"),
    }
}

//! Nothing that a peer sends makes the crate panic, loop, or give out a key or
//! a tag that does not lie in the frame's table.
//!
//! Half of the executions are structure-aware: a recorded frame is changed and
//! sealed again, so that its checksum is right and the table is looked at. The
//! others break bytes anywhere, or are random. The seed is printed; `SEED=`
//! repeats a run, and a panic prints the bytes that led to it.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use rampuddle_protocol::{
    CancelRow, ClientHello, CreateRow, DeleteRow, DropRow, FrameFlags, FramingError, GatherRow,
    Header, HoldRow, InfoRow, Layout, ListRow, Opcode, Outcome, Proof, ProofAnswer, PublishRow,
    ReleaseRow, Row, ScatterRow, ServerHello, StatRequestRow, StatRow, Table, TableBuilder,
    TableError, TouchRow, crc32c, limits,
};

mod support;

const EXECUTIONS: u64 = 240_000;

/// Marsaglia's xorshift, 64 bits.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end.max(1)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill_with(|| (self.next() >> 32) as u8);
    }

    /// A number that is likely to lie at an edge of something.
    fn edge(&mut self) -> u64 {
        let edges = [0, 1, 63, 64, 255, 256, 1 << 10, 1 << 16, 1 << 20, 1 << 22, 1 << 31, 1 << 32];
        let base = match self.below(4) {
            0 => self.next(),
            1 => 1 << self.below(64),
            _ => edges[self.below(edges.len())],
        };
        base.wrapping_add(self.below(3) as u64).wrapping_sub(1)
    }
}

/// What was seen, so that a run that did nothing fails.
#[derive(Debug, Default)]
struct Counts {
    executions: u64,
    sealed: u64,
    headers: u64,
    tables: u64,
    rows: u64,
    refused: u64,
    hellos: u64,
}

/// Prints the bytes at hand when a check of them panics.
struct Witness<'a> {
    execution: u64,
    bytes: &'a [u8],
}

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex: String = self.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("execution {}: {hex}", self.execution);
        }
    }
}

/// Where a field of the header lies, to write an edge into it.
fn field_of_header(random: &mut Random) -> Range<usize> {
    let layout: Layout = Header::LAYOUT;
    let (_, offset, length) = layout[random.below(layout.len())];
    offset..offset + length
}

fn write_edge(random: &mut Random, bytes: &mut [u8]) {
    let edge = random.edge().to_le_bytes();
    let length = bytes.len().min(edge.len());
    bytes[..length].copy_from_slice(&edge[..length]);
}

/// Breaks bytes anywhere.
fn damage(random: &mut Random, frame: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        let at = random.below(frame.len());
        match random.below(6) {
            0 => frame[at] ^= 1 << random.below(8),
            1 => frame[at] = random.next() as u8,
            2 => frame.truncate(at.max(Header::BYTES)),
            3 => frame.extend_from_within(at..),
            4 => {
                let field = field_of_header(random);
                write_edge(random, &mut frame[field]);
            }
            _ => random.fill(&mut frame[at..]),
        }
    }
}

/// Changes a frame as a hostile peer would: lengths of the header within their
/// limits, anything in the table.
fn distort(random: &mut Random, frame: &mut Vec<u8>) {
    for _ in 0..=random.below(3) {
        let mut header = Header::decode(frame);
        match random.below(8) {
            0 => header.rows = random.below(limits::ROWS_MAX as usize + 2) as u32,
            1 => header.rows = random.below(4) as u32,
            2 => header.row_bytes = random.below(128) as u16,
            3 => header.payload_bytes = random.edge(),
            4 => header.flags.0 ^= FrameFlags::ANSWER.0,
            5 => header.opcode = random.next() as u8,
            6 => lengthen_header(random, &mut header, frame),
            _ => distort_table(random, &mut header, frame),
        }
        header.encode(frame);
    }
}

/// The header of a newer peer, with its table moved behind it.
fn lengthen_header(random: &mut Random, header: &mut Header, frame: &mut Vec<u8>) {
    let more = random.below(40);
    if usize::from(header.header_bytes) + more > usize::from(limits::HEADER_BYTES_MAX) {
        return;
    }
    header.header_bytes += more as u16;
    frame.splice(Header::BYTES..Header::BYTES, std::iter::repeat_n(0xEE, more));
}

fn distort_table(random: &mut Random, header: &mut Header, frame: &mut Vec<u8>) {
    let table = usize::from(header.header_bytes).min(frame.len())..frame.len();
    match random.below(4) {
        0 if !table.is_empty() => {
            let at = table.start + random.below(table.len());
            frame[at] = random.next() as u8;
        }
        // The lengths of keys and tags stand in the first four bytes of a row.
        1 if table.len() >= 4 => {
            let rows = (table.len() / usize::from(header.row_bytes).max(1)).max(1);
            let at = random.below(rows.min(4)) * usize::from(header.row_bytes);
            let at = (table.start + at + random.below(4)).min(frame.len() - 1);
            let end = (at + 2).min(frame.len());
            write_edge(random, &mut frame[at..end]);
        }
        2 => frame.truncate(table.start + random.below(table.len() + 1)),
        _ => {
            let more = random.below(200);
            let at = frame.len();
            frame.resize(at + more, 0);
            random.fill(&mut frame[at..]);
        }
    }
    header.table_bytes = (frame.len() - table.start) as u32;
}

/// Brings the header's lengths within their limits and makes the checksum right,
/// so that the checks behind them are reached.
fn seal(frame: &mut Vec<u8>) {
    let mut header = Header::decode(frame);
    header.magic = Header::MAGIC;
    header.version = Header::VERSION;
    header.header_bytes = header.header_bytes.clamp(Header::BYTES as u16, limits::HEADER_BYTES_MAX);
    if frame.len() < usize::from(header.header_bytes) {
        frame.resize(usize::from(header.header_bytes), 0);
    }
    header.table_bytes = (frame.len() - usize::from(header.header_bytes)) as u32;
    header.row_bytes = header.row_bytes.min(limits::ROW_BYTES_MAX);
    let rows_max = header.table_bytes / u32::from(header.row_bytes).max(1);
    header.rows = header.rows.min(rows_max).min(limits::ROWS_MAX);
    header.payload_bytes = header.payload_bytes.min(limits::FRAME_PAYLOAD_BYTES_MAX);
    header.encode(frame);
    Header::seal(frame);
}

/// All that can be asked of bytes that came from a peer.
fn exercise(bytes: &[u8], counts: &mut Counts) {
    let Some(header) = parse(bytes) else { return };
    counts.headers += 1;
    if header.head_bytes() > bytes.len() {
        // The rest is not in yet; whatever is there must be safe to look at.
        exercise_tables(&header, &bytes[Header::BYTES..], counts);
        return;
    }
    let head = &bytes[..header.head_bytes()];
    check(&header, head);
    exercise_tables(&header, header.table(head), counts);
}

fn parse(bytes: &[u8]) -> Option<Header> {
    match Header::parse(bytes) {
        Ok(header) => {
            assert!((64..=1_024).contains(&header.header_bytes));
            assert!(
                header.rows <= limits::ROWS_MAX && header.table_bytes <= limits::TABLE_BYTES_MAX
            );
            assert!(header.payload_bytes <= limits::FRAME_PAYLOAD_BYTES_MAX);
            assert!(header.rows * u32::from(header.row_bytes) <= header.table_bytes);
            Some(header)
        }
        Err(error) => {
            assert!(!matches!(error, FramingError::Checksum { .. }));
            assert!(error.status() as u8 >= 128 && !error.to_string().is_empty());
            None
        }
    }
}

fn check(header: &Header, head: &[u8]) {
    let covered = [&head[..60], &head[64..]].concat();
    assert_eq!(header.check(head).is_ok(), crc32c(&covered) == header.crc32c);
}

fn exercise_tables(header: &Header, table: &[u8], counts: &mut Counts) {
    macro_rules! rows {
        ($($row:ident),*) => { $( exercise_rows::<$row>(header, table, counts); )* };
    }
    rows!(CreateRow, ScatterRow, GatherRow, DeleteRow, PublishRow, CancelRow, DropRow, HoldRow);
    rows!(ReleaseRow, TouchRow, StatRequestRow, ListRow, Outcome, StatRow, InfoRow);
    rows!(ClientHello, ServerHello, Proof, ProofAnswer);
    exercise_hellos(header, table, counts);
}

fn exercise_rows<R: Row>(header: &Header, bytes: &[u8], counts: &mut Counts) {
    let table = match Table::<R>::parse(header, bytes) {
        Ok(table) => table,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            counts.refused += 1;
            return;
        }
    };
    let fixed = header.rows as usize * usize::from(header.row_bytes);
    let (mut rows, mut end, mut payload) = (0, fixed, 0_u64);
    let mut again = Vec::new();
    let mut builder = TableBuilder::with_header(&mut again, Header::new(header.opcode, 0));
    for (row, key, tag) in table.iter().take(header.rows as usize + 1) {
        for part in [key, tag] {
            assert_eq!(place(part, bytes), end..end + part.len(), "row {rows}");
            end += part.len();
        }
        assert_eq!(row.variable_bytes(), (key.len(), tag.len()));
        payload = payload.saturating_add(row.payload_bytes());
        builder.push(&row, key, tag);
        rows += 1;
    }
    builder.finish(payload);
    assert_eq!((rows, table.len(), end), (header.rows as usize, rows, bytes.len()));
    assert!(header.flags.has(FrameFlags::ANSWER) || payload == header.payload_bytes);
    assert_eq!(table.is_empty(), rows == 0);
    assert_eq!(again.len(), Header::BYTES + rows * R::BYTES + (end - fixed));
    counts.tables += u64::from(rows > 0);
    counts.rows += rows as u64;
}

/// Where `part` lies within `bytes`.
fn place(part: &[u8], bytes: &[u8]) -> Range<usize> {
    let (begin, end) = (part.as_ptr_range(), bytes.as_ptr_range());
    assert!(begin.start >= end.start && begin.end <= end.end, "a key outside the table");
    let start = begin.start.addr() - end.start.addr();
    start..start + part.len()
}

fn exercise_hellos(header: &Header, bytes: &[u8], counts: &mut Counts) {
    if let Ok((_, cluster, server)) = ClientHello::parse(header, bytes) {
        assert_eq!(place(cluster, bytes).end, place(server, bytes).start);
        counts.hellos += 1;
    }
    if let Ok((hello, name)) = ServerHello::parse(header, bytes) {
        assert_eq!(place(name, bytes).len(), usize::from(hello.name_bytes));
        counts.hellos += 1;
    }
    counts.hellos += u64::from(Proof::parse(header, bytes).is_ok());
    counts.hellos += u64::from(ProofAnswer::parse(header, bytes).is_ok());
}

fn seed() -> u64 {
    let fresh = || RandomState::new().hash_one(0);
    let given = std::env::var("SEED").ok();
    given.map_or_else(fresh, |seed| seed.parse().expect("SEED is a number"))
}

/// A frame for this execution: changed and sealed every second time.
fn input(random: &mut Random, corpus: &[(String, Vec<u8>)], is_sealed: bool) -> Vec<u8> {
    let mut frame = corpus[random.below(corpus.len())].1.clone();
    let header = Header::decode(&frame);
    if is_sealed {
        frame.truncate(header.head_bytes());
        distort(random, &mut frame);
        seal(&mut frame);
    } else if random.below(4) == 0 {
        frame.resize(Header::BYTES + random.below(512), 0);
        // Half of the random bytes begin like a frame.
        let begin = if random.below(2) == 0 { 5 } else { 0 };
        random.fill(&mut frame[begin..]);
    } else {
        damage(random, &mut frame);
    }
    frame
}

#[test]
fn no_bytes_make_the_crate_panic_or_reach_outside_the_table() {
    let seed = seed();
    println!("SEED={seed}");
    let mut random = Random(seed.max(1));
    let corpus = support::recorded();
    assert!(corpus.len() > 20, "the recorded frames are the corpus");
    let mut counts = Counts::default();
    for execution in 0..EXECUTIONS {
        let is_sealed = execution % 2 == 0;
        let frame = input(&mut random, &corpus, is_sealed);
        let _witness = Witness { execution, bytes: &frame };
        exercise(&frame, &mut counts);
        counts.executions += 1;
        counts.sealed += u64::from(is_sealed && is_sound(&frame));
    }
    println!("{counts:?}");
    assert!(counts.executions >= 200_000);
    assert_eq!(counts.sealed, counts.executions / 2, "sealed frames reach the table");
    assert!(counts.headers > counts.executions / 2 && counts.refused > counts.executions);
    assert!(counts.tables > counts.executions / 10 && counts.rows > counts.tables);
    assert!(counts.hellos > counts.executions / 100);
}

/// Whether header and checksum are right, so that the table was looked at.
fn is_sound(frame: &[u8]) -> bool {
    Header::parse(frame).is_ok_and(|header| header.check(frame).is_ok())
}

#[test]
fn shares_that_add_up_to_the_payload_only_by_wrapping_are_refused() {
    for shares in [[u64::MAX, 6], [1 << 63, (1 << 63) + 5], [u64::MAX - 1, 7]] {
        assert_eq!(shares[0].wrapping_add(shares[1]), 5);
        let mut creates = Vec::new();
        let mut table = TableBuilder::request(&mut creates, Opcode::Create, 1);
        for value_bytes in shares {
            table.push(&CreateRow { value_bytes, ..CreateRow::default() }, b"key", b"");
        }
        table.finish(5);
        assert!(payload_is_refused::<CreateRow>(&creates));
        let mut scatters = Vec::new();
        let mut table = TableBuilder::request(&mut scatters, Opcode::Scatter, 1);
        for value_bytes in shares {
            table.push(&ScatterRow { value_bytes, ..ScatterRow::default() }, b"key", b"");
        }
        table.finish(5);
        assert!(payload_is_refused::<ScatterRow>(&scatters));
    }
}

fn payload_is_refused<R: Row>(frame: &[u8]) -> bool {
    let header = Header::parse(frame).expect("its header is sound");
    matches!(
        Table::<R>::parse(&header, header.table(frame)),
        Err(TableError::Payload { found: 5, wanted: u64::MAX })
    )
}

#[test]
fn rows_of_any_stated_length_are_read_or_refused() {
    let mut executions = 0;
    for (name, frame) in support::recorded() {
        let sound = Header::decode(&frame);
        let table = sound.table(&frame);
        for row_bytes in 0..=limits::ROW_BYTES_MAX {
            for rows in [0, 1, 2, 3, limits::ROWS_MAX] {
                let header = Header { row_bytes, rows, ..sound };
                let _witness = Witness { execution: executions, bytes: name.as_bytes() };
                exercise_tables(&header, table, &mut Counts::default());
                executions += 1;
            }
        }
    }
    println!("{executions} executions");
    assert!(executions > 100_000);
}

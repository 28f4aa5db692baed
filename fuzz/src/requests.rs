//! Requests as an honest client makes them, over few keys, versions and sets,
//! so that they meet each other.

use rampuddle_protocol::limits::PAGE_BYTES;
use rampuddle_protocol::{
    CancelRow, CreateRow, DeleteRow, DropRow, GatherRow, HoldRow, ListRow, MapRow, Opcode,
    PublishRow, ReleaseRow, Row, RowFlags, ScatterRow, SetId, StatRequestRow, TableBuilder,
    TouchRow, UnmapRow, Version,
};

use crate::random::Random;

/// The wall clock of generated versions: that of a simulated server at its start.
pub const UNIX_MS: u64 = 1_700_000_000_000;

/// Every operation but those of the handshake, those that change most more often.
pub const OPCODES: [Opcode; 24] = [
    Opcode::Create,
    Opcode::Create,
    Opcode::Create,
    Opcode::Create,
    Opcode::Scatter,
    Opcode::Scatter,
    Opcode::Gather,
    Opcode::Gather,
    Opcode::Delete,
    Opcode::Publish,
    Opcode::Cancel,
    Opcode::Drop,
    Opcode::Hold,
    Opcode::Release,
    Opcode::Touch,
    Opcode::Stat,
    Opcode::List,
    Opcode::Info,
    Opcode::Ping,
    Opcode::Create,
    Opcode::Map,
    Opcode::Map,
    Opcode::Unmap,
    Opcode::Share,
];

/// A request's head, and each row's share of the payload behind it.
#[derive(Debug, Default)]
pub struct Request {
    /// Header and table, sealed.
    pub head: Vec<u8>,
    /// Bytes of each row.
    pub shares: Vec<u64>,
}

impl Request {
    /// Bytes of all rows.
    pub fn payload_bytes(&self) -> u64 {
        self.shares.iter().sum()
    }
}

/// A request of this operation. Handles up to 4 stand for those that the server
/// gave, in order.
pub fn request(random: &mut Random, opcode: Opcode, id: u64) -> Request {
    let mut made = Request::default();
    let mut table = TableBuilder::request(&mut made.head, opcode, id);
    if random.percent(5) {
        table.deadline_ms(random.below(2_000) as u32);
    }
    let shares = &mut made.shares;
    for _ in 0..rows(random, opcode) {
        push_row(random, opcode, &mut table, shares);
    }
    table.finish(made.shares.iter().sum());
    made
}

/// A Create of values that are whole, newer than most, and never written again: what
/// readers may map.
pub fn mappable(random: &mut Random, id: u64) -> Request {
    let mut made = Request::default();
    let mut table = TableBuilder::request(&mut made.head, Opcode::Create, id);
    for _ in 0..1 + random.below(4) {
        let bytes = 1 + random.below(200_000) as u64;
        let row = CreateRow {
            flags: RowFlags::REPLACE.with(RowFlags::SEALED),
            length: bytes,
            value_bytes: bytes,
            version: Version::from_unix_ms(UNIX_MS + 40 + random.below(20) as u64, 1),
            set: set(random),
            ..CreateRow::default()
        };
        made.shares.push(bytes);
        table.push(&row, &[b'k', b'0' + random.below(10) as u8], b"");
    }
    table.finish(made.shares.iter().sum());
    made
}

fn push_row(
    random: &mut Random,
    opcode: Opcode,
    table: &mut TableBuilder<'_>,
    shares: &mut Vec<u64>,
) {
    let (key, set) = (key(random), set(random));
    match opcode {
        Opcode::Create => {
            let count = random.pick(&[0, 0, 3, 64]);
            let tag = random.bytes(count);
            let row = CreateRow { tag_bytes: count as u8, ..create_row(random, set) };
            shares.push(row.payload_bytes());
            table.push(&row, &key, &tag);
        }
        Opcode::Scatter => {
            let by_handle = random.percent(40);
            let row = ScatterRow {
                handle: if by_handle { 1 + random.below(4) as u64 } else { 0 },
                offset: offset(random),
                value_bytes: length(random),
                if_version: maybe_version(random),
                ..ScatterRow::default()
            };
            shares.push(row.value_bytes);
            table.push(&row, if by_handle { b"" } else { &key }, b"");
        }
        Opcode::Publish => {
            let length = length(random);
            let row = PublishRow {
                handle: 1 + random.below(4) as u64,
                length,
                value_bytes: if random.percent(70) { length } else { offset(random) },
                flags: if random.percent(20) { RowFlags::CHECKSUM } else { RowFlags::NONE },
                ..PublishRow::default()
            };
            table.push(&row, b"", b"");
        }
        Opcode::List => {
            let flags = if random.percent(50) { RowFlags::TOMBSTONE } else { RowFlags::NONE };
            let row = ListRow { flags, rows_max: random.pick(&[0, 0, 1, 3]), ..ListRow::default() };
            let prefix = random.pick(&[&b""[..], b"k", b"k1"]);
            table.push(&row, prefix, if random.percent(30) { &key } else { b"" });
        }
        _ => push_small(random, opcode, table, &key, set),
    }
}

/// Rows without payload.
fn push_small(
    random: &mut Random,
    opcode: Opcode,
    table: &mut TableBuilder<'_>,
    key: &[u8],
    set: SetId,
) {
    let (version, if_version) = (version(random), maybe_version(random));
    match opcode {
        Opcode::Gather => {
            let flags = random.pick(&[RowFlags::NONE, RowFlags::FILLED, RowFlags::TAG]);
            let (offset, length) = (offset(random), if random.percent(70) { 400 } else { 1 << 22 });
            let set = if random.percent(20) { set } else { SetId::default() };
            push(
                table,
                &GatherRow { flags, offset, length, if_version, set, ..Default::default() },
                key,
            );
        }
        Opcode::Delete => {
            push(table, &DeleteRow { version, if_version, ..Default::default() }, key)
        }
        Opcode::Drop => push(table, &DropRow { version, ..Default::default() }, key),
        Opcode::Stat => push(table, &StatRequestRow::default(), key),
        Opcode::Cancel => {
            push(table, &CancelRow { request_id: 1 + random.below(12) as u64 }, b"");
        }
        Opcode::Hold => push(table, &HoldRow { set, ..Default::default() }, b""),
        Opcode::Map => {
            let row = MapRow { mapping: mapping(random), hold: hold(random), ..Default::default() };
            let with_set = random.pick(&[RowFlags::NONE, RowFlags::SET]);
            match random.below(20) {
                0..12 => push(table, &MapRow { flags: with_set, ..row }, key),
                12..16 => push(table, &MapRow { set, ..row }, b""),
                16..19 => {
                    let cursor = random.pick(&[1, 1 << 32, u64::MAX]);
                    push(table, &MapRow { cursor, ..row }, b"");
                }
                _ => push(table, &MapRow { flags: with_set, set, ..row }, key),
            }
        }
        Opcode::Unmap => {
            let row = UnmapRow { mapping: mapping(random), hold: hold(random) };
            push(table, &row, b"");
        }
        Opcode::Release => push(table, &ReleaseRow { set, ..Default::default() }, b""),
        _ => {
            let lease_ms = random.pick(&[0, 1, 1_000, 900_000, u64::MAX]);
            push(table, &TouchRow { set, lease_ms, ..Default::default() }, b"");
        }
    }
}

/// Stands for one that the server gave, as handles do: most connections have one.
fn mapping(random: &mut Random) -> u64 {
    random.pick(&[1, 1, 1, 1, 1, 2, 3, 1 << 40])
}

fn hold(random: &mut Random) -> u64 {
    random.pick(&[1, 1, 2, 2, 3, u64::MAX, 0])
}

fn push(table: &mut TableBuilder<'_>, row: &impl Row, key: &[u8]) {
    table.push(row, key, b"");
}

fn rows(random: &mut Random, opcode: Opcode) -> usize {
    match opcode {
        Opcode::Info | Opcode::Ping | Opcode::Share => 0,
        Opcode::List => 1,
        Opcode::Map if random.percent(95) => 1,
        _ if random.percent(2) => random.pick(&[70, 120, 300]),
        _ => 1 + random.below(5),
    }
}

fn create_row(random: &mut Random, set: SetId) -> CreateRow {
    const FLAGS: [RowFlags; 7] = [
        RowFlags::REPLACE,
        RowFlags::SEALED,
        RowFlags::KEEP,
        RowFlags::REWRITE,
        RowFlags::RESERVE,
        RowFlags::CHECKSUM,
        RowFlags::CHECKSUM.with(RowFlags::TRAILER),
    ];
    let mut flags = if random.percent(60) { RowFlags::REPLACE } else { RowFlags::NONE };
    if random.percent(40) {
        flags |= random.pick(&FLAGS);
    }
    let value_bytes = if flags.has(RowFlags::RESERVE) { 0 } else { length(random) };
    CreateRow {
        flags,
        value_bytes,
        length: value_bytes + if random.percent(20) { offset(random) } else { 0 },
        version: version(random),
        if_version: maybe_version(random),
        set: if random.percent(50) { set } else { SetId::default() },
        lease_ms: random.pick(&[0, 0, 0, 5, 1_000, 60_000]),
        crc32c: 0,
        replicas: random.pick(&[0, 1, 2, 255]),
        tenant: random.below(3) as u32,
        ..CreateRow::default()
    }
}

fn key(random: &mut Random) -> Vec<u8> {
    match random.below(40) {
        0 => Vec::new(),
        1 => vec![b'k'; random.pick(&[1_023, 1_024, 1_025])],
        2 => random.bytes(5),
        3 => b"k\0\n\x1b[2J../".to_vec(),
        _ => vec![b'k', b'0' + random.below(10) as u8],
    }
}

fn set(random: &mut Random) -> SetId {
    SetId([random.below(4) as u8; 16])
}

fn version(random: &mut Random) -> Version {
    match random.below(40) {
        0 => Version::NONE,
        1 => Version { time: random.draw(), writer: random.draw() },
        2 => Version::from_unix_ms(UNIX_MS + 301_000, 1),
        _ => Version::from_unix_ms(UNIX_MS + random.below(60) as u64, 1),
    }
}

fn maybe_version(random: &mut Random) -> Version {
    if random.percent(8) { version(random) } else { Version::NONE }
}

/// A row's bytes: few, or about a page, seldom many.
fn length(random: &mut Random) -> u64 {
    match random.below(20) {
        0 => 0,
        1 => 1,
        2 => PAGE_BYTES - 1 + random.below(3) as u64,
        3 => random.below(200_000) as u64,
        _ => 1 + random.below(300) as u64,
    }
}

fn offset(random: &mut Random) -> u64 {
    match random.below(10) {
        0 => random.edge(),
        1 => PAGE_BYTES,
        2 => random.below(200) as u64,
        _ => 0,
    }
    .min(1 << 62)
}

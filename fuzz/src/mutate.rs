//! Changes to a frame's head, as a hostile peer would make them: to a field, to
//! lengths that belong together, or to bytes anywhere.

use rampuddle_protocol::{FrameFlags, Header, Opcode, limits};

use crate::layout::{Kind, kind, number};
use crate::random::Random;

/// Changes a head (header and table) a few times, knowing what it is.
pub fn distort(random: &mut Random, head: &mut Vec<u8>) {
    for _ in 0..=random.below(2) {
        if head.len() < Header::BYTES {
            return;
        }
        match random.below(10) {
            0 => change_header(random, head),
            1 => lengthen_header(random, head),
            2 => lengthen_rows(random, head),
            3 => change_table_bytes(random, head),
            4 | 5 => move_between_rows(random, head),
            _ => change_row(random, head),
        }
    }
}

/// Breaks bytes anywhere.
pub fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(6) {
            _ if bytes.is_empty() => return,
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.draw() as u8,
            2 => bytes.truncate(at),
            3 if bytes.len() < 4_096 => bytes.extend_from_within(at..),
            4 => write_edge(random, &mut bytes[at..]),
            _ => {
                let until = (at + 1 + random.below(16)).min(bytes.len());
                let drawn = random.bytes(until - at);
                bytes[at..until].copy_from_slice(&drawn);
            }
        }
    }
}

/// Brings the lengths of a head within their limits, so that what lies behind
/// the header is looked at. Shorter heads are filled up.
pub fn repair(head: &mut Vec<u8>) {
    if head.len() < Header::BYTES {
        head.resize(Header::BYTES, 0);
    }
    let mut header = Header::decode(head);
    header.magic = Header::MAGIC;
    header.version = Header::VERSION;
    header.header_bytes = header.header_bytes.clamp(Header::BYTES as u16, limits::HEADER_BYTES_MAX);
    if head.len() < usize::from(header.header_bytes) {
        head.resize(usize::from(header.header_bytes), 0);
    }
    head.truncate(usize::from(header.header_bytes) + limits::TABLE_BYTES_MAX as usize);
    header.table_bytes = (head.len() - usize::from(header.header_bytes)) as u32;
    header.row_bytes = header.row_bytes.min(limits::ROW_BYTES_MAX);
    let rows_max = header.table_bytes / u32::from(header.row_bytes).max(1);
    header.rows = header.rows.min(rows_max).min(limits::ROWS_MAX);
    header.payload_bytes = header.payload_bytes.min(limits::FRAME_PAYLOAD_BYTES_MAX);
    header.encode(head);
}

/// Writes the checksum that suits into a head that has a header.
pub fn seal(head: &mut [u8]) {
    if head.len() >= Header::BYTES {
        Header::seal(head);
    }
}

/// The rows of a head, if this version knows them.
pub fn kind_of(header: &Header) -> Option<Kind> {
    kind(header.operation()?, header.flags.has(FrameFlags::ANSWER))
}

fn write_edge(random: &mut Random, bytes: &mut [u8]) {
    let length = bytes.len().min(8);
    bytes[..length].copy_from_slice(&random.edge().to_le_bytes()[..length]);
}

fn change_header(random: &mut Random, head: &mut [u8]) {
    match random.below(4) {
        0 => {
            let (_, offset, length) = random.pick(Header::LAYOUT);
            write_edge(random, &mut head[offset..offset + length]);
        }
        1 => {
            let mut header = Header::decode(head);
            header.rows = header.rows.wrapping_add(random.below(3) as u32).wrapping_sub(1);
            header.encode(head);
        }
        2 => {
            let mut header = Header::decode(head);
            header.opcode = random.pick(Opcode::ALL) as u8;
            header.encode(head);
        }
        _ => {
            let mut header = Header::decode(head);
            let step = random.below(3) as u64;
            header.payload_bytes = header.payload_bytes.wrapping_add(step).wrapping_sub(1);
            header.encode(head);
        }
    }
}

/// The header of a newer peer, with the table moved behind it.
fn lengthen_header(random: &mut Random, head: &mut Vec<u8>) {
    let mut header = Header::decode(head);
    let more = 1 + random.below(40);
    if usize::from(header.header_bytes) + more <= usize::from(limits::HEADER_BYTES_MAX) {
        header.header_bytes += more as u16;
        head.splice(Header::BYTES..Header::BYTES, std::iter::repeat_n(0xEE, more));
        header.encode(head);
    }
}

/// Where the rows begin, how long each is, and how many lie within the head.
fn rows_of(head: &[u8]) -> Option<(usize, usize, usize)> {
    let header = Header::decode(head);
    let (start, row_bytes) = (usize::from(header.header_bytes), usize::from(header.row_bytes));
    let room = head.len().checked_sub(start)?;
    let rows = (header.rows as usize).min(room.checked_div(row_bytes)?);
    (rows > 0).then_some((start, row_bytes, rows))
}

/// The rows of a newer peer: each fixed part longer.
fn lengthen_rows(random: &mut Random, head: &mut Vec<u8>) {
    let Some((start, row_bytes, rows)) = rows_of(head) else { return };
    let more = 1 + random.below(16);
    for row in (0..rows).rev() {
        let at = start + (row + 1) * row_bytes;
        head.splice(at..at, std::iter::repeat_n(0xDD, more));
    }
    let mut header = Header::decode(head);
    header.row_bytes = header.row_bytes.wrapping_add(more as u16);
    header.table_bytes = header.table_bytes.wrapping_add((more * rows) as u32);
    header.encode(head);
}

fn change_table_bytes(random: &mut Random, head: &mut Vec<u8>) {
    let mut header = Header::decode(head);
    let start = usize::from(header.header_bytes).clamp(Header::BYTES, head.len());
    if random.percent(50) {
        head.truncate(head.len() - random.below(head.len() - start + 1).min(9));
    } else {
        let count = 1 + random.below(9);
        let more = random.bytes(count);
        head.extend(more);
    }
    header.table_bytes = (head.len() - start) as u32;
    header.encode(head);
}

/// Sets a field of a row to a number at an edge, or moves it by one.
fn change_row(random: &mut Random, head: &mut [u8]) {
    let Some((start, row_bytes, rows)) = rows_of(head) else { return };
    let row = start + random.below(rows) * row_bytes;
    let Some(kind) = kind_of(&Header::decode(head)).filter(|kind| kind.bytes() <= row_bytes) else {
        let at = row + random.below(row_bytes);
        head[at] = random.draw() as u8;
        return;
    };
    let (_, offset, length) = random.pick(kind.fields);
    let field = &mut head[row + offset..row + offset + length];
    if length <= 8 && random.percent(40) {
        let moved = number(field, Some((0, length))).wrapping_add(random.below(3) as u64);
        field.copy_from_slice(&moved.wrapping_sub(1).to_le_bytes()[..length]);
    } else {
        write_edge(random, field);
    }
}

/// Takes from a length of one row what it gives to the same of another, with
/// wrap-around: sums over the rows stay what they were.
fn move_between_rows(random: &mut Random, head: &mut [u8]) {
    let Some((start, row_bytes, rows)) = rows_of(head) else { return };
    let Some(kind) = kind_of(&Header::decode(head)).filter(|kind| kind.bytes() <= row_bytes) else {
        return;
    };
    let lengths: Vec<_> = kind.lengths().into_iter().flatten().collect();
    if rows < 2 || lengths.is_empty() {
        return;
    }
    let (offset, length) = random.pick(&lengths);
    let (from, to) = (random.below(rows), random.below(rows));
    let amount = if random.percent(50) { random.edge() } else { random.below(40) as u64 };
    for (row, amount) in [(from, amount.wrapping_neg()), (to, amount)] {
        let at = start + row * row_bytes + offset;
        let sum = number(head, Some((at, length))).wrapping_add(amount);
        head[at..at + length].copy_from_slice(&sum.to_le_bytes()[..length]);
    }
}

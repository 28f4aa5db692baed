//! Rows of one operation to one server: split into frames, several of them
//! under way at once, answers in any order.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use rampuddle_protocol::limits::{STAT_ROWS_MAX, TABLE_BYTES_MAX, TAG_BYTES_MAX};
use rampuddle_protocol::{Header, Opcode, Outcome, Row, StatRow, Status};

use super::rolling::Late;
use crate::buffers::Buffers;
use crate::connection::{Connection, FrameSize, Grants, changes_values};
use crate::error::{Error, Fate, Misbehaviour};

/// A row ready to be sent.
#[derive(Debug)]
pub(crate) struct Prepared<'b, R> {
    /// Which of the caller's items it is, or is part of.
    pub(crate) index: usize,
    pub(crate) row: R,
    pub(crate) key: Bytes,
    pub(crate) tag: Bytes,
    /// Its share of the request's payload, but for a trailer.
    pub(crate) payload: Bytes,
    /// Create: what the trailer says.
    pub(crate) late: Option<Late>,
    /// Gather: its share of the answer's payload, at most.
    pub(crate) answer_bytes: u64,
    /// Gather: where the first bytes go; memory of their own when `None`.
    pub(crate) into: Option<Landing<'b>>,
}

/// The caller's memory.
#[derive(Debug)]
pub(crate) struct Landing<'b> {
    pub(crate) bytes: &'b mut [u8],
    /// How many of the answer's bytes go there, by its tag; none if there is not
    /// room for as many. All when `None`: there is room for what is asked for.
    pub(crate) share: Option<fn(&[u8]) -> u64>,
}

impl Landing<'_> {
    /// Where the first of `all` bytes of a row with this tag go.
    fn room(&mut self, all: u64, tag: &[u8]) -> &mut [u8] {
        let share = self.share.map_or(all, |share| share(tag));
        let fits = share <= all && share <= self.bytes.len() as u64;
        &mut self.bytes[..if fits { share as usize } else { 0 }]
    }
}

impl<R: Row> Prepared<'_, R> {
    /// A row with a key and nothing else.
    pub(crate) fn new(index: usize, row: R, key: Bytes) -> Self {
        let (tag, payload) = (Bytes::new(), Bytes::new());
        Self { index, row, key, tag, payload, late: None, answer_bytes: 0, into: None }
    }

    fn table_bytes(&self) -> u64 {
        (R::BYTES + self.key.len() + self.tag.len()) as u64
    }

    /// Bytes that it moves, both ways together.
    pub(crate) fn weight(&self) -> u64 {
        self.table_bytes() + self.row.payload_bytes() + self.answer_bytes
    }
}

/// The answer to one row.
#[derive(Debug)]
pub(crate) enum Reply<A> {
    /// The row was looked at.
    Row {
        row: A,
        key: Bytes,
        tag: Bytes,
        /// Those that did not go to the caller's memory.
        bytes: Bytes,
    },
    /// The whole frame was refused.
    Refused(Status),
}

/// A row of an answer.
pub(crate) trait AnswerRow: Row {
    /// Its share of the answer's payload.
    fn share(&self, opcode: Opcode) -> u64;

    /// Whether a row with the key `found` can be the answer about `asked`.
    fn is_about(&self, asked: &[u8], found: &[u8]) -> bool;
}

impl AnswerRow for Outcome {
    fn share(&self, opcode: Opcode) -> u64 {
        if opcode == Opcode::Gather { self.length } else { 0 }
    }

    /// Outcomes have no keys: their order says what they are about.
    fn is_about(&self, _: &[u8], _: &[u8]) -> bool {
        true
    }
}

impl AnswerRow for StatRow {
    fn share(&self, _: Opcode) -> u64 {
        0
    }

    fn is_about(&self, asked: &[u8], found: &[u8]) -> bool {
        asked == found || self.status() == Status::BadRow
    }
}

/// Why not all rows were answered, and what may have become of those sent;
/// rows that are neither answered nor named here never left.
#[derive(Debug)]
pub(crate) struct Interrupted {
    pub(crate) error: Error,
    pub(crate) open: Vec<(Range<usize>, Fate)>,
}

/// Sends all rows and hands each answer to `take`, with the row's position.
///
/// # Errors
/// When the connection fails; it is of no more use then.
pub(crate) async fn exchange<R: Row, A: AnswerRow>(
    connection: &mut Connection,
    buffers: &Arc<Buffers>,
    opcode: Opcode,
    rows: &mut [Prepared<'_, R>],
    take: &mut (impl FnMut(usize, Reply<A>) + Send),
) -> Result<(), Interrupted> {
    let mut open = Vec::new();
    match drive(connection, buffers, opcode, rows, &mut open, take).await {
        Ok(()) => Ok(()),
        Err(error) => {
            let fate = |id| {
                if changes_values(opcode) { connection.fate_of(id) } else { Fate::NotSent }
            };
            let open = open.into_iter().map(|(id, range)| (range, fate(id))).collect();
            Err(Interrupted { error, open })
        }
    }
}

async fn drive<R: Row, A: AnswerRow>(
    connection: &mut Connection,
    buffers: &Arc<Buffers>,
    opcode: Opcode,
    rows: &mut [Prepared<'_, R>],
    open: &mut Vec<(u64, Range<usize>)>,
    take: &mut (impl FnMut(usize, Reply<A>) + Send),
) -> Result<(), Error> {
    let mut next = 0;
    loop {
        while next < rows.len() {
            let (count, size) = first_frame(&rows[next..], opcode, connection.grants());
            if !connection.has_room_for(&size) {
                break;
            }
            send_frame(connection, opcode, &rows[next..next + count], &size, |id| {
                open.push((id, next..next + count));
            })
            .await?;
            next += count;
        }
        if open.is_empty() {
            return Ok(());
        }
        let header = connection.receive_head().await?;
        let is_it = |(id, _): &(u64, Range<usize>)| *id == header.request_id;
        let at = open.iter().position(is_it).expect("the connection knows what is open");
        let range = open[at].1.clone();
        let asked = &mut rows[range.clone()];
        receive_frame(connection, buffers, opcode, &header, range.start, asked, take).await?;
        open.swap_remove(at);
    }
}

async fn send_frame<R: Row>(
    connection: &mut Connection,
    opcode: Opcode,
    rows: &[Prepared<'_, R>],
    size: &FrameSize,
    note: impl FnOnce(u64),
) -> Result<(), Error> {
    let table = rows.iter().map(|row| (row.row, &row.key[..], &row.tag[..]));
    note(connection.request(opcode, table, size.answer_payload_bytes));
    if let [Prepared { late: Some(late), payload, tag, .. }] = rows {
        return connection.send_late(payload, late, tag).await;
    }
    let payload: Vec<&[u8]> =
        rows.iter().map(|row| &row.payload[..]).filter(|bytes| !bytes.is_empty()).collect();
    connection.send(&payload).await
}

async fn receive_frame<R: Row, A: AnswerRow>(
    connection: &mut Connection,
    buffers: &Arc<Buffers>,
    opcode: Opcode,
    header: &Header,
    start: usize,
    rows: &mut [Prepared<'_, R>],
    take: &mut (impl FnMut(usize, Reply<A>) + Send),
) -> Result<(), Error> {
    if header.status != Status::Ok as u8 {
        let status = Status::from_number(header.status).unwrap_or(Status::Unsupported);
        (0..rows.len()).for_each(|index| take(start + index, Reply::Refused(status)));
        return Ok(());
    }
    let table = connection.table::<A>()?;
    let answers: Vec<(A, Bytes, Bytes)> =
        table.iter().map(|(row, key, tag)| (row, copied(key), copied(tag))).collect();
    let shares = answers.iter().map(|(row, ..)| row.share(opcode));
    let is_within = shares.clone().zip(rows.iter()).all(|(share, row)| share <= row.answer_bytes);
    let sum = shares.fold(0, u64::saturating_add);
    if !is_within || sum != header.payload_bytes {
        let what = Misbehaviour::WrongShares { rows: sum, payload: header.payload_bytes };
        return Err(connection.misbehaved(what));
    }
    if answers
        .iter()
        .zip(rows.iter())
        .any(|((answer, key, _), row)| !answer.is_about(&row.key, key))
    {
        return Err(connection.misbehaved(Misbehaviour::OtherKey));
    }
    for (index, (row, key, tag)) in answers.into_iter().enumerate() {
        // Bounded by what the caller asked for: see above.
        let mut share = row.share(opcode);
        if let Some(landing) = &mut rows[index].into {
            let room = landing.room(share, &tag);
            share -= room.len() as u64;
            connection.receive_payload_into(room, |_| {}).await?;
        }
        let failed = |source| Error::local(format!("no memory for {share} bytes read"), source);
        let mut bytes = buffers.take(share).map_err(failed)?;
        connection.receive_payload_into(&mut bytes, |_| {}).await?;
        let bytes = bytes.into_bytes();
        take(start + index, Reply::Row { row, key, tag, bytes });
    }
    Ok(())
}

fn copied(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// How many of `rows`, at least one, go into one frame, and its size.
fn first_frame<R: Row>(
    rows: &[Prepared<'_, R>],
    opcode: Opcode,
    grants: Grants,
) -> (usize, FrameSize) {
    let header = Header::BYTES as u64;
    let mut size =
        FrameSize { head_bytes: header, answer_head_bytes: header, ..FrameSize::default() };
    let mut count = 0;
    let rows_max =
        if opcode == Opcode::Stat { grants.rows.min(STAT_ROWS_MAX) } else { grants.rows };
    for row in rows.iter().take(rows_max as usize) {
        // What has a trailer has a frame of its own.
        if count > 0 && (row.late.is_some() || rows[0].late.is_some()) {
            break;
        }
        let mut next = size;
        next.head_bytes += row.table_bytes();
        next.answer_head_bytes += answer_table_bytes(opcode, row.key.len());
        next.payload_bytes += row.row.payload_bytes();
        next.answer_payload_bytes += row.answer_bytes;
        let fits = next.head_bytes - header <= grants.table_bytes
            && next.answer_head_bytes - header <= grants.table_bytes.min(TABLE_BYTES_MAX.into())
            && next.payload_bytes <= grants.payload_bytes
            && next.answer_payload_bytes <= grants.payload_bytes;
        if count > 0 && !fits {
            break;
        }
        (count, size) = (count + 1, next);
    }
    (count, size)
}

fn answer_table_bytes(opcode: Opcode, key_bytes: usize) -> u64 {
    let row = match opcode {
        Opcode::Stat => StatRow::BYTES + key_bytes,
        _ => Outcome::BYTES,
    };
    (row + TAG_BYTES_MAX) as u64
}

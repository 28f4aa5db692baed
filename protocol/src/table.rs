//! The table of a frame: its rows, then the keys and tags of all rows.

use std::marker::PhantomData;

use thiserror::Error;

use crate::canary::{Canary, is_planted};
use crate::{FrameFlags, Header, Opcode, Status};

/// A row of a table: a fixed part, a key and a tag.
pub trait Row: Copy {
    /// Length of the fixed part in this version.
    const BYTES: usize;
    /// Reads the fixed part; what is longer belongs to a newer peer.
    fn decode(bytes: &[u8]) -> Self;
    /// Writes the fixed part.
    fn encode(&self, out: &mut [u8]);
    /// Lengths of the key and of the tag behind it (of prefix and cursor, in List).
    fn variable_bytes(&self) -> (usize, usize);
    /// States those lengths in the fixed part.
    fn set_variable_bytes(&mut self, key: usize, tag: usize);
    /// Bytes of the frame's payload that are this row's, its trailer among them.
    fn payload_bytes(&self) -> u64 {
        0
    }
}

/// Why a table of sound checksum cannot be read: the peer's library is wrong.
/// The frame's end is known all the same, so the connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TableError {
    /// The rows are shorter than this version's.
    #[error("rows of {found} bytes, version 1 has {wanted}")]
    ShortRows {
        /// As stated by the header.
        found: usize,
        /// What this version needs.
        wanted: usize,
    },
    /// Keys and tags do not fill the table exactly.
    #[error("the rows' keys and tags take {wanted} bytes, the table has {found}")]
    Variable {
        /// What is behind the rows.
        found: usize,
        /// What the rows state.
        wanted: usize,
    },
    /// The rows' shares do not add up to the payload.
    #[error("the rows' values take {wanted} bytes, the payload has {found}")]
    Payload {
        /// As stated by the header.
        found: u64,
        /// What the rows state.
        wanted: u64,
    },
}

/// A frame's table, checked: every row, key and tag lies within it.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a, R> {
    rows: usize,
    row_bytes: usize,
    bytes: &'a [u8],
    row: PhantomData<R>,
}

impl<'a, R: Row> Table<'a, R> {
    /// Checks that the rows' lengths add up to the table's and the payload's.
    ///
    /// `bytes` is the table: see [`Header::table`]. Costs one pass over the rows.
    pub fn parse(header: &Header, bytes: &'a [u8]) -> Result<Self, TableError> {
        let (table, variable) = Self::parse_padded(header, bytes)?;
        let found = bytes.len() - table.rows * table.row_bytes;
        if variable != found {
            return Err(TableError::Variable { found, wanted: variable });
        }
        let add: fn(u64, u64) -> u64 = if is_planted(Canary::WrappingShares) {
            u64::wrapping_add
        } else {
            u64::saturating_add
        };
        let wanted = table.fixed().map(|row| row.payload_bytes()).fold(0, add);
        let has_payload = !header.flags.has(FrameFlags::ANSWER);
        if has_payload && wanted != header.payload_bytes {
            return Err(TableError::Payload { found: header.payload_bytes, wanted });
        }
        Ok(table)
    }

    /// As [`Table::parse`], for the frames of the handshake: bytes may follow.
    pub(crate) fn parse_padded(
        header: &Header,
        bytes: &'a [u8],
    ) -> Result<(Self, usize), TableError> {
        let (rows, row_bytes) = (header.rows as usize, usize::from(header.row_bytes));
        if rows > 0 && row_bytes < R::BYTES {
            return Err(TableError::ShortRows { found: row_bytes, wanted: R::BYTES });
        }
        let table = Self { rows, row_bytes, bytes, row: PhantomData };
        let room = bytes.len().checked_sub(rows * row_bytes);
        let wanted = table.fixed_within(room.is_some()).fold(0_usize, |sum, row| {
            let (key, tag) = row.variable_bytes();
            sum.saturating_add(key + tag)
        });
        match room {
            Some(found) if wanted <= found => Ok((table, wanted)),
            room => Err(TableError::Variable { found: room.unwrap_or(0), wanted }),
        }
    }

    fn fixed(&self) -> impl Iterator<Item = R> + use<'a, R> {
        self.fixed_within(true)
    }

    fn fixed_within(&self, has_room: bool) -> impl Iterator<Item = R> + use<'a, R> {
        let rows = if has_room { self.rows } else { 0 };
        let (bytes, row_bytes) = (self.bytes, self.row_bytes);
        (0..rows).map(move |index| R::decode(&bytes[index * row_bytes..][..row_bytes]))
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The rows in order, each with its key and its tag.
    pub fn iter(&self) -> TableIter<'a, R> {
        TableIter { table: *self, index: 0, variable: self.rows * self.row_bytes }
    }
}

impl<'a, R: Row> IntoIterator for &Table<'a, R> {
    type Item = (R, &'a [u8], &'a [u8]);
    type IntoIter = TableIter<'a, R>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The rows of a [`Table`] in order.
#[derive(Debug, Clone)]
pub struct TableIter<'a, R> {
    table: Table<'a, R>,
    index: usize,
    variable: usize,
}

impl<'a, R: Row> Iterator for TableIter<'a, R> {
    type Item = (R, &'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let Table { rows, row_bytes, bytes, .. } = self.table;
        if self.index == rows {
            return None;
        }
        let row = R::decode(&bytes[self.index * row_bytes..][..row_bytes]);
        let (key_bytes, tag_bytes) = row.variable_bytes();
        let (key, rest) = bytes[self.variable..].split_at(key_bytes);
        self.index += 1;
        self.variable += key_bytes + tag_bytes;
        Some((row, key, &rest[..tag_bytes]))
    }
}

/// Appends a frame's header and table to a buffer.
///
/// Rows of several pushes may not be interleaved with their keys, so the
/// variable part is collected aside; with one row nothing is moved twice.
#[derive(Debug)]
pub struct TableBuilder<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    header: Header,
    variable: Vec<u8>,
}

impl<'a> TableBuilder<'a> {
    /// Begins a request.
    pub fn request(out: &'a mut Vec<u8>, opcode: Opcode, request_id: u64) -> Self {
        Self::with_header(out, Header::new(opcode as u8, request_id))
    }

    /// Begins an answer to `request`.
    pub fn answer(out: &'a mut Vec<u8>, request: &Header, status: Status) -> Self {
        let mut header = Header::new(request.opcode, request.request_id);
        header.flags = FrameFlags::ANSWER;
        header.status = status as u8;
        Self::with_header(out, header)
    }

    /// Begins a frame with the fields of `header` that do not depend on the rows.
    pub fn with_header(out: &'a mut Vec<u8>, header: Header) -> Self {
        let start = out.len();
        out.resize(start + Header::BYTES, 0);
        Self { out, start, header, variable: Vec::new() }
    }

    /// Gives the request a deadline relative to its receipt.
    pub fn deadline_ms(&mut self, deadline_ms: u32) {
        self.header.deadline_ms = deadline_ms;
    }

    /// Appends a row with its key and tag. The row's own lengths are overwritten.
    pub fn push<R: Row>(&mut self, row: &R, key: &[u8], tag: &[u8]) {
        let mut row = *row;
        row.set_variable_bytes(key.len(), tag.len());
        let at = self.out.len();
        self.out.resize(at + R::BYTES, 0);
        row.encode(&mut self.out[at..]);
        self.variable.extend_from_slice(key);
        self.variable.extend_from_slice(tag);
        self.header.rows += 1;
        self.header.row_bytes = R::BYTES as u16;
    }

    /// Table bytes so far.
    pub fn table_bytes(&self) -> usize {
        self.out.len() - self.start - Header::BYTES + self.variable.len()
    }

    /// Writes the header; the frame's payload follows it in the stream.
    pub fn finish(self, payload_bytes: u64) {
        self.finish_padded(payload_bytes, 0);
    }

    /// As [`TableBuilder::finish`], with zeros appended until header and table
    /// have `head_bytes`.
    pub fn finish_padded(mut self, payload_bytes: u64, head_bytes: usize) {
        self.out.extend_from_slice(&self.variable);
        let end = self.out.len().max(self.start + head_bytes);
        self.out.resize(end, 0);
        self.header.table_bytes = (end - self.start - Header::BYTES) as u32;
        self.header.payload_bytes = payload_bytes;
        let head = &mut self.out[self.start..];
        self.header.encode(head);
        Header::seal(head);
    }
}

/// Implements [`Row`] for a layout; `key` and `tag` name the fields that state
/// their lengths, `payload` the one that states the row's share of the payload.
macro_rules! impl_row {
    ($name:ident $(, key = $key:ident)? $(, tag = $tag:ident)? $(, payload = $payload:expr)?) => {
        impl crate::Row for $name {
            const BYTES: usize = $name::BYTES;
            #[inline]
            fn decode(bytes: &[u8]) -> Self {
                $name::decode(bytes)
            }
            #[inline]
            fn encode(&self, out: &mut [u8]) {
                $name::encode(self, out);
            }
            #[inline]
            fn variable_bytes(&self) -> (usize, usize) {
                (0 $( + usize::from(self.$key) )?, 0 $( + usize::from(self.$tag) )?)
            }
            #[inline]
            fn set_variable_bytes(&mut self, _key: usize, _tag: usize) {
                $( self.$key = _key.try_into().expect("callers check the length of keys"); )?
                $( self.$tag = _tag.try_into().expect("callers check the length of tags"); )?
            }
            $(
                #[inline]
                fn payload_bytes(&self) -> u64 {
                    ($payload)(self)
                }
            )?
        }
    };
}
pub(crate) use impl_row;

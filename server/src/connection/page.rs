//! Rows of an answer whose number is not known before.

use std::marker::PhantomData;

use rampuddle_protocol::limits::{ROWS_MAX, TABLE_BYTES_MAX};
use rampuddle_protocol::{Header, Row};

use super::request::{answer_header, seal};

/// Rows grow from the front of an answer, keys and tags from the back; moved
/// together at the end.
pub(super) struct RowsPage<R> {
    rows: usize,
    back: usize,
    end: usize,
    /// Room that is kept for the row that says what follows.
    last_bytes: usize,
    row: PhantomData<R>,
}

impl<R: Row> RowsPage<R> {
    /// An empty page within `room` bytes, the last row of which takes at most
    /// `last_bytes`.
    pub(super) fn new(room: usize, last_bytes: usize) -> Self {
        let end = room.min(Header::BYTES + TABLE_BYTES_MAX as usize);
        Self { rows: 0, back: end, end, last_bytes, row: PhantomData }
    }

    /// Writes a row, if room for the last one is left behind it.
    pub(super) fn push(&mut self, out: &mut [u8], row: R, key: &[u8], tag: &[u8]) -> bool {
        let front = Header::BYTES + (self.rows + 1) * R::BYTES;
        let needed = front + key.len() + tag.len() + self.last_bytes;
        if self.back < needed || self.rows + 2 > ROWS_MAX as usize {
            return false;
        }
        self.put(out, row, key, tag);
        true
    }

    /// Writes the row that says what follows.
    pub(super) fn push_last(&mut self, out: &mut [u8], row: R, key: &[u8]) {
        self.put(out, row, key, b"");
    }

    fn put(&mut self, out: &mut [u8], mut row: R, key: &[u8], tag: &[u8]) {
        row.set_variable_bytes(key.len(), tag.len());
        row.encode(&mut out[Header::BYTES + self.rows * R::BYTES..]);
        self.rows += 1;
        self.back -= key.len() + tag.len();
        out[self.back..][..key.len()].copy_from_slice(key);
        out[self.back + key.len()..][..tag.len()].copy_from_slice(tag);
    }

    /// Keys and tags stand in reverse order of the rows; puts them right. Returns
    /// the length of the answer.
    pub(super) fn finish(self, out: &mut [u8], request: &Header) -> usize {
        let front = Header::BYTES + self.rows * R::BYTES;
        let variable = self.end - self.back;
        out.copy_within(self.back..self.end, front);
        let region = &mut out[Header::BYTES..front + variable];
        let (rows, variable_part) = region.split_at_mut(self.rows * R::BYTES);
        variable_part.reverse();
        let mut at = 0;
        for row in rows.chunks_exact(R::BYTES) {
            let (key, tag) = R::decode(row).variable_bytes();
            variable_part[at..at + key + tag].reverse();
            at += key + tag;
        }
        let table_bytes = self.rows * R::BYTES + variable;
        seal(out, &answer_header(request, self.rows, R::BYTES, table_bytes))
    }
}

//! An answer while its rows are decided.

use rampuddle_protocol::limits::TAG_BYTES_MAX;
use rampuddle_protocol::{FrameFlags, Header, Outcome, Status};

use crate::store::Reply;

/// Most bytes that an answer of `rows` outcomes takes before its payload.
pub(super) const fn answer_bytes(rows: u32) -> usize {
    Header::BYTES + rows as usize * (Outcome::BYTES + TAG_BYTES_MAX)
}

/// Writes outcomes and their tags, row by row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draft {
    header: Header,
    done: u32,
    tag_bytes: u32,
}

impl Draft {
    /// An answer to `request`, with as many rows.
    pub(super) fn new(request: &Header) -> Self {
        let mut header = Header::new(request.opcode, request.request_id);
        header.flags = FrameFlags::ANSWER;
        header.rows = request.rows;
        header.row_bytes = Outcome::BYTES as u16;
        Self { header, done: 0, tag_bytes: 0 }
    }

    /// Writes the next row.
    pub(super) fn push(&mut self, out: &mut [u8], reply: &Reply) {
        let tag = reply.tag();
        let row = Outcome { tag_bytes: tag.len() as u8, ..reply.outcome };
        row.encode(&mut out[Header::BYTES + self.done as usize * Outcome::BYTES..]);
        let tags = Header::BYTES + self.header.rows as usize * Outcome::BYTES;
        out[tags + self.tag_bytes as usize..][..tag.len()].copy_from_slice(tag);
        self.done += 1;
        self.tag_bytes += tag.len() as u32;
    }

    /// Writes the header, and returns the length of the answer's head.
    pub(super) fn finish(mut self, out: &mut [u8], payload_bytes: u64) -> usize {
        assert_eq!(self.done, self.header.rows, "every row is answered");
        self.header.table_bytes = self.done * Outcome::BYTES as u32 + self.tag_bytes;
        self.header.payload_bytes = payload_bytes;
        let head = &mut out[..self.header.head_bytes()];
        self.header.encode(head);
        Header::seal(head);
        head.len()
    }
}

/// Writes an answer without rows: the whole request fared like this.
pub(super) fn write_status(out: &mut [u8], request: &Header, status: Status, framing: bool) {
    let mut header = Header::new(request.opcode, request.request_id);
    header.flags = FrameFlags::ANSWER;
    if framing {
        header.flags |= FrameFlags::FRAMING_ERROR;
    }
    header.status = status as u8;
    header.encode(out);
    Header::seal(&mut out[..Header::BYTES]);
}

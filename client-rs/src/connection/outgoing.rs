//! Requests on their way out.

use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::Bytes;
use rampuddle_protocol::limits::{TABLE_BYTES_MAX, TAG_BYTES_MAX};
use rampuddle_protocol::{Header, Opcode, Outcome, Row, TableBuilder, Trailer};
use tokio::time::Instant;

use super::Connection;
use super::pace::Pace;
use crate::error::Error;
use crate::raw::Late;

/// What the server is waited for while a request leaves.
const DOING: &str = "taking a request";

/// Slices of one vectored write.
const SLICES_MAX: usize = 64;

/// Bytes whose checksum is computed when they were written, while the server takes
/// them, in packets as full as they can be: few enough that they are in the
/// processor's cache still.
const STRETCH_BURSTS: usize = 2;
/// The last bytes, which leave together with the trailer.
const TAIL_BYTES: usize = 16 << 10;

/// Bytes that surely fit what the kernels on both sides buffer. While what one
/// side owes the other stays below it, that side never waits for the other to
/// read, so the two cannot wait for each other.
const BUFFERED_BYTES: u64 = 32 << 10;

/// A request that is not answered.
#[derive(Debug)]
pub(super) struct Outstanding {
    pub(super) id: u64,
    pub(super) opcode: Opcode,
    pub(super) rows: u32,
    pub(super) answer_payload_max: u64,
    /// Position in the stream from which on it may have been applied.
    pub(super) decisive_at: u64,
    size: FrameSize,
}

#[cfg(test)]
impl Outstanding {
    pub(super) fn of_size(id: u64, opcode: Opcode, rows: u32, size: FrameSize) -> Self {
        Self { id, opcode, rows, answer_payload_max: 0, decisive_at: 0, size }
    }
}

/// What a request weighs, on its way out and as an answer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FrameSize {
    /// Header and table of the request.
    pub(crate) head_bytes: u64,
    /// Header and table of the answer.
    pub(crate) answer_head_bytes: u64,
    /// Payload of the request.
    pub(crate) payload_bytes: u64,
    /// Payload of the answer, at most.
    pub(crate) answer_payload_bytes: u64,
}

impl FrameSize {
    fn add(self, other: &Self) -> Self {
        Self {
            head_bytes: self.head_bytes + other.head_bytes,
            answer_head_bytes: self.answer_head_bytes + other.answer_head_bytes,
            payload_bytes: self.payload_bytes + other.payload_bytes,
            answer_payload_bytes: self.answer_payload_bytes + other.answer_payload_bytes,
        }
    }
}

impl Connection {
    /// Queues the head of a request and returns its id. `answer_payload_max` is
    /// what its answer may carry at most. Nothing leaves before
    /// [`Connection::send`].
    ///
    /// # Panics
    /// When the head before it has payload that was not sent: that is ours to
    /// avoid.
    pub(crate) fn request<'r, R: Row>(
        &mut self,
        opcode: Opcode,
        rows: impl IntoIterator<Item = (R, &'r [u8], &'r [u8])>,
        answer_payload_max: u64,
    ) -> u64 {
        assert_eq!(self.queued_payload, 0, "payload must be sent before the next request");
        let id = self.next_request_id;
        self.next_request_id += 1;
        let start = self.out.len();
        let mut table = TableBuilder::request(&mut self.out, opcode, id);
        if let Some(deadline) = self.deadline {
            table.deadline_ms(milliseconds_until(deadline));
        }
        let (mut count, mut payload, mut first) = (0, 0, 0);
        for (row, key, tag) in rows {
            table.push(&row, key, tag);
            let share = row.payload_bytes();
            first = if count == 0 { share } else { first };
            (count, payload) = (count + 1, payload + share);
        }
        table.finish(payload);
        self.queued_payload = payload;
        let size = FrameSize {
            head_bytes: (self.out.len() - start) as u64,
            answer_head_bytes: answer_head_bytes(opcode, count),
            payload_bytes: payload,
            answer_payload_bytes: answer_payload_max,
        };
        let head_end = self.written + self.out.len() as u64;
        // A value becomes visible with its last byte; written into, with the first.
        let decisive_at = head_end + if opcode == Opcode::Create { first } else { 0 };
        let rows = count;
        self.outstanding.push(Outstanding {
            id,
            opcode,
            rows,
            answer_payload_max,
            decisive_at,
            size,
        });
        id
    }

    /// As [`Connection::request`], for what is to be done however late it is.
    pub(crate) fn request_without_deadline<'r, R: Row>(
        &mut self,
        opcode: Opcode,
        rows: impl IntoIterator<Item = (R, &'r [u8], &'r [u8])>,
        answer_payload_max: u64,
    ) -> u64 {
        let deadline = self.deadline.take();
        let id = self.request(opcode, rows, answer_payload_max);
        self.deadline = deadline;
        id
    }

    /// Whether one more request may be sent before an answer is received:
    /// within the grants, and so that both sides never wait for each other.
    pub(crate) fn has_room_for(&self, next: &FrameSize) -> bool {
        if self.outstanding.is_empty() {
            return true;
        }
        let open = self.outstanding.iter().map(|request| &request.size);
        let open = open.fold(FrameSize::default(), FrameSize::add);
        let all = open.add(next);
        let requests_hold = self.outstanding.len() < self.greeting.grants.outstanding_requests;
        let bytes = all.payload_bytes + all.answer_payload_bytes;
        let server_never_waits =
            open.answer_head_bytes + open.answer_payload_bytes <= BUFFERED_BYTES;
        let client_never_waits = all.head_bytes + all.payload_bytes <= BUFFERED_BYTES;
        requests_hold
            && bytes <= self.greeting.grants.outstanding_bytes
            && (server_never_waits || client_never_waits)
    }

    /// Writes the heads queued, then `payload`, which belongs to the last of them.
    ///
    /// # Errors
    /// When the connection broke or did not move; it is of no more use then,
    /// and the error says whether the request may be applied.
    ///
    /// # Panics
    /// When `payload` is not as long as the last request's rows state.
    pub(crate) async fn send<B: AsRef<[u8]>>(&mut self, payload: &[B]) -> Result<(), Error> {
        let total: usize = payload.iter().map(|bytes| bytes.as_ref().len()).sum();
        assert_eq!(total as u64, self.queued_payload, "payload must be as long as its rows state");
        self.begin(DOING)?;
        self.write(payload).await?;
        self.sent();
        Ok(())
    }

    /// As [`Connection::send`], for a value whose checksum is computed while it leaves,
    /// and which has a trailer. `tag` is that of its row.
    pub(crate) async fn send_late(
        &mut self,
        bytes: &[u8],
        late: &Late,
        tag: &Bytes,
    ) -> Result<(), Error> {
        let total = bytes.len() + Trailer::BYTES + tag.len();
        assert_eq!(total as u64, self.queued_payload, "payload must be as long as its rows state");
        self.begin(DOING)?;
        let (stretch, mut end) = (STRETCH_BURSTS * self.stream.burst_bytes(), 0);
        while end + TAIL_BYTES < bytes.len() {
            // The head of the request leaves with the first one.
            let (begin, room) = (end, stretch.saturating_sub(self.out.len()).max(1));
            end = (begin + room).min(bytes.len() - TAIL_BYTES);
            self.write(&[&bytes[begin..end]]).await?;
            late.checksum.reach(end);
        }
        let (crc32c, tag) = late.finish(tag);
        let mut trailer = Vec::with_capacity(Trailer::BYTES + tag.len());
        Trailer { crc32c, tag: &tag }.encode(&mut trailer);
        self.write(&[&bytes[end..], &trailer]).await?;
        self.sent();
        Ok(())
    }

    /// The request left.
    fn sent(&mut self) {
        self.queued_payload = 0;
        self.is_intact = true;
    }

    /// Writes the heads queued, then `payload`.
    async fn write<B: AsRef<[u8]>>(&mut self, payload: &[B]) -> Result<(), Error> {
        let mut pace = Pace::default();
        let mut cursor = Cursor::default();
        while !cursor.is_at_end(&self.out, payload) {
            let Self { stream, out, .. } = self;
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = cursor.fill(out, payload, &mut slices);
            let write = stream.write_vectored(&slices[..count]);
            match pace.wait(self.patience, self.deadline, write).await {
                Ok(Ok(0)) => return Err(self.broken(io::ErrorKind::WriteZero.into())),
                Ok(Ok(bytes)) => {
                    pace.moved(bytes);
                    self.moved(bytes);
                    self.written += bytes as u64;
                    cursor.advance(bytes, &self.out, payload);
                }
                Ok(Err(error)) => return Err(self.broken(error)),
                Err(waited) => return Err(self.waited(waited, DOING)),
            }
        }
        self.out.clear();
        Ok(())
    }

    /// Writes the heads queued, none of which has payload.
    pub(crate) async fn flush(&mut self) -> Result<(), Error> {
        self.send::<&[u8]>(&[]).await
    }
}

/// How far a write got: slice 0 is the heads, then come the payload's.
#[derive(Debug, Default)]
struct Cursor {
    slice: usize,
    offset: usize,
}

impl Cursor {
    fn is_at_end<B: AsRef<[u8]>>(&mut self, out: &[u8], payload: &[B]) -> bool {
        self.advance(0, out, payload);
        self.slice > payload.len()
    }

    fn fill<'a, B: AsRef<[u8]>>(
        &self,
        out: &'a [u8],
        payload: &'a [B],
        slices: &mut [IoSlice<'a>],
    ) -> usize {
        let mut count = 0;
        let rest = (self.slice..=payload.len()).map(|index| nth(index, out, payload));
        for (index, bytes) in rest.enumerate() {
            let bytes = if index == 0 { &bytes[self.offset..] } else { bytes };
            if count == slices.len() {
                break;
            }
            if !bytes.is_empty() {
                slices[count] = IoSlice::new(bytes);
                count += 1;
            }
        }
        count
    }

    fn advance<B: AsRef<[u8]>>(&mut self, bytes: usize, out: &[u8], payload: &[B]) {
        self.offset += bytes;
        while self.slice <= payload.len() {
            let length = nth(self.slice, out, payload).len();
            if self.offset < length {
                break;
            }
            self.offset -= length;
            self.slice += 1;
        }
    }
}

fn nth<'a, B: AsRef<[u8]>>(index: usize, out: &'a [u8], payload: &'a [B]) -> &'a [u8] {
    if index == 0 { out } else { payload[index - 1].as_ref() }
}

/// Header and table of the answer to `rows` rows, at most.
pub(crate) fn answer_head_bytes(opcode: Opcode, rows: u32) -> u64 {
    let table = match opcode {
        // Their rows have keys, of any number in List and Map.
        Opcode::List | Opcode::Stat | Opcode::Map => TABLE_BYTES_MAX.into(),
        _ => u64::from(rows) * (Outcome::BYTES + TAG_BYTES_MAX) as u64,
    };
    Header::BYTES as u64 + table
}

fn milliseconds_until(deadline: Instant) -> u32 {
    let left: Duration = deadline.saturating_duration_since(Instant::now());
    u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_writes_of_any_length() {
        let out = b"heads".to_vec();
        let payload: Vec<&[u8]> = vec![b"", b"ab", b"", b"cde", b""];
        for step in 1..=10 {
            let mut cursor = Cursor::default();
            let mut written = Vec::new();
            while !cursor.is_at_end(&out, &payload) {
                let mut slices = [IoSlice::new(&[]); 2];
                let count = cursor.fill(&out, &payload, &mut slices);
                let all: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
                let now = all.len().min(step);
                written.extend_from_slice(&all[..now]);
                cursor.advance(now, &out, &payload);
            }
            assert_eq!(written, b"headsabcde", "step {step}");
        }
    }
}

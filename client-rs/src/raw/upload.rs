//! Values longer than a frame: reserve, fill by handle, publish.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rampuddle_protocol::{
    CreateRow, Header, Opcode, Outcome, PublishRow, Row, RowFlags, ScatterRow, Status,
};

use super::RawClient;
use super::items::Answer;
use super::rolling::Late;
use crate::connection::{Connection, FrameSize, answer_head_bytes};
use crate::error::{Error, Fate};
use crate::retry::Attempts;
use crate::server::{Class, Server};

/// The longest that a server which is busy with reservations is waited for at once.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(1);

/// A value to be uploaded piece by piece.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    /// As for a Create of the whole value; RESERVE is added, the share of the
    /// payload is taken away, CHECKSUM moves to the Publish.
    pub(crate) row: CreateRow,
    pub(crate) key: Bytes,
    pub(crate) tag: Bytes,
    pub(crate) bytes: Bytes,
}

impl RawClient {
    /// Makes one value of any length on one server. It becomes visible whole or
    /// not at all. Sent again, as far as the client's budget goes, when the
    /// connection broke before it can have been published, and when the server
    /// has too many reservations open.
    pub(crate) async fn upload(
        &self,
        server: &Arc<Server>,
        upload: &Upload,
    ) -> Result<Answer, Error> {
        let mut attempts = self.core.retries.first_attempt();
        let is_known_dead = server.is_unreachable();
        loop {
            let outcome = self.try_upload(server, upload, &mut attempts).await;
            let at_least = match &outcome {
                Ok(answer) if answer.status == Status::Busy => {
                    Duration::from_millis(answer.detail).min(BUSY_WAIT_MAX)
                }
                Err(error) if error.is_transient() && error.fate() == Fate::NotSent => {
                    Duration::ZERO
                }
                _ => return outcome,
            };
            if is_known_dead || !self.may_send_again(server, &mut attempts, at_least).await {
                return outcome;
            }
        }
    }

    async fn try_upload(
        &self,
        server: &Arc<Server>,
        upload: &Upload,
        attempts: &mut Attempts,
    ) -> Result<Answer, Error> {
        let mut lease = self.acquire_for_attempt(server, Class::Bulk, attempts).await?;
        let answer = upload.run(&mut lease).await?;
        lease.finish();
        Ok(answer)
    }
}

impl Upload {
    /// What is `late` is computed now: the checksum goes with the Publish, but the
    /// tag with the Create.
    pub(crate) fn new(
        row: CreateRow,
        key: Bytes,
        tag: Bytes,
        bytes: Bytes,
        late: Option<Late>,
    ) -> Self {
        let Some(late) = late else { return Self { row, key, tag, bytes } };
        let (crc32c, tag) = late.finish(&tag);
        let row = CreateRow { flags: row.flags.without(RowFlags::TRAILER), crc32c, ..row };
        Self { row, key, tag, bytes }
    }

    /// Uploads over a connection that nothing else is under way on. An error's
    /// fate is that of the Publish: before it left, nothing was applied.
    pub(crate) async fn run(&self, connection: &mut Connection) -> Result<Answer, Error> {
        let flags = self.row.flags.without(RowFlags::CHECKSUM) | RowFlags::RESERVE;
        let row = CreateRow { flags, value_bytes: 0, crc32c: 0, ..self.row };
        let unpublished = |error: Error| error.with_fate(Fate::NotSent);
        let reserved = ask(connection, Opcode::Create, row, &self.key, &self.tag)
            .await
            .map_err(unpublished)?;
        if reserved.status != Status::Ok {
            return Ok(reserved);
        }
        let mut publish = None;
        let filled = self.fill_and_publish(connection, reserved.detail, &mut publish).await;
        let fate = publish.map_or(Fate::NotSent, |id| connection.fate_of(id));
        filled.map_err(|error| error.with_fate(fate))
    }

    /// Publish follows the last bytes without waiting for their answers: the
    /// server handles one connection's requests in order, and refuses to publish
    /// what is not complete.
    async fn fill_and_publish(
        &self,
        connection: &mut Connection,
        handle: u64,
        publish: &mut Option<u64>,
    ) -> Result<Answer, Error> {
        let mut refusal = None;
        let piece = usize::try_from(connection.grants().payload_bytes).unwrap_or(usize::MAX);
        let mut next = 0;
        let mut open = 0;
        while next < self.bytes.len() {
            let range = next..self.bytes.len().min(next.saturating_add(piece));
            while !connection.has_room_for(&frame_size::<ScatterRow>(range.len() as u64)) {
                let answer = receive(connection).await?.1;
                open -= 1;
                refusal = refusal.or(Some(answer).filter(|answer| answer.status != Status::Ok));
            }
            if refusal.is_some() {
                break; // the rest would only be drained
            }
            next = range.end;
            self.send_piece(connection, handle, range).await?;
            open += 1;
        }
        if refusal.is_none() {
            *publish = Some(self.send_publish(connection, handle).await?);
            open += 1;
        }
        let mut published = None;
        for _ in 0..open {
            let (header, answer) = receive(connection).await?;
            if Some(header.request_id) == *publish {
                published = Some(answer);
            } else {
                refusal = refusal.or(Some(answer).filter(|answer| answer.status != Status::Ok));
            }
        }
        // What kept the value from becoming complete says more than INCOMPLETE.
        let published = published.filter(|answer| answer.status != Status::Incomplete);
        let none = || Answer::of(Status::Incomplete);
        Ok(published.or(refusal).unwrap_or_else(none))
    }

    async fn send_piece(
        &self,
        connection: &mut Connection,
        handle: u64,
        range: Range<usize>,
    ) -> Result<(), Error> {
        let (offset, value_bytes) = (range.start as u64, range.len() as u64);
        let row = ScatterRow { handle, offset, value_bytes, ..ScatterRow::default() };
        connection.request(Opcode::Scatter, [(row, &b""[..], &b""[..])], 0);
        connection.send(&[&self.bytes[range]]).await
    }

    async fn send_publish(&self, connection: &mut Connection, handle: u64) -> Result<u64, Error> {
        let row = PublishRow {
            flags: self.row.flags.among(RowFlags::CHECKSUM),
            crc32c: self.row.crc32c,
            handle,
            length: self.row.length,
            value_bytes: self.bytes.len() as u64,
        };
        let id = connection.request(Opcode::Publish, [(row, &b""[..], &b""[..])], 0);
        connection.flush().await?;
        Ok(id)
    }
}

/// One row there and back, without payload either way.
pub(crate) async fn ask<R: Row>(
    connection: &mut Connection,
    opcode: Opcode,
    row: R,
    key: &[u8],
    tag: &[u8],
) -> Result<Answer, Error> {
    connection.request(opcode, [(row, key, tag)], 0);
    connection.flush().await?;
    Ok(receive(connection).await?.1)
}

/// The next answer, of one row or of a frame that was refused.
async fn receive(connection: &mut Connection) -> Result<(Header, Answer), Error> {
    let header = connection.receive_head().await?;
    if header.status != Status::Ok as u8 {
        let status = Status::from_number(header.status).unwrap_or(Status::Unsupported);
        return Ok((header, Answer::of(status)));
    }
    let row = connection.table::<Outcome>()?.iter().next();
    let answer = row.map(|(row, _, tag)| Answer::from_outcome(&row, tag, Bytes::new()));
    Ok((header, answer.expect("the connection compared the number of rows")))
}

fn frame_size<R: Row>(payload_bytes: u64) -> FrameSize {
    FrameSize {
        head_bytes: (Header::BYTES + R::BYTES) as u64,
        answer_head_bytes: answer_head_bytes(Opcode::Scatter, 1),
        payload_bytes,
        answer_payload_bytes: 0,
    }
}

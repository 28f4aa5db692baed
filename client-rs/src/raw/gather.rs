//! Gather.

use std::sync::Arc;

use rampuddle_protocol::limits::VALUE_BYTES_MAX;
use rampuddle_protocol::{GatherRow, Opcode, Outcome, Status, Version};

use super::batch::{Results, in_parallel};
use super::pipeline::{Landing, Prepared};
use super::write::{failed, key_of};
use super::{Answer, Answered, GatherItem, RawClient, Target, place};
use crate::error::Error;
use crate::server::Server;
use crate::work::Work;

/// A range longer than a frame, whose first piece is in.
struct Long<'b> {
    /// The answer to the first piece.
    first: Answer,
    /// All bytes, the first piece's in place.
    bytes: &'b mut [u8],
}

impl RawClient {
    /// Reads ranges. A range longer than 4 MiB takes two round trips: the first
    /// piece tells the value's version and length, the others ask for that
    /// version; when it was replaced in between, the status is MISMATCH.
    ///
    /// Each answer's bytes are memory of their own.
    ///
    /// # Errors
    /// Per item: keys of impossible length, failures of servers.
    pub async fn gather(
        &self,
        target: &Target,
        items: Vec<GatherItem>,
    ) -> Vec<Result<Answer, Error>> {
        let call = &self.begun(target);
        let mut results = Results::new(items.len());
        let key_of = key_of(|item: &GatherItem| (&item.key, item.placement_bytes));
        let check = |item: &GatherItem| Self::check_readable(&item.key);
        let groups = call.grouped(target, items, &mut results, key_of, check);
        in_parallel(groups, &mut results, |server, items| call.gather_on(server, items)).await;
        results.finish()
    }

    /// Reads one range into the begin of the caller's memory, which must have
    /// room for all that is asked for; otherwise as [`RawClient::gather`]. The answer
    /// has no bytes, and says how many there are.
    ///
    /// # Errors
    /// A key of impossible length, a buffer that is too short, failures of servers.
    pub async fn gather_into(
        &self,
        target: &Target,
        item: &GatherItem,
        buffer: &mut [u8],
    ) -> Result<Answer, Error> {
        self.begun(target).gather_range(target, item, buffer).await
    }

    fn gather_range<'a>(
        &'a self,
        target: &'a Target,
        item: &'a GatherItem,
        buffer: &'a mut [u8],
    ) -> Work<'a, Result<Answer, Error>> {
        Box::pin(async move {
            let limit = buffer.len() as u64;
            if item.length > limit {
                return Err(Error::TooLarge { what: "a range", bytes: item.length, limit });
            }
            Self::check_readable(&item.key)?;
            let name = place(&self.view(), target, &item.key, item.placement_bytes)?;
            let (server, grants) = self.granted(&name).await?;
            let piece = grants.payload_bytes;
            let bytes = &mut buffer[..item.length.min(piece) as usize];
            let length = bytes.len() as u64;
            let landing = Landing { bytes, share: None };
            let first = self.gather_row(&server, item, length, Some(landing)).await?;
            if !has_more(item, &first, piece) {
                return Ok(first);
            }
            let bytes = &mut buffer[..long_bytes(item, &first) as usize];
            let (answer, _) = self.gather_rest(&server, item, Long { first, bytes }, piece).await?;
            Ok(answer)
        })
    }

    /// Reads the begin of a range, at most a frame, from one server; its first bytes
    /// go where they are wanted, if anywhere.
    pub(crate) async fn gather_one(
        &self,
        name: &str,
        item: &GatherItem,
        landing: Option<Landing<'_>>,
    ) -> Result<Answer, Error> {
        Self::check_readable(&item.key)?;
        let (server, grants) = self.granted(name).await?;
        let length = item.length.min(grants.payload_bytes);
        self.gather_row(&server, item, length, landing).await
    }

    async fn gather_row(
        &self,
        server: &Arc<Server>,
        item: &GatherItem,
        length: u64,
        into: Option<Landing<'_>>,
    ) -> Result<Answer, Error> {
        let row = Prepared { into, ..row(0, item, 0, length, item.if_version) };
        let replies = self.send_rows::<GatherRow, Outcome>(server, Opcode::Gather, vec![row]).await;
        let (_, answer) = self.answers(replies).next().expect("each row has its answer");
        answer
    }

    fn gather_on<'a>(
        &'a self,
        name: Arc<str>,
        items: Vec<(usize, GatherItem)>,
    ) -> Work<'a, Answered> {
        Box::pin(async move {
            let (server, grants) = match self.granted(&name).await {
                Ok(both) => both,
                Err(error) => return failed(items.iter().map(|(index, _)| *index), &error),
            };
            let piece = grants.payload_bytes;
            // Indices into `items` here, the caller's own again below.
            let first = |(at, (_, item)): (usize, &(usize, GatherItem))| {
                row(at, item, 0, item.length.min(piece), item.if_version)
            };
            let rows = items.iter().enumerate().map(first).collect();
            let replies = self.send_rows::<GatherRow, Outcome>(&server, Opcode::Gather, rows).await;
            let mut firsts: Vec<_> = self.answers(replies).collect();
            firsts.sort_unstable_by_key(|(at, _)| *at);
            let mut done = Vec::with_capacity(items.len());
            for ((index, item), (_, answer)) in items.into_iter().zip(firsts) {
                match answer {
                    Ok(first) if has_more(&item, &first, piece) => {
                        done.push((index, self.gather_long(&server, &item, first, piece).await));
                    }
                    answer => done.push((index, answer)),
                }
            }
            done
        })
    }

    /// Reads a range whose first piece is in into memory of its own.
    async fn gather_long(
        &self,
        server: &Arc<Server>,
        item: &GatherItem,
        mut first: Answer,
        piece: u64,
    ) -> Result<Answer, Error> {
        let length = long_bytes(item, &first);
        let failed = |source| Error::local(format!("no memory for {length} bytes read"), source);
        let mut buffer = self.core.servers.access().buffers.take(length).map_err(failed)?;
        buffer[..first.bytes.len()].copy_from_slice(&std::mem::take(&mut first.bytes));
        let long = Long { first, bytes: &mut buffer };
        let (mut answer, is_whole) = self.gather_rest(server, item, long, piece).await?;
        if is_whole {
            buffer.truncate(answer.length as usize);
            answer.bytes = buffer.into_bytes();
        }
        Ok(answer)
    }

    /// Reads what follows the first piece, and says whether nothing was refused.
    async fn gather_rest(
        &self,
        server: &Arc<Server>,
        item: &GatherItem,
        long: Long<'_>,
        piece: u64,
    ) -> Result<(Answer, bool), Error> {
        let Long { first, bytes } = long;
        let slices = bytes.chunks_mut(piece as usize).enumerate().skip(1);
        let rows = slices.map(|(at, bytes)| {
            let (start, length) = (at as u64 * piece, bytes.len() as u64);
            let into = Some(Landing { bytes, share: None });
            Prepared { into, ..row(at, item, start, length, first.version) }
        });
        let rows = rows.collect();
        let replies = self.send_rows::<GatherRow, Outcome>(server, Opcode::Gather, rows).await;
        let mut pieces: Vec<_> = self.answers(replies).collect();
        pieces.sort_unstable_by_key(|(at, _)| *at);
        let mut length = piece;
        for (at, answer) in pieces {
            let answer = answer?;
            if answer.status != Status::Ok {
                return Ok((answer, false));
            }
            // After a short piece (FILLED) only empty ones are in place.
            if answer.length > 0 && length != at as u64 * piece {
                return Ok((Answer::of(Status::BadRange), false));
            }
            length += answer.length;
        }
        Ok((Answer { length, ..first }, true))
    }
}

/// The length of a range whose first piece is in: the caller's wish cut at the
/// value's end, as the server states it, and at what a value may be.
fn long_bytes(item: &GatherItem, first: &Answer) -> u64 {
    let wanted = item.length.min(first.detail.saturating_sub(item.offset));
    wanted.min(VALUE_BYTES_MAX).max(first.length)
}

/// Whether bytes that the caller wants lie behind the first piece.
fn has_more(item: &GatherItem, first: &Answer, piece: u64) -> bool {
    first.status == Status::Ok
        && first.length == piece
        && item.length > piece
        && first.detail.saturating_sub(item.offset) > piece
}

fn row<'b>(
    index: usize,
    item: &GatherItem,
    start: u64,
    length: u64,
    if_version: Version,
) -> Prepared<'b, GatherRow> {
    let row = GatherRow {
        flags: item.flags,
        offset: item.offset.saturating_add(start),
        length,
        if_version,
        set: item.set,
        ..GatherRow::default()
    };
    Prepared { answer_bytes: length, ..Prepared::new(index, row, item.key.clone()) }
}

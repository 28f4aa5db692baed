//! Gather.

use std::sync::Arc;

use bytes::Bytes;
use rampuddle_protocol::limits::VALUE_BYTES_MAX;
use rampuddle_protocol::{GatherRow, Opcode, Outcome, Status, Version};

use super::batch::{Results, in_parallel};
use super::pipeline::Prepared;
use super::write::{failed, key_of};
use super::{Answer, Answered, GatherItem, RawClient, Target};
use crate::error::Error;
use crate::server::Server;
use crate::work::Work;

/// A range longer than a frame, whose first piece is in.
struct Long {
    item: GatherItem,
    /// The answer to the first piece, with its bytes.
    first: Answer,
    /// All bytes, the first piece's in place.
    bytes: Vec<u8>,
}

impl RawClient {
    /// Reads ranges. A range longer than 4 MiB takes two round trips: the first
    /// piece tells the value's version and length, the others ask for that
    /// version; when it was replaced in between, the status is MISMATCH.
    ///
    /// Each answer's bytes are fresh memory of at most the length asked for.
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
                        let long = Long::new(item, first);
                        done.push((index, self.gather_rest(&server, long, piece).await));
                    }
                    answer => done.push((index, answer)),
                }
            }
            done
        })
    }

    async fn gather_rest(
        &self,
        server: &Arc<Server>,
        mut long: Long,
        piece: u64,
    ) -> Result<Answer, Error> {
        let Long { item, first, bytes, .. } = &mut long;
        let slices = bytes.chunks_mut(piece as usize).enumerate().skip(1);
        let rows = slices.map(|(at, slice)| {
            let (start, length) = (at as u64 * piece, slice.len() as u64);
            Prepared { into: Some(slice), ..row(at, item, start, length, first.version) }
        });
        let rows = rows.collect();
        let replies = self.send_rows::<GatherRow, Outcome>(server, Opcode::Gather, rows).await;
        let mut pieces: Vec<_> = self.answers(replies).collect();
        pieces.sort_unstable_by_key(|(at, _)| *at);
        let mut length = piece;
        for (at, answer) in pieces {
            let answer = answer?;
            if answer.status != Status::Ok {
                return Ok(answer);
            }
            // After a short piece (FILLED) only empty ones are in place.
            if answer.length > 0 && length != at as u64 * piece {
                return Ok(Answer::of(Status::BadRange));
            }
            length += answer.length;
        }
        long.bytes.truncate(length as usize);
        Ok(Answer { length, bytes: long.bytes.into(), ..long.first })
    }
}

impl Long {
    /// The length is the caller's wish cut at the value's end, as the server
    /// states it, and at what a value may be.
    fn new(item: GatherItem, mut first: Answer) -> Self {
        let wanted = item.length.min(first.detail.saturating_sub(item.offset));
        let wanted = wanted.min(VALUE_BYTES_MAX).max(first.length);
        let mut bytes = vec![0; wanted as usize];
        bytes[..first.bytes.len()].copy_from_slice(&first.bytes);
        first.bytes = Bytes::new();
        Self { item, first, bytes }
    }
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

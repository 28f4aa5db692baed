//! Handing an object out in order, while more of it is on its way.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join;
use futures_util::stream::{self, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::hedge::Hedging;
use super::in_place::cut_parts;
use super::opened::{Opened, PIECES_AT_ONCE, Stopped};
use super::read::{Piece, Reading, Unread};
use super::report::{GetOptions, GetReport};
use crate::error::Error;

/// A piece that was read.
struct Ready {
    /// Where it begins in the object.
    begin: u64,
    bytes: u64,
    parts: Vec<Bytes>,
    /// How many of its bytes lie on this machine.
    here: u64,
    /// Stands for its memory, from when it is asked for until it is taken.
    permit: OwnedSemaphorePermit,
}

impl Opened {
    /// Hands a range to `take` in order, piece by piece. While `take` is slow,
    /// nothing is asked of servers that would wait for it.
    pub(super) async fn stream<F: Future<Output = Result<(), Error>>>(
        &self,
        range: &Range<u64>,
        options: &GetOptions,
        mut take: impl FnMut(Bytes) -> F,
    ) -> Result<GetReport, Stopped> {
        if self.tag().is_inline() {
            return self.stream_inline(range, options, take).await;
        }
        let (reading, hedging) = (&self.reading(options), &Hedging::in_order());
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let read = async move {
            let permits = Arc::new(Semaphore::new(PIECES_AT_ONCE));
            let reads = stream::iter((0..).zip(self.pieces_of(range))).map(|(number, piece)| {
                let permits = Arc::clone(&permits);
                async move {
                    let permit = permits.acquire_owned().await.expect("never closed");
                    self.ready(reading, hedging, (number, piece), permit).await
                }
            });
            let mut reads = std::pin::pin!(reads.buffered(PIECES_AT_ONCE));
            while let Some(read) = reads.next().await {
                let _ = sender.send(read.map_err(Stopped::Unread)?);
            }
            Ok(())
        };
        let write = async {
            let (mut number, mut all_here) = (0, 0);
            while let Some(Ready { begin, bytes, parts, here, permit }) = receiver.recv().await {
                let from = range.start.max(begin) - begin;
                let to = range.end.min(begin + bytes) - begin;
                for bytes in cut_parts(parts, from..to) {
                    take(bytes).await.map_err(Stopped::Local)?;
                }
                drop(permit);
                all_here += here;
                number += 1;
                hedging.awaits(number);
            }
            Ok(all_here)
        };
        let ((), here) = try_join(read, write).await?;
        let length = range.end - range.start;
        Ok(self.report(length, reading.served.list(), here.min(length)))
    }

    async fn stream_inline<F: Future<Output = Result<(), Error>>>(
        &self,
        range: &Range<u64>,
        options: &GetOptions,
        mut take: impl FnMut(Bytes) -> F,
    ) -> Result<GetReport, Stopped> {
        let length = range.end - range.start;
        let (parts, here) = match self.in_place {
            Some(_) => (self.inline_parts(range, options).map_err(Stopped::Unread)?, length),
            None => {
                let within = range.start as usize..range.end as usize;
                (vec![self.head.inline.slice(within)], 0)
            }
        };
        for bytes in parts {
            take(bytes).await.map_err(Stopped::Local)?;
        }
        Ok(self.inline_report(length, here, options))
    }

    /// Reads one piece, from where it lies on this machine if it does.
    async fn ready(
        &self,
        reading: &Reading<'_>,
        hedging: &Hedging,
        (number, (begin, piece)): (u64, (u64, Piece)),
        permit: OwnedSemaphorePermit,
    ) -> Result<Ready, Unread> {
        let bytes = piece.bytes;
        let found = match &self.in_place {
            Some(in_place) => reading.parts_here(in_place, &piece).await?,
            None => None,
        };
        let (parts, here) = match found {
            Some(found) => found,
            None => (vec![hedging.new_piece(reading, &piece, number).await?], 0),
        };
        Ok(Ready { begin, bytes, parts, here, permit })
    }
}

//! An object that is being read: its head, and the holds that keep it readable.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::join;
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::format::Tag;
use super::head::{Head, Part, Wanted, find, find_greatest, find_wanted};
use super::hedge::{Hedging, Patience};
use super::hold::Hold;
use super::in_place::InPlace;
use super::operation::Operation;
use super::ranks::answers;
use super::read::{Piece, Reading, Unread, begin_of, blocks_per_stripe, pieces, pieces_of_at_most};
use super::report::{GetOptions, GetReport, Value};
use crate::buffers::Buffer;
use crate::error::Error;

/// Pieces read at once, each of at most 1 MiB.
pub(super) const PIECES_AT_ONCE: usize = 8;
/// Times that opening begins anew because the object was replaced meanwhile.
const RESTARTS_MAX: usize = 5;

/// An object with a head that was found, and held when it has stripes.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) operation: Operation,
    pub(super) head: Head,
    restarts: usize,
    _hold: Option<Hold>,
    /// What of it lies on this machine. An inline object's bytes are there, or in its
    /// head.
    pub(super) in_place: Option<InPlace>,
}

impl Opened {
    /// Finds an object and holds it; the bytes of an inline one are where they are
    /// wanted, perhaps. `None` = Absent.
    pub(super) async fn open(
        operation: &Operation,
        key: &Bytes,
        mut wanted: Wanted<'_>,
    ) -> Result<Option<Self>, Error> {
        if let Some((head, in_place)) = InPlace::find(operation, key, wanted.verify).await {
            return Self::open_here(operation, key, head, in_place).await;
        }
        let head = find_wanted(operation, key, Part::All, &mut wanted).await?;
        Self::settle(operation, key, head, 0).await
    }

    /// Opens what a server on this machine has, and keeps. When that is all of it, no
    /// other is asked.
    async fn open_here(
        operation: &Operation,
        key: &Bytes,
        head: Head,
        in_place: Option<InPlace>,
    ) -> Result<Option<Self>, Error> {
        let is_whole = in_place.as_ref().is_none_or(|in_place| in_place.is_whole(&head.tag));
        if is_whole {
            let operation = operation.clone();
            return Ok(Some(Self { operation, head, restarts: 0, _hold: None, in_place }));
        }
        let mut in_place = in_place.unwrap_or_default();
        let found = head.clone();
        let settled = Self::settle(operation, key, Some(head), 0);
        let patience = Patience::default();
        let more = in_place.find_more(operation, &found, &patience);
        let (settled, ()) = join(settled, more).await;
        let is_same = |opened: &Self| opened.head.tag.upload == found.tag.upload;
        Ok(settled?.map(|opened| match is_same(&opened) {
            true => Self { in_place: Some(in_place), ..opened },
            false => opened,
        }))
    }

    /// Holds what was found, and looks whether it still stands: what is held and
    /// stands can be read to its end, whatever becomes of it.
    async fn settle(
        operation: &Operation,
        key: &Bytes,
        mut found: Option<Head>,
        restarts: usize,
    ) -> Result<Option<Self>, Error> {
        for restarts in restarts..RESTARTS_MAX {
            let Some(head) = found else { return Ok(None) };
            let operation = operation.clone();
            if head.tag.is_inline() {
                return Ok(Some(Self { operation, head, restarts, _hold: None, in_place: None }));
            }
            let members = operation.views.current();
            let servers = members.members().iter().filter(|member| member.state.is_read_from());
            let servers = servers.filter(|member| answers(&operation, &member.name));
            let servers = servers.map(|member| Arc::clone(&member.name)).collect();
            let hold = Hold::take(&operation, servers, head.tag.upload).await;
            // An owner that missed a write may show an older head: only a greater
            // one, or a delete, means that this one does not stand any more.
            // Of one that was replaced some stripes are gone: nobody is to be handed
            // the begin of it. The head is of the set, too.
            let still = match hold.values > head.tag.stripes() {
                true => find(&operation, key, Part::Tag).await?,
                false => find_greatest(&operation, key, Part::Tag).await?,
            };
            match still {
                None => return Ok(None),
                Some(still) if still.tag.version <= head.tag.version => {
                    let _hold = Some(hold);
                    return Ok(Some(Self { operation, head, restarts, _hold, in_place: None }));
                }
                Some(_) => found = find_greatest(&operation, key, Part::All).await?,
            }
        }
        let problems = vec![format!("it was replaced {RESTARTS_MAX} times")];
        Err(Error::Unsettled { name: key[1..].into(), problems })
    }

    /// Begins anew after stripes were found missing: another head may be newer
    /// than the one that was read.
    pub(super) async fn reopen(self, unread: Unread) -> Result<Option<Self>, Error> {
        if self.in_place.is_some() && self.tag().is_inline() {
            // What lies here is damaged; other servers may have it whole.
            let head = find(&self.operation, &self.head.key, Part::All).await?;
            return Self::settle(&self.operation, &self.head.key, head, self.restarts + 1).await;
        }
        match find_greatest(&self.operation, &self.head.key, Part::All).await {
            Ok(None) => Ok(None),
            Ok(Some(found)) if found.tag.version > self.head.tag.version => {
                let Self { operation, head, restarts, _hold, in_place: _ } = self;
                Self::settle(&operation, &head.key, Some(found), restarts + 1).await
            }
            found => Err(self.unreadable(unread, found.err())),
        }
    }

    /// Why the rest of an object cannot be read, of which bytes were handed out
    /// already: another one cannot take its place.
    pub(super) async fn broken_off(self, unread: Unread) -> Error {
        match find_greatest(&self.operation, &self.head.key, Part::Tag).await {
            Ok(Some(found)) if found.tag.version <= self.head.tag.version => {
                self.unreadable(unread, None)
            }
            Ok(_) => Error::Unsettled { name: self.name(), problems: unread.problems() },
            Err(error) => self.unreadable(unread, Some(error)),
        }
    }

    fn unreadable(&self, unread: Unread, head: Option<Error>) -> Error {
        let mut problems = unread.problems();
        problems.extend(head.map(|error| error.to_string()));
        Error::Unreadable { name: self.name(), problems }
    }

    fn name(&self) -> Arc<[u8]> {
        self.head.key[1..].into()
    }

    pub(super) fn tag(&self) -> &Tag {
        &self.head.tag
    }

    pub(super) fn reading<'r>(&'r self, options: &'r GetOptions) -> Reading<'r> {
        Reading {
            operation: &self.operation,
            tag: self.head.tag,
            table: &self.head.table,
            verify: options.verify,
            progress: options.progress.as_deref(),
            served: Default::default(),
        }
    }

    pub(super) fn report(&self, bytes: u64, served: Vec<(String, u64)>, mapped: u64) -> GetReport {
        let Tag { object_bytes, version, .. } = self.head.tag;
        let metadata = Arc::new(self.head.sections.metadata.clone());
        GetReport { bytes, object_bytes, version, served, mapped, metadata }
    }

    /// Of a read of which so many bytes are handed out where they lie.
    pub(super) fn inline_report(&self, bytes: u64, mapped: u64, options: &GetOptions) -> GetReport {
        if let Some(progress) = &options.progress {
            progress.add(bytes);
        }
        self.report(bytes, vec![(self.head.server.to_string(), bytes)], mapped)
    }

    /// Reads a range into new memory.
    pub(super) async fn read(
        &self,
        range: &Range<u64>,
        options: &GetOptions,
    ) -> Result<Value, Stopped> {
        if let Some(value) = self.view(range, options).await? {
            return Ok(value);
        }
        if self.tag().is_inline() {
            if self.in_place.is_some() {
                let parts = self.inline_parts(range, options).map_err(Stopped::Unread)?;
                let bytes = range.end - range.start;
                return Ok(Value::of_parts(parts, self.inline_report(bytes, bytes, options)));
            }
            let bytes = self.head.inline.slice(range.start as usize..range.end as usize);
            let report = self.inline_report(bytes.len() as u64, 0, options);
            return Ok(Value::new(bytes, report));
        }
        if range.is_empty() {
            return Ok(Value::new(Bytes::new(), self.report(0, Vec::new(), 0)));
        }
        let region: u64 = pieces(self.tag(), range).map(|piece| piece.bytes).sum();
        let mut buffer = self.memory(region).map_err(Stopped::Local)?;
        let reading = self.reading(options);
        let waiting = with_memory(pieces(self.tag(), range), &mut buffer);
        read_all(&reading, waiting).await.map_err(Stopped::Unread)?;
        let within = (range.start - begin_of(range)) as usize;
        let length = (range.end - range.start) as usize;
        let bytes = buffer.into_bytes().slice(within..within + length);
        Ok(Value::new(bytes, self.report(length as u64, reading.served.list(), 0)))
    }

    /// The pieces that cover a range, each with its begin in the object.
    pub(super) fn pieces_of(
        &self,
        range: &Range<u64>,
    ) -> impl Iterator<Item = (u64, Piece)> + use<> {
        with_begins(begin_of(range), pieces(self.tag(), range))
    }

    /// The stripes that cover a range, as pieces, each with its begin in the object.
    pub(super) fn stripes_of(
        &self,
        range: &Range<u64>,
    ) -> impl Iterator<Item = (u64, Piece)> + use<> {
        let of_stripe = blocks_per_stripe(self.tag());
        with_begins(begin_of(range), pieces_of_at_most(of_stripe, self.tag(), range))
    }

    /// Memory for so many bytes of the object.
    pub(super) fn memory(&self, length: u64) -> Result<Buffer, Error> {
        let name = self.head.key[1..].escape_ascii();
        let failed =
            |source| Error::local(format!("no memory for {length} bytes of \"{name}\""), source);
        self.operation.servers.access().buffers.take(length).map_err(failed)
    }

    /// Reads the whole object into memory of just its length, in which it was wanted.
    pub(super) async fn read_into(
        &self,
        out: &mut [u8],
        options: &GetOptions,
    ) -> Result<GetReport, Unread> {
        let length = out.len() as u64;
        if self.tag().is_inline() {
            if self.in_place.is_some() {
                self.copy_inline(out, options)?;
            } else if !self.head.has_landed {
                out.copy_from_slice(&self.head.inline);
            }
            let here = if self.in_place.is_some() { length } else { 0 };
            return Ok(self.inline_report(length, here, options));
        }
        let reading = self.reading(options);
        let (rest, copied) = self.copy_here(&reading, out).await;
        read_all(&reading, rest).await?;
        Ok(self.report(length, reading.served.list(), copied))
    }
}

/// Why a read ended early.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The servers did not give it.
    Unread(Unread),
    /// The reader did not take it.
    Local(Error),
}

/// Reads all pieces, several at once, in an order of this reader's own, so that
/// readers who begin together do not all ask the same server first. As many futures as
/// there are pieces at once read one piece after the other: one future for each piece
/// would cost more than a hundredth of the object in memory.
async fn read_all(
    reading: &Reading<'_>,
    mut waiting: Vec<(Piece, &mut [u8])>,
) -> Result<(), Unread> {
    shuffle(reading.operation, &mut waiting);
    let at_once = waiting.len().min(PIECES_AT_ONCE);
    let (hedging, waiting) = (&Hedging::in_any_order(), &Mutex::new(waiting));
    let next = move || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let one_after_the_other = || async move {
        while let Some((piece, slice)) = next() {
            hedging.piece(reading, &piece, slice).await?;
        }
        hedging.spares();
        Ok(())
    };
    let mut under_way: FuturesUnordered<_> = (0..at_once).map(|_| one_after_the_other()).collect();
    while let Some(read) = under_way.next().await {
        read?;
    }
    Ok(())
}

/// Pieces that follow each other from `at` on, each with its begin in the object.
fn with_begins(
    mut at: u64,
    pieces: impl Iterator<Item = Piece>,
) -> impl Iterator<Item = (u64, Piece)> {
    pieces.map(move |piece| {
        let begin = at;
        at += piece.bytes;
        (begin, piece)
    })
}

/// Pieces, one behind the other, each with its part of `out`.
fn with_memory(pieces: impl Iterator<Item = Piece>, mut out: &mut [u8]) -> Vec<(Piece, &mut [u8])> {
    let mut all = Vec::new();
    for piece in pieces {
        let (slice, rest) = out.split_at_mut(piece.bytes as usize);
        all.push((piece, slice));
        out = rest;
    }
    all
}

/// Fisher and Yates' shuffle.
fn shuffle<T>(operation: &Operation, items: &mut [T]) {
    let random = &operation.servers.access().environment.random;
    for last in (1..items.len()).rev() {
        let mut draw = [0; 8];
        random.fill(&mut draw);
        items.swap(last, (u64::from_le_bytes(draw) % (last as u64 + 1)) as usize);
    }
}

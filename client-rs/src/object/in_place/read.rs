//! Reading what lies on this machine: views, copies, and the rest as ever.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::task::yield_now;

use super::places::Places;
use super::{Assembly, InPlace};
use crate::object::codec::{Codec, unpack};
use crate::object::hedge::Hedging;
use crate::object::opened::{Opened, PIECES_AT_ONCE, Stopped};
use crate::object::read::{Piece, Reading, Unread, blocks_per_stripe};
use crate::object::report::{GetOptions, Value};
use crate::object::verifier::Verifier;

/// What is copied at once, so that it is in the cache still when its checksum is
/// computed.
const COPY_BYTES: usize = 256 << 10;

/// A piece that does not lie here as readers want it.
struct Missing {
    piece: Piece,
    /// What is wanted of it, and where that goes.
    wanted: Range<u64>,
    place: usize,
    /// Once it was fetched.
    bytes: Option<Bytes>,
}

impl Opened {
    /// A view of a range, as much of it as lies here. `None` = nothing does.
    pub(in crate::object) async fn view(
        &self,
        range: &Range<u64>,
        options: &GetOptions,
    ) -> Result<Option<Value>, Stopped> {
        let Some(in_place) = &self.in_place else { return Ok(None) };
        if self.tag().is_inline() {
            return Ok(self.inline_view(in_place, range, options));
        }
        let reading = self.reading(options);
        let (mut assembly, mut missing) = (Assembly::default(), Vec::new());
        for (begin, stripe) in self.stripes_of(range) {
            if !options.verify_mapped
                && let Some(places) = reading.plain_places(in_place, &stripe)
            {
                let wanted = wanted_of(range, begin, &stripe);
                assembly.push_places(&places.part(wanted).expect("a stripe has all of its bytes"));
                continue;
            }
            let of_stripe = range.start.max(begin)..range.end.min(begin + stripe.bytes);
            for (begin, piece) in self.pieces_of(&of_stripe) {
                let wanted = wanted_of(range, begin, &piece);
                let places = reading
                    .plain_places(in_place, &piece)
                    .filter(|places| !options.verify_mapped || reading.is_right(places, &piece));
                match places.map(|places| places.part(wanted.clone())) {
                    Some(part) => {
                        assembly.push_places(&part.expect("a piece has all of its bytes"));
                    }
                    None => {
                        let place = assembly.leave_out();
                        missing.push(Missing { piece, wanted, place, bytes: None });
                    }
                }
                if options.verify_mapped {
                    yield_now().await;
                }
            }
        }
        if !assembly.is_mapped() && self.tag().codec == Codec::None {
            return Ok(None);
        }
        self.fetch(&reading, in_place, &mut missing).await?;
        for Missing { wanted, place, bytes, .. } in missing {
            let bytes = bytes.expect("the rest was fetched");
            assembly.fill(place, bytes.slice(wanted.start as usize..wanted.end as usize));
        }
        let (parts, mapped) = assembly.finish();
        let mapped = reading.serve(&mapped);
        options.progress.iter().for_each(|progress| progress.add(mapped));
        let report = self.report(range.end - range.start, reading.served.list(), mapped);
        Ok(Some(Value::of_parts(parts, report)))
    }

    fn inline_view(
        &self,
        in_place: &InPlace,
        range: &Range<u64>,
        options: &GetOptions,
    ) -> Option<Value> {
        let places = in_place.inline(self.tag())?;
        if options.verify_mapped && !self.is_right_inline(&places) {
            return None;
        }
        let part = places.part(range.clone())?;
        let mut assembly = Assembly::default();
        assembly.push_places(&part);
        let (parts, mapped) = assembly.finish();
        let mapped = mapped.iter().map(|(_, bytes)| bytes).sum();
        Some(Value::of_parts(parts, self.inline_report(range.end - range.start, mapped, options)))
    }

    /// Compares an inline object with its checksum where it lies.
    fn is_right_inline(&self, places: &Places<'_>) -> bool {
        let is_right = self.head.is_right_inline(places.slices());
        if !is_right {
            self.operation.servers.access().counters.found_damaged();
        }
        is_right
    }

    /// Where the bytes of an inline object lie, compared with their checksum if that is
    /// wanted.
    fn right_inline(&self, options: &GetOptions) -> Result<Places<'_>, Unread> {
        let places = self.in_place.as_ref().and_then(|in_place| in_place.inline(self.tag()));
        let is_wanted = options.verify || options.verify_mapped;
        let places = places.filter(|places| !is_wanted || self.is_right_inline(places));
        let server = &self.head.server;
        let wrong = || Unread::Failed(vec![format!("the head on server \"{server}\" is damaged")]);
        places.ok_or_else(wrong)
    }

    /// Copies an inline object from where it lies.
    pub(in crate::object) fn copy_inline(
        &self,
        mut out: &mut [u8],
        options: &GetOptions,
    ) -> Result<(), Unread> {
        for slice in self.right_inline(options)?.slices() {
            let (now, behind) = out.split_at_mut(slice.len());
            now.copy_from_slice(slice);
            out = behind;
        }
        Ok(())
    }

    /// A range of an inline object where it lies, for somebody who writes it somewhere.
    pub(in crate::object) fn inline_parts(
        &self,
        range: &Range<u64>,
        options: &GetOptions,
    ) -> Result<Vec<Bytes>, Unread> {
        let mut assembly = Assembly::default();
        let part = self.right_inline(options)?.part(range.clone());
        part.iter().for_each(|part| assembly.push_places(part));
        Ok(assembly.finish().0)
    }

    /// Fetches what does not lie here as readers want it, several pieces at once.
    async fn fetch(
        &self,
        reading: &Reading<'_>,
        in_place: &InPlace,
        missing: &mut [Missing],
    ) -> Result<(), Stopped> {
        let hedging = &Hedging::in_any_order();
        let mut missing = missing.iter_mut();
        let mut fetch_next = || {
            let Missing { piece, bytes, .. } = missing.next()?;
            Some(async move {
                *bytes = Some(reading.new_piece_near(in_place, piece, hedging).await?);
                Ok::<(), Unread>(())
            })
        };
        let mut under_way = FuturesUnordered::new();
        under_way.extend(std::iter::from_fn(&mut fetch_next).take(PIECES_AT_ONCE));
        while let Some(done) = under_way.next().await {
            done.map_err(Stopped::Unread)?;
            match fetch_next() {
                Some(next) => under_way.push(next),
                None => hedging.spares(),
            }
        }
        Ok(())
    }

    /// Copies what lies here to `out`, the memory of the whole object; the pieces that
    /// do not, each with its memory.
    pub(in crate::object) async fn copy_here<'o>(
        &self,
        reading: &Reading<'_>,
        mut out: &'o mut [u8],
    ) -> (Vec<(Piece, &'o mut [u8])>, u64) {
        let (mut rest, mut copied) = (Vec::new(), 0);
        for (_, piece) in self.pieces_of(&(0..out.len() as u64)) {
            let (slice, behind) = out.split_at_mut(piece.bytes as usize);
            out = behind;
            let in_place = self.in_place.as_ref();
            let places = in_place.and_then(|in_place| reading.plain_places(in_place, &piece));
            if places.is_some_and(|places| reading.copy(&places, &piece, slice)) {
                copied += piece.bytes;
                // Others may have waited for this thread meanwhile.
                yield_now().await;
            } else {
                rest.push((piece, slice));
            }
        }
        (rest, copied)
    }
}

impl Reading<'_> {
    /// Where a piece lies that is stored as readers want it.
    fn plain_places<'p>(&self, in_place: &'p InPlace, piece: &Piece) -> Option<Places<'p>> {
        let is_plain = self.is_stored_as_it_is(piece);
        self.places(in_place, piece).filter(|_| is_plain)
    }

    /// Where the stored bytes of a piece lie.
    fn places<'p>(&self, in_place: &'p InPlace, piece: &Piece) -> Option<Places<'p>> {
        let (begin, length) = self.place_of(piece);
        in_place.stripe(piece.stripe)?.part(begin..begin + length)
    }

    fn verifier_of(&self, piece: &Piece, verify: bool) -> Verifier<'_> {
        let first_block = piece.blocks.start % blocks_per_stripe(&self.tag);
        Verifier::new(self.tag.upload, piece.stripe, first_block, self.blocks_of(piece), verify)
    }

    fn found_damaged(&self) {
        self.operation.servers.access().counters.found_damaged();
    }

    /// Compares a piece with its checksums where it lies.
    fn is_right(&self, places: &Places<'_>, piece: &Piece) -> bool {
        let mut verifier = self.verifier_of(piece, true);
        places.slices().for_each(|slice| verifier.feed(slice));
        if verifier.is_wrong() {
            self.found_damaged();
        }
        !verifier.is_wrong()
    }

    /// Copies a piece from where it lies, and compares it with its checksums on the way
    /// if that is wanted. False when it is wrong.
    fn copy(&self, places: &Places<'_>, piece: &Piece, mut out: &mut [u8]) -> bool {
        let mut verifier = self.verifier_of(piece, self.verify);
        for slice in places.slices() {
            for bytes in slice.chunks(COPY_BYTES) {
                let (now, behind) = out.split_at_mut(bytes.len());
                now.copy_from_slice(bytes);
                verifier.feed(now);
                out = behind;
            }
        }
        if verifier.is_wrong() {
            self.found_damaged();
            return false;
        }
        self.served.add(places.server, piece.bytes);
        self.progress.iter().for_each(|progress| progress.add(piece.bytes));
        true
    }

    /// A piece in memory of its own, from this machine if it lies here.
    async fn new_piece_near(
        &self,
        in_place: &InPlace,
        piece: &Piece,
        hedging: &Hedging,
    ) -> Result<Bytes, Unread> {
        match self.unpacked_here(in_place, piece).await? {
            Some(bytes) => Ok(bytes.into()),
            None => hedging.new_piece(self, piece, 0).await,
        }
    }

    /// A compressed piece that lies here, as readers want it; `None` = it does not, or
    /// is wrong.
    async fn unpacked_here(
        &self,
        in_place: &InPlace,
        piece: &Piece,
    ) -> Result<Option<Vec<u8>>, Unread> {
        let Some(places) = self.places(in_place, piece).filter(|_| !self.is_stored_as_it_is(piece))
        else {
            return Ok(None);
        };
        if self.verify && !self.is_right(&places, piece) {
            return Ok(None);
        }
        let (stored, codec, length) = (places.joined(), self.tag.codec, piece.bytes);
        let blocks = self.blocks_of(piece).to_vec();
        let work = move || unpack(codec, &blocks, &stored, length);
        let unpacked = self.operation.workers.run(work).await;
        let unpacked = unpacked.map_err(|error| Unread::Failed(vec![error.to_string()]))?;
        let Ok(bytes) = unpacked else {
            self.found_damaged();
            return Ok(None);
        };
        self.served.add(places.server, self.place_of(piece).1);
        self.progress.iter().for_each(|progress| progress.add(piece.bytes));
        Ok(Some(bytes))
    }

    /// A piece that lies here for somebody who writes it somewhere: slices of where it
    /// lies, compared with its checksums, or memory of its own. Also how many of its
    /// bytes lie here. `None` = it does not.
    pub(in crate::object) async fn parts_here(
        &self,
        in_place: &InPlace,
        piece: &Piece,
    ) -> Result<Option<(Vec<Bytes>, u64)>, Unread> {
        let places = self.plain_places(in_place, piece);
        let Some(places) = places.filter(|places| !self.verify || self.is_right(places, piece))
        else {
            let unpacked = self.unpacked_here(in_place, piece).await?;
            return Ok(unpacked.map(|bytes| (vec![bytes.into()], 0)));
        };
        let mut assembly = Assembly::default();
        assembly.push_places(&places);
        self.progress.iter().for_each(|progress| progress.add(piece.bytes));
        let (parts, mapped) = assembly.finish();
        Ok(Some((parts, self.serve(&mapped))))
    }

    /// Notes what servers gave where it lies; returns how much that is.
    fn serve(&self, mapped: &[(&Arc<str>, u64)]) -> u64 {
        mapped.iter().for_each(|(server, bytes)| self.served.add(server, *bytes));
        mapped.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// What a range has of a piece that begins at `begin`, by its place in that.
fn wanted_of(range: &Range<u64>, begin: u64, piece: &Piece) -> Range<u64> {
    range.start.max(begin) - begin..range.end.min(begin + piece.bytes) - begin
}

/// Cuts bytes in pieces to a part of them.
pub(in crate::object) fn cut_parts(
    parts: Vec<Bytes>,
    part: Range<u64>,
) -> impl Iterator<Item = Bytes> {
    let mut at = 0;
    parts.into_iter().filter_map(move |bytes| {
        let (begin, end) = (at, at + bytes.len() as u64);
        at = end;
        let from = (part.start.clamp(begin, end) - begin) as usize;
        let to = (part.end.clamp(begin, end) - begin) as usize;
        (from < to).then(|| bytes.slice(from..to))
    })
}

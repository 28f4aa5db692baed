//! Stretches of a pool that bytes of an object lie in.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::mapping::Kept;

/// The stored bytes of a value, or a part of them, as slices of a pool.
#[derive(Debug, Clone)]
pub(super) struct Places<'p> {
    pub(super) server: &'p Arc<str>,
    pub(super) kept: &'p Arc<Kept>,
    runs: &'p [Range<u64>],
    within: Range<u64>,
}

impl<'p> Places<'p> {
    pub(super) fn all(server: &'p Arc<str>, kept: &'p Arc<Kept>, runs: &'p [Range<u64>]) -> Self {
        let length = runs.iter().map(|run| run.end - run.start).sum();
        Self { server, kept, runs, within: 0..length }
    }

    /// A part of these bytes; `None` = there are not so many.
    pub(super) fn part(mut self, part: Range<u64>) -> Option<Self> {
        let (begin, end) = (self.within.start + part.start, self.within.start + part.end);
        if part.start > part.end || end > self.within.end {
            return None;
        }
        self.within = begin..end;
        Some(self)
    }

    /// Their runs, in order.
    pub(super) fn runs(&self) -> impl Iterator<Item = Range<u64>> + use<'p> {
        runs_within(self.runs, self.within.clone())
    }

    /// Their bytes, in order.
    pub(super) fn slices(&self) -> impl Iterator<Item = &'p [u8]> + use<'p> {
        let kept = self.kept;
        self.runs().map(move |run| kept.bytes(&run))
    }

    /// The bytes in one piece, copied.
    pub(super) fn joined(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity((self.within.end - self.within.start) as usize);
        self.slices().for_each(|slice| bytes.extend_from_slice(slice));
        bytes
    }
}

/// The parts of runs that have the bytes of a part of all of them.
fn runs_within(
    runs: &[Range<u64>],
    within: Range<u64>,
) -> impl Iterator<Item = Range<u64>> + use<'_> {
    let mut at = 0;
    runs.iter().filter_map(move |run| {
        let (begin, end) = (at, at + run.end - run.start);
        at = end;
        let from = within.start.clamp(begin, end) - begin;
        let to = within.end.clamp(begin, end) - begin;
        (from < to).then(|| run.start + from..run.start + to)
    })
}

/// Bytes of an object on their way to the reader, in order: neighbours of one pool
/// become one slice.
#[derive(Debug, Default)]
pub(super) struct Assembly<'p> {
    parts: Vec<Bytes>,
    /// The last slice, which may grow.
    open: Option<Slice<'p>>,
    /// Bytes that lie where they are stored, by server.
    mapped: Vec<(&'p Arc<str>, u64)>,
}

/// A stretch of a server's pool.
#[derive(Debug)]
struct Slice<'p> {
    server: &'p Arc<str>,
    kept: &'p Arc<Kept>,
    range: Range<u64>,
}

impl<'p> Assembly<'p> {
    /// Appends bytes where they lie.
    pub(super) fn push_places(&mut self, places: &Places<'p>) {
        for range in places.runs() {
            match &mut self.open {
                Some(open)
                    if open.range.end == range.start && Arc::ptr_eq(open.kept, places.kept) =>
                {
                    open.range.end = range.end;
                }
                _ => {
                    self.close();
                    let Places { server, kept, .. } = *places;
                    self.open = Some(Slice { server, kept, range });
                }
            }
        }
    }

    /// Leaves out bytes that come some other way: where to [`fill`](Self::fill) them in.
    pub(super) fn leave_out(&mut self) -> usize {
        self.close();
        self.parts.push(Bytes::new());
        self.parts.len() - 1
    }

    /// Fills in bytes that were left out.
    pub(super) fn fill(&mut self, place: usize, bytes: Bytes) {
        self.parts[place] = bytes;
    }

    fn close(&mut self) {
        let Some(Slice { server, kept, range }) = self.open.take() else { return };
        let bytes = range.end - range.start;
        match self.mapped.iter_mut().find(|(known, _)| Arc::ptr_eq(known, server)) {
            Some((_, mapped)) => *mapped += bytes,
            None => self.mapped.push((server, bytes)),
        }
        self.parts.push(kept.shared(range));
    }

    /// Whether anything lies where it is stored.
    pub(super) fn is_mapped(&self) -> bool {
        self.open.is_some() || !self.mapped.is_empty()
    }

    /// All of them, and by server how many of them lie where they are stored.
    pub(super) fn finish(mut self) -> (Vec<Bytes>, Vec<(&'p Arc<str>, u64)>) {
        self.close();
        (self.parts, self.mapped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_some_runs_is_the_runs_of_its_bytes() {
        let runs = [100..110, 5..6, 200..230];
        let cut = |part| runs_within(&runs, part).collect::<Vec<_>>();
        assert_eq!(cut(0..41), runs);
        assert_eq!(cut(9..12), [109..110, 5..6, 200..201]);
        assert_eq!(cut(41..41), []);
        // Byte by byte, whatever the part.
        let all: Vec<u64> = runs.iter().cloned().flatten().collect();
        for begin in 0..=41 {
            for end in begin..=41 {
                let found: Vec<u64> = cut(begin..end).into_iter().flatten().collect();
                assert_eq!(found, all[begin as usize..end as usize]);
            }
        }
    }
}

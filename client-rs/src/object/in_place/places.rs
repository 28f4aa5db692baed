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
pub(super) struct Assembly {
    parts: Vec<Bytes>,
    /// The last slice, which may grow.
    open: Option<(Arc<Kept>, Range<u64>)>,
    mapped: u64,
}

impl Assembly {
    /// Appends bytes where they lie.
    pub(super) fn push_places(&mut self, places: &Places<'_>) {
        for run in places.runs() {
            self.mapped += run.end - run.start;
            match &mut self.open {
                Some((kept, open)) if open.end == run.start && Arc::ptr_eq(kept, places.kept) => {
                    open.end = run.end;
                }
                _ => {
                    self.close();
                    self.open = Some((Arc::clone(places.kept), run));
                }
            }
        }
    }

    /// Appends bytes that came some other way.
    pub(super) fn push(&mut self, bytes: Bytes) {
        self.close();
        if !bytes.is_empty() {
            self.parts.push(bytes);
        }
    }

    fn close(&mut self) {
        let open = self.open.take();
        self.parts.extend(open.map(|(kept, run)| kept.shared(run)));
    }

    /// All of them, and how many of them lie where they are stored.
    pub(super) fn finish(mut self) -> (Vec<Bytes>, u64) {
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

//! The bytes of one value: a chain of page runs, and which bytes were ever given.

use rampuddle_protocol::limits::PAGE_BYTES;

use super::runs::{NO_PAGE, Page};
use super::{Pool, PoolRange};

/// Where a value's bytes lie.
///
/// A byte was *given* when it lies below `prefix`, or below the mark of its
/// page. What was never given reads as zero and is never looked up in the pool,
/// so old bytes never show and nothing is zeroed ahead of time.
///
/// Invariants: `prefix <= filled <= pages * PAGE_BYTES`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Body {
    first: Page,
    /// Pages in all.
    pub(crate) pages: u32,
    /// Runs in all.
    pub(crate) runs: u32,
    /// Every byte below was given.
    pub(crate) prefix: u64,
    /// Offset behind the last byte given.
    pub(crate) filled: u64,
}

/// Pages whose taking costs as much as a step from run to run.
const PAGES_PER_STEP: u32 = 64;

/// A place in a chain, so that going on from it costs nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor {
    run: Page,
    /// The value's page that the run begins with.
    run_begin: u32,
}

/// A stretch of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Bytes of the pool.
    Pool(PoolRange),
    /// That many zeros.
    Zeros(u64),
}

impl Piece {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Pool(range) => range.end - range.start,
            Self::Zeros(bytes) => *bytes,
        }
    }
}

impl Body {
    /// No pages.
    pub(crate) const EMPTY: Self = Self { first: NO_PAGE, pages: 0, runs: 0, prefix: 0, filled: 0 };

    /// A cursor at the value's begin.
    pub(crate) fn begin(&self) -> Cursor {
        Cursor { run: self.first, run_begin: 0 }
    }
}

impl Pool {
    /// Takes pages for a value of `length` bytes; `None` when too few are free.
    pub(crate) fn take_body(&mut self, length: u64) -> Option<Body> {
        let pages = length.div_ceil(PAGE_BYTES) as u32;
        let first = match pages >= self.unit && self.unit > 1 {
            true => self.runs.take_aligned(pages, self.unit),
            false => self.runs.take(pages),
        }?;
        let runs = self.count_runs(first);
        self.count_steps(2 * runs + pages / PAGES_PER_STEP);
        Some(Body { first, pages, runs, prefix: 0, filled: 0 })
    }

    fn count_runs(&self, first: Page) -> u32 {
        let (mut run, mut runs) = (first, 0);
        while run != NO_PAGE {
            run = self.runs.next_run(run);
            runs += 1;
        }
        runs
    }

    /// Gives back a value's pages.
    pub(crate) fn give_back_body(&mut self, body: Body) {
        if body.first != NO_PAGE {
            self.count_steps(body.runs);
            self.runs.give_back(body.first);
        }
    }

    /// Gives back the pages that a value of `length` does not need.
    pub(crate) fn truncate_body(&mut self, body: &mut Body, length: u64) {
        let keep = length.div_ceil(PAGE_BYTES) as u32;
        if keep < body.pages {
            self.count_steps(body.runs);
            self.runs.truncate(body.first, keep);
            body.pages = keep;
            body.runs = self.count_runs(body.first);
        }
    }

    /// The run that holds `offset`, and the offsets of its begin and end.
    fn seek(&self, body: &Body, cursor: &mut Cursor, offset: u64) -> (Page, u64, u64) {
        let page = (offset / PAGE_BYTES) as u32;
        if page < cursor.run_begin {
            *cursor = body.begin();
        }
        loop {
            let end = cursor.run_begin + self.runs.run_pages(cursor.run);
            if page < end {
                let begin = u64::from(cursor.run_begin) * PAGE_BYTES;
                return (cursor.run, begin, u64::from(end) * PAGE_BYTES);
            }
            *cursor = Cursor { run: self.runs.next_run(cursor.run), run_begin: end };
            self.count_steps(1);
            assert!(cursor.run != NO_PAGE, "offset {offset} lies outside the value");
        }
    }

    fn locate(&self, body: &Body, cursor: &mut Cursor, offset: u64, end: u64) -> PoolRange {
        let (run, run_begin, run_end) = self.seek(body, cursor, offset);
        let start = u64::from(run) * PAGE_BYTES + (offset - run_begin);
        start..start + (end.min(run_end) - offset)
    }

    /// The first piece of `offset..end`, to be read. Costs nothing when the
    /// cursor is near, and one step per run when it is not.
    pub(crate) fn piece(&self, body: &Body, cursor: &mut Cursor, offset: u64, end: u64) -> Piece {
        if offset < body.prefix {
            return Piece::Pool(self.locate(body, cursor, offset, end.min(body.prefix)));
        }
        if offset >= body.filled {
            return Piece::Zeros(end - offset);
        }
        let page_begin = offset / PAGE_BYTES * PAGE_BYTES;
        let page_end = end.min(page_begin + PAGE_BYTES);
        let range = self.locate(body, cursor, offset, page_end);
        let page = (range.start / PAGE_BYTES) as Page;
        let given_end = page_begin + u64::from(self.runs.given(page));
        if offset < given_end {
            return Piece::Pool(range.start..range.start + given_end.min(page_end) - offset);
        }
        Piece::Zeros(page_end - offset)
    }

    /// The first stretch of `offset..end`, to be written; a prefix of what was
    /// asked, within one run.
    pub(crate) fn room(
        &self,
        body: &Body,
        cursor: &mut Cursor,
        offset: u64,
        end: u64,
    ) -> PoolRange {
        self.locate(body, cursor, offset, end)
    }

    /// Zeroes what lies, within its page, between the bytes given and `offset`,
    /// where writing is about to begin. At most one page.
    pub(crate) fn prepare(&mut self, body: &Body, cursor: &mut Cursor, offset: u64) {
        let within = offset % PAGE_BYTES;
        if within == 0 || offset <= body.prefix {
            return;
        }
        let page_begin = offset - within;
        let range = self.locate(body, cursor, page_begin, offset);
        let page = (range.start / PAGE_BYTES) as Page;
        let in_prefix = body.prefix.saturating_sub(page_begin);
        let given = u64::from(self.runs.given(page)).max(in_prefix);
        if given < within {
            self.mapping.bytes_mut(range.start + given..range.end).fill(0);
            self.runs.set_given(page, within as u32);
        }
    }

    /// Notes that `offset..end` was written, after [`Pool::prepare`] at its begin.
    /// Costs nothing when values are written from begin to end.
    pub(crate) fn wrote(&mut self, body: &mut Body, cursor: &mut Cursor, offset: u64, end: u64) {
        // Where the prefix goes on is near the begin of what was written, or not
        // touched by it.
        let mut near = *cursor;
        let touches = offset / PAGE_BYTES <= body.prefix / PAGE_BYTES;
        if offset <= body.prefix {
            body.prefix = body.prefix.max(end);
        } else {
            self.mark_pages(body, cursor, offset, end);
        }
        body.filled = body.filled.max(end);
        if touches {
            self.extend_prefix(body, &mut near);
        }
    }

    fn mark_pages(&mut self, body: &Body, cursor: &mut Cursor, mut offset: u64, end: u64) {
        while offset < end {
            let page_end = (offset / PAGE_BYTES + 1) * PAGE_BYTES;
            let range = self.locate(body, cursor, offset, end.min(page_end));
            let page = (range.start / PAGE_BYTES) as Page;
            let given = ((range.end - 1) % PAGE_BYTES + 1) as u32;
            self.runs.set_given(page, given.max(self.runs.given(page)));
            offset += range.end - range.start;
        }
    }

    /// Moves the prefix over pages that were given before it reached them.
    fn extend_prefix(&self, body: &mut Body, cursor: &mut Cursor) {
        while body.prefix < body.filled {
            let page_begin = body.prefix / PAGE_BYTES * PAGE_BYTES;
            let range = self.locate(body, cursor, body.prefix, body.prefix + 1);
            let given = self.runs.given((range.start / PAGE_BYTES) as Page);
            let given_end = page_begin + u64::from(given);
            if given_end <= body.prefix {
                return;
            }
            body.prefix = given_end.min(body.filled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Seeded;

    fn read(pool: &Pool, body: &Body, mut offset: u64, end: u64) -> Vec<u8> {
        let (mut cursor, mut bytes) = (body.begin(), Vec::new());
        while offset < end {
            let piece = pool.piece(body, &mut cursor, offset, end);
            assert!(piece.len() > 0 && offset + piece.len() <= end);
            offset += piece.len();
            match piece {
                Piece::Pool(range) => bytes.extend_from_slice(pool.bytes(range)),
                Piece::Zeros(zeros) => bytes.resize(bytes.len() + zeros as usize, 0),
            }
        }
        bytes
    }

    fn write(pool: &mut Pool, body: &mut Body, offset: u64, bytes: &[u8]) {
        let mut cursor = body.begin();
        pool.prepare(body, &mut cursor, offset);
        let (mut at, end) = (offset, offset + bytes.len() as u64);
        while at < end {
            let room = pool.room(body, &mut cursor, at, end);
            let length = room.end - room.start;
            let from = (at - offset) as usize;
            pool.each_mut(&[room], |room| {
                room.copy_from_slice(&bytes[from..from + length as usize]);
            });
            pool.wrote(body, &mut cursor, at, at + length);
            at += length;
        }
    }

    /// A pool whose every byte is 0xAA, so that what shows through is seen.
    fn dirty_pool(pages: u64) -> Pool {
        let mut pool = Pool::new(pages * PAGE_BYTES, false).unwrap();
        let mut body = pool.take_body(pages * PAGE_BYTES).unwrap();
        write(&mut pool, &mut body, 0, &vec![0xAA; (pages * PAGE_BYTES) as usize]);
        pool.give_back_body(body);
        pool
    }

    #[test]
    fn what_was_never_given_reads_as_zero_whatever_lay_there_before() {
        let mut pool = dirty_pool(4);
        let mut body = pool.take_body(4 * PAGE_BYTES).unwrap();
        assert_eq!(read(&pool, &body, 0, 4 * PAGE_BYTES), vec![0; 4 * PAGE_BYTES as usize]);
        write(&mut pool, &mut body, 3 * PAGE_BYTES + 100, b"x");
        let mut wanted = vec![0; 4 * PAGE_BYTES as usize];
        wanted[3 * PAGE_BYTES as usize + 100] = b'x';
        assert_eq!(read(&pool, &body, 0, 4 * PAGE_BYTES), wanted);
        assert_eq!((body.prefix, body.filled), (0, 3 * PAGE_BYTES + 101));
    }

    #[test]
    fn random_writes_read_back_as_from_a_plain_vector() {
        let mut random = Seeded::from_environment();
        for _ in 0..60 {
            let mut pool = dirty_pool(12);
            // Leave holes, so that the value is made of several runs.
            let singles: Vec<Body> = (0..12).map(|_| pool.take_body(1).unwrap()).collect();
            for (index, single) in singles.into_iter().enumerate() {
                if index % 3 != 0 {
                    pool.give_back_body(single);
                }
            }
            let length = 7 * PAGE_BYTES;
            let mut body = pool.take_body(length).unwrap();
            assert!(body.runs > 1);
            let mut model = vec![0; length as usize];
            for _ in 0..30 {
                let offset = random.below(length);
                let room = if random.below(2) == 0 { 300 } else { length };
                let bytes = 1 + random.below((length - offset).min(room)) as usize;
                let value = vec![1 + random.below(255) as u8; bytes];
                write(&mut pool, &mut body, offset, &value);
                model[offset as usize..][..bytes].copy_from_slice(&value);
                let from = random.below(length);
                let to = from + random.below(length - from + 1);
                assert!(read(&pool, &body, from, to) == model[from as usize..to as usize]);
                assert!(body.prefix <= body.filled && body.filled <= length);
            }
        }
    }
}

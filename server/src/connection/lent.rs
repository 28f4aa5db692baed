//! Bytes that a connection has lent to the system: it sends them from where they lie,
//! and may read them again until it says that it is done. So their values stay pinned
//! until then, long after the answer has left.
//!
//! The system numbers the sends of a connection 0, 1, 2... and says of stretches of
//! numbers that they are done, in any order ([`Sends`]).

use rampuddle_protocol::limits::PROGRESS_BYTES;

use super::progress::Progress;
use super::traffic::SLICES_MAX;
use crate::store::{EntryId, Store};

/// Sends that may be outstanding; as many as a word has bits. Beyond them bytes are
/// copied.
const SENDS_MAX: u32 = u64::BITS;
/// Values that are kept for sends that have left; beyond them bytes are copied.
const VALUES_MAX: usize = 128;
/// A connection on which so many sends in a row gained nothing lends no more: there is
/// no device that could read the pool itself.
const VAIN_MAX: u32 = 8;
/// Memory of what one connection lends.
pub(super) const LENT_BYTES: usize = size_of::<Lent>() + VALUES_MAX * size_of::<Kept>();

/// The system is done with these sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) first: u32,
    pub(crate) last: u32,
    /// It copied the bytes after all.
    pub(crate) was_copied: bool,
}

/// The sends of one connection by number, which wraps around.
///
/// Invariant: `oldest` is not done, unless it is `next`; bits of `done` at and beyond
/// `next` are 0.
#[derive(Debug, Default)]
struct Sends {
    oldest: u32,
    /// Bit n: the send `oldest + n` is done.
    done: u64,
    next: u32,
}

impl Sends {
    /// Sends from the oldest one that is not done to the newest.
    fn window(&self) -> u32 {
        self.next.wrapping_sub(self.oldest)
    }

    fn outstanding(&self) -> u32 {
        self.window() - self.done.count_ones()
    }

    fn has_room(&self) -> bool {
        self.window() < SENDS_MAX
    }

    /// The number of a send that the system has taken.
    fn begin(&mut self) -> u32 {
        assert!(self.has_room(), "no more is lent than can be outstanding");
        let number = self.next;
        self.next = number.wrapping_add(1);
        number
    }

    /// Notes that the sends from `first` to `last` are done. False, and nothing is
    /// noted, when these are not all among those that may be outstanding.
    fn end(&mut self, first: u32, last: u32) -> bool {
        let (from, to) = (first.wrapping_sub(self.oldest), last.wrapping_sub(self.oldest));
        if from > to || to >= self.window() {
            return false;
        }
        self.done |= (u64::MAX >> (u64::BITS - 1 - (to - from))) << from;
        let run = self.done.trailing_ones();
        self.oldest = self.oldest.wrapping_add(run);
        self.done = self.done.checked_shr(run).unwrap_or(0);
        true
    }

    /// Whether a send that was begun, and all before it, are done.
    fn are_done_to(&self, number: u32) -> bool {
        number.wrapping_sub(self.oldest) >= self.window()
    }
}

/// A value that is kept for sends that have left.
#[derive(Debug, Clone, Copy)]
struct Kept {
    entry: EntryId,
    /// The last send with bytes of it. Others may be done later than this one: it is
    /// kept until all up to it are.
    send: u32,
}

/// What one connection has lent.
///
/// Invariant: every value in `kept` is pinned once for it, and its send, or one before
/// that, is not done.
#[derive(Debug)]
pub(crate) struct Lent {
    /// Rows of so many bytes and more are lent.
    from: u64,
    sends: Sends,
    kept: Vec<Kept>,
    /// Bytes of the read under way that have left.
    begun: u64,
    /// The last send with bytes of the read under way.
    latest: Option<u32>,
    /// The system refused a send; it can take another when it is done with one.
    rests: bool,
    /// Sends in a row that gained nothing.
    vain: u32,
    /// All bytes that the connection has sent, and those that its peer had taken
    /// when that was looked at last.
    sent_bytes: u64,
    taken_bytes: u64,
    taking: Progress,
    /// Bytes that the peer has not taken yet.
    has_untaken: bool,
}

impl Lent {
    pub(super) fn new(from: u64, now_ms: u64) -> Box<Self> {
        Box::new(Self {
            from,
            sends: Sends::default(),
            kept: Vec::with_capacity(VALUES_MAX),
            begun: 0,
            latest: None,
            rests: false,
            vain: 0,
            sent_bytes: 0,
            taken_bytes: 0,
            taking: Progress::begin(now_ms),
            has_untaken: false,
        })
    }

    /// Whether a call may be lent what it sends: values for all that it can end, and
    /// for a read that is ended by copying the rest of it, find room.
    pub(super) fn is_open(&self) -> bool {
        let has_room = self.sends.has_room() && self.kept.len() + SLICES_MAX < VALUES_MAX;
        has_room && !self.rests && self.vain < VAIN_MAX
    }

    /// Whether a row of so many bytes is worth it.
    pub(super) fn wants(&self, bytes: u64) -> bool {
        bytes >= self.from
    }

    /// Bytes of the read under way that have left.
    pub(super) fn begun(&self) -> u64 {
        self.begun
    }

    /// Notes a send that was lent; the bytes that are told to have left are its own.
    pub(super) fn begin(&mut self) -> u32 {
        self.sends.begin()
    }

    /// Notes that the system refused one.
    pub(super) fn refused(&mut self) {
        // With none outstanding nothing would end the rest.
        self.rests = self.sends.outstanding() > 0;
        self.vain += 1;
    }

    /// Notes how many bytes a call sent, lent or not.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent_bytes += bytes as u64;
    }

    /// Notes that bytes of the read under way left, by `send` or by copy.
    pub(super) fn left(&mut self, bytes: usize, send: Option<u32>) {
        self.begun += bytes as u64;
        self.latest = send.filter(|_| bytes > 0).or(self.latest);
    }

    /// The read under way ends: its value is unpinned, now or when all sends up to its
    /// last one are done.
    pub(super) fn end_read(&mut self, entry: EntryId, store: &mut Store) {
        self.begun = 0;
        match self.latest.take().filter(|send| !self.sends.are_done_to(*send)) {
            Some(send) => self.kept.push(Kept { entry, send }),
            None => store.unpin(entry),
        }
    }

    /// Takes what the system says; what makes no sense is ignored. Values that were
    /// kept for these sends are let go.
    pub(crate) fn handle_done(&mut self, done: Done, store: &mut Store) -> bool {
        if !self.sends.end(done.first, done.last) {
            return false;
        }
        self.rests = false;
        self.vain = if done.was_copied { self.vain.saturating_add(1) } else { 0 };
        let sends = &self.sends;
        self.kept.retain(|kept| {
            let is_done = sends.are_done_to(kept.send);
            if is_done {
                store.unpin(kept.entry);
            }
            !is_done
        });
        true
    }

    /// Whether the system may still send what it was lent.
    pub(crate) fn is_outstanding(&self) -> bool {
        self.sends.outstanding() > 0
    }

    /// Takes in how many bytes the peer has not taken yet, of all that were sent.
    pub(crate) fn handle_untaken(&mut self, bytes: u64, now_ms: u64) {
        let taken = self.sent_bytes.saturating_sub(bytes);
        let moved = taken.saturating_sub(self.taken_bytes).min(PROGRESS_BYTES);
        (self.taken_bytes, self.has_untaken) = (taken, bytes > 0);
        if self.is_outstanding() {
            self.taking.moved(moved as usize, now_ms);
        } else {
            self.taking = Progress::begin(now_ms);
        }
    }

    /// Whether the peer has stopped taking what is lent.
    pub(crate) fn has_stalled(&self, now_ms: u64) -> bool {
        self.is_outstanding() && self.has_untaken && self.taking.has_stalled(now_ms)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::testing::Seeded;

    #[test]
    fn sends_are_counted_as_by_a_set_of_numbers_in_any_order_and_around_the_end() {
        let mut random = Seeded::from_environment();
        let (mut wraps, mut refused, mut full) = (0, 0, 0);
        for _ in 0..200 {
            let begin = 0_u32.wrapping_sub(random.below(400) as u32);
            let mut sends = Sends { oldest: begin, done: 0, next: begin };
            let mut open: BTreeSet<u64> = BTreeSet::new();
            let mut begun = u64::from(begin);
            for _ in 0..2_000 {
                let oldest = open.first().copied().unwrap_or(begun);
                if random.below(2) == 0 {
                    assert_eq!(sends.has_room(), begun - oldest < u64::from(SENDS_MAX));
                    if sends.has_room() {
                        assert_eq!(sends.begin(), begun as u32);
                        open.insert(begun);
                        begun += 1;
                        wraps += u32::from(begun == 1 << 32);
                    } else {
                        full += 1;
                    }
                } else if random.below(20) == 0 {
                    // Nonsense: done long ago, or not begun yet, or the wrong way round.
                    let last = begun + random.below(1 << 20);
                    let first = oldest + random.below(begun - oldest + 1);
                    assert!(!sends.end(first as u32, last as u32));
                    let past = oldest.wrapping_sub(1 + random.below(1_000));
                    assert!(!sends.end(past as u32, first as u32));
                    refused += 1;
                } else if begun > oldest {
                    let first = oldest + random.below(begun - oldest);
                    let span = (begun - first).min(1 + random.below(64));
                    let last = first + random.below(span);
                    assert!(sends.end(first as u32, last as u32));
                    open.retain(|number| !(first..=last).contains(number));
                }
                assert_eq!(u64::from(sends.outstanding()), open.len() as u64);
                for number in begun.saturating_sub(60).max(u64::from(begin))..begun {
                    let are_done = open.first().is_none_or(|oldest| number < *oldest);
                    assert_eq!(sends.are_done_to(number as u32), are_done);
                }
            }
        }
        assert!(wraps > 50 && refused > 500 && full > 50, "{wraps} {refused} {full}");
    }

    #[test]
    fn a_connection_on_which_lending_gains_nothing_stops_and_one_on_which_it_does_goes_on() {
        let pool = crate::pool::Pool::new(1 << 16, false).unwrap();
        let mut store = Store::new(pool);
        let mut lent = Lent::new(1, 0);
        let send = |lent: &mut Lent, store: &mut Store, was_copied| {
            let number = lent.begin();
            assert!(lent.handle_done(Done { first: number, last: number, was_copied }, store));
        };
        for copied in [VAIN_MAX - 1, VAIN_MAX - 1, VAIN_MAX] {
            assert!(lent.is_open());
            (0..copied).for_each(|_| send(&mut lent, &mut store, true));
            assert_eq!(lent.is_open(), copied < VAIN_MAX);
            if lent.is_open() {
                send(&mut lent, &mut store, false);
            }
        }
        // A system without room for another one has it again when one is done.
        let mut lent = Lent::new(1, 0);
        let number = lent.begin();
        lent.refused();
        assert!(!lent.is_open());
        lent.handle_done(Done { first: number, last: number, was_copied: false }, &mut store);
        assert!(lent.is_open() && !lent.is_outstanding());
        (0..VAIN_MAX).for_each(|_| lent.refused());
        assert!(!lent.is_open(), "it never takes one");
    }

    #[test]
    fn a_peer_that_stops_taking_lent_bytes_has_stalled_and_one_that_crawls_has_not() {
        let mut lent = Lent::new(1, 0);
        lent.sent(1 << 20);
        lent.handle_untaken(1 << 20, 0);
        lent.handle_untaken(1 << 20, 50_000);
        assert!(!lent.has_stalled(60_000), "nothing is lent");
        lent.begin();
        for (second, left) in [(52, 1_048_576), (59, 990_000), (61, 980_000), (70, 900_000)] {
            lent.handle_untaken(left, second * 1_000);
            assert!(!lent.has_stalled(second * 1_000), "{second}");
        }
        assert!(lent.has_stalled(80_000));
        lent.handle_untaken(0, 80_000);
        assert!(!lent.has_stalled(200_000), "the peer has all of it");
    }
}

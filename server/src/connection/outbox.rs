//! Answers on their way out, in the order they leave.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rampuddle_protocol::limits::{OUTSTANDING_BYTES_MAX, OUTSTANDING_REQUESTS_MAX, ROWS_MAX};
use rampuddle_protocol::{Header, Status};

use super::buffer::{Buffer, Buffers};
use super::draft::write_status;
use super::lent::Lent;
use crate::pool::{Piece, PoolRange};
use crate::store::{ReadPlace, Store};

const RING_BYTES: usize = 9 * 1024 - 320;
/// What is kept of the ring for the frame that ends a connection.
const LAST_BYTES: usize = Header::BYTES;
/// Answers that wait, and the frame that ends a connection.
const ANSWERS_MAX: usize = OUTSTANDING_REQUESTS_MAX as usize + 1;
/// Memory of one connection's outbox at most.
pub(super) const OUTBOX_BYTES: usize = RING_BYTES
    + LAST_BYTES
    + ANSWERS_MAX * size_of::<Answer>()
    + ROWS_MAX as usize * size_of::<ReadPlace>();
/// Heads of answers up to this lie in the connection's own ring.
pub(super) const OWN_ANSWER_BYTES: usize = 8 * 1024;
/// Entry of a read that was cancelled: nothing is pinned any more.
const CANCELLED: u32 = u32::MAX;

/// Steps over runs of pages that may be made to find what one call sends.
const STEPS_MAX: u64 = 256;

const _: () = assert!(OWN_ANSWER_BYTES < RING_BYTES);

/// Something to send. Bytes that wait for a disk would be a variant here.
#[derive(Debug)]
pub(super) enum Segment<'a> {
    /// Bytes of an answer's head.
    Head(&'a [u8]),
    /// Bytes of the pool.
    Pool(PoolRange),
    /// Bytes of the pool that the system may send from where they lie: nobody
    /// writes there until it is done with them.
    Lent(PoolRange),
    /// Zeros.
    Zeros(usize),
    /// A descriptor, to go with the first byte of the next segment.
    Descriptor(BorrowedFd<'a>),
}

/// Where an answer's head lies.
#[derive(Debug)]
pub(super) enum Place {
    /// In the ring: begin and length of what was set aside.
    Ring(usize, usize),
    /// In a shared buffer.
    Borrowed(Buffer),
}

impl Place {
    fn bytes<'a>(&'a self, ring: &'a Ring, from: usize, bytes: usize) -> &'a [u8] {
        match self {
            Self::Ring(at, _) => &ring.bytes[at + from..][..bytes],
            Self::Borrowed(buffer) => &buffer.answer[from..][..bytes],
        }
    }
}

#[derive(Debug)]
struct Answer {
    request_id: u64,
    place: Place,
    head_bytes: usize,
    head_sent: usize,
    payload_left: u64,
    reads: u32,
    began: bool,
    /// No Cancel finds it: it was cancelled, or belongs to the handshake.
    is_final: bool,
    /// The outbox's descriptor goes with its first byte.
    carries: bool,
}

/// The answers of one connection.
#[derive(Debug)]
pub(super) struct Outbox {
    ring: Ring,
    answers: VecDeque<Answer>,
    reads: VecDeque<ReadPlace>,
    payload_bytes: u64,
    /// Waits to leave with an answer.
    descriptor: Option<OwnedFd>,
    /// What was lent to the system; `None` = all is copied.
    pub(super) lent: Option<Box<Lent>>,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            ring: Ring::new(),
            answers: VecDeque::with_capacity(ANSWERS_MAX),
            reads: VecDeque::new(),
            payload_bytes: 0,
            descriptor: None,
            lent: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Payload bytes that wait to leave.
    pub(super) fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Whether an answer of so many rows may be queued, wherever its head lies.
    pub(super) fn has_room(&self, rows: u32) -> bool {
        self.answers.len() < OUTSTANDING_REQUESTS_MAX as usize
            && self.payload_bytes < OUTSTANDING_BYTES_MAX
            && (self.reads.is_empty() || self.reads.len() + rows as usize <= ROWS_MAX as usize)
    }

    /// Sets room aside for the head of an answer, in the ring or in `buffer`.
    /// `None`: not before something has left.
    pub(super) fn set_aside(
        &mut self,
        bytes: usize,
        rows: u32,
        buffer: &mut Option<Buffer>,
    ) -> Option<Place> {
        if !self.has_room(rows) {
            return None;
        }
        if let Some(buffer) = buffer.take() {
            return Some(Place::Borrowed(buffer));
        }
        self.ring.take(bytes).map(|at| Place::Ring(at, bytes))
    }

    /// The bytes of a place.
    pub(super) fn bytes_mut<'a>(&'a mut self, place: &'a mut Place) -> &'a mut [u8] {
        match place {
            Place::Ring(at, bytes) => &mut self.ring.bytes[*at..*at + *bytes],
            Place::Borrowed(buffer) => &mut buffer.answer,
        }
    }

    /// Answers whose heads lie in shared buffers.
    pub(super) fn borrowed(&self) -> usize {
        let is_borrowed = |answer: &&Answer| matches!(answer.place, Place::Borrowed(_));
        self.answers.iter().filter(is_borrowed).count()
    }

    /// Moves the head of an answer that turned out short from a shared buffer to
    /// the ring, if that has room.
    pub(super) fn shrink(&mut self, place: Place, bytes: usize, buffers: &mut Buffers) -> Place {
        let Place::Borrowed(buffer) = place else { return place };
        let Some(at) = (bytes <= OWN_ANSWER_BYTES).then(|| self.ring.take(bytes)).flatten() else {
            return Place::Borrowed(buffer);
        };
        self.ring.bytes[at..at + bytes].copy_from_slice(&buffer.answer[..bytes]);
        buffers.give_back(buffer);
        Place::Ring(at, bytes)
    }

    /// Gives back a place that was not used.
    pub(super) fn give_back(&mut self, place: Place, buffers: &mut Buffers) {
        match place {
            Place::Ring(at, bytes) => self.ring.give_back_newest(at, bytes),
            Place::Borrowed(buffer) => buffers.give_back(buffer),
        }
    }

    /// Whether an answer may carry a descriptor: one at a time.
    pub(super) fn can_carry(&self) -> bool {
        self.descriptor.is_none()
    }

    /// Notes the descriptor that goes with the answer pushed next.
    pub(super) fn carry(&mut self, descriptor: OwnedFd) {
        self.descriptor = Some(descriptor);
    }

    /// Notes a stretch that the answer pushed next will send.
    pub(super) fn push_read(&mut self, read: ReadPlace) {
        self.reads.push_back(read);
    }

    /// Queues an answer whose head is written; its last `reads` stretches were
    /// pushed before.
    pub(super) fn push(&mut self, request_id: u64, place: Place, head_bytes: usize, reads: u32) {
        let new = self.reads.len() - reads as usize;
        let payload: u64 =
            self.reads.range(new..).map(|read| u64::from(read.end - read.offset)).sum();
        self.payload_bytes += payload;
        let is_carried = self.answers.iter().any(|answer| answer.carries);
        self.answers.push_back(Answer {
            request_id,
            place,
            head_bytes,
            head_sent: 0,
            payload_left: payload,
            reads,
            began: false,
            is_final: false,
            carries: self.descriptor.is_some() && !is_carried,
        });
    }

    /// Queues a frame of the handshake, which is no answer to a request that
    /// could be cancelled. There is room: nothing was queued before it.
    pub(super) fn push_greeting(&mut self, frame: &[u8]) {
        let Some(mut place) = self.set_aside(frame.len(), 0, &mut None) else { return };
        self.bytes_mut(&mut place).copy_from_slice(frame);
        self.push(0, place, frame.len(), 0);
        self.answers.back_mut().expect("it was just pushed").is_final = true;
    }

    /// Queues the frame that ends a connection, behind all that waits: there is
    /// always room for this one.
    pub(super) fn push_last(&mut self, request: &Header, status: Status) {
        let mut place = Place::Ring(self.ring.take_last(), Header::BYTES);
        write_status(self.bytes_mut(&mut place), request, status, true);
        self.push(request.request_id, place, Header::BYTES, 0);
    }

    /// Turns an answer that has not begun to leave into CANCELLED.
    pub(super) fn cancel(&mut self, request_id: u64, store: &mut Store) -> bool {
        let wanted =
            |answer: &Answer| answer.request_id == request_id && !answer.began && !answer.is_final;
        let Some(index) = self.answers.iter().position(wanted) else { return false };
        let first: usize = self.answers.range(..index).map(|answer| answer.reads as usize).sum();
        let answer = &mut self.answers[index];
        for read in self.reads.range_mut(first..first + answer.reads as usize) {
            store.unpin(read.entry);
            (read.entry, read.offset) = (CANCELLED, read.end);
        }
        self.payload_bytes -= answer.payload_left;
        (answer.payload_left, answer.is_final) = (0, true);
        if std::mem::take(&mut answer.carries) {
            self.descriptor = None;
        }
        let head = match &mut answer.place {
            Place::Ring(at, bytes) => &mut self.ring.bytes[*at..*at + *bytes],
            Place::Borrowed(buffer) => &mut buffer.answer,
        };
        let request = Header { request_id, ..Header::decode(head) };
        write_status(head, &request, Status::Cancelled, false);
        answer.head_bytes = Header::BYTES;
        true
    }

    /// What to send next: at most `budget` bytes, in as many segments as `out`
    /// takes, and no more once too many steps over runs of pages were made for it.
    pub(super) fn poll<'a>(
        &'a mut self,
        store: &Store,
        mut budget: u64,
        mut out: impl FnMut(Segment<'a>) -> bool,
    ) {
        let Self { ring, answers, reads, descriptor, lent, .. } = self;
        let (ring, steps_before) = (&*ring, store.steps());
        let lent = lent.as_deref().filter(|lent| lent.is_open());
        // Of the first read; of all others nothing has left.
        let mut begun = lent.map_or(0, Lent::begun);
        let mut next_read = 0;
        for answer in answers.iter() {
            let head_left = answer.head_bytes - answer.head_sent;
            if let Some(descriptor) = descriptor.as_ref().filter(|_| answer.carries)
                && !out(Segment::Descriptor(descriptor.as_fd()))
            {
                return;
            }
            if head_left > 0 {
                let bytes = head_left.min(usize::try_from(budget).unwrap_or(usize::MAX));
                budget -= bytes as u64;
                let goes_on = out(Segment::Head(answer.place.bytes(ring, answer.head_sent, bytes)));
                if !goes_on || bytes < head_left {
                    return;
                }
            }
            for read in reads.range_mut(next_read..next_read + answer.reads as usize) {
                let mut ahead = *read;
                let bytes = begun + u64::from(read.end - read.offset);
                let is_lent = read.offset < read.end
                    && lent.is_some_and(|lent| lent.wants(bytes) && store.is_sealed(read.entry));
                begun = 0;
                while ahead.offset < ahead.end {
                    if budget == 0 || store.steps() - steps_before > STEPS_MAX {
                        return;
                    }
                    let piece = store.next_piece(&mut ahead, budget);
                    if ahead.offset == read.offset {
                        // The way to the stretch is gone once, not at every call.
                        *read = ahead;
                    }
                    let bytes = piece.len();
                    let segment = match piece {
                        Piece::Pool(range) if is_lent => Segment::Lent(range),
                        Piece::Pool(range) => Segment::Pool(range),
                        Piece::Zeros(bytes) => Segment::Zeros(bytes as usize),
                    };
                    if !out(segment) {
                        return;
                    }
                    budget -= bytes;
                    ahead.offset += bytes as u32;
                }
            }
            next_read += answer.reads as usize;
        }
    }

    /// Notes that the first `bytes` of what [`Outbox::poll`] gave were sent, lent if
    /// that is so.
    pub(super) fn sent(
        &mut self,
        mut bytes: usize,
        is_lent: bool,
        store: &mut Store,
        buffers: &mut Buffers,
    ) {
        let mut lent = self.lent.as_deref_mut();
        let send = lent.as_deref_mut().and_then(|lent| {
            lent.sent(bytes);
            is_lent.then(|| lent.begin())
        });
        while let Some(answer) = self.answers.front_mut() {
            let of_head = bytes.min(answer.head_bytes - answer.head_sent);
            answer.head_sent += of_head;
            answer.began |= of_head > 0;
            if answer.began && std::mem::take(&mut answer.carries) {
                self.descriptor = None;
            }
            bytes -= of_head;
            if answer.head_sent < answer.head_bytes {
                break;
            }
            while answer.reads > 0 {
                let read = self.reads.front_mut().expect("each answer's reads are queued");
                let of_read = bytes.min((read.end - read.offset) as usize);
                // Moves the cursor along, so that the next piece is found at once.
                let _ = (of_read > 0).then(|| store.next_piece(read, of_read as u64));
                read.offset += of_read as u32;
                answer.payload_left -= of_read as u64;
                self.payload_bytes -= of_read as u64;
                bytes -= of_read;
                if let Some(lent) = lent.as_deref_mut() {
                    lent.left(of_read, send);
                }
                if read.offset < read.end {
                    return;
                }
                match lent.as_deref_mut() {
                    _ if read.entry == CANCELLED => {}
                    Some(lent) => lent.end_read(read.entry, store),
                    None => store.unpin(read.entry),
                }
                self.reads.pop_front();
                answer.reads -= 1;
            }
            let answer = self.answers.pop_front().expect("the front was just looked at");
            match answer.place {
                Place::Ring(at, bytes) => self.ring.give_back_oldest(at, bytes),
                Place::Borrowed(buffer) => buffers.give_back(buffer),
            }
        }
        assert_eq!(bytes, 0, "no more is sent than was given");
    }

    /// Lets go of everything but what is lent: the connection is gone.
    pub(super) fn clear(&mut self, store: &mut Store, buffers: &mut Buffers) {
        for read in self.reads.drain(..).filter(|read| read.entry != CANCELLED) {
            match &mut self.lent {
                // Of the first one bytes may have left.
                Some(lent) => lent.end_read(read.entry, store),
                None => store.unpin(read.entry),
            }
        }
        for answer in self.answers.drain(..) {
            if let Place::Borrowed(buffer) = answer.place {
                buffers.give_back(buffer);
            }
        }
        self.descriptor = None;
        self.payload_bytes = 0;
    }
}

/// A ring out of which pieces are taken and given back in the same order, each
/// in one stretch.
#[derive(Debug)]
struct Ring {
    bytes: Box<[u8]>,
    /// Begin of the oldest piece.
    oldest: usize,
    /// Where the next piece may begin.
    next: usize,
    pieces: usize,
}

impl Ring {
    fn new() -> Self {
        Self { bytes: vec![0; RING_BYTES + LAST_BYTES].into(), oldest: 0, next: 0, pieces: 0 }
    }

    fn take(&mut self, bytes: usize) -> Option<usize> {
        if self.pieces == 0 {
            (self.oldest, self.next) = (0, 0);
        }
        let is_wrapped = self.pieces > 0 && self.next <= self.oldest;
        let at = if is_wrapped {
            (self.oldest - self.next >= bytes).then_some(self.next)
        } else if RING_BYTES - self.next >= bytes {
            Some(self.next)
        } else {
            (self.oldest >= bytes).then_some(0)
        }?;
        (self.next, self.pieces) = (at + bytes, self.pieces + 1);
        Some(at)
    }

    /// The piece that nothing else is given. No other may be taken behind it.
    fn take_last(&mut self) -> usize {
        self.pieces += 1;
        RING_BYTES
    }

    fn give_back_oldest(&mut self, at: usize, bytes: usize) {
        self.oldest = at + bytes;
        self.pieces -= 1;
    }

    fn give_back_newest(&mut self, at: usize, _bytes: usize) {
        self.next = at;
        self.pieces -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Seeded;

    #[test]
    fn pieces_of_the_ring_never_overlap() {
        let mut random = Seeded::from_environment();
        let mut ring = Ring::new();
        let mut pieces: VecDeque<(usize, usize)> = VecDeque::new();
        let mut taken = 0;
        for _ in 0..20_000 {
            let bytes = 64 + random.below(3_000) as usize;
            if random.below(5) < 3 {
                let Some(at) = ring.take(bytes) else {
                    assert!(!pieces.is_empty(), "an empty ring has room");
                    continue;
                };
                assert!(at + bytes <= RING_BYTES);
                let free =
                    |(start, length): &(usize, usize)| at + bytes <= *start || start + length <= at;
                assert!(pieces.iter().all(free), "{at}+{bytes} in {pieces:?}");
                pieces.push_back((at, bytes));
                taken += 1;
            } else if let Some((at, bytes)) = pieces.pop_front() {
                ring.give_back_oldest(at, bytes);
            }
        }
        assert!(taken > 5_000);
    }
}

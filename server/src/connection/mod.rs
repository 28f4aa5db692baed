//! One connection as a state machine without I/O: it says where received bytes
//! go and what to send, and whoever has a socket, a simulator or a fuzzer moves
//! the bytes.
//!
//! ```text
//!            receive_with            process                send_with
//!  socket -----------------> inbox --------> store, outbox -----------> socket
//!                \_________________________> pool ____________________/
//! ```

mod buffer;
mod draft;
mod handshake;
mod inbox;
mod lent;
mod map;
mod outbox;
mod page;
mod progress;
mod request;
mod transfer;

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;

use rampuddle_protocol::limits::{
    HELLO_FRAME_BYTES, IDLE_CONNECTION_MS, STAT_ROWS_MAX, TABLE_DEADLINE_MS,
};
use rampuddle_protocol::{
    FrameFlags, FramingError, Header, Opcode, Role, StatRequestRow, Status, Table,
};

#[cfg(any(test, feature = "simulation"))]
pub(crate) use buffer::BUFFERS;
pub(crate) use buffer::{BUFFERS_BYTES, Buffers};
pub(crate) use lent::{Done, Lent};

use crate::core::Core;
use crate::pool::PoolRange;
use crate::store::SessionIndex;
use buffer::Buffer;
use draft::write_status;
use handshake::{Greeting, Step};
use inbox::{INBOX_BYTES, Inbox};
use lent::LENT_BYTES;
use outbox::{OUTBOX_BYTES, OWN_ANSWER_BYTES, Outbox, Place, Segment};
use progress::Progress;
use request::Request;
use transfer::{Advance, Transfer};

/// Memory of one connection at most.
pub(crate) const CONNECTION_BYTES: u64 = 64 * 1024;
/// What the loop keeps for a connection besides.
const PEER_BYTES: usize = 256;
const _: () = assert!(
    INBOX_BYTES + OWN_HEAD_BYTES + OUTBOX_BYTES + size_of::<Connection>() + PEER_BYTES
        <= CONNECTION_BYTES as usize
);
/// Memory of one that lends bytes to the system, besides.
pub(crate) const LENDING_BYTES: u64 = 2 * 1024;
const _: () = assert!(LENT_BYTES <= LENDING_BYTES as usize);

/// Heads of requests up to this lie in the connection's own memory.
const OWN_HEAD_BYTES: usize = 8 * 1024;
/// What must come of a head that lies in a shared buffer, from one look at the
/// clock to the next, while other connections wait for a buffer.
const LARGE_HEAD_STEP: usize = 16 * 1024;
/// The window of the progress rule while others wait for the room that a Create
/// has claimed and does not fill.
const AWAITED_WINDOW_MS: u64 = 2_000;
/// Steps over runs of pages after which the rest of a request waits for another
/// turn.
const STEPS_PER_TURN: u64 = 16 * 1024;
/// Stretches of memory that one receive or send call is given.
const SLICES_MAX: usize = 16;
/// What values hold where nothing was ever given.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// How far the conversation is.
#[derive(Debug)]
enum Phase {
    /// Waits for a client hello.
    Greeting,
    /// Waits for a proof.
    Proving(Greeting),
    /// Requests come and are answered.
    Open { session: SessionIndex, role: Role },
    /// What is queued leaves, then the connection ends.
    Closing,
}

/// What the next bytes are.
#[derive(Debug)]
enum Receiving {
    /// The head of a request.
    Head,
    /// The head of a request, in a shared buffer; so many bytes are in.
    LargeHead { header: Header, buffer: Buffer, filled: usize },
    /// The payload of a request.
    Payload(Transfer),
    /// The payload of a request that was refused.
    Drain(u64),
}

/// Why a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// It ended as it should, or the peer went away.
    Done,
    /// The peer broke the protocol.
    Framing,
    /// The peer stalled.
    Stalled,
}

/// How the system is to take bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way<'a> {
    /// As a copy.
    Copied,
    /// As a copy, and more follows by another call at once.
    CopiedMore,
    /// As a copy, and a descriptor with the first byte.
    Passing(BorrowedFd<'a>),
    /// From where they lie, where they stay as they are until it is [`Done`] with them.
    Lent,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Its number, by which a waiting connection is woken.
    number: usize,
    /// Its peer is on this machine, and can be given descriptors.
    is_local: bool,
    phase: Phase,
    receiving: Receiving,
    inbox: Inbox,
    own_head: Box<[u8]>,
    outbox: Outbox,
    /// A whole request waits until answers have left, or for a shared buffer.
    blocked: bool,
    /// A long request was answered; the next one waits for another turn.
    paused: bool,
    /// No request is begun any more; the one under way is still ended.
    stopping: bool,
    over: Over,
    accepted_ms: u64,
    /// When the first bytes of an unfinished head came.
    head_since_ms: Option<u64>,
    /// How long that head has waited for room since then: not the peer's fault.
    head_waited_ms: u64,
    /// Since when the connection is blocked, when it is.
    blocked_since_ms: u64,
    active_ms: u64,
    /// When bytes came last.
    received_ms: u64,
    incoming: Progress,
    outgoing: Progress,
    /// Bytes sent so far, and at the last look at the clock.
    sent_bytes: u64,
    sent_before: Option<u64>,
    /// The same of bytes received.
    received_bytes: u64,
    received_before: Option<u64>,
}

impl Connection {
    pub(crate) fn new(number: usize, now_ms: u64) -> Self {
        Self {
            number,
            is_local: false,
            phase: Phase::Greeting,
            receiving: Receiving::Head,
            inbox: Inbox::new(),
            own_head: vec![0; OWN_HEAD_BYTES].into(),
            outbox: Outbox::new(),
            blocked: false,
            paused: false,
            stopping: false,
            sent_bytes: 0,
            sent_before: None,
            received_bytes: 0,
            received_before: None,
            over: Over::Done,
            accepted_ms: now_ms,
            head_since_ms: None,
            head_waited_ms: 0,
            blocked_since_ms: now_ms,
            active_ms: now_ms,
            received_ms: now_ms,
            incoming: Progress::begin(now_ms),
            outgoing: Progress::begin(now_ms),
        }
    }

    /// The same, over a socket that can pass descriptors.
    pub(crate) fn local(number: usize, now_ms: u64) -> Self {
        Self { is_local: true, ..Self::new(number, now_ms) }
    }

    /// The same, over a socket to which rows of `from` bytes and more can be lent.
    pub(crate) fn lending(mut self, from: u64, now_ms: u64) -> Self {
        self.outbox.lent = Some(Lent::new(from, now_ms));
        self
    }

    /// What is lent to the system over its socket, if that can be.
    pub(crate) fn lent_mut(&mut self) -> Option<&mut Lent> {
        self.outbox.lent.as_deref_mut()
    }

    /// Whether bytes from the peer are wanted now.
    pub(crate) fn wants_input(&self) -> bool {
        !self.blocked && !self.paused && !matches!(self.phase, Phase::Closing)
    }

    /// Whether requests wait for another turn.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Another turn: goes on with requests that waited for it.
    pub(crate) fn handle_turn(&mut self, core: &mut Core) {
        if self.paused {
            self.paused = false;
            self.process(core);
        }
    }

    /// Whether there is something to send.
    pub(crate) fn has_output(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Whether the connection has nothing more to do, and why.
    pub(crate) fn over(&self) -> Option<Over> {
        (matches!(self.phase, Phase::Closing) && self.outbox.is_empty()).then_some(self.over)
    }

    /// Whether anything was ever sent.
    pub(crate) fn has_spoken(&self) -> bool {
        self.sent_bytes > 0
    }

    /// Whether no request is under way and no answer waits.
    pub(crate) fn is_at_rest(&self) -> bool {
        let between = matches!(self.receiving, Receiving::Head) && self.inbox.filled().is_empty();
        between && self.outbox.is_empty()
    }

    /// Whether a request is in by half, or an answer out.
    pub(crate) fn is_amid(&self) -> bool {
        !matches!(self.receiving, Receiving::Head) || self.has_output()
    }

    /// Payload that waits to come in or to leave: what makes a turn long.
    pub(crate) fn backlog_bytes(&self) -> u64 {
        let incoming = match &self.receiving {
            Receiving::Payload(transfer) => transfer.row_left(),
            Receiving::Drain(bytes) => *bytes,
            Receiving::Head | Receiving::LargeHead { .. } => 0,
        };
        incoming + self.outbox.payload_bytes()
    }

    /// Gives `read` the memory that the next bytes go to, at most about
    /// `budget` bytes of it outside its own inbox, and takes in what it read. Returns what
    /// `read` returned, and whether it filled all it was given.
    pub(crate) fn receive_with(
        &mut self,
        core: &mut Core,
        budget: u64,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> io::Result<(usize, bool)> {
        let (direct, ranges) = self.pool_targets(core, budget);
        let mut slices: [IoSliceMut<'_>; SLICES_MAX] =
            std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let mut count = 0;
        core.store.pool.each_mut(&ranges.list[..ranges.count], |bytes| {
            slices[count] = IoSliceMut::new(bytes);
            count += 1;
        });
        // Behind the targets in the pool comes the connection's own memory,
        // unless more of the row will go to the pool.
        let own = match &mut self.receiving {
            Receiving::LargeHead { header, buffer, filled, .. } => {
                let room = (header.head_bytes() - *filled).min(budget as usize);
                &mut buffer.head_mut()[*filled..*filled + room]
            }
            Receiving::Payload(transfer) if direct > 0 && direct < transfer.target_left() => {
                &mut []
            }
            _ => {
                let room = self.inbox.room();
                self.inbox.bytes_mut(room)
            }
        };
        let given = direct as usize + own.len();
        if !own.is_empty() {
            slices[count] = IoSliceMut::new(own);
            count += 1;
        }
        let received = read(&mut slices[..count])?;
        self.handle_received(received, direct, core);
        Ok((received, received == given))
    }

    fn pool_targets(&self, core: &Core, budget: u64) -> (u64, Ranges) {
        let mut ranges = Ranges::default();
        let mut direct = 0;
        if let Receiving::Payload(transfer) = &self.receiving {
            transfer.targets(&core.store, |range| {
                let length = (range.end - range.start).min(budget - direct);
                ranges.list[ranges.count] = range.start..range.start + length;
                ranges.count += 1;
                direct += length;
                direct < budget && ranges.count < ranges.list.len()
            });
        }
        (direct, ranges)
    }

    fn handle_received(&mut self, received: usize, direct: u64, core: &mut Core) {
        let now_ms = core.now.monotonic_ms;
        core.counters.received_bytes += received as u64;
        if received > 0 {
            (self.active_ms, self.received_ms) = (now_ms, now_ms);
            self.received_bytes += received as u64;
            self.incoming.moved(received, now_ms);
        }
        let of_pool = direct.min(received as u64);
        let own = received - of_pool as usize;
        match &mut self.receiving {
            Receiving::LargeHead { filled, .. } => *filled += own,
            Receiving::Payload(transfer) => {
                transfer.landed(of_pool, core);
                self.inbox.received(own);
            }
            Receiving::Head | Receiving::Drain(_) => self.inbox.received(own),
        }
        self.process(core);
    }

    /// The peer will send no more: what was begun is given up, what was asked
    /// is still answered.
    pub(crate) fn handle_end(&mut self, core: &mut Core) {
        self.close(Over::Done, core);
    }

    /// Goes on with requests that waited for room.
    pub(crate) fn handle_woken(&mut self, core: &mut Core) {
        if self.blocked {
            self.blocked = false;
            self.head_waited_ms += core.now.monotonic_ms - self.blocked_since_ms;
            self.process(core);
        }
    }

    /// Gives `write` what is to be sent, at most `budget` bytes, and notes what it
    /// wrote. Returns that, and whether it was all it was given. A descriptor goes
    /// with the first byte. What `write` cannot lend, it is given again to copy.
    pub(crate) fn send_with(
        &mut self,
        core: &mut Core,
        budget: u64,
        mut write: impl FnMut(&[IoSlice<'_>], Way<'_>) -> io::Result<usize>,
    ) -> io::Result<(usize, bool)> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let (mut count, mut given, mut way) = (0, 0, Way::Copied);
        self.outbox.poll(&core.store, budget, |segment| {
            if let Segment::Descriptor(descriptor) = segment {
                // What goes before it goes by another call.
                if count == 0 {
                    way = Way::Passing(descriptor);
                }
                return count == 0;
            }
            let (is_lent, lends) = (matches!(segment, Segment::Lent(_)), matches!(way, Way::Lent));
            if count == 0 && is_lent {
                way = Way::Lent;
            } else if is_lent != lends {
                // What is copied and what is lent go by calls of their own.
                way = if lends { Way::Lent } else { Way::CopiedMore };
                return false;
            }
            let mut push = |bytes| {
                slices[count] = IoSlice::new(bytes);
                (count, given) = (count + 1, given + bytes.len());
                count < SLICES_MAX
            };
            match segment {
                Segment::Head(bytes) => push(bytes),
                Segment::Descriptor(_) => unreachable!("seen above"),
                Segment::Pool(range) | Segment::Lent(range) => push(core.store.pool.bytes(range)),
                Segment::Zeros(mut bytes) => {
                    while bytes > 0 {
                        let now = bytes.min(ZEROS.len());
                        bytes -= now;
                        if !push(&ZEROS[..now]) {
                            return false;
                        }
                    }
                    true
                }
            }
        });
        let mut is_refused = false;
        let written = loop {
            match write(&slices[..count], way) {
                Err(error) if matches!(way, Way::Lent) && !is_not_ready(&error) => {
                    (way, is_refused) = (Way::Copied, true);
                }
                written => break written,
            }
        };
        let is_lent = matches!(way, Way::Lent);
        if is_refused {
            self.handle_refused(core);
        }
        let sent = written?;
        if is_lent {
            core.zero_copy.sends.add();
        }
        let now_ms = core.now.monotonic_ms;
        core.counters.sent_bytes += sent as u64;
        self.active_ms = now_ms;
        self.sent_bytes += sent as u64;
        self.outgoing.moved(sent, now_ms);
        self.outbox.sent(sent, is_lent, &mut core.store, &mut core.buffers);
        self.handle_woken(core);
        Ok((sent, sent == given))
    }

    /// The system did not take what it was to be lent.
    #[cold]
    fn handle_refused(&mut self, core: &Core) {
        core.zero_copy.refused.add();
        if let Some(lent) = &mut self.outbox.lent {
            lent.refused();
        }
    }

    /// Judges the connection by the clock.
    pub(crate) fn handle_time(&mut self, core: &mut Core) {
        let now_ms = core.now.monotonic_ms;
        let greeted = matches!(self.phase, Phase::Open { .. } | Phase::Closing);
        let handshake_over = !greeted && now_ms - self.accepted_ms >= TABLE_DEADLINE_MS;
        let head_over = !self.blocked
            && self
                .head_since_ms
                .is_some_and(|since| now_ms - since - self.head_waited_ms >= TABLE_DEADLINE_MS);
        let takes_payload = matches!(self.receiving, Receiving::Payload(_) | Receiving::Drain(_));
        let fills =
            matches!(&self.receiving, Receiving::Payload(transfer) if transfer.fills_claim());
        let hurries = fills && core.store.claims_are_awaited(false, core.now);
        let stalled_in = takes_payload
            && (self.incoming.has_stalled(now_ms)
                || hurries && self.incoming.has_rested(AWAITED_WINDOW_MS, now_ms));
        let stalled_out = self.has_output() && self.outgoing.has_stalled(now_ms)
            || self.outbox.lent.as_deref().is_some_and(|lent| lent.has_stalled(now_ms));
        let crawls = self.crawls(core);
        let idle = self.is_at_rest() && now_ms - self.active_ms >= IDLE_CONNECTION_MS;
        if handshake_over || head_over || stalled_in || stalled_out || crawls {
            self.close(Over::Stalled, core);
            self.outbox.clear(&mut core.store, &mut core.buffers);
        } else if idle {
            self.close(Over::Done, core);
        }
    }

    /// Whether the connection sends a large head, or takes a large answer, too
    /// slowly for others who wait for its buffer. Compares with the last time it
    /// was asked.
    fn crawls(&mut self, core: &Core) -> bool {
        let step = LARGE_HEAD_STEP as u64;
        let takes_slowly = self.outbox.borrowed() > 0
            && self.sent_before.is_some_and(|before| self.sent_bytes < before + step);
        self.sent_before = (self.outbox.borrowed() > 0).then_some(self.sent_bytes);
        if takes_slowly && core.buffers.is_wanted() {
            return true;
        }
        let gives = match &self.receiving {
            Receiving::LargeHead { .. } => true,
            Receiving::Payload(transfer) => transfer.is_borrowed(),
            Receiving::Head | Receiving::Drain(_) => false,
        };
        let gives_slowly = gives
            && !self.paused
            && self.received_before.is_some_and(|before| self.received_bytes < before + step);
        self.received_before = gives.then_some(self.received_bytes);
        gives_slowly && core.buffers.is_wanted()
    }

    /// Stops taking requests, and parts from the session. Answers still leave.
    pub(crate) fn close(&mut self, why: Over, core: &mut Core) {
        match std::mem::replace(&mut self.receiving, Receiving::Head) {
            Receiving::Payload(transfer) => {
                transfer.abort(&mut core.store, &mut core.buffers, &mut self.outbox);
            }
            Receiving::LargeHead { buffer, .. } => core.buffers.give_back(buffer),
            Receiving::Head | Receiving::Drain(_) => {}
        }
        let phase = std::mem::replace(&mut self.phase, Phase::Closing);
        if let Phase::Open { session, .. } = phase {
            core.sessions.leave(session, &mut core.store, core.now);
        }
        if !matches!(phase, Phase::Closing) {
            self.over = why;
        }
        core.buffers.forget(self.number);
        self.blocked = false;
        self.end_head();
    }

    /// Lets go of everything, but for what is lent, which is returned: whoever has
    /// the socket must keep it until the system is done.
    #[must_use = "what is lent stays pinned until the system is done with it"]
    pub(crate) fn release(mut self, core: &mut Core) -> Option<Box<Lent>> {
        self.close(Over::Done, core);
        self.outbox.clear(&mut core.store, &mut core.buffers);
        self.outbox.lent.take().filter(|lent| lent.is_outstanding())
    }

    /// Begins no request any more. The one under way goes on, and answers leave.
    pub(crate) fn stop(&mut self, core: &mut Core) {
        self.stopping = true;
        self.process(core);
    }

    /// Understands what is in the inbox, as far as it goes.
    fn process(&mut self, core: &mut Core) {
        let steps_end = core.store.steps() + STEPS_PER_TURN;
        loop {
            let between = matches!(self.receiving, Receiving::Head | Receiving::LargeHead { .. });
            if self.stopping && between {
                return self.close(Over::Done, core);
            }
            let goes_on = match &mut self.receiving {
                Receiving::Head => self.process_head(core),
                Receiving::LargeHead { .. } => self.process_large_head(core),
                Receiving::Payload(transfer) => {
                    match transfer.advance(&self.own_head, core, &mut self.outbox, steps_end) {
                        Advance::Ended => {
                            self.end_transfer(core);
                            true
                        }
                        Advance::WantsBytes => {
                            let used = transfer.take(self.inbox.filled(), core);
                            self.inbox.consume(used);
                            used > 0
                        }
                        Advance::WantsTurn => {
                            self.paused = true;
                            false
                        }
                    }
                }
                Receiving::Drain(left) => {
                    let used = (self.inbox.filled().len() as u64).min(*left);
                    *left -= used;
                    let done = *left == 0;
                    self.inbox.consume(used as usize);
                    if done {
                        self.receiving = Receiving::Head;
                    }
                    done
                }
            };
            if !goes_on || self.paused || matches!(self.phase, Phase::Closing) {
                return;
            }
        }
    }

    fn end_transfer(&mut self, core: &Core) {
        let receiving = std::mem::replace(&mut self.receiving, Receiving::Head);
        if let Receiving::Payload(transfer) = receiving {
            self.begin_output(core);
            transfer.finish(&mut self.outbox);
        }
    }

    /// The progress rule counts from when there is something to send.
    fn begin_output(&mut self, core: &Core) {
        if self.outbox.is_empty() {
            self.outgoing = Progress::begin(core.now.monotonic_ms);
        }
    }

    /// Goes on with the head of a request. True when there may be more to do.
    fn process_head(&mut self, core: &mut Core) -> bool {
        let filled = self.inbox.filled();
        if filled.is_empty() {
            self.end_head();
            return false;
        }
        if self.head_since_ms.is_none() {
            // It may have lain in the inbox behind one that waited.
            self.head_since_ms = Some(self.received_ms);
            self.head_waited_ms = core.now.monotonic_ms - self.received_ms;
        }
        let magic = filled.len().min(Header::MAGIC.len());
        if filled[..magic] != Header::MAGIC[..magic] {
            let mut found = [0; 4];
            found[..magic].copy_from_slice(&filled[..magic]);
            self.refuse_framing(&Header::default(), FramingError::Magic(found).status(), core);
            return false;
        }
        if filled.len() < Header::BYTES {
            return false;
        }
        let header = match Header::parse(filled) {
            Ok(header) => header,
            Err(error) => {
                let header = Header::decode(filled);
                self.refuse_framing(&header, error.status(), core);
                return false;
            }
        };
        let is_greeted = matches!(self.phase, Phase::Open { .. });
        if !is_greeted && header.head_bytes() != HELLO_FRAME_BYTES {
            self.close(Over::Framing, core);
            return false;
        }
        if is_greeted && needs_buffer(&header) {
            return self.begin_large_head(header, core);
        }
        let head_bytes = header.head_bytes();
        if filled.len() < head_bytes {
            return false;
        }
        self.own_head[..head_bytes].copy_from_slice(&filled[..head_bytes]);
        if let Err(error) = header.check(&self.own_head[..head_bytes]) {
            self.refuse_framing(&header, error.status(), core);
            return false;
        }
        let began = if is_greeted {
            self.dispatch(&header, None, core)
        } else {
            self.shake_hands(&header, core);
            true
        };
        if began {
            self.inbox.consume(head_bytes.min(self.inbox.filled().len()));
            self.end_head();
        }
        began
    }

    fn begin_large_head(&mut self, header: Header, core: &mut Core) -> bool {
        if self.outbox.borrowed() > 0 || !self.outbox.has_room(header.rows) {
            // One buffer for each connection, and none that only waits: the next
            // when answers have left.
            self.block(core);
            return false;
        }
        let Some(mut buffer) = core.buffers.borrow(self.number) else {
            self.block(core);
            return false;
        };
        let filled = self.inbox.filled();
        let there = filled.len().min(header.head_bytes());
        buffer.head_mut()[..there].copy_from_slice(&filled[..there]);
        self.inbox.consume(there);
        self.receiving = Receiving::LargeHead { header, buffer, filled: there };
        true
    }

    fn process_large_head(&mut self, core: &mut Core) -> bool {
        let Receiving::LargeHead { header, buffer, filled } =
            std::mem::replace(&mut self.receiving, Receiving::Head)
        else {
            unreachable!("the caller looked");
        };
        if filled < header.head_bytes() {
            self.receiving = Receiving::LargeHead { header, buffer, filled };
            return false;
        }
        if let Err(error) = header.check(buffer.head()) {
            core.buffers.give_back(buffer);
            self.refuse_framing(&header, error.status(), core);
            return false;
        }
        let began = self.dispatch(&header, Some((buffer, filled)), core);
        if began {
            self.end_head();
        }
        began
    }

    /// What comes next is another head, and has not begun.
    fn end_head(&mut self) {
        (self.head_since_ms, self.head_waited_ms) = (None, 0);
    }

    /// Waits for answers to leave, or for a shared buffer.
    fn block(&mut self, core: &Core) {
        (self.blocked, self.blocked_since_ms) = (true, core.now.monotonic_ms);
    }

    fn shake_hands(&mut self, header: &Header, core: &mut Core) {
        let table = header.table(&self.own_head);
        let step = match &self.phase {
            Phase::Greeting if handshake::is_handshake(header, Opcode::Hello) => {
                handshake::greet(core, header, table)
            }
            Phase::Proving(greeting) if handshake::is_handshake(header, Opcode::Proof) => {
                handshake::check_proof(core, greeting, header, table)
            }
            _ => Step::Close,
        };
        match step {
            Step::Prove(greeting, frame) => {
                self.push_frame(&frame, core);
                self.phase = Phase::Proving(greeting);
            }
            Step::Open(session, role, frame) => {
                self.push_frame(&frame, core);
                self.phase = Phase::Open { session, role };
            }
            Step::Refuse(frame) => {
                self.push_frame(&frame, core);
                self.close(Over::Done, core);
            }
            Step::Close => self.close(Over::Framing, core),
        }
    }

    fn push_frame(&mut self, frame: &[u8], core: &Core) {
        self.begin_output(core);
        self.outbox.push_greeting(frame);
    }

    /// Begins a request whose head is in. False when it must wait until answers
    /// have left; then the head stays where it is.
    fn dispatch(
        &mut self,
        header: &Header,
        large: Option<(Buffer, usize)>,
        core: &mut Core,
    ) -> bool {
        let Phase::Open { session, role } = self.phase else {
            unreachable!("requests are dispatched when the handshake is done");
        };
        let is_handshake = matches!(header.operation(), Some(Opcode::Hello | Opcode::Proof));
        let is_answer =
            header.flags.has(FrameFlags::ANSWER) || header.flags.has(FrameFlags::FRAMING_ERROR);
        if is_handshake || is_answer {
            if let Some((buffer, _)) = large {
                core.buffers.give_back(buffer);
            }
            self.refuse_framing(header, Status::OutOfOrder, core);
            return false;
        }
        let (mut buffer, filled) =
            large.map_or((None, 0), |(buffer, filled)| (Some(buffer), filled));
        let head = buffer.as_ref().map_or(&self.own_head[..], |buffer| buffer.head());
        let judged = judge(header, role, header.table(head));
        let bytes = judged.map_or(Header::BYTES, |opcode| request::answer_bytes(opcode, header));
        let place = self.outbox.set_aside(bytes, header.rows, &mut buffer);
        let Some(mut place) = place else {
            self.block(core);
            if let Some(buffer) = buffer {
                self.receiving = Receiving::LargeHead { header: *header, buffer, filled };
            }
            return false;
        };
        let now_ms = core.now.monotonic_ms;
        self.begin_output(core);
        self.paused = judged.is_ok_and(|opcode| request::is_heavy(opcode, header));
        match judged {
            Err(status) => {
                write_status(self.outbox.bytes_mut(&mut place), header, status, false);
                self.outbox.push(header.request_id, place, Header::BYTES, 0);
                self.receiving = Receiving::Drain(header.payload_bytes);
            }
            Ok(opcode) if opcode.request_has_payload() => {
                let since_ms = self.head_since_ms.unwrap_or(now_ms);
                let transfer = Transfer::new(header, opcode, session, since_ms, place);
                self.receiving = Receiving::Payload(transfer);
            }
            Ok(opcode) => self.answer(header, opcode, session, place, core),
        }
        self.incoming = Progress::begin(now_ms);
        true
    }

    fn answer(
        &mut self,
        header: &Header,
        opcode: Opcode,
        session: SessionIndex,
        mut place: Place,
        core: &mut Core,
    ) {
        // The table of a large request lies in the buffer that its answer goes
        // to as well, in another part of it.
        let table = match &mut place {
            Place::Borrowed(buffer) => buffer.take_head(),
            Place::Ring(..) => std::mem::take(&mut self.own_head),
        };
        let now_ms = core.now.monotonic_ms;
        let waited = now_ms - self.head_since_ms.unwrap_or(now_ms);
        let deadline = u64::from(header.deadline_ms);
        let request = Request {
            header,
            table: header.table(&table),
            session,
            is_late: deadline > 0 && waited > deadline,
            is_local: self.is_local,
        };
        let written = request.answer(opcode, core, &mut self.outbox, &mut place);
        match &mut place {
            Place::Borrowed(buffer) => buffer.put_head(table),
            Place::Ring(..) => self.own_head = table,
        }
        let place = self.outbox.shrink(place, written.head_bytes, &mut core.buffers);
        self.outbox.push(header.request_id, place, written.head_bytes, written.reads);
    }

    /// Ends a connection whose bytes cannot be understood: with one short frame
    /// when the handshake is done, without a word before.
    fn refuse_framing(&mut self, header: &Header, status: Status, core: &mut Core) {
        if matches!(self.phase, Phase::Open { .. }) {
            self.begin_output(core);
            self.outbox.push_last(header, status);
        }
        self.close(Over::Framing, core);
    }
}

/// Whether a call may succeed as it is when it is made again.
fn is_not_ready(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Stretches of the pool for one receive call.
#[derive(Default)]
struct Ranges {
    list: [PoolRange; SLICES_MAX - 1],
    count: usize,
}

/// Whether a request needs a shared buffer, for its head or for its answer.
fn needs_buffer(header: &Header) -> bool {
    let answer = header.operation().map_or(0, |opcode| request::answer_bytes(opcode, header));
    header.head_bytes() > OWN_HEAD_BYTES || answer > OWN_ANSWER_BYTES
}

/// The operation of a request that may be begun, or why it is refused as a whole.
fn judge(header: &Header, role: Role, table: &[u8]) -> Result<Opcode, Status> {
    let opcode = header.operation().ok_or(Status::Unsupported)?;
    if !header.flags.only(FrameFlags::KNOWN) {
        return Err(Status::Unsupported);
    }
    if !role.allows(opcode) {
        return Err(Status::Denied);
    }
    if opcode.request_has_payload() {
        transfer::check_table(opcode, header, table).map_err(|_| Status::BadRow)?;
    } else if header.payload_bytes > 0 {
        return Err(Status::BadRow);
    }
    if opcode == Opcode::Stat && header.rows > STAT_ROWS_MAX {
        let table = Table::<StatRequestRow>::parse(header, table);
        return Err(if table.is_ok() { Status::TooLarge } else { Status::BadRow });
    }
    Ok(opcode)
}

#[cfg(test)]
mod tests;

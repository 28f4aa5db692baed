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
mod dispatch;
mod draft;
mod handshake;
mod inbox;
mod lent;
mod map;
mod outbox;
mod page;
mod progress;
mod request;
mod stalling;
mod traffic;
mod transfer;

use std::os::fd::BorrowedFd;

use rampuddle_protocol::{Header, Role};

#[cfg(any(test, feature = "simulation"))]
pub(crate) use buffer::BUFFERS;
pub(crate) use buffer::{BUFFERS_BYTES, Buffers};
pub(crate) use lent::{Done, Lent};

use crate::core::Core;
use crate::store::SessionIndex;
use buffer::Buffer;
use handshake::Greeting;
use inbox::{INBOX_BYTES, Inbox};
use lent::LENT_BYTES;
use outbox::{OUTBOX_BYTES, Outbox};
use progress::Progress;
use transfer::Transfer;

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
}

#[cfg(test)]
mod tests;

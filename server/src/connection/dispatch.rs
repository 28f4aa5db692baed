//! From bytes to requests: heads are found, checked and handed on, payloads go where
//! their requests say.

use rampuddle_protocol::limits::{HELLO_FRAME_BYTES, STAT_ROWS_MAX};
use rampuddle_protocol::{
    FrameFlags, FramingError, Header, Opcode, Role, StatRequestRow, Status, Table,
};

use super::buffer::Buffer;
use super::draft::write_status;
use super::handshake::{self, Step};
use super::outbox::{OWN_ANSWER_BYTES, Place};
use super::progress::Progress;
use super::request::{self, Request};
use super::transfer::{self, Advance, Transfer};
use super::{Connection, OWN_HEAD_BYTES, Over, Phase, Receiving};
use crate::core::Core;
use crate::store::SessionIndex;

/// Steps over runs of pages after which the rest of a request waits for another
/// turn.
pub(super) const STEPS_PER_TURN: u64 = 16 * 1024;

impl Connection {
    /// Understands what is in the inbox, as far as it goes.
    pub(super) fn process(&mut self, core: &mut Core) {
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
    pub(super) fn end_head(&mut self) {
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

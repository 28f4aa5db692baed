//! Answers on their way in.

use std::io::{self, IoSliceMut};
use std::sync::atomic::Ordering;

use rampuddle_protocol::{FrameFlags, Header, Opcode, Row, Status, Table};

use super::pace::Pace;
use super::{Connection, INBOX_BYTES};
use crate::error::{Error, Misbehaviour};

/// What one read takes at most, so that bytes are still warm in the cache when
/// their checksum is computed.
const READ_BYTES_MAX: usize = 256 << 10;

const WAITING: &str = "preparing an answer";
const READING: &str = "sending an answer";

impl Connection {
    /// Reads header and table of the next answer. Its payload must be received
    /// or skipped before the next.
    ///
    /// # Errors
    /// When the connection broke, did not move, or the server broke the
    /// protocol: lengths beyond the limits, a wrong checksum, an answer to
    /// nothing that was asked, or with more rows or payload than asked. The
    /// connection is of no more use then.
    ///
    /// # Panics
    /// When payload of the answer before it is left: that is ours to avoid.
    pub(crate) async fn receive_head(&mut self) -> Result<Header, Error> {
        assert_eq!(self.payload_left, 0, "payload must be received before the next answer");
        self.begin(WAITING)?;
        self.pace = Pace::default();
        while self.buffered() < Header::BYTES {
            self.fill_inbox(WAITING).await?;
        }
        let start = &self.inbox[self.inbox_start..self.inbox_end];
        let header = Header::parse(start).map_err(|error| self.misbehaved(error))?;
        self.receive_rest_of_head(header.head_bytes()).await?;
        header.check(&self.head).map_err(|error| self.misbehaved(error))?;
        self.admit(&header).map_err(|what| self.misbehaved(what))?;
        self.payload_left = header.payload_bytes;
        self.header = header;
        self.is_intact = true;
        Ok(header)
    }

    /// The rows of the answer whose head was received last.
    pub(crate) fn table<R: Row>(&mut self) -> Result<Table<'_, R>, Error> {
        let parsed = Table::<R>::parse(&self.header, self.header.table(&self.head));
        if let Err(error) = parsed {
            return Err(self.misbehaved(error));
        }
        let again = Table::parse(&self.header, self.header.table(&self.head));
        Ok(again.expect("it parsed a line above"))
    }

    /// Reads the next bytes of the answer's payload into all of `slice`.
    /// `on_bytes` sees each piece in order as soon as it is in.
    ///
    /// # Panics
    /// When the payload has fewer bytes left: compare the rows first.
    pub(crate) async fn receive_payload_into(
        &mut self,
        slice: &mut [u8],
        mut on_bytes: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        assert!(slice.len() as u64 <= self.payload_left, "more payload is wanted than announced");
        self.begin(READING)?;
        self.payload_left -= slice.len() as u64;
        let mut done = self.take_from_inbox(slice);
        if done > 0 {
            on_bytes(&slice[..done]);
        }
        while done < slice.len() {
            let piece = self.read_into(&mut slice[done..]).await?;
            on_bytes(&slice[done..done + piece]);
            done += piece;
        }
        self.is_intact = true;
        Ok(())
    }

    /// Reads `bytes` of the answer's payload and forgets them.
    ///
    /// # Panics
    /// When the payload has fewer bytes left.
    pub(crate) async fn skip_payload(&mut self, bytes: u64) -> Result<(), Error> {
        assert!(bytes <= self.payload_left, "more payload is skipped than announced");
        self.begin(READING)?;
        self.payload_left -= bytes;
        let mut left = bytes;
        loop {
            let now = self.buffered().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.inbox_start += now;
            left -= now as u64;
            if left == 0 {
                break;
            }
            self.fill_inbox(READING).await?;
        }
        self.is_intact = true;
        Ok(())
    }

    /// Payload of the current answer that was not received yet.
    #[cfg(test)]
    pub(crate) fn payload_left(&self) -> u64 {
        self.payload_left
    }

    pub(super) fn buffered(&self) -> usize {
        self.inbox_end - self.inbox_start
    }

    /// Reads more into the inbox, which has room: heads are taken out of it at once.
    pub(super) async fn fill_inbox(&mut self, doing: &'static str) -> Result<(), Error> {
        if self.inbox_start > 0 {
            self.inbox.copy_within(self.inbox_start..self.inbox_end, 0);
            (self.inbox_start, self.inbox_end) = (0, self.buffered());
        }
        let may_spin = self.is_alone();
        let Self { stream, inbox, inbox_end, takes_descriptor, descriptor, .. } = self;
        let slices = &mut [IoSliceMut::new(&mut inbox[*inbox_end..])];
        let descriptor = takes_descriptor.then_some(descriptor);
        let read = async {
            match descriptor {
                Some(descriptor) => stream.read_with_descriptor(slices, descriptor).await,
                None => stream.read_vectored(slices, may_spin).await,
            }
        };
        match self.pace.wait(self.patience, self.deadline, read).await {
            Ok(Ok(0)) => Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(Ok(bytes)) => {
                self.pace.moved(bytes);
                self.received(bytes);
                self.inbox_end += bytes;
                Ok(())
            }
            Ok(Err(error)) => Err(self.broken(error)),
            Err(waited) => Err(self.waited(waited, doing)),
        }
    }

    /// One read into `slice`; what comes beyond it goes to the inbox, which is empty.
    async fn read_into(&mut self, slice: &mut [u8]) -> Result<usize, Error> {
        debug_assert_eq!(self.buffered(), 0, "what was read ahead comes first");
        let wanted = slice.len().min(READ_BYTES_MAX);
        let is_all = wanted == slice.len();
        let may_spin = self.is_alone();
        let Self { stream, inbox, .. } = self;
        let ahead = if is_all { &mut inbox[..] } else { &mut [] };
        let slices = &mut [IoSliceMut::new(&mut slice[..wanted]), IoSliceMut::new(ahead)];
        let read = stream.read_vectored(slices, may_spin);
        match self.pace.wait(self.patience, self.deadline, read).await {
            Ok(Ok(0)) => Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(Ok(bytes)) => {
                self.pace.moved(bytes);
                self.received(bytes);
                (self.inbox_start, self.inbox_end) = (0, bytes.saturating_sub(wanted));
                Ok(bytes.min(wanted))
            }
            Ok(Err(error)) => Err(self.broken(error)),
            Err(waited) => Err(self.waited(waited, READING)),
        }
    }

    /// Moves a whole head to where tables are read from. A head is allocated for
    /// only after its lengths were checked against the limits.
    pub(super) async fn receive_rest_of_head(&mut self, head_bytes: usize) -> Result<(), Error> {
        while head_bytes <= INBOX_BYTES && self.buffered() < head_bytes {
            self.fill_inbox(READING).await?;
        }
        let mut head = std::mem::take(&mut self.head);
        head.resize(head_bytes, 0);
        let mut done = self.take_from_inbox(&mut head);
        while done < head_bytes {
            done += self.read_into(&mut head[done..]).await?;
        }
        self.head = head;
        Ok(())
    }

    /// Whether nothing else of the client waits for a server, so that its thread has
    /// nothing better to do than to look for this answer.
    fn is_alone(&self) -> bool {
        self.in_use.load(Ordering::Relaxed) <= 1
    }

    fn take_from_inbox(&mut self, slice: &mut [u8]) -> usize {
        let now = self.buffered().min(slice.len());
        slice[..now].copy_from_slice(&self.inbox[self.inbox_start..][..now]);
        self.inbox_start += now;
        now
    }

    /// Compares an answer with what was asked, and closes the request.
    fn admit(&mut self, header: &Header) -> Result<(), Misbehaviour> {
        if header.flags.has(FrameFlags::FRAMING_ERROR) {
            let status = Status::from_number(header.status).unwrap_or(Status::Unsupported);
            return Err(Misbehaviour::Complaint(status));
        }
        if !header.flags.has(FrameFlags::ANSWER) {
            return Err(Misbehaviour::NotAnAnswer);
        }
        let request_id = header.request_id;
        let open = self.outstanding.iter().position(|request| request.id == request_id);
        let index = open.ok_or(Misbehaviour::UnknownRequest { request_id })?;
        let asked = &self.outstanding[index];
        if header.opcode != asked.opcode as u8 {
            return Err(Misbehaviour::WrongOperation {
                wanted: asked.opcode,
                found: header.opcode,
            });
        }
        let is_refused = header.status != Status::Ok as u8;
        let wanted = match asked.opcode {
            _ if is_refused => 0,
            Opcode::Info | Opcode::Share => 1,
            Opcode::List | Opcode::Map => header.rows,
            _ => asked.rows,
        };
        if header.rows != wanted {
            return Err(Misbehaviour::WrongRows { wanted, found: header.rows });
        }
        let limit = if is_refused { 0 } else { asked.answer_payload_max };
        if header.payload_bytes > limit {
            return Err(Misbehaviour::TooMuchPayload { limit, found: header.payload_bytes });
        }
        self.outstanding.swap_remove(index);
        Ok(())
    }
}

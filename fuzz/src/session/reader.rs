//! What a client sees of a server: its frames, each checked as it comes.

use rampuddle_protocol::limits::{HELLO_FRAME_BYTES, PAYLOAD_BYTES_MAX};
use rampuddle_protocol::{
    FrameFlags, Header, InfoRow, MappedRow, Opcode, Outcome, ServerHello, SharedRow, StatRow,
    Status, Table,
};

/// How far the handshake is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Hello,
    Proof,
    Open,
    /// Nothing may follow.
    Over,
}

/// A frame that came behind the handshake.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) header: Header,
    pub(super) table: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

impl Answer {
    /// Its outcomes; none when the whole request was refused.
    pub(super) fn outcomes(&self) -> Vec<Outcome> {
        let table = Table::<Outcome>::parse(&self.header, &self.table);
        table.map_or_else(|_| Vec::new(), |table| table.iter().map(|(row, ..)| row).collect())
    }
}

/// One connection's answers.
#[derive(Debug, Default)]
pub(super) struct Reader {
    bytes: Vec<u8>,
    phase: Phase,
    pub(super) hello: Option<ServerHello>,
    pub(super) answers: Vec<Answer>,
    /// Of the reservations made, in order.
    pub(super) handles: Vec<u64>,
    /// Of the times that the pool was given, in order.
    pub(super) mappings: Vec<u64>,
    pool_bytes: u64,
    /// Runs of values that were found in the pool.
    pub(super) mapped: u64,
}

impl Reader {
    /// Where the server's bytes go; then call [`Reader::read`].
    pub(super) fn room(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Whether the handshake is done.
    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether the handshake was done once.
    pub(super) fn was_greeted(&self) -> bool {
        self.is_open() || !self.answers.is_empty()
    }

    /// Whether the server waits for a proof.
    pub(super) fn wants_proof(&self) -> bool {
        self.phase == Phase::Proof
    }

    /// Understands all frames that are whole.
    ///
    /// # Panics
    /// When the server broke the protocol.
    pub(super) fn read(&mut self) {
        let mut at = 0;
        while let Some(header) = header_of(&self.bytes[at..]) {
            let head_end = at + header.head_bytes();
            let end = head_end + header.payload_bytes as usize;
            if end > self.bytes.len() {
                break;
            }
            let head = &self.bytes[at..head_end];
            header.check(head).expect("the server's checksums are right");
            let table = header.table(head).to_vec();
            let payload = self.bytes[head_end..end].to_vec();
            self.take(Answer { header, table, payload });
            at = end;
        }
        self.bytes.drain(..at);
    }

    fn take(&mut self, answer: Answer) {
        let header = &answer.header;
        assert!(header.flags.has(FrameFlags::ANSWER), "servers answer, and ask nothing");
        let status = Status::from_number(header.status).expect("servers use known statuses");
        match self.phase {
            Phase::Over => panic!("a frame behind the last one: {header:?}"),
            Phase::Open => self.take_answer(answer, status),
            Phase::Hello | Phase::Proof => self.take_greeting(&answer, status),
        }
    }

    fn take_greeting(&mut self, answer: &Answer, status: Status) {
        let header = &answer.header;
        assert_eq!(
            (header.head_bytes(), header.payload_bytes),
            (HELLO_FRAME_BYTES, 0),
            "{header:?} in {:?}",
            self.phase
        );
        let wanted = if self.phase == Phase::Hello { Opcode::Hello } else { Opcode::Proof };
        assert_eq!(header.opcode, wanted as u8);
        let next = if wanted == Opcode::Hello {
            let (hello, _) = ServerHello::parse(header, &answer.table).expect("a sound hello");
            let wants_proof = hello.proof_wanted != 0;
            self.hello = Some(hello);
            if wants_proof { Phase::Proof } else { Phase::Open }
        } else {
            Phase::Open
        };
        self.phase = if status == Status::Ok { next } else { Phase::Over };
    }

    fn take_answer(&mut self, answer: Answer, status: Status) {
        let header = &answer.header;
        assert!(header.payload_bytes <= PAYLOAD_BYTES_MAX, "no more than was granted");
        if header.flags.has(FrameFlags::FRAMING_ERROR) {
            assert!(header.rows == 0 && header.payload_bytes == 0 && status as u8 >= 128);
            self.phase = Phase::Over;
        } else if status != Status::Ok {
            assert!((header.rows, header.table_bytes, header.payload_bytes) == (0, 0, 0));
            assert!((status as u8) < 128, "{status} ends a connection");
        } else {
            self.take_rows(&answer);
        }
        self.answers.push(answer);
    }

    fn take_rows(&mut self, answer: &Answer) {
        let (header, bytes) = (&answer.header, &answer.table[..]);
        match header.operation().expect("the server answers what it knows") {
            Opcode::Stat | Opcode::List => {
                let table = Table::<StatRow>::parse(header, bytes).expect("a sound table");
                assert!(table.iter().all(|(row, ..)| Status::from_number(row.status).is_some()));
            }
            Opcode::Info => {
                let table = Table::<InfoRow>::parse(header, bytes).expect("a sound table");
                let info = table.iter().next().expect("one row").0;
                assert!(info.used_bytes + info.reserved_bytes <= info.pool_bytes, "{info:?}");
            }
            Opcode::Share => {
                let table = Table::<SharedRow>::parse(header, bytes).expect("a sound table");
                let shared = table.iter().next().expect("one row").0;
                self.mappings.push(shared.mapping);
                self.pool_bytes = shared.pool_bytes;
            }
            Opcode::Map => {
                let table = Table::<MappedRow>::parse(header, bytes).expect("a sound table");
                for (row, ..) in &table {
                    let status = Status::from_number(row.status).expect("a known status");
                    let end = row.offset.checked_add(row.bytes).expect("an end");
                    assert!(end <= self.pool_bytes, "what is mapped lies in the pool: {row:?}");
                    assert!(row.filled <= row.length, "{row:?}");
                    self.mapped += u64::from(status == Status::Ok && row.bytes > 0);
                }
            }
            opcode => {
                let table = Table::<Outcome>::parse(header, bytes).expect("a sound table");
                let mut given = 0;
                for (row, ..) in &table {
                    let status = Status::from_number(row.status).expect("a known status");
                    let is_gather = opcode == Opcode::Gather && status == Status::Ok;
                    given += if is_gather { row.length } else { 0 };
                    if opcode == Opcode::Create && status == Status::Ok && row.detail != 0 {
                        self.handles.push(row.detail);
                    }
                }
                assert_eq!(given, header.payload_bytes, "the rows' shares are the payload");
            }
        }
    }
}

fn header_of(bytes: &[u8]) -> Option<Header> {
    if bytes.len() < Header::BYTES {
        return None;
    }
    let header = Header::parse(bytes).expect("servers send frames");
    (header.head_bytes() <= bytes.len()).then_some(header)
}

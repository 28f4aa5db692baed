//! One connection of a script: what is on its wire, and what came back.

use rampuddle_protocol::{
    ClientHello, Header, Nonce, Opcode, Proof, ProofInput, Role, SessionId, prove,
};
use rampuddle_server::simulation::SimulatedServer;

use super::reader::Reader;
use crate::layout::{kind, number};
use crate::mutate::seal;

/// Bytes that one receive or send call moves at most.
const BUDGET: u64 = 128 << 10;
/// Bytes that a script may put on one wire.
const WIRE_MAX: usize = 4 << 20;

/// The token that a server with one knows: its id and its secret.
pub(super) const TOKEN: ([u8; 16], &[u8]) = (*b"fuzz\0\0\0\0\0\0\0\0\0\0\0\0", b"secret");

/// A connection and its client.
#[derive(Debug, Default)]
pub(super) struct Line {
    number: Option<usize>,
    wire: Vec<u8>,
    /// Bytes put on the wire so far, and those that arrived.
    put: usize,
    arrived: usize,
    left: usize,
    session: SessionId,
    pub(super) reader: Reader,
}

impl Line {
    /// Connects anew; what was on the wire is lost.
    pub(super) fn connect(&mut self, server: &mut SimulatedServer) {
        if let Some(number) = self.number.take() {
            server.cut(number);
        }
        *self = Self { number: server.connect(), ..Self::default() };
    }

    /// Whether the server still has the connection.
    pub(super) fn is_open(&self, server: &SimulatedServer) -> bool {
        self.number.is_some_and(|number| server.is_open(number))
    }

    /// Puts bytes on the wire.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(WIRE_MAX.saturating_sub(self.put))];
        self.wire.extend_from_slice(bytes);
        self.put += bytes.len();
    }

    /// Puts bytes of a pattern on the wire that is the same wherever it is cut.
    pub(super) fn fill(&mut self, count: usize) {
        let count = count.min(WIRE_MAX.saturating_sub(self.put));
        let of = |at: usize| ((at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u8;
        self.wire.extend((self.put..self.put + count).map(of));
        self.put += count;
    }

    /// Puts a head on the wire, with the server's numbers and sealed.
    pub(super) fn put_head(&mut self, head: &[u8]) {
        let mut head = head.to_vec();
        self.put_numbers(&mut head);
        let sealed = sealed_bytes(&head);
        seal(&mut head[..sealed]);
        self.put(&head);
    }

    /// Puts a sound hello on the wire.
    pub(super) fn put_hello(&mut self, session: u8) {
        self.session = SessionId([session % 3 + 1; 16]);
        let hello = ClientHello {
            version_min: Header::VERSION,
            version_max: Header::VERSION,
            nonce: Nonce([5; 16]),
            session: self.session,
            ..ClientHello::default()
        };
        let mut frame = Vec::new();
        hello.frame("cluster", "", &mut frame);
        self.put(&frame);
    }

    /// Puts the proof on the wire that the server waits for, or a wrong one.
    pub(super) fn put_proof(&mut self, right: u8) {
        let Some(hello) = self.reader.hello.filter(|_| self.reader.wants_proof()) else { return };
        let role = Role::from_number(right % 4).unwrap_or(Role::Admin);
        let input = ProofInput {
            client_nonce: Nonce([5; 16]),
            server_nonce: hello.nonce,
            session: self.session,
            incarnation: hello.incarnation,
            role,
            cluster: "cluster",
        };
        let mac = if right == 0 { [7; 32] } else { prove(TOKEN.1, &input, true) };
        let proof = Proof { key_id: TOKEN.0, role: role as u8, mac, ..Proof::default() };
        let mut frame = Vec::new();
        proof.frame(&mut frame);
        self.put(&frame);
    }

    /// Bytes arrive, at most so many, as one piece; returns how many.
    pub(super) fn arrive(&mut self, server: &mut SimulatedServer, most: usize) -> usize {
        let Some(number) = self.number else { return 0 };
        let end = most.min(self.wire.len());
        let mut taken = 0;
        while taken < end {
            let now = server.receive(number, &self.wire[taken..end], BUDGET);
            taken += now;
            if now == 0 {
                break;
            }
        }
        self.wire.drain(..taken);
        self.arrived += taken;
        taken
    }

    /// Answers leave, at most so many bytes; returns how many.
    pub(super) fn leave(&mut self, server: &mut SimulatedServer, most: usize) -> usize {
        let Some(number) = self.number else { return 0 };
        let left = server.send(number, most, BUDGET, self.reader.room());
        self.left += left;
        self.reader.read();
        assert!(
            self.reader.was_greeted() || self.left <= self.arrived,
            "more is answered than was said"
        );
        left
    }

    /// Sends no more.
    pub(super) fn end(&mut self, server: &mut SimulatedServer) {
        if let Some(number) = self.number {
            server.end_input(number);
        }
    }

    /// Cuts the connection.
    pub(super) fn cut(&mut self, server: &mut SimulatedServer) {
        if let Some(number) = self.number.take() {
            server.cut(number);
        }
    }

    /// Whether a head names handles or mappings by how many came before them.
    pub(super) fn names_any(head: &[u8]) -> bool {
        numbered_places(head).1.any(|place| (1..=4).contains(&number(head, Some(place))))
    }

    /// Replaces 1 to 4, of handles and of mappings, by what the server gave.
    fn put_numbers(&self, head: &mut [u8]) {
        let (is_handle, places) = numbered_places(head);
        let given = if is_handle { &self.reader.handles } else { &self.reader.mappings };
        let places: Vec<_> = places.collect();
        for (offset, length) in places {
            let named = number(head, Some((offset, length)));
            let found = named.checked_sub(1).and_then(|at| given.get(at as usize));
            if let Some(found) = found.filter(|_| named <= 4) {
                head[offset..offset + length].copy_from_slice(&found.to_le_bytes());
            }
        }
    }
}

/// How much of a head its checksum covers.
fn sealed_bytes(head: &[u8]) -> usize {
    if head.len() < Header::BYTES {
        return 0;
    }
    Header::decode(head).head_bytes().clamp(Header::BYTES, head.len())
}

/// Whether the rows of a head have handles, else mappings, and where.
fn numbered_places(head: &[u8]) -> (bool, impl Iterator<Item = (usize, usize)> + use<>) {
    let is_whole = head.len() >= Header::BYTES;
    let header = if is_whole { Header::decode(head) } else { Header::default() };
    let name = match header.operation() {
        Some(Opcode::Scatter | Opcode::Publish) => Some("handle"),
        Some(Opcode::Map | Opcode::Unmap) => Some("mapping"),
        _ => None,
    };
    let rows_of = |opcode| kind(opcode, false);
    let field = header.operation().and_then(rows_of).zip(name);
    let field = field.and_then(|(kind, name)| kind.field(name));
    let (offset, length) = field.unwrap_or((0, 8));
    let (start, row_bytes) = (usize::from(header.header_bytes), usize::from(header.row_bytes));
    let room = head.len().saturating_sub(start);
    let fits = field.is_some() && row_bytes >= offset + length;
    let rows = if fits { (header.rows as usize).min(room / row_bytes.max(1)) } else { 0 };
    let places = (0..rows).map(move |row| (start + row * row_bytes + offset, length));
    (name == Some("handle"), places)
}

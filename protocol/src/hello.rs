//! The handshake: client hello, server hello, and proof of a token.

use crate::field::wire_layout;
use crate::limits::{HELLO_FRAME_BYTES, SERVER_NAME_BYTES_MAX};
use crate::table::impl_row;
use crate::{
    Header, Incarnation, Nonce, Opcode, Row, SessionId, Status, StoreId, Table, TableBuilder,
    TableError,
};

wire_layout! {
    /// The first frame of a connection, from the client. Behind the row: the
    /// cluster's name, then the name of the server it means to reach (may be
    /// empty), then zeros.
    pub struct ClientHello {
        /// The lowest version of the protocol that it speaks.
        version_min: u8,
        /// The highest.
        version_max: u8,
        /// Length of the cluster's name.
        cluster_bytes: u16,
        /// Length of the server's name.
        server_bytes: u16,
        /// Zero.
        reserved_0: u16,
        /// Fresh for this connection.
        nonce: Nonce,
        /// The session that the connection joins.
        session: SessionId,
        /// What it places keys by: [`crate::PlacementSettings::fingerprint`];
        /// 0 = it places nothing over this connection.
        settings: u64,
    }
}
impl_row!(ClientHello, key = cluster_bytes, tag = server_bytes);

wire_layout! {
    /// The answer to a client hello. Behind the row: the server's name, then zeros.
    pub struct ServerHello {
        /// The version of the protocol that both will speak.
        version: u8,
        /// 1 when the client must send [`Proof`] before anything else, else 0.
        proof_wanted: u8,
        /// Length of the server's name.
        name_bytes: u16,
        /// Rows granted per frame.
        rows_max: u32,
        /// Fresh for this connection.
        nonce: Nonce,
        /// Survives a warm restart.
        store_id: StoreId,
        /// Drawn at the server's start.
        incarnation: Incarnation,
        /// The server's clock, milliseconds since 1970.
        clock_unix_ms: u64,
        /// Milliseconds since the last repair mark, `u64::MAX` = never.
        mark_age_ms: u64,
        /// Bytes of a table granted.
        table_bytes_max: u32,
        /// Bytes of a payload granted, both ways.
        payload_bytes_max: u32,
        /// Requests granted to be unanswered on the connection.
        outstanding_requests_max: u32,
        /// Payload bytes granted to be asked for and not received.
        outstanding_bytes_max: u32,
        /// The cluster's settings as the server was told them:
        /// [`crate::PlacementSettings::fingerprint`]; 0 = it was not told yet,
        /// or the client means another cluster.
        settings: u64,
    }
}
impl_row!(ServerHello, key = name_bytes);

wire_layout! {
    /// Shows that the client has a token's secret: see [`crate::prove`].
    pub struct Proof {
        /// The token's key id, padded with zeros.
        key_id: [u8; 16],
        /// The role asked for: see [`Role`].
        role: u8,
        /// Zero.
        reserved_0: [u8; 7],
        /// HMAC-SHA256 over both nonces.
        mac: [u8; 32],
    }
}
impl_row!(Proof);

wire_layout! {
    /// Shows that the server has it too.
    pub struct ProofAnswer {
        /// The role granted: see [`Role`].
        role: u8,
        /// Zero.
        reserved_0: [u8; 7],
        /// HMAC-SHA256 over both nonces.
        mac: [u8; 32],
    }
}
impl_row!(ProofAnswer);

// Every frame of the handshake fits its fixed length, names included.
const HELLO_ROOM: usize = HELLO_FRAME_BYTES - Header::BYTES;
const _: () = assert!(ClientHello::BYTES + 2 * SERVER_NAME_BYTES_MAX <= HELLO_ROOM);
const _: () = assert!(ServerHello::BYTES + SERVER_NAME_BYTES_MAX <= HELLO_ROOM);
const _: () = assert!(Proof::BYTES <= HELLO_ROOM);

/// What a connection may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Role {
    /// Gather, Stat, List, Info, Hold, Release, Ping, Cancel, Map, Unmap, Share.
    Read = 1,
    /// Those, and everything that changes values.
    Write = 2,
    /// Everything.
    Admin = 3,
}

impl Role {
    /// The role with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Read, Self::Write, Self::Admin].into_iter().find(|role| *role as u8 == number)
    }

    /// Whether the role allows the operation.
    pub fn allows(self, opcode: Opcode) -> bool {
        match opcode {
            Opcode::Create
            | Opcode::Scatter
            | Opcode::Delete
            | Opcode::Publish
            | Opcode::Drop
            | Opcode::Touch => self >= Self::Write,
            Opcode::Gather
            | Opcode::Hello
            | Opcode::Proof
            | Opcode::Cancel
            | Opcode::Hold
            | Opcode::Release
            | Opcode::Stat
            | Opcode::List
            | Opcode::Info
            | Opcode::Ping
            | Opcode::Map
            | Opcode::Unmap
            | Opcode::Share => true,
        }
    }
}

impl ClientHello {
    /// Appends the whole frame, padded to [`HELLO_FRAME_BYTES`].
    ///
    /// # Panics
    /// When a name is longer than [`SERVER_NAME_BYTES_MAX`].
    pub fn frame(&self, cluster: &str, server: &str, out: &mut Vec<u8>) {
        let header = Header::new(Opcode::Hello as u8, 0);
        handshake_frame(header, self, cluster.as_bytes(), server.as_bytes(), out);
    }

    /// Reads the table of such a frame: the hello, the cluster's and the server's name.
    pub fn parse<'a>(
        header: &Header,
        table: &'a [u8],
    ) -> Result<(Self, &'a [u8], &'a [u8]), TableError> {
        handshake_row(header, table)
    }
}

impl ServerHello {
    /// Appends the whole frame, padded to [`HELLO_FRAME_BYTES`].
    ///
    /// # Panics
    /// When the name is longer than [`SERVER_NAME_BYTES_MAX`].
    pub fn frame(&self, status: Status, name: &str, out: &mut Vec<u8>) {
        handshake_frame(answer_header(Opcode::Hello, status), self, name.as_bytes(), b"", out);
    }

    /// Reads the table of such a frame: the hello and the server's name.
    pub fn parse<'a>(header: &Header, table: &'a [u8]) -> Result<(Self, &'a [u8]), TableError> {
        handshake_row(header, table).map(|(hello, name, _)| (hello, name))
    }
}

impl Proof {
    /// Appends the whole frame, padded to [`HELLO_FRAME_BYTES`].
    pub fn frame(&self, out: &mut Vec<u8>) {
        handshake_frame(Header::new(Opcode::Proof as u8, 0), self, b"", b"", out);
    }

    /// Reads the table of such a frame.
    pub fn parse(header: &Header, table: &[u8]) -> Result<Self, TableError> {
        handshake_row(header, table).map(|(proof, _, _)| proof)
    }
}

impl ProofAnswer {
    /// Appends the whole frame, padded to [`HELLO_FRAME_BYTES`].
    pub fn frame(&self, status: Status, out: &mut Vec<u8>) {
        handshake_frame(answer_header(Opcode::Proof, status), self, b"", b"", out);
    }

    /// Reads the table of such a frame.
    pub fn parse(header: &Header, table: &[u8]) -> Result<Self, TableError> {
        handshake_row(header, table).map(|(answer, _, _)| answer)
    }
}

fn answer_header(opcode: Opcode, status: Status) -> Header {
    let mut header = Header::new(opcode as u8, 0);
    header.flags = crate::FrameFlags::ANSWER;
    header.status = status as u8;
    header
}

fn handshake_frame<R: Row>(header: Header, row: &R, key: &[u8], tag: &[u8], out: &mut Vec<u8>) {
    assert!(
        key.len() <= SERVER_NAME_BYTES_MAX && tag.len() <= SERVER_NAME_BYTES_MAX,
        "names of servers and clusters are checked where they are set"
    );
    let mut table = TableBuilder::with_header(out, header);
    table.push(row, key, tag);
    table.finish_padded(0, HELLO_FRAME_BYTES);
}

fn handshake_row<'a, R: Row>(
    header: &Header,
    table: &'a [u8],
) -> Result<(R, &'a [u8], &'a [u8]), TableError> {
    let (table, _) = Table::<R>::parse_padded(header, table)?;
    table.iter().next().ok_or(TableError::ShortRows { found: 0, wanted: R::BYTES })
}

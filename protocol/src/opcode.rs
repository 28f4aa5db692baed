//! What a frame asks for.

/// The operation of a frame: the four, then the control operations, then
/// numbers whose bodies are not laid down yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// Make values.
    Create = 1,
    /// Write into values.
    Scatter = 2,
    /// Read from values.
    Gather = 3,
    /// Delete keys, leaving tombstones.
    Delete = 4,

    /// Begin a connection.
    Hello = 16,
    /// Show knowledge of a token.
    Proof = 17,
    /// Make a reserved value visible.
    Publish = 18,
    /// Give up on an earlier request of the same connection.
    Cancel = 19,
    /// Remove an exact version from this server, without a tombstone.
    Drop = 20,
    /// Keep a set readable for this session.
    Hold = 21,
    /// End a hold.
    Release = 22,
    /// Renew, lengthen or end the lease of a set.
    Touch = 23,
    /// What is known of one key.
    Stat = 24,
    /// Walk the keys in order.
    List = 25,
    /// What is known of the server.
    Info = 26,
    /// Keep the session alive.
    Ping = 27,

    /// Find values, keep them, and say where they lie in the pool.
    Map = 68,
    /// End what Map keeps.
    Unmap = 73,
    /// Hand out the pool, to be read by a client on the same machine.
    Share = 74,
    // The others of 64 to 127 are reserved: see `docs/protocol.md`.
}

impl Opcode {
    /// All operations of this version.
    pub const ALL: &[Self] = &[
        Self::Create,
        Self::Scatter,
        Self::Gather,
        Self::Delete,
        Self::Hello,
        Self::Proof,
        Self::Publish,
        Self::Cancel,
        Self::Drop,
        Self::Hold,
        Self::Release,
        Self::Touch,
        Self::Stat,
        Self::List,
        Self::Info,
        Self::Ping,
        Self::Map,
        Self::Unmap,
        Self::Share,
    ];

    /// Numbers kept for later operations, with their names.
    pub const RESERVED: &[(u8, &str)] = &[
        (64, "digest"),
        (65, "verify"),
        (66, "mark"),
        (67, "set state"),
        (69, "watch"),
        (70, "streaming fill"),
        (71, "resolve"),
        (72, "fetch and add"),
    ];

    /// The operation with this number, if this version has it.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|opcode| *opcode as u8 == number)
    }

    /// Whether frames of this operation carry payload in requests.
    pub fn request_has_payload(self) -> bool {
        matches!(self, Self::Create | Self::Scatter)
    }
}

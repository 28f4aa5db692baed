//! The rows of answers.

use crate::field::wire_layout;
use crate::table::impl_row;
use crate::{Incarnation, RowFlags, SetId, Status, StoreId, Version};

/// What rows that begin with a status have in common.
macro_rules! impl_status {
    ($($name:ident),+) => {$(
        impl $name {
            /// A row that is only a status.
            pub fn of(status: Status) -> Self {
                Self { status: status as u8, ..Self::default() }
            }

            /// The status; a number of a newer peer reads as [`Status::Unsupported`].
            pub fn status(&self) -> Status {
                Status::from_number(self.status).unwrap_or(Status::Unsupported)
            }
        }
    )+};
}
impl_status!(Outcome, StatRow, MappedRow);

wire_layout! {
    /// How a row fared: the answer to every operation but Hello, Proof, Stat,
    /// List, Info, Map and Share.
    pub struct Outcome {
        /// See [`Status`].
        status: u8,
        /// Length of the tag behind the rows.
        tag_bytes: u8,
        /// Zero.
        reserved_0: u16,
        /// DISPLACED, HELD, and the value's KEEP, SEALED, CHECKSUM.
        flags: RowFlags,
        /// Create, Publish: the value's length. Scatter: bytes written.
        /// Gather: bytes given, the row's share of the payload.
        length: u64,
        /// Create with RESERVE: the handle. BAD_RANGE and INCOMPLETE: the
        /// watermark. BUSY: milliseconds after which to try again. Gather: the
        /// value's length. Hold, Release, Touch, Unmap: the number of values.
        detail: u64,
        /// The version displaced (OK), held (SAME, EXISTS, MISMATCH, OLDER,
        /// Scatter, Gather), or of the tombstone (NOT_FOUND).
        version: Version,
        /// The value's checksum, when it has one.
        crc32c: u32,
        /// Zero.
        reserved_1: u32,
        /// The set of the value given, displaced or held.
        set: SetId,
    }
}
impl_row!(Outcome, tag = tag_bytes);

wire_layout! {
    /// What is known of a key: the answer to Stat and List. The key and the tag
    /// stand behind the rows.
    pub struct StatRow {
        /// See [`Status`]. In List, INCOMPLETE marks a last row whose key is
        /// the cursor for what follows.
        status: u8,
        /// Length of the tag.
        tag_bytes: u8,
        /// Length of the key.
        key_bytes: u16,
        /// KEEP, SEALED, CHECKSUM, TOMBSTONE, HELD.
        flags: RowFlags,
        /// The value's length.
        length: u64,
        /// Bytes from its begin to the last one ever given.
        filled: u64,
        /// Its version, or the tombstone's.
        version: Version,
        /// Its checksum, with CHECKSUM.
        crc32c: u32,
        /// First 16 bits of its key's pointer.
        slot: u16,
        /// Length of the key's prefix that places it, 0 = all of it.
        placement_bytes: u16,
        /// The set it belongs to.
        set: SetId,
        /// What is left of its lease, 0 = none.
        lease_ms: u64,
        /// Whose value it is.
        tenant: u32,
        /// Page runs that it lies in.
        runs: u32,
        /// Copies wanted of the object.
        replicas: u8,
        /// Zero.
        reserved_0: [u8; 7],
    }
}
impl_row!(StatRow, key = key_bytes, tag = tag_bytes);

wire_layout! {
    /// Where a value lies in the pool: the answer to Map, one row for each run of
    /// it. Behind the rows: the key and the tag, in the first row of each value.
    pub struct MappedRow {
        /// See [`Status`]. INCOMPLETE marks a last row that describes no value.
        status: u8,
        /// Length of the tag.
        tag_bytes: u8,
        /// Length of the key; 0 in the further rows of a value.
        key_bytes: u16,
        /// KEEP, SEALED, CHECKSUM.
        flags: RowFlags,
        /// The value's length.
        length: u64,
        /// Bytes from its begin to the last one given: those of all its runs.
        filled: u64,
        /// Its version, or the tombstone's (NOT_FOUND).
        version: Version,
        /// The set it belongs to.
        set: SetId,
        /// Where the run begins in the pool.
        offset: u64,
        /// Length of the run.
        bytes: u64,
        /// INCOMPLETE: the cursor for what follows. BUSY: milliseconds after which
        /// to try again.
        detail: u64,
    }
}
impl_row!(MappedRow, key = key_bytes, tag = tag_bytes);

wire_layout! {
    /// The pool, handed out: the answer to Share. A descriptor of it comes with the
    /// first byte of the frame.
    pub struct SharedRow {
        /// Names the mapping; never 0.
        mapping: u64,
        /// Length of the pool.
        pool_bytes: u64,
    }
}
impl_row!(SharedRow);

wire_layout! {
    /// What is known of a server: the answer to Info. Its name stands behind the row.
    pub struct InfoRow {
        /// Length of the server's name.
        name_bytes: u8,
        /// Whether discovery has the server: see [`Announced`].
        announced: u8,
        /// Mappings of the pool that live.
        mappings: u16,
        /// Pages of values that are kept for them.
        mapped_pages: u32,
        /// Drawn at the server's start.
        incarnation: Incarnation,
        /// Survives a warm restart.
        store_id: StoreId,
        /// The server's clock, milliseconds since 1970.
        clock_unix_ms: u64,
        /// Since its start.
        uptime_ms: u64,
        /// Size of the pool.
        pool_bytes: u64,
        /// Pages that hold values, those held for readers included.
        used_bytes: u64,
        /// Pages of values that are not whole yet.
        reserved_bytes: u64,
        /// Part of `used_bytes`: deleted or replaced, kept by holds.
        superseded_bytes: u64,
        /// Values visible.
        values: u64,
        /// Deletes remembered.
        tombstones: u64,
        /// Index entries in all.
        entries_max: u64,
        /// Connections open.
        connections: u64,
        /// Sessions known.
        sessions: u64,
        /// Holds in force.
        holds: u64,
        /// Reservations open.
        reservations: u64,
        /// Rows of Create so far.
        create_rows: u64,
        /// Rows of Scatter so far.
        scatter_rows: u64,
        /// Rows of Gather so far.
        gather_rows: u64,
        /// Rows of Delete so far.
        delete_rows: u64,
        /// Bytes received so far.
        received_bytes: u64,
        /// Bytes sent so far.
        sent_bytes: u64,
        /// Rows refused for want of pages or entries.
        no_space_rows: u64,
        /// Values removed because their lease ended.
        leases_ended: u64,
        /// Holds broken to make room.
        holds_broken: u64,
        /// Tombstones forgotten before their time for want of entries.
        tombstones_discarded: u64,
        /// Connections closed for breaking the protocol.
        framing_errors: u64,
        /// Connections closed for want of progress.
        stalled_connections: u64,
        /// Connections refused for want of descriptors or of room.
        refused_connections: u64,
        /// Longest turn of the loop so far, in microseconds.
        turn_us_max: u64,
    }
}
impl_row!(InfoRow, key = name_bytes);

/// Whether discovery has a server, as far as that knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Announced {
    /// Nobody told the server.
    #[default]
    Unknown = 0,
    /// It is announced.
    Yes = 1,
    /// Discovery fails, or lost it, and it is not announced again yet.
    No = 2,
}

impl Announced {
    /// From its number; one of a newer peer reads as [`Announced::Unknown`].
    pub fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Yes,
            2 => Self::No,
            _ => Self::Unknown,
        }
    }
}

impl InfoRow {
    /// Whether discovery has the server.
    pub fn announced(&self) -> Announced {
        Announced::from_number(self.announced)
    }
}

//! Every number that two sides of the wire must agree on, asserted against
//! each other at compile time.

use crate::{CreateRow, Field, Header, Outcome, StatRow, Trailer};

/// One KiB, in bytes.
pub const KIB: u64 = 1 << 10;
/// One MiB, in bytes.
pub const MIB: u64 = 1 << 20;
/// One GiB, in bytes.
pub const GIB: u64 = 1 << 30;

/// A page of the pool; every value takes whole pages.
pub const PAGE_BYTES: u64 = 64 * KIB;
/// The smallest value; shorter lengths are raised to it.
pub const VALUE_BYTES_MIN: u64 = 64 * KIB;
/// The largest value.
pub const VALUE_BYTES_MAX: u64 = GIB;
/// The longest key; the shortest has one byte.
pub const KEY_BYTES_MAX: usize = 1_024;
/// The longest object name: a key less the kind byte, with room to spare.
pub const NAME_BYTES_MAX: usize = 900;
/// The longest tag of a value.
pub const TAG_BYTES_MAX: usize = 64;
/// Rows in one frame.
pub const ROWS_MAX: u32 = 1_024;
/// Rows of one Stat: its answer must fit the room of any other answer.
pub const STAT_ROWS_MAX: u32 = 100;
/// Bytes of a frame's table (rows, keys and tags).
pub const TABLE_BYTES_MAX: u32 = MIB as u32;
/// Bytes of values in the payload of a frame, in either direction.
pub const PAYLOAD_BYTES_MAX: u64 = 4 * MIB;
/// What stands behind one value in a payload: see [`Trailer`].
pub const TRAILER_BYTES_MAX: u64 = (Trailer::BYTES + TAG_BYTES_MAX) as u64;
/// Payload bytes that the header of a frame may state: those, and one trailer.
pub const FRAME_PAYLOAD_BYTES_MAX: u64 = PAYLOAD_BYTES_MAX + TRAILER_BYTES_MAX;
/// Requests that one connection may have unanswered.
pub const OUTSTANDING_REQUESTS_MAX: u32 = 128;
/// Payload bytes that one connection may have asked for and not received.
pub const OUTSTANDING_BYTES_MAX: u64 = 64 * MIB;
/// The longest header that a later version may send.
pub const HEADER_BYTES_MAX: u16 = 1_024;
/// The longest fixed part of a row that a later version may send.
pub const ROW_BYTES_MAX: u16 = 1_024;
/// A frame of the handshake has exactly this length.
pub const HELLO_FRAME_BYTES: usize = 256;
/// The longest name of a server or a cluster.
pub const SERVER_NAME_BYTES_MAX: usize = 64;

/// Header and table of a frame must have arrived this long after its first byte.
pub const TABLE_DEADLINE_MS: u64 = 10_000;
/// The window of the progress rule, both ways.
pub const PROGRESS_WINDOW_MS: u64 = 10_000;
/// What must move in each window while payload is under way.
pub const PROGRESS_BYTES: u64 = 64 * KIB;
/// A connection without requests is closed after this.
pub const IDLE_CONNECTION_MS: u64 = 600_000;
/// A session outlives its last connection by this.
pub const SESSION_LINGER_MS: u64 = 30_000;
/// The lease of an unfinished upload's values.
pub const UPLOAD_LEASE_MS: u64 = 15 * 60_000;
/// The lease while the head is written.
pub const HEAD_LEASE_MS: u64 = 24 * 3_600_000;
/// How long a delete is remembered, from its version's time.
pub const TOMBSTONE_LIFE_MS: u64 = 24 * 3_600_000;
/// How far ahead of the server's clock a version may lie.
pub const CLOCK_BOUND_MS: u64 = 5 * 60_000;
/// An end of a lease further away than this is refused.
pub const LEASE_MS_MAX: u64 = 100 * 365 * 24 * 3_600_000;

// A value is whole pages, and the smallest value is exactly one.
const _: () = assert!(VALUE_BYTES_MIN == PAGE_BYTES);
const _: () = assert!(VALUE_BYTES_MAX.is_multiple_of(PAGE_BYTES));
// A frame's payload fits what a connection is granted.
const _: () = assert!(FRAME_PAYLOAD_BYTES_MAX <= OUTSTANDING_BYTES_MAX);
// The smallest value that is created whole fits one frame.
const _: () = assert!(VALUE_BYTES_MIN <= PAYLOAD_BYTES_MAX);
// A full batch of rows with ordinary keys fits the table.
const _: () = assert!(ROWS_MAX as usize * (CreateRow::BYTES + 256) <= TABLE_BYTES_MAX as usize);
// An answer to a full batch fits the table, tags included.
const _: () =
    assert!(ROWS_MAX as usize * (Outcome::BYTES + TAG_BYTES_MAX) <= TABLE_BYTES_MAX as usize);
// A single row with the longest key and tag fits by far.
const _: () = assert!(StatRow::BYTES + KEY_BYTES_MAX + TAG_BYTES_MAX <= 16 * 1024);
// An object's name and its kind byte make a legal key.
const _: () = assert!(NAME_BYTES_MAX < KEY_BYTES_MAX);
// A key's length fits its field, a tag's too.
const _: () = assert!(KEY_BYTES_MAX <= u16::MAX as usize && TAG_BYTES_MAX <= u8::MAX as usize);
// A header can be extended, and the handshake fits its frame.
const _: () = assert!(Header::BYTES < HEADER_BYTES_MAX as usize);
const _: () = assert!(Header::BYTES < HELLO_FRAME_BYTES);
// A lease while the head is written outlives that of the upload, and no lease
// that the client library asks for is beyond the bound.
const _: () = assert!(UPLOAD_LEASE_MS < HEAD_LEASE_MS && HEAD_LEASE_MS < LEASE_MS_MAX);
// An upload's lease outlives the longest silence of a session.
const _: () = assert!(SESSION_LINGER_MS < UPLOAD_LEASE_MS);
const _: () = assert!(<u64 as Field>::BYTES == 8);

//! What the raw operations take and return.

use std::sync::Arc;

use bytes::Bytes;
use rampuddle_protocol::{InfoRow, Outcome, RowFlags, SetId, StatRow, Status, Version};

use super::rolling::Late;

/// Which server an item goes to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// Each key to the member that ranks first for it.
    Placement,
    /// All keys to this server.
    Server(Arc<str>),
}

impl Target {
    /// The server of that name.
    pub fn server(name: impl AsRef<str>) -> Self {
        Self::Server(name.as_ref().into())
    }
}

/// A value to make.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CreateItem {
    /// Its key, 1 to 1,024 bytes.
    pub key: Bytes,
    /// Its first bytes; what they leave of `length` reads as zero.
    pub bytes: Bytes,
    /// Its length, raised to 64 KiB by the server; 0 = that of `bytes`.
    pub length: u64,
    /// An opaque tag of at most 64 bytes, returned by Stat, List and Gather.
    pub tag: Bytes,
    /// Its version; the client draws one when this is none.
    pub version: Version,
    /// KEEP, SEALED, REPLACE, REWRITE. RESERVE is the client's business,
    /// CHECKSUM comes with `crc32c`.
    pub flags: RowFlags,
    /// The checksum of `bytes`, checked by the server as they come in.
    pub crc32c: Option<u32>,
    /// None, or the version that must be held.
    pub if_version: Version,
    /// The set that the value belongs to.
    pub set: SetId,
    /// Removed after this unless renewed, 0 = no lease.
    pub lease_ms: u64,
    /// Length of the key's prefix that places it, 0 = all of it.
    pub placement_bytes: u16,
    /// Copies wanted of the object, 0 = not said.
    pub replicas: u8,
    /// Whose value it is, 0 = nobody's.
    pub tenant: u32,
    /// Checksum and tag, when they are known only with the last of `bytes`; then `tag`
    /// says how long the tag will be.
    pub(crate) late: Option<Late>,
}

impl CreateItem {
    /// A value of exactly these bytes, under a key that is not taken.
    pub fn new(key: impl Into<Bytes>, bytes: impl Into<Bytes>) -> Self {
        Self { key: key.into(), bytes: bytes.into(), ..Self::default() }
    }

    /// The same, replacing what is there.
    #[must_use]
    pub fn replacing(mut self) -> Self {
        self.flags |= RowFlags::REPLACE;
        self
    }

    /// The length that the value will be asked to have.
    pub(crate) fn value_length(&self) -> u64 {
        if self.length == 0 { self.bytes.len() as u64 } else { self.length }
    }
}

/// Bytes to write into a value.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ScatterItem {
    /// The value's key.
    pub key: Bytes,
    /// Where they go.
    pub offset: u64,
    /// The bytes.
    pub bytes: Bytes,
    /// None, or the version that must be held.
    pub if_version: Version,
    /// As the value was created with.
    pub placement_bytes: u16,
}

impl ScatterItem {
    /// These bytes at this offset.
    pub fn new(key: impl Into<Bytes>, offset: u64, bytes: impl Into<Bytes>) -> Self {
        Self { key: key.into(), offset, bytes: bytes.into(), ..Self::default() }
    }
}

/// A range to read.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct GatherItem {
    /// The value's key.
    pub key: Bytes,
    /// The first byte wanted.
    pub offset: u64,
    /// Bytes wanted; what lies behind the value's end is cut.
    pub length: u64,
    /// None, or the version that must be held.
    pub if_version: Version,
    /// None, or the held set that the value belongs to.
    pub set: SetId,
    /// FILLED: stop at the last byte ever given. TAG: return the tag.
    pub flags: RowFlags,
    /// As the value was created with.
    pub placement_bytes: u16,
}

impl GatherItem {
    /// A range of a value.
    pub fn new(key: impl Into<Bytes>, offset: u64, length: u64) -> Self {
        Self { key: key.into(), offset, length, ..Self::default() }
    }

    /// A value with its tag, up to the last byte ever given.
    pub fn whole(key: impl Into<Bytes>) -> Self {
        let flags = RowFlags::FILLED | RowFlags::TAG;
        Self { flags, ..Self::new(key, 0, u64::MAX) }
    }
}

/// A key to delete.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DeleteItem {
    /// The key.
    pub key: Bytes,
    /// The delete's version; the client draws one when this is none.
    pub version: Version,
    /// None, or the version that must be held.
    pub if_version: Version,
    /// As the value was created with.
    pub placement_bytes: u16,
    /// Whose key it is, 0 = nobody's.
    pub tenant: u32,
}

impl DeleteItem {
    /// This key, whatever is there.
    pub fn new(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), ..Self::default() }
    }
}

/// An exact version to remove from one server, without a tombstone.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DropItem {
    /// The key.
    pub key: Bytes,
    /// The version that must be held.
    pub version: Version,
    /// As the value was created with.
    pub placement_bytes: u16,
}

impl DropItem {
    /// This version of this key.
    pub fn new(key: impl Into<Bytes>, version: Version) -> Self {
        Self { key: key.into(), version, placement_bytes: 0 }
    }
}

/// How one item fared.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Answer {
    /// The server's word on it.
    pub status: Status,
    /// DISPLACED, HELD, and the value's KEEP, SEALED, CHECKSUM.
    pub flags: RowFlags,
    /// Create: the value's length. Scatter: bytes written. Gather: bytes given.
    pub length: u64,
    /// As in the protocol: the watermark, the value's length, the number of
    /// values, or milliseconds after which to try again.
    pub detail: u64,
    /// The version displaced, held, or of the tombstone. A Create that displaced a
    /// tombstone has its version here, without DISPLACED among the flags.
    pub version: Version,
    /// The version that the item was sent with (Create, Delete).
    pub sent_version: Version,
    /// The value's checksum, when it has one.
    pub crc32c: Option<u32>,
    /// The set of the value given, displaced or held.
    pub set: SetId,
    /// The tag of that value.
    pub tag: Bytes,
    /// Gather: the bytes.
    pub bytes: Bytes,
}

impl Answer {
    /// An answer that is only a status.
    pub(crate) fn of(status: Status) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn from_outcome(outcome: &Outcome, tag: &[u8], bytes: Bytes) -> Self {
        Self {
            status: outcome.status(),
            flags: outcome.flags,
            length: outcome.length,
            detail: outcome.detail,
            version: outcome.version,
            sent_version: Version::NONE,
            crc32c: outcome.flags.has(RowFlags::CHECKSUM).then_some(outcome.crc32c),
            set: outcome.set,
            tag: Bytes::copy_from_slice(tag),
            bytes,
        }
    }
}

/// What is known of a key.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct StatAnswer {
    /// The server's word on it.
    pub status: Status,
    /// The protocol's row.
    pub row: StatRow,
    /// The key.
    pub key: Bytes,
    /// The value's tag.
    pub tag: Bytes,
}

/// What is known of a server.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Info {
    /// The server's name, as it says itself.
    pub name: String,
    /// The protocol's row.
    pub row: InfoRow,
}

/// Which keys to list.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ListQuery {
    /// Only keys that begin with this.
    pub prefix: Bytes,
    /// Only keys behind this one; empty = from the first.
    pub cursor: Bytes,
    /// Tombstones too.
    pub tombstones: bool,
    /// Keys wanted at most, 0 = as many as fit an answer.
    pub rows_max: u32,
}

impl ListQuery {
    /// All keys that begin with this.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }
}

/// Some keys in bytewise order.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ListPage {
    /// The keys; none is legal even when more follow.
    pub entries: Vec<StatAnswer>,
    /// Where to go on; `None` = these were the last.
    pub next: Option<Bytes>,
}

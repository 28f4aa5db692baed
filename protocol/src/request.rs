//! The rows of requests.

use crate::field::wire_layout;
use crate::table::impl_row;
use crate::{RowFlags, SetId, Trailer, Version};

wire_layout! {
    /// Create: make a value.
    pub struct CreateRow {
        /// Length of the key.
        key_bytes: u16,
        /// Length of the tag.
        tag_bytes: u8,
        /// Copies wanted of the object (N; 255 = on every member), 0 = not said.
        replicas: u8,
        /// KEEP, SEALED, REPLACE, REWRITE, RESERVE, CHECKSUM, TRAILER.
        flags: RowFlags,
        /// Length of the value; raised to 64 KiB, at most 1 GiB.
        length: u64,
        /// The row's share of the payload, less the trailer's; what it leaves of
        /// `length` reads as zero. 0 with RESERVE.
        value_bytes: u64,
        /// The value's version.
        version: Version,
        /// 0, or the version that must be held.
        if_version: Version,
        /// The set that the value belongs to, 0 = none.
        set: SetId,
        /// Removed after this unless renewed, 0 = no lease.
        lease_ms: u64,
        /// CRC32C of the bytes given, with CHECKSUM and without TRAILER.
        crc32c: u32,
        /// First 16 bits of the key's pointer.
        slot: u16,
        /// Length of the key's prefix that places it, 0 = all of it.
        placement_bytes: u16,
        /// Whose value it is, 0 = nobody's.
        tenant: u32,
        /// Zero.
        reserved_0: u32,
    }
}
impl_row!(CreateRow, key = key_bytes, tag = tag_bytes, payload = Self::share);

impl CreateRow {
    /// Length of the trailer, 0 without one.
    pub fn trailer_bytes(&self) -> usize {
        match self.flags.has(RowFlags::TRAILER) {
            true => Trailer::BYTES + usize::from(self.tag_bytes),
            false => 0,
        }
    }

    fn share(&self) -> u64 {
        self.value_bytes.saturating_add(self.trailer_bytes() as u64)
    }
}

wire_layout! {
    /// Scatter: write into a value.
    pub struct ScatterRow {
        /// Length of the key; 0 with a handle.
        key_bytes: u16,
        /// Zero.
        reserved_0: u16,
        /// None.
        flags: RowFlags,
        /// The reservation to write into, or 0.
        handle: u64,
        /// Where the bytes go.
        offset: u64,
        /// The row's share of the payload.
        value_bytes: u64,
        /// 0, or the version that must be held.
        if_version: Version,
    }
}
impl_row!(ScatterRow, key = key_bytes, payload = |row: &Self| row.value_bytes);

wire_layout! {
    /// Gather: read from a value.
    pub struct GatherRow {
        /// Length of the key.
        key_bytes: u16,
        /// Zero.
        reserved_0: u16,
        /// FILLED, TAG.
        flags: RowFlags,
        /// The first byte wanted.
        offset: u64,
        /// Bytes wanted.
        length: u64,
        /// 0, or the version that must be held.
        if_version: Version,
        /// 0, or the held set that the value belongs to: then it is found even
        /// when it was deleted or replaced meanwhile.
        set: SetId,
    }
}
impl_row!(GatherRow, key = key_bytes);

wire_layout! {
    /// Delete: remove a value and leave a tombstone.
    pub struct DeleteRow {
        /// Length of the key.
        key_bytes: u16,
        /// Length of the key's prefix that places it, 0 = all of it.
        placement_bytes: u16,
        /// None.
        flags: RowFlags,
        /// The version of the delete.
        version: Version,
        /// 0, or the version that must be held.
        if_version: Version,
        /// First 16 bits of the key's pointer.
        slot: u16,
        /// Zero.
        reserved_0: u16,
        /// Whose key it is, 0 = nobody's.
        tenant: u32,
    }
}
impl_row!(DeleteRow, key = key_bytes);

wire_layout! {
    /// Publish: make a reserved value visible.
    pub struct PublishRow {
        /// CHECKSUM.
        flags: RowFlags,
        /// CRC32C of the bytes given, with CHECKSUM.
        crc32c: u32,
        /// The reservation.
        handle: u64,
        /// The value's final length, at most what was reserved.
        length: u64,
        /// Bytes that must have been given; the rest reads as zero.
        value_bytes: u64,
    }
}
impl_row!(PublishRow);

wire_layout! {
    /// Cancel: give up on a request of this connection.
    pub struct CancelRow {
        /// The request.
        request_id: u64,
    }
}
impl_row!(CancelRow);

wire_layout! {
    /// Drop: remove exactly this version here, without a tombstone.
    pub struct DropRow {
        /// Length of the key.
        key_bytes: u16,
        /// Zero.
        reserved_0: u16,
        /// None.
        flags: RowFlags,
        /// The version that must be held.
        version: Version,
    }
}
impl_row!(DropRow, key = key_bytes);

wire_layout! {
    /// Hold: keep every value that a set has on this server for this session.
    pub struct HoldRow {
        /// The set.
        set: SetId,
        /// None.
        flags: RowFlags,
        /// Zero.
        reserved_0: u32,
    }
}
impl_row!(HoldRow);

wire_layout! {
    /// Release: end a hold.
    pub struct ReleaseRow {
        /// The set.
        set: SetId,
        /// None.
        flags: RowFlags,
        /// Zero.
        reserved_0: u32,
    }
}
impl_row!(ReleaseRow);

wire_layout! {
    /// Touch: give all values of a set on this server a new lease.
    pub struct TouchRow {
        /// The set.
        set: SetId,
        /// EXACT.
        flags: RowFlags,
        /// Zero.
        reserved_0: u32,
        /// The lease from now on, 0 = none: the values stay.
        lease_ms: u64,
    }
}
impl_row!(TouchRow);

wire_layout! {
    /// Stat: what is known of one key.
    pub struct StatRequestRow {
        /// Length of the key.
        key_bytes: u16,
        /// Zero.
        reserved_0: u16,
        /// None.
        flags: RowFlags,
    }
}
impl_row!(StatRequestRow, key = key_bytes);

wire_layout! {
    /// List: the keys with a prefix, after a cursor, in bytewise order.
    pub struct ListRow {
        /// Length of the prefix, which stands where other rows have their key.
        prefix_bytes: u16,
        /// Length of the cursor, the last key seen, which stands behind it.
        cursor_bytes: u16,
        /// TOMBSTONE.
        flags: RowFlags,
        /// Rows wanted at most, 0 = as many as fit.
        rows_max: u32,
        /// Zero.
        reserved_0: u32,
    }
}
impl_row!(ListRow, key = prefix_bytes, tag = cursor_bytes);

wire_layout! {
    /// Map: find values, keep them, and say where they lie in the pool.
    pub struct MapRow {
        /// Length of the key; 0 with `set` or `cursor`.
        key_bytes: u16,
        /// Zero.
        reserved_0: u16,
        /// SET.
        flags: RowFlags,
        /// The mapping that will read them: see [`SharedRow`](crate::SharedRow).
        mapping: u64,
        /// Names what is kept, for Unmap: any number but 0 that this mapping has
        /// no hold under.
        hold: u64,
        /// 0, or where an answer that was INCOMPLETE goes on.
        cursor: u64,
        /// 0, or without a key: all values of this set.
        set: SetId,
    }
}
impl_row!(MapRow, key = key_bytes);

wire_layout! {
    /// Unmap: end what one Map keeps.
    pub struct UnmapRow {
        /// The mapping.
        mapping: u64,
        /// The hold.
        hold: u64,
    }
}
impl_row!(UnmapRow);

//! The fixed header of every frame.

use thiserror::Error;

use crate::checksum::Checksum;
use crate::field::wire_layout;
use crate::limits::{
    FRAME_PAYLOAD_BYTES_MAX, HEADER_BYTES_MAX, ROW_BYTES_MAX, ROWS_MAX, TABLE_BYTES_MAX,
};
use crate::{FrameFlags, Opcode, Status};

wire_layout! {
    /// The first 64 bytes of a frame.
    pub struct Header {
        /// [`Header::MAGIC`].
        magic: [u8; 4],
        /// [`Header::VERSION`].
        version: u8,
        /// What is asked or answered: see [`Opcode`].
        opcode: u8,
        /// Length of this header; what is over 64 is a newer peer's, and skipped.
        header_bytes: u16,
        /// See [`FrameFlags`].
        flags: FrameFlags,
        /// Answers: why the request was refused as a whole, or 0.
        status: u8,
        /// Requests: 0; other values are for later use and ignored.
        priority: u8,
        /// Length of each row's fixed part.
        row_bytes: u16,
        /// Zero.
        reserved_0: u16,
        /// Chosen by the client, returned in the answer.
        request_id: u64,
        /// Number of rows.
        rows: u32,
        /// Length of the table: rows, keys and tags.
        table_bytes: u32,
        /// Length of the payload behind the table.
        payload_bytes: u64,
        /// Requests: not worth answering this many milliseconds after it was
        /// received; 0 = no deadline.
        deadline_ms: u32,
        /// Zero.
        reserved_1: [u8; 16],
        /// CRC32C of the header before this field, of any longer header behind
        /// it, and of the table.
        crc32c: u32,
    }
}

const _: () = assert!(Header::BYTES == 64);

/// Why bytes are not a frame. The connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FramingError {
    /// The first bytes are not those of a frame.
    #[error("the bytes do not begin with a RamPuddle frame (magic number {0:02x?})")]
    Magic([u8; 4]),
    /// The frame is of a version that cannot be read.
    #[error("the frame is of protocol version {0}, this side speaks version {version}", version = Header::VERSION)]
    Version(u8),
    /// A length lies outside its limits.
    #[error("the frame states {what} = {stated}, the limit is {limit}")]
    Length {
        /// The field.
        what: &'static str,
        /// What it says.
        stated: u64,
        /// What it may say.
        limit: u64,
    },
    /// Header or table arrived damaged.
    #[error("header and table have CRC32C {found:#010x}, the frame states {stated:#010x}")]
    Checksum {
        /// As stated by the header.
        stated: u32,
        /// As computed.
        found: u32,
    },
}

impl FramingError {
    /// The status that tells the peer.
    pub fn status(self) -> Status {
        match self {
            Self::Magic(_) => Status::BadMagic,
            Self::Version(_) => Status::BadVersion,
            Self::Length { .. } => Status::BadLength,
            Self::Checksum { .. } => Status::BadChecksum,
        }
    }
}

impl Header {
    /// The first four bytes of every frame.
    pub const MAGIC: [u8; 4] = *b"PUDL";
    /// The version of the protocol that this crate speaks.
    pub const VERSION: u8 = 1;

    const CRC_OFFSET: usize = Self::BYTES - 4;

    /// A header of this version without rows.
    pub fn new(opcode: u8, request_id: u64) -> Self {
        Self {
            magic: Self::MAGIC,
            version: Self::VERSION,
            opcode,
            header_bytes: Self::BYTES as u16,
            request_id,
            ..Self::default()
        }
    }

    /// Decodes the first 64 bytes and checks every length against the limits,
    /// before anything is allocated for them. The checksum is checked later, by
    /// [`Header::check`], when the table is in.
    ///
    /// # Panics
    /// When `bytes` is shorter than 64.
    pub fn parse(bytes: &[u8]) -> Result<Self, FramingError> {
        let header = Self::decode(bytes);
        if header.magic != Self::MAGIC {
            return Err(FramingError::Magic(header.magic));
        }
        if header.version != Self::VERSION {
            return Err(FramingError::Version(header.version));
        }
        header.check_lengths()?;
        Ok(header)
    }

    fn check_lengths(&self) -> Result<(), FramingError> {
        let within = |what, stated: u64, limit: u64| {
            (stated <= limit).then_some(()).ok_or(FramingError::Length { what, stated, limit })
        };
        if usize::from(self.header_bytes) < Self::BYTES {
            let (stated, limit) = (self.header_bytes.into(), Self::BYTES as u64);
            return Err(FramingError::Length { what: "header_bytes", stated, limit });
        }
        within("header_bytes", self.header_bytes.into(), HEADER_BYTES_MAX.into())?;
        within("row_bytes", self.row_bytes.into(), ROW_BYTES_MAX.into())?;
        within("rows", self.rows.into(), ROWS_MAX.into())?;
        within("table_bytes", self.table_bytes.into(), TABLE_BYTES_MAX.into())?;
        within("payload_bytes", self.payload_bytes, FRAME_PAYLOAD_BYTES_MAX)?;
        let fixed = u64::from(self.rows) * u64::from(self.row_bytes);
        within("rows x row_bytes", fixed, self.table_bytes.into())
    }

    /// Bytes of the frame before its payload: header and table.
    pub fn head_bytes(&self) -> usize {
        usize::from(self.header_bytes) + self.table_bytes as usize
    }

    /// The operation, if this version has it.
    pub fn operation(&self) -> Option<Opcode> {
        Opcode::from_number(self.opcode)
    }

    /// Compares the checksum with `head`, the frame's bytes before its payload.
    ///
    /// # Panics
    /// When `head` is shorter than [`Header::head_bytes`].
    pub fn check(&self, head: &[u8]) -> Result<(), FramingError> {
        let found = Self::checksum(&head[..self.head_bytes()]);
        if found == self.crc32c {
            return Ok(());
        }
        Err(FramingError::Checksum { stated: self.crc32c, found })
    }

    /// The table within `head`, the frame's bytes before its payload.
    pub fn table<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[usize::from(self.header_bytes)..self.head_bytes()]
    }

    /// Writes the checksum of a frame's bytes before its payload into them.
    pub fn seal(head: &mut [u8]) {
        let crc = Self::checksum(head);
        head[Self::CRC_OFFSET..Self::BYTES].copy_from_slice(&crc.to_le_bytes());
    }

    fn checksum(head: &[u8]) -> u32 {
        let mut checksum = Checksum::new();
        checksum.update(&head[..Self::CRC_OFFSET]);
        checksum.update(&head[Self::BYTES..]);
        checksum.value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(header: Header) -> Vec<u8> {
        let mut bytes = vec![0; Header::BYTES + header.table_bytes as usize];
        header.encode(&mut bytes);
        Header::seal(&mut bytes);
        bytes
    }

    #[test]
    fn a_flipped_bit_of_header_or_table_is_seen() {
        let bytes = sealed(Header { table_bytes: 40, ..Header::new(3, 9) });
        let header = Header::parse(&bytes).unwrap();
        header.check(&bytes).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let seen = Header::parse(&damaged).and_then(|header| {
                if header.head_bytes() != damaged.len() {
                    return Ok(()); // another length: the table would be another
                }
                header.check(&damaged)
            });
            let length_changed = Header::decode(&damaged).head_bytes() != damaged.len();
            assert!(seen.is_err() || length_changed, "bit {bit}");
        }
    }

    #[test]
    fn lengths_beyond_the_limits_are_refused_before_anything_is_allocated() {
        let good = Header::new(1, 1);
        for header in [
            Header { table_bytes: TABLE_BYTES_MAX + 1, ..good },
            Header { table_bytes: u32::MAX, ..good },
            Header { payload_bytes: FRAME_PAYLOAD_BYTES_MAX + 1, ..good },
            Header { payload_bytes: u64::MAX, ..good },
            Header { rows: ROWS_MAX + 1, table_bytes: TABLE_BYTES_MAX, ..good },
            Header { rows: 2, row_bytes: 64, table_bytes: 127, ..good },
            Header { header_bytes: 63, ..good },
            Header { header_bytes: HEADER_BYTES_MAX + 1, ..good },
        ] {
            let mut bytes = [0; Header::BYTES];
            header.encode(&mut bytes);
            assert!(
                matches!(Header::parse(&bytes), Err(FramingError::Length { .. })),
                "{header:?}"
            );
        }
    }

    #[test]
    fn a_longer_header_of_a_newer_peer_is_skipped_by_its_stated_length() {
        let header = Header { header_bytes: 96, table_bytes: 8, ..Header::new(3, 1) };
        let mut bytes = vec![0xAA; header.head_bytes()];
        header.encode(&mut bytes);
        Header::seal(&mut bytes);
        let parsed = Header::parse(&bytes).unwrap();
        parsed.check(&bytes).unwrap();
        assert_eq!(parsed.table(&bytes), &bytes[96..104]);
    }
}

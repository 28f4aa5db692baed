//! RamPuddle's raw protocol: bytes on the wire and back.
//!
//! This crate knows no sockets, no runtime and no clock. A frame is a fixed
//! [`Header`] of 64 bytes, a *table* (one fixed-length row per item, then the
//! keys and tags of all rows), and a *payload* that never passes through this
//! crate: servers read it from the socket straight into their pool, clients
//! straight into the caller's buffer.
//!
//! ```text
//! +--------+-----------------+-------------------------+---------+
//! | header | rows x row_bytes| key, tag, key, tag, ... | payload |
//! |  64 B  |<---------- table_bytes ----------------->|         |
//! +--------+-----------------+-------------------------+---------+
//! ```
//!
//! `docs/protocol.md` has every message as a table; a test compares that
//! document with the layouts below.
//!
//! ```
//! use rampuddle_protocol::{GatherRow, Header, Opcode, Table, TableBuilder};
//!
//! let mut frame = Vec::new();
//! let mut table = TableBuilder::request(&mut frame, Opcode::Gather, 7);
//! table.push(&GatherRow { length: 65_536, ..GatherRow::default() }, b"weights", b"");
//! table.finish(0);
//!
//! let header = Header::parse(&frame).unwrap();
//! assert_eq!(header.opcode, Opcode::Gather as u8);
//! let table = Table::<GatherRow>::parse(&header, &frame[Header::BYTES..]).unwrap();
//! let (row, key, _) = table.iter().next().unwrap();
//! assert_eq!((row.length, key), (65_536, &b"weights"[..]));
//! ```

#![forbid(unsafe_code)]

mod answer;
mod burst;
#[doc(hidden)]
pub mod canary;
mod checksum;
mod field;
mod flags;
mod header;
mod hello;
mod identifier;
pub mod limits;
mod opcode;
mod proof;
mod request;
mod settings;
mod status;
mod table;
mod trailer;
mod version;

pub use answer::{Announced, InfoRow, MappedRow, Outcome, SharedRow, StatRow};
pub use burst::burst_bytes;
pub use checksum::{Checksum, crc32c, crc32c_combine, self_test};
pub use field::{Field, Layout};
pub use flags::{FrameFlags, RowFlags};
pub use header::{FramingError, Header};
pub use hello::{ClientHello, Proof, ProofAnswer, Role, ServerHello};
pub use identifier::{Incarnation, Nonce, SessionId, SetId, StoreId};
pub use opcode::Opcode;
pub use proof::{ProofInput, prove, verify};
pub use request::{
    CancelRow, CreateRow, DeleteRow, DropRow, GatherRow, HoldRow, ListRow, MapRow, PublishRow,
    ReleaseRow, ScatterRow, StatRequestRow, TouchRow, UnmapRow,
};
pub use settings::PlacementSettings;
pub use status::Status;
pub use table::{Row, Table, TableBuilder, TableError, TableIter};
pub use trailer::Trailer;
pub use version::{BadVersion, Version};

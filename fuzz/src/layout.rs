//! What each row looks like, from the layouts that the document shows, and read
//! without the decoder under test.

use rampuddle_protocol::{
    CancelRow, ClientHello, CreateRow, DeleteRow, DropRow, GatherRow, HoldRow, InfoRow, Layout,
    ListRow, MapRow, MappedRow, Opcode, Outcome, Proof, ProofAnswer, PublishRow, ReleaseRow,
    ScatterRow, ServerHello, SharedRow, StatRequestRow, StatRow, TouchRow, UnmapRow,
};

/// A kind of row: its fields, and which of them state lengths.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Name, offset and length of each field.
    pub fields: Layout,
    key: Option<&'static str>,
    tag: Option<&'static str>,
    share: Option<&'static str>,
}

impl Kind {
    /// Length of the fixed part.
    pub fn bytes(&self) -> usize {
        self.fields.last().map_or(0, |(_, offset, length)| offset + length)
    }

    /// Offset and length of a field.
    pub fn field(&self, name: &str) -> Option<(usize, usize)> {
        let found = self.fields.iter().find(|field| field.0 == name)?;
        Some((found.1, found.2))
    }

    /// Where the row states its key's, tag's and payload's lengths.
    pub fn lengths(&self) -> [Option<(usize, usize)>; 3] {
        [self.key, self.tag, self.share].map(|name| name.and_then(|name| self.field(name)))
    }
}

/// The little-endian number of at most eight bytes at `place`.
pub fn number(bytes: &[u8], place: Option<(usize, usize)>) -> u64 {
    let Some((offset, length)) = place else { return 0 };
    let mut eight = [0; 8];
    eight[..length].copy_from_slice(&bytes[offset..offset + length]);
    u64::from_le_bytes(eight)
}

const NONE: Kind = Kind { fields: &[], key: None, tag: None, share: None };

const fn keyed(fields: Layout) -> Kind {
    Kind { fields, key: Some("key_bytes"), ..NONE }
}

/// The rows of a request or of an answer; `None` when there are none.
pub fn kind(opcode: Opcode, is_answer: bool) -> Option<Kind> {
    let plain = |fields| Kind { fields, ..NONE };
    let tag = Some("tag_bytes");
    Some(match (opcode, is_answer) {
        (Opcode::Hello, false) => {
            let (key, tag) = (Some("cluster_bytes"), Some("server_bytes"));
            Kind { key, tag, ..plain(ClientHello::LAYOUT) }
        }
        (Opcode::Hello, true) => Kind { key: Some("name_bytes"), ..plain(ServerHello::LAYOUT) },
        (Opcode::Proof, false) => plain(Proof::LAYOUT),
        (Opcode::Proof, true) => plain(ProofAnswer::LAYOUT),
        (Opcode::Create, false) => {
            Kind { tag, share: Some("value_bytes"), ..keyed(CreateRow::LAYOUT) }
        }
        (Opcode::Scatter, false) => {
            Kind { share: Some("value_bytes"), ..keyed(ScatterRow::LAYOUT) }
        }
        (Opcode::Gather, false) => keyed(GatherRow::LAYOUT),
        (Opcode::Delete, false) => keyed(DeleteRow::LAYOUT),
        (Opcode::Publish, false) => plain(PublishRow::LAYOUT),
        (Opcode::Cancel, false) => plain(CancelRow::LAYOUT),
        (Opcode::Drop, false) => keyed(DropRow::LAYOUT),
        (Opcode::Hold, false) => plain(HoldRow::LAYOUT),
        (Opcode::Release, false) => plain(ReleaseRow::LAYOUT),
        (Opcode::Touch, false) => plain(TouchRow::LAYOUT),
        (Opcode::Stat, false) => keyed(StatRequestRow::LAYOUT),
        (Opcode::List, false) => {
            let (key, tag) = (Some("prefix_bytes"), Some("cursor_bytes"));
            Kind { key, tag, ..plain(ListRow::LAYOUT) }
        }
        (Opcode::Map, false) => keyed(MapRow::LAYOUT),
        (Opcode::Unmap, false) => plain(UnmapRow::LAYOUT),
        (Opcode::Map, true) => Kind { tag, ..keyed(MappedRow::LAYOUT) },
        (Opcode::Share, true) => plain(SharedRow::LAYOUT),
        (Opcode::Stat | Opcode::List, true) => Kind { tag, ..keyed(StatRow::LAYOUT) },
        (Opcode::Info, true) => Kind { key: Some("name_bytes"), ..plain(InfoRow::LAYOUT) },
        (Opcode::Info | Opcode::Share, false) | (Opcode::Ping, _) => return None,
        (_, true) => Kind { tag, ..plain(Outcome::LAYOUT) },
    })
}

//! Requests as bytes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rampuddle_protocol::{Header, Opcode, Row, TableBuilder, Version};

/// A request, whole: header, table and payload.
#[derive(Debug, Clone)]
pub struct Frame {
    /// All its bytes.
    pub bytes: Vec<u8>,
    /// How many of them are header and table.
    pub head_bytes: usize,
}

impl Frame {
    /// A request of these rows, each with its key and tag, and this payload.
    /// Rows must state their own share of the payload.
    pub fn new<R: Row>(
        opcode: Opcode,
        request_id: u64,
        rows: &[(R, &[u8], &[u8])],
        payload: &[u8],
    ) -> Self {
        let mut bytes = Vec::with_capacity(512 + payload.len());
        let mut table = TableBuilder::request(&mut bytes, opcode, request_id);
        rows.iter().for_each(|(row, key, tag)| table.push(row, key, tag));
        table.finish(payload.len() as u64);
        let head_bytes = bytes.len();
        bytes.extend_from_slice(payload);
        Self { bytes, head_bytes }
    }

    /// A request without rows.
    pub fn bare(opcode: Opcode, request_id: u64) -> Self {
        Self::of_header(Header::new(opcode as u8, request_id))
    }

    /// Just this header, sealed.
    pub fn of_header(header: Header) -> Self {
        let mut bytes = vec![0; Header::BYTES];
        header.encode(&mut bytes);
        Header::seal(&mut bytes);
        Self { bytes, head_bytes: Header::BYTES }
    }

    /// The same frame with its header changed, and a checksum that suits.
    #[must_use]
    pub fn with_header(mut self, change: impl FnOnce(&mut Header)) -> Self {
        let mut header = Header::decode(&self.bytes);
        change(&mut header);
        header.encode(&mut self.bytes);
        self.seal();
        self
    }

    /// Overwrites `size` bytes of header or table with the lowest of `number`,
    /// and makes the checksum suit.
    pub fn overwrite(&mut self, at: usize, size: usize, number: u64) {
        self.bytes[at..at + size].copy_from_slice(&number.to_le_bytes()[..size]);
        self.seal();
    }

    fn seal(&mut self) {
        let head = &mut self.bytes[..self.head_bytes];
        Header::seal(head);
    }
}

/// A version that no other call has returned and that is greater than those
/// before it.
pub fn fresh_version() -> Version {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = Version::from_unix_ms(now.as_millis() as u64, 1).time;
    let last = |count: u64| Some(time.max(count + 1));
    let before = COUNT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, last);
    Version { time: time.max(before.expect("never refused") + 1), writer: 1 }
}

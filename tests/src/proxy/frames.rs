//! Follows the frames of one direction, to say what is in flight at a byte.

use rampuddle_protocol::{Header, Opcode};

/// Where in a stream of frames the next byte lies.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: Vec<u8>,
    /// Bytes of the frame behind its first 64.
    left: u64,
}

impl Frames {
    /// Takes bytes that pass.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.head.len() < Header::BYTES {
                let wanted = (Header::BYTES - self.head.len()).min(bytes.len());
                self.head.extend_from_slice(&bytes[..wanted]);
                bytes = &bytes[wanted..];
                if self.head.len() == Header::BYTES {
                    let header = Header::decode(&self.head);
                    let behind = header.head_bytes().saturating_sub(Header::BYTES);
                    self.left = behind as u64 + header.payload_bytes;
                }
            } else {
                let now = self.left.min(bytes.len() as u64);
                self.left -= now;
                bytes = &bytes[now as usize..];
            }
            if self.head.len() == Header::BYTES && self.left == 0 {
                self.head.clear();
            }
        }
    }

    /// The frame that has begun and not ended, by its operation.
    pub(super) fn in_flight(&self) -> Option<String> {
        let opcode = self.head.get(OPCODE_AT);
        let operation = opcode.and_then(|number| Opcode::from_number(*number));
        (!self.head.is_empty()).then(|| match operation {
            Some(operation) => format!("{operation:?}"),
            None => "a frame just begun".to_owned(),
        })
    }
}

/// Where in a header its operation stands.
const OPCODE_AT: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_at_each_byte_is_known() {
        let mut header = Header::new(Opcode::Gather as u8, 1);
        header.payload_bytes = 10;
        let mut frame = vec![0; Header::BYTES + 10];
        header.encode(&mut frame);
        let mut frames = Frames::default();
        for _ in 0..3 {
            for (at, byte) in frame.iter().enumerate() {
                assert_eq!(frames.in_flight().is_some(), at > 0, "byte {at}");
                if at > OPCODE_AT {
                    assert_eq!(frames.in_flight().unwrap(), "Gather");
                }
                frames.pass(&[*byte]);
            }
        }
        assert_eq!(frames.in_flight(), None);
    }
}

//! Checksums of bytes that are being sent: computed a stretch behind the socket,
//! while the bytes are in the processor's cache anyway, and once for all copies.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rampuddle_protocol::{Checksum, crc32c_combine};

/// The checksums of a value's blocks, and of all of it.
#[derive(Debug)]
pub(crate) struct Rolling {
    bytes: Bytes,
    block_bytes: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// How many of the bytes are in.
    done: usize,
    /// Of the block that is begun.
    block: Checksum,
    /// Of those that are done: length, checksum.
    blocks: Vec<(u64, u32)>,
}

impl Rolling {
    /// Nothing is computed yet.
    pub(crate) fn new(bytes: Bytes, block_bytes: usize) -> Self {
        let state = State { done: 0, block: Checksum::new(), blocks: Vec::new() };
        Self { bytes, block_bytes, state: Mutex::new(state) }
    }

    /// Computes as far as `end`, unless somebody did.
    pub(crate) fn reach(&self, end: usize) {
        drop(self.reached(end));
    }

    /// Of every block its length and its checksum, computed to the end.
    pub(crate) fn blocks(&self) -> Vec<(u64, u32)> {
        self.reached(self.bytes.len()).blocks.clone()
    }

    /// Of all bytes, computed to the end.
    pub(crate) fn whole(&self) -> u32 {
        let state = self.reached(self.bytes.len());
        let combined = |crc, (length, next): &(u64, u32)| crc32c_combine(crc, *next, *length);
        state.blocks.iter().fold(0, combined)
    }

    fn reached(&self, end: usize) -> MutexGuard<'_, State> {
        let mut guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *guard;
        while state.done < end {
            let begin = state.done - state.done % self.block_bytes;
            let block_end = self.bytes.len().min(begin + self.block_bytes);
            let now = end.min(block_end);
            state.block.update(&self.bytes[state.done..now]);
            state.done = now;
            if now == block_end {
                let block = std::mem::replace(&mut state.block, Checksum::new());
                state.blocks.push(((now - begin) as u64, block.value()));
            }
        }
        guard
    }
}

/// What a value's trailer says.
#[derive(Clone)]
pub(crate) struct Late {
    pub(crate) checksum: Arc<Rolling>,
    /// The tag of a value with this checksum, as long as that of its row; the row's
    /// own when `None`.
    pub(crate) tag: Option<Arc<dyn Fn(u32) -> Bytes + Send + Sync>>,
}

impl Late {
    /// Checksum and tag, the latter of a row with `tag`. Computes what was not yet.
    pub(crate) fn finish(&self, tag: &Bytes) -> (u32, Bytes) {
        let crc = self.checksum.whole();
        (crc, self.tag.as_ref().map_or_else(|| tag.clone(), |tag| tag(crc)))
    }
}

impl fmt::Debug for Late {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Late").field("checksum", &self.checksum).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rampuddle_protocol::crc32c;

    use super::*;

    #[test]
    fn in_any_steps_the_checksums_are_those_of_the_blocks_and_of_all() {
        let bytes: Bytes = (0..10_000_u32).map(|number| number as u8).collect();
        for length in [0, 1, 999, 1_000, 1_001, 10_000] {
            let bytes = bytes.slice(..length);
            for step in [1, 7, 1_000, 1_500, 20_000] {
                let rolling = Rolling::new(bytes.clone(), 1_000);
                (0..=length).step_by(step).for_each(|end| rolling.reach(end));
                rolling.reach(length / 2);
                let blocks: Vec<_> =
                    bytes.chunks(1_000).map(|block| (block.len() as u64, crc32c(block))).collect();
                assert_eq!(rolling.blocks(), blocks, "{length} bytes in steps of {step}");
                assert_eq!(rolling.whole(), crc32c(&bytes));
            }
        }
    }
}

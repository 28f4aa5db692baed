//! Comparing blocks with their checksums while their bytes come in.

use rampuddle_protocol::{Checksum, SetId};

use super::format::Seed;
use super::variable::BlockEntry;

/// Follows the bytes of some neighbouring blocks of one stripe.
#[derive(Debug)]
pub(super) struct Verifier<'t> {
    upload: SetId,
    stripe: u64,
    /// The first block's number within the stripe.
    first_block: u64,
    blocks: &'t [BlockEntry],
    /// Blocks that are whole and right.
    done: usize,
    /// Bytes of those.
    done_bytes: u64,
    in_block: u64,
    checksum: Option<Checksum>,
    is_enabled: bool,
    is_wrong: bool,
}

impl<'t> Verifier<'t> {
    pub(super) fn new(
        upload: SetId,
        stripe: u64,
        first_block: u64,
        blocks: &'t [BlockEntry],
        is_enabled: bool,
    ) -> Self {
        Self {
            upload,
            stripe,
            first_block,
            blocks,
            done: 0,
            done_bytes: 0,
            in_block: 0,
            checksum: None,
            is_enabled,
            is_wrong: false,
        }
    }

    /// Bytes that came in and were not found wrong: where to go on.
    pub(super) fn reached(&self) -> u64 {
        self.done_bytes + self.in_block
    }

    /// Whether a block did not have its checksum.
    pub(super) fn is_wrong(&self) -> bool {
        self.is_wrong
    }

    /// Forgets the bytes of the block that was wrong, or is unfinished, so that
    /// it is read again from its begin.
    pub(super) fn restart_block(&mut self) {
        (self.in_block, self.checksum, self.is_wrong) = (0, None, false);
    }

    /// Goes back to the begin of a block that turned out to be wrong afterwards.
    pub(super) fn go_back_to(&mut self, block: usize) {
        let before = self.blocks.iter().take(block);
        self.done_bytes = before.map(|block| u64::from(block.stored_bytes)).sum();
        self.done = block;
        self.restart_block();
    }

    /// Takes the next bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.is_wrong {
            let Some(block) = self.blocks.get(self.done) else { return };
            let left = u64::from(block.stored_bytes) - self.in_block;
            let (now, rest) = bytes.split_at((bytes.len() as u64).min(left) as usize);
            if self.is_enabled {
                let number = self.first_block + self.done as u64;
                let seed = || Seed::new(self.upload, self.stripe, number).begin();
                self.checksum.get_or_insert_with(seed).update(now);
            }
            self.in_block += now.len() as u64;
            if self.in_block == u64::from(block.stored_bytes) {
                self.end_block(block.crc32c);
            }
            bytes = rest;
        }
    }

    fn end_block(&mut self, crc32c: u32) {
        let found = self.checksum.take().map(|checksum| checksum.value());
        if self.is_enabled && found != Some(crc32c) {
            self.is_wrong = true;
            return;
        }
        self.done_bytes += self.in_block;
        (self.done, self.in_block) = (self.done + 1, 0);
    }
}

#[cfg(test)]
mod tests {
    use rampuddle_protocol::crc32c;

    use super::*;

    #[test]
    fn any_split_of_the_bytes_finds_the_same_wrong_block() {
        let upload = SetId([1; 16]);
        let bytes: Vec<u8> = (0..300_u32).map(|index| index as u8).collect();
        let mut blocks: Vec<BlockEntry> = bytes
            .chunks(100)
            .enumerate()
            .map(|(index, block)| {
                let seed = Seed::new(upload, 5, 7 + index as u64);
                BlockEntry::plain(&seed, block.len() as u64, crc32c(block))
            })
            .collect();
        for wrong in [None, Some(0), Some(1), Some(2)] {
            if let Some(wrong) = wrong {
                blocks[wrong].crc32c ^= 1;
            }
            for step in [1, 7, 100, 299, 300] {
                let mut verifier = Verifier::new(upload, 5, 7, &blocks, true);
                bytes.chunks(step).for_each(|piece| verifier.feed(piece));
                assert_eq!(verifier.is_wrong(), wrong.is_some());
                verifier.restart_block();
                assert_eq!(verifier.reached(), wrong.map_or(300, |wrong| wrong as u64 * 100));
            }
            if let Some(wrong) = wrong {
                blocks[wrong].crc32c ^= 1;
            }
        }
    }
}

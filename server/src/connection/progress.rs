//! The rule that what is under way must move.

use rampuddle_protocol::limits::{PROGRESS_BYTES, PROGRESS_WINDOW_MS};

/// Counts bytes in windows: 64 KiB must move in each, or the peer has stalled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    since_ms: u64,
    bytes: u64,
}

impl Progress {
    pub(super) fn begin(now_ms: u64) -> Self {
        Self { since_ms: now_ms, bytes: 0 }
    }

    pub(super) fn moved(&mut self, bytes: usize, now_ms: u64) {
        self.bytes += bytes as u64;
        if self.bytes >= PROGRESS_BYTES {
            *self = Self::begin(now_ms);
        }
    }

    pub(super) fn has_stalled(&self, now_ms: u64) -> bool {
        self.has_rested(PROGRESS_WINDOW_MS, now_ms)
    }

    /// Whether 64 KiB did not move within a window of another length.
    pub(super) fn has_rested(&self, window_ms: u64, now_ms: u64) -> bool {
        now_ms - self.since_ms >= window_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_counts_as_stalled_and_steady_bytes_do_not() {
        let mut trickle = Progress::begin(0);
        let mut steady = Progress::begin(0);
        for second in 1..=10 {
            trickle.moved(100, second * 1_000);
            steady.moved(10_000, second * 1_000);
        }
        assert!(trickle.has_stalled(10_000));
        assert!(!steady.has_stalled(10_000));
    }
}

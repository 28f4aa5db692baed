//! A connection judged by the clock: what must move, moves.

use rampuddle_protocol::limits::{IDLE_CONNECTION_MS, TABLE_DEADLINE_MS};

use super::{Connection, Over, Phase, Receiving};
use crate::core::Core;

/// What must come of a head that lies in a shared buffer, from one look at the
/// clock to the next, while other connections wait for a buffer.
const LARGE_HEAD_STEP: usize = 16 * 1024;
/// The window of the progress rule while others wait for the room that a Create
/// has claimed and does not fill.
const AWAITED_WINDOW_MS: u64 = 2_000;

impl Connection {
    /// Judges the connection by the clock.
    pub(crate) fn handle_time(&mut self, core: &mut Core) {
        let now_ms = core.now.monotonic_ms;
        let greeted = matches!(self.phase, Phase::Open { .. } | Phase::Closing);
        let handshake_over = !greeted && now_ms - self.accepted_ms >= TABLE_DEADLINE_MS;
        let head_over = !self.blocked
            && self
                .head_since_ms
                .is_some_and(|since| now_ms - since - self.head_waited_ms >= TABLE_DEADLINE_MS);
        let takes_payload = matches!(self.receiving, Receiving::Payload(_) | Receiving::Drain(_));
        let fills =
            matches!(&self.receiving, Receiving::Payload(transfer) if transfer.fills_claim());
        let hurries = fills && core.store.claims_are_awaited(false, core.now);
        let stalled_in = takes_payload
            && (self.incoming.has_stalled(now_ms)
                || hurries && self.incoming.has_rested(AWAITED_WINDOW_MS, now_ms));
        let stalled_out = self.has_output() && self.outgoing.has_stalled(now_ms)
            || self.outbox.lent.as_deref().is_some_and(|lent| lent.has_stalled(now_ms));
        let crawls = self.crawls(core);
        let idle = self.is_at_rest() && now_ms - self.active_ms >= IDLE_CONNECTION_MS;
        if handshake_over || head_over || stalled_in || stalled_out || crawls {
            self.close(Over::Stalled, core);
            self.outbox.clear(&mut core.store, &mut core.buffers);
        } else if idle {
            self.close(Over::Done, core);
        }
    }

    /// Whether the connection sends a large head, or takes a large answer, too
    /// slowly for others who wait for its buffer. Compares with the last time it
    /// was asked.
    fn crawls(&mut self, core: &Core) -> bool {
        let step = LARGE_HEAD_STEP as u64;
        let takes_slowly = self.outbox.borrowed() > 0
            && self.sent_before.is_some_and(|before| self.sent_bytes < before + step);
        self.sent_before = (self.outbox.borrowed() > 0).then_some(self.sent_bytes);
        if takes_slowly && core.buffers.is_wanted() {
            return true;
        }
        let gives = match &self.receiving {
            Receiving::LargeHead { .. } => true,
            Receiving::Payload(transfer) => transfer.is_borrowed(),
            Receiving::Head | Receiving::Drain(_) => false,
        };
        let gives_slowly = gives
            && !self.paused
            && self.received_before.is_some_and(|before| self.received_bytes < before + step);
        self.received_before = gives.then_some(self.received_bytes);
        gives_slowly && core.buffers.is_wanted()
    }
}

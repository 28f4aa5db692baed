//! How far the servers' clocks are from the local one, as seen in handshakes.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;

use rampuddle_protocol::limits::CLOCK_BOUND_MS;

/// A question and its answer that took longer, by the local clock, say nothing on
/// the server's: somebody was stopped between them, or the local clock was set.
const LONGEST_MS: u64 = CLOCK_BOUND_MS / 5;

/// How far a server's clock is ahead of the local one, by what it said between a
/// question and its answer: not at all when the local clock may have shown the same
/// meanwhile, so that clocks which agree stay as they are, and writers one after the
/// other have the order of their clocks; otherwise as if it had been half way, so within
/// half of the time that they took. `None` when they took so long that a clock which is
/// right would look wrong.
pub(crate) fn offset_between(asked_ms: u64, answered_ms: u64, server_ms: u64) -> Option<i64> {
    let middle_ms = asked_ms.midpoint(answered_ms) as i64;
    let is_telling = asked_ms.abs_diff(answered_ms) <= LONGEST_MS;
    // Each of the three is cut to a millisecond.
    let agrees = (asked_ms.saturating_sub(1)..=answered_ms.saturating_add(1)).contains(&server_ms);
    is_telling.then(|| if agrees { 0 } else { (server_ms as i64).saturating_sub(middle_ms) })
}

/// The latest clock offset of each server, in milliseconds ahead of the local
/// clock.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    by_server: HashMap<Arc<str>, i64>,
    /// What was told of each server last.
    told: HashMap<Arc<str>, Discriminant<Verdict>>,
}

/// What to think of a server's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It agrees with the others, or with the local clock.
    Fine,
    /// It is further than 5 min from the local clock, and there are too few
    /// other servers to say which is wrong.
    Doubtful,
    /// It is further than 5 min from the other servers: not to be used.
    Refuse {
        /// How far, ahead when positive.
        off_by_ms: i64,
    },
}

impl Offsets {
    /// Takes the offset of a server and judges it by the others. A refused
    /// server's offset is kept all the same: should all the others change, it
    /// was right.
    pub(crate) fn record(&mut self, server: &Arc<str>, offset_ms: i64) -> Verdict {
        self.by_server.insert(Arc::clone(server), offset_ms);
        let others = self.by_server.iter().filter(|(name, _)| *name != server);
        let mut others: Vec<i64> = others.map(|(_, offset)| *offset).collect();
        others.sort_unstable();
        if others.len() < 2 {
            let is_near = offset_ms.unsigned_abs() <= CLOCK_BOUND_MS;
            return if is_near { Verdict::Fine } else { Verdict::Doubtful };
        }
        // With an even number of others the median is an interval: when those
        // two disagree, nothing in between is provably wrong.
        let (low, high) = (others[(others.len() - 1) / 2], others[others.len() / 2]);
        let nearest = offset_ms.clamp(low, high);
        match offset_ms.saturating_sub(nearest) {
            off_by_ms if off_by_ms.unsigned_abs() > CLOCK_BOUND_MS => Verdict::Refuse { off_by_ms },
            _ => Verdict::Fine,
        }
    }

    /// Whether a verdict differs in kind from the one before, which is to be told
    /// once and not at every handshake. That a clock is fine is no news at first.
    pub(crate) fn is_news(&mut self, server: &Arc<str>, verdict: Verdict) -> bool {
        let kind = discriminant(&verdict);
        let before = self.told.insert(Arc::clone(server), kind);
        before.unwrap_or(discriminant(&Verdict::Fine)) != kind
    }

    /// Forgets a server that is no member any more.
    pub(crate) fn forget(&mut self, server: &str) {
        self.by_server.remove(server);
        self.told.remove(server);
    }

    /// The offset of one server, if it was seen.
    pub(crate) fn of(&self, server: &str) -> Option<i64> {
        self.by_server.get(server).copied()
    }

    /// The median offset; 0 when no server was seen.
    pub(crate) fn median_ms(&self) -> i64 {
        let mut all: Vec<i64> = self.by_server.values().copied().collect();
        all.sort_unstable();
        match all.len() {
            0 => 0,
            count => all[(count - 1) / 2].midpoint(all[count / 2]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_took_a_minute_says_nothing_on_the_clock() {
        assert_eq!(offset_between(1_000, 1_200, 5_000), Some(3_900));
        assert_eq!(offset_between(1_000, 1_000 + LONGEST_MS, 998), Some(-30_002));
        // Somebody slept, or the local clock was set, forward or back.
        for (asked, answered) in [(1_000, 1_001 + LONGEST_MS), (9_000_000, 1_000), (0, u64::MAX)] {
            assert_eq!(offset_between(asked, answered, 1_000), None);
        }
    }

    #[test]
    fn clocks_that_may_agree_are_not_corrected() {
        for server in 999..=1_401 {
            assert_eq!(offset_between(1_000, 1_400, server), Some(0));
        }
        assert_eq!(offset_between(1_000, 1_400, 998), Some(-202));
        assert_eq!(offset_between(1_000, 1_400, 1_402), Some(202));
        // As when the local clock was set back between the two.
        assert_eq!(offset_between(1_001, 1_000, 1_000), Some(0));
    }

    fn offsets(known: &[i64]) -> Offsets {
        let mut offsets = Offsets::default();
        for (index, offset) in known.iter().enumerate() {
            offsets.record(&name(index), *offset);
        }
        offsets
    }

    fn name(index: usize) -> Arc<str> {
        format!("s{index}").into()
    }

    const HOUR: i64 = 3_600_000;

    #[test]
    fn the_median_ignores_one_clock_that_is_far_off() {
        assert_eq!(offsets(&[]).median_ms(), 0);
        assert_eq!(offsets(&[10]).median_ms(), 10);
        assert_eq!(offsets(&[10, 20]).median_ms(), 15);
        assert_eq!(offsets(&[10, HOUR, 20]).median_ms(), 20);
        assert_eq!(offsets(&[i64::MAX, i64::MIN, -4]).median_ms(), -4);
    }

    #[test]
    fn the_third_server_that_disagrees_with_two_is_refused() {
        let mut known = offsets(&[0, 200]);
        assert_eq!(known.record(&name(2), HOUR), Verdict::Refuse { off_by_ms: HOUR - 200 });
        assert_eq!(known.record(&name(2), -HOUR), Verdict::Refuse { off_by_ms: -HOUR });
        assert_eq!(known.record(&name(2), 299_000), Verdict::Fine);
        assert_eq!(known.record(&name(0), -HOUR), Verdict::Refuse { off_by_ms: -HOUR - 200 });
    }

    #[test]
    fn clocks_at_the_ends_of_time_are_refused_as_others_are() {
        for offset in [i64::MIN, i64::MAX] {
            let mut known = offsets(&[0, 200]);
            let verdict = known.record(&name(2), offset);
            assert!(matches!(verdict, Verdict::Refuse { .. }), "{offset}: {verdict:?}");
        }
    }

    #[test]
    fn a_wrong_clock_seen_first_does_not_convict_the_right_ones() {
        let mut known = offsets(&[HOUR]);
        assert_eq!(known.record(&name(1), 0), Verdict::Fine);
        assert_eq!(known.record(&name(2), 0), Verdict::Fine);
        assert!(matches!(known.record(&name(0), HOUR), Verdict::Refuse { .. }));
    }

    #[test]
    fn two_servers_cannot_convict_each_other() {
        let mut known = offsets(&[0]);
        assert_eq!(known.record(&name(1), HOUR), Verdict::Doubtful);
        known.forget("s0");
        assert_eq!(known.median_ms(), HOUR);
    }

    #[test]
    fn a_verdict_is_news_when_it_is_another_than_before() {
        let mut known = offsets(&[]);
        let mut is_news = |verdict| known.is_news(&name(0), verdict);
        let refuse = |off_by_ms| Verdict::Refuse { off_by_ms };
        assert!(!is_news(Verdict::Fine), "nobody asked");
        assert!(is_news(refuse(HOUR)) && !is_news(refuse(HOUR + 7)));
        assert!(is_news(Verdict::Fine) && !is_news(Verdict::Fine));
        assert!(is_news(Verdict::Doubtful) && is_news(refuse(-HOUR)));
        known.forget("s0");
        assert!(known.is_news(&name(0), refuse(-HOUR)));
    }

    #[test]
    fn a_client_whose_own_clock_is_off_refuses_nobody() {
        let mut known = offsets(&[HOUR, HOUR + 5]);
        assert_eq!(known.record(&name(2), HOUR - 5), Verdict::Fine);
        assert_eq!(known.median_ms(), HOUR);
    }
}

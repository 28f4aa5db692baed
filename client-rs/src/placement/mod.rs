//! Which members own a key: pure functions of the key and the members.

#[cfg(test)]
mod balance;
mod contest;
#[cfg(test)]
mod golden;
mod placing;
mod pointer;
mod rendezvous;
mod ring;

use std::sync::atomic::{AtomicU16, Ordering};

use rampuddle_discovery::Strategy;

use self::contest::Contest;
pub(crate) use self::placing::Placing;
pub use self::placing::settings_fingerprint;
use self::pointer::SLOTS;
pub use self::pointer::Slot;
use crate::error::Error;

/// Who owns what, for one list of members and weights. The first ranks of a
/// slot are computed when it is first asked for, and kept.
///
/// Members are named by their index in the list given, which is in the order of
/// their names.
#[derive(Debug)]
pub(crate) struct Placement {
    contest: Contest,
    /// Ranks kept per slot.
    depth: usize,
    /// `depth` cells per slot: an index plus one, or 0 while not computed. The
    /// first cell is written last; two threads that race write the same.
    cells: Box<[AtomicU16]>,
}

impl Placement {
    /// Placement over `members`, names with weights in the order of the names.
    /// Costs two bytes per slot and rank kept: 768 KiB for three replicas.
    ///
    /// # Errors
    /// When the number of slots is not the one that this version has.
    pub(crate) fn new<'a>(
        strategy: Strategy,
        slots: u32,
        replicas_max: u8,
        members: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> Result<Self, Error> {
        if slots as usize != SLOTS {
            return Err(Error::UnsupportedPlacement { strategy: strategy.to_string(), slots });
        }
        // A cell holds an index plus one.
        let members = members.into_iter().take(usize::from(u16::MAX) - 1);
        let contest = Contest::new(strategy, members);
        let depth = contest.len().min(2 * usize::from(replicas_max.max(1)));
        let cells = (0..SLOTS * depth).map(|_| AtomicU16::new(0)).collect();
        Ok(Self { contest, depth, cells })
    }

    /// The first members by rank, at most `count` and at most twice
    /// `replicas_max` of them. No lock; the first call for a slot computes one
    /// score per member.
    pub(crate) fn owners(
        &self,
        slot: Slot,
        count: usize,
    ) -> impl ExactSizeIterator<Item = usize> + '_ {
        let cells = &self.cells[usize::from(slot.0) * self.depth..][..self.depth];
        if cells.first().is_some_and(|first| first.load(Ordering::Acquire) == 0) {
            self.compute(slot, cells);
        }
        let index = |cell: &AtomicU16| usize::from(cell.load(Ordering::Relaxed)) - 1;
        cells[..count.min(self.depth)].iter().map(index)
    }

    /// The first `count` members by rank, or all. Computed anew when there are
    /// more of them than are kept.
    pub(crate) fn ranks(&self, slot: Slot, count: usize) -> Vec<usize> {
        if count.min(self.contest.len()) <= self.depth {
            return self.owners(slot, count).collect();
        }
        self.contest.ranks(slot, count).into_iter().map(usize::from).collect()
    }

    fn compute(&self, slot: Slot, cells: &[AtomicU16]) {
        let ranks = self.contest.ranks(slot, cells.len());
        for (cell, index) in cells.iter().zip(&ranks).rev() {
            cell.store(index + 1, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRATEGIES: [Strategy; 3] = [Strategy::Rendezvous, Strategy::Ring, Strategy::Clone];

    fn placement(strategy: Strategy, members: &[(&str, f64)]) -> Placement {
        Placement::new(strategy, 65_536, 3, members.iter().copied()).unwrap()
    }

    fn owners<'a>(members: &[(&'a str, f64)], slot: u16, count: usize) -> Vec<&'a str> {
        let placement = placement(Strategy::Rendezvous, members);
        placement.owners(Slot(slot), count).map(|index| members[index].0).collect()
    }

    fn all_slots() -> impl Iterator<Item = Slot> {
        (0..=u16::MAX).map(Slot)
    }

    #[test]
    fn kept_ranks_are_the_computed_ones() {
        let members =
            [("a", 1.0), ("b", 2.0), ("c", 4.0), ("d", 1.0), ("e", 1.0), ("f", 1.0), ("g", 9.0)];
        for strategy in STRATEGIES {
            let placement = placement(strategy, &members);
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        for slot in all_slots() {
                            let kept: Vec<_> = placement.owners(slot, 99).collect();
                            assert_eq!(kept.len(), 6);
                            assert_eq!(kept, placement.ranks(slot, 99)[..6]);
                            assert_eq!(kept[..2], placement.ranks(slot, 2));
                        }
                    });
                }
            });
        }
    }

    #[test]
    fn few_members_own_everything_and_none_own_nothing() {
        assert_eq!(owners(&[("only", 5.0)], 17, 2), ["only"]);
        assert!(owners(&[], 17, 2).is_empty());
        assert!(placement(Strategy::Ring, &[]).ranks(Slot(1), 5).is_empty());
    }

    #[test]
    fn a_cluster_with_another_number_of_slots_is_refused_with_that_number() {
        let error = Placement::new(Strategy::Ring, 64, 3, [("a", 1.0)]).unwrap_err().to_string();
        assert!(error.contains("ring") && error.contains("64"), "{error}");
    }
}

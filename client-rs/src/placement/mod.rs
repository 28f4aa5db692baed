//! Which members own a key: pure functions of the key and the members.

mod placing;
mod pointer;
mod rendezvous;

use std::sync::atomic::{AtomicU16, Ordering};

use rampuddle_discovery::Strategy;

pub(crate) use self::placing::Placing;
pub use self::placing::settings_fingerprint;
use self::pointer::SLOTS;
pub use self::pointer::Slot;
use self::rendezvous::Contestant;
use crate::error::Error;

/// Who owns what, for one list of members and weights. The first ranks of a
/// slot are computed when it is first asked for, and kept.
///
/// Members are named by their index in the list given, which is in the order of
/// their names.
#[derive(Debug)]
pub(crate) struct Placement {
    contestants: Vec<Contestant>,
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
    /// When the strategy or the number of slots is not one that this version has.
    pub(crate) fn new<'a>(
        strategy: Strategy,
        slots: u32,
        replicas_max: u8,
        members: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> Result<Self, Error> {
        if strategy != Strategy::Rendezvous || slots as usize != SLOTS {
            return Err(Error::UnsupportedPlacement { strategy: strategy.to_string(), slots });
        }
        let members = members.into_iter();
        // A cell holds an index plus one.
        let contestants: Vec<Contestant> = members
            .take(usize::from(u16::MAX) - 1)
            .map(|(name, weight)| Contestant::new(name, weight))
            .collect();
        let depth = contestants.len().min(2 * usize::from(replicas_max.max(1)));
        let cells = (0..SLOTS * depth).map(|_| AtomicU16::new(0)).collect();
        Ok(Self { contestants, depth, cells })
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

    /// All members by rank. Computed anew each time.
    pub(crate) fn ranks(&self, slot: Slot) -> Vec<usize> {
        let ranks = rendezvous::ranks(&self.contestants, slot);
        ranks.into_iter().map(usize::from).collect()
    }

    fn compute(&self, slot: Slot, cells: &[AtomicU16]) {
        let mut ranks = rendezvous::ranks(&self.contestants, slot);
        ranks.truncate(cells.len());
        for (cell, index) in cells.iter().zip(&ranks).rev() {
            cell.store(index + 1, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(members: &[(&str, f64)]) -> Placement {
        Placement::new(Strategy::Rendezvous, 65_536, 3, members.iter().copied()).unwrap()
    }

    fn owners<'a>(members: &[(&'a str, f64)], slot: u16, count: usize) -> Vec<&'a str> {
        let owners = placement(members).owners(Slot(slot), count).collect::<Vec<_>>();
        owners.into_iter().map(|index| members[index].0).collect()
    }

    fn all_slots() -> impl Iterator<Item = Slot> {
        (0..=u16::MAX).map(Slot)
    }

    #[test]
    fn a_member_that_leaves_moves_only_its_own_keys() {
        let before = [("a", 1.0), ("b", 3.0), ("c", 2.0), ("d", 1.0), ("e", 0.1)];
        let after = [("a", 1.0), ("b", 3.0), ("d", 1.0), ("e", 0.1)];
        let (old, new) = (placement(&before), placement(&after));
        for slot in all_slots() {
            let old = old.ranks(slot).into_iter().map(|index| before[index].0);
            let left: Vec<_> = old.filter(|name| *name != "c").collect();
            let new: Vec<_> = new.ranks(slot).into_iter().map(|index| after[index].0).collect();
            assert_eq!(left, new, "{slot:?}");
        }
    }

    #[test]
    fn members_own_slots_by_their_weights() {
        let members = [("a", 1.0), ("b", 2.0), ("c", 4.0), ("d", 1.0)];
        let placement = placement(&members);
        let mut owned = [0_f64; 4];
        for slot in all_slots() {
            owned[placement.owners(slot, 1).next().unwrap()] += 1.0;
        }
        for (index, (name, weight)) in members.iter().enumerate() {
            let fair = 65_536.0 * weight / 8.0;
            assert!((owned[index] / fair - 1.0).abs() < 0.03, "{name}: {} of {fair}", owned[index]);
        }
    }

    #[test]
    fn kept_ranks_are_the_computed_ones() {
        let members =
            [("a", 1.0), ("b", 2.0), ("c", 4.0), ("d", 1.0), ("e", 1.0), ("f", 1.0), ("g", 9.0)];
        let placement = placement(&members);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for slot in all_slots() {
                        let kept: Vec<_> = placement.owners(slot, 99).collect();
                        assert_eq!(kept, placement.ranks(slot)[..6]);
                    }
                });
            }
        });
    }

    #[test]
    fn few_members_own_everything_and_none_own_nothing() {
        assert_eq!(owners(&[("only", 5.0)], 17, 2), ["only"]);
        assert!(owners(&[], 17, 2).is_empty());
        assert!(placement(&[]).ranks(Slot(1)).is_empty());
    }

    #[test]
    fn strategies_that_are_not_there_yet_are_refused_by_name() {
        for (strategy, slots) in
            [(Strategy::Ring, 65_536), (Strategy::Clone, 65_536), (Strategy::Rendezvous, 64)]
        {
            let error = Placement::new(strategy, slots, 3, [("a", 1.0)]).unwrap_err();
            assert!(error.to_string().contains(&strategy.to_string()), "{error}");
        }
    }
}

//! The ring: a slot belongs to the members whose points come next.
//!
//! ```text
//!   segment g                          segment g + 1
//!   |----+----+----+--x-+----+----|----|----------*----------
//!   0    1    2    3  |  4 ...    15   |          |
//!                     p(g)             a slot behind p(g) goes on to p(g + 1)
//! ```
//!
//! The ring has 65,536 slots, evenly spaced, in 4,096 segments. Each member has
//! one point in each segment, which depends on its name alone. A slot's members
//! rank by how soon their next point comes; `h` says how soon, as the share of
//! cases in which it comes later than it does, so that it is even between 0 and
//! 2^64, and weights count as they do everywhere. Neighbours often have the same
//! owners, which a hash per slot would not give.

use super::pointer::Slot;
use super::rendezvous::point;

/// Segments of the ring.
const SEGMENTS: u64 = 1 << 12;
/// Slots of a segment.
const SLOTS: u64 = 1 << 4;

/// How soon the next point of the member with this seed comes: the greater, the
/// sooner.
pub(super) fn hash(seed: u64, slot: Slot) -> u64 {
    let (segment, within) = (u64::from(slot.0) / SLOTS, u64::from(slot.0) % SLOTS);
    // Where the slot lies, in the 2^64 places of its segment.
    let place = within << 60;
    match point(seed, segment).checked_sub(place) {
        Some(distance) => u64::MAX - distance,
        None => {
            // Nothing comes in the rest of this segment, which happens in `within`
            // of 16 cases; those are shared out by the next one.
            let next = point(seed, (segment + 1) % SEGMENTS);
            place - 1 - (next >> 4) * within
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::contest::seed;

    /// The way to a member's next point, on a ring of all its points.
    fn distance(points: &[u128], slot: u16) -> u128 {
        let round = u128::from(SEGMENTS) << 64;
        let place = u128::from(slot) << 60;
        let next = points.iter().find(|point| **point >= place);
        next.map_or_else(|| points[0] + round - place, |point| point - place)
    }

    #[test]
    fn members_claim_a_slot_in_the_order_in_which_their_points_follow_it() {
        let seeds = ["a", "b", "node-1", "node-2", "x"].map(seed);
        let rings = seeds.map(|seed| {
            let at = |segment| u128::from(segment) << 64 | u128::from(point(seed, segment));
            (0..SEGMENTS).map(at).collect::<Vec<u128>>()
        });
        // Every place within a segment, and both ends of the ring.
        let middle = (0..=u16::MAX).step_by(997);
        for slot in (0..40).chain(middle).chain(u16::MAX - 40..=u16::MAX) {
            let mut by_claim = [0, 1, 2, 3, 4];
            let mut by_distance = by_claim;
            by_claim.sort_by_key(|one| std::cmp::Reverse(hash(seeds[*one], Slot(slot))));
            by_distance.sort_by_key(|one| distance(&rings[*one], slot));
            assert_eq!(by_claim, by_distance, "slot {slot}");
        }
    }

    #[test]
    fn every_claim_is_as_likely_as_any_other_wherever_a_slot_lies() {
        for within in 0..16 {
            let mut of_eighths = [0; 8];
            for number in 0..8_000 {
                let claim = hash(seed(&format!("m{number}")), Slot(within));
                of_eighths[(claim >> 61) as usize] += 1;
            }
            let fair = 850..1_150;
            assert!(
                of_eighths.iter().all(|count| fair.contains(count)),
                "{within}: {of_eighths:?}"
            );
        }
    }
}

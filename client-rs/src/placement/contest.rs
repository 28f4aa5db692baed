//! The contest of the members for a slot: pure functions, the same bits on every
//! machine.
//!
//! ```text
//! seed(member) = first 8 bytes of SHA-512(name), little-endian
//! h            = what the strategy makes of seed and slot
//! u            = ((h >> 12) + 0.5) x 2^-52
//! score        = weight / -ln(u)
//! ```
//!
//! Members rank by score, the greatest first, equal ones by name. Over all slots
//! `u` is even between 0 and 1, so `-ln(u)` is exponential, and of several such
//! numbers, each divided by a weight, the least one falls to each member as often
//! as its weight says. The logarithm is libm's: platforms' own differ in the last bit.

use rampuddle_discovery::Strategy;
use sha2::{Digest, Sha512};

use super::pointer::Slot;
use super::{rendezvous, ring};

/// The members of a cluster and the rule by which they claim slots.
#[derive(Debug)]
pub(super) struct Contest {
    strategy: Strategy,
    /// In the order of their names, which decides ties.
    contestants: Vec<Contestant>,
}

/// What a member brings to every slot's contest.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Contestant {
    seed: u64,
    weight: f64,
}

impl Contest {
    /// A contest of members, names with weights in the order of the names.
    pub(super) fn new<'a>(
        strategy: Strategy,
        members: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> Self {
        let members = members.into_iter();
        let contestants =
            members.map(|(name, weight)| Contestant { seed: seed(name), weight }).collect();
        Self { strategy, contestants }
    }

    /// How many members there are.
    pub(super) fn len(&self) -> usize {
        self.contestants.len()
    }

    /// The first `count` members in the order of their claims on the slot, as
    /// indices. Costs a hash and a logarithm per member.
    pub(super) fn ranks(&self, slot: Slot, count: usize) -> Vec<u16> {
        let scores = self.scores(slot);
        let by_score = |one: &u16, other: &u16| {
            scores[usize::from(*other)].total_cmp(&scores[usize::from(*one)]).then(one.cmp(other))
        };
        let mut order: Vec<u16> = (0..scores.len() as u16).collect();
        if count < order.len() {
            order.select_nth_unstable_by(count, by_score);
            order.truncate(count);
        }
        order.sort_unstable_by(by_score);
        order
    }

    /// How strongly each member claims the slot.
    fn scores(&self, slot: Slot) -> Vec<f64> {
        match self.strategy {
            // Where everybody owns everything there are ranks all the same: in
            // their order copies are written that must not meet another.
            Strategy::Rendezvous | Strategy::Clone => self.scores_by(slot, rendezvous::hash),
            Strategy::Ring => self.scores_by(slot, ring::hash),
        }
    }

    fn scores_by(&self, slot: Slot, hash: impl Fn(u64, Slot) -> u64) -> Vec<f64> {
        let score = |member: &Contestant| score(hash(member.seed, slot), member.weight);
        self.contestants.iter().map(score).collect()
    }
}

/// What stands for a member's name.
pub(super) fn seed(name: &str) -> u64 {
    let digest: [u8; 64] = Sha512::digest(name.as_bytes()).into();
    let mut seed = [0; 8];
    seed.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(seed)
}

fn score(hash: u64, weight: f64) -> f64 {
    const UNIT: f64 = 1.0 / (1_u64 << 52) as f64;
    let unit = ((hash >> 12) as f64 + 0.5) * UNIT;
    weight / -libm::log(unit)
}

#[cfg(test)]
mod tests {
    use std::hash::{Hash, Hasher};

    use rendezvous_hash::{Capacity, NodeHasher, RendezvousNodes, WeightedNode};

    use super::*;

    /// Gives the crate `rendezvous_hash` the hashes of a strategy.
    struct OurHasher(fn(u64, Slot) -> u64);

    impl NodeHasher<&'static str> for OurHasher {
        fn hash<T: Hash>(&self, node: &&'static str, item: &T) -> u64 {
            let mut slot = OneNumber(0);
            item.hash(&mut slot);
            (self.0)(seed(node), Slot(slot.0))
        }
    }

    /// Takes the only number that an item hashes.
    struct OneNumber(u16);

    impl Hasher for OneNumber {
        fn write_u16(&mut self, number: u16) {
            self.0 = number;
        }

        fn write(&mut self, _: &[u8]) {
            unreachable!("items are numbers of 16 bits");
        }

        fn finish(&self) -> u64 {
            unreachable!("nobody wants the hash of a number");
        }
    }

    const NAMES: [&str; 9] = ["a", "b", "c", "d", "node-1", "node-10", "node-2", "x", "y"];
    const WEIGHTS: [f64; 9] = [1.0, 2.0, 0.5, 64.0, 1.0, 3.0, 1e-3, 7.25, 1.0];

    /// All ranks of every slot, compared with those of the crate.
    fn compare(strategy: Strategy, weights: [f64; 9], hash: fn(u64, Slot) -> u64) {
        let contest = Contest::new(strategy, NAMES.into_iter().zip(weights));
        let is_even = weights.iter().all(|weight| *weight == 1.0);
        let (mut plain, mut weighted) =
            (RendezvousNodes::new(OurHasher(hash)), RendezvousNodes::new(OurHasher(hash)));
        plain.extend(NAMES);
        let capacity = |weight| Capacity::new(weight).expect("a positive number");
        weighted.extend(
            NAMES
                .into_iter()
                .zip(weights)
                .map(|(name, weight)| WeightedNode::new(name, capacity(weight))),
        );
        for slot in 0..=u16::MAX {
            let ours = contest.ranks(Slot(slot), usize::MAX);
            let ours: Vec<&str> = ours.iter().map(|index| NAMES[usize::from(*index)]).collect();
            let theirs: Vec<&str> = weighted.calc_candidates(&slot).map(|node| node.node).collect();
            assert_eq!(ours, theirs, "{strategy}, slot {slot}, with weights");
            if is_even {
                let theirs: Vec<&str> = plain.calc_candidates(&slot).copied().collect();
                assert_eq!(ours, theirs, "{strategy}, slot {slot}, without weights");
            }
        }
    }

    #[test]
    fn the_ranks_are_those_of_another_library_with_the_same_hashes() {
        for weights in [[1.0; 9], WEIGHTS] {
            compare(Strategy::Rendezvous, weights, rendezvous::hash);
            compare(Strategy::Clone, weights, rendezvous::hash);
            compare(Strategy::Ring, weights, ring::hash);
        }
    }

    #[test]
    fn the_first_ranks_are_the_begin_of_all_of_them() {
        let names: Vec<String> = (0..40).map(|number| format!("m{number:02}")).collect();
        for strategy in [Strategy::Rendezvous, Strategy::Ring, Strategy::Clone] {
            let contest = Contest::new(strategy, names.iter().map(|name| (name.as_str(), 1.0)));
            for slot in (0..=u16::MAX).step_by(61).map(Slot) {
                let all = contest.ranks(slot, usize::MAX);
                for count in [0, 1, 3, 6, 39, 40, 41] {
                    assert_eq!(contest.ranks(slot, count), all[..count.min(40)]);
                }
            }
        }
    }
}

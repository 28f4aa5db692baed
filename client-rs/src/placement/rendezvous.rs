//! Weighted rendezvous hashing: pure functions, the same bits on every machine.
//!
//! ```text
//! seed(member)    = first 8 bytes of SHA-512(name), little-endian
//! h(slot, member) = mix(seed + (slot + 1) x 0x9E3779B97F4A7C15)
//! u               = ((h >> 12) + 0.5) x 2^-52
//! score           = weight / -ln(u)
//! ```
//!
//! Members rank by score, the greatest first, equal ones by name. The logarithm
//! is libm's: platforms' own differ in the last bit.

use sha2::{Digest, Sha512};

use super::pointer::Slot;
use crate::environment::{GOLDEN, mixed};

/// What a member brings to every slot's contest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Contestant {
    seed: u64,
    weight: f64,
}

impl Contestant {
    /// The member of that name and weight.
    pub(crate) fn new(name: &str, weight: f64) -> Self {
        let digest: [u8; 64] = Sha512::digest(name.as_bytes()).into();
        let mut seed = [0; 8];
        seed.copy_from_slice(&digest[..8]);
        Self { seed: u64::from_le_bytes(seed), weight }
    }

    fn hash(&self, slot: Slot) -> u64 {
        mixed(self.seed.wrapping_add((u64::from(slot.0) + 1).wrapping_mul(GOLDEN)))
    }

    /// How strongly the member claims the slot.
    pub(crate) fn score(&self, slot: Slot) -> f64 {
        const UNIT: f64 = 1.0 / (1_u64 << 52) as f64;
        let unit = ((self.hash(slot) >> 12) as f64 + 0.5) * UNIT;
        self.weight / -libm::log(unit)
    }
}

/// All contestants in the order of their claims on the slot, as indices.
/// `contestants` must be in the order of their names, which decides ties.
pub(crate) fn ranks(contestants: &[Contestant], slot: Slot) -> Vec<u16> {
    let scores: Vec<f64> = contestants.iter().map(|member| member.score(slot)).collect();
    let mut order: Vec<u16> = (0..contestants.len() as u16).collect();
    let by_score = |one: &u16, other: &u16| {
        scores[usize::from(*other)].total_cmp(&scores[usize::from(*one)]).then(one.cmp(other))
    };
    order.sort_unstable_by(by_score);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_and_ranks_are_the_golden_ones() {
        // Computed by tests/golden_placement.py.
        let names = ["alpha", "beta", "gamma", "delta-4"];
        let weights = [1.0, 2.0, 0.5, 64.0];
        let members: Vec<_> =
            names.iter().zip(weights).map(|(name, weight)| Contestant::new(name, weight)).collect();
        for (slot, hashes, order) in GOLDEN_VECTORS {
            let found = members.iter().map(|member| member.hash(Slot(*slot)));
            assert_eq!(found.collect::<Vec<_>>(), hashes, "slot {slot}");
            assert_eq!(ranks(&members, Slot(*slot)), order, "slot {slot}");
        }
    }

    const GOLDEN_VECTORS: &[(u16, [u64; 4], [u16; 4])] = &[
        (
            0,
            [0xF623C305C9162F4C, 0xBEBFA79495F1109B, 0x10B64A1D3EBE8361, 0xF7B056983B0B9B2D],
            [3, 0, 1, 2],
        ),
        (
            1,
            [0xF6BD87B0EB101A95, 0x9B54974CC27C89C3, 0xF002E63E14372B3D, 0x62F9E0382339570E],
            [3, 0, 2, 1],
        ),
        (
            2,
            [0xFCAD8F25A31A8C27, 0xB28A09A5AA9489DD, 0xB78C5F0F2B0BDEF6, 0x70CEF8C6A348A165],
            [3, 0, 1, 2],
        ),
        (
            255,
            [0xE31C4B19ED8CFE79, 0x36056C835E56D4E3, 0x1A9F4A5DE8C75E95, 0x97C4FA8A06A7A4F7],
            [3, 0, 1, 2],
        ),
        (
            256,
            [0xC3F3EDEB67B520CA, 0x1AEE79E19A739037, 0xBE12C132069C8B77, 0x6F9668C6AFDFF591],
            [3, 0, 2, 1],
        ),
        (
            4711,
            [0xEE641D7FAD05B3CE, 0x31A373FCC5BE9D74, 0xBBB0A86E4857C603, 0x0863795281B65376],
            [3, 0, 2, 1],
        ),
        (
            32768,
            [0x0D97CC79B4DC32AE, 0x38CB84FB1F5D7D19, 0xDF7AE0898DBD131F, 0x5A59FB98C4D62BB3],
            [3, 2, 1, 0],
        ),
        (
            65534,
            [0xABBBCB24C5E8516B, 0x1717691BF39C62B7, 0x36100BE3F6E9EEB9, 0xAD7792D25D0A5C4E],
            [3, 0, 1, 2],
        ),
        (
            65535,
            [0xD46B76F0AC47B634, 0x0EE92D5F0F59AABD, 0x15BAB3956717A72E, 0x7C845D60BA54AE57],
            [3, 0, 1, 2],
        ),
    ];
}

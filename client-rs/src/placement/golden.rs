//! Numbers that never change: `tests/golden_placement.py` computes them too.

use rampuddle_discovery::Strategy;

use super::contest::{Contest, seed};
use super::pointer::Slot;
use super::{rendezvous, ring};

const NAMES: [&str; 4] = ["alpha", "beta", "gamma", "delta-4"];
const WEIGHTS: [f64; 4] = [1.0, 2.0, 0.5, 64.0];

/// Slot, hash of each member, members by rank.
type Vector = (u16, [u64; 4], [u16; 4]);

fn check(strategy: Strategy, hash: fn(u64, Slot) -> u64, vectors: &[Vector]) {
    let contest = Contest::new(strategy, NAMES.into_iter().zip(WEIGHTS));
    for (slot, hashes, order) in vectors {
        let found = NAMES.map(|name| hash(seed(name), Slot(*slot)));
        assert_eq!(&found, hashes, "{strategy}, slot {slot}");
        assert_eq!(contest.ranks(Slot(*slot), 4), order, "{strategy}, slot {slot}");
    }
}

#[test]
fn hashes_and_ranks_are_the_golden_ones() {
    check(Strategy::Rendezvous, rendezvous::hash, RENDEZVOUS);
    check(Strategy::Clone, rendezvous::hash, RENDEZVOUS);
    check(Strategy::Ring, ring::hash, RING);
}

const RENDEZVOUS: &[Vector] = &[
    (
        0,
        [
            0xF623_C305_C916_2F4C,
            0xBEBF_A794_95F1_109B,
            0x10B6_4A1D_3EBE_8361,
            0xF7B0_5698_3B0B_9B2D,
        ],
        [3, 0, 1, 2],
    ),
    (
        1,
        [
            0xF6BD_87B0_EB10_1A95,
            0x9B54_974C_C27C_89C3,
            0xF002_E63E_1437_2B3D,
            0x62F9_E038_2339_570E,
        ],
        [3, 0, 2, 1],
    ),
    (
        2,
        [
            0xFCAD_8F25_A31A_8C27,
            0xB28A_09A5_AA94_89DD,
            0xB78C_5F0F_2B0B_DEF6,
            0x70CE_F8C6_A348_A165,
        ],
        [3, 0, 1, 2],
    ),
    (
        15,
        [
            0x0CE8_2D52_1B40_021C,
            0xD2EB_B5D3_8B24_C383,
            0xF97D_02BB_4C0A_D60E,
            0x391C_DBA7_5640_7A89,
        ],
        [3, 2, 1, 0],
    ),
    (
        16,
        [
            0x8617_7AFC_B1DE_9922,
            0x704A_2163_54AD_FB16,
            0x3ACF_72CD_CA2D_24B6,
            0xEBC5_14F9_8627_E58F,
        ],
        [3, 1, 0, 2],
    ),
    (
        255,
        [
            0xE31C_4B19_ED8C_FE79,
            0x3605_6C83_5E56_D4E3,
            0x1A9F_4A5D_E8C7_5E95,
            0x97C4_FA8A_06A7_A4F7,
        ],
        [3, 0, 1, 2],
    ),
    (
        256,
        [
            0xC3F3_EDEB_67B5_20CA,
            0x1AEE_79E1_9A73_9037,
            0xBE12_C132_069C_8B77,
            0x6F96_68C6_AFDF_F591,
        ],
        [3, 0, 2, 1],
    ),
    (
        4711,
        [
            0xEE64_1D7F_AD05_B3CE,
            0x31A3_73FC_C5BE_9D74,
            0xBBB0_A86E_4857_C603,
            0x0863_7952_81B6_5376,
        ],
        [3, 0, 2, 1],
    ),
    (
        32768,
        [
            0x0D97_CC79_B4DC_32AE,
            0x38CB_84FB_1F5D_7D19,
            0xDF7A_E089_8DBD_131F,
            0x5A59_FB98_C4D6_2BB3,
        ],
        [3, 2, 1, 0],
    ),
    (
        65534,
        [
            0xABBB_CB24_C5E8_516B,
            0x1717_691B_F39C_62B7,
            0x3610_0BE3_F6E9_EEB9,
            0xAD77_92D2_5D0A_5C4E,
        ],
        [3, 0, 1, 2],
    ),
    (
        65535,
        [
            0xD46B_76F0_AC47_B634,
            0x0EE9_2D5F_0F59_AABD,
            0x15BA_B395_6717_A72E,
            0x7C84_5D60_BA54_AE57,
        ],
        [3, 0, 1, 2],
    ),
];
const RING: &[Vector] = &[
    (
        0,
        [
            0x09DC_3CFA_36E9_D0B3,
            0x4140_586B_6A0E_EF64,
            0xEF49_B5E2_C141_7C9E,
            0x084F_A967_C4F4_64D2,
        ],
        [3, 2, 1, 0],
    ),
    (
        1,
        [
            0x19DC_3CFA_36E9_D0B3,
            0x5140_586B_6A0E_EF64,
            0xFF49_B5E2_C141_7C9E,
            0x184F_A967_C4F4_64D2,
        ],
        [2, 3, 1, 0],
    ),
    (
        2,
        [
            0x29DC_3CFA_36E9_D0B3,
            0x6140_586B_6A0E_EF64,
            0x01FF_A338_3D79_1A99,
            0x284F_A967_C4F4_64D2,
        ],
        [3, 1, 0, 2],
    ),
    (
        15,
        [
            0xF9DC_3CFA_36E9_D0B3,
            0x5E60_B228_09AB_3EDB,
            0x0EFD_4825_CD0C_4782,
            0xF84F_A967_C4F4_64D2,
        ],
        [3, 0, 1, 2],
    ),
    (
        16,
        [
            0x0942_784F_14EF_E56A,
            0x64AB_68B3_3D83_763C,
            0x0FFD_19C1_EBC8_D4C2,
            0x9D06_1FC7_DCC6_A8F1,
        ],
        [3, 1, 0, 2],
    ),
    (
        255,
        [
            0x7249_FCB3_193F_5071,
            0x86BA_80B2_E09C_E4A0,
            0xF682_FD44_B3F5_29F1,
            0x12F7_3C56_123A_98D7,
        ],
        [3, 2, 1, 0],
    ),
    (
        256,
        [
            0x79E8_8503_4E21_66DD,
            0x8FB5_DE9C_AB52_04E9,
            0xC530_8D32_35D2_DB49,
            0x143A_EB06_79D8_1A70,
        ],
        [3, 1, 2, 0],
    ),
    (
        4711,
        [
            0x54A7_E897_EDA0_8331,
            0x790A_606E_CF0A_B46D,
            0x38FF_833C_F6F9_1779,
            0x8E3E_C607_4D36_6515,
        ],
        [3, 1, 0, 2],
    ),
    (
        32768,
        [
            0x979A_56A5_BB42_75D9,
            0x424E_F11B_B3AF_F9C3,
            0xBB6B_E91D_7181_2006,
            0x8C57_21B3_594A_BE9C,
        ],
        [3, 0, 2, 1],
    ),
    (
        65534,
        [
            0x08A0_B55A_F00C_96A7,
            0x3918_4D5D_FCCD_1181,
            0xD160_7F26_6919_4D0B,
            0x0745_B43A_CC55_D843,
        ],
        [3, 2, 1, 0],
    ),
    (
        65535,
        [
            0x093E_792A_937B_33B3,
            0x3D2C_52E4_B36E_0078,
            0xE055_1A84_952D_64D5,
            0x07CA_AED1_48A5_1E91,
        ],
        [3, 2, 1, 0],
    ),
];

//! What clients and servers of a cluster must agree on, as one number.

use std::fmt;

use sha2::{Digest, Sha512};

/// The settings that decide who owns what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacementSettings<'a> {
    /// The cluster's name.
    pub cluster: &'a str,
    /// How keys find their owners, as one lower-case word.
    pub strategy: &'a str,
    /// The greatest number of copies that an object may ask for.
    pub replicas_max: u8,
    /// The number of placement classes.
    pub slots: u32,
}

impl PlacementSettings<'_> {
    /// The number that both hellos carry: the first eight bytes, little-endian,
    /// of SHA-512 of a text of five lines. Never 0, which says that a side has
    /// no word on settings. Costs one SHA-512.
    pub fn fingerprint(&self) -> u64 {
        let Self { cluster, strategy, replicas_max, slots } = self;
        let text = format!(
            "rampuddle settings 1\n\
             cluster {cluster}\n\
             strategy {strategy}\n\
             replicas_max {replicas_max}\n\
             slots {slots}\n"
        );
        let digest: [u8; 64] = Sha512::digest(text.as_bytes()).into();
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        u64::from_le_bytes(first).max(1)
    }
}

impl fmt::Display for PlacementSettings<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, strategy, replicas_max, slots } = self;
        write!(
            formatter,
            "cluster \"{}\", strategy {strategy}, replicas_max {replicas_max}, {slots} slots",
            cluster.escape_debug()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAB: PlacementSettings<'_> = PlacementSettings {
        cluster: "lab",
        strategy: "rendezvous",
        replicas_max: 3,
        slots: 65_536,
    };

    #[test]
    fn the_fingerprint_is_the_golden_one() {
        // Computed with Python's hashlib.
        assert_eq!(LAB.fingerprint(), 0x8561_29A5_C3E8_3C41);
    }

    #[test]
    fn every_setting_changes_the_fingerprint() {
        let others = [
            PlacementSettings { cluster: "lab2", ..LAB },
            PlacementSettings { strategy: "ring", ..LAB },
            PlacementSettings { replicas_max: 2, ..LAB },
            PlacementSettings { slots: 32_768, ..LAB },
        ];
        assert!(others.iter().all(|other| other.fingerprint() != LAB.fingerprint()));
    }

    #[test]
    fn a_terminal_is_safe_from_what_settings_say() {
        let text = PlacementSettings { cluster: "\x1b[2J", ..LAB }.to_string();
        assert!(!text.contains('\x1b'), "{text}");
    }
}

//! What keys are placed by, as both sides of a handshake compare it.

use std::sync::Arc;

use rampuddle_discovery::Settings;
use rampuddle_protocol::PlacementSettings;

/// The settings that a client places keys by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placing {
    pub(crate) fingerprint: u64,
    /// For people.
    pub(crate) text: Arc<str>,
}

impl Placing {
    pub(crate) fn of(settings: &Settings) -> Self {
        let settings = PlacementSettings {
            cluster: &settings.cluster,
            strategy: &settings.strategy.to_string(),
            replicas_max: settings.replicas_max,
            slots: settings.slots,
        };
        Self { fingerprint: settings.fingerprint(), text: settings.to_string().into() }
    }

    /// Whether a server that was told this fingerprint, or nothing (0), places
    /// as this client does.
    pub(crate) fn agrees(&self, told: u64) -> bool {
        told == 0 || told == self.fingerprint
    }
}

/// The number by which a server recognises clients that place keys by the same
/// settings. When the settings were created plays no part in it.
pub fn settings_fingerprint(settings: &Settings) -> u64 {
    Placing::of(settings).fingerprint
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_is_that_of_the_protocol_and_not_of_the_time_of_creation() {
        // The first test vector of docs/protocol.md.
        let settings = Settings::new("lab", 0);
        assert_eq!(settings_fingerprint(&settings), 0x8561_29A5_C3E8_3C41);
        assert_eq!(Placing::of(&settings), Placing::of(&Settings::new("lab", 1_767_225_600_000)));
    }

    #[test]
    fn a_server_that_was_told_nothing_agrees_with_everybody() {
        let placing = Placing::of(&Settings::new("lab", 0));
        assert!(placing.agrees(0) && placing.agrees(placing.fingerprint));
        assert!(!placing.agrees(placing.fingerprint + 1));
    }
}

//! Knows every byte that every key must hold.

use std::collections::BTreeMap;

use rampuddle_protocol::Status;
use rampuddle_protocol::limits::VALUE_BYTES_MIN;

use crate::pattern::Pattern;
use crate::raw::RawClient;

/// What a key must hold: stretches of patterns over zeros.
#[derive(Debug, Clone)]
struct Expected {
    length: u64,
    /// Offset, length, pattern; later ones lie over earlier ones. Each begins
    /// with its pattern's first byte.
    stretches: Vec<(u64, u64, Pattern)>,
}

impl Expected {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length as usize];
        for (offset, length, pattern) in &self.stretches {
            pattern.fill(0, &mut bytes[*offset as usize..][..*length as usize]);
        }
        bytes
    }
}

/// The bytes that every key must hold, and how they differ from what was read.
#[derive(Debug, Clone, Default)]
pub struct Oracle {
    keys: BTreeMap<Vec<u8>, Expected>,
}

impl Oracle {
    /// No key.
    pub fn new() -> Self {
        Self::default()
    }

    /// A value (or an object) of `length` that was given the first `given` bytes
    /// of `pattern`.
    pub fn created(&mut self, key: &[u8], length: u64, given: u64, pattern: Pattern) {
        let expected = Expected { length, stretches: vec![(0, given, pattern)] };
        self.keys.insert(key.to_vec(), expected);
    }

    /// As [`Oracle::created`], with a value's least length.
    pub fn created_value(&mut self, key: &[u8], length: u64, given: u64, pattern: Pattern) {
        self.created(key, length.max(VALUE_BYTES_MIN), given, pattern);
    }

    /// Bytes were written into a value.
    ///
    /// # Panics
    /// When the key is not known.
    pub fn scattered(&mut self, key: &[u8], offset: u64, length: u64, pattern: Pattern) {
        let expected = self.keys.get_mut(key).expect("only what was created is written into");
        expected.stretches.push((offset, length, pattern));
    }

    /// The key is gone.
    pub fn removed(&mut self, key: &[u8]) {
        self.keys.remove(key);
    }

    /// The keys that must be there.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.keys.keys().map(Vec::as_slice)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Every byte that a key must hold.
    ///
    /// # Panics
    /// When the key is not known.
    pub fn bytes(&self, key: &[u8]) -> Vec<u8> {
        self.keys.get(key).expect("a known key").bytes()
    }

    /// Compares what was read of a key from `offset` on.
    ///
    /// # Panics
    /// At the first difference, which is shown.
    #[track_caller]
    pub fn check(&self, key: &[u8], offset: u64, found: &[u8]) {
        let wanted = self.bytes(key);
        let wanted = &wanted[offset as usize..][..found.len()];
        let key = key.escape_ascii();
        if let Some(at) = wanted.iter().zip(found).position(|(wanted, found)| wanted != found) {
            let show = |bytes: &[u8]| format!("{:02x?}", &bytes[at..bytes.len().min(at + 8)]);
            panic!(
                "\"{key}\" differs at byte {}: wanted {}, found {}",
                offset + at as u64,
                show(wanted),
                show(found)
            );
        }
    }

    /// Reads everything back and compares; returns the bytes compared.
    ///
    /// # Panics
    /// At the first key that is missing, too long, too short or different.
    #[track_caller]
    pub fn check_all(&self, client: &mut RawClient) -> u64 {
        let mut compared = 0;
        for (key, expected) in &self.keys {
            let found = client.gather_all(key);
            let found = found.unwrap_or_else(|| panic!("\"{}\" is lost", key.escape_ascii()));
            assert_eq!(found.len() as u64, expected.length, "length of {}", key.escape_ascii());
            self.check(key, 0, &found);
            compared += found.len() as u64;
        }
        compared
    }

    /// Asserts that none of `keys` is there.
    ///
    /// # Panics
    /// At the first one that is.
    #[track_caller]
    pub fn check_absent<'a>(client: &mut RawClient, keys: impl IntoIterator<Item = &'a [u8]>) {
        for key in keys {
            let status = client.stat(key).status();
            assert_eq!(status, Status::NotFound, "{}", key.escape_ascii());
        }
    }
}

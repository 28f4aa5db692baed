//! Counts of what a test did: one that did nothing fails.

use std::collections::BTreeMap;
use std::fmt;

/// What was done, by kind. Printed, and judged, when it is dropped.
#[derive(Debug)]
pub struct Counts {
    subject: &'static str,
    by_kind: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// Nothing done yet.
    pub fn new(subject: &'static str) -> Self {
        Self { subject, by_kind: BTreeMap::new() }
    }

    /// One more of `kind`.
    pub fn one(&mut self, kind: &'static str) {
        self.add(kind, 1);
    }

    /// `count` more of `kind`.
    pub fn add(&mut self, kind: &'static str, count: u64) {
        *self.by_kind.entry(kind).or_default() += count;
    }

    /// How many of `kind` so far.
    pub fn of(&self, kind: &str) -> u64 {
        self.by_kind.get(kind).copied().unwrap_or(0)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:", self.subject)?;
        self.by_kind.iter().try_for_each(|(kind, count)| write!(formatter, " {kind} {count},"))
    }
}

impl Drop for Counts {
    fn drop(&mut self) {
        println!("counts of {self}");
        if !std::thread::panicking() {
            let done: u64 = self.by_kind.values().sum();
            assert!(done > 0, "{}: nothing was done", self.subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_that_did_nothing_fails() {
        let nothing = std::panic::catch_unwind(|| drop(Counts::new("nothing")));
        assert!(nothing.is_err());
        let mut something = Counts::new("something");
        something.one("thing");
        assert_eq!(something.of("thing"), 1);
    }
}

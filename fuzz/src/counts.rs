//! What a run did, by kind.

use std::collections::BTreeMap;
use std::fmt;

/// Counts of one run.
#[derive(Debug, Default)]
pub struct Counts {
    /// Inputs that were run.
    pub executions: u64,
    /// Of them, those whose first header was right, so that what lies behind
    /// it was looked at.
    pub passed_header: u64,
    by_kind: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// One more of `kind`.
    pub fn one(&mut self, kind: &'static str) {
        self.add(kind, 1);
    }

    /// `count` more of `kind`.
    pub fn add(&mut self, kind: &'static str, count: u64) {
        if count > 0 {
            *self.by_kind.entry(kind).or_default() += count;
        }
    }

    /// How many of `kind`.
    pub fn of(&self, kind: &str) -> u64 {
        self.by_kind.get(kind).copied().unwrap_or(0)
    }

    /// Adds those of another thread.
    pub fn join(&mut self, other: &Self) {
        self.executions += other.executions;
        self.passed_header += other.passed_header;
        other.by_kind.iter().for_each(|(kind, count)| self.add(kind, *count));
    }

    /// The share of inputs whose first header was right, in percent.
    pub fn passed_percent(&self) -> f64 {
        100.0 * self.passed_header as f64 / self.executions.max(1) as f64
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (kind, count)) in self.by_kind.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(formatter, "{comma}{kind} {count}")?;
        }
        Ok(())
    }
}

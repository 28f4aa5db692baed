//! The middle, the tail and the spread of what was measured.

use std::fmt;

/// The middle of several figures, with the least and the greatest of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    /// The middle one.
    pub(crate) middle: f64,
    /// The least.
    pub(crate) least: f64,
    /// The greatest.
    pub(crate) most: f64,
}

impl Spread {
    /// Of figures in any order; `None` when there are none.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let sorted = sorted(figures);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        Some(Self { middle: middle(&sorted), least, most })
    }
}

impl fmt::Display for Spread {
    /// `0.95 (0.93-0.97)`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { middle, least, most } = self;
        write!(formatter, "{middle:.2} ({least:.2}-{most:.2})")
    }
}

/// In ascending order.
pub(crate) fn sorted(figures: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut all: Vec<f64> = figures.into_iter().collect();
    all.sort_by(f64::total_cmp);
    all
}

/// The middle of figures in ascending order: of an even number the mean of two.
pub(crate) fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[half],
        _ => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}

/// The figure below which so many of a hundred lie, of figures in ascending order.
pub(crate) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let at = sorted.len() * percent / 100;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_the_tail_and_the_ends_are_those_of_the_figures() {
        let spread = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!((spread.least, spread.middle, spread.most), (1.0, 2.0, 3.0));
        assert_eq!(spread.to_string(), "2.00 (1.00-3.00)");
        assert_eq!(Spread::of([4.0, 1.0]).unwrap().middle, 2.5);
        assert_eq!(Spread::of([]), None);
        let hundred = sorted((0..100).rev().map(f64::from));
        assert_eq!(percentile(&hundred, 99), 99.0);
        assert_eq!(percentile(&hundred, 50), 50.0);
        assert_eq!(percentile(&[7.0], 99), 7.0);
    }
}

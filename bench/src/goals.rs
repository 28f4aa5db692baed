//! What RamPuddle wants to reach beside the floor and its peers, and whether it does.

use crate::case::{Case, Operation, Path, Size, Who};
use crate::rounds::{Row, find};
use crate::statistics::Spread;
use crate::table::markdown;

/// A bound on the ratio of two rows.
#[derive(Debug, Clone)]
pub(crate) struct Goal {
    own: Case,
    other: Who,
    /// How many times as fast as the other row, at least.
    at_least: f64,
    /// `None` where one of the two was not measured.
    reached: Option<Spread>,
}

impl Goal {
    /// Whether the middle round reaches it; `None` when it was not measured.
    pub(crate) fn is_met(&self) -> Option<bool> {
        Some(self.reached?.middle >= self.at_least)
    }
}

const SMALL: Size = Size::ALL[0];
const LARGEST: Size = Size::ALL[3];

/// All goals, by TCP, which all have.
pub(crate) fn judge(rows: &[Row]) -> Vec<Goal> {
    use Operation::{Gather, Get, GetFresh, GetRecycled, GetUnverified, Put};
    let mut goals = Vec::new();
    let mut wish = |operation, size, other, at_least| {
        goals.push(goal(rows, operation, size, other, at_least));
    };
    // At most 1.10 times the floor's time.
    wish(Gather, SMALL, Who::Floor, 1.0 / 1.10);
    wish(Gather, SMALL, Who::Memcached, 1.0);
    for size in &Size::ALL[1..] {
        wish(GetUnverified, *size, Who::Floor, 0.95);
        wish(Get, *size, Who::Floor, 0.9);
        wish(GetUnverified, *size, Who::Memcached, 0.95);
    }
    for operation in [GetRecycled, GetFresh] {
        wish(operation, LARGEST, Who::Floor, 0.8);
    }
    for size in &Size::ALL[1..] {
        wish(Put, *size, Who::Floor, 0.9);
        wish(Put, *size, Who::Memcached, 0.95);
    }
    for operation in [Get, Put] {
        wish(operation, SMALL, Who::Memcached, 1.0);
        for size in Size::ALL {
            wish(operation, size, Who::Redis, 1.0);
            wish(operation, size, Who::Mooncake, 1.0);
        }
    }
    goals
}

fn goal(rows: &[Row], operation: Operation, size: Size, other: Who, at_least: f64) -> Goal {
    let own = Case { size, operation, who: Who::Puddle, path: Path::Tcp };
    let beside = Case { who: other, ..own.floor() };
    let reached = find(rows, own).zip(find(rows, beside));
    let reached = reached.and_then(|(own, beside)| own.speed_beside(beside));
    Goal { own, other, at_least, reached }
}

/// A row for each goal.
pub(crate) fn table(goals: &[Goal]) -> String {
    let row = |goal: &Goal| {
        let reached = goal.reached.map_or_else(|| "not measured".to_owned(), exactly);
        let verdict = match goal.is_met() {
            Some(true) => "yes",
            Some(false) => "MISSED",
            None => "-",
        };
        let Case { size, operation, path, .. } = goal.own;
        vec![
            size.to_string(),
            operation.to_string(),
            path.to_string(),
            goal.other.to_string(),
            format!("{:.2}", goal.at_least),
            reached,
            verdict.to_owned(),
        ]
    };
    let head = ["size", "operation", "way", "beside", "goal: times as fast", "reached", "met"];
    markdown(&head, &goals.iter().map(row).collect::<Vec<_>>())
}

/// With one more digit than elsewhere: a goal of 0.90 is missed by 0.897.
fn exactly(reached: Spread) -> String {
    let Spread { middle, least, most } = reached;
    format!("{middle:.3} ({least:.2}-{most:.2})")
}

/// Those that were missed, each in a line.
pub(crate) fn missed(goals: &[Goal]) -> Vec<String> {
    let missed = goals.iter().filter(|goal| goal.is_met() == Some(false));
    let line = |goal: &Goal| {
        let reached = goal.reached.map(exactly).unwrap_or_default();
        let Goal { own, other, at_least, .. } = goal;
        format!("{own}: {reached} times as fast as {other}, not {at_least:.2}")
    };
    missed.map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rounds::Sample;

    fn row(who: Who, operation: Operation, microseconds: [f64; 3]) -> Row {
        let case = Case { size: SMALL, operation, who, path: Path::Tcp };
        let sample = |microseconds| Sample {
            microseconds: vec![microseconds],
            client: Duration::ZERO,
            server: Duration::ZERO,
        };
        Row { case, samples: microseconds.map(sample).into(), problem: None }
    }

    #[test]
    fn a_goal_is_judged_by_the_middle_of_the_ratios_of_each_round() {
        let floor = row(Who::Floor, Operation::Get, [20.0, 40.0, 10.0]);
        let gather = row(Who::Puddle, Operation::Gather, [21.0, 43.0, 30.0]);
        let rows = [floor, gather];
        let goals = judge(&rows);
        assert_eq!(goals[0].is_met(), Some(true), "{}", table(&goals));
        assert_eq!(goals[1].is_met(), None, "memcached was not measured");
        assert!(missed(&goals).is_empty());
        let slow = [rows[0].clone(), row(Who::Puddle, Operation::Gather, [23.0, 43.0, 12.0])];
        let missed = missed(&judge(&slow));
        assert_eq!(missed.len(), 1, "{missed:?}");
        let line = "RamPuddle: raw Gather, 64 KiB, TCP: 0.870 (0.83-0.93) times as fast as floor";
        assert!(missed[0].starts_with(line), "{missed:?}");
    }
}

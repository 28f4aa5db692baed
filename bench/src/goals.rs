//! What RamPuddle wants to reach beside the floor and its peers, and whether it does.

use crate::case::{Case, Operation, Path, Size, Who};
use crate::rounds::{Row, find};
use crate::statistics::Spread;
use crate::table::{markdown, time};

/// What is wanted of a row.
#[derive(Debug, Clone, Copy)]
enum Bound {
    /// How many times as fast as the row of another, at least.
    AtLeast(f64, Who),
    /// Microseconds of the middle call, at most.
    AtMost(f64),
}

impl Bound {
    fn is_met_by(self, reached: Spread) -> bool {
        match self {
            Self::AtLeast(bound, _) => reached.middle >= bound,
            Self::AtMost(bound) => reached.middle <= bound,
        }
    }

    /// Of the rows of each round.
    fn reached(self, rows: &[Row], own: Case) -> Option<Spread> {
        let row = find(rows, own)?;
        match self {
            Self::AtLeast(_, other) => row.speed_beside(find(rows, own.beside(other))?),
            Self::AtMost(_) => row.middle(),
        }
    }

    fn words(self) -> String {
        match self {
            Self::AtLeast(bound, _) => format!("{bound:.2} x as fast"),
            Self::AtMost(bound) => format!("at most {}", time(bound)),
        }
    }

    fn beside(self) -> String {
        match self {
            Self::AtLeast(_, other) => other.to_string(),
            Self::AtMost(_) => "-".to_owned(),
        }
    }

    /// With one more digit than elsewhere: a goal of 0.90 is missed by 0.897.
    fn exactly(self, reached: Spread) -> String {
        let Spread { middle, least, most } = reached;
        match self {
            Self::AtLeast(..) => format!("{middle:.3} ({least:.2}-{most:.2})"),
            Self::AtMost(_) => format!("{} ({}-{})", time(middle), time(least), time(most)),
        }
    }
}

/// A bound on a row.
#[derive(Debug, Clone)]
pub(crate) struct Goal {
    own: Case,
    bound: Bound,
    /// `None` where a row for it was not measured.
    reached: Option<Spread>,
}

impl Goal {
    /// Whether the middle round reaches it; `None` when it was not measured.
    pub(crate) fn is_met(&self) -> Option<bool> {
        Some(self.bound.is_met_by(self.reached?))
    }

    fn exactly(&self) -> Option<String> {
        Some(self.bound.exactly(self.reached?))
    }
}

const SMALL: Size = Size::ALL[0];
const LARGEST: Size = Size::ALL[3];

/// All goals: by TCP, which all have, and of memory that is mapped.
pub(crate) fn judge(rows: &[Row]) -> Vec<Goal> {
    let goal = |(own, bound): (Case, Bound)| Goal { own, bound, reached: bound.reached(rows, own) };
    by_tcp().into_iter().chain(of_views()).map(goal).collect()
}

fn by_tcp() -> Vec<(Case, Bound)> {
    use Operation::{Gather, Get, GetFresh, GetRecycled, GetUnverified, Put};
    let mut goals = Vec::new();
    let mut wish = |operation, size, other, at_least| {
        let own = Case { size, operation, who: Who::Puddle, path: Path::Tcp };
        goals.push((own, Bound::AtLeast(at_least, other)));
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

/// A view of any size is there at once. Of the largest it is a hundred times as fast as
/// the bytes come from memcached, and still ahead when both then read every byte.
fn of_views() -> Vec<(Case, Bound)> {
    let own = |operation, size| Case { size, operation, who: Who::Puddle, path: Path::Mapped };
    let at_once = Size::ALL.map(|size| (own(Operation::View, size), Bound::AtMost(50.0)));
    let ahead = [(Operation::View, 100.0), (Operation::GetAndRead, 2.5)];
    let ahead = ahead
        .map(|(operation, times)| (own(operation, LARGEST), Bound::AtLeast(times, Who::Memcached)));
    at_once.into_iter().chain(ahead).collect()
}

/// A row for each goal.
pub(crate) fn table(goals: &[Goal]) -> String {
    let row = |goal: &Goal| {
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
            goal.bound.beside(),
            goal.bound.words(),
            goal.exactly().unwrap_or_else(|| "not measured".to_owned()),
            verdict.to_owned(),
        ]
    };
    let head = ["size", "operation", "way", "beside", "goal", "reached", "met"];
    markdown(&head, &goals.iter().map(row).collect::<Vec<_>>())
}

/// Those that were missed, each in a line.
pub(crate) fn missed(goals: &[Goal]) -> Vec<String> {
    let missed = goals.iter().filter(|goal| goal.is_met() == Some(false));
    let line = |goal: &Goal| {
        let Goal { own, bound, .. } = goal;
        let beside = match bound {
            Bound::AtLeast(_, other) => format!(" beside {other}"),
            Bound::AtMost(_) => String::new(),
        };
        format!("{own}{beside}: {}, not {}", goal.exactly().unwrap_or_default(), bound.words())
    };
    missed.map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rounds::Sample;

    fn row(who: Who, operation: Operation, microseconds: [f64; 3]) -> Row {
        of_case(Case { size: SMALL, operation, who, path: Path::Tcp }, microseconds)
    }

    fn of_case(case: Case, microseconds: [f64; 3]) -> Row {
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
        let line = "RamPuddle: raw Gather, 64 KiB, TCP beside floor: 0.870 (0.83-0.93), not 0.91 x";
        assert!(missed[0].starts_with(line), "{missed:?}");
    }

    #[test]
    fn a_view_is_judged_by_its_time_and_beside_the_socket_of_memcached() {
        let case = |who, operation, path| Case { size: LARGEST, operation, who, path };
        let (view, read) = (Operation::View, Operation::GetAndRead);
        let rows = [
            of_case(case(Who::Puddle, view, Path::Mapped), [30.0, 40.0, 90.0]),
            of_case(case(Who::Puddle, read, Path::Mapped), [25_000.0; 3]),
            of_case(case(Who::Memcached, Operation::Get, Path::Unix), [3_900.0; 3]),
            of_case(case(Who::Memcached, read, Path::Unix), [75_000.0; 3]),
        ];
        let goals = judge(&rows);
        let met: Vec<bool> = goals.iter().filter_map(Goal::is_met).collect();
        assert_eq!(met, [true, false, true], "{}", table(&goals));
        let line = "RamPuddle: get, a view, 256 MiB, mapped memory beside memcached, 1 thread: \
                    97.500 (43.33-130.00), not 100.00 x as fast";
        assert_eq!(missed(&goals), [line]);
    }
}

//! Prints gets and puts side by side.

use anyhow::{Result, bail};

use crate::arguments::Filter;
use crate::case::Operation;
use crate::rounds::{Plan, Row, measure};
use crate::{peers, table};

/// Measures and prints what the filter lets through.
pub(crate) fn run(filter: &Filter) -> Result<()> {
    let plan = filter.plan();
    let largest = plan.sizes.iter().map(|size| size.0).max().unwrap_or(1);
    let (mut subjects, _) = peers::start(&filter.wanted(), largest)?;
    let rows = measure(&mut subjects, &plan);
    print(&rows, &plan);
    let broken = rows.iter().find(|row| row.case.who.is_ours() && row.problem.is_some());
    match broken.and_then(|row| Some((row.case, row.problem.as_deref()?))) {
        Some((case, problem)) => bail!("{case}: {problem}"),
        None => Ok(()),
    }
}

/// One table for each size and direction.
pub(crate) fn print(rows: &[Row], plan: &Plan) {
    for &size in &plan.sizes {
        for (direction, what) in [(Operation::Get, "reads"), (Operation::Put, "writes")] {
            let table = table::of_size(rows, size, direction);
            if !table.is_empty() {
                println!("{size}, {what}\n\n{table}");
            }
        }
    }
}

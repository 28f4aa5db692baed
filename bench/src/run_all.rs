//! `make bench`: everything in one run, judged by the goals.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::arguments::Everything;
use crate::case::{Size, Who};
use crate::cost::Cost;
use crate::goals::Goal;
use crate::links::LinksArguments;
use crate::mix::MixArguments;
use crate::peers::Skipped;
use crate::readers::Scaling;
use crate::rounds::{Plan, Row};
use crate::section::Section;
use crate::{compare, cost, document, goals, links, mix, peers, readers, rounds};

/// What a run has found.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) plan: Plan,
    pub(crate) rows: Vec<Row>,
    pub(crate) readers: Vec<Scaling>,
    pub(crate) costs: Vec<Cost>,
    pub(crate) goals: Vec<Goal>,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) links: Section,
    pub(crate) mix: Section,
}

/// Measures, prints, writes the document where it is wanted, and says by the exit
/// code whether all goals are met.
pub(crate) fn run(everything: &Everything) -> Result<ExitCode> {
    let results = measured(everything)?;
    compare::print(&results.rows, &results.plan);
    println!("readers\n\n{}", readers::table(&results.readers));
    println!("cost in the server\n\n{}", cost::table(&results.costs));
    println!("goals\n\n{}", goals::table(&results.goals));
    println!("all links at once\n\n{}", results.links.text);
    println!("small beside large\n\n{}", results.mix.text);
    for Skipped { who, reason } in &results.skipped {
        println!("skipped: {who}: {reason}");
    }
    if let Some(folder) = &everything.document {
        document::write(folder, &results)?;
        println!("written: {}", folder.join("benchmarks.md").display());
    }
    let mut missed = goals::missed(&results.goals);
    missed.extend(cost::missed(&results.costs));
    missed.extend(results.sections().flat_map(|section| section.missed.clone()));
    missed.iter().for_each(|line| println!("MISSED: {line}"));
    let is_missed = !missed.is_empty() && !everything.quick && !everything.tiny;
    let is_failed = is_missed || has_broken(&results);
    Ok(if is_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Names what was not measured to its end; whether something of ours is among it. A
/// peer that breaks is no failure, as one that is missing is none.
fn has_broken(results: &Results) -> bool {
    let of_row = |row: &Row| Some((row.case.who, row.case.to_string(), row.problem.clone()?));
    let of_readers = |it: &Scaling| {
        Some((it.who, format!("{}: {} readers", it.who, it.readers), it.problem.clone()?))
    };
    let rows = results.rows.iter().filter_map(of_row);
    let broken: Vec<_> = rows.chain(results.readers.iter().filter_map(of_readers)).collect();
    broken.iter().for_each(|(_, what, problem)| println!("FAILED: {what}: {problem}"));
    let sections: Vec<_> = results.sections().flat_map(|section| &section.broken).collect();
    sections.iter().for_each(|line| println!("FAILED: {line}"));
    broken.iter().any(|(who, ..)| who.is_ours()) || !sections.is_empty()
}

impl Results {
    fn sections(&self) -> impl Iterator<Item = &Section> {
        [&self.links, &self.mix].into_iter()
    }
}

fn measured(everything: &Everything) -> Result<Results> {
    let (plan, scaling) = (plan(everything), scaling(everything));
    let who = everything.wanted();
    let largest = plan.sizes.iter().map(|size| size.0).max().unwrap_or(1);
    let (mut subjects, skipped) = peers::start(&who, largest.max(readers::SIZE.0))?;
    let rows = rounds::measure(&mut subjects, &plan);
    let readers = readers::measure(&mut subjects, &scaling);
    let costs = if everything.tiny { Vec::new() } else { cost::measure(&mut subjects) };
    let goals = goals::judge(&rows);
    // The processors are for the links now.
    drop(subjects);
    let (links, mix) = sections(everything);
    Ok(Results { plan, rows, readers, costs, goals, skipped, links, mix })
}

fn sections(everything: &Everything) -> (Section, Section) {
    if everything.tiny {
        let skipped = Section::skipped(links::WHAT, "this was a tiny run");
        return (skipped, mix::measure(&MixArguments::tiny()));
    }
    let links = links::measure(&LinksArguments::of_bench(everything.quick));
    (links, mix::measure(&MixArguments::of_bench(everything.quick)))
}

fn plan(everything: &Everything) -> Plan {
    let (rounds, bytes, calls) = match everything {
        Everything { tiny: true, .. } => (1, 1, 1),
        Everything { quick: true, .. } => (3, 32 << 20, 500),
        _ => (9, 64 << 20, 1_000),
    };
    let sizes = if everything.tiny { &Size::ALL[..1] } else { &Size::ALL };
    let (paths, operations) = (Vec::new(), Vec::new());
    Plan { rounds, bytes, calls, sizes: sizes.to_vec(), paths, operations, is_pinned: true }
}

fn scaling(everything: &Everything) -> readers::Plan {
    let (numbers, rounds, milliseconds) = match everything {
        Everything { tiny: true, .. } => (vec![1, 2], 1, 1),
        Everything { quick: true, .. } => (vec![1, 2, 4, 8, 16], 1, 300),
        _ => (vec![1, 2, 4, 8, 16], 3, 500),
    };
    readers::Plan { numbers, rounds, time: Duration::from_millis(milliseconds) }
}

impl Everything {
    fn wanted(&self) -> Vec<Who> {
        if self.tiny {
            return vec![Who::Floor, Who::Copy, Who::Puddle];
        }
        <Who as clap::ValueEnum>::value_variants().to_vec()
    }
}

//! Small beside large: one reader of small values, and others that stream large ones,
//! from one server.

mod scene;

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};

use self::scene::Scene;
use crate::case::Size;
use crate::hosts::gatherer::{self, Times};
use crate::hosts::network;
use crate::rounds::progress;
use crate::section::Section;
use crate::statistics::Spread;
use crate::table::{markdown, time};

/// The slowest of a hundred small ones may take so many times as long as alone,
const GOAL_SMALL: f64 = 3.0;
/// while the large ones keep so much of what they reach alone.
const GOAL_STREAMS: f64 = 0.8;

/// How to run it.
#[derive(Debug, Clone, Args)]
pub(crate) struct MixArguments {
    /// Where clients and server are; everywhere unless said otherwise
    #[arg(long, value_enum, value_delimiter = ',')]
    places: Vec<Place>,
    /// The rate of a client's link, in Mbit/s
    #[arg(long, default_value_t = 400)]
    mbit: u64,
    /// How many read large values
    #[arg(long, default_value_t = 4)]
    streams: usize,
    /// What each of them reads in a round over a link
    #[arg(long, default_value = "256M")]
    size: Size,
    /// How often they read it in a round without links
    #[arg(long, default_value_t = 8)]
    repeats: usize,
    /// Seconds for which small values are read alone in a round
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Rounds
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

impl MixArguments {
    /// What `make bench` measures.
    pub(crate) fn of_bench(is_quick: bool) -> Self {
        let (mbit, streams) = (400, 4);
        let full = Self {
            places: Vec::new(),
            mbit,
            streams,
            size: Size::ALL[3],
            repeats: 8,
            seconds: 2.0,
            rounds: 3,
        };
        if is_quick {
            let (places, size) = (vec![Place::Links, Place::Loopback], Size(64 << 20));
            return Self { places, size, seconds: 1.0, rounds: 1, ..full };
        }
        full
    }

    /// The least that shows that it works.
    pub(crate) fn tiny() -> Self {
        let (places, size) = (vec![Place::Loopback], Size(1 << 20));
        let full = Self::of_bench(true);
        Self { places, size, streams: 1, repeats: 2, seconds: 0.01, ..full }
    }
}

/// Where clients and server are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Place {
    /// Each client behind a shaped link of its own, the server behind one that carries
    /// what all of them can take.
    Links,
    /// The server too behind such a link, which all share.
    OneLink,
    /// On one machine, nothing shaped.
    Loopback,
}

impl Place {
    fn words(self) -> &'static str {
        match self {
            Self::Links => "a link for each client",
            Self::OneLink => "one link for all",
            Self::Loopback => "loopback",
        }
    }

    fn has_links(self) -> bool {
        self != Self::Loopback
    }

    /// Only here nothing but the server can make the small ones wait.
    fn has_goals(self) -> bool {
        self == Self::Links
    }
}

/// What one round has found.
#[derive(Debug, Clone, Copy)]
struct Round {
    alone: Times,
    beside: Times,
    /// MB/s of all streams together.
    streams_alone: f64,
    streams_beside: f64,
}

/// One row of the table.
#[derive(Debug)]
struct Row {
    place: Place,
    rounds: Vec<Round>,
    problem: Option<String>,
}

/// Measures it all.
pub(crate) fn measure(arguments: &MixArguments) -> Section {
    let places = match &arguments.places[..] {
        [] => Place::value_variants(),
        places => places,
    };
    let missing = places.iter().any(|place| place.has_links()).then(network::missing).flatten();
    let is_there = |place: &&Place| missing.is_none() || !place.has_links();
    let rows: Vec<Row> =
        places.iter().filter(is_there).map(|&place| row(arguments, place)).collect();
    progress("");
    let skipped = missing.map(|reason| Section::skipped("small beside large over links", &reason));
    let has_links = rows.iter().any(|row| row.place.has_links());
    let control =
        if has_links { network::congestion_control() } else { "the system's own way".to_owned() };
    Section {
        text: text(arguments, &rows, &control)
            + &skipped.map(|it| format!("\n{}", it.text)).unwrap_or_default(),
        missed: rows.iter().flat_map(Row::missed).collect(),
        broken: rows.iter().filter_map(Row::broken).collect(),
    }
}

fn row(arguments: &MixArguments, place: Place) -> Row {
    let mut row = Row { place, rounds: Vec::new(), problem: None };
    let measured = Scene::open(arguments, place).and_then(|mut scene| {
        // What is only printed is measured once: over one link it takes long.
        for round in 0..if place.has_goals() { arguments.rounds } else { 1 } {
            progress(&format!("small beside large, {}, round {round}", place.words()));
            row.rounds.push(one_round(arguments, &mut scene)?);
        }
        Ok(())
    });
    row.problem = measured.err().map(|error| format!("{error:#}"));
    row
}

fn one_round(arguments: &MixArguments, scene: &mut Scene) -> Result<Round> {
    scene.small.begin()?;
    sleep(Duration::from_secs_f64(arguments.seconds));
    let alone = scene.small.end()?;
    let streams_alone = scene.stream()?;
    scene.small.begin()?;
    let streams_beside = scene.stream()?;
    let beside = scene.small.end()?;
    Ok(Round { alone, beside, streams_alone, streams_beside })
}

impl Row {
    fn spread(&self, of: impl Fn(&Round) -> f64) -> Option<Spread> {
        Spread::of(self.rounds.iter().map(of))
    }

    /// How many times as long the slowest of a hundred takes as alone.
    fn small(&self) -> Option<Spread> {
        self.spread(|round| round.beside.tail / round.alone.tail)
    }

    /// What is left of the streams.
    fn streams(&self) -> Option<Spread> {
        self.spread(|round| round.streams_beside / round.streams_alone)
    }

    fn missed(&self) -> Vec<String> {
        let judged = |what: &str, found: Option<Spread>, is_met: fn(f64) -> bool, goal: f64| {
            let found = found.filter(|found| self.place.has_goals() && !is_met(found.middle))?;
            Some(format!("small beside large: {what}: {found} times alone, not {goal}"))
        };
        let small =
            judged("p99 of the small ones", self.small(), |it| it <= GOAL_SMALL, GOAL_SMALL);
        let streams = judged("the streams", self.streams(), |it| it >= GOAL_STREAMS, GOAL_STREAMS);
        small.into_iter().chain(streams).collect()
    }

    fn broken(&self) -> Option<String> {
        let problem = self.problem.as_ref()?;
        Some(format!("small beside large, {}: {problem}", self.place.words()))
    }

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.place.words().to_owned()];
        let (Some(small), Some(streams), None) = (self.small(), self.streams(), &self.problem)
        else {
            let problem = self.problem.as_deref().unwrap_or("not measured");
            cells.push(format!("failed: {}", problem.replace('|', "/")));
            return cells;
        };
        let middle = |of: fn(&Round) -> f64| self.spread(of).map_or(f64::NAN, |it| it.middle);
        let both = |one: f64, other: f64| format!("{}, {}", time(one), time(other));
        cells.push(both(middle(|it| it.alone.middle), middle(|it| it.alone.tail)));
        cells.push(both(middle(|it| it.beside.middle), middle(|it| it.beside.tail)));
        cells.push(small.to_string());
        cells.push(format!("{:.0}", middle(|it| it.streams_alone)));
        cells.push(streams.to_string());
        cells.push(match self.missed()[..] {
            _ if !self.place.has_goals() => "-".to_owned(),
            [] => "yes".to_owned(),
            _ => "MISSED".to_owned(),
        });
        cells
    }
}

fn text(arguments: &MixArguments, rows: &[Row], control: &str) -> String {
    let head = [
        "where",
        "alone: p50, p99",
        "beside: p50, p99",
        "p99, x alone",
        "streams alone, MB/s",
        "streams, x alone",
        "met",
    ];
    format!(
        "One client gathers {} again and again, {} others read {}, all from one server; links \
         of {} Mbit/s, between them TCP by {}:\n\n{}",
        gatherer::SIZE,
        arguments.streams,
        arguments.size,
        arguments.mbit,
        control,
        markdown(&head, &rows.iter().map(Row::cells).collect::<Vec<_>>())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(place: Place, tail: f64, streams_beside: f64) -> Row {
        let times = |tail| Times { middle: 1_000.0, tail };
        let round = Round {
            alone: times(2_000.0),
            beside: times(tail),
            streams_alone: 200.0,
            streams_beside,
        };
        Row { place, rounds: vec![round; 3], problem: None }
    }

    #[test]
    fn the_small_ones_and_the_streams_have_a_goal_each_where_nothing_else_makes_them_wait() {
        assert!(row(Place::Links, 5_900.0, 170.0).missed().is_empty());
        assert_eq!(row(Place::Links, 6_100.0, 170.0).missed().len(), 1);
        assert_eq!(row(Place::Links, 6_100.0, 150.0).missed().len(), 2);
        assert!(row(Place::OneLink, 6_100.0, 150.0).missed().is_empty());
    }
}

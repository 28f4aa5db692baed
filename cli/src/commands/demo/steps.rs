//! What happened, told as it happens and as a table at the end.

use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};
use rampuddle_client::GetReport;
use serde::Serialize;

use crate::commands::get::Served;
use crate::output::{Output, escape_text};

/// One thing that happened.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    step: &'static str,
    what: String,
    bytes: Option<u64>,
    seconds: f64,
    gbytes_per_second: Option<f64>,
    served: Vec<Served>,
}

impl Step {
    /// Something that began then and ended now.
    pub(super) fn new(step: &'static str, what: String, begin: Instant) -> Self {
        Self::timed(step, what, begin.elapsed())
    }

    /// Something that took so long.
    pub(super) fn timed(step: &'static str, what: String, time: Duration) -> Self {
        let seconds = time.as_secs_f64();
        Self { step, what, bytes: None, seconds, gbytes_per_second: None, served: Vec::new() }
    }

    /// The same, with the bytes that it moved.
    pub(super) fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = Some(bytes);
        let is_measured = self.seconds > 0.0;
        self.gbytes_per_second = is_measured.then(|| bytes as f64 / 1e9 / self.seconds);
        self
    }

    /// The same, with the bytes read and who served them.
    pub(super) fn served(mut self, report: &GetReport) -> Self {
        self.served = Served::all(report);
        self.served.sort_by(|one, other| one.server.cmp(&other.server));
        self.bytes(report.bytes)
    }

    fn cells(&self) -> [String; 5] {
        let served = self
            .served
            .iter()
            .map(|served| format!("{} {}", escape_text(&served.server), megabytes(served.bytes)));
        [
            self.what.clone(),
            self.bytes.map(megabytes).unwrap_or_default(),
            format!("{:.2}", self.seconds),
            self.gbytes_per_second.map(|rate| format!("{rate:.2}")).unwrap_or_default(),
            served.collect::<Vec<_>>().join(", "),
        ]
    }
}

/// The story so far.
#[derive(Debug)]
pub(super) struct Steps {
    output: Output,
    steps: Vec<Step>,
}

impl Steps {
    /// Nothing happened yet.
    pub(super) fn new(output: Output) -> Self {
        Self { output, steps: Vec::new() }
    }

    /// Tells of a step: a line of JSON, or a remark.
    pub(super) fn add(&mut self, step: Step) -> anyhow::Result<()> {
        if self.output.json {
            self.output.json_line(&step)?;
        } else {
            self.output.remark(&format!("{} ({:.2} s)", step.what, step.seconds));
        }
        self.steps.push(step);
        Ok(())
    }

    /// All steps as a table, for people.
    pub(super) fn print_table(&self) -> anyhow::Result<()> {
        if self.output.json {
            return Ok(());
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["WHAT HAPPENED", "BYTES", "SECONDS", "GB/S", "WHO SERVED HOW MUCH"]);
        for step in &self.steps {
            table.add_row(step.cells());
        }
        for column in 1..=3 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let lines = table.lines().map(|line| line.trim_end().to_owned());
        self.output.text(&lines.collect::<Vec<_>>().join("\n"))?;
        self.output.text("Every byte came back right, with one server of three killed.")
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

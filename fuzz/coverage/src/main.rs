//! Line coverage from what a build with `-C instrument-coverage` wrote: prints
//! each file and all together, and fails below a share.
//!
//! ```text
//! rampuddle-fuzz-coverage PERCENT PROFILES BINARY[,BINARY...] FILE...
//! ```
//!
//! PROFILES is a folder of `.profraw` files. rustc writes a newer format than
//! the tools of most distributions read; this reads it without them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use llvm_profparser::{CoverageMapping, merge_profiles};

/// Lines that code came from: those run, and those not.
#[derive(Debug, Default)]
struct Lines {
    run: usize,
    missed: Vec<usize>,
}

impl Lines {
    fn percent(&self) -> f64 {
        100.0 * self.run as f64 / (self.run + self.missed.len()).max(1) as f64
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let [least, profiles, binaries, files @ ..] = &words[..] else {
        eprintln!("usage: PERCENT PROFILES BINARY[,BINARY...] FILE...");
        return ExitCode::from(2);
    };
    match measure(profiles, binaries, files) {
        Ok(lines) => judge(&lines, least.parse().unwrap_or(100.0), files.len()),
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn measure(
    profiles: &str,
    binaries: &str,
    files: &[String],
) -> Result<BTreeMap<String, Lines>, String> {
    let folder = fs::read_dir(profiles).map_err(|error| format!("{profiles}: {error}"))?;
    let raw: Vec<PathBuf> = folder
        .filter_map(|file| Some(file.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "profraw"))
        .collect();
    let merged = merge_profiles(&raw).map_err(|error| format!("the profiles: {error}"))?;
    let binaries: Vec<PathBuf> = binaries.split(',').map(PathBuf::from).collect();
    let mapping = CoverageMapping::new(&binaries, &merged, false)
        .map_err(|error| format!("the binaries: {error}"))?;
    let report = mapping.generate_report().map_err(|error| format!("the report: {error}"))?;
    let mut all = BTreeMap::new();
    for (path, hits) in &report.files {
        let Some(name) = files.iter().find(|name| path.ends_with(Path::new(name))) else {
            continue;
        };
        let source = fs::read_to_string(path).map_err(|error| format!("{path:?}: {error}"))?;
        let lines: &mut Lines = all.entry(name.clone()).or_default();
        for line in 1..=source.lines().count() {
            match hits.hits_for_line(line) {
                Some(0) => lines.missed.push(line),
                Some(_) => lines.run += 1,
                None => {}
            }
        }
    }
    Ok(all)
}

fn judge(lines: &BTreeMap<String, Lines>, least: f64, files: usize) -> ExitCode {
    let mut sum = Lines::default();
    for (name, lines) in lines {
        let all = lines.run + lines.missed.len();
        println!(
            "{name:32} {:4} of {all:4} lines, {:5.1} %, not: {:?}",
            lines.run,
            lines.percent(),
            lines.missed
        );
        sum.run += lines.run;
        sum.missed.extend(&lines.missed);
    }
    let all = sum.run + sum.missed.len();
    println!("line coverage of the decoder: {} of {all} lines, {:.1} %", sum.run, sum.percent());
    let is_whole = lines.len() == files && sum.run > 0;
    if !is_whole {
        eprintln!("{} of {files} files were seen", lines.len());
    }
    if is_whole && sum.percent() >= least { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

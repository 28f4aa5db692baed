//! The local disk, past the memory that the system keeps of it, measured by fio.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::ThesisArguments;
use crate::case::Size;
use crate::child::installed;
use crate::rounds::progress;

/// Reads under way at once, where a whole file is read.
const DEPTH: usize = 16;
const BLOCK: &str = "1M";

/// What one size takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// Microseconds of the middle read.
    pub(super) middle: f64,
    /// Of the slowest of a hundred; none where the whole file was read at once.
    pub(super) tail: Option<f64>,
}

/// What was found; nothing, where the disk was not measured.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// By size.
    pub(super) times: Vec<(Size, Times)>,
    /// Seconds until the last of so many readers had the file.
    pub(super) readers: Vec<(usize, f64)>,
}

impl Disk {
    /// What that size takes.
    pub(super) fn of(&self, size: Size) -> Option<Times> {
        self.times.iter().find(|it| it.0 == size).map(|it| it.1)
    }
}

/// Measures reads of each size one after the other, and many readers of one file.
pub(super) fn measure(arguments: &ThesisArguments) -> Result<Disk> {
    let fio =
        installed("fio").context("fio is not installed: deploy/bench-peers.sh installs it")?;
    let folder = TempDir::new_in(&arguments.folder)?;
    let file = Fio { fio: &fio, file: &folder.path().join("file"), size: arguments.size };
    progress("the local disk");
    file.run(&["--rw=write", &format!("--bs={BLOCK}"), "--end_fsync=1"])?;
    let mut disk = Disk::default();
    for size in arguments.sizes() {
        let times = if size == arguments.size {
            // Of several rounds the middle one.
            let mut rounds: Vec<f64> =
                (0..arguments.rounds).map(|_| file.whole(1)).collect::<Result<_>>()?;
            rounds.sort_by(f64::total_cmp);
            Times { middle: rounds[rounds.len() / 2] * 1e6, tail: None }
        } else {
            file.one_by_one(size, if arguments.tiny { 0.05 } else { 3.0 })?
        };
        disk.times.push((size, times));
    }
    for &readers in &arguments.readers {
        disk.readers.push((readers, file.whole(readers)?));
    }
    Ok(disk)
}

struct Fio<'a> {
    fio: &'a Path,
    file: &'a Path,
    size: Size,
}

impl Fio<'_> {
    /// Seconds until the last of so many readers had the whole file.
    fn whole(&self, readers: usize) -> Result<f64> {
        let said = self.run(&[
            "--rw=read",
            &format!("--bs={BLOCK}"),
            "--ioengine=libaio",
            &format!("--iodepth={DEPTH}"),
            &format!("--numjobs={readers}"),
            "--group_reporting",
        ])?;
        said.seconds(readers * self.size.0)
    }

    /// Reads at random places, the next one when one is done.
    fn one_by_one(&self, size: Size, seconds: f64) -> Result<Times> {
        let (bytes, time) =
            (format!("--bs={}", size.0), format!("--runtime={:.0}ms", seconds * 1e3));
        let said =
            self.run(&["--rw=randread", "--ioengine=psync", &bytes, &time, "--time_based"])?;
        let (middle, tail) = (said.percentile("50.000000%")?, said.percentile("99.000000%")?);
        Ok(Times { middle, tail: Some(tail) })
    }

    fn run(&self, more: &[&str]) -> Result<Terse> {
        let mut command = Command::new(self.fio);
        command.args(["--name=bench", "--direct=1", "--output-format=terse", "--terse-version=3"]);
        command.arg(format!("--filename={}", self.file.display()));
        command.arg(format!("--size={}", self.size.0)).args(more);
        let output = command.output()?;
        let (said, wrong) = (output.stdout, String::from_utf8_lossy(&output.stderr));
        let said = Terse(String::from_utf8_lossy(&said).trim().to_owned());
        ensure!(output.status.success(), "fio: {} {}", said.0, wrong.trim());
        Ok(said)
    }
}

/// A line of figures, as fio's third version of its terse form has them.
struct Terse(String);

impl Terse {
    fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.lines().next_back().unwrap_or_default().split(';')
    }

    /// How long it read, of so many bytes; it says KiB/s more exactly than milliseconds.
    fn seconds(&self, bytes: usize) -> Result<f64> {
        let rate: f64 = self.fields().nth(6).context("no rate")?.parse()?;
        ensure!(rate > 0.0, "fio read nothing");
        Ok(bytes as f64 / 1024.0 / rate)
    }

    /// Microseconds; those of reads come first.
    fn percentile(&self, name: &str) -> Result<f64> {
        let found = self.fields().find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        Ok(found.with_context(|| format!("no percentile {name}"))?.parse()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_fio_is_read() {
        let line = "3;fio-3.33;r;0;0;262144;2048000;2000;128;14;720;37.7;87.0;3569;13022;7705.4;\
                    1323.6;1.000000%=3981;50.000000%=7503;99.000000%=12124;50.000000%=0";
        let line = Terse(format!("fio: a warning\n{line}"));
        assert_eq!(line.seconds(256 << 20).unwrap(), 0.128);
        assert_eq!(line.percentile("50.000000%").unwrap(), 7503.0);
        assert_eq!(line.percentile("99.000000%").unwrap(), 12124.0);
        assert!(line.percentile("98.000000%").is_err());
        assert!(Terse("3;fio".to_owned()).seconds(1).is_err());
    }
}

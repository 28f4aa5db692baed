//! What it was measured on.

use std::fs;
use std::thread::available_parallelism;

use crate::child::first_line;
use crate::{memcached, mooncake, puddle, redis};

/// A line for each thing that figures depend on.
pub(crate) fn facts() -> Vec<(&'static str, String)> {
    let unknown = || "not there".to_owned();
    let processors = available_parallelism().map_or(0, usize::from);
    let memory = field("/proc/meminfo", "MemTotal").and_then(|text| {
        let kib: f64 = text.trim_end_matches(" kB").parse().ok()?;
        Some(format!("{:.0} GiB", kib / f64::from(1 << 20)))
    });
    let kernel = rustix::system::uname();
    let kernel = format!("Linux {}", kernel.release().to_string_lossy());
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(unknown);
    vec![
        ("date", first_line("date", &["-u", "+%Y-%m-%d"]).unwrap_or_else(unknown)),
        ("processors", format!("{processors}, {processor}")),
        ("memory", memory.unwrap_or_else(unknown)),
        ("kernel", kernel),
        ("RamPuddle", puddle::version().unwrap_or_else(unknown)),
        ("memcached", memcached::version().unwrap_or_else(unknown)),
        ("Redis", redis::version().unwrap_or_else(unknown)),
        ("Mooncake Store", mooncake::version().unwrap_or_else(unknown)),
    ]
}

/// The first field of that name in a file of `NAME: VALUE`.
fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

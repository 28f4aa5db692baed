//! Memory is added up and printed at start, and refused when it cannot fit.

use std::fs;
use std::path::Path;

use rampuddle_harness::{ServeOptions, ServerProcess, Transport, refused_start};
use rampuddle_protocol::limits::MIB;

use crate::assert_status;

/// The number in a line of the sum, in MiB.
fn mib_of(line: &str) -> f64 {
    let before_unit = line.split(" MiB").next().unwrap_or_default();
    let number = before_unit.split_whitespace().next_back().and_then(|word| word.parse().ok());
    number.unwrap_or_else(|| panic!("no MiB in \"{line}\""))
}

#[test]
fn the_sum_that_is_printed_at_start_adds_up() {
    let server = ServerProcess::with_pool_mib(48);
    let said = server.stderr();
    let line = |name: &str| {
        let found = said.lines().find(|line| line.trim_start().starts_with(name));
        mib_of(found.unwrap_or_else(|| panic!("no line \"{name}\" in:\n{said}")))
    };
    let parts = [line("pool"), line("index"), line("fixed"), line("connections")];
    assert!((parts[0] - 48.0).abs() < 0.05, "{said}");
    let sum: f64 = parts.iter().sum();
    assert!((sum - line("in all")).abs() < 0.3, "{parts:?} and {}\n{said}", line("in all"));
}

#[test]
fn a_server_stays_within_the_sum() {
    let server = ServerProcess::with_pool_mib(48);
    let mut client = server.client(Transport::Tcp);
    for number in 0..12_u8 {
        assert_status!(client.create(&[number], 4 * MIB, &vec![number; 4 * MIB as usize]), Ok);
    }
    let many: Vec<_> = (0..100).map(|_| server.client(Transport::Tcp)).collect();
    let resident = server.resident_bytes();
    let bound = (48 + 64 + 16) * MIB + 64 * 1024 * 101;
    assert!(resident <= bound, "{resident} bytes in RAM, the bound is {bound}");
    drop(many);
}

#[test]
fn a_pool_larger_than_the_machine_is_refused_with_both_numbers() {
    let options = ServeOptions {
        pool_bytes: 32 << 40,
        arguments: vec!["--no-prefault".to_owned()],
        ..ServeOptions::with_pool_mib(1)
    };
    let (code, said) = refused_start(&options);
    assert_eq!(code, 2, "{said}");
    let meminfo = fs::read_to_string("/proc/meminfo").expect("Linux");
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let has = format!("{:.1} GiB", kib.expect("MemTotal") as f64 / f64::from(1 << 20));
    assert!(said.contains(&has), "what the machine has ({has}) is in:\n{said}");
    assert!(said.contains("needs up to 33.0 TiB"), "what it would need is in:\n{said}");
}

#[test]
fn a_pool_that_is_no_whole_number_of_pages_is_refused() {
    for pool_bytes in [0, 1, 65_535, 100_000] {
        let options = ServeOptions { pool_bytes, ..ServeOptions::with_pool_mib(1) };
        let (code, said) = refused_start(&options);
        assert_eq!(code, 2, "{pool_bytes}: {said}");
    }
}

/// A control group of this test's own, of either version; removed when dropped.
struct Group(std::path::PathBuf, &'static str);

impl Group {
    fn new(limit: u64) -> Option<Self> {
        let name = format!("rampuddle-test-{}", std::process::id());
        let versions =
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        versions.into_iter().find_map(|(root, file)| {
            let group = Self(Path::new(root).join(&name), file);
            fs::create_dir(&group.0).ok()?;
            fs::write(group.0.join(group.1), limit.to_string()).ok()?;
            Some(group)
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_pool_larger_than_the_control_group_is_refused_with_both_numbers() {
    const LIMIT: u64 = 512 << 20;
    let Some(group) = Group::new(LIMIT) else {
        println!(
            "skipped: a control group of memory can only be made by root, in a writable /sys/fs/cgroup"
        );
        return;
    };
    let enter = format!("echo $$ > {}", group.0.join("cgroup.procs").display());
    let options = ServeOptions {
        shell: Some(enter),
        arguments: vec!["--no-prefault".to_owned()],
        ..ServeOptions::with_pool_mib(600)
    };
    let (code, said) = refused_start(&options);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("needs up to 810.2 MiB") && said.contains("512.0 MiB"), "{said}");
    // One that fits starts.
    let server = ServerProcess::start(ServeOptions { pool_bytes: 16 << 20, ..options });
    server.client(Transport::Tcp).ping();
}

//! How much memory and disk there is, for defaults and advice. Whether a server
//! fits is decided by the server itself.

use std::fs;
use std::path::Path;

const KIB: u64 = 1 << 10;

/// The memory of this machine, or of its control group when that has less.
pub(crate) fn memory_bytes() -> u64 {
    let machine = meminfo("MemTotal:").unwrap_or(0);
    group_limit().map_or(machine, |limit| limit.min(machine))
}

/// The memory that may be taken now.
pub(crate) fn available_bytes() -> Option<u64> {
    let machine = meminfo("MemAvailable:")?;
    Some(group_limit().map_or(machine, |limit| limit.min(machine)))
}

/// The space for new files in a directory.
pub(crate) fn free_disk_bytes(directory: &Path) -> Option<u64> {
    let volume = rustix::fs::statvfs(directory).ok()?;
    Some(volume.f_bavail.saturating_mul(volume.f_frsize))
}

fn meminfo(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * KIB)
}

/// Inside a container, its own group is mounted as the root.
fn group_limit() -> Option<u64> {
    let files = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limits = files.into_iter().filter_map(|file| fs::read_to_string(file).ok());
    limits.filter_map(|text| text.trim().parse().ok()).min()
}

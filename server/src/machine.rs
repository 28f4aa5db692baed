//! How much memory there is.

use std::fs;
use std::path::{Path, PathBuf};

use rampuddle_protocol::limits::KIB;

/// The memory limits of the machine and of the control groups that this process
/// is in. What cannot be read limits nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Machine {
    total_bytes: Option<u64>,
    available_bytes: Option<u64>,
    cgroup_bytes: Option<u64>,
}

impl Machine {
    /// Reads the limits.
    pub(crate) fn read() -> Self {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            total_bytes: meminfo_bytes(&meminfo, "MemTotal:"),
            available_bytes: meminfo_bytes(&meminfo, "MemAvailable:"),
            cgroup_bytes: cgroup_bytes(),
        }
    }

    /// The first limit that `needed` bytes in all, or `pool` bytes at once, do
    /// not fit: its name and its bytes.
    pub(crate) fn limit_below(&self, needed: u64, pool: u64) -> Option<(&'static str, u64)> {
        [
            ("the memory of this machine", self.total_bytes, needed),
            ("the memory limit of its control group", self.cgroup_bytes, needed),
            ("the memory that is available on this machine now", self.available_bytes, pool),
        ]
        .into_iter()
        .find_map(|(limit, bytes, wanted)| Some((limit, bytes.filter(|bytes| wanted > *bytes)?)))
    }
}

fn meminfo_bytes(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * KIB)
}

/// The lowest limit of the groups that the process is in, of either version.
fn cgroup_bytes() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().filter_map(group_limit).min()
}

fn group_limit(line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let (root, file) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max"),
        _ if controllers.split(',').any(|one| one == "memory") => {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return None,
    };
    // Inside a container the group's own directory is mounted as the root.
    let own = Path::new(root).join(path.trim_start_matches('/'));
    let limits = own.ancestors().take_while(|group| group.starts_with(root));
    limits.filter_map(|group| read_limit(&group.join(file))).min()
}

fn read_limit(path: &PathBuf) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_named_when_it_is_too_low_and_not_before() {
        let machine = Machine {
            total_bytes: Some(1_000),
            available_bytes: Some(600),
            cgroup_bytes: Some(800),
        };
        assert_eq!(machine.limit_below(700, 500), None);
        assert_eq!(machine.limit_below(801, 500).unwrap().1, 800);
        assert_eq!(machine.limit_below(1_001, 500).unwrap().1, 1_000);
        assert_eq!(machine.limit_below(700, 601).unwrap().1, 600);
        assert_eq!(Machine::default().limit_below(u64::MAX, u64::MAX), None);
    }

    #[test]
    fn the_memory_of_this_machine_is_read() {
        let machine = Machine::read();
        assert!(machine.total_bytes.unwrap() > machine.available_bytes.unwrap());
    }
}

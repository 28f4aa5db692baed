//! How much memory there is.

use std::fs;
use std::path::Path;

use rampuddle_protocol::limits::{KIB, MIB};

/// A huge page.
pub(crate) const HUGE_PAGE_BYTES: u64 = 2 * MIB;

/// The memory limits of the machine and of the control groups that this process
/// is in. What cannot be read limits nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Machine {
    total_bytes: Option<u64>,
    available_bytes: Option<u64>,
    /// Reserved pages of 2 MiB that nobody uses.
    huge_bytes: Option<u64>,
    cgroup: Option<Group>,
}

/// The control group with the least memory left.
#[derive(Debug, Clone, Copy)]
struct Group {
    limit_bytes: u64,
    /// What is left of the limit when caches are given up.
    left_bytes: u64,
}

impl Machine {
    /// Reads the limits.
    pub(crate) fn read() -> Self {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            total_bytes: meminfo_kib(&meminfo, "MemTotal:").map(|kib| kib * KIB),
            available_bytes: meminfo_kib(&meminfo, "MemAvailable:").map(|kib| kib * KIB),
            huge_bytes: free_huge_bytes(&meminfo),
            cgroup: smallest_group(),
        }
    }

    /// The first limit that a server does not fit: its name and its bytes.
    /// `pool` bytes are taken at once, from the reserved huge pages when `huge`;
    /// `needed` bytes in all, pool included, over time.
    pub(crate) fn limit_below(
        &self,
        needed: u64,
        pool: u64,
        huge: bool,
    ) -> Option<(&'static str, u64)> {
        // Reserved huge pages are neither available to others nor charged to
        // the group's memory.
        let (ordinary, at_once) = if huge { (needed - pool, 0) } else { (needed, pool) };
        let group = self.cgroup;
        [
            ("the memory of this machine", self.total_bytes, needed),
            ("the memory in huge pages that are free", self.huge_bytes.filter(|_| huge), pool),
            ("the memory limit of its control group", group.map(|one| one.limit_bytes), ordinary),
            ("what is left of that limit", group.map(|one| one.left_bytes), ordinary),
            ("the memory that is available on this machine now", self.available_bytes, at_once),
        ]
        .into_iter()
        .find_map(|(limit, bytes, wanted)| Some((limit, bytes.filter(|bytes| wanted > *bytes)?)))
    }
}

fn free_huge_bytes(meminfo: &str) -> Option<u64> {
    let size = fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    let pages = match size {
        Ok(pages) => pages.trim().parse().ok()?,
        Err(_) => meminfo_kib(meminfo, "HugePages_Free:")?,
    };
    Some(pages * HUGE_PAGE_BYTES)
}

/// The number behind a name; most are in KiB.
fn meminfo_kib(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

/// Of the groups that the process is in, of either version and with those
/// above, the one that has least left.
fn smallest_group() -> Option<Group> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().filter_map(group_of).min_by_key(|group| group.left_bytes)
}

fn group_of(line: &str) -> Option<Group> {
    let mut fields = line.splitn(3, ':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let (root, limit, usage) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max", "memory.current"),
        _ if controllers.split(',').any(|one| one == "memory") => {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
        }
        _ => return None,
    };
    // Inside a container the group's own directory is mounted as the root.
    let own = Path::new(root).join(path.trim_start_matches('/'));
    let groups = own.ancestors().take_while(|group| group.starts_with(root));
    groups
        .filter_map(|group| {
            let limit_bytes = read_number(&group.join(limit))?;
            let used = read_number(&group.join(usage)).unwrap_or(0);
            let left_bytes = limit_bytes.saturating_sub(used.saturating_sub(cache_bytes(group)));
            Some(Group { limit_bytes, left_bytes })
        })
        .min_by_key(|group| group.left_bytes)
}

/// What a group uses for files that can be read again.
fn cache_bytes(group: &Path) -> u64 {
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let named = |name: &str| {
        let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.parse::<u64>().ok()
    };
    let both = |active: &str, inactive: &str| Some(named(active)? + named(inactive)?);
    both("total_active_file", "total_inactive_file")
        .or_else(|| both("active_file", "inactive_file"))
        .unwrap_or(0)
}

fn read_number(path: &Path) -> Option<u64> {
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
            huge_bytes: Some(400),
            cgroup: Some(Group { limit_bytes: 800, left_bytes: 750 }),
        };
        let limit = |needed, pool, huge| machine.limit_below(needed, pool, huge).map(|two| two.1);
        assert_eq!(limit(700, 500, false), None);
        assert_eq!(limit(751, 500, false), Some(750));
        assert_eq!(limit(801, 500, false), Some(800));
        assert_eq!(limit(1_001, 500, false), Some(1_000));
        assert_eq!(limit(700, 601, false), Some(600));
        assert_eq!(limit(900, 400, true), None, "huge pages are nobody else's");
        assert_eq!(limit(900, 401, true), Some(400));
        assert_eq!(Machine::default().limit_below(u64::MAX, u64::MAX, false), None);
    }

    #[test]
    fn the_memory_of_this_machine_is_read() {
        let machine = Machine::read();
        assert!(machine.total_bytes.unwrap() > machine.available_bytes.unwrap());
    }
}

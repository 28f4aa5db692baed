//! One processor for who asks, the others for who answers.
//!
//! Left alone, the scheduler now and then puts both on one processor, where a small
//! call takes a third of the time: figures of the same program then differ by more
//! than those of different programs.

use std::fs;

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

use crate::subject::Processes;

/// The processors of this machine, as far as this process may use them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Processors {
    all: CpuSet,
    /// For clients and for servers; `None` where there is only one, or where
    /// everybody is left alone.
    apart: Option<(CpuSet, CpuSet)>,
}

impl Processors {
    /// The first for clients, the others for servers.
    pub(crate) fn new(is_pinned: bool) -> Self {
        let all = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
        let first = (0..CpuSet::MAX_CPU).find(|&number| all.is_set(number));
        let apart = first.filter(|_| is_pinned && all.count() > 1).map(|first| {
            let (mut client, mut servers) = (CpuSet::new(), all);
            client.set(first);
            servers.unset(first);
            (client, servers)
        });
        Self { all, apart }
    }

    /// Puts this thread and the servers apart.
    pub(crate) fn part(&self, processes: &Processes) {
        let Some((client, server)) = &self.apart else { return };
        set(None, client);
        processes.servers.iter().flat_map(|&id| threads(id)).for_each(|id| set(Some(id), server));
    }

    /// Lets this thread, what it starts and the servers use all of them.
    pub(crate) fn join(&self, processes: &Processes) {
        if self.apart.is_some() {
            set(None, &self.all);
            processes
                .servers
                .iter()
                .flat_map(|&id| threads(id))
                .for_each(|id| set(Some(id), &self.all));
        }
    }
}

fn threads(process: u32) -> impl Iterator<Item = Pid> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let number = |name: &str| name.parse().ok().and_then(Pid::from_raw);
    threads.filter_map(move |thread| number(thread.file_name().to_str()?))
}

/// Where it is refused things go on, only with more noise.
fn set(thread: Option<Pid>, processors: &CpuSet) {
    let _ = sched_setaffinity(thread, processors);
}

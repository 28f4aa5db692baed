//! What a client has done, as numbers to look at.

use std::fmt;
use std::time::Duration;

/// What a client and its clones have done since it was made. Numbers only grow.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// The operations on objects, one entry for each kind.
    pub operations: Vec<OperationMetrics>,
    /// Bytes of the objects that were put, counted once for all their copies.
    pub bytes_written: u64,
    /// Bytes of objects that were given to readers.
    pub bytes_read: u64,
    /// Requests that were sent again to the same server.
    pub retries: u64,
    /// Reads that went on at another server, because one failed.
    pub failovers: u64,
    /// Inline objects, block tables and blocks that a server gave, and that were
    /// not as they were written.
    pub checksum_failures: u64,
    /// Connections made, handshake included.
    pub connections_opened: u64,
}

/// The operations of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperationMetrics {
    /// Which.
    pub kind: OperationKind,
    pub(super) by_outcome: [u64; OperationOutcome::ALL.len()],
    /// How long those took that were not given up.
    pub latency: Latency,
}

/// How long operations took, within 1 %.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Latency {
    /// How many there were.
    pub count: u64,
    /// Half of them took at most this.
    pub p50: Duration,
    /// Nine in ten took at most this.
    pub p90: Duration,
    /// Ninety-nine in a hundred took at most this.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

/// An operation on objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(usize)]
pub enum OperationKind {
    /// [`Client::put`](crate::Client::put).
    Put,
    /// A whole object is read: [`Client::get`](crate::Client::get) and its likes.
    Get,
    /// A part of one is read.
    GetRange,
    /// [`Client::get_ranges`](crate::Client::get_ranges), once for all of them.
    GetRanges,
    /// [`Client::stat`](crate::Client::stat).
    Stat,
    /// [`Client::locate`](crate::Client::locate).
    Locate,
    /// [`Client::list`](crate::Client::list); its latency is what
    /// [`Listing::next`](crate::Listing::next) took in all.
    List,
    /// [`Client::delete`](crate::Client::delete).
    Delete,
    /// [`Client::compare`](crate::Client::compare). Nothing is read of the object.
    Compare,
    /// [`Client::verify`](crate::Client::verify), once for all objects; its latency is
    /// what [`Verification::next`](crate::Verification::next) took in all. What it reads
    /// goes to no reader, and is not among [`Metrics::bytes_read`].
    Verify,
    /// [`Client::orphans`](crate::Client::orphans).
    Orphans,
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(usize)]
pub enum OperationOutcome {
    /// It did what it was to do.
    Done,
    /// There was no such object.
    Absent,
    /// With fewer copies than wanted, which a compared object may have, too; or for
    /// what looks at all servers (a listing, verify, orphans): not complete.
    Short,
    /// Whether there is such an object, or whether the write was applied, could
    /// not be said.
    Unknown,
    /// Any other error.
    Failed,
    /// Its caller gave it up.
    Abandoned,
}

impl OperationKind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Put,
        Self::Get,
        Self::GetRange,
        Self::GetRanges,
        Self::Stat,
        Self::Locate,
        Self::List,
        Self::Delete,
        Self::Compare,
        Self::Verify,
        Self::Orphans,
    ];
}

impl OperationOutcome {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Done, Self::Absent, Self::Short, Self::Unknown, Self::Failed, Self::Abandoned];
}

impl fmt::Display for OperationKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::GetRange => "get_range",
            Self::GetRanges => "get_ranges",
            Self::Stat => "stat",
            Self::Locate => "locate",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Compare => "compare",
            Self::Verify => "verify",
            Self::Orphans => "orphans",
        })
    }
}

impl fmt::Display for OperationOutcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Done => "done",
            Self::Absent => "absent",
            Self::Short => "short",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
        })
    }
}

impl Metrics {
    /// The operations of one kind.
    pub fn of(&self, kind: OperationKind) -> &OperationMetrics {
        &self.operations[kind as usize]
    }
}

impl OperationMetrics {
    /// How many ended so.
    pub fn count(&self, outcome: OperationOutcome) -> u64 {
        self.by_outcome[outcome as usize]
    }

    /// How many ended, however.
    pub fn total(&self) -> u64 {
        self.by_outcome.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_outcomes_lie_where_their_numbers_say() {
        for (index, kind) in OperationKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index, "{kind}");
        }
        for (index, outcome) in OperationOutcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index, "{outcome}");
        }
    }
}

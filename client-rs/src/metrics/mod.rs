//! What a client counts of its own work.
//!
//! Counters are atomic; a finished operation takes one lock for a moment, to
//! enter its latency. Together that costs some 100 ns for each operation on an
//! object, and 30 KiB of memory for each kind of operation.

mod latency;
mod snapshot;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use self::latency::Latencies;
pub use self::snapshot::{Latency, Metrics, OperationKind, OperationMetrics, OperationOutcome};
use crate::client::Client;

/// What all operations of a client count into.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    operations: [Operations; OperationKind::ALL.len()],
    bytes_written: AtomicU64,
    bytes_read: AtomicU64,
    failovers: AtomicU64,
    checksum_failures: AtomicU64,
    connections_opened: AtomicU64,
}

/// The operations of one kind.
#[derive(Debug, Default)]
struct Operations {
    by_outcome: [AtomicU64; OperationOutcome::ALL.len()],
    latencies: Latencies,
}

impl Counters {
    /// An operation that is over. Of one given up by its caller nobody knows how
    /// long it would have taken.
    pub(crate) fn ended(&self, kind: OperationKind, outcome: OperationOutcome, took: Duration) {
        let operations = &self.operations[kind as usize];
        add(&operations.by_outcome[outcome as usize], 1);
        if outcome != OperationOutcome::Abandoned {
            operations.latencies.enter(took);
        }
    }

    pub(crate) fn written(&self, bytes: u64) {
        add(&self.bytes_written, bytes);
    }

    pub(crate) fn read(&self, bytes: u64) {
        add(&self.bytes_read, bytes);
    }

    /// A read goes on at another server, because one failed.
    pub(crate) fn failed_over(&self) {
        add(&self.failovers, 1);
    }

    /// A server gave bytes that are not those that were written.
    pub(crate) fn found_damaged(&self) {
        add(&self.checksum_failures, 1);
    }

    /// A handshake was done.
    pub(crate) fn connected(&self) {
        add(&self.connections_opened, 1);
    }
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

impl Client {
    /// What this client and its clones have done so far. Costs a walk over a few
    /// thousand numbers for each kind of operation: fit for once a second.
    pub fn metrics(&self) -> Metrics {
        let core = self.core();
        let Counters {
            operations,
            bytes_written,
            bytes_read,
            failovers,
            checksum_failures,
            connections_opened,
        } = &core.servers.access().counters;
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let of_kind = |(kind, operations): (OperationKind, &Operations)| OperationMetrics {
            kind,
            by_outcome: operations.by_outcome.each_ref().map(now),
            latency: operations.latencies.snapshot(),
        };
        Metrics {
            operations: OperationKind::ALL.into_iter().zip(operations).map(of_kind).collect(),
            bytes_written: now(bytes_written),
            bytes_read: now(bytes_read),
            retries: core.retries.retries(),
            failovers: now(failovers),
            checksum_failures: now(checksum_failures),
            connections_opened: now(connections_opened),
        }
    }
}

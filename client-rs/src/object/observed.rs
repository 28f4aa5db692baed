//! Operations as they are seen from outside: a span for each while somebody
//! listens, and numbers for [`Client::metrics`](crate::Client::metrics).
//!
//! The spans are called as the operation (`put`, `get`, `get_range`,
//! `get_ranges`, `stat`, `locate`, `list`, `delete`, `compare`, `verify`, `orphans`),
//! at level DEBUG, with the fields `name` (escaped; of `get_ranges` the first one's,
//! of `list` and `verify` the prefix), `bytes` and `outcome`. While nobody listens a
//! span costs one load.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{Instrument as _, Span, debug_span, field};

use super::orphans::Orphans;
use super::report::{Comparison, DeleteReport, GetReport, Located, ObjectStat, PutReport, Value};
use crate::client::Core;
use crate::error::Error;
use crate::metrics::{Counters, OperationKind, OperationOutcome};
use crate::server::Access;

/// An operation that has begun. Dropped before its end it was given up.
#[derive(Debug)]
pub(super) struct Observation {
    kind: OperationKind,
    span: Span,
    /// For the counters, which outlive the client's handle.
    access: Arc<Access>,
    /// Time in which the operation itself worked, as far as that is over.
    took: Duration,
    is_over: bool,
}

/// What an operation returns, as its observer sees it.
pub(super) trait Judged {
    fn outcome(&self) -> OperationOutcome;

    /// Bytes of the object that were moved.
    fn bytes(&self) -> Option<u64> {
        None
    }
}

/// Does an operation, and notes how it ends.
pub(super) async fn observed<T: Judged>(
    core: &Core,
    kind: OperationKind,
    name: &[u8],
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let mut observation = Observation::begin(core, kind, name);
    let begin = Instant::now();
    let result = work.instrument(observation.span()).await;
    observation.worked(begin.elapsed());
    match &result {
        Ok(done) => observation.end(done.outcome(), done.bytes()),
        Err(error) => observation.end(outcome_of(error), None),
    }
    result
}

impl Observation {
    pub(super) fn begin(core: &Core, kind: OperationKind, name: &[u8]) -> Self {
        let (span, access) = (span_of(kind, name), Arc::clone(core.servers.access()));
        Self { kind, span, access, took: Duration::ZERO, is_over: false }
    }

    /// In which its work goes on.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Notes that so much time went into it.
    pub(super) fn worked(&mut self, took: Duration) {
        self.took += took;
    }

    /// Notes the end; only the first one counts.
    pub(super) fn end(&mut self, outcome: OperationOutcome, bytes: Option<u64>) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let counters = self.counters();
        counters.ended(self.kind, outcome, self.took);
        if let Some(bytes) = bytes {
            match self.kind {
                OperationKind::Put => counters.written(bytes),
                _ => counters.read(bytes),
            }
            self.span.record("bytes", bytes);
        }
        self.span.record("outcome", field::display(outcome));
    }

    fn counters(&self) -> &Counters {
        &self.access.counters
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        self.end(OperationOutcome::Abandoned, None);
    }
}

/// How an operation ended that failed.
pub(super) fn outcome_of(error: &Error) -> OperationOutcome {
    match error {
        Error::Unknown { .. } | Error::Indeterminate { .. } => OperationOutcome::Unknown,
        _ => OperationOutcome::Failed,
    }
}

fn span_of(kind: OperationKind, name: &[u8]) -> Span {
    macro_rules! span {
        ($word:literal) => {
            debug_span!(
                $word,
                name = %name.escape_ascii(),
                bytes = field::Empty,
                outcome = field::Empty
            )
        };
    }
    match kind {
        OperationKind::Put => span!("put"),
        OperationKind::Get => span!("get"),
        OperationKind::GetRange => span!("get_range"),
        OperationKind::GetRanges => span!("get_ranges"),
        OperationKind::Stat => span!("stat"),
        OperationKind::Locate => span!("locate"),
        OperationKind::List => span!("list"),
        OperationKind::Delete => span!("delete"),
        OperationKind::Compare => span!("compare"),
        OperationKind::Verify => span!("verify"),
        OperationKind::Orphans => span!("orphans"),
    }
}

impl<T: Judged> Judged for Option<T> {
    fn outcome(&self) -> OperationOutcome {
        self.as_ref().map_or(OperationOutcome::Absent, T::outcome)
    }

    fn bytes(&self) -> Option<u64> {
        self.as_ref().and_then(T::bytes)
    }
}

/// Of many: the first error decides, then whether there is any object.
impl<T: Judged> Judged for Vec<Result<T, Error>> {
    fn outcome(&self) -> OperationOutcome {
        let first = self.iter().find_map(|result| result.as_ref().err());
        let is_absent = |one: &Result<T, Error>| {
            one.as_ref().is_ok_and(|one| one.outcome() == OperationOutcome::Absent)
        };
        match first {
            Some(error) => outcome_of(error),
            None if !self.is_empty() && self.iter().all(is_absent) => OperationOutcome::Absent,
            None => OperationOutcome::Done,
        }
    }

    fn bytes(&self) -> Option<u64> {
        Some(self.iter().flatten().filter_map(T::bytes).sum())
    }
}

impl Judged for PutReport {
    fn outcome(&self) -> OperationOutcome {
        if self.is_short() { OperationOutcome::Short } else { OperationOutcome::Done }
    }

    fn bytes(&self) -> Option<u64> {
        Some(self.bytes)
    }
}

impl Judged for DeleteReport {
    fn outcome(&self) -> OperationOutcome {
        match (self.is_short(), self.existed) {
            (true, _) => OperationOutcome::Short,
            (false, true) => OperationOutcome::Done,
            (false, false) => OperationOutcome::Absent,
        }
    }
}

impl Judged for Value {
    fn outcome(&self) -> OperationOutcome {
        OperationOutcome::Done
    }

    fn bytes(&self) -> Option<u64> {
        Some(self.len() as u64)
    }
}

impl Judged for GetReport {
    fn outcome(&self) -> OperationOutcome {
        OperationOutcome::Done
    }

    fn bytes(&self) -> Option<u64> {
        Some(self.bytes)
    }
}

impl Judged for ObjectStat {
    fn outcome(&self) -> OperationOutcome {
        OperationOutcome::Done
    }
}

impl Judged for Located {
    fn outcome(&self) -> OperationOutcome {
        OperationOutcome::Done
    }
}

impl Judged for Comparison {
    fn outcome(&self) -> OperationOutcome {
        match self {
            Self::Same(_) | Self::Different(_) => OperationOutcome::Done,
            Self::Thin(_) => OperationOutcome::Short,
            Self::Absent => OperationOutcome::Absent,
        }
    }
}

impl Judged for Orphans {
    fn outcome(&self) -> OperationOutcome {
        match self.unreachable[..] {
            [] => OperationOutcome::Done,
            _ => OperationOutcome::Short,
        }
    }
}

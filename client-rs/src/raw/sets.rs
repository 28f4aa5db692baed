//! Hold, Release, Touch: operations on all values that a set has on a server.
//! For the object layer.

use std::sync::Arc;

use bytes::Bytes;
use rampuddle_protocol::{HoldRow, Opcode, ReleaseRow, Row, RowFlags, SetId, TouchRow};

use super::{Answer, RawClient};
use crate::error::Error;

impl RawClient {
    /// Keeps the values of sets readable for this client's session, even when
    /// they are deleted or replaced. NOT_FOUND where the server has none.
    pub(crate) async fn hold(
        &self,
        server: &Arc<str>,
        sets: &[SetId],
    ) -> Vec<Result<Answer, Error>> {
        let row = |set| HoldRow { set, ..HoldRow::default() };
        self.on_sets(server, Opcode::Hold, sets, row).await
    }

    /// Ends holds.
    pub(crate) async fn release(
        &self,
        server: &Arc<str>,
        sets: &[SetId],
    ) -> Vec<Result<Answer, Error>> {
        let row = |set| ReleaseRow { set, ..ReleaseRow::default() };
        self.on_sets(server, Opcode::Release, sets, row).await
    }

    /// Gives the values of sets a new lease from now on; 0 = they stay. With EXACT
    /// it may be shorter than the one before. [`Answer::detail`] is how many
    /// values there are.
    pub(crate) async fn touch(
        &self,
        server: &Arc<str>,
        sets: &[SetId],
        lease_ms: u64,
        flags: RowFlags,
    ) -> Vec<Result<Answer, Error>> {
        let row = |set| TouchRow { set, lease_ms, flags, ..TouchRow::default() };
        self.on_sets(server, Opcode::Touch, sets, row).await
    }

    async fn on_sets<R: Row + Send + Sync>(
        &self,
        server: &Arc<str>,
        opcode: Opcode,
        sets: &[SetId],
        row: impl Fn(SetId) -> R,
    ) -> Vec<Result<Answer, Error>> {
        let rows = sets.iter().enumerate().map(|(index, set)| (index, row(*set), Bytes::new()));
        let mut done = self.simple_on(Arc::clone(server), opcode, rows.collect()).await;
        done.sort_unstable_by_key(|(index, _)| *index);
        done.into_iter().map(|(_, answer)| answer).collect()
    }
}

//! The head of a put: drawn, written, judged.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use rampuddle_protocol::RowFlags;

use super::copies::{Copies, meet, write};
use super::format::{Seed, Tag};
use super::if_version::write_if_version;
use super::life::Life;
use super::no_clobber::{is_refused, write_in_turn};
use super::put::Put;
use super::ranks::{Candidates, answers};
use super::report::PutCondition;
use crate::error::Error;
use crate::raw::{CreateItem, Late, Rolling, Target};

/// Times that a head refused as older is written with a greater version.
const REDRAWS_MAX: usize = 8;

/// A head to be written, but for its version.
#[derive(Clone)]
pub(super) struct NewHead {
    pub(super) tag: Tag,
    /// What its value begins with, and the checksum of that.
    pub(super) bytes: Bytes,
    pub(super) crc: HeadCrc,
    /// As its sections say.
    pub(super) life: Life,
}

/// The checksum of a head's bytes.
#[derive(Clone)]
pub(super) enum HeadCrc {
    Known(u32),
    /// Of an inline object that has no variable part: its only block's.
    Late(Arc<Rolling>),
}

/// A head as it was written.
pub(super) struct WrittenHead {
    pub(super) tag: Tag,
    pub(super) life: Life,
    pub(super) copies: Copies,
}

impl Put {
    /// Shakes hands with the servers that the head may go to: its version may only
    /// be drawn when the clock was compared with theirs.
    pub(super) async fn meet(&self) {
        meet(&self.operation, &self.candidates(&self.key).ranks).await;
    }

    /// Has the clock see what the owners hold, so that versions drawn from now on are
    /// greater: whatever was acked before is older then.
    pub(super) async fn look_before(&self) {
        let candidates = self.candidates(&self.key);
        let owners = candidates.ranks.iter().take(candidates.wanted);
        let each = owners.filter(|owner| answers(&self.operation, owner)).map(|owner| async {
            let target = Target::Server(Arc::clone(owner));
            // One that gives no answer says so again when it is written to.
            let _ = self.operation.raw().stat(&target, vec![self.key.clone()]).await;
        });
        join_all(each).await;
    }

    /// Writes the head with a version drawn now, again with a greater one when
    /// every owner holds a greater one already.
    pub(super) async fn write_head(&self, head: NewHead) -> Result<WrittenHead, Error> {
        let candidates = self.candidates(&self.key);
        let mut clocks_compared = false;
        for _ in 0..REDRAWS_MAX {
            let version = self.operation.clocks().draw();
            let tag = Tag { version, ..head.tag };
            let item = self.head_item(NewHead { tag, ..head.clone() });
            let copies = self.write_on_condition(&item, &candidates).await;
            let is_refused = self.condition == PutCondition::IfAbsent && is_refused(&copies);
            let is_final = copies.is_in_doubt() || is_refused;
            if copies.is_only_overtaken() && !is_final {
                // Refused as older by all: the clock has seen the greater one.
                continue;
            }
            if copies.is_only_ahead() && !clocks_compared {
                self.operation.raw().compare_clocks().await;
                clocks_compared = true;
                continue;
            }
            match self.condition {
                PutCondition::Always => self.judge(&copies)?,
                PutCondition::IfAbsent => {
                    Box::pin(self.judge_unclobbering(&copies, tag.version)).await?;
                }
                PutCondition::IfVersion(_) => self.judge_conditional(&copies)?,
            }
            return Ok(WrittenHead { tag, life: head.life, copies });
        }
        let problem = "other writers were faster every time".to_owned();
        Err(Error::Failed { name: self.name(), problems: vec![problem] })
    }

    async fn write_on_condition(&self, item: &CreateItem, candidates: &Candidates) -> Copies {
        match self.condition {
            PutCondition::Always => write(&self.operation, item, candidates).await,
            PutCondition::IfAbsent => {
                Box::pin(write_in_turn(&self.operation, item, candidates)).await
            }
            PutCondition::IfVersion(version) => {
                Box::pin(write_if_version(&self.operation, item, version, candidates)).await
            }
        }
    }

    fn head_item(&self, head: NewHead) -> CreateItem {
        let NewHead { tag, bytes, crc, life } = head;
        let mut item = CreateItem::new(self.key.clone(), bytes);
        item.tag = Bytes::copy_from_slice(&tag.encode(&self.key));
        item.version = tag.version;
        match crc {
            HeadCrc::Known(crc) => item.crc32c = Some(crc),
            HeadCrc::Late(checksum) => item.late = Some(self.late(tag, checksum)),
        }
        item.set = self.upload;
        item.replicas = self.replicas;
        item.lease_ms = life.lease_ms(self.operation.clocks().now_ms());
        item.flags = self.flags();
        if self.condition != PutCondition::IfAbsent {
            item.flags |= RowFlags::REPLACE;
        }
        item
    }

    /// The trailer of an inline object: its tag has the checksum of its only block.
    fn late(&self, tag: Tag, checksum: Arc<Rolling>) -> Late {
        let (key, seed) = (self.key.clone(), Seed::new(self.upload, 0, 0));
        let tag = move |crc| {
            let crc32c = seed.apply(crc, tag.object_bytes);
            Bytes::copy_from_slice(&Tag { crc32c, ..tag }.encode(&key))
        };
        Late { checksum, tag: Some(Arc::new(tag)) }
    }

    /// Whether a head that some servers took, and some did not, is an object.
    fn judge(&self, copies: &Copies) -> Result<(), Error> {
        if copies.stored().next().is_none() && copies.is_in_doubt() {
            return Err(self.indeterminate(copies));
        }
        if copies.applied() > 0 { Ok(()) } else { Err(self.failed(copies)) }
    }

    /// A server may have the head.
    pub(super) fn indeterminate(&self, copies: &Copies) -> Error {
        Error::Indeterminate { name: self.name(), problems: copies.problems().collect() }
    }
}

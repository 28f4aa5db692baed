//! The head of a put: drawn, written, judged.

use std::sync::Arc;

use bytes::Bytes;
use rampuddle_protocol::RowFlags;

use super::cleanup::drop_displaced;
use super::copies::{Copies, Copy, meet, write};
use super::format::Tag;
use super::no_clobber::{is_refused, write_in_turn};
use super::put::Put;
use super::ranks::Candidates;
use crate::error::Error;
use crate::raw::CreateItem;

/// Times that a head refused as older is written with a greater version.
const REDRAWS_MAX: usize = 8;

/// A head as it was written.
pub(super) struct WrittenHead {
    pub(super) tag: Tag,
    pub(super) copies: Copies,
}

impl Put<'_> {
    /// Writes the head with a version drawn now, again with a greater one when
    /// every owner holds a greater one already.
    pub(super) async fn write_head(
        &self,
        tag: Tag,
        bytes: Bytes,
        crc: u32,
    ) -> Result<WrittenHead, Error> {
        let view = self.operation.views.current();
        let candidates = Candidates::of(&view, &self.key, self.replicas);
        meet(&self.operation, &candidates.ranks).await;
        let mut clocks_compared = false;
        for _ in 0..REDRAWS_MAX {
            let tag = Tag { version: self.operation.clocks().draw(), ..tag };
            let item = self.head_item(&tag, bytes.clone(), crc);
            let copies = if self.no_clobber {
                write_in_turn(&self.operation, &item, &candidates).await
            } else {
                write(&self.operation, &item, &candidates).await
            };
            let is_final = copies.is_in_doubt() || (self.no_clobber && is_refused(&copies));
            if copies.is_only_overtaken() && !is_final {
                // Refused as older by all: the clock has seen the greater one.
                continue;
            }
            if copies.is_only_ahead() && !clocks_compared {
                self.operation.raw().compare_clocks().await;
                clocks_compared = true;
                continue;
            }
            if self.no_clobber {
                self.judge_unclobbering(&copies, tag.version).await?;
            } else {
                self.judge(&copies)?;
            }
            if copies.owners_applied() >= copies.wanted {
                self.drop_displaced(&copies).await;
            }
            return Ok(WrittenHead { tag, copies });
        }
        let problem = "other writers were faster every time".to_owned();
        Err(Error::Failed { name: self.name(), problems: vec![problem] })
    }

    fn head_item(&self, tag: &Tag, bytes: Bytes, crc: u32) -> CreateItem {
        let mut item = CreateItem::new(self.key.clone(), bytes);
        item.tag = Bytes::copy_from_slice(&tag.encode(&self.key));
        item.version = tag.version;
        item.crc32c = Some(crc);
        item.set = self.upload;
        item.replicas = self.replicas;
        item.flags = RowFlags::SEALED;
        if !self.no_clobber {
            item.flags |= RowFlags::REPLACE;
        }
        item
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

    /// Removes what the head took the place of.
    async fn drop_displaced(&self, copies: &Copies) {
        let mut displaced: Vec<Tag> = Vec::new();
        for taken in &copies.taken {
            if let Copy::Stored { displaced: Some(tag) } = &taken.copy
                && !displaced.contains(tag)
            {
                displaced.push(*tag);
            }
        }
        let have = copies.taken.iter().map(|taken| Arc::clone(&taken.server)).collect();
        drop_displaced(&self.operation, &self.key, displaced, self.upload, have).await;
    }
}

//! Create.

use std::sync::Arc;

use rampuddle_protocol::limits::VALUE_BYTES_MAX;
use rampuddle_protocol::{CreateRow, Opcode, Outcome, RowFlags};

use super::batch::{Results, in_parallel};
use super::pipeline::Prepared;
use super::upload::Upload;
use super::write::{failed, key_of};
use super::{Answer, Answered, CreateItem, RawClient, Target, check_tag};
use crate::error::Error;
use crate::placement::Slot;
use crate::work::Work;

impl RawClient {
    /// Makes values. Each becomes visible whole or not at all, those longer than
    /// 4 MiB too. Versions are drawn unless given, once more when the server
    /// says that the clock is ahead.
    ///
    /// # Errors
    /// Per item: keys or tags of impossible length, keys of objects, values of
    /// more than 1 GiB, flags that no Create has, and failures of servers.
    pub async fn create(
        &self,
        target: &Target,
        items: Vec<CreateItem>,
    ) -> Vec<Result<Answer, Error>> {
        let call = &self.begun(target);
        let mut results = Results::new(items.len());
        let key_of = key_of(|item: &CreateItem| (&item.key, item.placement_bytes));
        let check = |item: &CreateItem| call.check_create(item);
        let groups = call.grouped(target, items, &mut results, key_of, check);
        in_parallel(groups, &mut results, |server, items| async move {
            let drawn = |item: &CreateItem| item.version.is_none();
            call.redrawn(&server, items, drawn, |items| call.create_on(&server, items)).await
        })
        .await;
        results.finish()
    }

    /// As [`RawClient::create`], for one item that has a version, on the server of that
    /// name: with nothing to group and nothing to draw.
    pub(crate) async fn create_at(
        &self,
        server: &Arc<str>,
        item: CreateItem,
    ) -> Result<Answer, Error> {
        self.check_create(&item)?;
        debug_assert!(!item.version.is_none() && self.operation.is_some());
        self.create_on(server, vec![(0, item)]).await.remove(0).1
    }

    fn check_create(&self, item: &CreateItem) -> Result<(), Error> {
        self.check_writable(&item.key)?;
        check_tag(&item.tag)?;
        let bytes = item.value_length().max(item.bytes.len() as u64);
        if bytes > VALUE_BYTES_MAX {
            return Err(Error::TooLarge { what: "a value", bytes, limit: VALUE_BYTES_MAX });
        }
        let own = RowFlags::RESERVE | RowFlags::CHECKSUM | RowFlags::TRAILER;
        let allowed = RowFlags::CREATE.without(own);
        if !item.flags.only(allowed) {
            let found = format!("{:?}", item.flags.without(allowed));
            let expected = "KEEP, SEALED, REPLACE, REWRITE";
            return Err(Error::BadOption { option: "flags of a Create", found, expected });
        }
        Ok(())
    }

    fn create_on<'a>(
        &'a self,
        name: &'a Arc<str>,
        items: Vec<(usize, CreateItem)>,
    ) -> Work<'a, Answered> {
        Box::pin(async move {
            let indices: Vec<usize> = items.iter().map(|(index, _)| *index).collect();
            let failed = |error: Error| failed(indices.iter().copied(), &error);
            let (server, grants) = match self.granted(name).await {
                Ok(both) => both,
                Err(error) => return failed(error),
            };
            let piece = grants.payload_bytes;
            let (mut rows, mut uploads, mut versions) = (Vec::new(), Vec::new(), Vec::new());
            for (index, item) in items {
                let row = self.create_row(&item);
                versions.push(row.version);
                let CreateItem { key, tag, bytes, late, .. } = item;
                if bytes.len() as u64 > piece {
                    uploads.push((index, Upload::new(row, key, tag, bytes, late)));
                } else {
                    let row = Prepared::new(index, row, key);
                    rows.push(Prepared { tag, payload: bytes, late, ..row });
                }
            }
            let replies = self.send_rows::<_, Outcome>(&server, Opcode::Create, rows).await;
            let mut done: Vec<_> = self.answers(replies).collect();
            for (index, upload) in uploads {
                let answer = self.upload(&server, &upload).await;
                done.push((index, answer.inspect(|answer| self.observe(answer))));
            }
            done.sort_unstable_by_key(|(index, _)| *index);
            self.note_sent(&mut done, versions);
            done
        })
    }

    /// The row of an item, with a version drawn unless it has one.
    pub(crate) fn create_row(&self, item: &CreateItem) -> CreateRow {
        let has_version = !item.version.is_none();
        let checksum = match (&item.late, item.crc32c) {
            (Some(_), _) => RowFlags::CHECKSUM | RowFlags::TRAILER,
            (None, Some(_)) => RowFlags::CHECKSUM,
            (None, None) => RowFlags::NONE,
        };
        CreateRow {
            tag_bytes: item.tag.len() as u8,
            replicas: item.replicas,
            flags: item.flags | checksum,
            length: item.value_length(),
            value_bytes: item.bytes.len() as u64,
            version: if has_version { item.version } else { self.core.clocks().draw() },
            if_version: item.if_version,
            set: item.set,
            lease_ms: item.lease_ms,
            crc32c: item.crc32c.unwrap_or(0),
            slot: Slot::of(&item.key, item.placement_bytes).0,
            placement_bytes: item.placement_bytes,
            tenant: item.tenant,
            ..CreateRow::default()
        }
    }
}

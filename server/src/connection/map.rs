//! Share, Map and Unmap: values that a client on this machine reads where they lie.

use rampuddle_protocol::{
    Header, MapRow, MappedRow, RowFlags, SharedRow, Status, Table, TableError, UnmapRow,
};

use super::outbox::{Outbox, Place};
use super::page::RowsPage;
use super::request::{Request, Written, answer_header, check_flags, seal};
use crate::core::Core;
use crate::store::{MapPlace, MappingIndex, RELEASED_MAX, Reply, Store};

/// How long a row is told to wait when the request has ended many holds.
const UNMAP_RETRY_MS: u64 = 10;

impl Request<'_> {
    /// Hands out the pool: its descriptor leaves with the answer.
    pub(super) fn share(&self, core: &mut Core, outbox: &mut Outbox, place: &mut Place) -> Written {
        let opened = match (self.is_local, outbox.can_carry()) {
            (false, _) => Err(Status::Unsupported),
            (true, false) => Err(Status::Busy),
            (true, true) => core.sharing.open(core.sessions.id(self.session), &mut core.store),
        };
        let (mapping, descriptor) = match opened {
            Ok(opened) => opened,
            Err(status) => return self.status(outbox.bytes_mut(place), status),
        };
        outbox.carry(descriptor);
        let out = outbox.bytes_mut(place);
        let row = SharedRow { mapping, pool_bytes: core.store.total_bytes() };
        row.encode(&mut out[Header::BYTES..]);
        let header = answer_header(self.header, 1, SharedRow::BYTES, SharedRow::BYTES);
        Written::head(seal(out, &header))
    }

    /// Finds values, keeps them, and says where they lie.
    pub(super) fn map(&self, core: &mut Core, out: &mut [u8]) -> Result<Written, TableError> {
        let table = Table::<MapRow>::parse(self.header, self.table)?;
        let Some((row, key, _)) = table.iter().next().filter(|_| table.len() == 1) else {
            return Ok(self.status(out, Status::BadRow));
        };
        if !self.is_local || !core.sharing.is_on() {
            return Ok(self.status(out, Status::Unsupported));
        }
        if self.is_late {
            return Ok(self.status(out, Status::Expired));
        }
        let mut page = RowsPage::<MappedRow>::new(out.len(), MappedRow::BYTES);
        match self.begin_map(&row, key, core) {
            Ok(place) => describe(&core.store, place, &mut page, out),
            Err(refusal) => page.push_last(out, refusal, b""),
        }
        Ok(Written::head(page.finish(out, self.header)))
    }

    fn begin_map(&self, row: &MapRow, key: &[u8], core: &mut Core) -> Result<MapPlace, MappedRow> {
        if let Some(refusal) = check_flags(row.flags, RowFlags::MAP) {
            return Err(MappedRow::of(refusal.outcome.status()));
        }
        let mapping = self.mapping(row.mapping, core).ok_or(MappedRow::of(Status::Expired))?;
        core.store.map(mapping, row, key, core.now)
    }

    /// Ends holds.
    pub(super) fn unmap(&self, core: &mut Core, out: &mut [u8]) -> Result<Written, TableError> {
        let mut released = 0;
        self.each_row(
            out,
            |_: &UnmapRow, _, _| None,
            |row, _| {
                if released > RELEASED_MAX {
                    return Reply::with_detail(Status::Busy, UNMAP_RETRY_MS);
                }
                let Some(mapping) = self.mapping(row.mapping, core) else {
                    return Reply::of(Status::Expired);
                };
                match core.store.unmap(mapping, row.hold) {
                    Some(values) => {
                        released += u64::from(values);
                        Reply::with_detail(Status::Ok, values.into())
                    }
                    None => Reply::of(Status::NotFound),
                }
            },
        )
    }

    fn mapping(&self, number: u64, core: &Core) -> Option<MappingIndex> {
        core.sharing.find(number, core.sessions.id(self.session))
    }
}

/// Writes as many runs as there is room for, and where the rest begins.
fn describe(store: &Store, mut place: MapPlace, page: &mut RowsPage<MappedRow>, out: &mut [u8]) {
    loop {
        let begin = place;
        let Some(run) = store.next_run(&mut place) else { return };
        if !page.push(out, run.row, run.key, run.tag) {
            let detail = Store::cursor_of(&begin);
            let more = MappedRow { detail, ..MappedRow::of(Status::Incomplete) };
            return page.push_last(out, more, b"");
        }
    }
}

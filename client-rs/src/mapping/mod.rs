//! Reading values of a server on this machine where they lie, in its own memory.
//!
//! ```text
//!   Server ---- Mapping        the pool, once for each incarnation of the server
//!                 |            (Share; ends with its last view, however it dies)
//!                 +-- Kept     what one Map keeps; dropped, Unmap is sent for it
//!                       |
//!                       +-- Bytes  one slice of the pool each
//! ```

mod ask;
mod ended;
#[expect(unsafe_code, reason = "maps the pool and hands out slices of it")]
mod memory;

use std::fmt;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use rampuddle_protocol::{Incarnation, SharedRow};

pub(crate) use self::ask::{Mapped, Question};
use self::ended::Ended;
use self::memory::Memory;
use crate::server::Server;

/// The pool of one incarnation of a server. All views of it share it, and it
/// outlives the client as long as there are any.
pub(crate) struct Mapping {
    memory: Memory,
    number: u64,
    incarnation: Incarnation,
    server: Weak<Server>,
    next_hold: AtomicU64,
    ended: Ended,
}

impl Mapping {
    /// Maps a pool that a server has handed out.
    ///
    /// # Errors
    /// When the descriptor is none of a pool, or the system has no room.
    pub(crate) fn new(
        server: &Arc<Server>,
        incarnation: Incarnation,
        row: &SharedRow,
        pool: &OwnedFd,
    ) -> std::io::Result<Self> {
        Ok(Self {
            memory: Memory::map(pool, row.pool_bytes)?,
            number: row.mapping,
            incarnation,
            server: Arc::downgrade(server),
            next_hold: AtomicU64::new(1),
            ended: Ended::default(),
        })
    }

    /// The run of the server whose pool it is.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// A hold that is asked for now.
    fn begin(self: &Arc<Self>) -> Kept {
        let hold = self.next_hold.fetch_add(1, Ordering::Relaxed);
        Kept { mapping: Arc::clone(self), hold, state: Holding::Asked }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut mapping = formatter.debug_struct("Mapping");
        mapping.field("bytes", &self.memory.len()).field("incarnation", &self.incarnation);
        mapping.finish_non_exhaustive()
    }
}

/// What the server is known to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holding {
    /// It was asked, and its word is not known: the request may be on its way yet.
    Asked,
    /// It keeps what it said.
    Held,
    /// It keeps nothing.
    Nothing,
}

/// Values that a server keeps as they are for this process. Dropped, the server is
/// told so in the background; what it cannot be told ends with the mapping.
pub(crate) struct Kept {
    mapping: Arc<Mapping>,
    hold: u64,
    state: Holding,
}

impl Kept {
    /// The bytes of the pool at `range`, which lies in a run of this hold.
    pub(crate) fn bytes(&self, range: &Range<u64>) -> &[u8] {
        self.mapping.memory.bytes(range)
    }

    /// The same, as bytes that keep the hold.
    pub(crate) fn shared(self: &Arc<Self>, range: Range<u64>) -> Bytes {
        if range.is_empty() {
            return Bytes::new();
        }
        Bytes::from_owner(Slice { kept: Arc::clone(self), range })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.state != Holding::Nothing {
            self.mapping.end(self.hold, self.state == Holding::Asked);
        }
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Kept({}, {:?})", self.hold, self.state)
    }
}

/// A stretch of the pool.
struct Slice {
    kept: Arc<Kept>,
    range: Range<u64>,
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self.kept.bytes(&self.range)
    }
}

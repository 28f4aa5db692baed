//! One fixed block of memory, cut into pages. The pool knows no keys.

mod body;
#[expect(unsafe_code, reason = "the kernel's locks of open files")]
mod descriptor;
#[expect(unsafe_code, reason = "maps memory and hands out slices of it")]
mod mapping;
mod runs;

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;

use rampuddle_protocol::limits::PAGE_BYTES;

use crate::machine::HUGE_PAGE_BYTES;
pub(crate) use body::{Body, Cursor, Piece};
use mapping::Mapping;
pub(crate) use mapping::PoolRange;
use runs::Runs;

/// Pages of 64 KiB in one mapping.
#[derive(Debug)]
pub(crate) struct Pool {
    mapping: Mapping,
    runs: Runs,
    /// Pages that a value which has as many begins at a multiple of: those of a
    /// huge page, so that readers map whole ones. 1 = any page does.
    unit: u32,
    /// Steps over runs of pages since the start: what scattered values cost.
    steps: Cell<u64>,
}

impl Pool {
    /// Bookkeeping outside the mapping, per page.
    pub(crate) const RECORD_BYTES_PER_PAGE: u64 = Runs::BYTES_PER_PAGE;

    /// A pool of `bytes`, a multiple of the page size.
    pub(crate) fn new(bytes: u64, huge_pages: bool) -> io::Result<Self> {
        let pages = u32::try_from(bytes / PAGE_BYTES).map_err(io::Error::other)?;
        let mapping = Mapping::new(bytes, huge_pages)?;
        let unit = if huge_pages { (HUGE_PAGE_BYTES / PAGE_BYTES) as u32 } else { 1 };
        Ok(Self { mapping, runs: Runs::new(pages), unit, steps: Cell::new(0) })
    }

    /// See [`Mapping::prefault`].
    pub(crate) fn prefault(&self) -> io::Result<()> {
        self.mapping.prefault()
    }

    /// See [`Mapping::lock`].
    pub(crate) fn lock(&self) -> io::Result<()> {
        self.mapping.lock()
    }

    /// Whether readers on this machine may have descriptors of it.
    pub(crate) fn can_be_shared(&self) -> bool {
        self.mapping.sealed_file().is_some()
    }

    /// A descriptor for a reader, who is [known to live](Pool::has_reader) from now
    /// on.
    ///
    /// # Errors
    /// When the pool cannot be shared, or the system gives no descriptor.
    pub(crate) fn open_for_reader(&self, reader: u32) -> io::Result<OwnedFd> {
        let file = self.mapping.sealed_file().ok_or(io::ErrorKind::Unsupported)?;
        descriptor::open_locked(file, reader.into())
    }

    /// Whether the reader has a descriptor or a mapping of the pool still. Who
    /// cannot be judged lives.
    pub(crate) fn has_reader(&self, reader: u32) -> bool {
        let file = self.mapping.sealed_file();
        file.is_some_and(|file| descriptor::is_locked(file, reader.into()).unwrap_or(true))
    }

    pub(crate) fn total_pages(&self) -> u32 {
        self.runs.total_pages()
    }

    pub(crate) fn free_pages(&self) -> u32 {
        self.runs.free_pages()
    }

    /// Steps over runs of pages that were made to find, take and give back bytes,
    /// since the start.
    #[inline]
    pub(crate) fn steps(&self) -> u64 {
        self.steps.get()
    }

    #[inline]
    fn count_steps(&self, steps: u32) {
        self.steps.set(self.steps.get() + u64::from(steps));
    }

    /// The bytes at `range`.
    #[inline]
    pub(crate) fn bytes(&self, range: PoolRange) -> &[u8] {
        self.mapping.bytes(range)
    }

    /// Hands out several ranges to be written at once.
    pub(crate) fn each_mut<'a>(&'a mut self, ranges: &[PoolRange], each: impl FnMut(&'a mut [u8])) {
        self.mapping.each_mut(ranges, each);
    }

    /// The same memory with all pages free. What lay in them still does: no
    /// reader may ever see it.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn emptied(self) -> Self {
        let runs = Runs::new(self.total_pages());
        Self { runs, ..self }
    }

    /// Asserts that runs and lists agree.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn check_invariants(&self) {
        self.runs.check_invariants();
    }
}

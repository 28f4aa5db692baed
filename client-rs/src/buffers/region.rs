//! One stretch of memory straight from the system, in huge pages where it has them.
#![allow(unsafe_code)]

use std::io;
use std::ptr::{NonNull, null_mut};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// What a huge page is on the machines that have them.
pub(super) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Memory that no other struct has.
///
/// Invariants: `mapped` is the begin of a live private mapping of `mapped_bytes` that
/// is readable and writable and that only this struct unmaps; the `bytes` from `base`
/// on lie within it.
#[derive(Debug)]
pub(super) struct Region {
    mapped: NonNull<u8>,
    mapped_bytes: usize,
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is plain memory that this struct owns; nothing in it is bound
// to the thread that made it.
unsafe impl Send for Region {}
// SAFETY: a shared reference gives shared slices only.
unsafe impl Sync for Region {}

impl Region {
    /// New memory, which reads as zeros. It costs nothing until it is written.
    ///
    /// # Errors
    /// When there is not so much.
    pub(super) fn new(bytes: usize) -> io::Result<Self> {
        let whole = |bytes: usize| bytes.checked_next_multiple_of(HUGE_PAGE_BYTES);
        let out_of_memory = || io::Error::from(io::ErrorKind::OutOfMemory);
        let bytes = whole(bytes).ok_or_else(out_of_memory)?;
        // So that it can begin where a huge page does.
        let mapped_bytes = bytes.checked_add(HUGE_PAGE_BYTES).ok_or_else(out_of_memory)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh private mapping at an address that the kernel chooses
        // aliases nothing.
        let mapped =
            unsafe { mmap_anonymous(null_mut(), mapped_bytes, access, MapFlags::PRIVATE) }?;
        let mapped = NonNull::new(mapped.cast::<u8>()).expect("a mapping is never at null");
        let skipped = mapped.as_ptr().align_offset(HUGE_PAGE_BYTES);
        // SAFETY: less than a huge page is skipped, by which the mapping is longer.
        let base = unsafe { mapped.add(skipped) };
        let region = Self { mapped, mapped_bytes, base, bytes };
        // A system without huge pages says no, and gives small ones.
        let _ = region.advise(Advice::LinuxHugepage);
        Ok(region)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the range lies within the mapping, which lives as long as `self`
        // and is written only through `&mut self`; all of it reads as something.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.bytes) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; `&mut self` excludes every other reference.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.bytes) }
    }

    /// Lets the system take the memory back when it needs it; what it has taken
    /// reads as zeros.
    pub(super) fn offer_back(&mut self) {
        // A system that does not know it lets us keep it.
        let _ = self.advise(Advice::LinuxFree);
    }

    fn advise(&self, advice: Advice) -> io::Result<()> {
        // SAFETY: the range lies within the mapping; neither advice that is given
        // makes it unreadable, and `offer_back`, after which it may read otherwise,
        // has no other reference to it.
        Ok(unsafe { madvise(self.base.as_ptr().cast(), self.bytes, advice) }?)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is this struct's own and nobody uses it any more.
        let _ = unsafe { munmap(self.mapped.as_ptr().cast(), self.mapped_bytes) };
    }
}

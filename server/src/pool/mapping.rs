//! The pool's memory: one shared mapping of fixed size.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap, munmap};

/// Bytes of the pool, by offset.
pub(crate) type PoolRange = Range<u64>;

/// Prefaulting goes in steps of this, so that a refusal names how far it came.
const PREFAULT_STEP: usize = 64 << 20;

/// A shared mapping of a memory file; no other process has it writable, or can
/// make it so where it is sealed.
///
/// Invariants: `base` is the begin of a live mapping of `bytes` bytes that is
/// readable and writable and that only this struct unmaps.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
    file: OwnedFd,
    is_sealed: bool,
}

// SAFETY: the mapping is plain memory that this struct owns; nothing in it is
// bound to the thread that made it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps a new memory file of `bytes`, of huge pages when asked to.
    pub(crate) fn new(bytes: u64, huge_pages: bool) -> io::Result<Self> {
        let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        if huge_pages {
            flags |= MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        }
        let file = memfd_create("rampuddle-pool", flags)?;
        ftruncate(&file, bytes)?;
        let length = usize::try_from(bytes).map_err(io::Error::other)?;
        // SAFETY: a fresh shared mapping at an address that the kernel chooses
        // aliases nothing; the file has the length mapped.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )
        }?;
        let base = NonNull::new(base.cast()).expect("a successful mmap is never at null");
        // From here on nobody, this process included, can map it anew to be
        // written, write to it, punch holes into it, or change its length.
        let seals = SealFlags::FUTURE_WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        let is_sealed = fcntl_add_seals(&file, seals).is_ok();
        Ok(Self { base, bytes: length, file, is_sealed })
    }

    /// The memory file, if readers may have it.
    pub(crate) fn sealed_file(&self) -> Option<BorrowedFd<'_>> {
        self.is_sealed.then(|| self.file.as_fd())
    }

    /// Makes the kernel find memory for every page now.
    pub(crate) fn prefault(&self) -> io::Result<()> {
        let mut at = 0;
        while at < self.bytes {
            let step = PREFAULT_STEP.min(self.bytes - at);
            // SAFETY: the range lies within the mapping; populating does not
            // change its contents.
            unsafe {
                madvise(self.base.as_ptr().add(at).cast(), step, Advice::LinuxPopulateWrite)
            }?;
            at += step;
        }
        Ok(())
    }

    /// Keeps every page in memory.
    pub(crate) fn lock(&self) -> io::Result<()> {
        // SAFETY: the range is the whole mapping, which this struct owns.
        Ok(unsafe { mlock(self.base.as_ptr().cast(), self.bytes) }?)
    }

    fn check(&self, range: &PoolRange) {
        assert!(
            range.start <= range.end && range.end <= self.bytes as u64,
            "{range:?} lies outside the pool of {} bytes",
            self.bytes
        );
    }

    /// The bytes at `range`.
    ///
    /// # Panics
    /// When the range lies outside the pool.
    #[inline]
    pub(crate) fn bytes(&self, range: PoolRange) -> &[u8] {
        self.check(&range);
        // SAFETY: checked to lie within the mapping, which lives as long as
        // `self`; writers need `&mut self`.
        unsafe {
            std::slice::from_raw_parts(
                self.base.as_ptr().add(range.start as usize),
                (range.end - range.start) as usize,
            )
        }
    }

    /// The bytes at `range`, to be written.
    ///
    /// # Panics
    /// When the range lies outside the pool.
    #[inline]
    pub(crate) fn bytes_mut(&mut self, range: PoolRange) -> &mut [u8] {
        self.check(&range);
        // SAFETY: as in `bytes`; `&mut self` makes this the only slice.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.base.as_ptr().add(range.start as usize),
                (range.end - range.start) as usize,
            )
        }
    }

    /// Several ranges at once, to be written: what a vectored read needs.
    ///
    /// # Panics
    /// When a range lies outside the pool or overlaps another.
    pub(crate) fn each_mut<'a>(
        &'a mut self,
        ranges: &[PoolRange],
        mut each: impl FnMut(&'a mut [u8]),
    ) {
        for (index, range) in ranges.iter().enumerate() {
            self.check(range);
            let overlaps = |other: &PoolRange| other.start < range.end && range.start < other.end;
            assert!(!ranges[..index].iter().any(overlaps), "{ranges:?} overlap");
            // SAFETY: the range lies within the mapping and, by the assertion
            // above, overlaps no other slice handed out here; `&'a mut self`
            // keeps everybody else out for as long as the slices live.
            each(unsafe {
                std::slice::from_raw_parts_mut(
                    self.base.as_ptr().add(range.start as usize),
                    (range.end - range.start) as usize,
                )
            });
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this struct's own, and no slice outlives it.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn a_mapping_reads_what_was_written() {
        let mut mapping = Mapping::new(1 << 20, false).unwrap();
        mapping.prefault().unwrap();
        mapping.bytes_mut(65_536..65_540).copy_from_slice(b"abcd");
        assert_eq!(mapping.bytes(65_535..65_541), b"\0abcd\0");
    }

    #[test]
    fn nobody_can_map_a_sealed_file_to_be_written_or_change_its_length() {
        let mut mapping = Mapping::new(1 << 20, false).unwrap();
        let file = mapping.sealed_file().expect("this kernel seals").as_raw_fd();
        let path = format!("/proc/self/fd/{file}");
        let again = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let map = |protection| {
            let (null, flags) = (std::ptr::null_mut(), MapFlags::SHARED);
            // SAFETY: a new mapping at an address of the kernel's choice; nobody uses it.
            unsafe { mmap(null, 1 << 20, protection, flags, &again, 0) }
        };
        assert!(map(ProtFlags::READ | ProtFlags::WRITE).is_err());
        let mapped = map(ProtFlags::READ).unwrap();
        // SAFETY: the mapping made above, which nothing refers to.
        unsafe {
            let writable = ProtFlags::READ | ProtFlags::WRITE;
            use rustix::mm::{MprotectFlags, mprotect};
            let flags = MprotectFlags::from_bits_retain(writable.bits());
            assert!(mprotect(mapped, 1 << 20, flags).is_err());
            munmap(mapped, 1 << 20).unwrap();
        }
        assert!(again.set_len(1 << 19).is_err() && again.set_len(1 << 21).is_err());
        assert!(rustix::io::pwrite(&again, b"x", 0).is_err());
        mapping.bytes_mut(0..1).fill(7);
        assert_eq!(mapping.bytes(0..2), [7, 0], "who had it mapped before writes on");
    }

    #[test]
    #[should_panic(expected = "overlap")]
    fn overlapping_ranges_are_never_handed_out_together() {
        let mut mapping = Mapping::new(65_536, false).unwrap();
        mapping.each_mut(&[0..10, 5..6], |_| {});
    }
}

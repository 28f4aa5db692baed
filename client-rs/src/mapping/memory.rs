//! The pool of a server on this machine as this process sees it.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use rustix::fs::{SealFlags, fcntl_get_seals, fstat};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// What a file must be sealed against: that it gets shorter, which would end this
/// process when it reads on, and that anybody new gets to write to it.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::FUTURE_WRITE);

/// A read-only mapping of a whole pool.
///
/// Invariants: `base` is the begin of a live mapping of `bytes` bytes that is
/// readable and that only this struct unmaps; the file behind it never gets shorter.
#[derive(Debug)]
pub(super) struct Memory {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is plain memory that this struct owns and nobody writes to
// through it; nothing in it is bound to the thread that made it.
unsafe impl Send for Memory {}
// SAFETY: as above; there are only shared slices of it.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps a pool of `bytes` that a server has handed out. The descriptor may be
    /// closed afterwards.
    ///
    /// # Errors
    /// When the file is not that long or not sealed, or the system has no room.
    pub(super) fn map(pool: &OwnedFd, bytes: u64) -> io::Result<Self> {
        let is_long_enough = u64::try_from(fstat(pool)?.st_size).is_ok_and(|size| size >= bytes);
        if bytes == 0 || !is_long_enough || !fcntl_get_seals(pool)?.contains(SEALS) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        let (null, flags) = (std::ptr::null_mut(), MapFlags::SHARED | MapFlags::NORESERVE);
        // SAFETY: a fresh read-only mapping at an address that the kernel chooses
        // aliases nothing of this process; the file has the length mapped, for good.
        let base = unsafe { mmap(null, bytes, ProtFlags::READ, flags, pool, 0) }?;
        let base = NonNull::new(base.cast()).expect("a successful mmap is never at null");
        Ok(Self { base, bytes })
    }

    /// Length of the pool.
    pub(super) fn len(&self) -> u64 {
        self.bytes as u64
    }

    /// The bytes at `range`: for [`Kept`](super::Kept) alone, and only what the
    /// server says that it keeps for it.
    ///
    /// # Panics
    /// When the range lies outside the pool.
    pub(super) fn bytes(&self, range: &Range<u64>) -> &[u8] {
        let is_within = range.start <= range.end && range.end <= self.len();
        assert!(is_within, "{range:?} lies outside the pool of {} bytes", self.bytes);
        // SAFETY: checked to lie within the mapping, which lives as long as `self`
        // and whose file is sealed against getting shorter. No byte of it changes
        // while the slice lives: it lies in a run of a sealed value that the server
        // keeps for a hold of this mapping. The server writes to pages that it has
        // given to nobody; those of a hold it gives to nobody before the hold is
        // ended, which `Kept` does when the last slice of it is gone, or before the
        // lock of this mapping ends, which the kernel does when this struct has
        // unmapped it. A server that was started anew has another file, and writes
        // to this one never again. Nobody else can write to it: the file is sealed.
        unsafe {
            std::slice::from_raw_parts(
                self.base.as_ptr().add(range.start as usize),
                (range.end - range.start) as usize,
            )
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is this struct's own, and no slice outlives it.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, fcntl_add_seals, ftruncate, memfd_create};

    use super::*;

    fn file(bytes: u64, seals: SealFlags) -> OwnedFd {
        let file = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&file, bytes).unwrap();
        rustix::io::pwrite(&file, b"abcd", 4_096).unwrap();
        fcntl_add_seals(&file, seals).unwrap();
        file
    }

    #[test]
    fn only_files_that_nobody_can_shorten_or_write_to_are_mapped() {
        let memory = Memory::map(&file(8_192, SEALS), 8_192).unwrap();
        assert_eq!(memory.bytes(&(4_095..4_101)), b"\0abcd\0");
        assert!(Memory::map(&file(8_192, SEALS), 8_193).is_err(), "longer than the file");
        assert!(Memory::map(&file(8_192, SEALS), 0).is_err());
        for seals in [SealFlags::empty(), SealFlags::SHRINK, SealFlags::FUTURE_WRITE] {
            assert!(Memory::map(&file(8_192, seals), 8_192).is_err(), "{seals:?}");
        }
    }

    #[test]
    #[should_panic(expected = "outside the pool")]
    fn nothing_outside_of_the_pool_is_handed_out() {
        let memory = Memory::map(&file(8_192, SEALS), 8_192).unwrap();
        memory.bytes(&(8_190..8_193));
    }
}

//! Descriptors of the pool for readers, and the locks that tell when they are gone.
//!
//! A lock of an open file description lives as long as the description: until the
//! last descriptor of it is closed and the last mapping made by it is gone, however
//! the processes that had them ended. So the reader's lock on a byte of its own is
//! the sign of its life, and nobody has to be believed.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};

/// Opens the pool once more, to be read only, with a lock on `byte`.
///
/// # Errors
/// When there are no descriptors left, or the system cannot open a descriptor
/// anew.
pub(crate) fn open_locked(pool: BorrowedFd<'_>, byte: u64) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", pool.as_raw_fd());
    let reader = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut lock = lock_of(byte, libc::F_RDLCK);
    control(&reader, libc::F_OFD_SETLK, &mut lock)?;
    Ok(reader)
}

/// Whether somebody has a lock on `byte`.
///
/// # Errors
/// When the system does not say.
pub(crate) fn is_locked(pool: BorrowedFd<'_>, byte: u64) -> io::Result<bool> {
    let mut lock = lock_of(byte, libc::F_WRLCK);
    control(&pool, libc::F_OFD_GETLK, &mut lock)?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

fn lock_of(byte: u64, kind: libc::c_int) -> libc::flock64 {
    // SAFETY: a structure of integers, for which zeros are a value.
    let mut lock: libc::flock64 = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = byte as libc::off64_t;
    lock.l_len = 1;
    lock
}

fn control(
    file: &impl std::os::fd::AsFd,
    command: libc::c_int,
    lock: &mut libc::flock64,
) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as it is borrowed, and the kernel reads
    // and writes nothing but the structure, which outlives the call.
    let result = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), command, lock) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

    use super::*;

    #[test]
    fn a_lock_lives_until_the_last_descriptor_and_the_last_mapping_of_it_are_gone() {
        let file = memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, 4096).unwrap();
        let pool = file.as_fd();
        assert!(!is_locked(pool, 3).unwrap());
        let reader = open_locked(pool, 3).unwrap();
        let other = open_locked(pool, 4).unwrap();
        let again = rustix::io::fcntl_dupfd_cloexec(&reader, 0).unwrap();
        drop(reader);
        assert!(is_locked(pool, 3).unwrap(), "another descriptor is open");
        let (null, flags) = (std::ptr::null_mut(), MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice; nobody reads it.
        let mapped = unsafe { mmap(null, 4096, ProtFlags::READ, flags, &again, 0) }.unwrap();
        drop(again);
        assert!(is_locked(pool, 3).unwrap(), "it is mapped");
        // SAFETY: the mapping made above, which nothing refers to.
        unsafe { munmap(mapped, 4096) }.unwrap();
        assert!(!is_locked(pool, 3).unwrap());
        assert!(is_locked(pool, 4).unwrap(), "another reader's");
        drop(other);
        assert!(!is_locked(pool, 4).unwrap());
    }
}

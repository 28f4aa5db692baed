//! Files that were open when this process began, by a path like `/dev/fd/7`.
//!
//! To open such a path anew is to begin at the beginning of the file, over what is
//! there, though it was opened to be appended to.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{FileType, OFlags, fcntl_getfl};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// Folders with the descriptors of a process as files.
const FOLDERS: [&str; 3] = ["/dev/fd", "/proc/self/fd", "/proc/thread-self/fd"];

/// Whether a path names what a process has open: to rename over that would be to
/// write somewhere else.
pub(crate) fn is_one(path: &Path) -> bool {
    path == Path::new("/dev/stderr") || FOLDERS.iter().any(|folder| path.starts_with(folder))
}

/// The number of the descriptor that a path names, if it names one.
pub(crate) fn number_of(path: &Path) -> Option<RawFd> {
    match path.to_str()? {
        "/dev/stdin" => return Some(0),
        "/dev/stdout" => return Some(1),
        "/dev/stderr" => return Some(2),
        _ => {}
    }
    let name = FOLDERS.iter().find_map(|folder| path.strip_prefix(folder).ok())?.to_str()?;
    let number = name.parse::<RawFd>().ok()?;
    (number.to_string() == name).then_some(number)
}

/// Another handle of an open file: it goes on where that one is, and moves it.
///
/// # Errors
/// When nothing is open under that number, or not to be written to.
pub(crate) fn duplicate(number: RawFd) -> io::Result<File> {
    let file = File::from(match number {
        0 => io::stdin().as_fd().try_clone_to_owned()?,
        1 => io::stdout().as_fd().try_clone_to_owned()?,
        2 => io::stderr().as_fd().try_clone_to_owned()?,
        number => match duplicate_any(number) {
            // Containers forbid this call. What has no position, or is only ever
            // appended to, can be opened anew.
            Err(Errno::PERM | Errno::NOSYS) => return open_anew(number),
            duplicated => duplicated?,
        },
    });
    check_writable(fcntl_getfl(&file)?)?;
    Ok(file)
}

fn check_writable(flags: OFlags) -> io::Result<()> {
    let is_writable = flags.intersects(OFlags::WRONLY | OFlags::RDWR);
    if is_writable { Ok(()) } else { Err(io::Error::other("it is open to be read only")) }
}

fn duplicate_any(number: RawFd) -> rustix::io::Result<OwnedFd> {
    let ours = pidfd_open(getpid(), PidfdFlags::empty())?;
    pidfd_getfd(ours, number, PidfdGetfdFlags::empty())
}

fn open_anew(number: RawFd) -> io::Result<File> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
    let flags = flags_of(&info);
    check_writable(flags)?;
    let appends = flags.contains(OFlags::APPEND);
    let path = format!("/proc/self/fd/{number}");
    let mode = std::fs::metadata(&path)?.mode();
    if FileType::from_raw_mode(mode) == FileType::RegularFile && !appends {
        return Err(io::Error::other(
            "where it is to be written to cannot be shared here: append to it with >>, or use - \
             for stdout",
        ));
    }
    File::options().write(true).append(appends).open(path)
}

/// How a descriptor is open, by what the kernel tells of it.
fn flags_of(info: &str) -> OFlags {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    OFlags::from_bits_retain(flags.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn paths_of_descriptors_are_known_by_all_their_names() {
        for (path, number) in [
            ("/dev/fd/7", 7),
            ("/proc/self/fd/1", 1),
            ("/proc/thread-self/fd/12", 12),
            ("/dev/stderr", 2),
            ("/dev/stdout", 1),
        ] {
            assert_eq!(number_of(Path::new(path)), Some(number), "{path}");
        }
        for path in ["/dev/null", "/dev/fd", "/dev/fd/x", "/dev/fd/01", "/proc/1/fd/1", "7"] {
            assert_eq!(number_of(Path::new(path)), None, "{path}");
        }
    }

    #[test]
    fn a_duplicate_goes_on_where_the_descriptor_is_and_moves_it() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before ").unwrap();
        // Where the kernel forbids it, this is refused, and nothing overwritten.
        let Ok(mut duplicate) = duplicate(file.as_raw_fd()) else { return };
        duplicate.write_all(b"between").unwrap();
        assert_eq!(file.stream_position().unwrap(), 14);
    }

    #[test]
    fn what_is_opened_anew_is_appended_to_or_has_no_position() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "before ").unwrap();
        let appending = File::options().append(true).open(&path).unwrap();
        open_anew(appending.as_raw_fd()).unwrap().write_all(b"behind").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"before behind");
        let writing = File::options().write(true).open(&path).unwrap();
        let refused = open_anew(writing.as_raw_fd()).unwrap_err();
        assert!(refused.to_string().contains("append to it"), "{refused}");
        open_anew(File::create("/dev/null").unwrap().as_raw_fd()).unwrap();
    }

    #[test]
    fn what_is_not_open_or_only_read_is_refused() {
        assert!(duplicate(1 << 20).is_err());
        let reading = File::open("/dev/null").unwrap();
        for refused in [duplicate(reading.as_raw_fd()), open_anew(reading.as_raw_fd())] {
            assert!(refused.unwrap_err().to_string().contains("read only"));
        }
    }
}

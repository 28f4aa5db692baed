//! The lock that makes writers of all processes take turns.

use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::living::is_at;
use crate::error::DiscoveryError;
use crate::model::Revision;

/// How long a writer waits for its turn; a turn takes a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a waiting writer looks whether it is its turn.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// Revisions are written with leading zeros, so that one replaces another in
/// place.
const REVISION_DIGITS: usize = 20;

/// The right to write in a cluster's directory, until it is dropped.
#[derive(Debug)]
pub(super) struct WriteLock {
    file: File,
    path: PathBuf,
}

impl WriteLock {
    /// Waits for the lock; fails when somebody holds on to it.
    pub(super) fn acquire(path: &Path) -> Result<Self, DiscoveryError> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let lock = Self::open(path)?;
            if lock.try_lock()? {
                return Ok(lock);
            }
            thread::sleep(LOOK_INTERVAL);
        }
        Err(DiscoveryError::Locked { path: path.to_owned(), waited: PATIENCE })
    }

    fn open(path: &Path) -> Result<Self, DiscoveryError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|error| DiscoveryError::io("open", path, error))?;
        let path = path.to_owned();
        Ok(Self { file, path })
    }

    /// False when another has it, or when the file was replaced meanwhile: a
    /// lock on a file that nobody else finds protects nothing.
    fn try_lock(&self) -> Result<bool, DiscoveryError> {
        match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => is_at(&self.file, &self.path),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(self.failed("lock", error)),
        }
    }

    /// A revision that no record of this cluster ever had, also not one that
    /// was removed; `found` is that of the record to be replaced.
    pub(super) fn next_revision(&self, found: Revision) -> Result<NonZeroU64, DiscoveryError> {
        let last = self.last_revision()?.max(found.0);
        let next = NonZeroU64::MIN.checked_add(last).ok_or_else(|| self.no_later(last))?;
        let text = format!("{next:0REVISION_DIGITS$}\n");
        self.file.write_all_at(text.as_bytes(), 0).map_err(|error| self.failed("write", error))?;
        Ok(next)
    }

    /// 0 in a new file.
    fn last_revision(&self) -> Result<u64, DiscoveryError> {
        let mut text = [0; REVISION_DIGITS];
        let bytes = self.file.read_at(&mut text, 0);
        let bytes = bytes.map_err(|error| self.failed("read", error))?;
        let text = std::str::from_utf8(&text[..bytes]).unwrap_or_default();
        Ok(text.trim().parse().unwrap_or(0))
    }

    /// Equal revisions of two writes would let one of them get lost.
    fn no_later(&self, last: u64) -> DiscoveryError {
        let problem = format!("revision {last} was given out: there is no later one");
        DiscoveryError::malformed(self.path.to_string_lossy(), problem)
    }

    fn failed(&self, what: &'static str, error: impl Into<io::Error>) -> DiscoveryError {
        DiscoveryError::io(what, &self.path, error)
    }
}

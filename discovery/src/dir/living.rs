//! An entry among the living: a file that its server keeps locked.
//!
//! The kernel frees the lock with the last descriptor of the process. Others
//! find out by trying for a *shared* lock, on descriptors of their own: any
//! number of them can look at once, and no server ever waits for such a lock,
//! because it takes its exclusive one on a new file before the file gets its
//! name.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use futures_util::future::{BoxFuture, FutureExt, ready};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::backend::Withdraw;
use crate::document;
use crate::error::DiscoveryError;
use crate::model::Living;
use crate::validate::RECORD_BYTES_MAX;

/// The entry of a living server of this process. The file is open for writing
/// so that the kernel tells watchers when it is closed.
#[derive(Debug)]
pub(super) struct Entry {
    file: File,
    path: PathBuf,
}

impl Entry {
    /// Creates the entry, over that of a dead server if there is one. For one
    /// process at a time: the caller holds the write lock and has seen that
    /// nobody lives under the name.
    pub(super) fn create(path: &Path, living: &Living) -> Result<Self, DiscoveryError> {
        let (file, temporary) = document::create_beside(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| DiscoveryError::io("lock", &temporary, error))?;
        document::write_json(&file, &temporary, living)?;
        document::rename(&temporary, path)?;
        let path = path.to_owned();
        Ok(Self { file, path })
    }

    /// Nobody replaces the entry between the look and the removal: to others
    /// its server is alive until `file` is closed.
    fn remove(&self) -> Result<(), DiscoveryError> {
        if is_at(&self.file, &self.path)? {
            document::remove_if_there(&self.path)?;
        }
        Ok(())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // What is left behind is not locked, and means nothing.
        let _ = self.remove();
    }
}

impl Withdraw for Entry {
    fn withdraw(self: Box<Self>) -> BoxFuture<'static, Result<(), DiscoveryError>> {
        let removed = self.remove();
        drop(self);
        ready(removed).boxed()
    }

    fn is_kept_up(&self) -> bool {
        // What cannot be looked at is not known to be gone.
        is_at(&self.file, &self.path).unwrap_or(true)
    }
}

/// The entry at `path`, open, if its server is alive.
pub(super) fn held(path: &Path) -> Result<Option<File>, DiscoveryError> {
    let file = match document::open(path) {
        Ok(file) => file,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(Errno::WOULDBLOCK) => Ok(Some(file)),
        Err(error) => Err(DiscoveryError::io("lock", path, error)),
    }
}

/// What the entry at `path` says, if its server is alive.
pub(super) fn read(path: &Path) -> Result<Option<Living>, DiscoveryError> {
    held(path)?.map(|file| document::read_open_json(&file, path, RECORD_BYTES_MAX)).transpose()
}

/// Whether the open file is the one that now has the name.
pub(super) fn is_at(file: &File, path: &Path) -> Result<bool, DiscoveryError> {
    let failed = |error| DiscoveryError::io("look at", path, error);
    let ours = file.metadata().map_err(failed)?;
    match path.symlink_metadata() {
        Ok(named) => Ok((ours.dev(), ours.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

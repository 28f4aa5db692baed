//! Changes in directories, as the kernel tells them (inotify).

use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Room for the events of one read: at least fifteen with the longest names.
const BUFFER_BYTES: usize = 4096;
/// How many changes are taken at once, at most: as many as the kernel keeps by default.
const CHANGES_MAX: usize = 16_384;

/// A few directories under watch. While the kernel refuses (by default it
/// grants a user 128 watchers), there are no events: callers must poll too.
#[derive(Debug)]
pub(crate) struct DirectoryEvents {
    directories: Vec<PathBuf>,
    armed: Mutex<Option<Arc<Watcher>>>,
}

/// One change below a watched directory.
#[derive(Debug)]
pub(crate) struct Change {
    /// Which directory, in the order in which they were given.
    pub(crate) directory: usize,
    /// The file.
    pub(crate) name: OsString,
    /// Whether somebody who could write to the file closed it.
    pub(crate) closed: bool,
}

#[derive(Debug)]
struct Watcher {
    inotify: AsyncFd<OwnedFd>,
    directories: Vec<i32>,
}

impl DirectoryEvents {
    pub(crate) fn new(directories: Vec<PathBuf>) -> Self {
        Self { directories, armed: Mutex::new(None) }
    }

    /// Starts to watch, if that has not happened yet: later changes are seen
    /// by [`next`](Self::next). Must be called inside a runtime.
    pub(crate) fn arm(&self) {
        let _ = self.watcher();
    }

    /// The next changes; none when changes were lost, so that anything may
    /// have changed. Waits for ever when the kernel refuses to watch.
    pub(crate) async fn next(&self) -> Vec<Change> {
        let Some(watcher) = self.watcher() else {
            return std::future::pending().await;
        };
        let changes = watcher.next().await.unwrap_or_default();
        if changes.is_empty() {
            *self.lock() = None;
        }
        changes
    }

    fn watcher(&self) -> Option<Arc<Watcher>> {
        let mut armed = self.lock();
        if armed.is_none() {
            *armed = Watcher::new(&self.directories).ok().map(Arc::new);
        }
        armed.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Watcher>>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher {
    fn new(directories: &[PathBuf]) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let what = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let watches = directories
            .iter()
            .map(|directory| inotify::add_watch(&inotify, directory, what))
            .collect::<Result<_, _>>()?;
        Ok(Self { inotify: register(inotify)?, directories: watches })
    }

    async fn next(&self) -> io::Result<Vec<Change>> {
        let read = |inotify: &OwnedFd| self.read(inotify);
        self.inotify.async_io(Interest::READABLE, read).await
    }

    /// All changes until now; none when some were lost.
    fn read(&self, inotify: &OwnedFd) -> io::Result<Vec<Change>> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = Reader::new(inotify, &mut buffer);
        let mut changes = Vec::new();
        while changes.len() < CHANGES_MAX {
            let event = match reader.next() {
                Err(Errno::AGAIN) if !changes.is_empty() => break,
                event => event?,
            };
            match self.change(&event) {
                Some(change) => changes.push(change),
                None => return Ok(Vec::new()),
            }
        }
        Ok(changes)
    }

    /// `None` for what is said about a directory itself: it went away, or
    /// events were dropped.
    fn change(&self, event: &inotify::Event<'_>) -> Option<Change> {
        let name = event.file_name()?;
        let watch = event.wd();
        Some(Change {
            directory: self.directories.iter().position(|known| *known == watch)?,
            name: OsStr::from_bytes(name.to_bytes()).to_owned(),
            closed: event.events().contains(ReadFlags::CLOSE_WRITE),
        })
    }
}

#[expect(
    deprecated,
    reason = "its successor is an unsafe function, for types that swap their \
              descriptor; an `OwnedFd` keeps the one it has until it is dropped"
)]
fn register(inotify: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(inotify, Interest::READABLE)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_change_after_arming_is_seen_without_polling() {
        let folder = tempfile::tempdir().unwrap();
        let events = DirectoryEvents::new(vec![folder.path().into()]);
        events.arm();
        std::fs::write(folder.path().join("a"), "x").unwrap();
        let changes = timeout(PATIENCE, events.next()).await.unwrap();
        assert_eq!(changes[0].name, "a");
        assert_eq!(changes[0].directory, 0);
    }

    #[tokio::test]
    async fn all_changes_that_were_made_meanwhile_come_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let events = DirectoryEvents::new(vec![folder.path().into()]);
        events.arm();
        for number in 0..500 {
            std::fs::write(folder.path().join(format!("file-{number}")), "x").unwrap();
        }
        let changes = timeout(PATIENCE, events.next()).await.unwrap();
        assert_eq!(changes.last().unwrap().name, "file-499");
    }

    #[tokio::test]
    async fn a_directory_that_comes_back_is_watched_again() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("d");
        std::fs::create_dir(&directory).unwrap();
        let events = DirectoryEvents::new(vec![directory.clone()]);
        events.arm();
        std::fs::remove_dir(&directory).unwrap();
        assert!(timeout(PATIENCE, events.next()).await.unwrap().is_empty());

        std::fs::create_dir(&directory).unwrap();
        events.arm();
        std::fs::write(directory.join("a"), "x").unwrap();
        let changes = timeout(PATIENCE, events.next()).await.unwrap();
        assert_eq!(changes[0].name, "a");
    }
}

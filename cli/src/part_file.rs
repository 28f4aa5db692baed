//! A file that appears under its name when it is whole.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// What is written to the disk in one go.
const WRITE_BYTES: usize = 4 << 20;
/// The longest name that a folder takes.
const NAME_BYTES_MAX: usize = 255;

/// A file beside its destination, which it becomes when it is whole. Dropped
/// before, it vanishes.
#[derive(Debug)]
pub(crate) struct PartFile {
    /// Where the bytes go.
    pub(crate) file: tokio::fs::File,
    part: Removed,
    destination: PathBuf,
}

/// A name that is removed when it is dropped.
#[derive(Debug)]
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // Once it was renamed there is nothing under this name.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl PartFile {
    /// Creates an empty file. One that it is to replace keeps its permissions.
    ///
    /// # Errors
    /// When the folder is not there or may not be written to.
    pub(crate) fn create(destination: &Path) -> io::Result<Self> {
        let (file, part) = create_beside(destination)?;
        if let Ok(old) = destination.metadata() {
            file.set_permissions(Permissions::from_mode(old.permissions().mode() & 0o777))?;
        }
        let mut file = tokio::fs::File::from_std(file);
        file.set_max_buf_size(WRITE_BYTES);
        Ok(Self { file, part, destination: destination.to_owned() })
    }

    /// Gives the file its name, once its bytes are on the disk: also after a
    /// power cut there is the old file or the whole new one. Dropped before it is
    /// done, it has done nothing.
    ///
    /// # Errors
    /// When the disk fails; then the destination is as it was.
    pub(crate) async fn finish(self) -> io::Result<Named> {
        self.file.sync_all().await?;
        // Nothing may be waited for from here on.
        std::fs::rename(&self.part.0, &self.destination)?;
        Ok(Named { folder: folder_of(&self.destination).to_owned() })
    }
}

/// A file that is there, whole, under a name that is not on the disk yet.
#[derive(Debug)]
pub(crate) struct Named {
    folder: PathBuf,
}

impl Named {
    /// Waits until a power cut cannot bring the old file back.
    ///
    /// # Errors
    /// When the disk fails; the new file is there all the same.
    pub(crate) async fn settle(self) -> io::Result<()> {
        let settled = tokio::task::spawn_blocking(move || sync_folder(&self.folder)).await;
        settled.map_err(io::Error::other)?
    }
}

fn create_beside(destination: &Path) -> io::Result<(File, Removed)> {
    let name = destination.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    for attempt in 0..u32::MAX {
        let path = destination.with_file_name(part_name(name, attempt));
        match File::create_new(&path) {
            Ok(file) => return Ok((file, Removed(path))),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// A name like that of the destination, hidden, and no longer than a name may
/// be.
fn part_name(name: &OsStr, attempt: u32) -> OsString {
    let end = format!(".part-{}-{attempt}", std::process::id());
    let mut part = vec![b'.'];
    part.extend(name.as_bytes().iter().take(NAME_BYTES_MAX - 1 - end.len()));
    part.extend(end.as_bytes());
    OsString::from_vec(part)
}

/// The folder that a path is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// Makes the folders between `root` and a path below it that are not there, each
/// on the disk in the one that it is in.
///
/// # Errors
/// Where something else has the name; a link too, because it may lead elsewhere.
pub(crate) fn make_folders(root: &Path, path: &Path) -> io::Result<()> {
    let Ok(below) = folder_of(path).strip_prefix(root) else { return Ok(()) };
    let mut folder = root.to_owned();
    for part in below.components() {
        folder.push(part);
        if !is_folder(&folder)? {
            match std::fs::create_dir(&folder) {
                Ok(()) => sync_folder(folder_of(&folder))?,
                // By another file's work.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    is_folder(&folder)?;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn is_folder(path: &Path) -> io::Result<bool> {
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => Ok(true),
        Ok(found) => {
            let kind = if found.is_symlink() { "a symbolic link" } else { "no folder" };
            let path = path.display();
            Err(io::Error::other(format!("{path} is {kind} here; remove it first")))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes a folder's names to the disk, where there is a way to.
fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Who may write to a folder may not be allowed to list it, and some file
        // systems do not take such a wish.
        Err(error) if is_no_way(&error) => Ok(()),
        synced => synced,
    }
}

fn is_no_way(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    fn names(folder: &Path) -> Vec<OsString> {
        folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[tokio::test]
    async fn a_file_appears_under_its_name_only_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut part = PartFile::create(&path).unwrap();
        part.file.write_all(b"half").await.unwrap();
        assert!(!path.exists());
        drop(part);
        assert!(names(folder.path()).is_empty(), "{:?}", names(folder.path()));
        let mut part = PartFile::create(&path).unwrap();
        part.file.write_all(b"whole").await.unwrap();
        // Whoever gives up from here on leaves the new file.
        drop(part.finish().await.unwrap());
        assert_eq!(names(folder.path()), ["file"]);
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
    }

    #[tokio::test]
    async fn a_name_that_cannot_be_forced_to_the_disk_is_an_error_unless_no_folder_takes_that() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        PartFile::create(&path).unwrap().finish().await.unwrap().settle().await.unwrap();
        let in_folder = |folder: &str| Named { folder: folder.into() };
        // It gives EINVAL.
        in_folder("/proc").settle().await.unwrap();
        let error = in_folder("/nowhere").settle().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_name_may_be_as_long_as_a_folder_takes() {
        let folder = tempfile::tempdir().unwrap();
        for bytes in [1, 235, 236, 240, 255] {
            let name = "n".repeat(bytes);
            let part = PartFile::create(&folder.path().join(&name)).unwrap();
            assert!(names(folder.path()).iter().all(|name| name.len() <= NAME_BYTES_MAX));
            drop(part.finish().await.unwrap());
            assert!(folder.path().join(&name).exists());
        }
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_keeps_its_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        drop(PartFile::create(&path).unwrap().finish().await.unwrap());
        let metadata = path.metadata().unwrap();
        assert_eq!((metadata.permissions().mode() & 0o777, metadata.len()), (0o600, 0));
    }

    #[test]
    fn two_at_once_do_not_meet() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let (_one, _other) = (create_beside(&path).unwrap(), create_beside(&path).unwrap());
        assert_eq!(names(folder.path()).len(), 2);
    }
}

//! Files that are read whole, with limits, and replaced whole.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::DiscoveryError;
use crate::validate::RECORD_FORMAT;

/// Opens a regular file for reading. Anything else is refused without waiting
/// for it: a named pipe would block until someone writes.
pub(crate) fn open(path: &Path) -> Result<File, DiscoveryError> {
    let no_wait = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(no_wait.bits().cast_signed())
        .open(path)
        .map_err(|error| DiscoveryError::io("open", path, error))?;
    let metadata = file.metadata();
    let metadata = metadata.map_err(|error| DiscoveryError::io("look at", path, error))?;
    if metadata.is_file() {
        return Ok(file);
    }
    Err(DiscoveryError::NotAFile { path: path.into() })
}

/// The bytes of an open file, if they are at most `bytes_max`.
pub(crate) fn read(file: &File, path: &Path, bytes_max: u64) -> Result<Vec<u8>, DiscoveryError> {
    let mut bytes = Vec::new();
    file.take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| DiscoveryError::io("read", path, error))?;
    if bytes.len() as u64 <= bytes_max {
        return Ok(bytes);
    }
    let path = path.into();
    Err(DiscoveryError::TooLarge { path, bytes_max })
}

/// The JSON record in a file.
pub(crate) fn read_json<T: DeserializeOwned>(
    path: &Path,
    bytes_max: u64,
) -> Result<T, DiscoveryError> {
    read_open_json(&open(path)?, path, bytes_max)
}

/// The JSON record in an open file.
pub(crate) fn read_open_json<T: DeserializeOwned>(
    file: &File,
    path: &Path,
    bytes_max: u64,
) -> Result<T, DiscoveryError> {
    parse_json(&read(file, path, bytes_max)?, &path.to_string_lossy())
}

/// The form of a record; what has no number is of the first one.
#[derive(Deserialize)]
struct Form {
    #[serde(default)]
    format: u64,
}

/// The JSON record in `bytes`; `what` says where they were found. Fields that are
/// not known are ignored, unless the record says that it is of a newer form.
pub(crate) fn parse_json<T: DeserializeOwned>(
    bytes: &[u8],
    what: &str,
) -> Result<T, DiscoveryError> {
    let malformed = |error| DiscoveryError::malformed(what, error);
    let Form { format: found } = serde_json::from_slice(bytes).map_err(malformed)?;
    if found > RECORD_FORMAT {
        return Err(DiscoveryError::NewerFormat { what: what.to_owned(), found });
    }
    serde_json::from_slice(bytes).map_err(malformed)
}

/// Puts a JSON record in the place of a file: readers see the old or the new
/// one, never a part. For one writer at a time, because all use one temporary
/// name, which leaves no rubbish behind when a writer is killed.
pub(crate) fn replace_json(path: &Path, record: &impl Serialize) -> Result<(), DiscoveryError> {
    let (file, temporary) = create_beside(path)?;
    write_json(&file, &temporary, record)?;
    // Else a power cut could leave the name with none of the bytes.
    file.sync_data().map_err(|error| DiscoveryError::io("sync", &temporary, error))?;
    rename(&temporary, path)
}

/// Creates an empty file beside `path`, under a name that no reader looks at.
pub(crate) fn create_beside(path: &Path) -> Result<(File, PathBuf), DiscoveryError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.tmp"));
    remove_if_there(&temporary)?;
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(|error| DiscoveryError::io("create", &temporary, error))?;
    Ok((file, temporary))
}

/// Writes a JSON record into an empty file.
pub(crate) fn write_json(
    mut file: &File,
    path: &Path,
    record: &impl Serialize,
) -> Result<(), DiscoveryError> {
    let json = serde_json::to_vec_pretty(record)
        .map_err(|error| DiscoveryError::malformed(path.to_string_lossy(), error))?;
    file.write_all(&json).map_err(|error| DiscoveryError::io("write", path, error))
}

/// Renames a file over another.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), DiscoveryError> {
    std::fs::rename(from, to).map_err(|error| DiscoveryError::io("rename to", to, error))
}

/// Removes a file; its absence is no failure.
pub(crate) fn remove_if_there(path: &Path) -> Result<(), DiscoveryError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DiscoveryError::io("remove", path, error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Settings;

    #[test]
    fn only_regular_files_of_sensible_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let refused = open(folder.path()).unwrap_err();
        assert!(matches!(refused, DiscoveryError::NotAFile { .. }), "{refused:?}");
        let refused = open(Path::new("/dev/zero")).unwrap_err();
        assert!(matches!(refused, DiscoveryError::NotAFile { .. }), "{refused:?}");

        let path = folder.path().join("a");
        std::fs::write(&path, [b'x'; 100]).unwrap();
        assert_eq!(read(&open(&path).unwrap(), &path, 100).unwrap().len(), 100);
        let refused = read(&open(&path).unwrap(), &path, 99).unwrap_err();
        assert!(matches!(refused, DiscoveryError::TooLarge { .. }), "{refused:?}");
    }

    #[test]
    fn what_a_killed_writer_left_is_no_hindrance() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let (_half_written, _) = create_beside(&path).unwrap();
        let record = Settings::new("lab", 7);
        replace_json(&path, &record).unwrap();
        assert_eq!(read_json::<Settings>(&path, 1_000).unwrap(), record);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

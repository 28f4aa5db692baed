//! The back end that is used when nobody names one.

use std::ffi::OsString;
use std::fs::{DirBuilder, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::DiscoveryError;
use crate::url::UrlProblem;

/// `dir:` in the user's runtime directory (`$XDG_RUNTIME_DIR/rampuddle`, else
/// `rampuddle-UID` in the folder for temporary files). Looks at nothing.
pub fn default_url() -> Result<String, DiscoveryError> {
    let directory = default_directory();
    let path = directory.to_str().ok_or_else(|| DiscoveryError::BadUrl {
        url: directory.to_string_lossy().into_owned(),
        reason: UrlProblem::NotText,
    })?;
    Ok(format!("dir:{path}"))
}

/// Whether the default directory is there, so that a server of this user was
/// started once. Fails when it is not the user's own alone.
pub fn has_default_directory() -> Result<bool, DiscoveryError> {
    is_private(&default_directory(), user())
}

/// Creates the default directory with mode 0700, if need be, for a server that
/// joins there. Fails when it is not the user's own alone.
pub fn create_default_directory() -> Result<(), DiscoveryError> {
    create_private(&default_directory(), user())
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn default_directory() -> PathBuf {
    directory(std::env::var_os("XDG_RUNTIME_DIR"), &std::env::temp_dir(), user())
}

fn directory(runtime: Option<OsString>, temporary: &Path, user: u32) -> PathBuf {
    let runtime = runtime.map(PathBuf::from).filter(|path| path.is_absolute());
    runtime
        .map_or_else(|| temporary.join(format!("rampuddle-{user}")), |path| path.join("rampuddle"))
}

/// In a folder that all may write to, somebody else may have been first.
fn create_private(path: &Path, user: u32) -> Result<(), DiscoveryError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(DiscoveryError::io("create", path, error));
        }
        _ => {}
    }
    is_private(path, user).map(|_is_there| ())
}

/// False when there is no such directory.
fn is_private(path: &Path, user: u32) -> Result<bool, DiscoveryError> {
    match path.symlink_metadata() {
        Ok(metadata) => check_private(path, &metadata, user).map(|()| true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(DiscoveryError::io("look at", path, error)),
    }
}

fn check_private(path: &Path, metadata: &Metadata, user: u32) -> Result<(), DiscoveryError> {
    let path = path.to_owned();
    if metadata.uid() != user {
        let owner = metadata.uid();
        return Err(DiscoveryError::NotOurs { path, owner, user });
    }
    if !metadata.is_dir() {
        let error = std::io::Error::from(ErrorKind::NotADirectory);
        return Err(DiscoveryError::io("use", path, error));
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o022 != 0 {
        return Err(DiscoveryError::OpenToOthers { path, mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn the_runtime_directory_is_preferred() {
        let temporary = Path::new("/tmp");
        let with = |runtime: &str| directory(Some(runtime.into()), temporary, 7);
        assert_eq!(with("/run/user/7"), Path::new("/run/user/7/rampuddle"));
        assert_eq!(with(""), Path::new("/tmp/rampuddle-7"));
        assert_eq!(with("relative"), Path::new("/tmp/rampuddle-7"));
        assert_eq!(directory(None, temporary, 7), Path::new("/tmp/rampuddle-7"));
    }

    #[test]
    fn a_directory_that_is_not_ours_alone_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let user = rustix::process::geteuid().as_raw();
        let path = folder.path().join("rampuddle");
        assert!(!is_private(&path, user).unwrap() && !path.exists());
        create_private(&path, user).unwrap();
        create_private(&path, user).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
        assert!(is_private(&path, user).unwrap());

        let refused = create_private(&path, user + 1).unwrap_err();
        assert!(matches!(refused, DiscoveryError::NotOurs { .. }), "{refused:?}");
        std::fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        let refused = create_private(&path, user).unwrap_err();
        assert!(matches!(refused, DiscoveryError::OpenToOthers { .. }), "{refused:?}");
        let link = folder.path().join("link");
        symlink(folder.path(), &link).unwrap();
        let refused = create_private(&link, user).unwrap_err();
        assert!(matches!(refused, DiscoveryError::Io { .. }), "{refused:?}");
    }
}

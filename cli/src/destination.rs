//! Where a get's bytes go: stdout, a file, or what only looks like one.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, IsTerminal as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::descriptor;
use crate::exit::{BeforeAnythingExt as _, refusal};
use crate::output::escape;
use crate::part_file::folder_of;

/// Where the bytes go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// Stdout.
    Stdout,
    /// A file that appears, or is replaced, when it is whole.
    File(PathBuf),
    /// A pipe, a device or an open descriptor, which is written to and stays
    /// what it is.
    Device(PathBuf),
}

impl Destination {
    /// Where an object goes by what was given: like cp, into a folder under the
    /// last part of the object's name, and through a link to what it names.
    ///
    /// # Errors
    /// When that place cannot be written to, as far as a look tells.
    pub(crate) fn choose(name: &[u8], given: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = given else { return Self::of_file(&last_part(name)?) };
        match path.as_os_str().as_bytes() {
            b"" => Err(refusal("the destination has no name: expected a file, a folder or -")),
            b"-" => Ok(Self::Stdout),
            _ if descriptor::number_of(path) == Some(1) => Ok(Self::Stdout),
            _ if look_at(path)?.is_some_and(|metadata| metadata.is_dir()) => {
                Self::of_file(&path.join(last_part(name)?))
            }
            [.., b'/'] => Err(refusal(format!(
                "there is no folder {}: create it first, or leave the / out to get a file",
                path.display()
            ))),
            _ => Self::of_file(path),
        }
    }

    fn of_file(path: &Path) -> anyhow::Result<Self> {
        if descriptor::is_one(path) {
            return Ok(Self::Device(path.to_owned()));
        }
        match look_at(path)? {
            None => Self::new_file(path),
            Some(metadata) if metadata.is_dir() => Err(refusal(format!(
                "cannot write to {}: it is a folder; give another name, as in `puddle get NAME FILE`",
                path.display()
            ))),
            Some(metadata) if !metadata.is_file() => Ok(Self::Device(path.to_owned())),
            // Behind a link, the file is replaced, not the link.
            Some(_) if path.is_symlink() => {
                path.canonicalize().map(Self::File).with_context(|| cannot(path)).before_anything()
            }
            Some(_) => Ok(Self::File(path.to_owned())),
        }
    }

    fn new_file(path: &Path) -> anyhow::Result<Self> {
        if path.is_symlink() {
            return Err(refusal(format!(
                "{}: it is a link to what is not there; remove the link, or create what it names",
                cannot(path)
            )));
        }
        let folder = folder_of(path);
        match look_at(folder)? {
            Some(_) => Ok(Self::File(path.to_owned())),
            None => Err(refusal(format!(
                "{}: there is no folder {}; create it first",
                cannot(path),
                folder.display()
            ))),
        }
    }

    /// Another handle of what is open already, if that is where the bytes go. To be
    /// taken before this process opens anything itself.
    ///
    /// # Errors
    /// When it is not open, or cannot be written to.
    pub(crate) fn descriptor(&self) -> anyhow::Result<Option<File>> {
        let Self::Device(path) = self else { return Ok(None) };
        let file = descriptor::number_of(path).map(descriptor::duplicate).transpose();
        file.with_context(|| cannot(path)).before_anything()
    }

    /// Whether people look at the bytes where they also read remarks.
    pub(crate) fn is_terminal(&self) -> bool {
        *self == Self::Stdout && io::stdout().is_terminal()
    }

    /// For people and for JSON.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Stdout => "-".to_owned(),
            Self::File(path) | Self::Device(path) => escape(path.as_os_str().as_bytes()),
        }
    }
}

fn cannot(path: &Path) -> String {
    format!("cannot write to {}", path.display())
}

/// What is there, behind links; `None` = nothing.
fn look_at(path: &Path) -> anyhow::Result<Option<Metadata>> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| cannot(path)).before_anything(),
    }
}

/// The file in the current directory that a name stands for.
fn last_part(name: &[u8]) -> anyhow::Result<PathBuf> {
    let last = name.split(|byte| *byte == b'/').rfind(|part| !part.is_empty());
    match last.unwrap_or_default() {
        b"" | b"." | b".." => None,
        part if part.contains(&0) => None,
        part => Some(PathBuf::from(OsStr::from_bytes(part))),
    }
    .ok_or_else(|| {
        refusal(format!(
            "\"{}\" cannot be the name of a file: say where it should go, as in \
             `puddle get NAME FILE`",
            escape(name)
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn choose(name: &str, path: &Path) -> Result<Destination, String> {
        Destination::choose(name.as_bytes(), Some(path)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_is_called_as_the_last_part_of_the_name_and_stays_here() {
        for (name, file) in [("a", "a"), ("x/y/b.bin", "b.bin"), ("../../c", "c"), ("d/", "d")] {
            assert_eq!(last_part(name.as_bytes()).unwrap(), Path::new(file));
        }
        for name in ["", "/", "..", "a/..", "a/.", "a\0b"] {
            assert!(last_part(name.as_bytes()).is_err(), "{name:?}");
        }
    }

    #[test]
    fn folders_and_links_are_taken_as_cp_takes_them() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let at = |name: &str| folder.join(name);
        std::fs::write(at("old"), "").unwrap();
        std::fs::create_dir(at("sub")).unwrap();
        symlink("old", at("link")).unwrap();
        symlink("nowhere", at("lost")).unwrap();

        assert_eq!(choose("a/b", &folder), Ok(Destination::File(at("b"))));
        assert_eq!(choose("a/b", &at("new")), Ok(Destination::File(at("new"))));
        assert_eq!(choose("a/b", &at("link")), Ok(Destination::File(at("old"))));
        let refused = |name: &str, path: &str| choose(name, &at(path)).unwrap_err();
        assert!(refused("a/sub", "").contains("it is a folder"));
        assert!(refused("a", "absent/").contains("there is no folder"));
        assert!(refused("a", "absent/file").contains("there is no folder"));
        assert!(refused("a", "old/file").contains("cannot write to"));
        assert!(refused("a", "lost").contains("a link to what is not there"));
        assert!(refused("a", &"n".repeat(256)).contains("cannot write to"));
        assert!(choose(&"n".repeat(256), &folder).unwrap_err().contains("cannot write to"));
    }

    #[test]
    fn what_is_no_file_stays_what_it_is() {
        for path in ["/dev/null", "/dev/full", "/dev/stderr", "/dev/fd/7", "/proc/self/fd/7"] {
            assert_eq!(choose("a", Path::new(path)), Ok(Destination::Device(path.into())));
        }
        for path in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/proc/thread-self/fd/1"] {
            assert_eq!(choose("a", Path::new(path)), Ok(Destination::Stdout));
        }
        assert!(choose("a", Path::new("")).is_err());
    }
}

//! Names of objects as paths of files, and the other way round.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::exit::refusal;
use crate::output::escape;

/// What the names of all objects of a tree begin with: nothing, or what was given
/// and one `/`.
pub(super) fn prefix_of(given: &OsStr) -> Vec<u8> {
    let mut prefix = given.as_bytes().to_vec();
    while prefix.last() == Some(&b'/') {
        prefix.pop();
    }
    if !prefix.is_empty() {
        prefix.push(b'/');
    }
    prefix
}

/// The prefix of a directory for which none was given: its name, and none for the
/// directory that the user is in.
pub(super) fn usual_prefix(directory: &Path) -> anyhow::Result<Vec<u8>> {
    match directory.file_name() {
        Some(name) => Ok(prefix_of(name)),
        None if directory.components().all(|part| part.as_os_str() == ".") => Ok(Vec::new()),
        None => Err(refusal(format!(
            "{} has no name of its own: say what the objects' names begin with, as in \
             `puddle put -r {} PREFIX`",
            directory.display(),
            directory.display()
        ))),
    }
}

/// The file below the destination that an object's name, without its prefix,
/// stands for. What another program would take for another place is none.
pub(super) fn path_of(relative: &[u8]) -> Result<PathBuf, &'static str> {
    if relative.contains(&0) {
        return Err("it has a NUL byte, which no file's name has");
    }
    let mut path = PathBuf::new();
    for part in relative.split(|byte| *byte == b'/') {
        match part {
            b"" => return Err("it has an empty part before, between or behind its /"),
            b"." => return Err("it has a part \".\", which stands for the folder itself"),
            b".." => return Err("it has a part \"..\", which leads out of the folder"),
            part => path.push(OsStr::from_bytes(part)),
        }
    }
    Ok(path)
}

/// Finds names that lie below others, as `a/b` below `a`: no disk has both. Takes
/// them in their order; keeps only those that the last one begins with.
#[derive(Debug, Default)]
pub(super) struct Below(Vec<Vec<u8>>);

impl Below {
    /// The name before this one that would have to be a folder, if there is one;
    /// else this one counts from now on.
    pub(super) fn find(&mut self, name: &[u8]) -> Option<&[u8]> {
        while self.0.pop_if(|last| !name.starts_with(last)).is_some() {}
        let is_above = |above: &Vec<u8>| name.get(above.len()) == Some(&b'/');
        match self.0.iter().position(is_above) {
            Some(above) => Some(&self.0[above]),
            None => {
                self.0.push(name.to_vec());
                None
            }
        }
    }
}

/// A path in words.
pub(super) fn shown(path: &Path) -> String {
    escape(path.as_os_str().as_bytes())
}

/// A file's name behind a folder's.
pub(super) fn joined(relative: &[u8], name: &OsString) -> Vec<u8> {
    let mut joined = relative.to_vec();
    if !joined.is_empty() {
        joined.push(b'/');
    }
    joined.extend_from_slice(name.as_bytes());
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_with_one_slash_or_is_none() {
        for (given, prefix) in [("", ""), ("/", ""), ("a", "a/"), ("a/b//", "a/b/"), ("/a", "/a/")]
        {
            assert_eq!(prefix_of(OsStr::new(given)), prefix.as_bytes(), "{given:?}");
        }
        for (directory, prefix) in [("d", "d/"), ("../x/d/", "d/"), (".", ""), ("./", "")] {
            assert_eq!(usual_prefix(Path::new(directory)).unwrap(), prefix.as_bytes());
        }
        for directory in ["..", "/", "a/.."] {
            assert!(usual_prefix(Path::new(directory)).is_err(), "{directory}");
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_no_files() {
        for name in ["a", "a/b", "...", "a b/\x1b", "-x", "~"] {
            assert_eq!(path_of(name.as_bytes()).unwrap(), Path::new(name));
        }
        assert!(path_of(b"\xff/\xfe").is_ok());
        for name in ["", "/", "/a", "a/", "a//b", "..", "a/..", "../a", "a/./b", ".", "a\0b"] {
            assert!(path_of(name.as_bytes()).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_name_below_another_is_found_whatever_lies_between() {
        let mut below = Below::default();
        let mut find = |name: &str| below.find(name.as_bytes()).map(<[u8]>::to_vec);
        for name in ["a", "a-b", "a.b", "a-b0"] {
            assert_eq!(find(name), None, "{name}");
        }
        let mut below = Below::default();
        let names = ["a", "a-", "a-/x", "a/b", "a/b/c", "ab", "ab/c", "b/c", "b/c/d"];
        let found: Vec<_> = names
            .iter()
            .map(|name| below.find(name.as_bytes()).map(|above| above.escape_ascii().to_string()))
            .collect();
        let above = |name: &str| Some(name.to_owned());
        assert_eq!(
            found,
            [
                None,
                None,
                above("a-"),
                above("a"),
                above("a"),
                None,
                above("ab"),
                None,
                above("b/c")
            ]
        );
    }
}

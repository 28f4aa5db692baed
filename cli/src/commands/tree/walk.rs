//! The files below a directory, in the order of their names.

use std::fs::{DirEntry, FileType, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use tokio::sync::mpsc::Sender;

use super::names::{joined, shown};
use super::report::{Done, Pair};
use super::several::{Job, Step};

/// A walk through a directory; its steps go to whoever works on the files.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) steps: Sender<Step>,
    /// What all names begin with.
    pub(super) prefix: Vec<u8>,
    /// Whether symbolic links are taken for what they name.
    pub(super) dereference: bool,
}

/// Nobody works on the files any more.
#[derive(Debug)]
pub(super) struct Ended;

/// The directories that a path leads through, as device and inode: one of them
/// again is a circle.
type Above = Vec<(u64, u64)>;

impl Walk {
    /// Finds everything below a directory. For a thread that may block.
    pub(super) fn run(&self, directory: &Path) -> Result<(), Ended> {
        self.folder(directory, &[], &mut Above::new())
    }

    fn folder(&self, path: &Path, relative: &[u8], above: &mut Above) -> Result<(), Ended> {
        match read_sorted(path, above) {
            Ok(entries) => {
                for entry in entries {
                    let relative = joined(relative, &entry.file_name());
                    self.entry(&entry.path(), &relative, entry.file_type(), above)?;
                }
                above.pop();
                Ok(())
            }
            Err(why) => self.left_out(path, relative, &why),
        }
    }

    fn entry(
        &self,
        path: &Path,
        relative: &[u8],
        kind: io::Result<FileType>,
        above: &mut Above,
    ) -> Result<(), Ended> {
        let look = |kind: FileType| match kind.is_symlink() && self.dereference {
            true => path.metadata(),
            false => path.symlink_metadata(),
        };
        match kind.and_then(look) {
            Err(error) => self.left_out(path, relative, &error.to_string()),
            Ok(found) if found.is_dir() => self.folder(path, relative, above),
            Ok(found) if found.is_file() => {
                let job = Job { pair: self.pair(path, relative), bytes: found.len() };
                self.send(Step::File(job))
            }
            Ok(found) => self.left_out(path, relative, kind_of(&found)),
        }
    }

    fn left_out(&self, path: &Path, relative: &[u8], why: &str) -> Result<(), Ended> {
        let error = format!("{} is left out: {why}", shown(path));
        self.send(Step::Done(Done::failed(self.pair(path, relative), error)))
    }

    fn pair(&self, path: &Path, relative: &[u8]) -> Pair {
        Pair { name: [&self.prefix, relative].concat(), path: path.to_owned() }
    }

    fn send(&self, step: Step) -> Result<(), Ended> {
        self.steps.blocking_send(step).map_err(|_| Ended)
    }
}

/// The entries of a directory by name; it counts as being above from then on.
fn read_sorted(path: &Path, above: &mut Above) -> Result<Vec<DirEntry>, String> {
    let as_text = |error: io::Error| error.to_string();
    let metadata = path.metadata().map_err(as_text)?;
    let itself = (metadata.dev(), metadata.ino());
    if above.contains(&itself) {
        return Err("it leads back to a directory that it is in".to_owned());
    }
    let entries = path.read_dir().map_err(as_text)?;
    let mut entries = entries.collect::<io::Result<Vec<_>>>().map_err(as_text)?;
    entries.sort_unstable_by_key(DirEntry::file_name);
    above.push(itself);
    Ok(entries)
}

/// What is no file and no directory, in words that say what to do.
fn kind_of(found: &Metadata) -> &'static str {
    let kind = found.file_type();
    if kind.is_symlink() {
        "it is a symbolic link; --dereference takes links for what they name"
    } else if kind.is_fifo() {
        "it is a FIFO and no file; `puddle put PATH NAME` reads one to its end"
    } else if kind.is_socket() {
        "it is a socket and no file"
    } else {
        "it is a device and no file"
    }
}

/// Whether a file is one still: it may have become something that has no end.
pub(super) fn check_file(path: &Path, dereference: bool) -> Result<(), String> {
    let look = if dereference { path.metadata() } else { path.symlink_metadata() };
    match look {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err("it is no file any more".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// What a walk finds: names, and why some are left out.
    fn walked(directory: &Path, dereference: bool) -> Vec<(String, String)> {
        let (steps, mut found) = tokio::sync::mpsc::channel(100);
        let walk = Walk { steps, prefix: b"p/".to_vec(), dereference };
        walk.run(directory).unwrap();
        drop(walk);
        let told = |step| match step {
            Step::File(job) => (job.pair, job.bytes.to_string()),
            Step::Done(done) => (done.pair, done.error.unwrap()),
        };
        let told = std::iter::from_fn(|| found.try_recv().ok()).map(told);
        told.map(|(pair, what)| (String::from_utf8(pair.name).unwrap(), what)).collect()
    }

    #[test]
    fn files_come_in_order_and_what_is_none_is_told_by_its_kind() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("b/empty")).unwrap();
        std::fs::write(at("b/2"), "22").unwrap();
        std::fs::write(at("a"), "1").unwrap();
        symlink("a", at("c")).unwrap();
        symlink("nowhere", at("d")).unwrap();
        symlink("..", at("b/3")).unwrap();
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, at("e"), fifo, 0o600.into(), 0).unwrap();

        let found = walked(folder.path(), false);
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["p/a", "p/b/2", "p/b/3", "p/c", "p/d", "p/e"]);
        assert_eq!((found[0].1.as_str(), found[1].1.as_str()), ("1", "2"));
        for link in [2, 3, 4] {
            assert!(found[link].1.contains("symbolic link; --dereference"), "{found:?}");
        }
        assert!(found[5].1.contains("it is a FIFO"), "{found:?}");

        let found = walked(folder.path(), true);
        assert!(found[2].1.contains("leads back to a directory that it is in"), "{found:?}");
        assert_eq!(found[3], ("p/c".to_owned(), "1".to_owned()));
        assert!(found[4].1.contains("No such file"), "{found:?}");
    }

    #[test]
    fn a_directory_that_vanished_is_told_and_the_rest_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let found = walked(&folder.path().join("gone"), false);
        assert_eq!(found.len(), 1);
        assert!(found[0].1.contains("is left out: No such file"), "{found:?}");
    }
}

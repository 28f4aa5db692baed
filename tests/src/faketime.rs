//! Processes whose wall clock is wrong, by libfaketime. Their monotonic clock is
//! left alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Where `deploy/libfaketime.sh` unpacks it, below the target directory.
const LIBRARY: &str = "tools/faketime/libfaketime.so.1";

/// A wall clock that is wrong by as much as it is told, and can be set again while
/// processes go by it.
#[derive(Debug)]
pub struct WrongClock {
    library: PathBuf,
    folder: TempDir,
}

impl WrongClock {
    /// A clock that is ahead by so many seconds, or behind when negative. `None`
    /// when this machine has no libfaketime, which is said on stderr.
    ///
    /// # Panics
    /// When there is none though `CI` is set.
    pub fn ahead_by(seconds: i64) -> Option<Self> {
        let Some(library) = library() else {
            let how = "run deploy/libfaketime.sh";
            assert!(std::env::var_os("CI").is_none(), "there is no libfaketime: {how}");
            eprintln!("skipped: there is no libfaketime, {how}");
            return None;
        };
        let folder = TempDir::new().expect("a temporary folder");
        let clock = Self { library, folder };
        clock.set_ahead_by(seconds);
        Some(clock)
    }

    /// Sets it again, at once for all processes that go by it.
    pub fn set_ahead_by(&self, seconds: i64) {
        // Renamed into place: a process may read it at any moment.
        let (new, file) = (self.folder.path().join("new"), self.file());
        fs::write(&new, format!("{seconds:+}\n")).expect("the folder is ours");
        fs::rename(new, file).expect("the folder is ours");
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("clock")
    }

    fn variables(&self) -> [(&'static str, PathBuf); 4] {
        [
            ("LD_PRELOAD", self.library.clone()),
            ("FAKETIME_TIMESTAMP_FILE", self.file()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }

    /// What a shell does so that the process which it becomes goes by this clock.
    pub fn shell(&self) -> String {
        let export = |(name, value): &(_, PathBuf)| format!("export {name}='{}'", value.display());
        self.variables().iter().map(export).collect::<Vec<_>>().join("\n")
    }

    /// Has a command go by this clock.
    pub fn apply(&self, command: &mut Command) {
        command.envs(self.variables());
    }
}

/// Beside the test that runs, which lies in `TARGET/PROFILE/deps`, or in the
/// repository's own target directory.
fn library() -> Option<PathBuf> {
    let test = std::env::current_exe().ok()?;
    let own = test.ancestors().nth(3)?.join(LIBRARY);
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?.join("target").join(LIBRARY);
    [own, repository].into_iter().find(|path| path.is_file())
}

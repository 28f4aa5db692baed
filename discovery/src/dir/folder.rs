//! The directory of one cluster: reading it and writing to it.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::num::NonZeroU64;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::living::{self, Entry};
use super::lock::WriteLock;
use crate::assemble::Assembly;
use crate::document;
use crate::error::DiscoveryError;
use crate::model::{Living, Member, Recorded, Revision, Settings, Snapshot};
use crate::records;
use crate::validate::{self, MEMBERS_MAX, RECORD_BYTES_MAX};

/// The kernel says that a dying process closed its entry a moment before it
/// frees the lock; longer than this it never takes.
const SETTLE_MAX: Duration = Duration::from_millis(50);
/// How often the lock is looked at meanwhile.
const SETTLE_INTERVAL: Duration = Duration::from_millis(1);

/// The paths of one cluster.
#[derive(Debug)]
pub(super) struct Folder {
    cluster: String,
    directory: PathBuf,
    members: PathBuf,
    living: PathBuf,
    /// Whether this process has seen the directory.
    was_there: AtomicBool,
}

/// The content of a member's file.
#[derive(Debug, Serialize, Deserialize)]
struct MemberRecord {
    member: Member,
    revision: NonZeroU64,
}

impl Folder {
    /// The place of the living among [`directories`](Self::directories).
    pub(super) const LIVING: usize = 2;

    pub(super) fn new(root: &Path, cluster: &str) -> Self {
        let directory = root.join(cluster);
        Self {
            cluster: cluster.to_owned(),
            members: directory.join("members"),
            living: directory.join("living"),
            directory,
            was_there: AtomicBool::new(false),
        }
    }

    pub(super) fn directories(&self) -> [&Path; 3] {
        [&self.directory, &self.members, &self.living]
    }

    pub(super) fn create_directories(&self) -> Result<(), DiscoveryError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        self.directories().into_iter().try_for_each(|path| {
            let created = builder.create(path);
            created.map_err(|error| DiscoveryError::io("create", path, error))
        })?;
        self.was_there.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Looking creates nothing: a directory that never was there is a cluster
    /// that no server ever joined, and one that went away is a failure.
    pub(super) fn snapshot(&self) -> Result<Snapshot, DiscoveryError> {
        match self.read() {
            Err(error) if error.is_not_found() && !self.was_there.load(Ordering::Relaxed) => {
                Ok(Snapshot::default())
            }
            Ok(snapshot) => {
                self.was_there.store(true, Ordering::Relaxed);
                Ok(snapshot)
            }
            failed => failed,
        }
    }

    fn read(&self) -> Result<Snapshot, DiscoveryError> {
        let mut assembly = Assembly::default();
        for name in record_names(&self.members, &mut assembly)? {
            self.collect_member(&name, &mut assembly)?;
        }
        for name in record_names(&self.living, &mut assembly)? {
            self.collect_living(&name, &mut assembly)?;
        }
        Ok(assembly.finish(self.settings()?))
    }

    fn collect_member(&self, name: &str, assembly: &mut Assembly) -> Result<(), DiscoveryError> {
        match self.member(name).transpose() {
            Some(found) => records::take_member(assembly, name, found)?,
            // A link to nothing is there, and will be; no program of ours made it.
            None if self.member_path(name).is_symlink() => {
                assembly.unreadable(name, "its file is a link to nothing; remove it");
            }
            // Removed since the directory was listed.
            None => {}
        }
        Ok(())
    }

    fn collect_living(&self, name: &str, assembly: &mut Assembly) -> Result<(), DiscoveryError> {
        match self.living(name).transpose() {
            Some(found) => records::take_living(assembly, name, found),
            None => Ok(()),
        }
    }

    fn settings(&self) -> Result<Option<Settings>, DiscoveryError> {
        let path = self.settings_path();
        let settings: Settings = match document::read_json(&path, RECORD_BYTES_MAX) {
            Ok(settings) => settings,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        records::checked_settings(&path.to_string_lossy(), &self.cluster, settings).map(Some)
    }

    fn member(&self, name: &str) -> Result<Option<Recorded<Member>>, DiscoveryError> {
        let path = self.member_path(name);
        let record: MemberRecord = match document::read_json(&path, RECORD_BYTES_MAX) {
            Ok(record) => record,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let value = records::checked_member(&path.to_string_lossy(), name, record.member)?;
        Ok(Some(Recorded { value, revision: Revision(record.revision.get()) }))
    }

    fn living(&self, name: &str) -> Result<Option<Living>, DiscoveryError> {
        let living = living::read(&self.living_path(name))?;
        if let Some(living) = &living {
            validate::same_name(name, &living.name)?;
        }
        Ok(living)
    }

    pub(super) fn create_settings(&self, settings: &Settings) -> Result<Settings, DiscoveryError> {
        validate::settings(settings)?;
        records::check_cluster(&self.cluster, &settings.cluster)?;
        let _lock = self.lock()?;
        if let Some(existing) = self.settings()? {
            return Ok(existing);
        }
        document::replace_json(&self.settings_path(), settings)?;
        Ok(settings.clone())
    }

    pub(super) fn write_member(
        &self,
        member: &Member,
        expected: Revision,
    ) -> Result<Revision, DiscoveryError> {
        validate::member(member)?;
        let lock = self.lock()?;
        let found = self.check_revision(&member.name, expected)?;
        let revision = lock.next_revision(found)?;
        let member = member.clone();
        let path = self.member_path(&member.name);
        document::replace_json(&path, &MemberRecord { member, revision })?;
        Ok(Revision(revision.get()))
    }

    pub(super) fn remove_member(
        &self,
        name: &str,
        expected: Revision,
    ) -> Result<(), DiscoveryError> {
        validate::name(name)?;
        let _lock = self.lock()?;
        self.check_revision(name, expected)?;
        document::remove_if_there(&self.member_path(name))
    }

    /// A record that cannot be read is not overwritten: it may say that the
    /// member is draining.
    fn check_revision(&self, name: &str, expected: Revision) -> Result<Revision, DiscoveryError> {
        let record = self.member(name)?;
        let found = record.map_or(Revision::ABSENT, |record| record.revision);
        if found == expected {
            return Ok(found);
        }
        Err(DiscoveryError::Conflict { name: name.to_owned(), expected, found })
    }

    pub(super) fn announce(&self, living: &Living) -> Result<Entry, DiscoveryError> {
        validate::living(living)?;
        let _lock = self.lock()?;
        let path = self.living_path(&living.name);
        if living::held(&path)?.is_some() {
            return Err(self.name_taken(&living.name));
        }
        Entry::create(&path, living)
    }

    fn name_taken(&self, name: &str) -> DiscoveryError {
        let holder = self.living(name).ok().flatten();
        DiscoveryError::NameTaken {
            name: name.to_owned(),
            address: holder.as_ref().map(Living::address).unwrap_or_default(),
            incarnation: holder.and_then(|holder| holder.incarnation),
        }
    }

    /// Waits until the locks of closed entries are free, but not for long: an
    /// entry can also be closed by somebody else than its server.
    pub(super) fn settle(&self, closed: &[String]) -> Result<(), DiscoveryError> {
        let deadline = Instant::now() + SETTLE_MAX;
        for name in closed {
            let path = self.living_path(name);
            while matches!(living::held(&path), Ok(Some(_))) && Instant::now() < deadline {
                thread::sleep(SETTLE_INTERVAL);
            }
        }
        Ok(())
    }

    /// Whoever writes creates the directories, also those that somebody removed.
    fn lock(&self) -> Result<WriteLock, DiscoveryError> {
        self.create_directories()?;
        WriteLock::acquire(&self.directory.join("lock"))
    }

    fn settings_path(&self) -> PathBuf {
        self.directory.join("settings.json")
    }

    fn member_path(&self, name: &str) -> PathBuf {
        self.members.join(format!("{name}.json"))
    }

    fn living_path(&self, name: &str) -> PathBuf {
        self.living.join(format!("{name}.json"))
    }
}

/// The name in the name of a record's file. Names that start with a dot are
/// those of temporary files.
pub(super) fn record_name(file_name: &str) -> Option<&str> {
    let name = file_name.strip_suffix(".json")?;
    validate::name(name).is_ok().then_some(name)
}

/// The names of all records of a directory, of too many the first in order,
/// so that all readers agree.
fn record_names(
    directory: &Path,
    assembly: &mut Assembly,
) -> Result<BTreeSet<String>, DiscoveryError> {
    let failed = |error| DiscoveryError::io("list", directory, error);
    let mut names = BTreeSet::new();
    let mut too_many = 0_usize;
    for entry in directory.read_dir().map_err(failed)? {
        let file_name = entry.map_err(failed)?.file_name();
        let file_name = file_name.to_string_lossy();
        match record_name(&file_name) {
            Some(name) => _ = names.insert(name.to_owned()),
            None if file_name.starts_with('.') => {}
            None => assembly.complain(format_args!(
                "{}/{} ignored: expected NAME.json",
                directory.display(),
                crate::text::shown(&file_name)
            )),
        }
        if names.len() > MEMBERS_MAX {
            names.pop_last();
            too_many += 1;
        }
    }
    if too_many > 0 {
        assembly.complain(format_args!(
            "{too_many} records in {} ignored: expected at most {MEMBERS_MAX}",
            directory.display()
        ));
    }
    Ok(names)
}

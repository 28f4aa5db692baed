//! `file:` a list of servers in a TOML file that people edit.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::assemble::Assembly;
use crate::backend::Backend;
use crate::blocking::blocking;
use crate::document;
use crate::error::{DiscoveryError, explained};
use crate::events::DirectoryEvents;
use crate::listed;
use crate::model::{Living, Member, MemberState, Recorded, Revision, Settings, Snapshot, Strategy};
use crate::validate::{self, DOCUMENT_BYTES_MAX};

/// How often the file is looked at, for file systems and ways of replacing it
/// that the kernel tells nothing about.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// `file:PATH`: members that change when somebody edits a TOML file.
///
/// ```toml
/// [settings]                     # optional, as is each key
/// cluster = "lab"                # checked when given
/// strategy = "rendezvous"        # or ring, clone
/// replicas_max = 3
///
/// [[member]]
/// name = "node-1"
/// address = "10.0.0.1:7000"      # or a host name; IPv6 in brackets
/// weight = 4                     # 1 unless given
/// zone = "rack-1"                # none unless given
///
/// [[member]]
/// name = "node-2"
/// unix_socket = "/run/node-2"    # of the machine that reads this
/// state = "draining"             # ready unless given
/// ```
///
/// Unknown keys and entries that make no sense are complaints; a file without
/// any usable member is an error, because that is what a half-written file
/// often looks like. Replace the file by renaming a new one over it. Programs
/// cannot write to it. Changes are seen at once where the kernel tells of
/// them, else within a second.
#[derive(Debug)]
pub struct FileBackend {
    path: PathBuf,
    cluster: String,
    events: DirectoryEvents,
    seen: Arc<Mutex<Option<Fingerprint>>>,
}

/// What differs when a file was written or replaced.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl FileBackend {
    /// Watches the file at an absolute path; reads nothing yet.
    pub fn new(path: impl Into<PathBuf>, cluster: &str) -> Result<Self, DiscoveryError> {
        validate::name(cluster)?;
        let path = path.into();
        let parent = path.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(Self {
            path,
            cluster: cluster.to_owned(),
            events: DirectoryEvents::new(vec![parent]),
            seen: Arc::default(),
        })
    }

    async fn read(&self) -> Result<Snapshot, DiscoveryError> {
        self.events.arm();
        let (path, cluster, seen) = (self.path.clone(), self.cluster.clone(), self.seen.clone());
        blocking(move || {
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = fingerprint_at(&path);
            parse(&read_text(&path)?, &path, &cluster)
        })
        .await
    }

    async fn wait_for_change(&self) -> Result<(), DiscoveryError> {
        while timeout(POLL_INTERVAL, self.event()).await.is_err() {
            let path = self.path.clone();
            let now = blocking(move || Ok(fingerprint_at(&path))).await?;
            if now != *self.seen.lock().unwrap_or_else(PoisonError::into_inner) {
                break;
            }
        }
        Ok(())
    }

    /// Resolves when the kernel tells of a change of the file.
    async fn event(&self) {
        loop {
            let changes = self.events.next().await;
            let is_ours = |name| Some(name) == self.path.file_name();
            if changes.is_empty() || changes.iter().any(|change| is_ours(&*change.name)) {
                return;
            }
        }
    }
}

impl Backend for FileBackend {
    fn url(&self) -> String {
        format!("file:{}", self.path.display())
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, DiscoveryError>> {
        self.read().boxed()
    }

    fn changed(&self) -> BoxFuture<'_, Result<(), DiscoveryError>> {
        self.wait_for_change().boxed()
    }
}

impl From<&Metadata> for Fingerprint {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

fn fingerprint_at(path: &Path) -> Option<Fingerprint> {
    let metadata = path.metadata().ok()?;
    Some(Fingerprint::from(&metadata))
}

fn fingerprint_of(file: &File, path: &Path) -> Result<Fingerprint, DiscoveryError> {
    let metadata = file.metadata();
    let metadata = metadata.map_err(|error| DiscoveryError::io("look at", path, error))?;
    Ok(Fingerprint::from(&metadata))
}

fn read_text(path: &Path) -> Result<String, DiscoveryError> {
    let file = document::open(path)?;
    let before = fingerprint_of(&file, path)?;
    let bytes = document::read(&file, path, DOCUMENT_BYTES_MAX)?;
    if fingerprint_of(&file, path)? != before {
        return Err(DiscoveryError::ChangedWhileRead { path: path.into() });
    }
    String::from_utf8(bytes).map_err(|error| malformed(path, error))
}

fn malformed(
    path: &Path,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> DiscoveryError {
    DiscoveryError::malformed(path.to_string_lossy(), source)
}

type Unknown = BTreeMap<String, toml::Value>;

#[derive(Debug, Default, Deserialize)]
struct SettingsTable {
    cluster: Option<String>,
    strategy: Option<Strategy>,
    replicas_max: Option<u8>,
    #[serde(flatten)]
    unknown: Unknown,
}

#[derive(Debug, Deserialize)]
struct MemberTable {
    name: String,
    address: Option<String>,
    unix_socket: Option<PathBuf>,
    weight: Option<f64>,
    zone: Option<String>,
    state: Option<MemberState>,
    #[serde(flatten)]
    unknown: Unknown,
}

/// Members are left as they were found, so that one wrong entry spoils no
/// other.
#[derive(Debug, Deserialize)]
struct Document {
    #[serde(default)]
    settings: SettingsTable,
    #[serde(default)]
    member: Vec<toml::Value>,
    #[serde(flatten)]
    unknown: Unknown,
}

fn parse(text: &str, path: &Path, cluster: &str) -> Result<Snapshot, DiscoveryError> {
    let document: Document =
        toml::from_str(text).map_err(|error| malformed(path, place_and_problem(text, &error)))?;
    let settings = settings(&document.settings, cluster)?;
    let mut assembly = Assembly::default();
    complain_of(&mut assembly, "the file", &document.unknown);
    complain_of(&mut assembly, "[settings]", &document.settings.unknown);
    for (number, entry) in (1..).zip(document.member) {
        add_entry(&mut assembly, number, entry);
    }
    if assembly.has_members() {
        return Ok(assembly.finish(Some(settings)));
    }
    Err(DiscoveryError::NoMembers {
        what: path.to_string_lossy().into_owned(),
        ignored: assembly.complaint_count(),
    })
}

/// In one line; the parser draws a picture.
fn place_and_problem(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    format!("line {line}: {}", error.message())
}

fn settings(table: &SettingsTable, cluster: &str) -> Result<Settings, DiscoveryError> {
    let mut settings = Settings::new(cluster, 0);
    if let Some(found) = table.cluster.as_ref().filter(|found| *found != cluster) {
        return Err(DiscoveryError::WrongCluster {
            wanted: cluster.to_owned(),
            found: found.clone(),
        });
    }
    settings.strategy = table.strategy.unwrap_or(settings.strategy);
    settings.replicas_max = table.replicas_max.unwrap_or(settings.replicas_max);
    validate::settings(&settings)?;
    Ok(settings)
}

fn add_entry(assembly: &mut Assembly, number: usize, entry: toml::Value) {
    let name = entry.get("name").and_then(toml::Value::as_str);
    let name = name.map_or_else(|| format!("number {number}"), str::to_owned);
    let table: MemberTable = match from_value(entry) {
        Ok(table) => table,
        Err(error) => return assembly.unreadable(&name, explained(&error)),
    };
    complain_of(assembly, &format!("member \"{name}\""), &table.unknown);
    let living = living(&table);
    let value = Member {
        name: table.name,
        weight: table.weight.unwrap_or(1.0),
        zone: table.zone.unwrap_or_default(),
        state: table.state.unwrap_or_default(),
    };
    let revision = Revision(1);
    if assembly.add_member(Recorded { value, revision }) {
        assembly.add_living(living);
    }
}

fn from_value<T: DeserializeOwned>(value: toml::Value) -> Result<T, toml::de::Error> {
    value.try_into()
}

fn living(table: &MemberTable) -> Living {
    Living {
        name: table.name.clone(),
        tcp: table.address.clone(),
        unix_socket: table.unix_socket.clone(),
        host: listed::host_of(table.unix_socket.as_ref()),
        incarnation: None,
        store_id: None,
    }
}

fn complain_of(assembly: &mut Assembly, place: &str, unknown: &Unknown) {
    for key in unknown.keys() {
        let (place, key) = (crate::text::shown(place), crate::text::shown(key));
        assembly.complain(format_args!("{place} has an unknown key \"{key}\": ignored"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/etc/members.toml";

    fn parsed(text: &str) -> Result<Snapshot, DiscoveryError> {
        parse(text, Path::new(PATH), "lab")
    }

    /// The example of the documentation of [`FileBackend`].
    fn documented() -> String {
        let source = include_str!("file.rs");
        let lines = source.lines().skip_while(|line| *line != "/// ```toml").skip(1);
        let lines = lines.take_while(|line| *line != "/// ```");
        lines.map(|line| format!("{}\n", line.trim_start_matches("///"))).collect()
    }

    #[test]
    fn the_documented_example_is_read_without_a_complaint() {
        let snapshot = parsed(&documented()).unwrap();
        assert_eq!(snapshot.complaints, Vec::<String>::new());
        assert_eq!(snapshot.settings, Some(Settings::new("lab", 0)));
        let first = &snapshot.member("node-1").unwrap().value;
        assert_eq!((first.weight, first.zone.as_str()), (4.0, "rack-1"));
        assert_eq!(snapshot.alive("node-1").unwrap().address(), "10.0.0.1:7000");
        let second = &snapshot.member("node-2").unwrap().value;
        assert_eq!((second.weight, second.state), (1.0, MemberState::Draining));
        assert_eq!(snapshot.alive("node-2").unwrap().address(), "unix:/run/node-2");
    }

    #[test]
    fn each_garbage_entry_gives_one_complaint_and_the_rest_stays() {
        let garbage = [
            "name = 'a'\naddress = 'h:2'",
            "name = 'bad weight'\naddress = 'h:3'",
            "name = 'n1'\nweight = nan\naddress = 'h:4'",
            "name = 'n2'\nweight = -1\naddress = 'h:5'",
            "name = 'n3'\nweight = 1e308\naddress = 'h:6'",
            "name = 'n4'\nweight = 'heavy'\naddress = 'h:7'",
            "name = 'n5'\nstate = \"\\u001b[2J\"\naddress = 'h:8'",
            "address = 'h:9'",
            "name = 'n6'\naddress = '0.0.0.0:1'",
            "name = 'n7'\naddress = '169.254.169.254:80'",
            "name = 'n8'\naddress = 'h:1'",
            "name = 'n9'",
        ];
        let good = "[[member]]\nname = 'a'\naddress = 'h:1'\nweight = 2\n";
        for entry in garbage {
            let snapshot = parsed(&format!("{good}\n[[member]]\n{entry}\n")).unwrap();
            assert_eq!(snapshot.complaints.len(), 1, "{:?}", snapshot.complaints);
            assert!(!snapshot.complaints[0].contains('\x1b'), "{:?}", snapshot.complaints);
            assert_eq!(snapshot.member("a").unwrap().value.weight, 2.0);
            assert_eq!(snapshot.living.len(), 1, "{entry}");
        }
    }

    #[test]
    fn unknown_keys_are_complaints() {
        let text = "colour = 1\n[settings]\nsize = 2\n[[member]]\nname = 'a'\naddress = 'h:1'\nwieght = 3\n";
        assert_eq!(parsed(text).unwrap().complaints.len(), 3);
    }

    #[test]
    fn every_cut_of_the_example_is_an_error_or_has_whole_members() {
        let text = documented();
        let whole = parsed(&text).unwrap();
        let mut errors = 0;
        for length in 0..text.len() {
            let Ok(part) = parsed(&text[..length]) else {
                errors += 1;
                continue;
            };
            assert!(whole.member(&part.members[0].value.name).is_some());
        }
        assert!(errors > 100, "only {errors} cuts were refused");
    }

    #[test]
    fn a_file_that_is_no_toml_is_told_the_line() {
        let told = parsed("[settings]\n\ngarbage\n").unwrap_err().explained();
        assert!(told.contains("repair or remove it: line 3: key with no value"), "{told}");
    }

    #[test]
    fn settings_that_make_no_sense_are_an_error() {
        let member = "[[member]]\nname = 'a'\naddress = 'h:1'\n";
        for table in
            ["strategy = 'x'", "replicas_max = 0", "replicas_max = 255", "cluster = 'other'"]
        {
            assert!(parsed(&format!("[settings]\n{table}\n{member}")).is_err(), "{table}");
        }
    }
}

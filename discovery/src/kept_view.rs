//! The last good view of a cluster in a file, for clients that start while the service
//! is down.
//!
//! ```json
//! {"format": 1, "url": "consul://...", "cluster": "lab", "saved_unix_ms": 1767225600000,
//!  "settings": {...}, "members": [{"value": {...}, "revision": 7}], "living": [...],
//!  "doubted_unix_ms": null}
//! ```
//!
//! Among the living are members that were alive once, where they were seen last.
//! `doubted_unix_ms` says since when the service lacks many of the members.
//!
//! What is in it is checked like the answer of a service. Where it is wrong the client
//! finds out: servers say in the handshake who they are.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::assemble::Assembly;
use crate::blocking::blocking;
use crate::document;
use crate::error::DiscoveryError;
use crate::model::{Living, Member, Recorded, Settings, Snapshot};
use crate::random::random;
use crate::validate::{self, DOCUMENT_BYTES_MAX, RECORD_FORMAT};

/// The largest file: as many members as there may be, with all that is known of them.
const BYTES_MAX: u64 = 8 * DOCUMENT_BYTES_MAX;

/// The file of one client's view of one cluster. Many clients may share it: each
/// replaces it whole.
#[derive(Clone, Debug)]
pub struct KeptView {
    path: PathBuf,
    url: String,
    cluster: String,
}

/// A view as it was saved.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Kept {
    pub(crate) view: Snapshot,
    /// When.
    pub(crate) saved_unix_ms: u64,
    /// Since when the service lacks many of its members, if it does.
    pub(crate) doubted_unix_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Document {
    format: u64,
    url: String,
    cluster: String,
    saved_unix_ms: u64,
    settings: Option<Settings>,
    members: Vec<Recorded<Member>>,
    living: Vec<Living>,
    #[serde(default)]
    doubted_unix_ms: Option<u64>,
}

impl KeptView {
    /// The file at `path`, for views of a cluster by the back end with this URL (without
    /// secrets, see [`Backend::url`](crate::Backend::url)). Looks at nothing.
    pub fn new(path: impl Into<PathBuf>, url: impl Into<String>, cluster: &str) -> Self {
        Self { path: path.into(), url: url.into(), cluster: cluster.to_owned() }
    }

    /// The usual file of this user: `$XDG_CACHE_HOME/rampuddle`, else
    /// `$HOME/.cache/rampuddle`, and in it `CLUSTER-` and a number made of the URL.
    /// `None` where there is neither, and for lists, files and directories, which do
    /// not go away as services do.
    pub fn usual(url: &str, cluster: &str) -> Option<Self> {
        let has_network = |scheme: &str| !matches!(scheme, "static" | "file" | "dir");
        url.split_once(':').filter(|(scheme, _)| has_network(scheme))?;
        let absolute =
            |name| std::env::var_os(name).map(PathBuf::from).filter(|it| it.is_absolute());
        let home = || absolute("HOME").map(|home| home.join(".cache"));
        let folder = absolute("XDG_CACHE_HOME").or_else(home)?.join("rampuddle");
        let name = format!("{cluster}-{:016x}.json", number_of(url));
        Some(Self::new(folder.join(name), url, cluster))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was saved; `None` when nothing was. Fails when the file is not the user's
    /// own, makes no sense, or is of another cluster or service.
    pub(crate) fn load(&self) -> Result<Option<Kept>, DiscoveryError> {
        let file = match document::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata();
        let metadata =
            metadata.map_err(|error| DiscoveryError::io("look at", &self.path, error))?;
        let (path, user) = (self.path.clone(), rustix::process::geteuid().as_raw());
        let (owner, mode) = (metadata.uid(), metadata.mode() & 0o777);
        if owner != user {
            return Err(DiscoveryError::NotOurs { path, owner, user });
        }
        if mode & 0o022 != 0 {
            return Err(DiscoveryError::OpenToOthers { path, mode });
        }
        self.checked(document::read_open_json(&file, &self.path, BYTES_MAX)?).map(Some)
    }

    fn checked(&self, document: Document) -> Result<Kept, DiscoveryError> {
        for (wanted, found) in [(&self.cluster, &document.cluster), (&self.url, &document.url)] {
            if wanted != found {
                let (wanted, found) = (wanted.clone(), found.clone());
                return Err(DiscoveryError::WrongCluster { wanted, found });
            }
        }
        let malformed = |error| DiscoveryError::malformed(self.path.to_string_lossy(), error);
        document.settings.as_ref().map_or(Ok(()), validate::settings).map_err(malformed)?;
        let mut assembly = Assembly::default();
        for member in document.members {
            assembly.add_member(member);
        }
        document.living.into_iter().for_each(|living| assembly.add_living(living));
        let view = Snapshot { is_kept: true, ..assembly.finish(document.settings) };
        let Document { saved_unix_ms, doubted_unix_ms, .. } = document;
        Ok(Kept { view, saved_unix_ms, doubted_unix_ms })
    }

    /// Where a server was seen last, if that is kept. Fails as a client that would begin
    /// with the view does.
    pub async fn last_seen(&self, name: &str) -> Result<Option<Living>, DiscoveryError> {
        let (file, name) = (self.clone(), name.to_owned());
        blocking(move || Ok(file.load()?.and_then(|kept| kept.view.alive(&name).cloned()))).await
    }

    /// Takes a member out that was forgotten, so that nobody who starts wonders where it is.
    pub async fn forget(&self, name: &str) -> Result<(), DiscoveryError> {
        let (file, name) = (self.clone(), name.to_owned());
        blocking(move || {
            let Some(mut kept) = file.load()? else { return Ok(()) };
            kept.view.members.retain(|member| member.value.name != name);
            kept.view.living.retain(|living| living.name != name);
            file.save(&kept)
        })
        .await
    }

    /// Saves a view. Creates the folder, for this user only.
    pub(crate) fn save(&self, kept: &Kept) -> Result<(), DiscoveryError> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let created = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        created.map_err(|error| DiscoveryError::io("create", folder, error))?;
        let document = Document {
            format: RECORD_FORMAT,
            url: self.url.clone(),
            cluster: self.cluster.clone(),
            saved_unix_ms: kept.saved_unix_ms,
            settings: kept.view.settings.clone(),
            members: kept.view.members.clone(),
            living: kept.view.living.clone(),
            doubted_unix_ms: kept.doubted_unix_ms,
        };
        let temporary = self.temporary();
        let saved = write_new(&temporary, &document)
            .and_then(|()| document::rename(&temporary, &self.path));
        if saved.is_err() {
            // The failure is told already.
            let _ = document::remove_if_there(&temporary);
        }
        saved
    }

    /// A name of its own for each save. Many machines and containers may share a home, and
    /// numbers of processes are the same there.
    fn temporary(&self) -> PathBuf {
        let (process, number) = (std::process::id(), random());
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        self.path.with_file_name(format!(".{name}.{process}-{number:016x}.tmp"))
    }
}

/// FNV-1a of 64 bits (Fowler, Noll, Vo). The file says itself what it is of.
fn number_of(url: &str) -> u64 {
    let add = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    url.bytes().fold(0xCBF2_9CE4_8422_2325, add)
}

fn write_new(path: &Path, document: &Document) -> Result<(), DiscoveryError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let file = file.map_err(|error| DiscoveryError::io("create", path, error))?;
    document::write_json(&file, path, document)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::{Id, Revision};

    fn kept() -> Kept {
        let recorded = Recorded { value: Member::ready("a", 2.0), revision: Revision(7) };
        let view = Snapshot {
            settings: Some(Settings::new("lab", 1_000)),
            members: vec![recorded],
            living: vec![Living::at("a", "127.0.0.1:7", Id([1; 16]))],
            is_kept: true,
            ..Snapshot::default()
        };
        Kept { view, saved_unix_ms: 7, doubted_unix_ms: Some(8) }
    }

    fn file_in(folder: &Path) -> KeptView {
        KeptView::new(folder.join("views/lab.json"), "consul://h:8500/x", "lab")
    }

    #[test]
    fn what_was_saved_is_loaded_by_its_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = file_in(folder.path());
        assert_eq!(file.load().unwrap(), None);
        file.save(&kept()).unwrap();
        file.save(&kept()).unwrap();
        assert_eq!(file.load().unwrap(), Some(kept()));
        assert_eq!(file.path().metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(file.path().parent().unwrap().read_dir().unwrap().count(), 1);
        std::fs::set_permissions(file.path(), Permissions::from_mode(0o666)).unwrap();
        let refused = file.load().unwrap_err();
        assert!(matches!(refused, DiscoveryError::OpenToOthers { .. }), "{refused:?}");
    }

    #[test]
    fn no_two_saves_use_the_same_temporary_file() {
        let file = file_in(Path::new("/home"));
        let names: std::collections::HashSet<_> = (0..1_000).map(|_| file.temporary()).collect();
        assert_eq!(names.len(), 1_000);
    }

    #[test]
    fn only_services_have_a_usual_file() {
        for url in ["static:a=h:1", "file:/x", "dir:/x", "nonsense"] {
            assert!(KeptView::usual(url, "lab").is_none(), "{url}");
        }
        // The published value for "foobar".
        assert_eq!(number_of("foobar"), 0x8594_4171_F739_67E8);
    }

    #[test]
    fn a_view_of_another_cluster_or_service_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let file = file_in(folder.path());
        file.save(&kept()).unwrap();
        for other in [
            KeptView::new(file.path(), "consul://h:8500/x", "other"),
            KeptView::new(file.path(), "consul://h:8500/y", "lab"),
        ] {
            let refused = other.load().unwrap_err();
            assert!(matches!(refused, DiscoveryError::WrongCluster { .. }), "{refused:?}");
        }
    }

    #[test]
    fn rubbish_is_refused_and_what_makes_no_sense_in_it_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = file_in(folder.path());
        file.save(&kept()).unwrap();
        let whole = std::fs::read_to_string(file.path()).unwrap();
        for length in 0..whole.len() {
            std::fs::write(file.path(), &whole[..length]).unwrap();
            file.load().unwrap_err();
        }
        std::fs::write(file.path(), whole.replace("127.0.0.1:7", "0.0.0.0:7")).unwrap();
        let loaded = file.load().unwrap().unwrap().view;
        assert_eq!((loaded.members.len(), loaded.living.len()), (1, 0));
        std::fs::write(file.path(), whole.replace("\"weight\": 2.0", "\"weight\": -1")).unwrap();
        assert!(file.load().unwrap().unwrap().view.members.is_empty());
    }

    #[tokio::test]
    async fn a_member_that_was_forgotten_is_no_longer_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = file_in(folder.path());
        file.forget("a").await.unwrap();
        assert_eq!(file.last_seen("a").await.unwrap(), None);
        file.save(&kept()).unwrap();
        assert_eq!(file.last_seen("a").await.unwrap().unwrap().address(), "127.0.0.1:7");
        assert_eq!(file.last_seen("b").await.unwrap(), None);
        file.forget("a").await.unwrap();
        let view = file.load().unwrap().unwrap().view;
        assert!(view.members.is_empty() && view.living.is_empty(), "{view:?}");
        assert_eq!(view.settings, kept().view.settings);
    }
}

//! The sentences of all back ends, over each back end of this build.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use rampuddle_discovery::conformance::{Capability, Record, Report, Service, run};
use rampuddle_discovery::{
    Announcement, Backend, DiscoveryError, Living, Member, Revision, Settings, Snapshot, open,
};
use rustix::fs::FlockOperation;

fn directory_service() -> Service {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("lab");
    let living = Mutex::new(BTreeMap::new());
    let plant = move |record: Record<'_>, text: &str| match record {
        Record::Settings => replace(&root.join("settings.json"), text),
        Record::Member(name) => {
            let text = format!("{{\"revision\": 7, \"member\": {text}}}");
            replace(&root.join("members").join(format!("{name}.json")), &text);
        }
        Record::Living(name) => {
            let path = root.join("living").join(format!("{name}.json"));
            let file = locked(&path, text);
            living.lock().unwrap().insert(name.to_owned(), file);
        }
        _ => panic!("no place for {record:?}"),
    };
    let service = Service::new(move |cluster| {
        open(&format!("dir:{}", folder.path().display()), cluster).unwrap()
    });
    service.planting(plant)
}

fn replace(path: &Path, text: &str) {
    let temporary = path.with_file_name(".planted.tmp");
    std::fs::write(&temporary, text).unwrap();
    std::fs::rename(temporary, path).unwrap();
}

/// A file that is locked as long as it is open, as that of a living server is.
fn locked(path: &Path, text: &str) -> File {
    let temporary = path.with_file_name(".planted.tmp");
    std::fs::write(&temporary, text).unwrap();
    let file = File::open(&temporary).unwrap();
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    std::fs::rename(temporary, path).unwrap();
    file
}

/// What folders and files are of: its locks and its news are what is tested.
fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}, {}", release.trim(), std::env::temp_dir().display())
}

fn assert_count(backend: &str, against: &str, report: &Report, count: usize) {
    println!("{}", report.told(backend, against));
    assert_eq!(report.sentences.len(), count);
}

#[tokio::test]
async fn a_directory_conforms() {
    let report = run(directory_service, Capability::Records).await;
    assert_count("dir", &kernel(), &report, 24);
}

#[tokio::test]
async fn a_static_list_conforms() {
    let url = "static:b=127.0.0.1:7001,a=127.0.0.1:7000*2,c=[::1]:7002";
    let service = || Service::new(move |cluster| open(url, cluster).unwrap());
    let report = run(service, Capability::Lists).await;
    assert_count(
        "static",
        concat!("no service, rampuddle-discovery ", env!("CARGO_PKG_VERSION")),
        &report,
        7,
    );
}

#[tokio::test]
async fn a_file_conforms() {
    let service = || {
        let file = tempfile::NamedTempFile::new().unwrap();
        let entry =
            |name, port| format!("[[member]]\nname = \"{name}\"\naddress = \"127.0.0.1:{port}\"\n");
        std::fs::write(&file, [entry("b", 7001), entry("a", 7000)].concat()).unwrap();
        Service::new(move |cluster| {
            open(&format!("file:{}", file.path().display()), cluster).unwrap()
        })
    };
    let report = run(service, Capability::Lists).await;
    assert_count("file", &kernel(), &report, 7);
}

/// A back end with a planted bug: it compares no revisions.
#[derive(Debug)]
struct Careless {
    inner: Arc<dyn Backend>,
}

impl Backend for Careless {
    fn url(&self) -> String {
        self.inner.url()
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, DiscoveryError>> {
        self.inner.snapshot()
    }

    fn changed(&self) -> BoxFuture<'_, Result<(), DiscoveryError>> {
        self.inner.changed()
    }

    fn create_settings<'a>(
        &'a self,
        settings: &'a Settings,
    ) -> BoxFuture<'a, Result<Settings, DiscoveryError>> {
        self.inner.create_settings(settings)
    }

    fn write_member<'a>(
        &'a self,
        member: &'a Member,
        _expected: Revision,
    ) -> BoxFuture<'a, Result<Revision, DiscoveryError>> {
        Box::pin(async move {
            let snapshot = self.inner.snapshot().await?;
            let found = snapshot.member(&member.name);
            let revision = found.map_or(Revision::ABSENT, |found| found.revision);
            self.inner.write_member(member, revision).await
        })
    }

    fn remove_member<'a>(
        &'a self,
        name: &'a str,
        expected: Revision,
    ) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        self.inner.remove_member(name, expected)
    }

    fn announce<'a>(
        &'a self,
        living: &'a Living,
    ) -> BoxFuture<'a, Result<Announcement, DiscoveryError>> {
        self.inner.announce(living)
    }
}

#[tokio::test]
async fn the_suite_catches_a_back_end_that_compares_no_revisions() {
    let careless = || {
        let folder = tempfile::tempdir().unwrap();
        Service::new(move |cluster| {
            let url = format!("dir:{}", folder.path().display());
            let inner = open(&url, cluster).unwrap();
            Arc::new(Careless { inner })
        })
    };
    let suite = tokio::spawn(async move { run(careless, Capability::Records).await });
    let failure = suite.await.expect_err("the planted bug went unseen").into_panic();
    let message = failure.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(message.contains("a conflict was expected"), "{message}");
}

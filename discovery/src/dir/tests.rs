use std::path::Path;

use super::*;
use crate::id::Id;

struct Fixture {
    folder: tempfile::TempDir,
    backend: DirBackend,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let backend = DirBackend::new(folder.path(), "lab").unwrap();
        backend.folder.create_directories().unwrap();
        Self { folder, backend }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("lab").join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    async fn write_member(&self, name: &str) -> Revision {
        let member = Member::ready(name, 1.0);
        let written = self.backend.write_member(&member, Revision::ABSENT).await;
        written.unwrap()
    }

    async fn complaints(&self) -> Vec<String> {
        self.backend.snapshot().await.unwrap().complaints
    }
}

fn node(name: &str, port: u16) -> Living {
    Living::at(name, format!("127.0.0.1:{port}"), Id([9; 16]))
}

#[tokio::test]
async fn garbage_entries_each_give_one_complaint_and_the_rest_stays() {
    let fixture = Fixture::new();
    fixture.write_member("good").await;
    let record = |text: &str| format!(r#"{{"member": {text}, "revision": 1}}"#);
    let garbage = [
        ("members/half.json", r#"{"member": {"na"#.to_owned()),
        ("members/empty.json", String::new()),
        ("members/other.json", record(r#"{"name": "good", "weight": 9}"#)),
        ("members/zero.json", record(r#"{"name": "zero", "weight": 0}"#)),
        ("members/huge.json", record(r#"{"name": "huge", "weight": 1e308}"#)),
        (
            "members/odd.json",
            record("{\"name\": \"odd\", \"weight\": 1, \"state\": \"\\u001b[2J\"}"),
        ),
        (
            "members/never.json",
            record(r#"{"name": "never", "weight": 1}"#)
                .replace("\"revision\": 1", "\"revision\": 0"),
        ),
        ("members/large.json", " ".repeat(100_000)),
        ("members/-x.json", String::new()),
        ("members/notes.txt", String::new()),
    ];
    for (count, (name, content)) in garbage.iter().enumerate() {
        fixture.write(name, content);
        let complaints = fixture.complaints().await;
        assert_eq!(complaints.len(), count + 1, "{name}: {complaints:#?}");
    }
    std::fs::create_dir(fixture.path("members/folder.json")).unwrap();
    let snapshot = fixture.backend.snapshot().await.unwrap();
    assert_eq!(snapshot.complaints.len(), garbage.len() + 1);
    assert!(!snapshot.complaints.concat().contains('\x1b'));
    assert_eq!(snapshot.members.len(), 1);
    assert_eq!(snapshot.member("good").unwrap().value.weight, 1.0);
    let unreadable = ["empty", "folder", "half", "huge", "large", "never", "odd", "other", "zero"];
    assert_eq!(snapshot.unreadable, unreadable);
}

#[tokio::test]
async fn of_too_many_records_all_readers_use_the_same() {
    let fixture = Fixture::new();
    let limit = validate::MEMBERS_MAX;
    for number in (0..limit + 5).rev() {
        fixture.write(&format!("members/n{number:05}.json"), "");
    }
    let snapshot = fixture.backend.snapshot().await.unwrap();
    assert_eq!(snapshot.unreadable.len(), limit);
    assert_eq!(snapshot.unreadable.last().unwrap(), "n09999");
    let first = &snapshot.complaints[0];
    assert!(first.starts_with("5 records in "), "{first}");
}

#[tokio::test]
async fn a_named_pipe_among_the_records_blocks_nobody() {
    let fixture = Fixture::new();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let path = fixture.path("members/pipe.json");
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert_eq!(fixture.complaints().await.len(), 1);
}

#[tokio::test]
async fn an_unreadable_record_is_not_overwritten() {
    let fixture = Fixture::new();
    fixture.write("members/a.json", "{");
    let written = fixture.backend.write_member(&Member::ready("a", 1.0), Revision::ABSENT).await;
    assert!(matches!(written, Err(DiscoveryError::Malformed { .. })), "{written:?}");
}

#[tokio::test]
async fn a_removed_and_rewritten_member_has_a_new_revision() {
    let fixture = Fixture::new();
    let first = fixture.write_member("a").await;
    fixture.backend.remove_member("a", first).await.unwrap();
    assert!(fixture.write_member("a").await > first);
}

#[tokio::test]
async fn a_stale_entry_means_nothing_and_is_replaced() {
    let fixture = Fixture::new();
    let stale = serde_json::to_string(&node("a", 1)).unwrap();
    fixture.write("living/a.json", stale);
    assert_eq!(fixture.backend.snapshot().await.unwrap().living, []);
    let announcement = fixture.backend.announce(&node("a", 2)).await.unwrap();
    let snapshot = fixture.backend.snapshot().await.unwrap();
    assert_eq!(snapshot.living, [node("a", 2)]);
    assert_eq!(snapshot.complaints, Vec::<String>::new());
    drop(announcement);
    assert!(!fixture.path("living/a.json").exists());
}

#[tokio::test]
async fn a_withdrawal_leaves_the_entry_of_a_successor() {
    let fixture = Fixture::new();
    let first = fixture.backend.announce(&node("a", 1)).await.unwrap();
    std::fs::remove_file(fixture.path("living/a.json")).unwrap();
    let second = fixture.backend.announce(&node("a", 2)).await.unwrap();
    first.withdraw().await.unwrap();
    let snapshot = fixture.backend.snapshot().await.unwrap();
    assert_eq!(snapshot.living, [node("a", 2)]);
    drop(second);
}

#[tokio::test]
async fn the_second_of_two_living_with_one_address_is_left_out() {
    let fixture = Fixture::new();
    let _first = fixture.backend.announce(&node("a", 1)).await.unwrap();
    let _second = fixture.backend.announce(&node("b", 1)).await.unwrap();
    let snapshot = fixture.backend.snapshot().await.unwrap();
    assert_eq!(snapshot.living, [node("a", 1)]);
    assert_eq!(snapshot.complaints.len(), 1);
}

#[tokio::test]
async fn looking_at_an_entry_never_hinders_looking_or_announcing() {
    let fixture = Fixture::new();
    let path = fixture.path("living/a.json");
    fixture.write("living/a.json", "");
    let looker = document_locked_shared(&path);
    assert!(living::held(&path).unwrap().is_none());
    let _entry = fixture.backend.announce(&node("a", 1)).await.unwrap();
    assert!(living::held(&path).unwrap().is_some());
    drop(looker);
}

fn document_locked_shared(path: &Path) -> std::fs::File {
    let file = crate::document::open(path).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared).unwrap();
    file
}

#[tokio::test]
async fn a_removed_directory_is_an_error_and_comes_back_with_the_next_write() {
    let fixture = Fixture::new();
    fixture.write_member("a").await;
    std::fs::remove_dir_all(fixture.path("")).unwrap();
    let missing = fixture.backend.snapshot().await;
    assert!(matches!(missing, Err(DiscoveryError::Io { .. })), "{missing:?}");
    fixture.write_member("a").await;
    assert_eq!(fixture.backend.snapshot().await.unwrap().members.len(), 1);
}

#[tokio::test]
async fn looking_at_a_directory_creates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let backend = DirBackend::new(folder.path().join("mistyped"), "lab").unwrap();
    assert_eq!(backend.snapshot().await.unwrap(), Snapshot::default());
    backend.changed().await.unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    backend.create_settings(&Settings::new("lab", 1)).await.unwrap();
    assert_eq!(backend.snapshot().await.unwrap().settings, Some(Settings::new("lab", 1)));
}

#[tokio::test]
async fn the_settings_of_another_cluster_are_refused() {
    let fixture = Fixture::new();
    let settings = serde_json::to_string(&Settings::new("other", 1)).unwrap();
    fixture.write("settings.json", settings);
    let refused = fixture.backend.snapshot().await;
    assert!(matches!(refused, Err(DiscoveryError::WrongCluster { .. })), "{refused:?}");
}

#[tokio::test]
async fn directories_and_records_are_for_the_user_alone() {
    use std::os::unix::fs::MetadataExt;
    let fixture = Fixture::new();
    fixture.write_member("a").await;
    for (path, mode) in
        [("", 0o700), ("living", 0o700), ("members", 0o700), ("members/a.json", 0o600)]
    {
        let metadata = fixture.path(path).metadata().unwrap();
        assert_eq!(metadata.mode() & 0o777, mode, "{path}");
    }
}

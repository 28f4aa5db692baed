//! What a watcher sees when its service fails, lies or comes back.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rampuddle_discovery::{
    Backend, DiscoveryError, Id, KeptView, Living, Member, MemberState, Recorded, Revision,
    Settings, Snapshot, Watch, WatchStart, open,
};
use tokio::sync::Notify;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

fn entry(name: &str, port: u16) -> String {
    format!("[[member]]\nname = \"{name}\"\naddress = \"127.0.0.1:{port}\"\n")
}

struct ListFile {
    folder: tempfile::TempDir,
}

impl ListFile {
    fn with(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = Self { folder };
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("members.toml")
    }

    fn replace(&self, text: &str) {
        let temporary = self.folder.path().join("new");
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(&temporary, self.path()).unwrap();
    }

    async fn watch(&self) -> Watch {
        let backend = open(&url(&self.path()), "lab").unwrap();
        Watch::start(backend, PATIENCE).await.unwrap()
    }
}

fn url(path: &Path) -> String {
    format!("file:{}", path.display())
}

fn names(snapshot: &Snapshot) -> Vec<&str> {
    let members = snapshot.members.iter();
    members.map(|recorded| recorded.value.name.as_str()).collect()
}

/// Waits for the view with these members; panics at any other on the way.
async fn next_names(watch: &mut Watch, expected: &[&str]) {
    let view = timeout(PATIENCE, watch.changed()).await.unwrap();
    assert_eq!(names(&view), expected);
}

#[tokio::test]
async fn a_half_written_vanished_or_empty_file_keeps_the_last_view() {
    let file = ListFile::with(&[entry("a", 1), entry("b", 2)].concat());
    let mut watch = file.watch().await;
    let both = ["a", "b"];
    assert_eq!(names(&watch.current()), both);

    let half = entry("c", 3);
    for broken in [&half[..half.len() / 2], "", "[[member]]\n", "[settings]\nstrategy = 'none'\n"] {
        file.replace(broken);
        assert!(file.fails().await, "{broken}");
        assert_eq!(names(&watch.current()), both);
    }
    std::fs::remove_file(file.path()).unwrap();
    assert!(file.fails().await);
    assert_eq!(names(&watch.current()), both);

    file.replace(&[entry("a", 1), entry("b", 2), entry("c", 3)].concat());
    next_names(&mut watch, &["a", "b", "c"]).await;
}

impl ListFile {
    async fn fails(&self) -> bool {
        let backend = open(&url(&self.path()), "lab").unwrap();
        backend.snapshot().await.is_err()
    }
}

#[tokio::test]
async fn an_edit_that_spoils_one_member_moves_nothing() {
    let file = ListFile::with(&[entry("a", 1), entry("b", 2)].concat());
    let mut watch = file.watch().await;
    file.replace(&[entry("a", 1), entry("b", 2), "weight = nan\n".to_owned()].concat());
    let view = timeout(PATIENCE, watch.changed()).await.unwrap();
    assert_eq!(names(&view), ["a", "b"]);
    assert_eq!(view.member("b").unwrap().value.weight, 1.0);
    assert_eq!((view.complaints.len(), view.unreadable.len()), (1, 1));
}

#[tokio::test]
async fn a_file_behind_a_link_is_watched_too() {
    let file = ListFile::with(&entry("a", 1));
    let other = tempfile::tempdir().unwrap();
    let link = other.path().join("members.toml");
    std::os::unix::fs::symlink(file.path(), &link).unwrap();
    let backend = open(&url(&link), "lab").unwrap();
    let mut watch = Watch::start(backend, PATIENCE).await.unwrap();
    file.replace(&[entry("a", 1), entry("b", 2)].concat());
    next_names(&mut watch, &["a", "b"]).await;
}

#[tokio::test]
async fn members_that_leave_one_by_one_do_leave() {
    let file = ListFile::with(&[entry("a", 1), entry("b", 2)].concat());
    let mut watch = file.watch().await;
    file.replace(&entry("b", 2));
    next_names(&mut watch, &["b"]).await;
}

/// A service that answers what the test says.
#[derive(Debug)]
struct Scripted {
    answer: Mutex<Option<Snapshot>>,
    asked: Notify,
    changed: Notify,
}

impl Scripted {
    fn with(answer: Option<Snapshot>) -> Arc<Self> {
        Arc::new(Self { answer: Mutex::new(answer), asked: Notify::new(), changed: Notify::new() })
    }

    /// Gives another answer, and waits until somebody heard it.
    async fn answer(&self, answer: Option<Snapshot>) {
        *self.answer.lock().unwrap() = answer;
        // One may have asked, and not been heard of, before the change.
        for _ in 0..2 {
            self.changed.notify_one();
            timeout(PATIENCE, self.asked.notified()).await.unwrap();
        }
    }
}

impl Backend for Scripted {
    fn url(&self) -> String {
        "scripted:".to_owned()
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, DiscoveryError>> {
        let answer = self.answer.lock().unwrap().clone();
        self.asked.notify_one();
        Box::pin(async { answer.ok_or(DiscoveryError::Stopped) })
    }

    fn changed(&self) -> BoxFuture<'_, Result<(), DiscoveryError>> {
        Box::pin(async {
            self.changed.notified().await;
            Ok(())
        })
    }
}

fn good_answer() -> Snapshot {
    let recorded = |name: &str| Recorded {
        value: Member { state: MemberState::Draining, ..Member::ready(name, 2.0) },
        revision: Revision(7),
    };
    Snapshot {
        settings: Some(Settings::new("lab", 1)),
        members: vec![recorded("a"), recorded("b")],
        living: vec![Living::at("a", "127.0.0.1:1", Id([1; 16]))],
        ..Snapshot::default()
    }
}

#[tokio::test]
async fn an_empty_answer_never_shrinks_the_members_but_the_living_go() {
    let service = Scripted::with(Some(good_answer()));
    let mut watch = Watch::start(service.clone(), PATIENCE).await.unwrap();
    assert_eq!(*watch.current(), good_answer());
    service.answer(Some(Snapshot::default())).await;
    let view = timeout(PATIENCE, watch.changed()).await.unwrap();
    let expected = Snapshot { living: Vec::new(), ..good_answer() };
    assert_eq!(*view, expected);
}

#[tokio::test]
async fn a_failing_service_keeps_the_last_view_and_is_asked_again() {
    let service = Scripted::with(Some(good_answer()));
    let mut watch = Watch::start(service.clone(), PATIENCE).await.unwrap();
    service.answer(None).await;
    assert_eq!(*watch.current(), good_answer());
    let mut later = good_answer();
    later.members.pop();
    *service.answer.lock().unwrap() = Some(later.clone());
    let view = timeout(PATIENCE, watch.changed()).await.unwrap();
    assert_eq!(*view, later);
}

async fn start_from(service: Arc<Scripted>, file: KeptView) -> Result<Watch, DiscoveryError> {
    let start = WatchStart { patience: PATIENCE, file: Some(file), answer: None };
    Watch::start_with(service, start).await
}

/// Waits until the file has this text in it: nobody who follows waits for a disk.
async fn until_kept(file: &KeptView, text: &str) {
    let has_it = async {
        while !std::fs::read_to_string(file.path()).unwrap().contains(text) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, has_it).await.expect("it is kept in time");
}

fn kept(view: Snapshot) -> Snapshot {
    Snapshot { is_kept: true, ..view }
}

#[tokio::test]
async fn a_watch_begins_with_the_view_that_was_kept_while_the_service_is_down_or_wiped() {
    let folder = tempfile::tempdir().unwrap();
    let file = KeptView::new(folder.path().join("view.json"), "scripted:", "lab");
    let start = async |answer| {
        let service = Scripted::with(answer);
        (service.clone(), start_from(service, file.clone()).await)
    };
    let (_, watch) = start(Some(good_answer())).await;
    assert_eq!(*watch.unwrap().current(), good_answer());

    let begun = std::time::Instant::now();
    let (service, watch) = start(None).await;
    let mut watch = watch.unwrap();
    assert_eq!(*watch.current(), kept(good_answer()));
    assert!(begun.elapsed() < PATIENCE / 2, "a kept view is not waited long for");
    // It is back: what it says counts, and is kept in turn.
    let mut later = good_answer();
    later.living.push(Living::at("b", "127.0.0.1:2", Id([2; 16])));
    *service.answer.lock().unwrap() = Some(later.clone());
    assert_eq!(*timeout(PATIENCE, watch.changed()).await.unwrap(), later);
    until_kept(&file, "127.0.0.1:2").await;
    drop(watch);

    let (service, watch) = start(Some(Snapshot::default())).await;
    let watch = watch.unwrap();
    assert_eq!(*watch.current(), kept(later.clone()), "wiped, it knows nobody's address");
    service.answer(Some(Snapshot::default())).await;
    let (_, watch) = start(None).await;
    assert_eq!(*watch.unwrap().current(), kept(later), "nothing is not kept");
}

#[tokio::test]
async fn a_kept_view_is_no_longer_one_when_the_service_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = KeptView::new(folder.path().join("view.json"), "scripted:", "lab");
    drop(start_from(Scripted::with(Some(good_answer())), file.clone()).await.unwrap());
    let service = Scripted::with(None);
    let mut watch = start_from(service.clone(), file).await.unwrap();
    assert_eq!(*watch.current(), kept(good_answer()));
    *service.answer.lock().unwrap() = Some(good_answer());
    assert_eq!(*timeout(PATIENCE, watch.changed()).await.unwrap(), good_answer());
}

#[tokio::test]
async fn who_starts_with_another_view_than_was_kept_is_told_both() {
    let folder = tempfile::tempdir().unwrap();
    let file = KeptView::new(folder.path().join("view.json"), "scripted:", "lab");
    let service = Scripted::with(Some(good_answer()));
    let watch = start_from(service.clone(), file.clone()).await.unwrap();
    assert_eq!(watch.seen_before(), None);
    let mut less = good_answer();
    less.members.pop();
    *service.answer.lock().unwrap() = Some(less.clone());
    // One look does not make the others forget.
    for _ in 0..2 {
        let watch = start_from(service.clone(), file.clone()).await.unwrap();
        assert_eq!(*watch.current(), less);
        assert_eq!(watch.seen_before(), Some(&kept(good_answer())));
    }
}

#[tokio::test]
async fn an_answer_that_is_there_already_is_not_asked_for() {
    let start = WatchStart { patience: PATIENCE, file: None, answer: Some(good_answer()) };
    let watch = Watch::start_with(Scripted::with(None), start).await.unwrap();
    assert_eq!(*watch.current(), good_answer());
}

#[tokio::test]
async fn a_view_file_that_cannot_be_used_is_no_hindrance() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("view.json");
    std::fs::write(&path, "rubbish").unwrap();
    let below_a_file = path.join("view.json");
    for path in [path, below_a_file] {
        let file = KeptView::new(path, "scripted:", "lab");
        let service = Scripted::with(Some(good_answer()));
        let watch = start_from(service, file).await.unwrap();
        assert_eq!(*watch.current(), good_answer());
    }
}

#[tokio::test]
async fn a_watch_that_never_got_an_answer_fails_with_the_last_failure() {
    let service = Scripted::with(None);
    let failed = Watch::start(service, Duration::from_millis(250)).await;
    assert!(matches!(failed, Err(DiscoveryError::Stopped)), "{failed:?}");
}

#[tokio::test]
async fn a_watch_ends_with_its_owner() {
    let service = Scripted::with(Some(good_answer()));
    let watch = Watch::start(service, PATIENCE).await.unwrap();
    let mut other = watch.subscribe();
    drop(watch);
    let ended = timeout(PATIENCE, other.changed()).await.unwrap();
    assert!(ended.is_err());
}

//! What may lie where a registry should be: things that are no files, entries that
//! make no sense. What a record may say that makes no sense is in the conformance
//! suite, for every back end that keeps records; documents of any size in `huge.rs`.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rampuddle_discovery::{Backend, Member, Revision, Settings, Snapshot, Watch, open};
use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};

const PATIENCE: Duration = Duration::from_secs(20);

fn names(view: &Snapshot) -> Vec<&str> {
    view.members.iter().map(|recorded| recorded.value.name.as_str()).collect()
}

/// A name for what is put in the place of a file, how it is made under another
/// name beside it (both are given), and what is said of it.
type Thing = (&'static str, fn(&Path, &Path), &'static str);

/// Things that are no file with a record in it.
const THINGS: &[Thing] = &[
    ("a folder", |path, _| std::fs::create_dir(path).unwrap(), "is not a regular file"),
    (
        "a folder that is full",
        |path, _| std::fs::create_dir_all(path.join("x/y")).unwrap(),
        "is not",
    ),
    ("a named pipe", pipe, "is not a regular file"),
    ("a socket", |path, _| drop(UnixListener::bind(path).unwrap()), "cannot open"),
    ("a link to itself", |path, named| symlink(named, path).unwrap(), "cannot open"),
    ("links in a circle", circle, "cannot open"),
    ("a link to a folder", |path, _| symlink("/", path).unwrap(), "is not a regular file"),
    (
        "a link to a device without end",
        |path, _| symlink("/dev/zero", path).unwrap(),
        "is not a reg",
    ),
    (
        "a link to a terminal",
        |path, _| symlink("/dev/ptmx", path).unwrap(),
        "is not a regular file",
    ),
    ("a link to a file of the kernel", |path, _| symlink("/proc/self/maps", path).unwrap(), ""),
    ("an empty file", |path, _| std::fs::write(path, "").unwrap(), ""),
    ("no text", |path, _| std::fs::write(path, [0xFF; 1_000]).unwrap(), ""),
    ("a picture", |path, _| std::fs::write(path, b"\x89PNG\r\n\x1a\n\0\0").unwrap(), ""),
];

fn pipe(path: &Path, _: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

fn circle(path: &Path, named: &Path) {
    let other = path.with_file_name(".other");
    symlink(&other, path).unwrap();
    // It may be there from before.
    let _ = symlink(named, other);
}

/// Puts a thing in the place of a file, in one step: nobody sees neither. What was
/// there is put back in the same way when this is dropped.
struct InPlace<'p> {
    path: &'p Path,
    beside: PathBuf,
}

impl<'p> InPlace<'p> {
    fn of(path: &'p Path, put: fn(&Path, &Path)) -> Self {
        let beside = path.with_file_name(".thing");
        put(&beside, path);
        let thing = Self { path, beside };
        thing.exchange();
        thing
    }

    fn exchange(&self) {
        renameat_with(CWD, &self.beside, CWD, self.path, RenameFlags::EXCHANGE).unwrap();
    }
}

impl Drop for InPlace<'_> {
    fn drop(&mut self) {
        self.exchange();
        if self.beside.is_dir() && !self.beside.is_symlink() {
            std::fs::remove_dir_all(&self.beside).unwrap();
        } else {
            std::fs::remove_file(&self.beside).unwrap();
        }
    }
}

/// A directory with two members and settings, and a client that watches it.
async fn directory() -> (tempfile::TempDir, Arc<dyn Backend>, Watch) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("dir:{}", folder.path().display());
    let backend = open(&url, "lab").unwrap();
    backend.create_settings(&Settings::new("lab", 1)).await.unwrap();
    for name in ["a", "b"] {
        backend.write_member(&Member::ready(name, 1.0), Revision::ABSENT).await.unwrap();
    }
    let watch = Watch::start(open(&url, "lab").unwrap(), PATIENCE).await.unwrap();
    (folder, backend, watch)
}

/// Waits for the view with so many complaints; no member is lost on the way.
async fn until_complaints(watch: &mut Watch, what: &str, count: usize) {
    while watch.current().complaints.len() != count {
        let changed = tokio::time::timeout(PATIENCE, watch.changed()).await;
        let view = changed.unwrap_or_else(|_| panic!("{what}: not seen"));
        assert_eq!(names(&view), ["a", "b"], "{what}");
    }
}

#[tokio::test]
async fn what_is_no_file_in_the_place_of_a_member_spoils_that_member_only() {
    let (folder, backend, mut watch) = directory().await;
    let path = folder.path().join("lab/members/b.json");
    let nothing: Thing =
        ("a link to nothing", |path, _| symlink("none", path).unwrap(), "a link to");
    let things = || THINGS.iter().chain([&nothing]);
    for (what, put, said) in things() {
        let thing = InPlace::of(&path, *put);
        let found = backend.snapshot().await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((names(&found), &found.unreadable[..]), (vec!["a"], &["b".to_owned()][..]));
        assert!(found.complaints.len() == 1, "{what}: {:?}", found.complaints);
        assert!(found.complaints[0].contains(said), "{what}: {:?}", found.complaints);
        until_complaints(&mut watch, what, 1).await;
        assert_eq!(names(&watch.current()), ["a", "b"], "{what}");
        // It may say that the member is draining: nobody writes over it.
        let written = backend.write_member(&Member::ready("b", 2.0), Revision::ABSENT).await;
        assert!(written.is_err() || *what == "a link to nothing", "{what}: {written:?}");
        drop(thing);
        until_complaints(&mut watch, what, 0).await;
    }
    println!("things in the place of a member: {}", things().count());
}

#[tokio::test]
async fn what_is_no_file_in_the_place_of_the_settings_is_an_error_and_the_view_stays() {
    let (folder, backend, watch) = directory().await;
    let path = folder.path().join("lab/settings.json");
    for (what, put, said) in THINGS {
        let _thing = InPlace::of(&path, *put);
        let error = backend.snapshot().await.expect_err(what).explained();
        assert!(error.contains(said) && error.contains("settings.json"), "{what}: {error}");
        let created = backend.create_settings(&Settings::new("lab", 2)).await;
        assert!(created.is_err(), "{what}: {created:?}");
        assert_eq!(names(&watch.current()), ["a", "b"], "{what}");
        assert_eq!(watch.current().settings, Some(Settings::new("lab", 1)), "{what}");
    }
}

#[tokio::test]
async fn what_is_no_file_in_the_place_of_a_list_is_an_error_and_the_view_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("members.toml");
    std::fs::write(&path, "member = [{name='a', address='h:1'}]").unwrap();
    let url = format!("file:{}", path.display());
    let (backend, watch) = (open(&url, "lab").unwrap(), open(&url, "lab").unwrap());
    let watch = Watch::start(watch, PATIENCE).await.unwrap();
    for (what, put, said) in THINGS {
        let _thing = InPlace::of(&path, *put);
        let error = backend.snapshot().await.expect_err(what).explained();
        assert!(error.contains(said) && error.contains("members.toml"), "{what}: {error}");
        assert_eq!(names(&watch.current()), ["a"], "{what}");
    }
}

/// Entries beside a good one, and what is said of them.
const ENTRIES: &[(&str, &str)] = &[
    ("name='b'\naddress='0.0.0.0:7'", "is unspecified: expected one at which clients reach"),
    ("name='b'\naddress='[::]:7'", "is unspecified"),
    ("name='b'\naddress='169.254.169.254:80'", "is link-local"),
    ("name='b'\naddress='[fd00:ec2::254]:80'", "is a cloud's metadata service"),
    ("name='b'\naddress='224.0.0.1:7'", "is multicast"),
    ("name='b'\naddress='255.255.255.255:7'", "is broadcast"),
    ("name='b'\naddress='10.0.0.1:0'", "expected HOST:PORT with a port from 1 to 65535"),
    ("name='b'\naddress='10.0.0.1:99999'", "expected HOST:PORT"),
    ("name='b'\naddress='http://h:7'", "expected HOST:PORT"),
    ("name='b'\naddress=7", "invalid type: integer"),
    ("name='b'\naddress='H:1'", "its address h:1 is that of \"a\""),
    ("name='b'\nunix_socket='relative'", "expected an absolute path"),
    ("name='b'", "has neither an address nor a unix socket"),
    ("address='h:7'", "missing field `name`"),
    ("name='a'\naddress='h:7'", "is there twice: expected once"),
    ("name=''\naddress='h:7'", "expected 1 to 64 of A-Z a-z 0-9"),
    ("name='../b'\naddress='h:7'", "expected 1 to 64 of A-Z a-z 0-9"),
    ("name=\"b\\u001b[2J\"\naddress='h:7'", "expected 1 to 64 of A-Z a-z 0-9"),
    ("name=7\naddress='h:7'", "invalid type: integer"),
    ("name='b'\naddress='h:7'\nweight=0", "expected more than 0 and at most 1000000"),
    ("name='b'\naddress='h:7'\nweight=-1", "expected more than 0"),
    ("name='b'\naddress='h:7'\nweight=nan", "expected more than 0"),
    ("name='b'\naddress='h:7'\nweight=inf", "expected more than 0"),
    ("name='b'\naddress='h:7'\nweight=1e308", "the weight 1e308 of \"b\" is not allowed"),
    ("name='b'\naddress='h:7'\nweight='1'", "invalid type: string"),
    ("name='b'\naddress='h:7'\nzone=\"a\\nb\"", "bytes that can be printed"),
    ("name='b'\naddress='h:7'\nstate='gone'", "expected one of `joining`"),
    ("name='b'\naddress='h:7'\nwieght=1", "unknown key \"wieght\": ignored"),
];

#[tokio::test]
async fn an_entry_that_makes_no_sense_is_told_in_one_line_and_the_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("members.toml");
    let backend = open(&format!("file:{}", path.display()), "lab").unwrap();
    for (entry, said) in ENTRIES {
        let text = format!("[[member]]\nname='a'\naddress='h:1'\n[[member]]\n{entry}\n");
        std::fs::write(&path, text).unwrap();
        let found = backend.snapshot().await.unwrap();
        assert_eq!(found.complaints.len(), 1, "{entry}: {:?}", found.complaints);
        let complaint = &found.complaints[0];
        assert!(complaint.contains(said), "{entry}: {complaint}");
        assert!(!complaint.contains(char::is_control), "{entry}: {complaint:?}");
        assert!(found.alive("a").is_some(), "{entry}");
        let is_taken = said.contains("unknown key");
        assert_eq!(found.alive("b").is_some(), is_taken, "{entry}");
    }
    println!("entries of a list: {}", ENTRIES.len());
}

#[tokio::test]
async fn a_member_of_a_newer_form_is_kept_as_it_was_and_not_written_over() {
    let (folder, backend, mut watch) = directory().await;
    let path = folder.path().join("lab/members/b.json");
    let newer = "{\"format\": 2, \"member\": {\"b\": [1, 2]}, \"revision\": 9}";
    std::fs::write(&path, newer).unwrap();
    until_complaints(&mut watch, "a newer form", 1).await;
    let view = watch.current();
    assert!(view.complaints[0].contains("use the version that wrote it"), "{:?}", view.complaints);
    assert_eq!(names(&view), ["a", "b"]);
    let written = backend.write_member(&Member::ready("b", 2.0), Revision(9)).await;
    assert!(written.is_err(), "{written:?}");
    assert_eq!(std::fs::read_to_string(path).unwrap(), newer);
}

#[tokio::test]
async fn when_there_is_no_later_revision_nothing_is_written() {
    let (folder, backend, _watch) = directory().await;
    let path = folder.path().join("lab/members/b.json");
    let last =
        format!("{{\"member\": {{\"name\": \"b\", \"weight\": 1}}, \"revision\": {}}}", u64::MAX);
    std::fs::write(&path, &last).unwrap();
    let written = backend.write_member(&Member::ready("b", 2.0), Revision(u64::MAX)).await;
    let said = written.unwrap_err().explained();
    assert!(said.contains("there is no later one"), "{said}");
    assert_eq!(std::fs::read_to_string(path).unwrap(), last);
}

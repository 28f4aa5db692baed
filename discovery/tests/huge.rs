//! Registries far larger than any cluster, and documents made to be hard to read:
//! refused or cut by a limit, in bounded memory. Alone in its process, whose memory
//! is looked at.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rampuddle_discovery::validate::{DOCUMENT_BYTES_MAX, MEMBERS_MAX};
use rampuddle_discovery::{Backend, Snapshot, Watch, open};

const PATIENCE: Duration = Duration::from_secs(20);
const MIB: u64 = 1 << 20;
const HUGE: u64 = 100_000_000;
/// What reading a registry may take at most, however it is made, here and in the
/// client that watches it at the same time.
const READING_BYTES_MAX: u64 = 384 * MIB;

/// What the kernel says of this process's memory, in bytes.
fn memory(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let found = status.lines().find_map(|text| text.strip_prefix(line));
    let kib = found.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.expect("the kernel says it") * 1024
}

/// A service with two members that a client watches, and a look at the memory that
/// reading it takes.
struct Watched {
    backend: Arc<dyn Backend>,
    watch: Watch,
    before: Arc<Snapshot>,
}

impl Watched {
    async fn start(url: &str) -> Self {
        let backend = open(url, "lab").unwrap();
        let watch = Watch::start(open(url, "lab").unwrap(), PATIENCE).await.unwrap();
        let before = watch.current();
        assert_eq!(before.members.len(), 2);
        Self { backend, watch, before }
    }

    /// Reads, and fails when that took too much memory. What was refused must have
    /// words, and leaves the view as it was.
    async fn refuses(&self, name: &str, words: &str) {
        let said = match self.read(name).await {
            Ok(found) => panic!("{name}: {} members were taken", found.members.len()),
            Err(said) => said,
        };
        assert!(said.contains(words) && said.len() < 1_500, "{name}: {said}");
        assert_eq!(self.watch.current(), self.before, "{name}");
    }

    async fn read(&self, name: &str) -> Result<Snapshot, String> {
        // Forgets the greatest size so far.
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = memory("VmRSS:");
        let read = self.backend.snapshot().await.map_err(|error| error.explained());
        let took = memory("VmHWM:").saturating_sub(before);
        println!("huge: {name}: {} MiB", took / MIB);
        assert!(took < READING_BYTES_MAX, "{name}: {took} bytes of memory");
        read
    }
}

fn replace(path: &Path, bytes: &[u8]) {
    replace_long(path, bytes, bytes.len() as u64);
}

/// What follows `bytes` up to the length is zeros, which take no room on a disk.
fn replace_long(path: &Path, bytes: &[u8], length: u64) {
    let temporary = path.with_file_name(".new");
    std::fs::write(&temporary, bytes).unwrap();
    File::options().write(true).open(&temporary).unwrap().set_len(length).unwrap();
    std::fs::rename(temporary, path).unwrap();
}

/// As many pieces as a document may have bytes for, between two texts.
fn filled(begin: &str, piece: impl Fn(usize) -> String, end: &str) -> Vec<u8> {
    let mut text = begin.to_owned();
    for number in 0.. {
        let next = piece(number);
        if text.len() + next.len() + end.len() > DOCUMENT_BYTES_MAX as usize {
            break;
        }
        text += &next;
    }
    (text + end).into_bytes()
}

fn repeated(begin: &str, piece: &str, count: usize, end: &str) -> Vec<u8> {
    [begin, &piece.repeat(count), end].concat().into_bytes()
}

const NOT_TOML: &str = "is not what it should be: repair or remove it: line 1";
const NO_MEMBER: &str = "lists no usable member";
const TOO_LARGE: &str = "has more than 2097152 bytes: expected at most that";

fn documents() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let member =
        |number| format!("[[member]]\nname=\"n{number}\"\naddress=\"10.0.0.1:{number}\"\n");
    let million: String = (0..1_000_000).map(member).collect();
    vec![
        ("a million members", million.into_bytes(), TOO_LARGE),
        ("members without anything", filled("", |_| "[[member]]\n".to_owned(), ""), NO_MEMBER),
        ("the shortest members", filled("member=[", |_| "{},".to_owned(), "]"), NO_MEMBER),
        ("an array of numbers", filled("a=[", |_| "1,".to_owned(), "]"), NO_MEMBER),
        ("unknown keys", filled("", |number| format!("k{number}=1\n"), ""), NO_MEMBER),
        ("unknown tables", filled("", |number| format!("[t{number}]\n"), ""), NO_MEMBER),
        ("a key without end", filled("", |_| "k".to_owned(), "=1"), NO_MEMBER),
        ("a name without end", filled("[[member]]\nname='", |_| "n".into(), "'"), NO_MEMBER),
        ("lines without anything", filled("", |_| "\n".to_owned(), ""), NO_MEMBER),
        ("lines of rubbish", filled("", |_| "x\n".to_owned(), ""), NOT_TOML),
        ("zeros", vec![0; DOCUMENT_BYTES_MAX as usize], NOT_TOML),
        ("no text", vec![0xFF; DOCUMENT_BYTES_MAX as usize], "invalid utf-8"),
        ("arrays 10,000 deep", repeated("a=", "[", 10_000, &"]".repeat(10_000)), NOT_TOML),
        ("arrays that do not end", filled("a=", |_| "[".to_owned(), ""), NOT_TOML),
        ("tables 10,000 deep", repeated("a=", "{a=", 10_000, &"}".repeat(10_000)), NOT_TOML),
        ("keys 10,000 deep", repeated("a", ".a", 10_000, "=1"), NOT_TOML),
        ("headers 10,000 deep", repeated("[a", ".a", 10_000, "]"), NOT_TOML),
    ]
}

#[tokio::test]
async fn a_registry_of_any_size_takes_bounded_memory_and_leaves_the_view_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("members.toml");
    let two = b"member = [{name='a', address='h:1'}, {name='b', address='h:2'}]";
    std::fs::write(&path, two).unwrap();
    let mut watched = Watched::start(&format!("file:{}", path.display())).await;
    let documents = documents();
    println!("huge: {} documents", documents.len());
    for (name, bytes, words) in documents {
        replace(&path, &bytes);
        watched.refuses(name, words).await;
    }
    replace_long(&path, &repeated("[", "{\"a\":[1]},", 1_000_000, "1]"), HUGE);
    watched.refuses("100 MB of JSON", TOO_LARGE).await;
    // More members than are taken, in a document that is not too large.
    let entry = |number| format!("{{name='n{number}',address='h{number}:1'}},");
    replace(&path, &filled("member=[", entry, "]"));
    let found = watched.read("more members than are taken").await.unwrap();
    assert_eq!(found.members.len(), MEMBERS_MAX);
    assert!(found.complaints.concat().contains("expected at most 10000"), "{:?}", found.complaints);
    assert!(found.complaints.len() < 110, "{} complaints", found.complaints.len());
    let seen = tokio::time::timeout(PATIENCE, watched.watch.changed()).await.unwrap();
    assert_eq!(seen.members.len(), MEMBERS_MAX);

    records_of_a_directory().await;
}

/// Records of 100 MB, in a folder.
async fn records_of_a_directory() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("dir:{}", folder.path().display());
    let backend = open(&url, "lab").unwrap();
    for name in ["a", "b"] {
        let member = rampuddle_discovery::Member::ready(name, 1.0);
        backend.write_member(&member, rampuddle_discovery::Revision::ABSENT).await.unwrap();
    }
    let watched = Watched::start(&url).await;
    let huge = repeated("{\"cluster\": \"", "x", 1_000_000, "\"}");
    let place = folder.path().join("lab");
    replace_long(&place.join("settings.json"), &huge, HUGE);
    watched.refuses("settings of 100 MB", "has more than 65536 bytes: expected at most").await;
    std::fs::remove_file(place.join("settings.json")).unwrap();
    replace_long(&place.join("members/b.json"), &huge, HUGE);
    let found = watched.read("a member of 100 MB").await.unwrap();
    assert_eq!((found.members.len(), found.unreadable), (1, vec!["b".to_owned()]));
    assert_eq!(watched.watch.current().members.len(), 2);
}

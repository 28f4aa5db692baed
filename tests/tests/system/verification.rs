//! `puddle verify`: damage that is real, and nothing else.

use std::collections::BTreeMap;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rampuddle_client::{Client, Codec, CopyPlace, Error, PutOptions};
use rampuddle_harness::{ClusterOptions, Counts, Pattern, RawClient, Seeded, Transport};
use rampuddle_protocol::{CreateRow, GatherRow, RowFlags, SetId, Status, Version};
use serde_json::Value;

use crate::commands::Desk;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// How long a verification may take beside a server that gives no answer.
const SILENT_BOUND: Duration = Duration::from_secs(40);

/// What `puddle verify --json` said.
struct Found {
    code: Option<i32>,
    objects: BTreeMap<String, Value>,
    summary: Value,
    said: String,
}

impl Found {
    fn of(output: Output) -> Self {
        let text = String::from_utf8(output.stdout).expect("text");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let mut lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let summary = lines.pop().unwrap_or_else(|| panic!("nothing was said: {said}"));
        assert_eq!(summary["event"], "summary");
        let name = |line: &Value| line["name"].as_str().expect("text").to_owned();
        let objects = lines.into_iter().map(|line| (name(&line), line)).collect();
        Self { code: output.status.code(), objects, summary, said }
    }

    #[track_caller]
    fn is(&self, name: &str, state: &str) -> &Value {
        let object = &self.objects[name];
        assert_eq!(object["state"], state, "{object}");
        object
    }

    /// The states of all objects that are not whole.
    fn wrong(&self) -> Vec<(&str, &Value)> {
        let wrong = self.objects.iter().filter(|(_, object)| object["state"] != "whole");
        wrong.map(|(name, object)| (name.as_str(), object)).collect()
    }

    #[track_caller]
    fn is_all_whole(&self) {
        let wrong = self.wrong();
        assert!(
            self.code == Some(0) && wrong.is_empty(),
            "{wrong:?} {} {}",
            self.summary,
            self.said
        );
    }
}

/// A desk with a client.
struct Lab {
    desk: Desk,
    client: Client,
}

impl Lab {
    fn with_servers(servers: usize) -> Self {
        let desk = Desk::with(&ClusterOptions { servers, pool_mib: 256, ..Default::default() });
        let client = desk.cluster.client();
        Self { desk, client }
    }

    fn verify(&self, arguments: &[&str]) -> Found {
        let arguments = [&["verify", "--json"], arguments].concat();
        Found::of(self.desk.command(&[], &arguments).output().expect("the binary runs"))
    }

    fn put(&self, name: &str, bytes: u64) {
        let content = Pattern(bytes).bytes(0, bytes);
        let options = PutOptions::default();
        let put = self.client.put(name.as_bytes(), content, &options);
        let report = self.desk.cluster.runtime().block_on(put).expect("the object is written");
        assert!(!report.is_short(), "{report:?}");
    }

    /// Where the copies of an object lie: the head's first.
    fn copies(&self, name: &str) -> Vec<CopyPlace> {
        let located = self.client.locate(name.as_bytes());
        self.desk.cluster.runtime().block_on(located).unwrap().expect("it is there").copies
    }

    fn upload(&self, name: &str) -> SetId {
        let stat = self.client.stat(name.as_bytes());
        self.desk.cluster.runtime().block_on(stat).unwrap().expect("it is there").upload
    }

    fn raw(&self, server: &str) -> RawClient {
        let servers = self.desk.cluster.servers();
        let server = servers.iter().find(|other| other.name() == server).expect("one of ours");
        server.client(Transport::Unix)
    }

    /// The key of what lies at a place.
    fn key(&self, name: &str, place: &CopyPlace) -> Vec<u8> {
        match place.stripe {
            None => [&[0xF8], name.as_bytes()].concat(),
            Some(stripe) => stripe_key(self.upload(name), stripe),
        }
    }

    /// Removes one copy, as if the server had lost it.
    fn lose(&self, name: &str, place: &CopyPlace) {
        let (key, mut raw) = (self.key(name, place), self.raw(&place.server));
        let version = raw.stat(&key).version;
        assert_eq!(raw.drop_version(&key, version).status(), Status::Ok);
    }

    /// Puts other bytes, and perhaps another tag, in the place of one copy: same
    /// key, same version.
    fn damage(&self, name: &str, place: &CopyPlace, change: impl Fn(&mut Vec<u8>, &mut Vec<u8>)) {
        let (key, mut raw) = (self.key(name, place), self.raw(&place.server));
        let stat = raw.stat(&key);
        let row = GatherRow { length: stat.filled, flags: RowFlags::TAG, ..GatherRow::default() };
        let answer = raw.ask(rampuddle_protocol::Opcode::Gather, &[(row, &key, b"")], b"");
        let (outcome, mut tag) = answer.tagged_outcomes().remove(0);
        assert_eq!(outcome.status(), Status::Ok);
        let mut bytes = raw.gather(&key, 0, stat.filled).1;
        change(&mut bytes, &mut tag);
        assert_eq!(raw.drop_version(&key, stat.version).status(), Status::Ok);
        let row = CreateRow {
            length: bytes.len() as u64,
            version: stat.version,
            set: stat.set,
            replicas: stat.replicas,
            flags: RowFlags::SEALED,
            ..CreateRow::default()
        };
        assert_eq!(raw.create_row(row, &key, &tag, &bytes).0.status(), Status::Ok);
    }
}

fn stripe_key(upload: SetId, stripe: u64) -> Vec<u8> {
    [&[0xF9][..], &upload.0, &stripe.to_be_bytes()].concat()
}

#[test]
fn objects_that_are_whole_are_read_in_all_their_copies() {
    let lab = Lab::with_servers(3);
    let lengths = [0, 1, 64 * KIB, MIB, MIB + 1, 9 * MIB + 5];
    for length in lengths {
        lab.put(&format!("of-{length}"), length);
    }
    let mut everywhere = PutOptions::default();
    everywhere.replicas = Some(255);
    let put = lab.client.put(b"everywhere", vec![1; 5 << 20], &everywhere);
    lab.desk.cluster.runtime().block_on(put).unwrap();
    let mut compressed = PutOptions::default();
    compressed.codec = Codec::Zstd;
    compressed.metadata.insert("kind".to_owned(), "test".into());
    let mut stored = Vec::new();
    for length in [MIB as usize, 9 << 20] {
        let name = format!("compressed-{length}");
        let put = lab.client.put(name.as_bytes(), vec![1; length], &compressed);
        let report = lab.desk.cluster.runtime().block_on(put).unwrap();
        assert!(report.stored_bytes < length as u64 / 16, "{report:?}");
        stored.push((name, 2 * report.stored_bytes));
    }
    let found = lab.verify(&[]);
    found.is_all_whole();
    assert_eq!((found.objects.len(), &found.summary["whole"]), (9, &9.into()));
    for (name, stored) in stored {
        let read = found.is(&name, "whole")["read_bytes"].as_u64().unwrap();
        assert!((stored..stored + 600).contains(&read), "{name}: {stored} {read}");
    }
    for length in lengths {
        let object = found.is(&format!("of-{length}"), "whole");
        let read = object["read_bytes"].as_u64().unwrap();
        assert!((2 * length..2 * length + 400).contains(&read), "{object}");
        assert_eq!((&object["copies"], &object["wanted"]), (&2.into(), &2.into()));
    }
    let object = found.is("everywhere", "whole");
    assert_eq!((&object["copies"], &object["wanted"]), (&3.into(), &3.into()));
    let of_prefix = lab.verify(&["of-1"]);
    assert_eq!(of_prefix.objects.len(), 3, "{:?}", of_prefix.objects.keys());
    assert!(of_prefix.summary["orphans"].is_null());
    assert_eq!(lab.verify(&["nothing"]).summary["objects"], 0);
}

/// What is done to one place of an object.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Lose,
    /// One bit of this byte.
    Flip(usize),
    FlipTag,
    Cut,
}

impl Harm {
    fn do_to(self, lab: &Lab, name: &str, place: &CopyPlace) {
        match self {
            Self::Lose => lab.lose(name, place),
            Self::Flip(at) => lab.damage(name, place, |bytes, _| bytes[at] ^= 1),
            Self::FlipTag => lab.damage(name, place, |_, tag| tag[9] ^= 1),
            Self::Cut => lab.damage(name, place, |bytes, _| bytes.truncate(65_536)),
        }
    }
}

#[test]
fn every_kind_of_damage_is_found_where_it_is_and_nowhere_else() {
    const SMALL: u64 = 70_000;
    const LARGE: u64 = 9 * MIB;
    // The object's length, the stripe (none = the head), and what is said then.
    let cases: [(u64, Option<u64>, Harm, &str, &str); 12] = [
        (SMALL, None, Harm::Lose, "too-few", "has no head"),
        (SMALL, None, Harm::Flip(69_999), "damaged", "do not have their checksum"),
        (SMALL, None, Harm::FlipTag, "damaged", "its tag does not have its checksum"),
        (SMALL, None, Harm::Cut, "damaged", "is shorter than the object"),
        (LARGE, None, Harm::Lose, "too-few", "has no head"),
        (LARGE, None, Harm::Flip(3), "damaged", "does not have its checksum"),
        (LARGE, Some(0), Harm::Lose, "too-few", "has no copy of stripe 0"),
        (LARGE, Some(2), Harm::Lose, "too-few", "has no copy of stripe 2"),
        (LARGE, Some(0), Harm::Flip(0), "damaged", "stripe 0 on server"),
        (LARGE, Some(1), Harm::Flip(2 << 20), "damaged", "stripe 1 on server"),
        (LARGE, Some(2), Harm::Flip((1 << 20) - 1), "damaged", "does not have its checksum"),
        (LARGE, Some(1), Harm::Cut, "damaged", "stripe 1 on server"),
    ];
    let lab = Lab::with_servers(3);
    let mut counts = Counts::new("kinds of damage");
    let mut harmed = Vec::new();
    for (number, (length, stripe, harm, state, told)) in cases.into_iter().enumerate() {
        for copy in 0..2 {
            let name = format!("{number}-{copy}");
            lab.put(&name, length);
            let mut places = lab.copies(&name).into_iter().filter(|place| place.stripe == stripe);
            let place = places.nth(copy).expect("two copies");
            harm.do_to(&lab, &name, &place);
            harmed.push((name, length, place.server, state, told));
            lab.put(&format!("{number}-fine-{copy}"), 1_000);
        }
    }
    let found = lab.verify(&[]);
    assert_eq!((found.code, found.objects.len()), (Some(3), 48), "{}", found.said);
    for (name, _, server, state, told) in &harmed {
        let object = found.is(name, state);
        assert_eq!((&object["copies"], &object["readable"]), (&1.into(), &true.into()), "{object}");
        let problems = object["problems"].to_string();
        assert!(problems.contains(told), "{name}: wanted {told}: {problems}");
        assert!(problems.contains(&format!("\\\"{server}\\\"")), "{name}: {problems}");
        counts.one("found");
    }
    assert_eq!(found.wrong().len(), harmed.len(), "{:?}", found.wrong());
    for (name, length, ..) in &harmed {
        lab.put(name, *length);
        counts.one("mended");
    }
    lab.verify(&[]).is_all_whole();
    assert_eq!((counts.of("found"), counts.of("mended")), (24, 24));
}

#[test]
fn what_has_no_right_copy_left_cannot_be_read() {
    let lab = Lab::with_servers(3);
    lab.put("lost", 9 * MIB);
    lab.put("spoilt", 9 * MIB);
    lab.put("fine", 9 * MIB);
    let places = |name: &str| lab.copies(name).into_iter().filter(|place| place.stripe == Some(1));
    places("lost").for_each(|place| lab.lose("lost", &place));
    for place in places("spoilt") {
        lab.damage("spoilt", &place, |bytes, _| bytes[5] ^= 1);
    }
    let found = lab.verify(&[]);
    assert_eq!(found.code, Some(3));
    assert_eq!(found.is("lost", "missing")["readable"], false);
    let spoilt = found.is("spoilt", "damaged");
    assert_eq!((&spoilt["readable"], &spoilt["damaged"]), (&false.into(), &2.into()));
    found.is("fine", "whole");
    // The same in words.
    let text = lab.desk.run(&["verify"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(
        text.contains("missing        lost: 0 of 2 copies are right; it cannot be read"),
        "{text}"
    );
}

#[test]
fn an_owner_that_missed_a_write_has_no_right_copy() {
    let lab = Lab::with_servers(3);
    lab.put("o", 1_000);
    let places = lab.copies("o");
    let (key, mut raw) = (lab.key("o", &places[0]), lab.raw(&places[0].server));
    let row = GatherRow { length: 1_000, flags: RowFlags::TAG, ..GatherRow::default() };
    let answer = raw.ask(rampuddle_protocol::Opcode::Gather, &[(row, &key, b"")], b"");
    let (old, tag) = answer.tagged_outcomes().remove(0);
    lab.put("o", 2_000);
    // The older head comes back where the later one was.
    let later = raw.stat(&key).version;
    assert_eq!(raw.drop_version(&key, later).status(), Status::Ok);
    let row = CreateRow { length: 1_000, version: old.version, ..CreateRow::default() };
    let bytes = Pattern(1_000).bytes(0, 1_000);
    assert_eq!(raw.create_row(row, &key, &tag, &bytes).0.status(), Status::Ok);
    let found = lab.verify(&[]);
    let object = found.is("o", "too-few");
    assert_eq!((&object["bytes"], &object["copies"]), (&2_000.into(), &1.into()));
    assert!(object["problems"].to_string().contains("has an older head"), "{object}");
}

#[test]
fn servers_that_are_killed_or_pause_are_named_and_restarted_ones_have_lost_their_copies() {
    let mut lab = Lab::with_servers(3);
    for number in 0..12 {
        lab.put(&format!("small-{number}"), 100);
        lab.put(&format!("large-{number}"), 5 * MIB);
    }
    lab.verify(&[]).is_all_whole();
    for paused in [true, false] {
        if paused {
            lab.desk.cluster.server(1).pause();
        } else {
            lab.desk.cluster.kill(1);
        }
        let began = Instant::now();
        let found = lab.verify(&[]);
        let took = began.elapsed();
        assert!(took < SILENT_BOUND, "it took {took:?}");
        assert_eq!(found.code, Some(3), "paused: {paused}");
        assert_eq!(found.summary["unreachable_servers"], serde_json::json!(["b"]));
        assert!(found.said.contains("no answer from b"), "{}", found.said);
        assert_eq!(found.objects.len(), 24, "paused: {paused}");
        let wrong = found.wrong();
        assert!(!wrong.is_empty());
        for (name, object) in wrong {
            assert_eq!(object["state"], "unreachable", "{name}: {object}");
            assert_eq!(object["readable"], true, "{name}: {object}");
        }
        if paused {
            lab.desk.cluster.server(1).resume();
            lab.verify(&[]).is_all_whole();
        }
    }
    lab.desk.cluster.restart(1);
    lab.desk.cluster.until_alive(3, Duration::from_secs(5));
    let found = lab.verify(&[]);
    assert_eq!(found.code, Some(3));
    assert!(!found.wrong().is_empty());
    for (name, object) in found.wrong() {
        assert_eq!((&object["state"], &object["copies"]), (&"too-few".into(), &1.into()), "{name}");
    }
}

#[test]
fn stripes_of_no_head_are_counted_and_those_with_a_lease_are_none() {
    let lab = Lab::with_servers(3);
    lab.put("o", 9 * MIB);
    let orphans = |found: &Found| {
        let count = |field: &str| found.summary["orphans"][field].as_u64().unwrap();
        (count("uploads"), count("copies"), count("leased_copies"))
    };
    assert_eq!(orphans(&lab.verify(&[])), (0, 0, 0));
    let mut raw = lab.raw("a");
    let mut plant = |upload: u8, stripe: u64, lease_ms: u64| {
        let upload = SetId([upload; 16]);
        let version = Version { time: 1, writer: 1 };
        let row =
            CreateRow { length: 70_000, version, set: upload, lease_ms, ..CreateRow::default() };
        let created = raw.create_row(row, &stripe_key(upload, stripe), b"", &vec![1; 70_000]);
        assert_eq!(created.0.status(), Status::Ok);
    };
    plant(1, 0, 0);
    plant(1, 1, 0);
    plant(2, 0, 600_000);
    plant(255, 7, 0);
    let found = lab.verify(&[]);
    found.is_all_whole();
    assert_eq!(orphans(&found), (2, 3, 1));
    assert_eq!(found.summary["orphans"]["bytes"], 3 * 70_000);
    // The head of an object goes, its stripes stay.
    for place in lab.copies("o").iter().filter(|place| place.stripe.is_none()) {
        lab.lose("o", place);
    }
    let found = lab.verify(&[]);
    assert_eq!((found.objects.len(), orphans(&found)), (0, (3, 9, 1)));
    let text = lab.desk.run(&["verify"]);
    let said = String::from_utf8_lossy(&text.stderr).into_owned();
    assert!(said.contains("9 stripes of 3 uploads") && text.status.success(), "{said}");
}

/// Puts, replaces and deletes objects of all kinds until told to stop; returns how
/// many times.
async fn write_on(client: Client, writer: u64, seed: u64, stop: Arc<AtomicBool>) -> u64 {
    let mut random = Seeded::new(seed);
    let mut writes = 0;
    while !stop.load(Ordering::Relaxed) {
        let name = format!("w{writer}-{}", random.below(4));
        if random.below(5) == 0 {
            let deleted = client.delete(name.as_bytes()).await;
            assert!(deleted.is_ok(), "{deleted:?}");
        } else {
            let length = [10, 100 * KIB, MIB, 5 * MIB, 9 * MIB][random.below(5) as usize];
            let mut options = PutOptions::default();
            options.replicas = Some([1, 2, 3, 255][random.below(4) as usize]);
            let content = Pattern(seed ^ writes).bytes(0, length);
            match client.put(name.as_bytes(), content, &options).await {
                Ok(report) => assert!(!report.is_short(), "{report:?}"),
                Err(error @ Error::Failed { .. }) => panic!("{error}"),
                Err(error) => panic!("{error:?}"),
            }
        }
        writes += 1;
    }
    writes
}

#[test]
fn soak_verify_beside_writers_sees_no_damage_that_is_none() {
    let is_soak = std::env::var_os("PUDDLE_SOAK").is_some_and(|value| value == "1");
    let time = Duration::from_secs(if is_soak { 120 } else { 6 });
    let options = ClusterOptions { pool_mib: 500, ..ClusterOptions::default() };
    let desk = Desk::with(&options);
    let lab = Lab { client: desk.cluster.client(), desk };
    for number in 0..20 {
        lab.put(&format!("still-{number}"), number * MIB / 2);
    }
    let mut random = Seeded::from_environment("writers beside verify");
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = lab.desk.cluster.runtime();
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let client = lab.desk.cluster.client();
            runtime.spawn(write_on(client, writer, random.draw(), Arc::clone(&stop)))
        })
        .collect();
    let mut counts = Counts::new("verifications beside writers");
    let began = Instant::now();
    while began.elapsed() < time || counts.of("runs") < 3 {
        let found = lab.verify(&[]);
        found.is_all_whole();
        let orphans = &found.summary["orphans"];
        assert_eq!(orphans["copies"], 0, "{orphans}");
        counts.one("runs");
        counts.add("objects", found.objects.len() as u64);
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        let writes = runtime.block_on(writer).expect("no writer fails");
        counts.add("writes", writes);
    }
    assert!(counts.of("writes") > 20 && counts.of("objects") >= 60, "{counts}");
}

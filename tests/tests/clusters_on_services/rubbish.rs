//! Registries full of what others wrote, while clients write and read.

use std::time::Duration;

use rampuddle_discovery::Snapshot;
use rampuddle_harness::{ServerProcess, ZooKeeperClient, pace};
use serde_json::json;

use crate::load::Load;
use crate::rig::{HEARTBEAT, Rig};
use crate::service::Service;
use crate::sightings::Sightings;

const NAMES: [&str; 3] = ["a", "b", "c"];
/// How long any operation may take.
const STALL: Duration = Duration::from_secs(1);
/// What a complaint about anything has at most, in bytes.
const COMPLAINT_BYTES_MAX: usize = 1_000;
/// The most complaints of one reading, and a last one that counts the others.
const COMPLAINTS_MAX: usize = 101;
const MANY: usize = 150;
/// What is larger than any record may be, and what a service still takes.
const LARGE: usize = 500 << 10;
const HUNDRED_MB: usize = 100_000_000;
/// How much more memory a server may take for it: a reading is refused beyond 16 MiB.
const MEMORY_MAX: u64 = 64 << 20;

pub(crate) fn a_registry_full_of_rubbish_harms_nobody(service: Service) {
    let rig = Rig::start(service, NAMES.len());
    println!("{}:", rig.service.name());
    let client = rig.client();
    let load = Load::start(client.clone(), rig.runtime.handle());
    let sightings = Sightings::of(&client, rig.runtime.handle());
    let began = rig.machine.now();
    some_of_each_kind(&rig);
    very_much(&rig);
    assert!(!sightings.anybody_missing(began.at(), NAMES.len()), "a server was not seen alive");
    sightings.assert_never_less(&NAMES);
    let done = load.end();
    println!("{}: {done}", rig.service.name());
    done.assert_all_went_well("all the time");
    rig.machine.assert_within("longest get", began, done.gets.longest, STALL);
    rig.machine.assert_within("longest put", began, done.puts.longest, STALL);
}

/// One record of each kind costs one complaint, and more than there is room for are
/// counted.
fn some_of_each_kind(rig: &Rig) {
    let (planted, holders) = plant_one_of_each(rig);
    rig.until_said("all rubbish is found", |found| complaints(found) >= planted.len());
    let found = rig.snapshot().expect("the service is up");
    for complaint in &found.complaints {
        println!("  {complaint}");
        assert!(complaint.len() < COMPLAINT_BYTES_MAX && !complaint.contains(char::is_control));
    }
    for key in &planted {
        let name = key.rsplit('/').next().unwrap_or_default();
        let lines = found.complaints.iter().filter(|line| line.contains(name)).count();
        assert_eq!(lines, 1, "{key}: {:#?}", found.complaints);
    }
    assert_eq!(complaints(&found), planted.len(), "{:#?}", found.complaints);
    assert_nobody_else(rig, &found);

    let many: Vec<String> = (0..MANY).map(|number| format!("members/many-{number}")).collect();
    many.iter().for_each(|key| drop(rig.service.plant(key, b"{\"other\": [1, 2, 3]}", false)));
    rig.until_said("there is no room for more", |found| complaints(found) >= COMPLAINTS_MAX);
    let found = rig.snapshot().expect("the service is up");
    assert_eq!(complaints(&found), COMPLAINTS_MAX);
    println!("  at last: {}", found.complaints[COMPLAINTS_MAX - 1]);
    assert_nobody_else(rig, &found);
    drop(holders);
    many.iter().chain(&planted).filter(|key| key.starts_with("members/")).for_each(|key| {
        rig.service.weed(key);
    });
    rig.until_said("the members are clean", |found| {
        found.complaints.iter().all(|line| !line.contains("member"))
    });
}

/// The keys, and who must live to hold them.
fn plant_one_of_each(rig: &Rig) -> (Vec<String>, Vec<ZooKeeperClient>) {
    let weighed = |name: &str, weight: &str| {
        let text = format!("{{\"name\": \"{name}\", \"weight\": {weight}}}");
        (format!("members/{name}"), text.into_bytes(), false)
    };
    let at = |name: &str, address: &str| {
        let id = "01".repeat(16);
        let text = json!({ "name": name, "tcp": address, "incarnation": id }).to_string();
        (format!("living/{name}"), text.into_bytes(), true)
    };
    let of = |name: &str, text: &[u8]| (format!("members/{name}"), text.to_vec(), false);
    let twice = b"{\"name\": \"a\", \"weight\": 1}";
    let records = [
        of("other-json", b"{\"hello\": [1, 2, {\"world\": null}]}"),
        of("no-json", b"<html><body>502 Bad Gateway</body></html>"),
        of("escapes", b"\x1b]0;owned\x07\x1b[2J"),
        of("nothing", b" "),
        of("twice", twice),
        of("large", &vec![b' '; LARGE]),
        of("deep", &vec![b'['; 50_000]),
        weighed("weight-0", "0"),
        weighed("weight-minus", "-1"),
        weighed("weight-nan", "NaN"),
        weighed("weight-1e308", "1e308"),
        at("everywhere", "0.0.0.0:7000"),
        at("secrets", "169.254.169.254:80"),
        at("port-0", "127.0.0.1:0"),
        at("no-port", "127.0.0.1"),
        at("multicast", "224.0.0.1:7000"),
        ("living/rubbish".to_owned(), b"{\"name\": 7}".to_vec(), true),
    ];
    let mut holders = Vec::new();
    for (key, bytes, is_held) in &records {
        holders.extend(rig.service.plant(key, bytes, *is_held));
    }
    (records.into_iter().map(|(key, ..)| key).collect(), holders)
}

/// A hundred megabytes in as large records as the service takes.
fn very_much(rig: &Rig) {
    let resident = || rig.servers.iter().map(ServerProcess::resident_bytes).max().unwrap_or(0);
    let before = resident();
    let piece = rig.service.largest_record();
    let bytes = json!({ "name": "x", "weight": 1, "more": "x".repeat(piece - 100) }).to_string();
    let keys: Vec<String> = (0..HUNDRED_MB.div_ceil(bytes.len()))
        .map(|number| format!("members/huge-{number}"))
        .collect();
    let began = rig.machine.now();
    keys.iter().for_each(|key| drop(rig.service.plant(key, bytes.as_bytes(), false)));
    println!("  {} records of {} bytes, in {:.1?}", keys.len(), bytes.len(), began.elapsed());
    let found = rig.snapshot();
    match &found {
        Ok(found) => {
            println!("  read, with {} complaints: {}", complaints(found), found.complaints[0]);
            assert!((1..=COMPLAINTS_MAX).contains(&complaints(found)));
            assert_nobody_else(rig, found);
        }
        Err(error) => {
            println!("  not read: {error}");
            assert!(
                error.contains("has more than") && error.len() < COMPLAINT_BYTES_MAX,
                "{error}"
            );
        }
    }
    // Servers and clients follow it all the time.
    pace(3 * HEARTBEAT);
    let more = resident().saturating_sub(before);
    println!("  a server takes {} KiB more memory", more >> 10);
    assert!(more < MEMORY_MAX, "{more} bytes more");
    keys.iter().for_each(|key| rig.service.weed(key));
    let weeded = rig.machine.now();
    let read = rig.until_said("it is read again", |found| {
        found.members.len() == NAMES.len() && found.living.len() == NAMES.len()
    });
    println!("  weeded: read again after {:.2?}", read - weeded.at());
    let found = rig.snapshot().expect("the service is up");
    assert_nobody_else(rig, &found);
}

fn complaints(found: &Snapshot) -> usize {
    found.complaints.len()
}

/// Members and the living are just the servers.
#[track_caller]
fn assert_nobody_else(rig: &Rig, found: &Snapshot) {
    let members: Vec<&str> = found.members.iter().map(|member| &*member.value.name).collect();
    assert_eq!(members, NAMES);
    assert!(rig.has_all_alive()(found), "{:?}", found.living);
}

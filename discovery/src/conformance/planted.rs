//! Sentences about what others wrote into a registry: programs of another version,
//! half a write, a person with an editor, somebody who means no good.

use std::fmt::Debug;

use tokio::time::{Instant, timeout_at};

use super::{PATIENCE, Record, Sentence, Service, VISIBLE_WITHIN, node, snapshot};
use crate::backend::Backend;
use crate::error::DiscoveryError;
use crate::model::{Member, Revision, Settings, Snapshot};
use crate::watch::Watch;

pub(super) const SENTENCES: &[Sentence] = &[
    Sentence {
        text: "a member's record that makes no sense costs a complaint, and watchers keep the member",
        check: |service| Box::pin(bad_members_cost_a_complaint(service)),
    },
    Sentence {
        text: "a living server's record that makes no sense costs a complaint and hides that server",
        check: |service| Box::pin(bad_living_cost_a_complaint(service)),
    },
    Sentence {
        text: "settings that make no sense are an error, and watchers keep their view",
        check: |service| Box::pin(bad_settings_are_an_error(service)),
    },
    Sentence {
        text: "fields that a later version added are ignored",
        check: |service| Box::pin(unknown_fields_are_ignored(service)),
    },
];

/// What lies there, and a part of what is said of it.
type Case = (String, &'static str);

fn case(text: impl Into<String>, said: &'static str) -> Case {
    (text.into(), said)
}

/// Texts that are no record of any kind.
fn no_records() -> Vec<Case> {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    vec![
        case("", ""),
        case(" \n", ""),
        case("\0\0\0\0", ""),
        case("{", ""),
        case("{\"name\": \"b\", \"wei", ""),
        case("null", "invalid type: null"),
        case("true", "invalid type: boolean"),
        case("7", "invalid type: integer"),
        case("\"b\"", "invalid type: string"),
        case("[]", ""),
        case("{}", "missing field"),
        case("name = b", ""),
        case("<html><body>502 Bad Gateway</body></html>", ""),
        case("\u{feff}{}", ""),
        case("\u{1b}]0;owned\u{7}", ""),
        case(deep(10_000), ""),
        case(" ".repeat(1 << 20), ""),
        case("x".repeat(1 << 20), ""),
    ]
}

fn bad_members() -> Vec<Case> {
    let of = |fields: &str, said| case(format!("{{\"name\": \"b\", {fields}}}"), said);
    let named = |name: &str, said| case(format!("{{\"name\": {name}, \"weight\": 1}}"), said);
    let mut cases = no_records();
    cases.extend([
        of("\"weight\": 0", "expected more than 0 and at most 1000000"),
        of("\"weight\": -0.0", "expected more than 0"),
        of("\"weight\": -1", "expected more than 0"),
        of("\"weight\": 1e308", "at most 1000000"),
        of("\"weight\": 1e309", "number out of range"),
        of("\"weight\": 1e-999", "expected more than 0"),
        of("\"weight\": NaN", "expected value"),
        of("\"weight\": Infinity", "expected value"),
        of("\"weight\": \"heavy\"", "invalid type: string \"heavy\""),
        of("\"weight\": null", "invalid type: null"),
        of("\"weight\": [1]", "invalid type: sequence"),
        of("\"zone\": \"z\"", "missing field `weight`"),
        of("\"weight\": 1, \"weight\": 2", "duplicate field `weight`"),
        of("\"weight\": 1, \"name\": \"c\"", "duplicate field `name`"),
        of("\"weight\": 1, \"state\": \"gone\"", "expected one of `joining`"),
        of("\"weight\": 1, \"state\": \"\\u001b[2J\"", "expected one of `joining`"),
        of("\"weight\": 1, \"state\": 3", ""),
        of("\"weight\": 1, \"zone\": 3", "invalid type: integer"),
        of("\"weight\": 1, \"zone\": \"a\\u001b[2J\"", "bytes that can be printed"),
        of(&format!("\"weight\": 1, \"zone\": \"{}\"", "z".repeat(65)), "at most 64 bytes"),
        of("\"weight\": 1} {\"weight\": 1", ""),
        case("{\"weight\": 1}", "missing field `name`"),
        named("\"a\"", "expected"),
        named("\"B\"", "expected"),
        named("\"\"", "expected"),
        named("\"../a\"", "expected"),
        named("\"b\\u0000\"", "expected"),
        named("\"\\ud800\"", ""),
        named(&format!("\"{}\"", "b".repeat(10_000)), "expected"),
        named("7", "invalid type: integer"),
        named("null", "invalid type: null"),
    ]);
    cases
}

fn bad_living() -> Vec<Case> {
    let tcp = |address: &str, said| case(format!("{{\"name\": \"b\", \"tcp\": {address}}}"), said);
    let unix =
        |path: &str, said| case(format!("{{\"name\": \"b\", \"unix_socket\": {path}}}"), said);
    let form = "expected HOST:PORT with a port from 1 to 65535";
    let reachable = "expected one at which clients reach the server";
    let mut cases = no_records();
    cases.extend([
        tcp("\"0.0.0.0:7000\"", reachable),
        tcp("\"0.1.2.3:7000\"", reachable),
        tcp("\"[::]:7000\"", reachable),
        tcp("\"169.254.169.254:80\"", "link-local"),
        tcp("\"169.254.1.1:7000\"", "link-local"),
        tcp("\"[::ffff:169.254.169.254]:80\"", "link-local"),
        tcp("\"[fe80::1]:7000\"", "link-local"),
        tcp("\"[fd00:ec2::254]:80\"", "metadata"),
        tcp("\"224.0.0.1:7000\"", "multicast"),
        tcp("\"239.255.255.250:1900\"", "multicast"),
        tcp("\"[ff02::1]:7000\"", "multicast"),
        tcp("\"255.255.255.255:7000\"", "broadcast"),
        tcp("\"127.0.0.1:0\"", form),
        tcp("\"127.0.0.1:65536\"", form),
        tcp("\"127.0.0.1:-1\"", form),
        tcp("\"127.0.0.1\"", form),
        tcp("\"2852039166:80\"", form),
        tcp("\"0xa9fea9fe:80\"", form),
        tcp("\"127.1:7000\"", form),
        tcp("\"http://127.0.0.1:7000\"", form),
        tcp("\"root@127.0.0.1:7000\"", form),
        tcp("\"-h:7000\"", form),
        tcp("\"a b:7000\"", form),
        tcp("\"a\\u001b[2J:7000\"", form),
        tcp("\"ä.example:7000\"", form),
        tcp("\"\"", form),
        tcp(&format!("\"{}:7000\"", "h".repeat(254)), form),
        tcp("7000", "invalid type: integer"),
        tcp("{\"host\": \"h\"}", "invalid type: map"),
        tcp("null", "neither an address nor a unix socket"),
        // That of "a", in another way of writing.
        tcp("\"127.0.0.1:01\"", "its address 127.0.0.1:1 is that of \"a\""),
        unix("\"run/puddle\"", "expected an absolute path of at most 107 bytes"),
        unix(&format!("\"/{}\"", "x".repeat(107)), "expected an absolute path"),
        unix("\"/run\\u0000/puddle\"", "expected an absolute path"),
        case("{\"name\": \"c\", \"tcp\": \"127.0.0.1:9\"}", "expected"),
        case("{\"name\": \"b\"}", "neither an address nor a unix socket"),
        tcp("\"h:7\", \"incarnation\": \"00\"", "an id has 32 hexadecimal digits"),
        tcp("\"h:7\", \"incarnation\": 7", "invalid type"),
    ]);
    cases
}

fn bad_settings() -> Vec<Case> {
    let of = |fields: &str, said| case(format!("{{\"cluster\": \"lab\", {fields}}}"), said);
    let numbers = "expected 1 to 254, and 1 to 65536";
    let mut cases = no_records();
    cases.extend([
        case("{\"cluster\": \"other\"}", "found the cluster \"other\" where \"lab\" was wanted"),
        case("{\"cluster\": \"\\u001b[2J\"}", "is not allowed"),
        case("{\"cluster\": 7}", "invalid type: integer"),
        case("{\"strategy\": \"ring\"}", "missing field `cluster`"),
        of("\"strategy\": \"newest\"", "expected one of `rendezvous`, `ring`, `clone`"),
        of("\"strategy\": 1", ""),
        of("\"replicas_max\": 0", numbers),
        of("\"replicas_max\": 255", numbers),
        of("\"replicas_max\": 256", "expected u8"),
        of("\"replicas_max\": -1", "expected u8"),
        of("\"replicas_max\": 1.5", "expected u8"),
        of("\"slots\": 0", numbers),
        of("\"slots\": 65537", numbers),
        of("\"slots\": 4294967296", "expected u32"),
        of("\"created_unix_ms\": -1", "expected u64"),
        of("\"created_unix_ms\": 18446744073709551616", "expected u64"),
        of("\"slots\": 1, \"slots\": 2", "duplicate field `slots`"),
        of("\"format\": 2", "is of form 2, and this version reads form 1: use the version that"),
        of("\"format\": 18446744073709551615", "use the version that wrote it, or a later one"),
        of("\"format\": \"1\"", "invalid type: string"),
        of("\"format\": -1", "expected u64"),
    ]);
    cases
}

/// Two members, with settings.
async fn founded(service: &Service) -> Watch {
    let backend = service.backend();
    let created = backend.create_settings(&Settings::new("lab", 1)).await;
    created.expect("settings can be created");
    for name in ["a", "b"] {
        let written = backend.write_member(&Member::ready(name, 3.0), Revision::ABSENT).await;
        written.expect("nobody else writes");
    }
    let watch = Watch::start(service.backend(), PATIENCE).await;
    watch.expect("the service is up")
}

fn names(view: &Snapshot) -> Vec<(&str, f64)> {
    view.members.iter().map(|one| (one.value.name.as_str(), one.value.weight)).collect()
}

/// Waits for a view that is as wanted; none on the way has lost a member.
async fn until_view(watch: &mut Watch, text: &str, wanted: impl Fn(&Snapshot) -> bool) {
    let deadline = Instant::now() + VISIBLE_WITHIN + PATIENCE;
    while !wanted(&watch.current()) {
        assert!(names(&watch.current()).len() >= 2, "{text}: {:?}", watch.current());
        let changed = timeout_at(deadline, watch.changed()).await;
        changed.unwrap_or_else(|_| panic!("{text}: not seen, {:?}", watch.current()));
    }
}

/// One line that says what was wrong, and does nothing to a terminal.
fn check_words(text: &str, said: &str, wanted: &str) {
    let text: String = text.chars().take(100).collect();
    assert!(said.contains(wanted), "{text:?}: wanted {wanted:?}: {said:?}");
    assert!(!said.contains(char::is_control), "{text:?}: {said:?}");
    assert!(said.len() < 1_500, "{text:?}: {} bytes are said", said.len());
}

fn check_complaint(text: &str, found: &Snapshot, wanted: &str) {
    assert_eq!(found.complaints.len(), 1, "{:?}", found.complaints);
    check_words(text, &found.complaints[0], wanted);
}

async fn bad_members_cost_a_complaint(service: Service) {
    let mut watch = founded(&service).await;
    let backend = service.backend();
    let cases = bad_members();
    for (text, wanted) in &cases {
        service.plant(Record::Member("b"), text);
        let found = snapshot(&*backend).await;
        assert_eq!((names(&found), &found.unreadable), (vec![("a", 3.0)], &vec!["b".to_owned()]));
        check_complaint(text, &found, wanted);
        until_view(&mut watch, text, |view| view.complaints == found.complaints).await;
        assert_eq!(names(&watch.current()), [("a", 3.0), ("b", 3.0)], "{text:?}");
    }
    service.plant(Record::Member("b"), "{\"name\": \"b\", \"weight\": 9}");
    until_view(&mut watch, "mended", |view| names(view) == [("a", 3.0), ("b", 9.0)]).await;
    done("members", &cases);
}

async fn bad_living_cost_a_complaint(service: Service) {
    let mut watch = founded(&service).await;
    let backend = service.backend();
    let announced = backend.announce(&node("a", 1, 1)).await;
    let announced = announced.expect("nobody else lives under the name");
    let cases = bad_living();
    for (text, wanted) in &cases {
        service.plant(Record::Living("b"), text);
        let found = snapshot(&*backend).await;
        assert_eq!(found.living, [node("a", 1, 1)], "{text:?}");
        check_complaint(text, &found, wanted);
        until_view(&mut watch, text, |view| view.complaints == found.complaints).await;
        assert_eq!(watch.current().living, [node("a", 1, 1)], "{text:?}");
    }
    service.plant(Record::Living("b"), "{\"name\": \"b\", \"tcp\": \"127.0.0.1:2\"}");
    until_view(&mut watch, "mended", |view| view.living.len() == 2).await;
    announced.withdraw().await.expect("the service is up");
    done("living servers", &cases);
}

async fn bad_settings_are_an_error(service: Service) {
    let mut watch = founded(&service).await;
    let backend = service.backend();
    let before = watch.current();
    let cases = bad_settings();
    for (text, wanted) in &cases {
        service.plant(Record::Settings, text);
        let refused = backend.snapshot().await;
        let error = refused.expect_err(text);
        check_words(text, &error.explained(), wanted);
        refuses_to_write(&*backend, text).await;
        assert_eq!(watch.current(), before, "{text:?}");
    }
    service.plant(Record::Settings, "{\"cluster\": \"lab\", \"created_unix_ms\": 7}");
    let is_mended = |view: &Snapshot| {
        view.settings.as_ref().is_some_and(|settings| settings.created_unix_ms == 7)
    };
    until_view(&mut watch, "mended", is_mended).await;
    done("settings", &cases);
}

/// Settings that cannot be read are not taken for missing.
async fn refuses_to_write(backend: &dyn Backend, text: &str) {
    let created: Result<Settings, DiscoveryError> =
        backend.create_settings(&Settings::new("lab", 2)).await;
    assert!(created.is_err(), "{text:?}: {created:?}");
}

async fn unknown_fields_are_ignored(service: Service) {
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let more = format!("\"format\": 1, \"colour\": \"blue\", \"later\": {{\"x\": {deep}}}");
    founded(&service).await;
    service.plant(Record::Settings, &format!("{{{more}, \"cluster\": \"lab\"}}"));
    service.plant(Record::Member("b"), &format!("{{\"name\": \"b\", {more}, \"weight\": 2}}"));
    let living = format!("{{{more}, \"name\": \"b\", \"tcp\": \"127.0.0.1:2\"}}");
    service.plant(Record::Living("b"), &living);
    let found = snapshot(&*service.backend()).await;
    assert_eq!(found.complaints, Vec::<String>::new());
    assert_eq!(names(&found), [("a", 3.0), ("b", 2.0)]);
    assert!(found.settings == Some(Settings::new("lab", 0)) && found.alive("b").is_some());
}

fn done(what: impl Debug, cases: &[Case]) {
    println!("conformance: {} bad records of {what:?}", cases.len());
    assert!(cases.len() >= 35);
}

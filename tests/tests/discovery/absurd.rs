//! Services that answer nonsense, too much, too slowly or not at all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rampuddle_discovery::{Backend, Member, Revision, Settings, open};
use rampuddle_harness::{FakeAnswer, FakeHttp, FakeRequest, Machine};

use crate::support::{HEARTBEAT, backend, server, within};

/// Longer than any call takes.
const CALL_PATIENCE: Duration = Duration::from_secs(7);
/// Longer than any wait for a change takes at a service that is silent.
const WAIT_PATIENCE: Duration = Duration::from_secs(18);
const SCHEMES: [&str; 2] = ["consul", "etcd"];

fn answer(status: &'static str, body: &str) -> FakeAnswer {
    let headers = vec!["X-Consul-Index: 9".to_owned(), "Content-Type: application/json".to_owned()];
    FakeAnswer::Answer(status, headers, body.as_bytes().to_vec())
}

fn bare(status: &'static str, header: &str, body: &str) -> FakeAnswer {
    let headers = if header.is_empty() { Vec::new() } else { vec![header.to_owned()] };
    FakeAnswer::Answer(status, headers, body.as_bytes().to_vec())
}

fn absurdities() -> Vec<(&'static str, FakeAnswer)> {
    let html = "<html><body>502 Bad Gateway</body></html>";
    let deep = "[".repeat(100_000);
    vec![
        ("empty", answer("200 OK", "")),
        ("null", answer("200 OK", "null")),
        ("a number", answer("200 OK", "7")),
        ("other json", answer("200 OK", "{\"a\": [1, 2]}")),
        ("half", answer("200 OK", "[{\"Key\": \"rampud")),
        ("deep", answer("200 OK", &deep)),
        ("no base64", answer("200 OK", "[{\"Key\": \"k\", \"Value\": \"%\", \"ModifyIndex\": 1}]")),
        ("html", bare("200 OK", "Content-Type: text/html", html)),
        ("html that is not there", bare("404 Not Found", "Content-Type: text/html", html)),
        ("a redirect", bare("302 Found", "Location: http://127.0.0.1:1/", "")),
        ("no content", bare("204 No Content", "X-Consul-Index: 9", "")),
        ("an error", answer("500 Internal Server Error", "No cluster leader")),
        ("another error", answer("503 Service Unavailable", "")),
        ("too many", answer("429 Too Many Requests", "\u{1b}[2J")),
        ("an index that is none", bare("200 OK", "X-Consul-Index: -1", "[]")),
        ("no index", bare("200 OK", "", "[]")),
        ("huge", FakeAnswer::Huge(100 << 20, true)),
        ("huge without a word", FakeAnswer::Huge(100 << 20, false)),
        ("endless", FakeAnswer::Endless),
        ("an endless head", FakeAnswer::EndlessHead),
        ("nothing", FakeAnswer::Nothing),
        ("the end", FakeAnswer::Close),
        ("garbage", FakeAnswer::Garbage),
    ]
}

async fn check_bears(scheme: &'static str, what: &'static str, absurd: FakeAnswer) {
    let is_huge = matches!(absurd, FakeAnswer::Huge(..));
    let fake = FakeHttp::start(move |_| absurd.clone());
    let backend = backend(&format!("{scheme}://{}", fake.address()));
    let what = format!("{scheme}, {what}");
    let found = within(&what, CALL_PATIENCE, backend.snapshot()).await;
    let error = found.expect_err(&what).explained();
    assert!(!error.contains(char::is_control) && error.len() < 1500, "{what}: {error}");
    println!("{what}: {error}");
    if is_huge {
        // What the system holds between the two was sent, too.
        assert!(fake.bytes() < 64 << 20, "{what}: {} bytes were taken", fake.bytes());
    }
    check_calls_fail(&*backend, &what).await;
}

async fn check_calls_fail(backend: &dyn Backend, what: &str) {
    let member = Member::ready("a", 1.0);
    let (living, settings) = (server("a", 1), Settings::new("lab", 1));
    let written = within(what, CALL_PATIENCE, backend.write_member(&member, Revision(1))).await;
    assert!(written.is_err(), "{what}: {written:?}");
    let removed = within(what, CALL_PATIENCE, backend.remove_member("a", Revision(1))).await;
    assert!(removed.is_err(), "{what}: {removed:?}");
    let created = within(what, CALL_PATIENCE, backend.create_settings(&settings)).await;
    assert!(created.is_err(), "{what}: {created:?}");
    // Several calls, and a session that is waited for.
    let announced = within(what, 4 * CALL_PATIENCE, backend.announce(&living)).await;
    assert!(announced.is_err(), "{what}: {announced:?}");
    let _ = within(what, CALL_PATIENCE, backend.free_name(&living)).await;
    let _ = within(what, WAIT_PATIENCE, backend.changed()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn absurd_answers_are_errors_in_time_and_are_not_stored() {
    let cases = absurdities();
    let mut tasks = Vec::new();
    for scheme in SCHEMES {
        for (what, absurd) in cases.clone() {
            tasks.push(tokio::spawn(check_bears(scheme, what, absurd)));
        }
    }
    let count = tasks.len();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(count >= 40);
}

/// What shows that a service answers, and what a reading begins with.
const SIGNS_OF_LIFE: [(&str, &str, &str); 2] =
    [("consul", "GET /v1/status/leader", "recurse"), ("etcd", "GET /health", "/v3/kv/range")];

/// How often a reading was begun.
fn readings(fake: &FakeHttp, reading: &str) -> usize {
    fake.requests().iter().filter(|request| request.line.contains(reading)).count()
}

/// An answer that says that there is nothing.
fn nothing_there(request: &FakeRequest) -> FakeAnswer {
    match (request.line.contains("/v1/kv/"), request.line.contains("/v1/health/")) {
        (true, _) => answer("404 Not Found", ""),
        (_, true) => answer("200 OK", "[]"),
        _ => answer("200 OK", "{\"header\": {\"revision\": \"7\"}}"),
    }
}

/// More load is no help for who has too much to do: whatever is asked is asked twice at
/// most, and the answer counts however late in the call it comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_service_is_asked_no_more_than_twice_and_its_answer_counts() {
    const SLOW: Duration = Duration::from_millis(3_500);
    for (scheme, sign_of_life, reading) in SIGNS_OF_LIFE {
        let is_slow = move |line: &str| line.contains(reading) || line.contains("/v1/health/");
        let fake = FakeHttp::start(move |request| {
            if is_slow(&request.line) {
                std::thread::sleep(SLOW);
            }
            nothing_there(request)
        });
        let backend = backend(&format!("{scheme}://{}", fake.address()));
        let found = within(scheme, CALL_PATIENCE, backend.snapshot()).await;
        assert!(found.is_ok_and(|found| found.is_empty()), "{scheme}");
        assert_eq!(readings(&fake, reading), 2, "{scheme}");
        assert!(readings(&fake, "/v1/health/") <= 2, "{scheme}");
        assert!(readings(&fake, sign_of_life) > 0, "{scheme}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_show_that_it_answers_is_not_asked_again() {
    let signs = [FakeAnswer::Nothing, answer("503 Service Unavailable", "no leader")];
    for ((scheme, sign_of_life, reading), sign) in SIGNS_OF_LIFE.into_iter().zip(signs) {
        let fake = FakeHttp::start(move |request| match request.line.contains(sign_of_life) {
            true => sign.clone(),
            false => FakeAnswer::Nothing,
        });
        let backend = backend(&format!("{scheme}://{}", fake.address()));
        let found = within(scheme, CALL_PATIENCE, backend.snapshot()).await;
        let error = found.unwrap_err().explained();
        assert!(error.contains("no answer"), "{error}");
        assert_eq!(readings(&fake, reading), 1, "{scheme}");
        // Once a heartbeat, not as fast as it says no.
        assert!((1..=10).contains(&readings(&fake, sign_of_life)), "{scheme}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_second_try_does_not_wait_for_the_first() {
    for (scheme, _, reading) in SIGNS_OF_LIFE {
        let count = AtomicU64::new(0);
        let fake = FakeHttp::start(move |request| {
            match (request.line.contains(reading), count.fetch_add(1, Ordering::Relaxed)) {
                (true, 0 | 1) => FakeAnswer::Nothing,
                (true, _) => answer("500 Internal Server Error", "No cluster leader"),
                _ => nothing_there(request),
            }
        });
        let backend = backend(&format!("{scheme}://{}", fake.address()));
        let machine = Machine::watched();
        let began = machine.now();
        let found = within(scheme, CALL_PATIENCE, backend.snapshot()).await;
        let error = found.unwrap_err().explained();
        assert!(error.contains("No cluster leader"), "{error}");
        machine.assert_within(scheme, began, began.elapsed(), 2 * HEARTBEAT);
        assert_eq!(readings(&fake, reading), 2, "{scheme}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_not_asked_of_another_host() {
    let hosts = [(), ()].map(|()| FakeHttp::start(|_| FakeAnswer::Huge(100 << 20, true)));
    let [one, other] = [&hosts[0], &hosts[1]].map(FakeHttp::address);
    let backend = backend(&format!("etcd://{one},{other}"));
    let error = within("reading", CALL_PATIENCE, backend.snapshot()).await.unwrap_err();
    assert!(error.explained().contains("has more than 16777216 bytes"), "{error}");
    let asked: usize = hosts.iter().map(|host| readings(host, "/v3/kv/range")).sum();
    assert_eq!(asked, 1);
}

/// What a client does: wait for a change, then read.
async fn requests_in_three_seconds(url: &str, fake: &FakeHttp) -> usize {
    let backend = open(url, "lab").unwrap();
    let began = Instant::now();
    let follow = async {
        loop {
            if backend.changed().await.is_ok() {
                let _ = backend.snapshot().await;
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(3), follow).await;
    assert!(began.elapsed() >= Duration::from_secs(3));
    fake.requests().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_stays_at_nothing_or_goes_backwards_is_not_asked_in_a_busy_loop() {
    type Index = fn(u64) -> u64;
    let indexes: [(&str, Index); 4] = [
        ("always 0", |_| 0),
        ("always the same", |_| 7),
        ("backwards", |count| 1_000_000 - count),
        ("forwards and backwards", |count| if count % 2 == 0 { 5 } else { 9 }),
    ];
    for (what, index) in indexes {
        let count = AtomicU64::new(0);
        let fake = FakeHttp::start(move |_| {
            let index = index(count.fetch_add(1, Ordering::Relaxed));
            bare("200 OK", &format!("X-Consul-Index: {index}"), "[]")
        });
        let requests =
            requests_in_three_seconds(&format!("consul://{}", fake.address()), &fake).await;
        println!("index {what}: {requests} requests in 3 s");
        assert!((4..=120).contains(&requests), "{what}: {requests}");
        let zero = fake.requests().iter().filter(|one| one.line.contains("index=0")).count();
        assert_eq!(zero, 0, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_etcd_that_ends_at_once_is_not_opened_in_a_busy_loop() {
    let header = "{\"header\": {\"revision\": \"5\"}}";
    let watches = [
        (
            "compacted",
            "{\"result\":{\"header\":{},\"canceled\":true,\"compact_revision\":\"9\"}}\n",
        ),
        ("another time", "{\"result\":{\"header\":{\"revision\":\"1\"},\"created\":true}}\n"),
        ("always new", "{\"result\":{\"header\":{\"revision\":\"7\"},\"events\":[{}]}}\n"),
    ];
    for (what, line) in watches {
        let fake = FakeHttp::start(move |request| match request.line.contains("watch") {
            true => answer("200 OK", line),
            false => answer("200 OK", header),
        });
        let requests =
            requests_in_three_seconds(&format!("etcd://{}", fake.address()), &fake).await;
        println!("watch {what}: {requests} requests in 3 s");
        assert!((4..=130).contains(&requests), "{what}: {requests}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_grows_without_an_end_is_refused() {
    let fake = FakeHttp::start(|request| match request.line.contains("watch") {
        true => FakeAnswer::Huge(100 << 20, false),
        false => answer("200 OK", "{\"header\": {\"revision\": \"5\"}}"),
    });
    let backend = backend(&format!("etcd://{}", fake.address()));
    backend.snapshot().await.unwrap();
    let error = within("watch", CALL_PATIENCE, backend.changed()).await.unwrap_err().explained();
    assert!(error.contains("has more than 16777216 bytes"), "{error}");
    assert!(fake.bytes() < 64 << 20, "{} bytes were taken", fake.bytes());
}

// Blank lines were read over for ever, each at the cost of all that had come.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_is_flooded_with_nothing_ends_in_time_and_is_not_stored() {
    let progress = "{\"result\":{\"header\":{\"revision\":\"5\"}}}\n";
    for line in ["\n", " \r\n", progress] {
        let fake = FakeHttp::start(move |request| match request.line.contains("watch") {
            true => FakeAnswer::Flood(line),
            false => answer("200 OK", "{\"header\": {\"revision\": \"5\"}}"),
        });
        let backend = backend(&format!("etcd://{}", fake.address()));
        backend.snapshot().await.unwrap();
        let error = within(line, WAIT_PATIENCE, backend.changed()).await.unwrap_err().explained();
        assert!(error.contains("has more than 16777216 bytes"), "{line:?}: {error}");
        assert!(fake.bytes() < 64 << 20, "{line:?}: {} bytes were taken", fake.bytes());
    }
}

// What was sent while a service was gone without a word is never answered.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_answered_is_asked_again_after_a_heartbeat() {
    let found = "{\"header\": {\"revision\": \"5\"}}";
    for (scheme, body, swallowed) in [("consul", "[]", 2), ("etcd", found, 1)] {
        let count = AtomicU64::new(0);
        let fake =
            FakeHttp::start(move |_| match count.fetch_add(1, Ordering::Relaxed) < swallowed {
                true => FakeAnswer::Nothing,
                false => answer("200 OK", body),
            });
        let (backend, machine) =
            (backend(&format!("{scheme}://{}", fake.address())), Machine::watched());
        let began = machine.now();
        backend.snapshot().await.unwrap();
        machine.assert_within(scheme, began, began.elapsed(), 2 * HEARTBEAT);
        assert!(began.elapsed() >= HEARTBEAT);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_registered_with_an_agent_ends_with_it() {
    let fake = FakeHttp::start(|request| match request.line.contains("register") {
        true => bare("200 OK", "", ""),
        false if request.line.starts_with("GET") => bare("404 Not Found", "X-Consul-Index: 9", ""),
        false => bare("403 Forbidden", "", "Permission denied"),
    });
    let backend = backend(&format!("consul://sesame@{}/lab-memory", fake.address()));
    let error = backend.announce(&server("a", 1)).await.unwrap_err().explained();
    assert!(error.contains("create a session") && error.contains("check the token"), "{error}");
    let requests = fake.requests();
    let registered = requests.iter().find(|one| one.line.contains("service/register")).unwrap();
    for said in ["\"TTL\":\"3s\"", "\"DeregisterCriticalServiceAfter\":\"1m\""] {
        assert!(registered.body.contains(said), "{}", registered.body);
    }
    // It was taken back, as it came to nothing.
    assert!(requests.iter().any(|one| one.line.contains("service/deregister")));
    let mut asked = requests.iter().filter(|one| !one.line.contains("/v1/status/leader"));
    assert!(asked.all(|one| {
        one.head.iter().any(|line| line.eq_ignore_ascii_case("x-consul-token: sesame"))
    }));
}

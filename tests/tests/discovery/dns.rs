//! `srv:` and `dns:` against a real name server.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rampuddle_discovery::conformance::{Capability, Service, run};
use rampuddle_discovery::{
    Backend, DiscoveryError, Id, Living, MemberState, Snapshot, Watch, open,
};
use rampuddle_harness::{Machine, NameServer};
use tempfile::TempDir;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);
/// The time to live of the records, unless they say otherwise.
const TTL: Duration = Duration::from_secs(1);
/// What a reading takes, and what clients are spread over.
const SLACK: Duration = Duration::from_secs(1);
/// How long a call may take at most, and some time for a busy machine.
const CALL_LIMIT: Duration = Duration::from_secs(7);

const TWO: &str = "_puddle._tcp SRV 0 5 7000 b\n_puddle._tcp SRV 0 0 7001 a\n\
                   a A 127.0.0.1\nb A 127.0.0.2\nall A 127.0.0.1\nall A 127.0.0.2";
const THREE: &str = "_puddle._tcp SRV 0 5 7000 b\n_puddle._tcp SRV 0 0 7001 a\n\
                     _puddle._tcp SRV 0 7 7002 c\na A 127.0.0.1\nb A 127.0.0.2\nc A 127.0.0.3";

fn srv_url(server: &NameServer) -> String {
    format!("srv:_puddle._tcp.test?server={}", server.address())
}

fn opened(url: &str) -> Arc<dyn Backend> {
    open(url, "lab").unwrap()
}

async fn snapshot(backend: &dyn Backend) -> Snapshot {
    backend.snapshot().await.unwrap()
}

fn weights(view: &Snapshot) -> Vec<(&str, f64)> {
    view.members.iter().map(|one| (one.value.name.as_str(), one.value.weight)).collect()
}

/// Members in a file.
struct List {
    folder: TempDir,
}

impl List {
    fn with(members: &[(&str, &str)]) -> Self {
        let list = Self { folder: TempDir::new().unwrap() };
        let entry = |(name, address): &(&str, &str)| {
            format!("[[member]]\nname = \"{name}\"\naddress = \"{address}\"\n")
        };
        std::fs::write(list.path(), members.iter().map(entry).collect::<String>()).unwrap();
        list
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("members.toml")
    }

    fn url(&self, server: &NameServer) -> String {
        let path = self.path().display().to_string();
        format!("dns:all.test?members={path}&server={}", server.address())
    }
}

#[tokio::test]
async fn srv_records_conform() {
    let Some(server) = NameServer::start(TWO) else { return };
    let url = srv_url(&server);
    let service = || {
        let url = url.clone();
        Service::new(move |cluster| open(&url, cluster).unwrap())
    };
    let report = run(service, Capability::Lists).await;
    println!("{}", report.told("srv", server.version()));
    assert_eq!(report.sentences.len(), 7);
}

#[tokio::test]
async fn names_with_a_list_conform() {
    let Some(server) = NameServer::start(TWO) else { return };
    let list = List::with(&[("b", "127.0.0.2:7001"), ("a", "127.0.0.1:7000")]);
    let url = list.url(&server);
    let service = || {
        let url = url.clone();
        Service::new(move |cluster| open(&url, cluster).unwrap())
    };
    let report = run(service, Capability::Lists).await;
    println!("{}", report.told("dns", server.version()));
    assert_eq!(report.sentences.len(), 7);
}

#[tokio::test]
async fn names_that_are_not_there_or_have_no_records_are_errors() {
    let Some(server) = NameServer::start(TWO) else { return };
    let address = server.address();
    let list = List::with(&[("a", "127.0.0.1:7000")]);
    let members = list.path().display().to_string();
    // Not there; there, without such a record; a zone that the server cannot read.
    for (name, why) in [
        ("nowhere.test", "there is no such name"),
        ("_tcp.test", "the name has no such records"),
        ("x.broken", "Server Failure"),
        ("other.example", "Query Refused"),
    ] {
        let dns = format!("dns:{name}?members={members}&server={address}");
        for url in [format!("srv:{name}?server={address}"), dns] {
            let failed = opened(&url).snapshot().await.unwrap_err();
            let told = failed.explained();
            assert!(matches!(failed, DiscoveryError::Unreachable { .. }), "{failed:?}");
            assert!(told.starts_with(&format!("cannot look up {}:{name}", &url[..3])), "{told}");
            assert!(told.contains(why), "{told}");
            println!("{told}");
        }
    }
}

#[tokio::test]
async fn a_changed_record_is_seen_after_its_time_to_live() {
    let Some(mut server) = NameServer::start(TWO) else { return };
    let mut watch = Watch::start(opened(&srv_url(&server)), PATIENCE).await.unwrap();
    let (machine, mut slowest) = (Machine::watched(), Duration::ZERO);
    let all = machine.now();
    for (records, wanted) in [
        (THREE, vec![("a", 1.0), ("b", 5.0), ("c", 7.0)]),
        (TWO, vec![("a", 1.0), ("b", 5.0)]),
        (THREE, vec![("a", 1.0), ("b", 5.0), ("c", 7.0)]),
    ] {
        server.set(records);
        let began = Instant::now();
        let view = timeout(PATIENCE, watch.changed()).await.unwrap();
        assert_eq!(weights(&view), wanted);
        slowest = slowest.max(began.elapsed());
    }
    machine.assert_within("changed records are seen", all, slowest, TTL + SLACK);
}

#[tokio::test]
async fn a_view_stays_while_records_are_gone_or_the_server_is_and_is_followed_again() {
    let Some(mut server) = NameServer::start(TWO) else { return };
    let url = srv_url(&server);
    let mut watch = Watch::start(opened(&url), PATIENCE).await.unwrap();
    let before = watch.current();
    assert_eq!((before.members.len(), before.living.len()), (2, 2));
    for is_killed in [false, true] {
        if is_killed {
            server.kill();
        } else {
            server.set("");
        }
        let began = Instant::now();
        while opened(&url).snapshot().await.is_ok() {
            assert!(began.elapsed() < PATIENCE, "the records are still there");
        }
        // It is asked about three times meanwhile.
        let changed = timeout(3 * TTL, watch.changed()).await;
        assert!(changed.is_err(), "{changed:?}");
        assert_eq!(watch.current(), before);
    }
    server.start_again();
    server.set(THREE);
    let view = timeout(PATIENCE, watch.changed()).await.unwrap();
    assert_eq!(view.members.len(), 3);
}

#[tokio::test]
async fn each_bad_record_costs_a_complaint_and_the_others_stay() {
    let records = "_puddle._tcp SRV 1 0 7000 a\n_puddle._tcp SRV 1 9 7001 b\n\
        _puddle._tcp SRV 2 9 7002 later\n_puddle._tcp SRV 1 1 7003 .\n\
        _puddle._tcp SRV 1 1 7004 local\n_puddle._tcp SRV 1 1 7005 nowhere\n\
        _puddle._tcp SRV 1 2 7001 b\n_puddle._tcp SRV 1 1 0 zero\n\
        _puddle._tcp SRV 1 1 7006 under_score.x\n_puddle._tcp SRV 1 1 7007 -dash\n\
        a A 127.0.0.1\nb A 127.0.0.2\nlater A 127.0.0.3\nlocal A 169.254.169.254\n\
        zero A 127.0.0.4\nunder_score.x A 127.0.0.5\n-dash A 127.0.0.6";
    let Some(server) = NameServer::start(records) else { return };
    let found = snapshot(&*opened(&srv_url(&server))).await;
    println!("{:#?}", found.complaints);
    let state = |name: &str| found.member(name).map(|found| found.value.state);
    let weight = |name: &str| found.member(name).map(|found| found.value.weight);
    let alive = |name: &str| found.alive(name).and_then(|living| living.tcp.clone());
    assert_eq!((state("a"), weight("a")), (Some(MemberState::Ready), Some(1.0)));
    assert_eq!(alive("a").as_deref(), Some("127.0.0.1:7000"));
    // Of two records for one server the lighter comes first.
    assert_eq!((weight("b"), alive("b").as_deref()), (Some(2.0), Some("127.0.0.2:7001")));
    assert_eq!(state("later"), Some(MemberState::Out));
    assert_eq!(alive("under_score").as_deref(), Some("127.0.0.5:7006"));
    for member_only in ["local", "nowhere", "zero"] {
        assert!(state(member_only).is_some() && alive(member_only).is_none(), "{member_only}");
    }
    assert_eq!(found.complaints.len(), 6);
    for said in [
        "target \".\"",
        "link-local",
        "\"nowhere\" ignored: no address of",
        "\"b\" is there twice",
        "dash\" ignored: the name",
        "127.0.0.4:0",
    ] {
        let count = found.complaints.iter().filter(|complaint| complaint.contains(said)).count();
        assert_eq!(count, 1, "{said}: {:#?}", found.complaints);
    }
}

#[tokio::test]
async fn records_that_name_no_server_are_an_error() {
    let Some(server) = NameServer::start("_puddle._tcp SRV 0 0 0 .") else { return };
    let failed = opened(&srv_url(&server)).snapshot().await.unwrap_err();
    assert!(matches!(failed, DiscoveryError::NoMembers { ignored: 1, .. }), "{failed:?}");
}

#[tokio::test]
async fn an_answer_that_does_not_fit_a_datagram_is_read_over_tcp() {
    let count = 300;
    let record = |number: usize| {
        format!(
            "_puddle._tcp SRV 0 {number} 7000 server-{number}\nserver-{number} A 127.1.{}.{}\n",
            number / 200,
            number % 200 + 1
        )
    };
    let records: String = (1..=count).map(record).collect();
    let Some(server) = NameServer::start(&records) else { return };
    let began = Instant::now();
    let found = snapshot(&*opened(&srv_url(&server))).await;
    println!("{count} records and their addresses: {:?}", began.elapsed());
    assert_eq!((found.members.len(), found.living.len()), (count, count));
    assert_eq!(found.complaints, Vec::<String>::new());
}

#[tokio::test]
async fn a_listed_member_is_alive_as_long_as_the_name_has_its_address() {
    let names = |addresses: &[u8]| {
        let address = |last: &u8| format!("all A 127.0.0.{last}\n");
        format!("host-c A 127.0.0.3\n{}", addresses.iter().map(address).collect::<String>())
    };
    let Some(mut server) = NameServer::start(&names(&[1, 3])) else { return };
    let list = List::with(&[
        ("a", "127.0.0.1:7000"),
        ("b", "127.0.0.2:7000"),
        ("c", "host-c.test:7000"),
        ("d", "nowhere.test:7000"),
    ]);
    let backend = opened(&list.url(&server));
    let mut watch = Watch::start(opened(&list.url(&server)), PATIENCE).await.unwrap();
    let machine = Machine::watched();
    let alive = |view: &Snapshot| {
        view.living.iter().map(|living| living.name.clone()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!((watch.current().members.len(), alive(&watch.current()).as_str()), (4, "a c"));
    for (addresses, wanted) in [(&[2, 3][..], "b c"), (&[1], "a"), (&[1, 2, 3, 9], "a b c")] {
        server.set(&names(addresses));
        let began = machine.now();
        while alive(&watch.current()) != wanted {
            timeout(PATIENCE, watch.changed()).await.unwrap();
        }
        machine.assert_within("other addresses are seen", began, began.elapsed(), TTL + SLACK);
        assert_eq!(watch.current().members.len(), 4);
    }
    let complaints = snapshot(&*backend).await.complaints;
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].starts_with("127.0.0.9 of all.test"), "{complaints:?}");

    // A server starts before its address is published.
    server.set(&names(&[1]));
    let starting = Living::at("b", "127.0.0.2:7000", Id([1; 16]));
    backend.announce(&starting).await.unwrap().withdraw().await.unwrap();
    let stranger = Living::at("x", "127.0.0.2:7000", Id([1; 16]));
    assert!(backend.announce(&stranger).await.is_err());
}

#[tokio::test]
async fn a_name_server_that_says_nothing_holds_no_call_longer_than_its_limit() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = silent.local_addr().unwrap();
    let list = List::with(&[("a", "127.0.0.1:7000")]);
    let members = list.path().display().to_string();
    for url in [
        format!("srv:_puddle._tcp.test?server={server}"),
        format!("dns:all.test?members={members}&server={server}"),
    ] {
        let began = Instant::now();
        let failed = opened(&url).snapshot().await.unwrap_err();
        println!("{} after {:?}", failed.explained(), began.elapsed());
        assert!(began.elapsed() < CALL_LIMIT, "{:?}", began.elapsed());
    }
}

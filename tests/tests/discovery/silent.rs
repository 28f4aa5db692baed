//! Services that are gone without a word: what they are sent is swallowed on its way, or
//! their process stands still. Whoever uses them is back within two heartbeats of their
//! return, however long they were away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rampuddle_discovery::{Announcement, Backend, DiscoveryError, Living, Member, Revision, Watch};
use rampuddle_harness::{
    Consul, ConsulOptions, Etcd, EtcdOptions, Fault, FaultProxy, LocalService, Machine, Moment,
    Seeded, Weather, ZooKeeper, ZooKeeperOptions, pace,
};
use tokio::time::{sleep, timeout};

use crate::support::{HEARTBEAT, PATIENCE, backend, is_alive, server, within};

/// Longer than it takes to notice, and longer than any lease or session.
const OUTAGES: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(7)];
/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// What a process that stood still needs to find out whose session is over.
const TICK_OF_ZOOKEEPER: Duration = Duration::from_secs(2);

/// Somebody who announces a server and watches over one way, and sees the service by
/// another.
struct Users {
    near: Arc<dyn Backend>,
    living: Living,
    watch: Watch,
    _announced: Announcement,
    machine: Machine,
    members: u32,
}

impl Users {
    async fn of(scheme: &str, service: &LocalService, way: SocketAddr) -> Self {
        let near = backend(&format!("{scheme}://{}/tested", service.address()));
        let url = format!("{scheme}://{way}/tested");
        let living = server("a", 1);
        let announced = backend(&url).announce(&living).await.expect("the name is free");
        let watch = Watch::start(backend(&url), PATIENCE).await.expect("the service is up");
        Self { near, living, watch, _announced: announced, machine: Machine::watched(), members: 0 }
    }

    /// Writes a member that was not there, and returns its name.
    async fn write(&mut self) -> String {
        self.members += 1;
        let name = format!("member-{}", self.members);
        let member = Member::ready(name.clone(), 1.0);
        let written = async {
            while let Err(error) = self.near.write_member(&member, Revision::ABSENT).await {
                if matches!(error, DiscoveryError::Conflict { .. }) {
                    // The attempt before came through.
                    return;
                }
                sleep(LOOK_EVERY).await;
            }
        };
        within("writing", PATIENCE, written).await;
        name
    }

    /// Fails unless the member is seen, and the server is among the living for good, soon
    /// after the return of the service.
    async fn assert_back(&mut self, returned: Moment, written: &str, bound: Duration) {
        let seen = async {
            while self.watch.current().member(written).is_none() {
                self.watch.changed().await;
            }
        };
        within("seeing what is new", PATIENCE, seen).await;
        self.machine.assert_within("seen", returned, returned.elapsed(), 2 * HEARTBEAT);
        let mut dead = returned.at();
        while dead.elapsed() < 3 * HEARTBEAT {
            let found = self.near.snapshot().await;
            if !found.as_ref().is_ok_and(is_alive(&self.living)) {
                dead = Instant::now();
                assert!(returned.elapsed() < PATIENCE, "it does not come back: {found:?}");
            }
            sleep(LOOK_EVERY).await;
        }
        self.machine.assert_within("alive for good", returned, dead - returned.at(), bound);
    }
}

async fn check_swallowed(scheme: &str, service: &LocalService) {
    let proxy = FaultProxy::bind(Seeded::from_environment("silent services"));
    proxy.aim(service.address());
    let mut users = Users::of(scheme, service, proxy.address()).await;
    for outage in OUTAGES {
        println!("{service:?}: swallowed for {outage:?}");
        proxy.set_weather(Weather { faults: vec![Fault::BlackHole], spacing_bytes: 1 });
        pace(outage);
        let written = users.write().await;
        assert!(users.watch.current().member(&written).is_none(), "nothing comes through");
        proxy.set_weather(Weather::default());
        let returned = users.machine.now();
        users.assert_back(returned, &written, 2 * HEARTBEAT).await;
    }
    assert!(proxy.counts().of(Fault::BlackHole) > 0);
}

async fn check_stopped(scheme: &str, service: &LocalService, granularity: Duration) {
    let mut users = Users::of(scheme, service, service.address()).await;
    for outage in OUTAGES {
        println!("{service:?}: stands still for {outage:?}");
        service.pause();
        pace(outage);
        service.resume();
        let returned = users.machine.now();
        let written = users.write().await;
        users.assert_back(returned, &written, 2 * HEARTBEAT + granularity).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_of_a_consul_that_was_swallowed_are_back_within_two_heartbeats() {
    let Some(consul) = Consul::start(&ConsulOptions::default()) else { return };
    check_swallowed("consul", &consul).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_of_an_etcd_that_was_swallowed_are_back_within_two_heartbeats() {
    let Some(etcd) = Etcd::start(&EtcdOptions::default()) else { return };
    check_swallowed("etcd", &etcd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_of_a_zookeeper_that_was_swallowed_are_back_within_two_heartbeats() {
    let Some(zookeeper) = ZooKeeper::start(&ZooKeeperOptions::default()) else { return };
    check_swallowed("zk", &zookeeper).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_of_a_consul_that_stood_still_are_back_within_two_heartbeats() {
    let Some(consul) = Consul::start(&ConsulOptions::default()) else { return };
    check_stopped("consul", &consul, Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_of_an_etcd_that_stood_still_are_back_within_two_heartbeats() {
    let Some(etcd) = Etcd::start(&EtcdOptions::default()) else { return };
    check_stopped("etcd", &etcd, Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_of_a_zookeeper_that_stood_still_are_back_within_two_heartbeats_and_a_tick() {
    let Some(zookeeper) = ZooKeeper::start(&ZooKeeperOptions::default()) else { return };
    check_stopped("zk", &zookeeper, TICK_OF_ZOOKEEPER).await;
}

// Its watches stay open, and tell nothing for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_etcd_without_the_others_is_not_believed_to_have_nothing_new() {
    let Some([first, second, third]) = Etcd::start_three() else { return };
    let alone = backend(&format!("etcd://{}/tested", third.address()));
    alone.write_member(&Member::ready("a", 1.0), Revision::ABSENT).await.unwrap();
    assert_eq!(alone.snapshot().await.unwrap().members.len(), 1);
    let quiet = timeout(4 * HEARTBEAT, alone.changed()).await;
    assert!(quiet.is_err(), "nothing changed: {quiet:?}");

    let machine = Machine::watched();
    let cut_off = machine.now();
    first.pause();
    second.pause();
    let noticed = within("noticing it", PATIENCE, alone.changed()).await;
    // Two looks of a heartbeat each, behind a pause of up to one.
    machine.assert_within("noticed", cut_off, cut_off.elapsed(), 7 * HEARTBEAT / 2);
    println!("cut off: {noticed:?}");
    assert!(alone.snapshot().await.is_err());

    first.resume();
    second.resume();
    let whole = backend(&format!("etcd://{}/tested", first.address()));
    let written = async {
        while whole.write_member(&Member::ready("b", 1.0), Revision::ABSENT).await.is_err() {
            sleep(LOOK_EVERY).await;
        }
        while alone.snapshot().await.map_or(0, |found| found.members.len()) < 2 {
            sleep(LOOK_EVERY).await;
        }
    };
    within("being whole again", PATIENCE, written).await;
}

// A look that always finds something else would have everything read each second.
#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_change_is_not_read_again() {
    let mut urls = Vec::new();
    let (consul, etcd) = (Consul::shared(), Etcd::shared());
    urls.extend(consul.iter().map(|it| format!("consul://{}/quiet", it.address())));
    urls.extend(etcd.iter().map(|it| format!("etcd://{}/quiet", it.address())));
    for url in urls {
        let backend = backend(&url);
        backend.write_member(&Member::ready("a", 1.0), Revision::ABSENT).await.unwrap();
        let announced = backend.announce(&server("a", 1)).await.unwrap();
        let mut changes = 0;
        let follow = async {
            loop {
                backend.snapshot().await.unwrap();
                backend.changed().await.unwrap();
                changes += 1;
            }
        };
        let _ = timeout(8 * HEARTBEAT, follow).await;
        println!("{url}: {changes} changes");
        // What was just announced may still become known.
        assert!(changes <= 2, "{url}: {changes}");
        announced.withdraw().await.unwrap();
    }
}

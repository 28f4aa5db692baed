//! One fault after the other, while clients write and read.

use std::time::Duration;

use rampuddle_client::{Client, Slot, View};
use rampuddle_harness::{Moment, base64, pace};
use rampuddle_protocol::Announced;
use serde_json::json;

use crate::load::{Done, Load};
use crate::rig::{HEARTBEAT, PATIENCE, Rig, incarnation};
use crate::service::Service;
use crate::sightings::{Sightings, incarnations};

const NAMES: [&str; 3] = ["a", "b", "c"];
/// How long a service is away, unless `PUDDLE_OUTAGE_SECONDS` says otherwise.
const OUTAGE_SECONDS: u64 = 8;
/// The least time for which a server is stopped.
const STOPPED: Duration = Duration::from_secs(6);
/// How long any operation may take where no server failed, and a read at any time.
const STALL: Duration = Duration::from_secs(1);
/// What a write costs once that is on its way to a server which is silent: the client's
/// patience with it, and what it does then.
const PATIENCE_WITH_SERVERS: Duration = Duration::from_secs(7);
/// What a read costs then: it waits for a head, a hold, or bytes, half a second each at
/// most, before it asks another.
const PATIENCE_OF_READS: Duration = Duration::from_secs(2);
/// What a server may have to say of four losses of its service, and its own.
const WARNINGS_MAX: usize = 20;
/// Places whose owners are compared.
const PLACES: u16 = 64;

/// The cluster under load.
struct Trial {
    rig: Rig,
    client: Client,
    load: Load,
    sightings: Sightings,
    /// The longest turns of loops so far.
    turns: Vec<(String, Duration)>,
    /// Who was stopped: in the middle of a turn, perhaps.
    stopped: Option<&'static str>,
}

pub(crate) fn no_operation_fails_whatever_fails_around_them(service: Service) {
    let mut trial = Trial::start(service);
    trial.phase("nothing fails", |_| pace(HEARTBEAT));
    trial.service_away();
    trial.server_killed_and_started_later();
    trial.server_killed_and_started_at_once();
    trial.service_wiped();
    trial.server_stopped();
    trial.what_each_service_knows();
    trial.end();
}

impl Trial {
    fn start(service: Service) -> Self {
        let rig = Rig::start(service, NAMES.len());
        println!("{}:", rig.service.name());
        let client = rig.client();
        let load = Load::start(client.clone(), rig.runtime.handle());
        let sightings = Sightings::of(&client, rig.runtime.handle());
        Self { rig, client, load, sightings, turns: Vec::new(), stopped: None }
    }

    /// Does something, and fails when any operation did meanwhile, or took too long.
    #[track_caller]
    fn phase(&mut self, what: &str, work: impl FnOnce(&mut Self)) {
        self.bounded_phase(what, (STALL, STALL), work);
    }

    /// The same, with bounds for gets and puts.
    #[track_caller]
    fn bounded_phase(
        &mut self,
        what: &str,
        (get_bound, put_bound): (Duration, Duration),
        work: impl FnOnce(&mut Self),
    ) {
        println!(" {what}");
        let begin = self.rig.machine.now();
        self.load.mark();
        work(self);
        let done = self.load.since_mark();
        println!("  {done}");
        done.assert_all_went_well(what);
        let machine = &self.rig.machine;
        machine.assert_within("longest get", begin, done.gets.longest, get_bound);
        machine.assert_within("longest put", begin, done.puts.longest, put_bound);
        machine.assert_within("nothing done", begin, done.gap, STALL);
        self.note_turns();
    }

    fn note_turns(&mut self) {
        let turns = self.rig.longest_turns(&self.client);
        for (name, turn) in turns.into_iter().filter(|(name, _)| self.stopped != Some(name)) {
            match self.turns.iter_mut().find(|(known, _)| *known == name) {
                Some((_, longest)) => *longest = turn.max(*longest),
                None => self.turns.push((name, turn)),
            }
        }
    }

    /// The service is killed, and comes back with its data.
    fn service_away(&mut self) {
        let outage = outage();
        self.phase(&format!("the service is killed for {outage:?}"), |trial| {
            trial.rig.service.kill();
            pace(outage);
            let view = trial.client.view();
            assert_eq!(view.all_living().count(), NAMES.len(), "the last good view");
            trial.assert_servers_say(Announced::No);
            trial.rig.service.start_again();
            let returned = trial.rig.machine.now();
            trial.assert_back(returned);
            trial.assert_servers_say(Announced::Yes);
        });
    }

    /// The service is killed, and comes back without its data.
    fn service_wiped(&mut self) {
        self.phase("the service is killed and wiped", |trial| {
            let before = trial.rig.snapshot().expect("the service is up");
            trial.rig.service.kill();
            trial.rig.service.wipe();
            trial.rig.service.start_again();
            let returned = trial.rig.machine.now();
            let written = trial.rig.until_said("settings and members", |found| {
                let settings = found.settings.as_ref().zip(before.settings.as_ref());
                let is_same = settings.is_some_and(|(one, other)| {
                    (one.strategy, one.replicas_max, one.slots)
                        == (other.strategy, other.replicas_max, other.slots)
                });
                is_same && found.members.len() == NAMES.len()
            });
            let took = written - returned.at();
            let machine = &trial.rig.machine;
            machine.assert_within("settings and members back", returned, took, 2 * HEARTBEAT);
            trial.assert_back(returned);
        });
    }

    /// Each server's own word on whether discovery has it.
    #[track_caller]
    fn assert_servers_say(&self, wanted: Announced) {
        let nodes = self.rig.runtime.block_on(self.client.nodes());
        let said = nodes.iter().filter_map(|node| Some(node.info.as_ref()?.row.announced()));
        assert_eq!(said.collect::<Vec<_>>(), [wanted; NAMES.len()]);
    }

    /// In time after the service's first answer all servers are among the living, and stay
    /// there; what it says before may be of another time. The client sees it.
    #[track_caller]
    fn assert_back(&self, returned: Moment) {
        // Longer than what was there before the return would last by itself.
        let back = self.rig.alive_for_good_after(returned.at(), 5 * HEARTBEAT);
        self.rig.machine.assert_within("all are back, for good", returned, back, 2 * HEARTBEAT);
        assert_eq!(self.client.view().all_living().count(), NAMES.len());
    }

    /// A server is killed, is seen dead, and started again.
    fn server_killed_and_started_later(&mut self) {
        let (bound, why) = self.rig.service.granularity();
        self.phase("kill -9 of a server", |trial| {
            let before = (members(&trial.client.view()), owners(&trial.client.view()));
            let killed = trial.rig.machine.now();
            trial.rig.servers[1].kill();
            trial.assert_dead("b", killed, bound, why);
            let after = (members(&trial.client.view()), owners(&trial.client.view()));
            assert_eq!(before, after, "nothing moves");
        });
        self.phase("it is started again", |trial| {
            let first = incarnation(&trial.rig.servers[1]);
            trial.rig.restart(1);
            let ready = trial.rig.machine.now();
            assert_eq!(trial.rig.servers[1].ready()["announced"], true);
            assert_ne!(incarnation(&trial.rig.servers[1]), first);
            trial.assert_seen_again(ready);
        });
        self.phase("its copies are made anew", |trial| trial.load.make_copies_anew());
    }

    /// A server is killed, and started again while its lease is not over.
    fn server_killed_and_started_at_once(&mut self) {
        self.phase("kill -9 of another server, and started again at once", |trial| {
            let first = incarnation(&trial.rig.servers[2]);
            let killed = trial.rig.machine.now();
            trial.rig.servers[2].kill();
            trial.rig.restart(2);
            let ready = trial.rig.machine.now();
            assert_eq!(trial.rig.servers[2].ready()["announced"], true);
            assert_ne!(incarnation(&trial.rig.servers[2]), first);
            // A lease is renewed each second, so two seconds of it were left at least.
            let took = killed.elapsed();
            trial.rig.machine.assert_within("taken over", killed, took, 2 * HEARTBEAT);
            trial.assert_seen_again(ready);
            // The end of the old lease ends nothing of the new one.
            let (granularity, _) = trial.rig.service.granularity();
            trial.rig.assert_stay_alive(3 * HEARTBEAT + granularity);
        });
        self.phase("its copies are made anew", |trial| trial.load.make_copies_anew());
    }

    /// Longer than its session or lease, a server does nothing at all.
    fn server_stopped(&mut self) {
        let (bound, why) = self.rig.service.granularity();
        self.bounded_phase(
            "SIGSTOP of a server",
            (PATIENCE_OF_READS, PATIENCE_WITH_SERVERS),
            |trial| {
                trial.stopped = Some("a");
                let stopped = trial.rig.machine.now();
                trial.rig.servers[0].pause();
                trial.assert_dead("a", stopped, bound, why);
                pace(STOPPED.saturating_sub(stopped.elapsed()));
                trial.rig.servers[0].resume();
                let goes_on = trial.rig.machine.now();
                let back = trial.rig.until_said("it is back", trial.rig.has_all_alive());
                let took = back - goes_on.at();
                trial.rig.machine.assert_within("back", goes_on, took, 2 * HEARTBEAT);
                trial.rig.assert_stay_alive(2 * HEARTBEAT);
            },
        );
    }

    fn what_each_service_knows(&mut self) {
        let is_forgetful = matches!(self.rig.service, Service::Consul(_));
        let what = match &self.rig.service {
            Service::Consul(_) => "the agent is stopped and started again",
            Service::Etcd(_) => "compacted while everybody watches, and defragmented",
            Service::ZooKeeper(_) => "started again within the time of sessions",
        };
        self.phase(what, |trial| {
            let began = trial.rig.machine.now();
            match &mut trial.rig.service {
                Service::Consul(consul) => {
                    consul.stop();
                    consul.start_again();
                }
                Service::Etcd(etcd) => {
                    for number in 0..5 {
                        // Elsewhere, so that whoever watches is told of nothing.
                        let (key, value) = (base64(b"elsewhere"), base64(&[number; 3]));
                        etcd.api("/v3/kv/put", &json!({ "key": key, "value": value }));
                        etcd.compact();
                        etcd.defragment();
                        pace(HEARTBEAT / 4);
                    }
                }
                Service::ZooKeeper(zookeeper) => {
                    zookeeper.kill();
                    zookeeper.start_again();
                }
            }
            let returned = trial.rig.machine.now();
            trial.assert_back(returned);
            if !is_forgetful {
                let missing = trial.sightings.anybody_missing(began.at(), NAMES.len());
                assert!(!missing, "a server was not seen alive though its lease never ended");
            }
        });
    }

    /// Discovery and the client no longer see a server that died, in time.
    #[track_caller]
    fn assert_dead(&self, name: &str, died: Moment, granularity: Duration, why: &str) {
        let dead = self.rig.until_said("it is seen dead", |found| found.alive(name).is_none());
        let bound = 3 * HEARTBEAT + granularity;
        println!("  3 heartbeats, and {granularity:?} more: {why}");
        self.rig.machine.assert_within("seen dead", died, dead - died.at(), bound);
        self.assert_seen("the client sees it dead", died, bound + HEARTBEAT, |view| {
            view.living(name).is_none()
        });
    }

    /// Discovery and the client see all servers, as they run now.
    #[track_caller]
    fn assert_seen_again(&self, ready: Moment) {
        let back = self.rig.until_said("it is back", self.rig.has_all_alive());
        self.rig.machine.assert_within("back", ready, back - ready.at(), HEARTBEAT);
        let running: Vec<String> = self.rig.servers.iter().map(incarnation).collect();
        self.assert_seen("the client sees it", ready, 2 * HEARTBEAT, |view| {
            incarnations(view).into_values().eq(running.iter().cloned())
        });
    }

    #[track_caller]
    fn assert_seen(
        &self,
        what: &str,
        since: Moment,
        bound: Duration,
        wanted: impl Fn(&View) -> bool,
    ) {
        let mut seen = None;
        rampuddle_harness::until(what, PATIENCE, || {
            // The view of that moment may have been so already.
            seen = self.sightings.first(since.at(), &wanted);
            seen.is_some() || wanted(&self.client.view())
        });
        let took = seen.map_or(Duration::ZERO, |at| at - since.at());
        self.rig.machine.assert_within(what, since, took, bound);
    }

    fn end(mut self) {
        self.note_turns();
        self.sightings.assert_never_less(&NAMES);
        let done: Done = self.load.end();
        let turns: Vec<String> =
            self.turns.iter().map(|(name, turn)| format!("{name} {turn:.0?}")).collect();
        let service = self.rig.service.name();
        let warnings =
            self.rig.servers.iter().map(|server| server.stderr().matches(" WARN ").count());
        let warnings = warnings.max().unwrap_or(0);
        println!("  at most {warnings} warnings in a server's log");
        assert!(warnings <= WARNINGS_MAX, "the log of a server fills up");
        println!("{service}: {done}; longest turns of loops: {}", turns.join(", "));
        done.assert_all_went_well("the whole run");
        assert!(done.operations() > 500, "hardly anything was done: {done}");
    }
}

fn outage() -> Duration {
    let seconds = std::env::var("PUDDLE_OUTAGE_SECONDS").ok();
    let seconds = seconds.map(|text| text.parse().expect("PUDDLE_OUTAGE_SECONDS is a number"));
    Duration::from_secs(seconds.unwrap_or(OUTAGE_SECONDS))
}

fn members(view: &View) -> Vec<(String, f64)> {
    view.members().iter().map(|member| (member.name.to_string(), member.weight)).collect()
}

fn owners(view: &View) -> Vec<Vec<String>> {
    let places = (0..PLACES).map(|place| Slot(place * (u16::MAX / PLACES)));
    let owners = |slot| view.owners(slot, 2).map(ToString::to_string).collect();
    places.map(owners).collect()
}

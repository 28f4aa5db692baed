//! A client that writes and reads objects of its own, and knows what they may be.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rampuddle_client::{
    Client, Environment, Error, GetOptions, Options, PutOptions, PutReport, RangeOf, SeededRandom,
    Value,
};
use tokio::time::{sleep, timeout};

use super::draws::Draws;
use super::name::{Name, Reach, State};
use super::world::{Shared, WorldClock};

/// Names of each client.
const NAMES: u64 = 5;
const MIB: u64 = 1 << 20;

/// How operations ended, by kind.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    pub(super) fn one(&mut self, kind: &'static str) {
        self.add(kind, 1);
    }

    pub(super) fn of(&self, kind: &str) -> u64 {
        self.0.get(kind).copied().unwrap_or(0)
    }

    pub(super) fn all(&self) -> u64 {
        self.0.values().sum()
    }

    pub(super) fn join(&mut self, other: &Self) {
        other.0.iter().for_each(|(kind, count)| self.add(kind, *count));
    }

    fn add(&mut self, kind: &'static str, count: u64) {
        *self.0.entry(kind).or_default() += count;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(kind, count)| write!(formatter, "{kind} {count}, "))
    }
}

/// A client of the servers of `world`, all of whose randomness is `seed`'s.
pub(super) async fn connect(world: &Shared, seed: u64, deadline: Option<Duration>) -> Client {
    let draws = Draws::new(seed);
    // An hour off: the servers' clocks count.
    let off_by_ms = draws.below(7_200_000) as i64 - 3_600_000;
    let mut options = Options::new(world.url());
    options.cluster = "joined".into();
    options.deadline = deadline;
    options.environment = Environment::new(
        Arc::new(WorldClock::new(world, off_by_ms)),
        Arc::new(SeededRandom::new(draws.draw())),
        Arc::new(world.clone()),
    );
    Client::connect(options).await.expect("a static list is always there")
}

/// Panics on an error that no trouble with links and clocks explains.
pub(super) fn check_error(error: &Error) {
    let is_explained = matches!(
        error,
        Error::Unreachable { .. }
            | Error::Broken { .. }
            | Error::TimedOut { .. }
            | Error::DeadlinePassed { .. }
            | Error::Unknown { .. }
            | Error::Unreadable { .. }
            | Error::Unsettled { .. }
            | Error::Failed { .. }
            | Error::Indeterminate { .. }
            | Error::Refused { .. }
    );
    assert!(is_explained, "{error:?}");
}

/// A client, and its names.
#[derive(Debug)]
pub(super) struct Writer {
    world: Shared,
    client: Client,
    draws: Draws,
    prefix: String,
    names: Vec<Name>,
    /// Whether nothing may fail.
    is_fair: bool,
    pub(super) tally: Tally,
}

impl Writer {
    /// A client that nobody else writes beside.
    pub(super) fn new(world: &Shared, client: Client, seed: u64, number: u64) -> Self {
        let weather = world.lock().weather;
        Self {
            world: world.clone(),
            client,
            draws: Draws::new(seed),
            prefix: format!("{number}/"),
            names: (0..NAMES).map(|_| Name::new(weather.kill > 0)).collect(),
            is_fair: weather.cut + weather.silence + weather.kill + weather.leap == 0,
            tally: Tally::default(),
        }
    }

    fn now_ms(&self) -> u64 {
        self.world.lock().unix_ms()
    }

    fn name(&self, index: usize) -> Vec<u8> {
        format!("{}{index}", self.prefix).into_bytes()
    }

    /// Does something.
    pub(super) async fn step(&mut self) {
        sleep(Duration::from_millis(self.draws.below(300))).await;
        let index = self.draws.below(NAMES) as usize;
        match self.draws.below(100) {
            0..35 => self.put(index).await,
            35..42 => self.delete(index).await,
            42..65 => self.get(index).await,
            65..78 => self.get_range(index).await,
            78..85 => self.get_ranges().await,
            85..93 => self.stat(index).await,
            _ => self.list().await,
        }
    }

    /// Notes that there was no answer. When nothing befalls anybody there is one.
    fn failed(&mut self, kind: &'static str, error: &Error) {
        check_error(error);
        assert!(!self.is_fair, "{kind}: {error}");
        self.tally.one(kind);
    }

    async fn put(&mut self, index: usize) {
        let length = match self.draws.below(10) {
            0 => 0,
            1..6 => self.draws.spread(1, 100_000),
            6..8 => self.draws.below(MIB),
            _ => MIB + self.draws.below(5 * MIB / 2),
        };
        let bytes = self.draws.bytes(length);
        let mut options = PutOptions::default();
        options.stripe_bytes = Some(MIB);
        let lives = self.draws.happens(1, 6).then(|| self.draws.spread(1_000, 600_000));
        options.ttl = lives.map(Duration::from_millis);
        // Some writers lose their patience half way.
        let is_hasty = !self.is_fair && self.draws.happens(1, 12);
        let patience = if is_hasty { self.draws.spread(1, 5_000) } else { 1 << 40 };
        let name = self.name(index);
        let put = self.client.put(&name, bytes.clone(), &options);
        let put = timeout(Duration::from_millis(patience), put).await;
        let reach = match put {
            Err(_) => Reach::GivenUp,
            Ok(Ok(report)) => reach_of(&report),
            Ok(Err(error)) => {
                self.failed("puts without an answer", &error);
                if matches!(error, Error::Failed { .. }) {
                    return;
                }
                Reach::Unsure
            }
        };
        self.tally.one(match reach {
            Reach::Everywhere | Reach::Owners => "puts",
            Reach::Some => "puts with stand-ins or fewer copies",
            Reach::Unsure => "puts in doubt",
            Reach::GivenUp => "puts given up",
        });
        assert!(!self.is_fair || reach == Reach::Owners, "{reach:?}");
        // It lives from when its head is written: with an answer that was before.
        let written_ms = if reach <= Reach::Some { self.now_ms() } else { u64::MAX >> 1 };
        let ends_ms = lives.map(|lives| written_ms + lives);
        self.names[index].wrote(State { bytes: Some(bytes), ends_ms }, reach);
    }

    async fn delete(&mut self, index: usize) {
        let reach = match self.client.delete(&self.name(index)).await {
            Ok(report) if report.problems.is_empty() => {
                self.tally.one("deletes");
                Reach::Everywhere
            }
            Ok(_) => {
                assert!(!self.is_fair, "a server missed a delete");
                self.tally.one("deletes that servers missed");
                Reach::Some
            }
            Err(error) => {
                self.failed("deletes without an answer", &error);
                if matches!(error, Error::Failed { .. }) {
                    return;
                }
                Reach::Unsure
            }
        };
        self.names[index].wrote(State::NOTHING, reach);
    }

    async fn get(&mut self, index: usize) {
        let (name, begun_ms) = (self.name(index), self.now_ms());
        let found = self.client.get(&name, &GetOptions::default()).await;
        self.judge(index, begun_ms, 0..u64::MAX, found);
    }

    async fn get_range(&mut self, index: usize) {
        let (name, begun_ms, range) = (self.name(index), self.now_ms(), self.range());
        let found = self.client.get_range(&name, range.clone(), &GetOptions::default()).await;
        self.judge(index, begun_ms, range, found);
    }

    async fn get_ranges(&mut self) {
        let indices: Vec<usize> = (0..6).map(|_| self.draws.below(NAMES) as usize).collect();
        let ranges: Vec<_> = indices.iter().map(|_| self.range()).collect();
        let asked = indices.iter().zip(&ranges);
        let asked = asked.map(|(index, range)| RangeOf::new(self.name(*index), range.clone()));
        let (asked, begun_ms) = (asked.collect::<Vec<_>>(), self.now_ms());
        let found = self.client.get_ranges(&asked, &GetOptions::default()).await;
        for ((index, range), found) in indices.into_iter().zip(ranges).zip(found) {
            self.judge(index, begun_ms, range, found);
        }
    }

    fn range(&self) -> Range<u64> {
        let begin = self.draws.spread(1, 4 * MIB) - 1;
        begin..begin + self.draws.spread(1, 2 * MIB)
    }

    /// Compares what was read with what may be there.
    fn judge(
        &mut self,
        index: usize,
        begun_ms: u64,
        range: Range<u64>,
        found: Result<Option<Value>, Error>,
    ) {
        let found = match found {
            Err(error) => return self.failed("reads without an answer", &error),
            Ok(found) => found.map(Value::into_bytes),
        };
        self.tally.one(if found.is_some() { "reads" } else { "misses" });
        let name = &self.names[index];
        let is_it = |state: &State| state.bytes.as_ref().map(|bytes| cut(bytes, &range)) == found;
        let is_right = match name.certain().filter(|_| self.is_fair) {
            Some(certain) => is_it(certain),
            None => name.may_be(begun_ms).any(is_it),
        };
        let length = found.as_ref().map(Bytes::len);
        assert!(is_right, "{}{index}, {range:?}: {length:?} of {name:?}", self.prefix);
    }

    async fn stat(&mut self, index: usize) {
        let (name, begun_ms) = (self.name(index), self.now_ms());
        let found = match self.client.stat(&name).await {
            Err(error) => return self.failed("stats without an answer", &error),
            Ok(found) => found.map(|stat| stat.bytes),
        };
        self.tally.one("stats");
        let name = &self.names[index];
        let is_it = |state: &State| length_of(state) == found;
        assert!(name.may_be(begun_ms).any(is_it), "{index}: {found:?} of {name:?}");
    }

    /// Lists its own names.
    async fn list(&mut self) {
        let mut listing = self.client.list(self.prefix.as_bytes());
        let mut found = BTreeMap::new();
        while let Some(stat) = listing.next().await {
            match stat {
                Ok(stat) => _ = found.insert(stat.name, stat.bytes),
                Err(error) => return self.failed("listings without an answer", &error),
            }
        }
        assert_eq!(listing.unreadable().count, 0, "{:?}", listing.unreadable());
        let is_complete = listing.unreachable().is_empty();
        assert!(is_complete || !self.is_fair, "{:?}", listing.unreachable());
        self.tally.one(if is_complete { "listings" } else { "listings with gaps" });
        for (index, name) in self.names.iter().enumerate() {
            let found = found.remove(&self.name(index));
            let is_it = |state: &State| length_of(state) == found;
            let may_be = (found.is_none() && !is_complete) || name.may_be_listed().any(is_it);
            assert!(may_be, "{index} is listed with {found:?} of {name:?}");
        }
        assert!(found.is_empty(), "nobody wrote {found:?}");
    }

    /// Reads everything when all servers answer, and deletes it.
    pub(super) async fn finish(&mut self) {
        for index in 0..NAMES as usize {
            let (name, begun_ms) = (self.name(index), self.now_ms());
            match self.client.get(&name, &GetOptions::default()).await {
                Err(error) => {
                    assert!(!self.names[index].is_whole(), "{error}: {:?}", self.names[index]);
                    self.failed("in the end unreadable", &error);
                }
                Ok(found) => {
                    let found = found.map(Value::into_bytes);
                    let is_it = |state: &State| state.bytes == found;
                    let name = &self.names[index];
                    let is_right = match name.certain() {
                        Some(certain) => is_it(certain),
                        None => name.may_be(begun_ms).any(is_it),
                    };
                    assert!(is_right, "{index}: {:?} of {name:?}", found.map(|found| found.len()));
                    self.tally.one("in the end right");
                }
            }
            let report = self.client.delete(&name).await.expect("all servers answer");
            assert!(report.problems.is_empty(), "{report:?}");
            let found = self.client.get(&name, &GetOptions::default()).await;
            assert!(found.expect("all servers answer").is_none());
        }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The client, and what it did.
    pub(super) fn into_parts(self) -> (Client, Tally) {
        (self.client, self.tally)
    }
}

fn reach_of(report: &PutReport) -> Reach {
    let is_with_owners = report.copies >= report.wanted && report.stand_ins.is_empty();
    if is_with_owners { Reach::Owners } else { Reach::Some }
}

fn length_of(state: &State) -> Option<u64> {
    state.bytes.as_ref().map(|bytes| bytes.len() as u64)
}

/// What lies within a range.
fn cut(bytes: &Bytes, range: &Range<u64>) -> Bytes {
    let length = bytes.len() as u64;
    let (begin, end) = (range.start.min(length), range.end.min(length));
    bytes.slice(begin as usize..end as usize)
}

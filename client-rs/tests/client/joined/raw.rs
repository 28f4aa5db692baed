//! A client of one server's values, and what they may be.

use std::time::Duration;

use bytes::Bytes;
use rampuddle_client::{
    Answer, CreateItem, DeleteItem, Error, Fate, GatherItem, ListQuery, RawClient, ScatterItem,
    Target,
};
use rampuddle_protocol::{Status, Version};
use tokio::time::sleep;

use super::draws::Draws;
use super::objects::{Tally, check_error};
use super::world::Shared;

const KEYS: u64 = 8;
/// How often a value is made anew until the server says that it is there.
const AGAIN: Duration = Duration::from_secs(1);

/// What may stand under a key: `None` = nothing.
type State = Option<Bytes>;

/// A client, and its keys on the server `s0`.
#[derive(Debug)]
pub(super) struct Keys {
    world: Shared,
    raw: RawClient,
    target: Target,
    draws: Draws,
    prefix: String,
    possible: Vec<Vec<State>>,
    /// Deaths of the server that these know of.
    kills: u64,
    pub(super) tally: Tally,
}

impl Keys {
    /// Keys that nobody else writes.
    pub(super) fn new(world: &Shared, raw: RawClient, seed: u64, number: u64) -> Self {
        Self {
            world: world.clone(),
            raw,
            target: Target::server("s0"),
            draws: Draws::new(seed),
            prefix: format!("key {number}/"),
            possible: (0..KEYS).map(|_| vec![None]).collect(),
            kills: world.lock().done.kills,
            tally: Tally::default(),
        }
    }

    fn key(&self, index: usize) -> String {
        format!("{}{index}", self.prefix)
    }

    /// Does something.
    pub(super) async fn step(&mut self) {
        sleep(Duration::from_millis(self.draws.below(20))).await;
        let index = self.draws.below(KEYS) as usize;
        match self.draws.below(20) {
            0..7 => self.create(index).await,
            7..9 => self.scatter(index).await,
            9..11 => self.delete(index).await,
            11 => self.list().await,
            _ => _ = self.gather(index).await,
        }
    }

    /// A server that was killed has lost all, but what came since.
    fn note_kills(&mut self) {
        let kills = self.world.lock().done.kills;
        if std::mem::replace(&mut self.kills, kills) != kills {
            self.possible.iter_mut().for_each(|possible| possible.push(None));
        }
    }

    /// A write that leaves `after` was answered, or not: then it may have been done,
    /// or be done yet.
    fn wrote(&mut self, index: usize, sent: &Result<Answer, Error>, after: Vec<State>) {
        self.note_kills();
        match sent.as_ref().map(|answer| answer.status) {
            Ok(Status::Ok | Status::Same) => {
                self.tally.one("writes");
                self.possible[index] = after;
            }
            Ok(Status::NotFound) => self.possible[index] = vec![None],
            // A copy of the request that was taken for lost came before it.
            Ok(Status::Older | Status::Exists) => self.possible[index].extend(after),
            Ok(Status::NoSpace | Status::Busy | Status::Expired | Status::Mismatch) => {
                self.tally.one("refusals");
            }
            Ok(status) => panic!("{status} for a write"),
            Err(error) => {
                check_error(error);
                self.tally.one("writes without an answer");
                if error.fate() == Fate::MaybeApplied {
                    self.possible[index].extend(after);
                }
            }
        }
    }

    async fn create(&mut self, index: usize) {
        let length = if self.draws.happens(1, 4) { 300_000 } else { 3_000 };
        let bytes = self.draws.bytes(1 + self.draws.below(length));
        let sent = self.made(index, bytes.clone()).await;
        self.wrote(index, &sent, vec![Some(bytes)]);
    }

    async fn made(&self, index: usize, bytes: Bytes) -> Result<Answer, Error> {
        let item = CreateItem::new(self.key(index), bytes).replacing();
        self.raw.create(&self.target, vec![item]).await.remove(0)
    }

    /// Writes into the value that is there, and no other: a Scatter that was taken
    /// for lost would change a later one too.
    async fn scatter(&mut self, index: usize) {
        let Some((version, _)) = self.gather(index).await else { return };
        let piece = self.draws.bytes(1 + self.draws.below(500));
        let offset = self.draws.below(3_000);
        let mut item = ScatterItem::new(self.key(index), offset, piece.clone());
        item.if_version = version;
        let sent = self.raw.scatter(&self.target, vec![item]).await.remove(0);
        if sent.as_ref().is_err_and(|error| error.fate() == Fate::MaybeApplied) {
            self.tally.one("writes without an answer");
            // It is not atomic: nobody knows which of the bytes are in.
            return self.make_anew(index).await;
        }
        let all = self.possible[index].iter().flatten();
        let after = all.map(|bytes| Some(over(bytes, offset as usize, &piece))).collect();
        self.wrote(index, &sent, after);
    }

    async fn make_anew(&mut self, index: usize) {
        loop {
            let bytes = self.draws.bytes(10);
            let sent = self.made(index, bytes.clone()).await;
            self.note_kills();
            if sent.is_ok_and(|answer| answer.status == Status::Ok) {
                self.possible[index] = vec![Some(bytes)];
                return;
            }
            sleep(AGAIN).await;
        }
    }

    async fn delete(&mut self, index: usize) {
        let item = DeleteItem::new(self.key(index));
        let sent = self.raw.delete(&self.target, vec![item]).await.remove(0);
        self.wrote(index, &sent, vec![None]);
    }

    /// Reads a key; `None` when nothing is there, or there was no answer.
    pub(super) async fn gather(&mut self, index: usize) -> Option<(Version, Bytes)> {
        let item = GatherItem::whole(self.key(index));
        let answer = match self.raw.gather(&self.target, vec![item]).await.remove(0) {
            Ok(answer) => answer,
            Err(error) => {
                check_error(&error);
                self.tally.one("reads without an answer");
                return None;
            }
        };
        let found = match answer.status {
            Status::Ok => Some(answer.bytes),
            Status::NotFound => None,
            Status::Expired | Status::Busy => return None,
            status => panic!("{status} for a read"),
        };
        self.note_kills();
        self.tally.one(if found.is_some() { "reads" } else { "misses" });
        let possible = &self.possible[index];
        let lengths = || possible.iter().map(|state| state.as_ref().map(Bytes::len));
        assert!(
            possible.contains(&found),
            "{}: {:?} bytes, may be {:?}",
            self.key(index),
            found.as_ref().map(Bytes::len),
            lengths().collect::<Vec<_>>()
        );
        found.map(|bytes| (answer.version, bytes))
    }

    async fn list(&mut self) {
        let query = ListQuery::prefix(self.prefix.clone());
        let page = match self.raw.list("s0", &query).await {
            Ok(page) => page,
            Err(error) => return check_error(&error),
        };
        self.note_kills();
        self.tally.one("listings");
        let listed: Vec<_> = page.entries.iter().map(|entry| &entry.key[..]).collect();
        for (index, possible) in self.possible.iter().enumerate() {
            let is_listed = listed.contains(&self.key(index).as_bytes());
            let may_be = possible.iter().any(|state| state.is_some() == is_listed);
            assert!(may_be, "{} is listed: {is_listed}", self.key(index));
        }
    }

    /// Reads and deletes everything when the server answers.
    pub(super) async fn finish(&mut self) {
        for index in 0..KEYS as usize {
            let before = self.tally.of("reads without an answer");
            let found = self.gather(index).await;
            assert_eq!(self.tally.of("reads without an answer"), before, "the server answers");
            self.delete(index).await;
            assert_eq!(self.possible[index], [None], "{:?}", found.map(|(_, bytes)| bytes.len()));
            assert!(self.gather(index).await.is_none());
        }
    }
}

/// `piece` written over a value.
fn over(bytes: &Bytes, offset: usize, piece: &[u8]) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().max(offset + piece.len()), 0);
    bytes[offset..offset + piece.len()].copy_from_slice(piece);
    bytes.into()
}

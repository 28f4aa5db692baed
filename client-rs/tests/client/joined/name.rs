//! What may stand under the name of an object, by what its one writer was told.

use bytes::Bytes;

use super::world::CLOCK_OFF_MS;

/// How far an end may be off by the clocks of those who wrote and read it: they were
/// compared with those of servers, within half a minute.
const SLACK_MS: u64 = 2 * (CLOCK_OFF_MS + 30_000);

/// What a write leaves.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct State {
    /// `None` = nothing.
    pub(super) bytes: Option<Bytes>,
    /// When it is over at the latest, by the true time.
    pub(super) ends_ms: Option<u64>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let length = self.bytes.as_ref().map(Bytes::len);
        write!(formatter, "{length:?}")?;
        self.ends_ms.map_or(Ok(()), |ends| write!(formatter, " to {ends}"))
    }
}

impl State {
    pub(super) const NOTHING: Self = Self { bytes: None, ends_ms: None };

    /// Whether it may be shown to who begins to read at that time.
    fn may_be_shown(&self, now_ms: u64) -> bool {
        self.ends_ms.is_none_or(|ends| now_ms < ends.saturating_add(SLACK_MS))
    }
}

/// How far a write got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// Every server that may have the object knows of it.
    Everywhere,
    /// All owners have it.
    Owners,
    /// Some have it, as the report said.
    Some,
    /// Nobody knows.
    Unsure,
    /// Nobody knows, and it may be written at any time from now on.
    GivenUp,
}

/// A name.
#[derive(Debug)]
pub(super) struct Name {
    /// What a read may find while servers are silent: the last of these that all
    /// owners have, and what came behind it.
    possible: Vec<State>,
    /// What servers that are no owners may have: shown while the owners are silent.
    strays: Vec<State>,
    /// What was given up, and may yet come.
    late: Vec<State>,
    /// What stands there, when all servers answer, for certain.
    certain: Option<State>,
    /// Whether the last write has all its copies, and nothing can come behind it.
    is_whole: bool,
    /// Whether a server may lose its memory, and with it its word on what is old.
    forgets: bool,
}

impl Name {
    pub(super) fn new(forgets: bool) -> Self {
        Self {
            possible: vec![State::NOTHING],
            strays: Vec::new(),
            late: Vec::new(),
            certain: Some(State::NOTHING),
            is_whole: true,
            forgets,
        }
    }

    /// Takes note of a write that got so far.
    pub(super) fn wrote(&mut self, state: State, reach: Reach) {
        let is_mortal = state.ends_ms.is_some();
        let is_there = reach <= Reach::Some && state.bytes.is_some();
        self.certain = None;
        self.is_whole = reach <= Reach::Owners && self.late.is_empty();
        match reach {
            Reach::Everywhere | Reach::Owners if !self.forgets => {
                self.possible.clear();
                if reach == Reach::Everywhere {
                    self.strays.clear();
                }
                let is_certain = self.is_whole && !is_mortal;
                self.certain = is_certain.then(|| state.clone());
            }
            Reach::Everywhere | Reach::Owners => {}
            Reach::Some | Reach::Unsure => self.strays.push(state.clone()),
            Reach::GivenUp => {
                self.late.push(state.clone());
                // It may come, and be over.
                self.late.extend(is_mortal.then_some(State::NOTHING));
            }
        }
        // Somebody has it, so that nobody says that there is nothing.
        if is_there {
            self.possible.retain(|state| state.bytes.is_some());
            self.strays.retain(|state| state.bytes.is_some());
        }
        // One copy is as mortal as its server, one with an end in any case.
        if is_mortal || (self.forgets && reach > Reach::Owners) {
            self.possible.push(State::NOTHING);
        }
        self.possible.push(state);
    }

    /// What may be found by who began to read at that time.
    pub(super) fn may_be(&self, now_ms: u64) -> impl Iterator<Item = &State> {
        let all = self.possible.iter().chain(&self.strays).chain(&self.late);
        all.filter(move |state| state.may_be_shown(now_ms))
    }

    /// What may be listed: servers let go of what is over a little later.
    pub(super) fn may_be_listed(&self) -> impl Iterator<Item = &State> {
        self.may_be(0)
    }

    /// What stands there when all servers answer, if that can be said.
    pub(super) fn certain(&self) -> Option<&State> {
        self.certain.as_ref()
    }

    /// Whether it can be read when all servers answer.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }
}

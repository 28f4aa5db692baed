//! The data of discovery: cluster settings, members, the living.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::Id;

/// What all clients and servers of a cluster must agree on. Written once, by
/// the first server that joins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The name of the cluster; checked in the handshake.
    pub cluster: String,
    /// How keys find their owners.
    #[serde(default)]
    pub strategy: Strategy,
    /// The greatest number of copies that an object may ask for.
    #[serde(default = "Settings::default_replicas_max")]
    pub replicas_max: u8,
    /// The number of placement classes.
    #[serde(default = "Settings::default_slots")]
    pub slots: u32,
    /// When the record was created, in milliseconds since 1970; 0 where a
    /// back end keeps no such record.
    #[serde(default)]
    pub created_unix_ms: u64,
}

impl Settings {
    /// `replicas_max` unless the cluster says otherwise.
    pub const REPLICAS_MAX: u8 = 3;
    /// `slots` unless the cluster says otherwise: the first 16 bits of a hash.
    pub const SLOTS: u32 = 65_536;

    /// The settings of a new cluster that nobody gave other wishes for.
    pub fn new(cluster: impl Into<String>, created_unix_ms: u64) -> Self {
        Self {
            cluster: cluster.into(),
            strategy: Strategy::default(),
            replicas_max: Self::REPLICAS_MAX,
            slots: Self::SLOTS,
            created_unix_ms,
        }
    }

    fn default_replicas_max() -> u8 {
        Self::REPLICAS_MAX
    }

    fn default_slots() -> u32 {
        Self::SLOTS
    }
}

/// How keys find their owners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Weighted rendezvous hashing over the names of the members.
    #[default]
    Rendezvous,
    /// A ring of hashed positions.
    Ring,
    /// Every member owns everything.
    Clone,
}

impl fmt::Display for Strategy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Rendezvous => "rendezvous",
            Self::Ring => "ring",
            Self::Clone => "clone",
        })
    }
}

/// A server as placement knows it. Persistent: it stays while the server is
/// down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// The name, unique in the cluster.
    pub name: String,
    /// The share of keys relative to the other members.
    pub weight: f64,
    /// What fails together with it, a rack or a room; may be empty.
    #[serde(default)]
    pub zone: String,
    /// What is written about it; says nothing about whether it is alive.
    #[serde(default)]
    pub state: MemberState,
}

impl Member {
    /// A member as it is born: ready, without a zone.
    pub fn ready(name: impl Into<String>, weight: f64) -> Self {
        Self { name: name.into(), weight, zone: String::new(), state: MemberState::Ready }
    }
}

/// The written state of a member. Liveness is another column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// Being filled; readers also ask the owners without it.
    Joining,
    /// The usual state.
    #[default]
    Ready,
    /// Being emptied; readers also ask the owners with it.
    Draining,
    /// Absent for too long, or taken out by hand.
    Out,
}

impl MemberState {
    /// Whether values may be created on it.
    pub fn is_written_to(self) -> bool {
        matches!(self, Self::Joining | Self::Ready)
    }

    /// Whether values may be read from it (from a joining one last).
    pub fn is_read_from(self) -> bool {
        !matches!(self, Self::Out)
    }

    /// Whether placement gives it keys.
    pub fn counts_for_placement(self) -> bool {
        matches!(self, Self::Joining | Self::Ready)
    }
}

impl fmt::Display for MemberState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Joining => "joining",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Out => "out",
        })
    }
}

/// A text that names no strategy or no state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is not known here: expected one of {expected}", crate::text::shown(.found))]
pub struct UnknownWord {
    found: String,
    expected: &'static str,
}

impl FromStr for Strategy {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        let all = [Self::Rendezvous, Self::Ring, Self::Clone];
        find_word(&all, text, "rendezvous, ring, clone")
    }
}

impl FromStr for MemberState {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        let all = [Self::Joining, Self::Ready, Self::Draining, Self::Out];
        find_word(&all, text, "joining, ready, draining, out")
    }
}

fn find_word<T: Copy + fmt::Display>(
    all: &[T],
    text: &str,
    expected: &'static str,
) -> Result<T, UnknownWord> {
    let found = all.iter().find(|word| word.to_string() == text);
    found.copied().ok_or_else(|| UnknownWord { found: text.to_owned(), expected })
}

/// A value together with the revision under which it was read, to write it
/// back by compare-and-set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recorded<T> {
    /// What was recorded.
    pub value: T,
    /// When, in the back end's own count.
    pub revision: Revision,
}

/// A back end's count of writes. Greater is later; nothing else can be read
/// from it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision of a record that is not there.
    pub const ABSENT: Self = Self(0);
}

impl fmt::Display for Revision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A server that discovery sees alive. Ephemeral: it goes with the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Living {
    /// The name of the member that it is.
    pub name: String,
    /// Where it listens, as `host:port`.
    #[serde(default)]
    pub tcp: Option<String>,
    /// Where it listens for clients on its own machine.
    #[serde(default)]
    pub unix_socket: Option<PathBuf>,
    /// The boot id of its machine (see [`host_id`](crate::host_id)), empty
    /// when not known: a unix socket is for clients of the same host only.
    #[serde(default)]
    pub host: String,
    /// Drawn at every start; `None` when discovery cannot know it (a written
    /// list of servers).
    #[serde(default)]
    pub incarnation: Option<Id>,
    /// Survives a warm restart; `None` when discovery cannot know it.
    #[serde(default)]
    pub store_id: Option<Id>,
}

impl Living {
    /// A server of this machine that listens on TCP.
    pub fn at(name: impl Into<String>, tcp: impl Into<String>, incarnation: Id) -> Self {
        Self {
            name: name.into(),
            tcp: Some(tcp.into()),
            unix_socket: None,
            host: crate::host_id(),
            incarnation: Some(incarnation),
            store_id: None,
        }
    }

    /// The address in one piece: `host:port`, or `unix:/path` where there is
    /// no other. Empty only for a record that validation refuses.
    pub fn address(&self) -> String {
        let unix = || self.unix_address().unwrap_or_default();
        self.tcp.clone().unwrap_or_else(unix)
    }

    pub(crate) fn unix_address(&self) -> Option<String> {
        let path = self.unix_socket.as_ref()?;
        Some(format!("unix:{}", path.display()))
    }
}

/// Members that may vanish at once and are believed to be gone, in hundredths.
const BELIEVED_PERCENT: usize = 15;

/// Everything a back end knows at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The cluster's settings; `None` before the first server joined.
    pub settings: Option<Settings>,
    /// The members, sorted by name.
    pub members: Vec<Recorded<Member>>,
    /// The living, sorted by name.
    pub living: Vec<Living>,
    /// Members that are recorded but whose record makes no sense, sorted: a
    /// [`Watch`](crate::Watch) keeps what it last knew of them.
    pub unreadable: Vec<String>,
    /// One line per ignored entry: what was wrong, what was expected.
    pub complaints: Vec<String>,
    /// Whether settings and members are those of a [`KeptView`](crate::KeptView) that no
    /// answer has confirmed yet: members may have joined since, of whom nothing is known.
    pub is_kept: bool,
}

impl Snapshot {
    /// The member of that name.
    pub fn member(&self, name: &str) -> Option<&Recorded<Member>> {
        let at = self.members.binary_search_by(|recorded| recorded.value.name.as_str().cmp(name));
        at.ok().map(|index| &self.members[index])
    }

    /// The living server of that name.
    pub fn alive(&self, name: &str) -> Option<&Living> {
        let at = self.living.binary_search_by(|living| living.name.as_str().cmp(name));
        at.ok().map(|index| &self.living[index])
    }

    /// Whether so many members of `before` are missing at once that it may be a fault of
    /// the service: more than 15 %.
    pub fn lacks_many_of(&self, before: &Self) -> bool {
        let is_missing = |known: &&Recorded<Member>| self.member(&known.value.name).is_none();
        let missing = before.members.iter().filter(is_missing).count();
        missing * 100 > before.members.len() * BELIEVED_PERCENT
    }

    /// Whether nothing at all is recorded, as in a service that was wiped.
    pub fn is_empty(&self) -> bool {
        self.settings.is_none() && self.members.is_empty() && self.unreadable.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_follow_the_table_of_the_contract() {
        let row = |state: MemberState| {
            (state.is_written_to(), state.is_read_from(), state.counts_for_placement())
        };
        assert_eq!(row(MemberState::Joining), (true, true, true));
        assert_eq!(row(MemberState::Ready), (true, true, true));
        assert_eq!(row(MemberState::Draining), (false, true, false));
        assert_eq!(row(MemberState::Out), (false, false, false));
    }

    #[test]
    fn words_are_the_same_in_text_and_in_json() {
        for strategy in [Strategy::Rendezvous, Strategy::Ring, Strategy::Clone] {
            let json = serde_json::to_string(&strategy).unwrap();
            assert_eq!(json, format!("\"{strategy}\""));
            assert_eq!(strategy.to_string().parse(), Ok(strategy));
        }
        assert_eq!("draining".parse(), Ok(MemberState::Draining));
        let refused = "\x1b[31mgone".parse::<MemberState>().unwrap_err();
        assert!(!refused.to_string().contains('\x1b'));
    }

    #[test]
    fn settings_written_by_an_older_version_get_defaults() {
        let settings: Settings = serde_json::from_str(r#"{"cluster": "lab"}"#).unwrap();
        assert_eq!(settings, Settings::new("lab", 0));
    }
}

//! From the entries of a registry to a [`Snapshot`]: what makes no sense is
//! left out with one complaint, the rest stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::SocketAddr;

use crate::model::{Living, Member, Recorded, Settings, Snapshot};
use crate::text::{escaped, shown};
use crate::validate::{self, MEMBERS_MAX};

/// The most complaints of one snapshot; more are only counted.
const COMPLAINTS_MAX: usize = 100;

/// A snapshot in the making. Of duplicates the first is kept.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    members: BTreeMap<String, Recorded<Member>>,
    living: BTreeMap<String, Living>,
    owners_of_addresses: BTreeMap<String, String>,
    unreadable: BTreeSet<String>,
    complaints: Vec<String>,
    members_too_many: usize,
    complaints_too_many: usize,
}

impl Assembly {
    /// Takes a member, unless it is invalid, known, or one too many. True when
    /// it was taken.
    pub(crate) fn add_member(&mut self, recorded: Recorded<Member>) -> bool {
        let name = recorded.value.name.clone();
        if let Err(error) = validate::member(&recorded.value) {
            self.unreadable(&name, &error);
            return false;
        }
        if self.members.contains_key(&name) {
            self.complain(format_args!(
                "member \"{name}\" is there twice: expected once; the first is used"
            ));
            return false;
        }
        if self.members.len() >= MEMBERS_MAX {
            self.members_too_many += 1;
            return false;
        }
        self.members.insert(name, recorded);
        true
    }

    /// Takes a living server, unless it is invalid or known, or has the
    /// address of another.
    pub(crate) fn add_living(&mut self, living: Living) {
        if let Err(error) = validate::living(&living) {
            self.complain(format_args!("server \"{}\" ignored: {error}", shown(&living.name)));
            return;
        }
        if self.living.contains_key(&living.name) || self.living.len() >= MEMBERS_MAX {
            self.complain(format_args!(
                "server \"{}\" ignored: it is there twice or one of more than {MEMBERS_MAX}",
                living.name
            ));
            return;
        }
        if let Some((address, owner)) = self.owner_of_an_address(&living) {
            self.complain(format_args!(
                "server \"{}\" ignored: its address {} is that of \"{owner}\"",
                living.name,
                shown(&address)
            ));
            return;
        }
        for address in addresses(&living) {
            self.owners_of_addresses.insert(address, living.name.clone());
        }
        self.living.insert(living.name.clone(), living);
    }

    /// Notes a member whose record makes no sense.
    pub(crate) fn unreadable(&mut self, name: &str, reason: impl Display) {
        self.complain(format_args!("member \"{}\" ignored: {reason}", shown(name)));
        if validate::name(name).is_ok() && self.unreadable.len() < MEMBERS_MAX {
            self.unreadable.insert(name.to_owned());
        }
    }

    /// Notes anything else that is ignored, in words fit for a terminal.
    pub(crate) fn complain(&mut self, complaint: impl Display) {
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(escaped(&complaint.to_string()));
        } else {
            self.complaints_too_many += 1;
        }
    }

    pub(crate) fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    pub(crate) fn complaint_count(&self) -> usize {
        self.complaints.len() + self.complaints_too_many
    }

    /// The snapshot of everything taken.
    pub(crate) fn finish(mut self, settings: Option<Settings>) -> Snapshot {
        if self.members_too_many > 0 {
            self.complaints.push(format!(
                "{} members ignored: expected at most {MEMBERS_MAX}",
                self.members_too_many
            ));
        }
        if self.complaints_too_many > 0 {
            let more = self.complaints_too_many;
            self.complaints.push(format!("{more} more entries ignored"));
        }
        // A good record under the same name makes a bad one harmless.
        self.unreadable.retain(|name| !self.members.contains_key(name));
        Snapshot {
            settings,
            members: self.members.into_values().collect(),
            living: self.living.into_values().collect(),
            unreadable: self.unreadable.into_iter().collect(),
            complaints: self.complaints,
            is_kept: false,
        }
    }

    fn owner_of_an_address(&self, living: &Living) -> Option<(String, String)> {
        addresses(living).find_map(|address| {
            let owner = self.owners_of_addresses.get(&address)?.clone();
            Some((address, owner))
        })
    }
}

/// All addresses of a server, each in one way of writing; those of unix sockets
/// per host.
fn addresses(living: &Living) -> impl Iterator<Item = String> {
    let unix = living.unix_address();
    let unix = unix.map(|address| format!("{address} on host {}", living.host));
    living.tcp.as_deref().map(normalised).into_iter().chain(unix)
}

/// `[::ffff:10.0.0.1]:07` is `10.0.0.1:7`, and `Node:07` is `node:7`. What two names
/// lead to is not looked up.
fn normalised(address: &str) -> String {
    if let Ok(socket) = address.parse::<SocketAddr>() {
        return SocketAddr::new(socket.ip().to_canonical(), socket.port()).to_string();
    }
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    format!("{}:{}", host.to_ascii_lowercase(), port.trim_start_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{MemberState, Revision};

    fn member(name: &str, weight: f64) -> Recorded<Member> {
        let member = Member {
            name: name.to_owned(),
            weight,
            zone: String::new(),
            state: MemberState::Ready,
        };
        Recorded { value: member, revision: Revision(1) }
    }

    fn living(name: &str, tcp: &str) -> Living {
        Living {
            name: name.to_owned(),
            tcp: Some(tcp.to_owned()),
            unix_socket: None,
            host: String::new(),
            incarnation: None,
            store_id: None,
        }
    }

    #[test]
    fn each_bad_entry_costs_one_complaint_and_nothing_else() {
        let mut assembly = Assembly::default();
        for (name, weight) in [("a", 1.0), ("a", 2.0), ("../x", 1.0), ("n", f64::NAN), ("b", 1.0)] {
            assembly.add_member(member(name, weight));
        }
        for (name, tcp) in [("a", "h:1"), ("b", "h:1"), ("c", "0.0.0.0:1"), ("d", "h:2")] {
            assembly.add_living(living(name, tcp));
        }
        let snapshot = assembly.finish(None);
        let names = |name: &str| snapshot.member(name).map(|found| found.value.weight);
        assert_eq!((names("a"), names("b")), (Some(1.0), Some(1.0)));
        assert_eq!(snapshot.members.len(), 2);
        assert_eq!(snapshot.living.len(), 2);
        assert_eq!(snapshot.unreadable, ["n"]);
        assert_eq!(snapshot.complaints.len(), 5, "{:#?}", snapshot.complaints);
    }

    #[test]
    fn one_address_is_known_again_however_it_is_written() {
        for (one, other, is_same) in [
            ("10.0.0.1:7", "10.0.0.1:07", true),
            ("10.0.0.1:7", "[::ffff:10.0.0.1]:7", true),
            ("[::1]:7", "[0:0:0::1]:7", true),
            ("Node.Example:7", "node.example:07", true),
            ("10.0.0.1:7", "10.0.0.1:8", false),
            ("10.0.0.1:7", "10.0.0.2:7", false),
            ("node:7", "node:8", false),
        ] {
            let mut assembly = Assembly::default();
            assembly.add_living(living("a", one));
            assembly.add_living(living("b", other));
            let found = assembly.finish(None);
            assert_eq!(found.living.len() == 1, is_same, "{one} and {other}");
            assert_eq!(found.complaints.len(), usize::from(is_same), "{:?}", found.complaints);
        }
    }

    #[test]
    fn members_beyond_the_limit_cost_one_complaint() {
        let mut assembly = Assembly::default();
        for number in 0..MEMBERS_MAX + 5 {
            assembly.add_member(member(&format!("n{number}"), 1.0));
        }
        let snapshot = assembly.finish(None);
        assert_eq!(snapshot.members.len(), MEMBERS_MAX);
        assert_eq!(snapshot.complaints, ["5 members ignored: expected at most 10000"]);
    }

    #[test]
    fn complaints_have_an_upper_bound() {
        let mut assembly = Assembly::default();
        (0..1000).for_each(|_| assembly.complain("bad"));
        let snapshot = assembly.finish(None);
        assert_eq!(snapshot.complaints.len(), COMPLAINTS_MAX + 1);
        assert_eq!(snapshot.complaints.last().unwrap(), "900 more entries ignored");
    }
}

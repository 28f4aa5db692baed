//! `static:` a list of servers in the URL itself.

use futures_util::future::{BoxFuture, FutureExt, ready};

use crate::assemble::Assembly;
use crate::backend::Backend;
use crate::error::DiscoveryError;
use crate::listed;
use crate::model::{Living, Member, Recorded, Revision, Settings, Snapshot, Strategy};
use crate::url::{UrlProblem, masked};
use crate::validate;

/// `static:NAME=HOST:PORT*WEIGHT,...`: members that never change.
///
/// The weight is 1 unless given, IPv6 addresses stand in brackets, and
/// `NAME=unix:/PATH` is a server of this machine. `?strategy=ring` (or `clone`)
/// behind the last entry says how keys find their owners; everybody must be
/// given the same. All are `ready` and said to
/// be alive; whether they are shows when they are asked. Nothing can be
/// written. Unlike the entries of a registry, one wrong entry refuses the
/// whole list: it was typed just now.
#[derive(Debug)]
pub struct StaticBackend {
    list: String,
    snapshot: Snapshot,
}

impl StaticBackend {
    /// Reads the part of the URL after `static:`. Fails when an entry makes no
    /// sense or is there twice.
    pub fn new(list: &str, cluster: &str) -> Result<Self, DiscoveryError> {
        let shown = || masked(&format!("static:{list}"));
        let bad = |reason| DiscoveryError::BadUrl { url: shown(), reason };
        let mut settings = Settings::new(cluster, 0);
        let (entries, strategy) = split_strategy(list).map_err(bad)?;
        settings.strategy = strategy.unwrap_or_default();
        let snapshot = parse(entries, settings).map_err(bad)?;
        Ok(Self { list: list.to_owned(), snapshot })
    }
}

impl Backend for StaticBackend {
    fn url(&self) -> String {
        format!("static:{}", self.list)
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, DiscoveryError>> {
        ready(Ok(self.snapshot.clone())).boxed()
    }

    fn changed(&self) -> BoxFuture<'_, Result<(), DiscoveryError>> {
        std::future::pending().boxed()
    }
}

/// The entries, and the strategy behind their question mark, the only option there is.
fn split_strategy(list: &str) -> Result<(&str, Option<Strategy>), UrlProblem> {
    let Some((entries, query)) = list.split_once('?') else { return Ok((list, None)) };
    let mut strategy = None;
    for part in query.split('&') {
        match part.split_once('=') {
            Some(("strategy", _)) if strategy.is_some() => {
                return Err(UrlProblem::Option { option: "strategy", expected: "it once only" });
            }
            Some(("strategy", word)) => {
                strategy = Some(word.parse().map_err(UrlProblem::Strategy)?);
            }
            named => {
                // Without a name it may be a part of a secret.
                let option = named.map_or("...", |(name, _)| name).to_owned();
                return Err(UrlProblem::UnknownOption { option, known: "strategy".to_owned() });
            }
        }
    }
    Ok((entries, strategy))
}

fn parse(list: &str, settings: Settings) -> Result<Snapshot, UrlProblem> {
    let mut assembly = Assembly::default();
    for entry in list.split(',') {
        let (member, living) = parse_entry(entry)?;
        let revision = Revision(1);
        if assembly.add_member(Recorded { value: member, revision }) {
            assembly.add_living(living);
        }
    }
    let snapshot = assembly.finish(Some(settings));
    match snapshot.complaints.first().cloned() {
        Some(complaint) => Err(UrlProblem::Refused { complaint }),
        None => Ok(snapshot),
    }
}

fn parse_entry(entry: &str) -> Result<(Member, Living), UrlProblem> {
    let bad = || UrlProblem::Entry { entry: entry.to_owned() };
    let (name, place) = entry.split_once('=').ok_or_else(bad)?;
    let (address, weight) = place.rsplit_once('*').unwrap_or((place, "1"));
    let weight = weight.parse().map_err(|_| bad())?;
    let (member, living) = (Member::ready(name, weight), parse_address(name, address));
    let checked = validate::member(&member).and_then(|()| validate::living(&living));
    checked.map_err(|invalid| UrlProblem::Refused { complaint: invalid.to_string() })?;
    Ok((member, living))
}

fn parse_address(name: &str, address: &str) -> Living {
    let unix_socket = address.strip_prefix("unix:").map(Into::into);
    Living {
        name: name.to_owned(),
        tcp: unix_socket.is_none().then(|| address.to_owned()),
        host: listed::host_of(unix_socket.as_ref()),
        unix_socket,
        incarnation: None,
        store_id: None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn snapshot(list: &str) -> Snapshot {
        StaticBackend::new(list, "lab").unwrap().snapshot
    }

    #[test]
    fn a_list_is_read_as_documented() {
        let snapshot = snapshot("b=[::1]:7001*2.5,a=host:7000,c=unix:/run/c.sock*3");
        let names: Vec<_> =
            snapshot.members.iter().map(|member| member.value.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        let weights: Vec<_> = snapshot.members.iter().map(|member| member.value.weight).collect();
        assert_eq!(weights, [1.0, 2.5, 3.0]);
        assert_eq!(snapshot.alive("b").unwrap().tcp.as_deref(), Some("[::1]:7001"));
        let local = snapshot.alive("c").unwrap();
        assert_eq!(local.unix_socket.as_deref(), Some(Path::new("/run/c.sock")));
        assert_eq!((&local.tcp, &local.host), (&None, &crate::host_id()));
    }

    #[test]
    fn a_list_may_say_how_keys_find_their_owners() {
        let strategy = |list: &str| snapshot(list).settings.unwrap().strategy;
        assert_eq!(strategy("a=h:1,b=h:2"), Strategy::Rendezvous);
        assert_eq!(strategy("a=h:1,b=h:2*3?strategy=ring"), Strategy::Ring);
        assert_eq!(strategy("a=unix:/run/a.sock?strategy=clone"), Strategy::Clone);
        let refused = StaticBackend::new("a=h:1?strategy=rings", "lab").unwrap_err().explained();
        assert!(refused.contains("expected one of rendezvous, ring, clone"), "{refused}");
        let refused = StaticBackend::new("a=h:1?strategy=ring&strategy=ring", "lab");
        assert!(refused.unwrap_err().explained().contains("expected it once only"));
        for odd in ["a=h:1?strategy", "a=h:1?", "a=unix:/run/what?.sock?strategy=clone"] {
            let refused = StaticBackend::new(odd, "lab").unwrap_err().explained();
            assert!(refused.contains("expected some of strategy"), "{odd}: {refused}");
        }
    }

    #[test]
    fn a_refused_list_is_told_what_was_expected() {
        let told = |list: &str| StaticBackend::new(list, "lab").unwrap_err().explained();
        assert!(told("a=h").ends_with("cannot be used: the address \"h\" is not allowed: expected HOST:PORT with a port from 1 to 65535, IPv6 in brackets"), "{}", told("a=h"));
        assert!(told("a=h:1,a=h:2").contains("there twice"));
    }

    #[test]
    fn one_wrong_entry_refuses_the_list() {
        for list in [
            "",
            ",",
            "a",
            "a=",
            "a=host",
            "a=host:0",
            "=host:1",
            "a=host:1*0",
            "a=host:1*-1",
            "a=host:1*NaN",
            "a=host:1*1e308",
            "a=host:1*",
            "a=host:1,a=host:2",
            "a=host:1,b=host:1",
            "a=0.0.0.0:1",
            "a=169.254.169.254:80",
            "a=unix:relative",
            "../a=host:1",
        ] {
            let refused = StaticBackend::new(list, "lab");
            assert!(matches!(refused, Err(DiscoveryError::BadUrl { .. })), "{list}");
        }
    }
}

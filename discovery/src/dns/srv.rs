//! `srv:` the servers that a service's records in DNS name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, StreamExt as _};
use hickory_resolver::proto::rr::rdata::SRV;

use super::resolver::{Found, Question};
use crate::assemble::Assembly;
use crate::backend::Backend;
use crate::error::DiscoveryError;
use crate::model::{Living, Member, MemberState, Recorded, Revision, Settings, Snapshot};
use crate::url::UrlProblem;
use crate::validate::{self, MEMBERS_MAX};

const OPTIONS: [&str; 2] = ["server", "strategy"];
/// How many names are asked for at once.
const ASKED_AT_ONCE: usize = 16;

/// `srv:NAME?server=ADDRESS:PORT&strategy=WORD`: the members that SRV records name.
///
/// The name of a member is the first label of its target. Where two targets have the
/// same first label it is the whole target, and where one target has two ports it is
/// followed by `-PORT`. The weight of a record is that of the member, 0 means 1. Members
/// of the lowest priority value are `ready`, all others are `out`. All whose target has
/// an address are said to be alive; whether they are shows when they are asked.
///
/// Records are asked for again when their time to live is over, each 1 to 30 seconds. No
/// records, or none that can be used, are an error, so that a view never shrinks to
/// nothing. Programs cannot write to it.
#[derive(Debug)]
pub struct SrvBackend {
    question: Question,
    settings: Settings,
}

impl SrvBackend {
    /// Reads the part of the URL after `srv:`; asks nobody yet.
    pub fn new(rest: &str, cluster: &str) -> Result<Self, DiscoveryError> {
        validate::name(cluster)?;
        let (question, options) = Question::parse("srv", rest, &OPTIONS)?;
        let mut settings = Settings::new(cluster, 0);
        if let Some(word) = options.get("strategy") {
            let bad = |reason| DiscoveryError::BadUrl { url: question.url(), reason };
            settings.strategy = word.parse().map_err(UrlProblem::Strategy).map_err(bad)?;
        }
        Ok(Self { question, settings })
    }

    async fn read(&self) -> Result<Found<Snapshot>, DiscoveryError> {
        let Found { records, mut holds } = self.question.services().await?;
        let services = named(records);
        let mut assembly = Assembly::default();
        let mut listed = Vec::new();
        let best = services.iter().map(|(_, service)| service.priority).min();
        for (name, service) in services {
            if service.target.is_root() {
                assembly.complain(
                    "a record with the target \".\" ignored: expected the name of a server",
                );
            } else if assembly.add_member(recorded(&name, &service, best)) {
                listed.push((name, service));
            }
        }
        let mut found = stream::iter(listed)
            .map(|(name, service)| self.living(name, service))
            .buffered(ASKED_AT_ONCE);
        while let Some(living) = found.next().await {
            match living? {
                Ok((living, its)) => {
                    holds = holds.min(its);
                    assembly.add_living(living);
                }
                Err(complaint) => assembly.complain(complaint),
            }
        }
        if !assembly.has_members() {
            let (what, ignored) = (self.question.url(), assembly.complaint_count());
            return Err(DiscoveryError::NoMembers { what, ignored });
        }
        Ok(Found { records: assembly.finish(Some(self.settings.clone())), holds })
    }

    /// Where a server listens and how long that holds, or a complaint.
    async fn living(
        &self,
        name: String,
        service: SRV,
    ) -> Result<Result<(Living, Duration), String>, DiscoveryError> {
        let target = service.target.to_string();
        let found = match self.question.addresses_of(&target).await? {
            Ok(found) => found,
            Err(error) => {
                return Ok(Err(format!(
                    "server \"{name}\" ignored: no address of {target}: {error}"
                )));
            }
        };
        let address = best_address(&found.records);
        let tcp = address.map(|ip| SocketAddr::new(ip, service.port).to_string());
        let host = String::new();
        let living =
            Living { name, tcp, unix_socket: None, host, incarnation: None, store_id: None };
        Ok(Ok((living, found.holds)))
    }
}

/// One that can be a server's, if there is one; always the same.
fn best_address(found: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let usable = found.iter().find(|ip| validate::ip(**ip).is_ok());
    usable.or_else(|| found.first()).copied()
}

/// Names for the servers of the records, the first of them in order.
fn named(mut services: Vec<SRV>) -> Vec<(String, SRV)> {
    services
        .sort_by_key(|service| (whole(service), service.port, service.priority, service.weight));
    services.truncate(2 * MEMBERS_MAX);
    let mut targets: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut ports: BTreeMap<String, BTreeSet<u16>> = BTreeMap::new();
    for service in &services {
        let (label, target) = (label(service), whole(service));
        ports.entry(target.clone()).or_default().insert(service.port);
        targets.entry(label).or_default().insert(target);
    }
    let name = |service: SRV| {
        let (label, target) = (label(&service), whole(&service));
        let name = if targets[&label].len() == 1 { label } else { target.clone() };
        match ports[&target].len() {
            1 => (name, service),
            _ => (format!("{name}-{}", service.port), service),
        }
    };
    services.into_iter().map(name).collect()
}

fn whole(service: &SRV) -> String {
    let target = service.target.to_lowercase().to_ascii();
    target.trim_end_matches('.').to_owned()
}

fn label(service: &SRV) -> String {
    let whole = whole(service);
    whole.split('.').next().unwrap_or_default().to_owned()
}

fn recorded(name: &str, service: &SRV, best: Option<u16>) -> Recorded<Member> {
    let weight = f64::from(service.weight.max(1));
    let is_best = Some(service.priority) == best;
    let state = if is_best { MemberState::Ready } else { MemberState::Out };
    let value = Member { state, ..Member::ready(name, weight) };
    Recorded { value, revision: Revision(1) }
}

impl Backend for SrvBackend {
    fn url(&self) -> String {
        self.question.url()
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, DiscoveryError>> {
        self.question.reading(self.read()).boxed()
    }

    fn changed(&self) -> BoxFuture<'_, Result<(), DiscoveryError>> {
        self.question.due().map(Ok).boxed()
    }
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::Name;

    use super::*;

    fn service(target: &str, port: u16) -> SRV {
        SRV::new(0, 5, port, Name::from_ascii(target).unwrap())
    }

    #[test]
    fn servers_are_named_by_the_first_label_or_by_as_much_as_tells_them_apart() {
        let services = vec![
            service("b.x.", 1),
            service("A.x.", 1),
            service("c.x.", 1),
            service("c.y.", 1),
            service("d.x.", 1),
            service("d.x.", 2),
        ];
        let names: Vec<_> = named(services).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "b", "c.x", "c.y", "d-1", "d-2"]);
    }

    #[test]
    fn an_address_that_can_be_a_servers_is_taken_first() {
        let best = |texts: &[&str]| {
            best_address(&texts.iter().map(|text| text.parse().unwrap()).collect())
        };
        assert_eq!(best(&["10.0.0.2", "10.0.0.1", "::1"]), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(best(&["169.254.0.1", "::1"]), Some("::1".parse().unwrap()));
        assert_eq!(best(&["169.254.0.1"]), Some("169.254.0.1".parse().unwrap()));
        assert_eq!(best(&[]), None);
    }

    #[test]
    fn a_strategy_may_be_given_and_must_be_one() {
        let strategy = |rest| SrvBackend::new(rest, "lab").map(|backend| backend.settings.strategy);
        assert_eq!(strategy("a?strategy=ring").unwrap().to_string(), "ring");
        let refused = strategy("a?strategy=rings").unwrap_err().explained();
        assert!(refused.contains("expected one of rendezvous, ring, clone"), "{refused}");
    }
}

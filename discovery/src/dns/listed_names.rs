//! `dns:` members of a file, alive as far as a name in DNS has their addresses.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, StreamExt as _};

use super::resolver::{Found, Question};
use crate::backend::{Announcement, Backend};
use crate::error::DiscoveryError;
use crate::file::FileBackend;
use crate::model::{Living, Snapshot};
use crate::url::UrlProblem;

const OPTIONS: [&str; 2] = ["members", "server"];
/// How many names are asked for at once.
const ASKED_AT_ONCE: usize = 16;
/// How many addresses that belong to nobody are named.
const STRANGERS_SHOWN: usize = 5;

/// `dns:NAME?members=FILE&server=ADDRESS:PORT`: members from a file as that of `file:`,
/// of which those are alive whose address is one of those that NAME has.
///
/// Addresses are asked for again when their time to live is over, each 1 to 30 seconds;
/// a change of the file is seen as `file:` sees it. A name without addresses is an error.
/// A server may announce itself when the file has it, also while the name has it not.
#[derive(Debug)]
pub struct DnsBackend {
    question: Question,
    file: FileBackend,
}

impl DnsBackend {
    /// Reads the part of the URL after `dns:`; asks nobody and reads no file yet.
    pub fn new(rest: &str, cluster: &str) -> Result<Self, DiscoveryError> {
        let (question, options) = Question::parse("dns", rest, &OPTIONS)?;
        let bad = |reason| DiscoveryError::BadUrl { url: question.url(), reason };
        let expected = "the path of a file with the members, as file: has it";
        let missing = UrlProblem::Option { option: "members", expected };
        let members = options.file("members").map_err(bad)?.ok_or_else(|| bad(missing))?;
        let file = FileBackend::new(members, cluster)?;
        Ok(Self { question, file })
    }

    async fn read(&self) -> Result<Found<Snapshot>, DiscoveryError> {
        let mut snapshot = self.file.snapshot().await?;
        let mut alive = self.question.addresses().await?;
        if alive.records.is_empty() {
            return Err(DiscoveryError::NoMembers { what: self.question.url(), ignored: 0 });
        }
        let mut strangers = alive.records.clone();
        let listed = std::mem::take(&mut snapshot.living);
        let mut found =
            stream::iter(listed).map(|living| self.addresses_of(living)).buffered(ASKED_AT_ONCE);
        while let Some(found) = found.next().await {
            let (living, addresses, holds) = found?;
            strangers.retain(|ip| !addresses.contains(ip));
            if !addresses.is_disjoint(&alive.records) {
                snapshot.living.push(living);
            }
            alive.holds = holds.map_or(alive.holds, |holds| alive.holds.min(holds));
        }
        snapshot.complaints.extend(self.complaint(&strangers));
        Ok(Found { records: snapshot, holds: alive.holds })
    }

    /// The addresses of a member, and how long they hold unless that is for ever. One
    /// whose name leads nowhere has none: it is not alive.
    async fn addresses_of(
        &self,
        living: Living,
    ) -> Result<(Living, BTreeSet<IpAddr>, Option<Duration>), DiscoveryError> {
        let tcp = living.tcp.clone().unwrap_or_default();
        if let Ok(literal) = tcp.parse::<SocketAddr>() {
            return Ok((living, BTreeSet::from([literal.ip().to_canonical()]), None));
        }
        let Some((host, _port)) = tcp.rsplit_once(':') else {
            return Ok((living, BTreeSet::new(), None));
        };
        Ok(match self.question.addresses_of(host).await? {
            Ok(found) => (living, found.records, Some(found.holds)),
            Err(_) => (living, BTreeSet::new(), None),
        })
    }

    fn complaint(&self, strangers: &BTreeSet<IpAddr>) -> Option<String> {
        let shown: Vec<_> = strangers.iter().take(STRANGERS_SHOWN).map(IpAddr::to_string).collect();
        let more = if strangers.len() > shown.len() { " and others" } else { "" };
        (!shown.is_empty()).then(|| {
            format!(
                "{} of {} ignored: expected addresses of members in {}",
                shown.join(", ") + more,
                self.question.name(),
                self.file.url()
            )
        })
    }
}

impl Backend for DnsBackend {
    fn url(&self) -> String {
        self.question.url()
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, DiscoveryError>> {
        self.question.reading(self.read()).boxed()
    }

    fn changed(&self) -> BoxFuture<'_, Result<(), DiscoveryError>> {
        async {
            tokio::select! {
                () = self.question.due() => Ok(()),
                changed = self.file.changed() => changed,
            }
        }
        .boxed()
    }

    fn announce<'a>(
        &'a self,
        living: &'a Living,
    ) -> BoxFuture<'a, Result<Announcement, DiscoveryError>> {
        self.file.announce(living)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_the_members_must_be_named() {
        let told = |rest| DnsBackend::new(rest, "lab").unwrap_err().explained();
        assert!(told("name").contains("its option members: expected the path of a file"));
        let backend = DnsBackend::new("name?members=/etc/m.toml", "lab").unwrap();
        assert_eq!(backend.url(), "dns:name?members=/etc/m.toml");
    }
}

//! Asking name servers.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::time::{Instant, sleep_until, timeout};

use super::name_servers::NameServers;
use crate::error::DiscoveryError;
use crate::random::random_fraction;
use crate::remote::Options;
use crate::url::{UrlProblem, masked};

const DNS_PORT: u16 = 53;
/// How long a reading may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Records are asked for again when their time is over, but not sooner and not later.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// What many clients that began at once are spread over.
const SPREAD: Duration = Duration::from_millis(100);

/// A scheme, a name, and the name servers to ask for it.
pub(super) struct Question {
    url: String,
    name: Name,
    servers: NameServers,
    ask_again: Mutex<Option<Instant>>,
}

/// Records, and how long they hold.
#[derive(Debug)]
pub(super) struct Found<T> {
    pub(super) records: T,
    pub(super) holds: Duration,
}

impl Question {
    /// Takes `NAME?OPTIONS` apart, of which `server=ADDRESS:PORT` is asked instead of the
    /// servers of the system. Asks nobody yet.
    pub(super) fn parse(
        scheme: &'static str,
        rest: &str,
        known: &[&'static str],
    ) -> Result<(Self, Options), DiscoveryError> {
        let given = format!("{scheme}:{rest}");
        let bad = |reason| DiscoveryError::BadUrl { url: masked(&given), reason };
        let (text, query) = rest.split_once('?').unwrap_or((rest, ""));
        let options = Options::parse(&given, query, known).map_err(bad)?;
        let name = Name::from_ascii(text).ok().filter(|name| name.num_labels() > 0);
        let name = name.ok_or_else(|| bad(UrlProblem::NoDnsName { scheme }))?;
        let server = options.get("server").map(|text| {
            let literal =
                text.parse().or_else(|_| text.parse().map(|ip| SocketAddr::new(ip, DNS_PORT)));
            let expected = "the address of a name server, as 10.0.0.1 or 10.0.0.1:53";
            literal.map_err(|_| bad(UrlProblem::Option { option: "server", expected }))
        });
        let question = Self {
            url: format!("{scheme}:{text}{}", options.to_text()),
            name,
            servers: NameServers::new(server.transpose()?),
            ask_again: Mutex::default(),
        };
        Ok((question, options))
    }

    pub(super) fn url(&self) -> String {
        self.url.clone()
    }

    /// The name as it is shown.
    pub(super) fn name(&self) -> String {
        self.name.to_string()
    }

    /// Does a reading within its time limit, and notes when the next is due.
    pub(super) async fn reading<T>(
        &self,
        reading: impl Future<Output = Result<Found<T>, DiscoveryError>>,
    ) -> Result<T, DiscoveryError> {
        let found = timeout(PATIENCE, async {
            self.servers.refresh().await.map_err(|error| self.failed(&error))?;
            reading.await
        })
        .await;
        let (soonest, latest) = ASK_AGAIN;
        let holds = match &found {
            Ok(Ok(found)) => found.holds.clamp(soonest, latest),
            _ => soonest,
        };
        self.ask_again_in(holds);
        match found {
            Ok(found) => found.map(|found| found.records),
            Err(_) => {
                self.servers.doubt();
                Err(DiscoveryError::TimedOut { backend: self.url(), waited: PATIENCE })
            }
        }
    }

    /// Resolves when the records of the last reading are over.
    pub(super) async fn due(&self) {
        let (soonest, _) = ASK_AGAIN;
        let due = *self.ask_again.lock().unwrap_or_else(PoisonError::into_inner);
        sleep_until(due.unwrap_or_else(|| Instant::now() + soonest)).await;
        self.ask_again_in(soonest);
    }

    fn ask_again_in(&self, pause: Duration) {
        let due = Instant::now() + pause + SPREAD.mul_f64(random_fraction());
        *self.ask_again.lock().unwrap_or_else(PoisonError::into_inner) = Some(due);
    }

    /// The SRV records of the name.
    pub(super) async fn services(&self) -> Result<Found<Vec<SRV>>, DiscoveryError> {
        let resolver = self.resolver()?;
        let answer = resolver.lookup(self.name.clone(), RecordType::SRV).await;
        let answer = answer.map_err(|error| self.failed(&error))?;
        let service = |record: &Record| match &record.data {
            RData::SRV(service) => Some(service.clone()),
            _ => None,
        };
        Ok(Found {
            records: answer.answers().iter().filter_map(service).collect(),
            holds: shortest(answer.answers()),
        })
    }

    /// The addresses of the name.
    pub(super) async fn addresses(&self) -> Result<Found<BTreeSet<IpAddr>>, DiscoveryError> {
        let name = self.name.clone();
        let found = self.resolver()?.lookup_ip(name).await;
        let found = found.map_err(|error| self.failed(&error))?;
        Ok(Found { records: found.iter().collect(), holds: shortest(found.as_lookup().answers()) })
    }

    /// The addresses of another name. The inner error says why there are none.
    pub(super) async fn addresses_of(
        &self,
        host: &str,
    ) -> Result<Result<Found<BTreeSet<IpAddr>>, String>, DiscoveryError> {
        let Ok(name) = Name::from_ascii(host) else {
            return Ok(Err("it is no name of DNS".to_owned()));
        };
        let found = self.resolver()?.lookup_ip(name).await;
        let found = found.map(|found| Found {
            records: found.iter().collect(),
            holds: shortest(found.as_lookup().answers()),
        });
        Ok(found.map_err(|error| {
            self.note(&error);
            words(&error)
        }))
    }

    fn resolver(&self) -> Result<TokioResolver, DiscoveryError> {
        self.servers.resolver().map_err(|error| self.failed(&error))
    }

    /// What a name server did not say itself may be for the wrong server.
    fn note(&self, error: &NetError) {
        if !error.is_nx_domain() && !error.is_no_records_found() {
            self.servers.doubt();
        }
    }

    fn failed(&self, error: &NetError) -> DiscoveryError {
        self.note(error);
        let (what, backend) = ("look up", self.url());
        DiscoveryError::Unreachable { what, backend, source: words(error).into() }
    }
}

/// What the resolver says, in fewer words.
fn words(error: &NetError) -> String {
    if error.is_nx_domain() {
        "there is no such name".to_owned()
    } else if error.is_no_records_found() {
        "the name has no such records".to_owned()
    } else {
        error.to_string()
    }
}

/// The resolver says too much of itself.
impl fmt::Debug for Question {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Question({})", self.url)
    }
}

/// How long all of the records hold.
fn shortest(records: &[Record]) -> Duration {
    let seconds = records.iter().map(|record| record.ttl).min();
    Duration::from_secs(seconds.unwrap_or(0).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_servers_are_read_and_what_is_none_is_refused() {
        let parse =
            |rest: &str| Question::parse("srv", rest, &["server"]).map(|(question, _)| question);
        let question = parse("_puddle._tcp.example?server=10.0.0.1").unwrap();
        assert_eq!(question.servers.named(), Some("10.0.0.1:53".parse().unwrap()));
        assert_eq!(question.url(), "srv:_puddle._tcp.example?server=10.0.0.1");
        let question = parse("a?server=[::1]:54").unwrap();
        assert_eq!(question.servers.named(), Some("[::1]:54".parse().unwrap()));
        for (rest, told) in [
            ("", "expected srv:NAME"),
            (".", "expected srv:NAME"),
            ("a..b", "expected srv:NAME"),
            (&"a".repeat(64), "expected srv:NAME"),
            ("a?server=name:53", "expected the address of a name server"),
            ("a?colour=blue", "expected some of server"),
        ] {
            let error = parse(rest).unwrap_err().explained();
            assert!(error.contains(told), "{rest}: {error}");
        }
    }
}

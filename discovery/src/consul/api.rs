//! The calls of Consul's HTTP API that are needed here.

use std::time::Duration;

use hyper::header::HeaderName;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::json::{
    Done, NewSession, NotDone, Operation, Pair, Passing, Registration, ServiceCheck, SessionId,
    Step,
};

use crate::error::DiscoveryError;
use crate::remote::http::{self, Answer, CALL_LIMIT, Call, Client};
use crate::remote::keeper::HEARTBEAT;
use crate::remote::{HeldSecret, Secret, ServiceUrl, Tls};

const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-consul-token");
const INDEX_HEADER: &str = "x-consul-index";

/// How long a heartbeat may take: less than a lease.
const BEAT_LIMIT: Duration = Duration::from_millis(1500);
/// What an agent answers whatever the rights are, by asking a server: not one that reaches
/// none.
const SIGN_OF_LIFE: &str = "/v1/status/leader";
/// Asks for the first parts of the names of keys, where only the index matters: it is that
/// of all values as well.
const NAMES: &str = "keys&separator=/";
/// How long a look may take at which nothing is read.
const LOOK_LIMIT: Duration = HEARTBEAT;

/// One agent of Consul, as it is asked.
#[derive(Debug)]
pub(super) struct Api {
    client: Client,
    token: Option<HeldSecret>,
    datacenter: Option<String>,
}

/// What became of a transaction.
#[derive(Debug)]
pub(super) enum Transaction {
    /// It was done, at that index.
    Done(u64),
    /// A condition did not hold, or so; what Consul says.
    NotDone(String),
}

impl Api {
    pub(super) fn new(
        url: &ServiceUrl,
        token: Option<HeldSecret>,
        tls: Option<Tls>,
        datacenter: Option<String>,
    ) -> Self {
        Self { client: Client::new(url, tls, SIGN_OF_LIFE), token, datacenter }
    }

    /// The service's URL, without secrets.
    pub(super) fn service(&self) -> &str {
        self.client.service()
    }

    /// All keys that begin with `root`, and the index of this reading.
    pub(super) async fn list(&self, root: &str) -> Result<(Vec<Pair>, u64), DiscoveryError> {
        let call = Call::get("list keys", self.target("/v1/kv/", root, "recurse"));
        let answer = self.ask(&call).await?;
        // Only Consul's own "there are none" counts, not that of something before it.
        let index = self.index(&call, &answer)?;
        match answer.status {
            404 => Ok((Vec::new(), index)),
            _ => Ok((self.json(&call, &answer)?, index)),
        }
    }

    /// The index that a [`list`](Self::list) would have now.
    pub(super) async fn index_of_keys(&self, root: &str) -> Result<u64, DiscoveryError> {
        let target = self.target("/v1/kv/", root, NAMES);
        let call = Call::get("look at keys", target).once().within(LOOK_LIMIT);
        let answer = self.ask(&call).await?;
        self.index(&call, &answer)
    }

    /// What lies under one key.
    pub(super) async fn get(&self, key: &str) -> Result<Option<Pair>, DiscoveryError> {
        let call = Call::get("read a key", self.target("/v1/kv/", key, "")).within(BEAT_LIMIT);
        let answer = self.ask(&call).await?;
        self.index(&call, &answer)?;
        if answer.status == 404 {
            return Ok(None);
        }
        let pairs: Vec<Pair> = self.json(&call, &answer)?;
        Ok(pairs.into_iter().next())
    }

    /// The instances of a service with that tag whose checks pass, and the index of this
    /// reading.
    pub(super) async fn passing(
        &self,
        service: &str,
        tag: &str,
    ) -> Result<(Vec<Passing>, u64), DiscoveryError> {
        let call = Call::get("list services", self.passing_target(service, tag, ""));
        let answer = self.ask(&call).await?;
        let index = self.index(&call, &answer)?;
        Ok((self.json(&call, &answer)?, index))
    }

    /// Waits until the index of the keys is greater than `index`, or `wait` is over;
    /// returns the index then.
    pub(super) async fn wait_for_keys(
        &self,
        root: &str,
        index: u64,
        wait: Duration,
    ) -> Result<u64, DiscoveryError> {
        let target = self.target("/v1/kv/", root, &waiting(NAMES, index, wait));
        self.wait(Call::get("watch keys", target), wait).await
    }

    /// Waits for the passing instances of a service, as [`wait_for_keys`](Self::wait_for_keys).
    pub(super) async fn wait_for_passing(
        &self,
        service: &str,
        tag: &str,
        index: u64,
        wait: Duration,
    ) -> Result<u64, DiscoveryError> {
        let target = self.passing_target(service, tag, &waiting("", index, wait));
        self.wait(Call::get("watch services", target), wait).await
    }

    /// The agent adds up to a sixteenth to the wait.
    async fn wait(&self, call: Call, wait: Duration) -> Result<u64, DiscoveryError> {
        let token = self.token.as_ref().map(HeldSecret::current);
        let call = authorised(&call, token).within(wait + wait / 16 + CALL_LIMIT);
        let answer = self.client.head(&call).await?;
        let answer = self.checked(&call, answer)?;
        self.index(&call, &answer)
    }

    /// Does a transaction whose first step yields a key.
    pub(super) async fn transact(&self, steps: &[Step]) -> Result<Transaction, DiscoveryError> {
        let steps: Vec<_> = steps.iter().map(|step| Operation { step }).collect();
        let call = Call::put("write", self.target("/v1/txn", "", ""), to_json(&steps));
        let answer = self.ask(&call).await?;
        if answer.status == 409 {
            return self.not_done(&call, &answer);
        }
        let done: Done = self.json(&call, &answer)?;
        let pairs = done.results.into_iter().filter_map(|one| one.pair);
        match pairs.map(|pair| pair.modify_index).max() {
            Some(index) if index > 0 => Ok(Transaction::Done(index)),
            _ => Err(http::bad(call.what, self.service(), "it has no index")),
        }
    }

    /// Consul says by the same status that a condition did not hold and that the token
    /// lacks rights.
    fn not_done(&self, call: &Call, answer: &Answer) -> Result<Transaction, DiscoveryError> {
        let NotDone { errors } = self.parsed(call, answer)?;
        let said = errors.into_iter().map(|error| error.what).next().unwrap_or_default();
        let message = self.hidden(&said);
        if !said.contains("ermission denied") {
            return Ok(Transaction::NotDone(message));
        }
        Err(self.not_allowed(call, message))
    }

    /// Puts a value under a key that nobody holds, held by `session`; false when
    /// somebody holds it.
    pub(super) async fn acquire(
        &self,
        key: &str,
        session: &str,
        value: &[u8],
    ) -> Result<bool, DiscoveryError> {
        let target = self.target("/v1/kv/", key, &format!("acquire={session}"));
        let value = String::from_utf8_lossy(value);
        let call = Call::put("take a name", target, value);
        let answer = self.ask(&call).await?;
        self.json(&call, &answer)
    }

    /// A session that ends when that check does not pass any more. The check must have
    /// come to Consul's servers: nothing is returned while it has not.
    pub(super) async fn create_session(
        &self,
        name: &str,
        check: &str,
    ) -> Result<Option<String>, DiscoveryError> {
        let session = NewSession {
            name,
            lock_delay: "0s",
            behavior: "delete",
            node_checks: ["serfHealth"],
            service_checks: [ServiceCheck { id: check }],
        };
        let target = self.target("/v1/session/create", "", "");
        let call = Call::put("create a session", target, to_json(&session));
        let answer = self.ask_unchecked(&call).await?;
        // "Missing check 'ID' registration", "Check 'ID' is in critical state".
        if answer.status == 500 && answer.text().contains(check) {
            return Ok(None);
        }
        let answer = self.checked(&call, answer)?;
        let SessionId { id } = self.json(&call, &answer)?;
        Ok(Some(id))
    }

    /// Ends a session; what it held is removed.
    pub(super) async fn destroy_session(&self, session: &str) -> Result<(), DiscoveryError> {
        let target = self.target("/v1/session/destroy/", session, "");
        self.done(Call::put("end a session", target, "").repeatable()).await
    }

    /// Registers a service with the agent, over what it has under that id.
    pub(super) async fn register(&self, service: &Registration) -> Result<(), DiscoveryError> {
        let target = "/v1/agent/service/register".to_owned();
        let call = Call::put("register the server", target, to_json(service));
        self.done(call.repeatable()).await
    }

    /// Takes a service from the agent; that it has none is good.
    pub(super) async fn deregister(&self, id: &str) -> Result<(), DiscoveryError> {
        let target = format!("/v1/agent/service/deregister/{id}");
        let call = Call::put("take the server back", target, "").repeatable();
        let answer = self.ask_unchecked(&call).await?;
        if answer.status == 404 || answer.text().contains("nknown service") {
            return Ok(());
        }
        self.checked(&call, answer).map(|_| ())
    }

    /// Lets a check of the agent pass; false when the agent does not know it, as after
    /// it was started without its data.
    pub(super) async fn pass(&self, check: &str) -> Result<bool, DiscoveryError> {
        let target = format!("/v1/agent/check/pass/{check}");
        let call = Call::put("renew the server's check", target, "").repeatable();
        let call = call.within(BEAT_LIMIT);
        let answer = self.ask_unchecked(&call).await?;
        // Old agents say 500, newer ones 404.
        if matches!(answer.status, 404 | 500) {
            return Ok(false);
        }
        self.checked(&call, answer).map(|_| true)
    }

    /// Asks for what is either done or an error.
    async fn done(&self, call: Call) -> Result<(), DiscoveryError> {
        let answer = self.ask(&call).await?;
        match answer.status {
            200 => Ok(()),
            _ => Err(self.refused(&call, &answer)),
        }
    }

    async fn ask(&self, call: &Call) -> Result<Answer, DiscoveryError> {
        let answer = self.ask_unchecked(call).await?;
        self.checked(call, answer)
    }

    /// Asks with the token. When that is refused and lies in a file, the file may have
    /// another one by now.
    async fn ask_unchecked(&self, call: &Call) -> Result<Answer, DiscoveryError> {
        let token = self.token.as_ref().map(HeldSecret::current);
        let answer = self.client.call(&authorised(call, token.clone())).await?;
        if matches!(answer.status, 401 | 403)
            && let Some((held, refused)) = self.token.as_ref().zip(token)
            && held.reload(&refused).await?
        {
            return self.client.call(&authorised(call, Some(held.current()))).await;
        }
        Ok(answer)
    }

    /// The answer, if it is one that calls expect.
    fn checked(&self, call: &Call, answer: Answer) -> Result<Answer, DiscoveryError> {
        match answer.status {
            200 | 404 | 409 => Ok(answer),
            _ => Err(self.refused(call, &answer)),
        }
    }

    fn refused(&self, call: &Call, answer: &Answer) -> DiscoveryError {
        let message = self.hidden(&answer.text());
        match answer.status {
            401 | 403 => self.not_allowed(call, message),
            code => {
                let (what, backend) = (call.what, self.service().to_owned());
                DiscoveryError::Refused { what, backend, code: code.into(), message }
            }
        }
    }

    fn not_allowed(&self, call: &Call, message: String) -> DiscoveryError {
        let credential = match &self.token {
            Some(token) => format!("with the token {}", token.origin()),
            None => "without a token".to_owned(),
        };
        let (what, backend) = (call.what, self.service().to_owned());
        DiscoveryError::NotAllowed { what, backend, message, credential }
    }

    /// What Consul said, without our secret, and cut.
    fn hidden(&self, message: &str) -> String {
        let token = self.token.as_ref().map(HeldSecret::current);
        http::cut(token.map_or_else(|| message.to_owned(), |token| token.hidden_in(message)))
    }

    fn json<T: DeserializeOwned>(&self, call: &Call, answer: &Answer) -> Result<T, DiscoveryError> {
        match answer.status {
            200 => self.parsed(call, answer),
            _ => Err(self.refused(call, answer)),
        }
    }

    fn parsed<T: DeserializeOwned>(
        &self,
        call: &Call,
        answer: &Answer,
    ) -> Result<T, DiscoveryError> {
        let parsed = answer.json();
        parsed
            .map_err(|error| http::bad(call.what, self.service(), self.hidden(&error.to_string())))
    }

    fn index(&self, call: &Call, answer: &Answer) -> Result<u64, DiscoveryError> {
        let missing = || http::bad(call.what, self.service(), "it has no X-Consul-Index");
        answer.number(INDEX_HEADER).ok_or_else(missing)
    }

    fn passing_target(&self, service: &str, tag: &str, query: &str) -> String {
        let query = joined(query, &format!("passing=1&tag={tag}"));
        self.target("/v1/health/service/", service, &query)
    }

    /// A path and its query, in the datacenter that was asked for.
    fn target(&self, begin: &str, end: &str, query: &str) -> String {
        let datacenter = self.datacenter.as_ref().map(|name| format!("dc={name}"));
        let query = joined(query, &datacenter.unwrap_or_default());
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{begin}{end}{mark}{query}")
    }
}

fn authorised(call: &Call, token: Option<Secret>) -> Call {
    Call { header: token.map(|token| (TOKEN_HEADER, token)), ..call.clone() }
}

/// A query that waits for what is after `index`; with 0 it would not wait.
fn waiting(query: &str, index: u64, wait: Duration) -> String {
    joined(query, &format!("index={}&wait={}s", index.max(1), wait.as_secs()))
}

fn joined(one: &str, other: &str) -> String {
    let separator = if one.is_empty() || other.is_empty() { "" } else { "&" };
    format!("{one}{separator}{other}")
}

/// What is made of texts and numbers is always JSON.
fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

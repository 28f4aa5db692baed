//! The calls of etcd that are needed here, over its JSON gateway.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::header::AUTHORIZATION;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::json::{
    Done, Failure, Found, Grant, Granted, Kept, LeaseId, LoggedIn, Login, Number, Pair, Range,
    Streamed, Transaction, Watch, WatchFrom, Watched,
};
use crate::error::DiscoveryError;
use crate::remote::base64::Base64;
use crate::remote::http::{Answer, Call, Client, Lines, bad, cut};
use crate::remote::keeper::HEARTBEAT;
use crate::remote::{HeldSecret, Secret, ServiceUrl, Tls};

/// How long a heartbeat may take: less than a lease.
const BEAT_LIMIT: Duration = Duration::from_millis(1500);
/// What a member answers whatever the rights are, by reading nothing: not one that is cut
/// off from the others.
const SIGN_OF_LIFE: &str = "/health";
/// How long a look may take at which nothing is read.
const LOOK_LIMIT: Duration = HEARTBEAT;

const LOG_IN: &str = "log in";
const WATCH: &str = "watch keys";

/// A user and the password.
#[derive(Debug)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) password: HeldSecret,
}

/// What is remembered of a reading.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reading {
    pub(super) revision: i64,
    pub(super) keys: i64,
}

/// The members of one etcd, as they are asked.
#[derive(Debug)]
pub(super) struct Api {
    client: Client,
    user: Option<User>,
    /// What etcd gave for the password; it ends after some minutes, and with a member's
    /// process.
    token: Mutex<Option<Secret>>,
}

impl Api {
    pub(super) fn new(url: &ServiceUrl, user: Option<User>, tls: Option<Tls>) -> Self {
        Self { client: Client::new(url, tls, SIGN_OF_LIFE), user, token: Mutex::default() }
    }

    /// The service's URL, without secrets.
    pub(super) fn service(&self) -> &str {
        self.client.service()
    }

    /// All keys that begin with `root`, and the revision of this reading.
    pub(super) async fn list(&self, root: &str) -> Result<(Vec<Pair>, i64), DiscoveryError> {
        let range = Range { range_end: Some(end_of(root)), ..Range::one(root) };
        let call = call("list keys", "/v3/kv/range", &range).repeatable();
        let found: Found = self.ask(&call).await?;
        Ok((found.kvs, found.header.revision.0))
    }

    /// Whether all that begins with `root` is as it was read: so many keys, and none of
    /// them written since. A member that is cut off from the others gives no answer.
    pub(super) async fn is_as_read(
        &self,
        root: &str,
        read: Reading,
    ) -> Result<bool, DiscoveryError> {
        let range = Range {
            range_end: Some(end_of(root)),
            min_mod_revision: Some(Number(read.revision + 1)),
            keys_only: true,
            ..Range::one(root)
        };
        let call = call("look at keys", "/v3/kv/range", &range).once().within(LOOK_LIMIT);
        let found: Found = self.ask(&call).await?;
        let is_same_time = found.header.revision.0 >= read.revision;
        Ok(is_same_time && found.kvs.is_empty() && found.count.0 == read.keys)
    }

    /// What lies under one key.
    pub(super) async fn get(&self, key: &str) -> Result<Option<Pair>, DiscoveryError> {
        let call =
            call("read a key", "/v3/kv/range", &Range::one(key)).repeatable().within(BEAT_LIMIT);
        let found: Found = self.ask(&call).await?;
        Ok(found.kvs.into_iter().next())
    }

    /// Does a transaction.
    pub(super) async fn transact(&self, steps: &Transaction) -> Result<Done, DiscoveryError> {
        self.ask(&call("write", "/v3/kv/txn", steps)).await
    }

    /// A lease of so many seconds.
    pub(super) async fn grant(&self, seconds: u64) -> Result<i64, DiscoveryError> {
        let ttl = Number(i64::try_from(seconds).unwrap_or(i64::MAX));
        let call = call("grant a lease", "/v3/lease/grant", &Grant { ttl });
        let granted: Granted = self.ask(&call.repeatable()).await?;
        Ok(granted.id.0)
    }

    /// Renews a lease; false when there is none.
    pub(super) async fn keep_alive(&self, lease: i64) -> Result<bool, DiscoveryError> {
        let what = "renew the server's lease";
        let id = LeaseId { id: Number(lease) };
        let call = call(what, "/v3/lease/keepalive", &id).repeatable().within(BEAT_LIMIT);
        let kept: Streamed<Kept> = self.ask(&call).await?;
        match (kept.result, kept.error) {
            (Some(kept), _) => Ok(kept.ttl.0 > 0),
            (None, Some(failure)) if failure.message.contains("lease not found") => Ok(false),
            (None, failure) => {
                let message = failure.unwrap_or_default().message;
                Err(bad(what, self.service(), self.hidden(&message)))
            }
        }
    }

    /// Ends a lease; what it held is removed. That there is none is good.
    pub(super) async fn revoke(&self, lease: i64) -> Result<(), DiscoveryError> {
        let id = LeaseId { id: Number(lease) };
        let call = call("end a lease", "/v3/lease/revoke", &id).repeatable();
        let answer = self.ask_unchecked(&call).await?;
        if answer.status == 404 && failure_of(&answer).contains("lease not found") {
            return Ok(());
        }
        self.checked(call.what, &answer)
    }

    /// Watches the keys that begin with `root`, from a revision on.
    pub(super) async fn watch(
        &self,
        root: &str,
        from: i64,
    ) -> Result<Watching<'_>, DiscoveryError> {
        let create_request = WatchFrom {
            key: Base64::of(root),
            range_end: end_of(root),
            start_revision: Number(from),
        };
        let call = call(WATCH, "/v3/watch", &Watch { create_request });
        let call = self.authorised(&call).await?;
        let lines = self.client.lines(&call).await?;
        if lines.status == 200 {
            return Ok(Watching { api: self, lines });
        }
        self.forget_token();
        Err(self.refused(call.what, lines.status, ""))
    }

    /// The failure of a watch that etcd ended.
    pub(super) fn ended(&self, reason: &str) -> DiscoveryError {
        let message = self.hidden(reason);
        self.forget_token();
        let what = WATCH;
        if is_about_rights(reason) {
            return self.not_allowed(what, message);
        }
        let backend = self.service().to_owned();
        DiscoveryError::Refused { what, backend, code: 200, message }
    }

    async fn ask<T: DeserializeOwned>(&self, call: &Call) -> Result<T, DiscoveryError> {
        let answer = self.ask_unchecked(call).await?;
        self.checked(call.what, &answer)?;
        self.parsed(call.what, answer.json())
    }

    /// Asks with a token of etcd. One that is not good any more is replaced, once.
    async fn ask_unchecked(&self, call: &Call) -> Result<Answer, DiscoveryError> {
        let answer = self.client.call(&self.authorised(call).await?).await?;
        if self.user.is_some() && is_stale_token(&answer) {
            self.forget_token();
            return self.client.call(&self.authorised(call).await?).await;
        }
        Ok(answer)
    }

    async fn authorised(&self, call: &Call) -> Result<Call, DiscoveryError> {
        let header = self.token().await?.map(|token| (AUTHORIZATION, token));
        Ok(Call { header, ..call.clone() })
    }

    async fn token(&self) -> Result<Option<Secret>, DiscoveryError> {
        let Some(user) = &self.user else { return Ok(None) };
        if let Some(known) = self.lock().clone() {
            return Ok(Some(known));
        }
        let password = user.password.current();
        let mut answer = self.client.call(&login(&user.name, &password)).await?;
        if answer.status == 400 && user.password.reload(&password).await? {
            answer = self.client.call(&login(&user.name, &user.password.current())).await?;
        }
        // It has users only when they were switched on. Gateways differ in the status.
        if matches!(answer.status, 400 | 412) && failure_of(&answer).contains("not enabled") {
            return Ok(None);
        }
        self.checked(LOG_IN, &answer)?;
        let LoggedIn { token } = self.parsed(LOG_IN, answer.json())?;
        let token = Secret::new(token);
        *self.lock() = Some(token.clone());
        Ok(Some(token))
    }

    fn forget_token(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Secret>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn checked(&self, what: &'static str, answer: &Answer) -> Result<(), DiscoveryError> {
        match answer.status {
            200 => Ok(()),
            status => Err(self.refused(what, status, &failure_of(answer))),
        }
    }

    fn refused(&self, what: &'static str, status: u16, message: &str) -> DiscoveryError {
        let is_about_rights = matches!(status, 401 | 403) || is_about_rights(message);
        let message = self.hidden(message);
        if is_about_rights {
            return self.not_allowed(what, message);
        }
        let backend = self.service().to_owned();
        DiscoveryError::Refused { what, backend, code: status.into(), message }
    }

    fn not_allowed(&self, what: &'static str, message: String) -> DiscoveryError {
        let credential = match &self.user {
            Some(user) => format!("with a user and the password {}", user.password.origin()),
            None => "without a user".to_owned(),
        };
        let backend = self.service().to_owned();
        DiscoveryError::NotAllowed { what, backend, message, credential }
    }

    /// What JSON said; its failure may quote what etcd said.
    fn parsed<T>(
        &self,
        what: &'static str,
        parsed: serde_json::Result<T>,
    ) -> Result<T, DiscoveryError> {
        parsed.map_err(|error| bad(what, self.service(), self.hidden(&error.to_string())))
    }

    /// What etcd said, without our secrets, and cut.
    fn hidden(&self, message: &str) -> String {
        let password = self.user.as_ref().map(|user| user.password.current());
        let secrets = password.into_iter().chain(self.lock().clone());
        cut(secrets.fold(message.to_owned(), |text, secret| secret.hidden_in(&text)))
    }
}

/// A watch that is open.
#[derive(Debug)]
pub(super) struct Watching<'a> {
    api: &'a Api,
    lines: Lines,
}

impl Watching<'_> {
    /// The next message.
    pub(super) async fn next(&mut self) -> Result<Streamed<Watched>, DiscoveryError> {
        let line = self.lines.next().await?;
        self.api.parsed(WATCH, serde_json::from_slice(&line))
    }
}

fn call(what: &'static str, target: &str, body: &impl Serialize) -> Call {
    // What is made of texts and numbers is always JSON.
    Call::post(what, target.to_owned(), serde_json::to_string(body).unwrap_or_default())
}

fn login(name: &str, password: &Secret) -> Call {
    let login = Login { name, password: password.expose() };
    call(LOG_IN, "/v3/auth/authenticate", &login).repeatable()
}

/// The first key after all that begin with `root`, which ends with a slash.
fn end_of(root: &str) -> Base64 {
    let mut end = root.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    Base64(end)
}

fn failure_of(answer: &Answer) -> String {
    let parsed: Result<Failure, _> = serde_json::from_slice(&answer.body);
    parsed.map_or_else(|_| answer.text(), |failure| failure.message)
}

fn is_stale_token(answer: &Answer) -> bool {
    let failure = || failure_of(answer);
    // After a member was started again, or the rights were changed, or some minutes.
    answer.status == 401
        || (answer.status == 400
            && ["auth store is old", "user name is empty"]
                .iter()
                .any(|known| failure().contains(known)))
}

fn is_about_rights(message: &str) -> bool {
    ["permission denied", "user name is empty", "invalid user ID", "invalid auth token"]
        .iter()
        .any(|known| message.contains(known))
}

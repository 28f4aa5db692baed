//! A small HTTP client for services: few calls at once, each with a time limit, answers
//! of limited size, several hosts.
//!
//! ```text
//!   call --> an idle connection, else connect to the host that answered last,
//!     |      else to the next one ...
//!     +----> the answer, read up to ANSWER_BYTES_MAX
//! ```
//!
//! A service may be gone without a word, and be back while a call still waits for what was
//! swallowed. So after each heartbeat in which nothing came it is asked over a new
//! connection for something that costs it nothing, and once that is answered, what may be
//! asked twice is asked a second time; the first answer counts. A service that is slow is
//! asked once more, not again and again.
//!
//! Redirects are answers like any other: nothing is followed.

mod answer;
mod connection;

use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::header::{HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Response};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

pub(crate) use answer::{Answer, Lines, bad, cut};
use connection::Connection;

use super::keeper::HEARTBEAT;
use super::secret::Secret;
use super::tls::Tls;
use super::url::{HostPort, ServiceUrl};
use crate::error::DiscoveryError;

/// How long a call may take in all, unless it says otherwise.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(5);
/// How long it may take to connect to one host, whatever the number of its addresses.
const CONNECT_LIMIT: Duration = Duration::from_millis(1500);
/// The most connections that are kept without being used.
const IDLE_MAX: usize = 4;

/// A client of one service.
#[derive(Debug)]
pub(crate) struct Client {
    /// The service's URL, for messages.
    service: String,
    hosts: Vec<HostPort>,
    /// The host that answered last.
    preferred: AtomicUsize,
    tls: Option<Tls>,
    /// What shows whether the service answers, at the least cost and to anybody.
    sign_of_life: &'static str,
    idle: Mutex<Vec<Connection>>,
}

/// What a service is asked.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// What it is about, as a verb, for messages.
    pub(crate) what: &'static str,
    pub(crate) method: Method,
    /// The path, and what follows its question mark.
    pub(crate) target: String,
    pub(crate) header: Option<(HeaderName, Secret)>,
    /// May have secrets in it.
    pub(crate) body: Secret,
    /// Whether asking twice is as good as asking once.
    pub(crate) is_repeatable: bool,
    /// How long it may take in all.
    pub(crate) limit: Duration,
}

impl Call {
    /// A call that only looks.
    pub(crate) fn get(what: &'static str, target: String) -> Self {
        Self {
            what,
            method: Method::GET,
            target,
            header: None,
            body: Secret::new(""),
            is_repeatable: true,
            limit: CALL_LIMIT,
        }
    }

    /// A call that changes something.
    pub(crate) fn put(what: &'static str, target: String, body: impl Into<String>) -> Self {
        let body = Secret::new(body);
        Self { method: Method::PUT, body, is_repeatable: false, ..Self::get(what, target) }
    }

    /// A call by POST.
    pub(crate) fn post(what: &'static str, target: String, body: impl Into<String>) -> Self {
        Self { method: Method::POST, ..Self::put(what, target, body) }
    }

    /// The same call, which may be made twice.
    pub(crate) fn repeatable(self) -> Self {
        Self { is_repeatable: true, ..self }
    }

    /// The same call, which is made once, though it could be made twice.
    pub(crate) fn once(self) -> Self {
        Self { is_repeatable: false, ..self }
    }

    /// The same call with another time limit.
    pub(crate) fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }
}

/// One try of a call.
#[derive(Debug)]
struct Try {
    /// The number of the host that it went to.
    host: AtomicUsize,
    bytes: AtomicU64,
}

impl Try {
    /// How much of the answer came so far.
    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Client {
    /// A client of the service that `url` names, which answers to `sign_of_life` at once and
    /// without any right. Connects at the first call. Of several hosts a random one is
    /// asked first, so that many clients spread.
    pub(crate) fn new(url: &ServiceUrl, tls: Option<Tls>, sign_of_life: &'static str) -> Self {
        let first = crate::random::random_fraction() * url.hosts.len() as f64;
        Self {
            service: url.to_string(),
            hosts: url.hosts.clone(),
            preferred: AtomicUsize::new(first as usize % url.hosts.len()),
            tls,
            sign_of_life,
            idle: Mutex::default(),
        }
    }

    /// The service's URL, without secrets.
    pub(crate) fn service(&self) -> &str {
        &self.service
    }

    /// Asks, and reads the answer. Fails when none comes in time; whatever the service
    /// says is an answer. A repeatable call is made a second time at most: when nothing of
    /// an answer came in a heartbeat and the service shows that it answers, or at once at
    /// a second host, if there are several and the first fails.
    pub(crate) async fn call(&self, call: &Call) -> Result<Answer, DiscoveryError> {
        let deadline = Instant::now() + call.limit;
        let one = self.new_try();
        let mut first = pin!(self.call_until(deadline, call, &one));
        if !call.is_repeatable {
            return first.await;
        }
        tokio::select! {
            answered = &mut first => {
                let is_over = self.hosts.len() == 1 || Instant::now() >= deadline;
                if is_over || is_final(&answered) {
                    return answered;
                }
                return self.call_until(deadline, call, &self.new_try()).await;
            }
            () = self.answers_after_silence(&one) => {}
        }
        let again = self.new_try();
        let mut second = pin!(self.call_until(deadline, call, &again));
        tokio::select! {
            answered = &mut first => match is_final(&answered) {
                true => answered,
                false => second.await,
            },
            // What was asked first may be lost for ever, unless it is on its way.
            answered = &mut second => match is_final(&answered) || one.bytes() == 0 {
                true => answered,
                false => first.await,
            },
        }
    }

    /// Resolves when the service answers, behind a heartbeat in which nothing came for that
    /// try.
    async fn answers_after_silence(&self, waiting: &Try) {
        let sign_of_life = Call::get("see whether it answers", self.sign_of_life.to_owned());
        let call = sign_of_life.once().within(HEARTBEAT);
        let (mut seen, mut next) = (0, Instant::now() + HEARTBEAT);
        loop {
            sleep_until(next).await;
            next = Instant::now() + HEARTBEAT;
            let bytes = waiting.bytes();
            if std::mem::replace(&mut seen, bytes) < bytes {
                continue;
            }
            self.silent(waiting);
            let answered = self.call_until(next, &call, &self.new_try()).await;
            if answered.is_ok_and(|answer| answer.status < 500) {
                return;
            }
        }
    }

    async fn call_until(
        &self,
        deadline: Instant,
        call: &Call,
        this: &Try,
    ) -> Result<Answer, DiscoveryError> {
        let answered = timeout_at(deadline, async {
            let (response, connection) = self.send(call, this).await?;
            let answer = Answer::read(response, call.what, &self.service, &this.bytes).await?;
            self.keep(connection);
            Ok(answer)
        });
        let answered = answered.await.unwrap_or_else(|_| Err(self.timed_out(call.limit)));
        match &answered {
            Ok(answer) if answer.status >= 500 => self.avoid(this),
            Ok(_) => {}
            Err(_) => self.silent(this),
        }
        answered
    }

    /// Asks, and returns the head of the answer; the connection ends with it. For
    /// answers that are long in coming, or whose body does not matter.
    pub(crate) async fn head(&self, call: &Call) -> Result<Answer, DiscoveryError> {
        let this = self.new_try();
        let answered = timeout(call.limit, self.send(call, &this)).await;
        let answered = answered.unwrap_or_else(|_| Err(self.timed_out(call.limit)));
        let answered = answered.map(|(response, _connection)| Answer::head_of(&response));
        if answered.is_err() {
            self.silent(&this);
        }
        answered
    }

    /// Asks, and returns an answer that comes line by line, without an end. The limit is
    /// that of its begin.
    pub(crate) async fn lines(&self, call: &Call) -> Result<Lines, DiscoveryError> {
        let this = self.new_try();
        let answered = timeout(call.limit, self.send(call, &this)).await;
        let answered = answered.unwrap_or_else(|_| Err(self.timed_out(call.limit)));
        if answered.is_err() {
            self.silent(&this);
        }
        let (response, connection) = answered?;
        Ok(Lines::new(response, connection, call.what, &self.service))
    }

    fn new_try(&self) -> Try {
        Try { host: AtomicUsize::new(self.preferred()), bytes: AtomicU64::new(0) }
    }

    /// The host of that try is not asked first any more.
    fn avoid(&self, tried: &Try) {
        let host = tried.host.load(Ordering::Relaxed);
        let next = (host + 1) % self.hosts.len();
        let _ = self.preferred.compare_exchange(host, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The host of that try gives no answer: whatever else is connected to it may lead
    /// nowhere as well.
    fn silent(&self, tried: &Try) {
        self.avoid(tried);
        self.idle().clear();
    }

    fn preferred(&self) -> usize {
        self.preferred.load(Ordering::Relaxed)
    }

    /// An idle connection may have ended unseen: what can be asked again is then asked
    /// over a new one, and so is what was not sent.
    async fn send(
        &self,
        call: &Call,
        this: &Try,
    ) -> Result<(Response<hyper::body::Incoming>, Connection), DiscoveryError> {
        if let Some(mut connection) = self.idle_connection().await {
            this.host.store(connection.host, Ordering::Relaxed);
            let request = self.request(call, connection.host)?;
            match connection.send(request).await {
                Ok(response) => return Ok((response, connection)),
                Err(failure) if failure.was_sent && !call.is_repeatable => {
                    return Err(self.unreachable("speak with", failure.error));
                }
                Err(_) => {}
            }
        }
        let mut connection = self.connect().await?;
        this.host.store(connection.host, Ordering::Relaxed);
        let request = self.request(call, connection.host)?;
        let sent = connection.send(request).await;
        let response = sent.map_err(|failure| self.unreachable("speak with", failure.error))?;
        Ok((response, connection))
    }

    fn request(&self, call: &Call, host: usize) -> Result<hyper::Request<String>, DiscoveryError> {
        let unusable = |error: hyper::http::Error| self.unreachable("ask", error);
        let mut request = hyper::Request::builder()
            .method(call.method.clone())
            .uri(&call.target)
            .header(HOST, self.hosts[host].to_string())
            .header(USER_AGENT, "rampuddle");
        if let Some((name, secret)) = &call.header {
            let mut value = HeaderValue::from_str(secret.expose())
                .map_err(|error| self.unreachable("ask", error))?;
            value.set_sensitive(true);
            request = request.header(name, value);
        }
        request.body(call.body.expose().to_owned()).map_err(unusable)
    }

    /// An idle connection to the preferred host; others are let go.
    async fn idle_connection(&self) -> Option<Connection> {
        loop {
            let mut connection = self.idle().pop()?;
            if connection.host == self.preferred() && connection.is_ready().await {
                return Some(connection);
            }
        }
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle();
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects to the preferred host, or else to the next that can be connected to.
    async fn connect(&self) -> Result<Connection, DiscoveryError> {
        let first = self.preferred();
        let mut failures = Vec::new();
        for step in 0..self.hosts.len() {
            let at = (first + step) % self.hosts.len();
            let host = &self.hosts[at];
            match Connection::open(at, host, self.tls.as_ref(), CONNECT_LIMIT).await {
                Ok(connection) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return Ok(connection);
                }
                Err(error) => failures.push(format!("{host}: {error}")),
            }
        }
        Err(self.unreachable("connect to", failures.join("; ")))
    }

    fn unreachable(
        &self,
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> DiscoveryError {
        DiscoveryError::Unreachable { what, backend: self.service.clone(), source: source.into() }
    }

    fn timed_out(&self, waited: Duration) -> DiscoveryError {
        DiscoveryError::TimedOut { backend: self.service.clone(), waited }
    }
}

/// Whether no other host would answer any better.
fn is_final(answered: &Result<Answer, DiscoveryError>) -> bool {
    match answered {
        Ok(answer) => answer.status < 500,
        Err(error) => matches!(error, DiscoveryError::AnswerTooLarge { .. }),
    }
}

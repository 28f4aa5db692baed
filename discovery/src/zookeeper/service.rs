//! One ZooKeeper as a URL names it: its servers, who we are to them, and where the
//! records of the cluster lie.

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;

use super::connection::{Connection, Session};
use super::failure::{Code, Failure, words};
use super::hosts::Hosts;
use super::wire::Access;
use crate::error::DiscoveryError;
use crate::remote::layout::Layout;
use crate::remote::{Credential, ServiceUrl, Tls};

const DEFAULT_PORT: u16 = 2181;
/// How long one call may take, a search for a server that answers included.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Service {
    url: String,
    hosts: Hosts,
    user: Option<(String, Credential)>,
    layout: Layout,
}

impl Service {
    /// Takes the URL apart and reads the files that it names.
    pub(super) fn new(url: &str, cluster: &str) -> Result<Self, DiscoveryError> {
        let known: Vec<_> = ["user", "password-file"].into_iter().chain(Tls::OPTIONS).collect();
        let parsed = ServiceUrl::parse("zk", url, DEFAULT_PORT, &known)?;
        let tls = Tls::from_options(&parsed.options, |problem| parsed.bad(problem))?;
        Ok(Self {
            url: parsed.to_string(),
            user: user(&parsed)?,
            layout: Layout::new(&parsed.path, cluster),
            hosts: Hosts::new(parsed.hosts, tls),
        })
    }

    pub(super) fn url(&self) -> String {
        self.url.clone()
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The node of the cluster.
    pub(super) fn root(&self) -> String {
        node(self.layout.root().trim_end_matches('/'))
    }

    /// The node that has the members below it.
    pub(super) fn members(&self) -> String {
        node(&self.layout.member("")).trim_end_matches('/').to_owned()
    }

    /// The node that has the living below it.
    pub(super) fn all_living(&self) -> String {
        node(&self.layout.living("")).trim_end_matches('/').to_owned()
    }

    /// Nodes are for whoever created them, where that is known.
    pub(super) fn access(&self) -> Access {
        if self.user.is_some() { Access::Creator } else { Access::Open }
    }

    /// Connects for an old session or for a new one. Reads the password, if it lies in a
    /// file.
    pub(super) async fn connect(
        &self,
        session: Option<&Session>,
    ) -> Result<Connection, ConnectError> {
        let credentials = match &self.user {
            None => None,
            Some((user, password)) => Some(format!("{user}:{}", password.secret()?.expose())),
        };
        Ok(self.hosts.connect(session, credentials.as_deref()).await?)
    }

    /// Gives a call its time limit.
    pub(super) async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, DiscoveryError>>,
    ) -> Result<T, DiscoveryError> {
        let timed_out = |_| Err(DiscoveryError::TimedOut { backend: self.url(), waited: PATIENCE });
        timeout(PATIENCE, call).await.unwrap_or_else(timed_out)
    }

    /// A failure in the words of discovery; `what` is a verb.
    pub(super) fn failed(&self, what: &'static str, failure: Failure) -> DiscoveryError {
        let backend = self.url();
        match failure {
            Failure::Refused(code @ (Code::NO_AUTH | Code::AUTH_FAILED | Code::INVALID_ACCESS)) => {
                let credential = match &self.user {
                    Some((_, password)) => {
                        format!("with a user and the password {}", password.origin())
                    }
                    None => "without a user".to_owned(),
                };
                let message = words(code).to_owned();
                DiscoveryError::NotAllowed { what, backend, message, credential }
            }
            Failure::Refused(code) => DiscoveryError::Refused {
                what,
                backend,
                code: code.0.into(),
                message: words(code).to_owned(),
            },
            Failure::Garbled(garbled) => {
                DiscoveryError::BadAnswer { what, backend, source: garbled.into() }
            }
            Failure::TooLarge { bytes_max, .. } => {
                DiscoveryError::AnswerTooLarge { what, backend, bytes_max }
            }
            failure => DiscoveryError::Unreachable { what, backend, source: failure.into() },
        }
    }

    /// The same for [`connect`](Self::connect).
    pub(super) fn not_connected(&self, error: ConnectError) -> DiscoveryError {
        match error {
            ConnectError::Failure(failure) => self.failed("reach", failure),
            ConnectError::Password(error) => *error,
        }
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum ConnectError {
    Failure(Failure),
    /// The file with the password cannot be read.
    Password(Box<DiscoveryError>),
}

impl From<Failure> for ConnectError {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<DiscoveryError> for ConnectError {
    fn from(error: DiscoveryError) -> Self {
        Self::Password(error.into())
    }
}

/// The path of a node by its key.
pub(super) fn node(key: &str) -> String {
    format!("/{key}")
}

fn user(url: &ServiceUrl) -> Result<Option<(String, Credential)>, DiscoveryError> {
    let login = url.login()?;
    if let Some((_, password)) = &login {
        // A file that is not there is found at once.
        password.secret()?;
    }
    Ok(login)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_lie_below_the_path_of_the_url() {
        let service = Service::new("zk://a,b:2182/x/y?user=u&tls=off", "lab");
        // No password: refused below.
        assert!(service.is_err());
        let service = Service::new("zk://a,b:2182/x/y", "lab").unwrap();
        assert_eq!(service.url(), "zk://a:2181,b:2182/x/y");
        assert_eq!(service.root(), "/x/y/lab");
        assert_eq!(service.members(), "/x/y/lab/members");
        assert_eq!(service.all_living(), "/x/y/lab/living");
        assert_eq!(node(&service.layout().member("n")), "/x/y/lab/members/n");
    }

    #[test]
    fn a_user_needs_a_password_and_nothing_shows_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "sesame\n").unwrap();
        let path = file.path().display();
        for url in [
            format!("zk://h?user=u&password-file={path}"),
            format!("zk://u@h?password-file={path}"),
            "zk://u:sesame@h".to_owned(),
        ] {
            let service = Service::new(&url, "lab").unwrap();
            let (user, password) = service.user.as_ref().unwrap();
            assert_eq!((user.as_str(), password.secret().unwrap().expose()), ("u", "sesame"));
            let shown = format!("{service:?} {}", service.url());
            assert!(!shown.contains("sesame"), "{shown}");
        }
        for (url, told) in [
            ("zk://h?user=u".to_owned(), "it has a user and no password"),
            (format!("zk://h?password-file={path}"), "expected a user with it"),
            ("zk://h?user=u&password-file=/nowhere/p".to_owned(), "cannot open /nowhere/p"),
            ("zk://u:sesame@h?colour=blue".to_owned(), "expected some of user, password-file, tls"),
        ] {
            let error = Service::new(&url, "lab").unwrap_err().explained();
            assert!(error.contains(told) && !error.contains("sesame"), "{url}: {error}");
        }
    }
}

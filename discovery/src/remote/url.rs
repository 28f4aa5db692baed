//! `SCHEME://[USER[:PASSWORD]@]HOST:PORT,HOST:PORT/PATH?OPTIONS`.

use std::fmt;
use std::net::Ipv6Addr;

use super::options::{Options, percent_decoded};
use super::secret::{Credential, Secret};
use crate::error::DiscoveryError;
use crate::url::{UrlProblem, masked};
use crate::validate;

/// The path where none is given.
const DEFAULT_PATH: &str = "rampuddle";
/// The most hosts of one service.
const HOSTS_MAX: usize = 100;
const USER_VARIABLE: &str = "PUDDLE_DISCOVERY_USER";
const PASSWORD_VARIABLE: &str = "PUDDLE_DISCOVERY_PASSWORD";

/// One place where a service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// A name or an address, without brackets.
    pub(crate) host: String,
    /// The port.
    pub(crate) port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(formatter, "[{host}]:{port}")
        } else {
            write!(formatter, "{host}:{port}")
        }
    }
}

/// The URL of a service, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct ServiceUrl {
    scheme: &'static str,
    /// What stands before the last `@`: a token, or a user, a colon and a password.
    userinfo: Option<Secret>,
    /// At least one.
    pub(crate) hosts: Vec<HostPort>,
    /// Without a slash at its begin or its end, never empty.
    pub(crate) path: String,
    /// What follows the question mark.
    pub(crate) options: Options,
    /// As given; to be shown only by [`bad`](Self::bad).
    given: Secret,
}

impl ServiceUrl {
    /// Takes `url` apart, whose scheme is `scheme`. `known` are the options that it may
    /// have. Looks nothing up and reads no file.
    pub(crate) fn parse(
        scheme: &'static str,
        url: &str,
        default_port: u16,
        known: &[&'static str],
    ) -> Result<Self, DiscoveryError> {
        let parsed = Self::take_apart(scheme, url, default_port, known);
        parsed.map_err(|reason| bad_url(url, reason))
    }

    fn take_apart(
        scheme: &'static str,
        url: &str,
        default_port: u16,
        known: &[&'static str],
    ) -> Result<Self, UrlProblem> {
        let rest = url.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://"));
        let rest = rest.ok_or(UrlProblem::NoHost { scheme })?;
        let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
        // A password may have a slash or an @ in it, hosts and paths have not.
        let (userinfo, place) = match before.rsplit_once('@') {
            Some((userinfo, place)) => (Some(Secret::new(userinfo)), place),
            None => (None, before),
        };
        let (hosts, path) = place.split_once('/').unwrap_or((place, ""));
        Ok(Self {
            scheme,
            userinfo,
            hosts: parse_hosts(scheme, hosts, default_port)?,
            path: parse_path(path)?,
            options: Options::parse(url, query, known)?,
            given: Secret::new(url),
        })
    }

    /// The whole of what stands before the `@`, where that is a token.
    pub(crate) fn token(&self) -> Result<Option<Secret>, DiscoveryError> {
        let decoded = |given: &Secret| self.part(given.expose());
        self.userinfo.as_ref().map(decoded).transpose()
    }

    /// What stands before the `@` as a user and a password.
    pub(crate) fn user(&self) -> Result<Option<(String, Option<Secret>)>, DiscoveryError> {
        let Some(given) = &self.userinfo else { return Ok(None) };
        let (user, password) = match given.expose().split_once(':') {
            Some((user, password)) => (user, Some(self.part(password)?)),
            None => (given.expose(), None),
        };
        Ok(Some((self.part(user)?.expose().to_owned(), password)))
    }

    /// Who we are, where the service has users: what the URL says, else its options
    /// (`user`, `password-file`), else the environment. The password may stand elsewhere
    /// than the user. Fails when there is a user and no password, and when the URL names a
    /// password and nobody is its user. A password of the environment may be meant for
    /// another service.
    pub(crate) fn login(&self) -> Result<Option<(String, Credential)>, DiscoveryError> {
        let (name, password) = self.user()?.unzip();
        let of_option = || self.options.get("user").map(ToOwned::to_owned);
        let of_environment = || std::env::var(USER_VARIABLE).ok().filter(|name| !name.is_empty());
        let Some(name) = name.or_else(of_option).or_else(of_environment) else {
            return self.without_user();
        };
        let file = self.options.file("password-file").map_err(|reason| self.bad(reason))?;
        let password = password
            .flatten()
            .map(Credential::OfUrl)
            .or(file.map(Credential::File))
            .or_else(|| Credential::from_environment(PASSWORD_VARIABLE));
        let password = password.ok_or_else(|| self.bad(UrlProblem::NoPassword))?;
        Ok(Some((name, password)))
    }

    fn without_user<T>(&self) -> Result<Option<T>, DiscoveryError> {
        if self.options.get("password-file").is_some() {
            let (option, expected) = ("password-file", "a user with it");
            return Err(self.bad(UrlProblem::Option { option, expected }));
        }
        Ok(None)
    }

    fn part(&self, text: &str) -> Result<Secret, DiscoveryError> {
        let decoded = percent_decoded(text).map_err(|reason| self.bad(reason))?;
        if decoded.is_empty() || decoded.contains(char::is_control) {
            return Err(self.bad(UrlProblem::Credentials));
        }
        Ok(Secret::new(decoded))
    }

    /// A failure that names the URL, but no secret in it.
    pub(crate) fn bad(&self, reason: UrlProblem) -> DiscoveryError {
        bad_url(self.given.expose(), reason)
    }
}

/// The URL without secrets.
impl fmt::Display for ServiceUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<String> = self.hosts.iter().map(HostPort::to_string).collect();
        let (hosts, options) = (hosts.join(","), self.options.to_text());
        write!(formatter, "{}://{hosts}/{}{options}", self.scheme, self.path)
    }
}

fn bad_url(url: &str, reason: UrlProblem) -> DiscoveryError {
    DiscoveryError::BadUrl { url: masked(url), reason }
}

fn parse_hosts(
    scheme: &'static str,
    text: &str,
    default_port: u16,
) -> Result<Vec<HostPort>, UrlProblem> {
    if text.is_empty() {
        return Err(UrlProblem::NoHost { scheme });
    }
    let parts: Vec<&str> = text.split(',').take(HOSTS_MAX + 1).collect();
    if parts.len() > HOSTS_MAX {
        return Err(UrlProblem::Host { number: parts.len() });
    }
    let host = |(at, part): (usize, &&str)| {
        parse_host(part, default_port).ok_or(UrlProblem::Host { number: at + 1 })
    };
    parts.iter().enumerate().map(host).collect()
}

/// `HOST`, `HOST:PORT`, `[ADDRESS]` or `[ADDRESS]:PORT`.
fn parse_host(text: &str, default_port: u16) -> Option<HostPort> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(inside) => {
            let (address, rest) = inside.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            (address, rest)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match rest {
        "" => default_port,
        rest => {
            let digits = rest.strip_prefix(':')?;
            let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|port| is_number && *port != 0)?
        }
    };
    let is_address = host.contains(':') || host.parse::<std::net::Ipv4Addr>().is_ok();
    (is_address || validate::is_host_name(host)).then(|| HostPort { host: host.to_owned(), port })
}

/// Parts of a path are as names of members are.
fn parse_path(text: &str) -> Result<String, UrlProblem> {
    let path = text.trim_matches('/');
    if path.is_empty() {
        return Ok(DEFAULT_PATH.to_owned());
    }
    if path.split('/').all(|part| validate::name(part).is_ok()) {
        return Ok(path.to_owned());
    }
    Err(UrlProblem::Path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["tls", "dc"];

    fn parse(url: &str) -> Result<ServiceUrl, DiscoveryError> {
        ServiceUrl::parse("etcd", url, 2379, KNOWN)
    }

    #[test]
    fn a_url_is_taken_apart_and_shown_without_its_secrets() {
        for (given, shown) in [
            ("etcd://h", "etcd://h:2379/rampuddle"),
            ("etcd://h:1/", "etcd://h:1/rampuddle"),
            ("etcd://a:1,b,10.0.0.1:3/x/y/", "etcd://a:1,b:2379,10.0.0.1:3/x/y"),
            ("etcd://[::1],[fe::2]:7/x", "etcd://[::1]:2379,[fe::2]:7/x"),
            ("etcd://sesame@h?tls=on", "etcd://h:2379/rampuddle?tls=on"),
            ("etcd://root:sesame@h/x?dc=a", "etcd://h:2379/x?dc=a"),
            ("etcd://root:se/s@me:@h/x", "etcd://h:2379/x"),
        ] {
            let url = parse(given).unwrap();
            assert_eq!(url.to_string(), shown);
            let debug = format!("{url:?}");
            assert!(!debug.contains("sesame") && !debug.contains("se/s"), "{debug}");
        }
    }

    #[test]
    fn users_passwords_and_tokens_are_decoded() {
        let user = |url: &str| {
            let (user, password) = parse(url).unwrap().user().unwrap().unwrap();
            (user, password.map(|secret| secret.expose().to_owned()))
        };
        assert_eq!(user("etcd://root:a%3Ab%40c@h"), ("root".to_owned(), Some("a:b@c".to_owned())));
        assert_eq!(
            user("etcd://root:se/s@me:@h"),
            ("root".to_owned(), Some("se/s@me:".to_owned()))
        );
        assert_eq!(user("etcd://root@h"), ("root".to_owned(), None));
        let token = parse("etcd://a-b:c@h").unwrap().token().unwrap();
        assert_eq!(token.unwrap().expose(), "a-b:c");
        assert!(parse("etcd://h").unwrap().user().unwrap().is_none());
    }

    #[test]
    fn a_password_without_a_user_is_refused() {
        let known = &["user", "password-file"];
        let login = |url: &str| ServiceUrl::parse("etcd", url, 2379, known).unwrap().login();
        let told = login("etcd://h?password-file=/p").unwrap_err().explained();
        assert!(told.contains("its option password-file: expected a user with it"), "{told}");
        assert!(login("etcd://h?password-file=/p&user=u").unwrap().is_some());
        assert!(login("etcd://u@h?password-file=/p").unwrap().is_some());
        assert!(login("etcd://h").unwrap().is_none());
    }

    #[test]
    fn a_url_that_makes_no_sense_is_told_and_shows_no_secret() {
        for (given, told) in [
            ("etcd:h", "expected etcd://HOST:PORT"),
            ("etcd://", "expected etcd://HOST:PORT"),
            ("etcd://root:sesame@", "expected etcd://HOST:PORT"),
            ("etcd://root:sesame@h:0", "its host number 1 is not HOST:PORT"),
            ("etcd://h,h:x", "its host number 2 is not HOST:PORT"),
            ("etcd://h:+1", "its host number 1"),
            ("etcd://::1", "its host number 1"),
            ("etcd://[h]:1", "its host number 1"),
            ("etcd://[::1:1", "its host number 1"),
            ("etcd://a b", "its host number 1"),
            ("etcd://1.2.3", "its host number 1"),
            ("etcd://h,", "its host number 2"),
            ("etcd://sesame@h/../x", "its path"),
            ("etcd://sesame@h/a//b", "its path"),
            ("etcd://h?colour=blue", "is no option here: expected some of tls, dc"),
            ("etcd://root:sesame?sesame@h", "its host number 1"),
            ("etcd://root?sesame=sesame@h", "is no option here"),
        ] {
            let error = parse(given).unwrap_err();
            let explained = error.explained();
            assert!(explained.contains(told), "{given}: {explained}");
            assert!(!explained.contains("sesame"), "{given}: {explained}");
            assert!(!format!("{error:?}").contains("sesame"), "{given}: {error:?}");
        }
        for given in ["etcd://:sesame@h", "etcd://root:@h", "etcd://%00:sesame@h", "etcd://@h"] {
            let error = parse(given).unwrap().user().unwrap_err().explained();
            assert!(error.contains("expected a token") && !error.contains("sesame"), "{error}");
        }
    }
}

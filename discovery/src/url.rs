//! From a URL to a back end.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use crate::backend::Backend;
use crate::dir::DirBackend;
use crate::error::DiscoveryError;
use crate::file::FileBackend;
use crate::model::UnknownWord;
use crate::static_list::StaticBackend;
use crate::validate;

const KNOWN: &str = "dir, file, static, consul, zk, etcd, srv, dns";
/// The options of all back ends: none of them has a secret, only where one is.
const OPTIONS: [&str; 13] = [
    "dc",
    "tag",
    "token-file",
    "user",
    "password-file",
    "tls",
    "ca",
    "cert",
    "key",
    "server-name",
    "members",
    "server",
    "strategy",
];

/// What is wrong with a discovery URL.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UrlProblem {
    /// There is no colon in it.
    #[error("it has no colon: expected SCHEME:..., for example dir:/run/rampuddle")]
    NoScheme,
    /// There is nothing after the colon.
    #[error("no path follows the colon: expected {scheme}:PATH")]
    NoPath {
        /// The scheme.
        scheme: &'static str,
    },
    /// There is a question mark in it, behind which other back ends have options.
    #[error("it takes no options: expected {scheme}:PATH, and no ? in the path")]
    NoOptions {
        /// The scheme.
        scheme: &'static str,
    },
    /// The current directory, to which the path is relative, is not known.
    #[error("its path is relative, and the current directory is not known")]
    NoCurrentDirectory(#[source] std::io::Error),
    /// There is no host in it.
    #[error("no host follows the scheme: expected {scheme}://HOST:PORT/PATH")]
    NoHost {
        /// The scheme.
        scheme: &'static str,
    },
    /// A host does not have the form of one.
    #[error(
        "its host number {number} is not HOST:PORT: expected a name or an address, IPv6 in brackets, and a port from 1 to 65535 or none; at most 100 of them"
    )]
    Host {
        /// Which one, counted from 1.
        number: usize,
    },
    /// Its service is one process, not a group of them.
    #[error("it has several hosts: expected one, that of the {expected}")]
    SeveralHosts {
        /// Whose host is expected.
        expected: &'static str,
    },
    /// What stands before the `@` makes no sense.
    #[error(
        "what stands before its @ makes no sense: expected a token, or USER:PASSWORD, with special characters as %40"
    )]
    Credentials,
    /// There is a user, and no password.
    #[error(
        "it has a user and no password: expected one in the url, in a password-file, or in PUDDLE_DISCOVERY_PASSWORD"
    )]
    NoPassword,
    /// The path has parts that are no names.
    #[error("its path is not allowed: expected names of A-Z a-z 0-9 . _ - between slashes")]
    Path,
    /// There is no name for a name server in it.
    #[error("no name of DNS follows the colon: expected {scheme}:NAME")]
    NoDnsName {
        /// The scheme.
        scheme: &'static str,
    },
    /// A percent sign stands before something else than two digits.
    #[error("behind a % in it are not two hexadecimal digits of a text in utf-8")]
    Escape,
    /// An option has no meaning for this back end.
    #[error("\"{}\" is no option here: expected some of {known}", crate::text::shown(.option))]
    UnknownOption {
        /// The option.
        option: String,
        /// Those that have a meaning.
        known: String,
    },
    /// The value of an option makes no sense.
    #[error("its option {option}: expected {expected}")]
    Option {
        /// The option.
        option: &'static str,
        /// What was expected.
        expected: &'static str,
    },
    /// It is not UTF-8.
    #[error("it is not utf-8")]
    NotText,
    /// An entry of a list does not have the form of one.
    #[error("\"{}\" is no entry: expected NAME=HOST:PORT or NAME=unix:/PATH, then *WEIGHT or nothing", crate::text::shown(.entry))]
    Entry {
        /// The entry.
        entry: String,
    },
    /// The strategy behind a list is none.
    #[error("its strategy is none")]
    Strategy(#[source] UnknownWord),
    /// An entry of a list says something that is not allowed.
    #[error("{complaint}")]
    Refused {
        /// The same line that a registry's entry would have got.
        complaint: String,
    },
}

/// Opens the back end that `url` names, for one cluster. Fails when the URL
/// or the cluster's name makes no sense; reads and creates nothing yet.
pub fn open(url: &str, cluster: &str) -> Result<Arc<dyn Backend>, DiscoveryError> {
    validate::name(cluster)?;
    let bad = |reason| DiscoveryError::BadUrl { url: masked(url), reason };
    let Some((scheme, rest)) = url.split_once(':') else {
        return Err(bad(UrlProblem::NoScheme));
    };
    Ok(match scheme {
        "static" => Arc::new(StaticBackend::new(rest, cluster)?),
        "file" => Arc::new(FileBackend::new(path("file", rest).map_err(bad)?, cluster)?),
        "dir" => Arc::new(DirBackend::new(path("dir", rest).map_err(bad)?, cluster)?),
        #[cfg(feature = "consul")]
        "consul" => Arc::new(crate::consul::ConsulBackend::new(url, cluster)?),
        #[cfg(feature = "etcd")]
        "etcd" => Arc::new(crate::etcd::EtcdBackend::new(url, cluster)?),
        #[cfg(feature = "zookeeper")]
        "zk" => Arc::new(crate::zookeeper::ZooKeeperBackend::new(url, cluster)?),
        #[cfg(feature = "dns")]
        "srv" => Arc::new(crate::dns::SrvBackend::new(rest, cluster)?),
        #[cfg(feature = "dns")]
        "dns" => Arc::new(crate::dns::DnsBackend::new(rest, cluster)?),
        _ if is_known(scheme) => {
            let (scheme, built_in) = (scheme.to_owned(), built_in());
            return Err(DiscoveryError::NotInThisBuild { scheme, built_in });
        }
        _ => {
            let scheme = masked_scheme(scheme, url);
            return Err(DiscoveryError::UnknownScheme { scheme, known: KNOWN });
        }
    })
}

/// The names of the back ends that this build has.
fn built_in() -> String {
    [
        "dir",
        "file",
        "static",
        #[cfg(feature = "consul")]
        "consul",
        #[cfg(feature = "etcd")]
        "etcd",
        #[cfg(feature = "zookeeper")]
        "zk",
        #[cfg(feature = "dns")]
        "srv",
        #[cfg(feature = "dns")]
        "dns",
    ]
    .join(", ")
}

/// `url` as it may be shown: without what stands before an `@`, which is a token or a
/// user with a password, wherever a URL that makes no sense has it; and without the values
/// of options that no back end has, which may be either. Of what names a file or a folder, or
/// is a list, only the second is taken out.
pub fn masked(url: &str) -> String {
    let (scheme, rest) = match url.split_once(':') {
        Some((scheme, rest)) if rest.starts_with("//") || is_known(scheme) => (Some(scheme), rest),
        // It may as well be a user and a password.
        _ => (None, url),
    };
    if let Some(scheme @ ("dir" | "file" | "static")) = scheme {
        return format!("{scheme}:{}", with_known_options(rest));
    }
    let is_word = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let scheme = scheme.map(|scheme| if is_word(scheme) { scheme } else { "..." });
    let scheme = scheme.map(|scheme| format!("{scheme}:")).unwrap_or_default();
    match rest.rsplit_once('@') {
        None => scheme + &with_known_options(rest),
        Some((secret, after)) => {
            let slashes = if secret.starts_with("//") { "//" } else { "" };
            format!("{scheme}{slashes}...@{}", with_known_options(after))
        }
    }
}

/// The scheme of a URL as it may be shown.
fn masked_scheme(scheme: &str, url: &str) -> String {
    let is_shown = masked(url).strip_prefix(scheme).is_some_and(|rest| rest.starts_with(':'));
    if is_shown { scheme.to_owned() } else { "...".to_owned() }
}

/// `url` with `...` in the place of the values of unknown options.
fn with_known_options(url: &str) -> String {
    let Some((place, query)) = url.split_once('?') else { return url.to_owned() };
    let shown = |part: &str| match part.split_once('=') {
        _ if part.is_empty() => String::new(),
        Some((name, _)) if OPTIONS.contains(&name) => part.to_owned(),
        Some((name, _)) => format!("{name}=..."),
        None if OPTIONS.contains(&part) => part.to_owned(),
        None => "...".to_owned(),
    };
    let parts: Vec<String> = query.split('&').map(shown).collect();
    format!("{place}?{}", parts.join("&"))
}

fn is_known(scheme: &str) -> bool {
    KNOWN.split(", ").any(|known| known == scheme)
}

/// Whether `url` names a service that other machines can reach too: one of its hosts is
/// not this machine itself. Looks no name up.
pub fn is_beyond_this_machine(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let before = rest.split('?').next().unwrap_or_default();
    let place = before.rsplit('@').next().unwrap_or_default();
    let hosts = place.split('/').next().unwrap_or_default();
    matches!(scheme, "consul" | "etcd" | "zk") && !hosts.split(',').all(is_loopback)
}

/// Whether `host`, `host:port` or an IP address leads to this machine alone, wherever it is
/// read. Looks no name up.
pub fn is_loopback(place: &str) -> bool {
    let bare = |text: &str| text.trim_matches(['[', ']']).parse::<IpAddr>().ok();
    let ip = place.parse::<SocketAddr>().ok().map(|socket| socket.ip()).or_else(|| bare(place));
    let host = place.rsplit_once(':').map_or(place, |(host, _port)| host);
    match ip {
        Some(ip) => ip.to_canonical().is_loopback(),
        None => host.trim_end_matches('.').eq_ignore_ascii_case("localhost"),
    }
}

/// The file or the folder of this machine that `url` names, if it names one. It
/// need not be there.
pub fn place_of(url: &str) -> Option<PathBuf> {
    let (scheme, rest) = url.split_once(':')?;
    match scheme {
        "dir" => path("dir", rest).ok(),
        "file" => path("file", rest).ok(),
        _ => None,
    }
}

fn path(scheme: &'static str, text: &str) -> Result<PathBuf, UrlProblem> {
    if text.is_empty() {
        return Err(UrlProblem::NoPath { scheme });
    }
    if text.contains('?') {
        return Err(UrlProblem::NoOptions { scheme });
    }
    std::path::absolute(text).map_err(UrlProblem::NoCurrentDirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_url_is_told_what_was_expected() {
        let told = |url: &str| open(url, "lab").unwrap_err().explained();
        assert!(told("nonsense").contains("expected SCHEME:..."));
        assert!(told("file:").contains("expected file:PATH"));
        assert!(told("http://x").contains("expected one of dir, file, static, consul"));
        #[cfg(not(feature = "zookeeper"))]
        assert!(told("zk://h").contains("use one of dir, file, static"));
        #[cfg(not(feature = "dns"))]
        assert!(told("srv:name").contains("use one of dir, file, static"));
    }

    #[test]
    fn what_stands_before_an_at_sign_is_never_shown() {
        for (url, shown) in [
            ("consul://sesame@h:8500/x", "consul://...@h:8500/x"),
            ("etcd://root:se/s?m@e@h", "etcd://...@h"),
            ("etcd://h/x?ca=/a@b.pem", "etcd://...@b.pem"),
            ("consul:sesame@h:8500/x", "consul:...@h:8500/x"),
            ("etcd:/root:sesame@h", "etcd:...@h"),
            ("srv:root:sesame@name", "srv:...@name"),
            ("sesame@h:8500/x", "...@h:8500/x"),
            ("root:sesame@h:2379", "...@h:2379"),
            ("se@same://h/x", "...://h/x"),
            ("se@same://root:sesame@h", "...://...@h"),
            ("dir:/run/a@b", "dir:/run/a@b"),
            ("file:/etc/a@b?c", "file:/etc/a@b?..."),
            ("static:a=unix:/run/a@b", "static:a=unix:/run/a@b"),
            ("etcd://h", "etcd://h"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(masked(url), shown);
        }
        for url in ["nonsense://root:sesame@h", "root:sesame@h", "sesame@h:1", "se@same://h"] {
            let told = open(url, "lab").unwrap_err().explained();
            assert!(!told.contains("same") && !told.contains("root"), "{told}");
        }
    }

    #[test]
    fn the_values_of_options_that_nobody_has_are_never_shown() {
        for (url, shown) in [
            ("consul://h/x?token=sesame", "consul://h/x?token=..."),
            ("consul://h?dc=a&password=sesame&tag=b", "consul://h?dc=a&password=...&tag=b"),
            ("consul://h?sesame", "consul://h?..."),
            ("etcd://root:x@h?secret=sesame", "etcd://...@h?secret=..."),
            ("etcd://h?tls&ca=/a", "etcd://h?tls&ca=/a"),
            ("dns:name?members=/a&key=/b", "dns:name?members=/a&key=/b"),
            ("dir:/run/x?token=sesame", "dir:/run/x?token=..."),
            ("static:a=h:1?strategy=ring", "static:a=h:1?strategy=ring"),
        ] {
            assert_eq!(masked(url), shown);
        }
    }

    #[cfg(all(feature = "consul", feature = "etcd", feature = "zookeeper", feature = "dns"))]
    #[test]
    fn an_option_that_a_back_end_has_is_shown_and_one_that_it_refuses_is_not() {
        for scheme in ["consul://h", "etcd://h", "zk://h", "srv:name", "dns:name"] {
            let told = open(&format!("{scheme}?colour=sesame"), "lab").unwrap_err().explained();
            assert!(told.contains("\"colour\" is no option here"), "{told}");
            assert!(!told.contains("sesame"), "{told}");
            let known = told.split_once("expected some of ").unwrap().1;
            for option in known.split([',', ' ']).filter(|option| !option.is_empty()) {
                assert!(OPTIONS.contains(&option), "{option}");
            }
            let told = open(&format!("{scheme}?sesame"), "lab").unwrap_err().explained();
            assert!(!told.contains("sesame"), "{told}");
        }
    }

    #[test]
    fn a_service_of_this_machine_alone_is_told_from_one_that_others_reach() {
        for url in [
            "consul://10.0.0.1:8500/x",
            "consul://token@consul",
            "etcd://127.0.0.1:2379,10.0.0.2:2379/x?user=a@localhost",
            "zk://root:p/w@[fd00::1]:2181",
        ] {
            assert!(is_beyond_this_machine(url), "{url}");
        }
        for url in [
            "consul://127.0.0.1:8500/x",
            "consul://10.0.0.1@localhost",
            "etcd://127.0.0.1:2379,[::1]:2379,localhost.:1/x?ca=/a@b",
            "zk://[::ffff:127.0.0.2]/x",
            "zk://[::1]",
            "dir:/run/x",
            "static:a=10.0.0.1:1",
            "srv:name",
        ] {
            assert!(!is_beyond_this_machine(url), "{url}");
        }
    }

    // A folder of the name `x?strategy=ring` was made.
    #[test]
    fn options_that_a_url_of_this_machine_does_not_take_are_refused() {
        let told = |url: &str| open(url, "lab").unwrap_err().explained();
        for (url, expected) in [
            ("dir:/run/x?strategy=ring", "it takes no options: expected dir:PATH"),
            ("dir:/run/what?", "no ? in the path"),
            ("file:/etc/x.toml?strategy=ring", "it takes no options: expected file:PATH"),
            (
                "static:a=h:1?colour=sesame",
                "\"colour\" is no option here: expected some of strategy",
            ),
            ("static:a=unix:/run/x?strateg=ring", "\"strateg\" is no option here"),
            ("static:a=h:1?strategy=ring&colour=sesame", "\"colour\" is no option here"),
        ] {
            let told = told(url);
            assert!(told.contains(expected) && !told.contains("sesame"), "{url}: {told}");
        }
    }

    #[test]
    fn only_files_and_folders_have_a_place() {
        assert_eq!(place_of("dir:/run/x"), Some("/run/x".into()));
        assert_eq!(place_of("file:/etc/x:y"), Some("/etc/x:y".into()));
        assert!(place_of("dir:x").unwrap().is_absolute());
        for url in ["static:a=h:1", "consul://h", "dir:", "dir:/run/x?y", "nonsense"] {
            assert_eq!(place_of(url), None, "{url}");
        }
    }

    #[test]
    fn a_cluster_name_that_climbs_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("dir:{}", folder.path().display());
        let refused = open(&url, "../other").unwrap_err();
        assert!(matches!(refused, DiscoveryError::Invalid(_)), "{refused:?}");
    }
}

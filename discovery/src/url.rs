//! From a URL to a back end.

use std::path::PathBuf;
use std::sync::Arc;

use crate::backend::Backend;
use crate::dir::DirBackend;
use crate::error::DiscoveryError;
use crate::file::FileBackend;
use crate::model::UnknownWord;
use crate::static_list::StaticBackend;
use crate::validate;

const BUILT_IN: &str = "dir, file, static";
const KNOWN: &str = "dir, file, static, consul, zk, etcd, srv, dns";

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
    /// The current directory, to which the path is relative, is not known.
    #[error("its path is relative, and the current directory is not known")]
    NoCurrentDirectory(#[source] std::io::Error),
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
    let bad = |reason| DiscoveryError::BadUrl { url: url.to_owned(), reason };
    let Some((scheme, rest)) = url.split_once(':') else {
        return Err(bad(UrlProblem::NoScheme));
    };
    Ok(match scheme {
        "static" => Arc::new(StaticBackend::new(rest, cluster)?),
        "file" => Arc::new(FileBackend::new(path("file", rest).map_err(bad)?, cluster)?),
        "dir" => Arc::new(DirBackend::new(path("dir", rest).map_err(bad)?, cluster)?),
        "consul" | "zk" | "etcd" | "srv" | "dns" => {
            return Err(DiscoveryError::NotInThisBuild {
                scheme: scheme.to_owned(),
                built_in: BUILT_IN,
            });
        }
        _ => {
            return Err(DiscoveryError::UnknownScheme { scheme: scheme.to_owned(), known: KNOWN });
        }
    })
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
        for later in ["consul://h:8500", "zk://h", "etcd://h", "srv:name", "dns:name"] {
            assert!(told(later).contains("use one of dir, file, static"), "{later}");
        }
    }

    #[test]
    fn only_files_and_folders_have_a_place() {
        assert_eq!(place_of("dir:/run/x"), Some("/run/x".into()));
        assert_eq!(place_of("file:/etc/x:y"), Some("/etc/x:y".into()));
        assert!(place_of("dir:x").unwrap().is_absolute());
        for url in ["static:a=h:1", "consul://h", "dir:", "nonsense"] {
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

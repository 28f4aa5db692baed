//! TLS to a service: whom to trust, and who we are.
//!
//! | option | meaning |
//! |---|---|
//! | `tls=on` | TLS, trusting whom the system trusts |
//! | `ca=FILE` | TLS, trusting the authorities in that file only |
//! | `cert=FILE`, `key=FILE` | TLS with a certificate of our own |
//! | `server-name=NAME` | the name in the service's certificate, where it is not the host |

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tracing::debug;

use super::options::Options;
use super::secret::Secret;
use crate::document;
use crate::error::DiscoveryError;
use crate::url::UrlProblem;

/// The largest file with certificates; the bundles of systems have some 300 KB.
const PEM_BYTES_MAX: u64 = 4 << 20;

/// Where distributions keep the authorities that they trust.
const SYSTEM_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What a connection is secured with.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    /// For the TLS library.
    pub(crate) config: Arc<ClientConfig>,
    /// The name that the service's certificate must have, unless it is the host.
    pub(crate) server_name: Option<ServerName<'static>>,
}

/// What the options say, read from the files.
#[derive(Clone, Debug)]
pub(crate) struct TlsFiles {
    /// Certificates of the trusted authorities, as PEM.
    pub(crate) authorities: Vec<u8>,
    /// The file that they are from.
    authorities_path: PathBuf,
    /// Whether somebody named that file: then each certificate in it must be good.
    is_named: bool,
    /// Our own certificate and its key, as PEM.
    pub(crate) identity: Option<Identity>,
    /// See [`Tls::server_name`].
    pub(crate) server_name: Option<ServerName<'static>>,
}

/// A certificate of our own.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The chain, as PEM.
    pub(crate) certificates: Vec<u8>,
    certificates_path: PathBuf,
    /// The key, as PEM.
    pub(crate) key: Secret,
    key_path: PathBuf,
}

impl Tls {
    /// The options that have to do with TLS.
    pub(crate) const OPTIONS: [&str; 5] = ["tls", "ca", "cert", "key", "server-name"];

    /// What the options ask for; nothing when they do not ask for TLS. Reads the files.
    /// `bad` tells which URL has the problem.
    pub(crate) fn from_options(
        options: &Options,
        bad: impl Fn(UrlProblem) -> DiscoveryError,
    ) -> Result<Option<Self>, DiscoveryError> {
        TlsFiles::read(options, bad)?.map(TlsFiles::into_tls).transpose()
    }
}

impl TlsFiles {
    /// Reads the files that the options name; nothing when they do not ask for TLS.
    pub(crate) fn read(
        options: &Options,
        bad: impl Fn(UrlProblem) -> DiscoveryError,
    ) -> Result<Option<Self>, DiscoveryError> {
        let is_asked_for = is_asked_for(options).map_err(&bad)?;
        if !is_asked_for {
            return Ok(None);
        }
        let named = options.file("ca").map_err(&bad)?;
        let is_named = named.is_some();
        let authorities_path = named.map_or_else(system_bundle, Ok)?;
        let pair = (options.file("cert").map_err(&bad)?, options.file("key").map_err(&bad)?);
        let identity = match pair {
            (Some(certificates), Some(key)) => Some(Identity::read(certificates, key)?),
            (None, None) => None,
            _ => return Err(bad(expected("cert", "cert and key, both or neither"))),
        };
        let server_name = options.get("server-name").map(|name| {
            let name = ServerName::try_from(name.to_owned());
            name.map_err(|_| bad(expected("server-name", "the name of a host, or an address")))
        });
        Ok(Some(Self {
            authorities: read_pem(&authorities_path)?,
            authorities_path,
            is_named,
            identity,
            server_name: server_name.transpose()?,
        }))
    }

    fn into_tls(self) -> Result<Tls, DiscoveryError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let unusable = |error| DiscoveryError::malformed("the settings of TLS", error);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_root_certificates(self.roots()?);
        let config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (certificates, key) = identity.parse()?;
                let path = identity.certificates_path.to_string_lossy();
                builder
                    .with_client_auth_cert(certificates, key)
                    .map_err(|error| DiscoveryError::malformed(path, error))?
            }
        };
        Ok(Tls { config: Arc::new(config), server_name: self.server_name })
    }

    /// A bundle of a system may have one among hundreds that the library does not take; of
    /// a file that somebody named each must be good.
    fn roots(&self) -> Result<RootCertStore, DiscoveryError> {
        let mut roots = RootCertStore::empty();
        let path = &self.authorities_path;
        for (at, certificate) in certificates(&self.authorities, path)?.into_iter().enumerate() {
            match roots.add(certificate) {
                Ok(()) => {}
                Err(error) if self.is_named => return Err(bad_certificate(path, at + 1, error)),
                Err(error) => {
                    let error = bad_certificate(path, at + 1, error).explained();
                    debug!("an authority is not trusted: {error}");
                }
            }
        }
        if roots.is_empty() { Err(no_certificate(path)) } else { Ok(roots) }
    }
}

impl Identity {
    fn read(certificates_path: PathBuf, key_path: PathBuf) -> Result<Self, DiscoveryError> {
        let key = String::from_utf8(read_pem(&key_path)?);
        let key = key.map_err(|_| no_key(&key_path))?;
        let certificates = read_pem(&certificates_path)?;
        Ok(Self { certificates, certificates_path, key: Secret::new(key), key_path })
    }

    fn parse(
        &self,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), DiscoveryError> {
        let key = PrivateKeyDer::from_pem_slice(self.key.expose().as_bytes());
        let key = key.map_err(|_| no_key(&self.key_path))?;
        Ok((certificates(&self.certificates, &self.certificates_path)?, key))
    }
}

fn is_asked_for(options: &Options) -> Result<bool, UrlProblem> {
    match options.get("tls") {
        Some("on") => Ok(true),
        Some("off") | None => {
            let other =
                Tls::OPTIONS.iter().find(|name| **name != "tls" && options.get(name).is_some());
            match (options.get("tls"), other) {
                (Some(_), Some(_)) => Err(expected("tls", "on, because others ask for it")),
                (_, other) => Ok(other.is_some()),
            }
        }
        Some(_) => Err(expected("tls", "on or off")),
    }
}

fn expected(option: &'static str, expected: &'static str) -> UrlProblem {
    UrlProblem::Option { option, expected }
}

/// The file of the authorities that this system trusts.
fn system_bundle() -> Result<PathBuf, DiscoveryError> {
    let named = std::env::var_os("SSL_CERT_FILE").filter(|name| !name.is_empty());
    let found = named.map(PathBuf::from);
    let usual = || SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file());
    found.or_else(usual).ok_or_else(|| {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        let first = SYSTEM_BUNDLES[0];
        DiscoveryError::io("find the system's certificates (give ca=FILE), as in", first, missing)
    })
}

fn read_pem(path: &Path) -> Result<Vec<u8>, DiscoveryError> {
    document::read(&document::open(path)?, path, PEM_BYTES_MAX)
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, DiscoveryError> {
    let numbered = CertificateDer::pem_slice_iter(pem).enumerate();
    let found = numbered
        .map(|(at, found)| found.map_err(|error| bad_certificate(path, at + 1, error)))
        .collect::<Result<Vec<_>, _>>()?;
    if found.is_empty() { Err(no_certificate(path)) } else { Ok(found) }
}

/// The `number`th certificate of a file, counted from 1, is none.
fn bad_certificate(
    path: &Path,
    number: usize,
    source: impl std::error::Error + Send + Sync + 'static,
) -> DiscoveryError {
    let what = format!("certificate number {number} in {}", path.display());
    DiscoveryError::malformed(what, source)
}

fn no_certificate(path: &Path) -> DiscoveryError {
    DiscoveryError::malformed(path.to_string_lossy(), "expected certificates in PEM")
}

fn no_key(path: &Path) -> DiscoveryError {
    DiscoveryError::malformed(path.to_string_lossy(), "expected a private key in PEM")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Option<TlsFiles>, String> {
        let url = format!("etcd://h?{query}");
        let options = Options::parse(&url, query, &Tls::OPTIONS).unwrap();
        let bad = |reason| DiscoveryError::BadUrl { url: url.clone(), reason };
        TlsFiles::read(&options, bad).map_err(|error| error.explained())
    }

    #[test]
    fn there_is_no_tls_unless_it_is_asked_for() {
        assert!(read("").unwrap().is_none());
        assert!(read("tls=off").unwrap().is_none());
    }

    #[test]
    fn options_that_do_not_fit_are_refused() {
        for (query, told) in [
            ("tls=yes", "its option tls: expected on or off"),
            ("tls=off&ca=/x", "its option tls: expected on"),
            ("ca=/nowhere/ca.pem", "cannot open /nowhere/ca.pem"),
            ("ca=/dev/null", "/dev/null is not a regular file"),
        ] {
            let error = read(query).unwrap_err();
            assert!(error.contains(told), "{query}: {error}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display();
        let error = read(&format!("ca={path}&cert={path}")).unwrap_err();
        assert!(error.contains("expected cert and key, both or neither"), "{error}");
        let error = read(&format!("ca={path}&server-name=a%20b")).unwrap_err();
        assert!(error.contains("its option server-name: expected the name"), "{error}");
    }

    /// An authority, as openssl makes one.
    const GOOD: &str = "-----BEGIN CERTIFICATE-----
MIIBijCCAS+gAwIBAgIUcp81Ejfm+LmiwzY8cuZbjAKJ3vkwCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOdGVzdC1hdXRob3JpdHkwIBcNMjYxMTIyMDU1NTQxWhgPMjEy
NjEwMjkwNTU1NDFaMBkxFzAVBgNVBAMMDnRlc3QtYXV0aG9yaXR5MFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAEcbWriLH/SLvuwHtHnVT3TW0Si5d5gV/sci2ORLpk
fUeCiOilFwL51KhMqVDcBOK1xL37EX58nN7pLMsezFLcxqNTMFEwHQYDVR0OBBYE
FKf6AHPFvFdcvfjcKm08t4rGQpmbMB8GA1UdIwQYMBaAFKf6AHPFvFdcvfjcKm08
t4rGQpmbMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSQAwRgIhAJBp5hjM
u8b2rXdSnkL7XPeKKjK+Ym260GVcdpJllmLYAiEAyrUCyny33CfvpcUhGHDc/Ix6
nH+f1ckKUD8QTEiQWbk=
-----END CERTIFICATE-----
";
    /// PEM of something that is no certificate.
    const BAD: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    /// Not even base64.
    const WORSE: &str = "-----BEGIN CERTIFICATE-----\n%%%%\n-----END CERTIFICATE-----\n";

    fn files(text: &str, is_named: bool) -> (String, Result<Tls, String>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, text).unwrap();
        let path = file.path().display().to_string();
        let read = read(&format!("ca={path}")).unwrap().unwrap();
        let made = TlsFiles { is_named, ..read }.into_tls();
        (path, made.map_err(|error| error.explained()))
    }

    // Of a file with one good certificate the others were left out without a word: whoever
    // they were for was refused, and nothing said why.
    #[test]
    fn one_bad_certificate_among_good_ones_is_told_by_its_number() {
        assert!(files(&GOOD.repeat(2), true).1.is_ok());
        for bad in [BAD, WORSE] {
            let (path, refused) = files(&format!("{GOOD}{GOOD}{bad}{GOOD}"), true);
            let error = refused.unwrap_err();
            assert!(error.contains(&format!("certificate number 3 in {path}")), "{error}");
        }
        // Nobody here chose what is in the bundle of the system.
        assert!(files(&format!("{GOOD}{BAD}{GOOD}"), false).1.is_ok());
        assert!(files(BAD, false).1.unwrap_err().contains("expected certificates in PEM"));
    }

    #[test]
    fn a_file_without_certificates_is_told_by_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "no certificate").unwrap();
        let path = file.path().display().to_string();
        let files = read(&format!("ca={path}")).unwrap().unwrap();
        let error = files.into_tls().unwrap_err().explained();
        assert!(error.contains(&path) && error.contains("certificates in PEM"), "{error}");
    }
}

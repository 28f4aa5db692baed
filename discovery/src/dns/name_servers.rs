//! Who is asked: a name server that was named, or those of the system. The system's change
//! while a program runs: a machine comes into another network, a container gets its file
//! after its start.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::parse_resolv_conf;
use tokio::task::spawn_blocking;
use tracing::info;

/// Where the system says whom to ask.
const SETTINGS: &str = "/etc/resolv.conf";
/// Where it knows names by itself.
const HOSTS: &str = "/etc/hosts";
/// How long one name server may take, before it or another is asked again.
const ASK_PATIENCE: Duration = Duration::from_millis(1_500);

/// The name servers, and a resolver that asks them.
pub(super) struct NameServers {
    source: Source,
    made: Arc<Mutex<Option<Made>>>,
}

#[derive(Clone)]
enum Source {
    Named(SocketAddr),
    /// Those in a file of the system.
    System(PathBuf),
}

struct Made {
    resolver: TokioResolver,
    servers: Vec<IpAddr>,
    /// The files that it was made of; none when it is to be made anew anyway.
    files: Option<Files>,
}

/// What tells that files were changed or replaced.
type Files = [Option<(u64, u64, i64, i64)>; 2];

impl NameServers {
    /// The one that is named, else those of the system. Reads nothing yet.
    pub(super) fn new(named: Option<SocketAddr>) -> Self {
        let source = named.map_or_else(|| Source::System(SETTINGS.into()), Source::Named);
        Self { source, made: Arc::default() }
    }

    /// Makes the resolver, and makes it anew when the files of the system were changed or
    /// it was doubted. Where that fails, the one that was made before stays.
    pub(super) async fn refresh(&self) -> Result<(), NetError> {
        let (source, made) = (self.source.clone(), Arc::clone(&self.made));
        let refreshed = spawn_blocking(move || refresh(&source, &made)).await;
        refreshed.unwrap_or_else(|_| Err(NetError::from("the runtime stops")))
    }

    /// The resolver, of a [`refresh`](Self::refresh) before.
    pub(super) fn resolver(&self) -> Result<TokioResolver, NetError> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let made = made.as_ref().map(|made| made.resolver.clone());
        made.ok_or_else(|| NetError::from("no name server is known"))
    }

    /// A name server failed: the next refresh looks whom to ask anew.
    pub(super) fn doubt(&self) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = made.as_mut() {
            made.files = None;
        }
    }
}

fn refresh(source: &Source, made: &Mutex<Option<Made>>) -> Result<(), NetError> {
    // Before anything is read: what is changed meanwhile is seen the next time.
    let files = files(source);
    let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
    if made.as_ref().is_some_and(|made| made.files == Some(files)) {
        return Ok(());
    }
    let next = match (make(source), made.is_some()) {
        (Ok((resolver, servers)), _) => Made { resolver, servers, files: Some(files) },
        (Err(error), false) => return Err(error),
        // Somebody may be writing the file just now.
        (Err(_), true) => return Ok(()),
    };
    if made.as_ref().is_some_and(|made| made.servers != next.servers) {
        info!("the system's name servers are {:?} now", next.servers);
    }
    *made = Some(next);
    Ok(())
}

fn make(source: &Source) -> Result<(TokioResolver, Vec<IpAddr>), NetError> {
    let (config, options) = match source {
        Source::Named(server) => {
            let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            connections.iter_mut().for_each(|connection| connection.port = server.port());
            let server = NameServerConfig::new(server.ip(), true, connections);
            (ResolverConfig::from_parts(None, Vec::new(), vec![server]), None)
        }
        Source::System(path) => {
            let (config, options) = parse_resolv_conf(fs::read(path)?)?;
            (config, Some(options))
        }
    };
    let servers = config.name_servers().iter().map(|server| server.ip).collect();
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    match options {
        Some(options) => *builder.options_mut() = options,
        None => builder.options_mut().use_hosts_file = ResolveHosts::Never,
    }
    let options = builder.options_mut();
    options.timeout = ASK_PATIENCE;
    options.attempts = 1;
    // Whoever asks here wants to know what is true now; name servers have caches.
    options.cache_size = 0;
    Ok((builder.build()?, servers))
}

fn files(source: &Source) -> Files {
    let mark = |path: &Path| {
        let found = fs::metadata(path).ok()?;
        Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
    };
    match source {
        Source::Named(_) => Files::default(),
        Source::System(path) => [mark(path), mark(Path::new(HOSTS))],
    }
}

#[cfg(test)]
impl NameServers {
    /// The one that was named.
    pub(super) fn named(&self) -> Option<SocketAddr> {
        match self.source {
            Source::Named(server) => Some(server),
            Source::System(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(asked: &NameServers) -> Vec<String> {
        let made = asked.made.lock().unwrap();
        made.as_ref().unwrap().servers.iter().map(IpAddr::to_string).collect()
    }

    fn replace(path: &Path, text: &str) {
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, path).unwrap();
    }

    // A resolver that was made once asked the servers of the network before for ever.
    #[tokio::test]
    async fn whoever_the_system_names_by_now_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let asked = NameServers { source: Source::System(path.clone()), made: Arc::default() };
        assert!(asked.refresh().await.is_err() && asked.resolver().is_err());
        for (text, wanted) in [
            ("nameserver 10.0.0.1\n", &["10.0.0.1"][..]),
            ("nameserver 10.0.0.1\n", &["10.0.0.1"]),
            ("nameserver 10.0.0.2\n", &["10.0.0.2"]),
            // Half written.
            ("", &["10.0.0.2"]),
            ("nameserver 10.0.0.3\nnameserver 10.0.0.4\n", &["10.0.0.3", "10.0.0.4"]),
        ] {
            replace(&path, text);
            asked.refresh().await.unwrap();
            assert_eq!(servers(&asked), wanted);
            assert!(asked.resolver().is_ok());
        }
    }

    #[tokio::test]
    async fn a_resolver_is_made_anew_after_a_failure_only() {
        let asked = NameServers::new(Some("10.0.0.1:53".parse().unwrap()));
        let mark = || asked.made.lock().unwrap().as_ref().unwrap().files;
        asked.refresh().await.unwrap();
        assert_eq!(
            (servers(&asked), mark()),
            (vec!["10.0.0.1".to_owned()], Some(Files::default()))
        );
        asked.doubt();
        assert_eq!(mark(), None);
        asked.refresh().await.unwrap();
        assert_eq!(mark(), Some(Files::default()));
    }
}

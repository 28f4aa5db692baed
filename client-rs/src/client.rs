//! The handle of a cluster.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rampuddle_discovery::{Living, MemberState, Snapshot, Watch, WatchStart, host_id, open};
use rampuddle_protocol::{Incarnation, SessionId};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::buffers::Buffers;
use crate::clocks::Clocks;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::membership::Membership;
use crate::metrics::Counters;
use crate::object::{Cleanups, Holds, Untold};
use crate::options::{DiscoverySource, Options, WritePolicy};
use crate::raw::{Info, RawClient};
use crate::retry::RetryBudget;
use crate::server::Access;
use crate::servers::Servers;
use crate::view::{View, Views};
use crate::work::Work;
use crate::workers::Workers;

/// Copies of each object unless somebody wants another number.
const REPLICAS: u8 = 2;
/// How long [`Client::nodes`] waits for each server.
const NODES_PATIENCE: Duration = Duration::from_secs(2);

/// A client of one cluster. Cheap to clone; clones share connections, and what
/// runs in the background ends with the last of them.
#[derive(Debug, Clone)]
pub struct Client {
    core: Arc<Core>,
}

/// What all clones share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) views: Arc<Views>,
    pub(crate) servers: Arc<Servers>,
    pub(crate) retries: RetryBudget,
    pub(crate) deadline: Option<Duration>,
    replicas: Option<u8>,
    pub(crate) write: WritePolicy,
    pub(crate) upload_lease: Duration,
    pub(crate) holds: Holds,
    pub(crate) workers: Workers,
    pub(crate) cleanups: Cleanups,
    pub(crate) untold: Arc<Untold>,
    follower: AbortHandle,
}

/// A server as its operators see it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// Its written state; `None` when it lives but is no member.
    pub state: Option<MemberState>,
    /// Whether the server itself answers, if only to refuse this client.
    pub is_alive: bool,
    /// Why it does not, or why it refuses.
    pub error: Option<Error>,
    /// Its weight among the members.
    pub weight: Option<f64>,
    /// What discovery says of it now; `None` when it does not see it alive, and when
    /// that is not known: the view [was kept](View::is_kept).
    pub seen: Option<Living>,
    /// Where it was asked: as discovery has it, or had it last.
    pub address: Option<String>,
    /// How long it took to answer a question on a connection that was there.
    pub latency: Option<Duration>,
    /// Its incarnation, when it does not refuse.
    pub incarnation: Option<Incarnation>,
    /// What it says of itself, when it does not refuse: `pool_bytes`, `used_bytes`,
    /// `values` and more.
    pub info: Option<Info>,
}

impl Client {
    /// Connects to discovery, and follows it from then on. Servers are connected
    /// to when they are needed.
    ///
    /// # Errors
    /// When options make no sense, discovery gives no answer in time, or the
    /// cluster places keys in a way that this client lacks.
    ///
    /// # Panics
    /// Outside of a tokio runtime with time and I/O enabled.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        Self::follow(options).await
    }

    fn follow(options: Options) -> Work<'static, Result<Self, Error>> {
        Box::pin(async move {
            options.check()?;
            let backend = match &options.discovery {
                DiscoverySource::Url(url) => open(url, &options.cluster)?,
                DiscoverySource::Backend(backend) => Arc::clone(backend),
            };
            let file = options.view_file.of(backend.url(), &options.cluster);
            let (patience, answer) = (options.discovery_patience, options.discovery_answer.clone());
            let start = WatchStart { patience, file, answer };
            let discovery = Watch::start_with(backend, start).await?;
            let first = Snapshot::clone(&discovery.current());
            let membership = Membership::new(first, discovery.seen_before().cloned());
            let view = Arc::new(View::new(&membership.believed(), &options.cluster, None)?);
            let servers = Arc::new(Servers::new(Arc::new(access(&options))));
            servers.update(&view);
            let views = Arc::new(Views::new(view));
            let follower = tokio::spawn({
                let (views, servers) = (Arc::clone(&views), Arc::clone(&servers));
                async move {
                    let answers = |name: &str| {
                        let server = servers.server(name);
                        async move { matches!(server, Ok(server) if server.answers().await) }
                    };
                    views.follow(discovery, membership, |view| servers.update(view), answers).await;
                }
            });
            let cleanups = servers.access().cleanups.clone();
            let core = Core {
                views,
                servers,
                retries: RetryBudget::default(),
                deadline: options.deadline,
                replicas: options.replicas,
                write: options.write,
                upload_lease: options.upload_lease,
                holds: Holds::default(),
                workers: Workers::default(),
                cleanups,
                untold: Arc::default(),
                follower: follower.abort_handle(),
            };
            Ok(Self { core: Arc::new(core) })
        })
    }

    /// What the client knows of the cluster now.
    pub fn view(&self) -> Arc<View> {
        self.core.views.current()
    }

    /// Waits for another view than the one that is known already: members came or
    /// went, or some are seen alive that were not. Several changes may come as one.
    pub async fn next_view(&self, known: &Arc<View>) -> Arc<View> {
        self.core.views.other_than(known).await
    }

    /// The raw operations on values.
    pub fn raw(&self) -> RawClient {
        RawClient::new(Arc::clone(&self.core))
    }

    /// What the object layer builds on.
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// All members and whoever else lives, by name, each with its own word on
    /// itself. Takes at most two seconds: a server that does not answer until
    /// then is not alive.
    pub async fn nodes(&self) -> Vec<Node> {
        let view = self.view();
        let mut names: Vec<&Arc<str>> = view.members().iter().map(|member| &member.name).collect();
        names.extend(view.all_living().map(|(name, _)| name));
        names.sort_unstable();
        names.dedup();
        join_all(names.into_iter().map(|name| self.node(&view, name))).await
    }

    fn node<'a>(&'a self, view: &'a View, name: &'a Arc<str>) -> Work<'a, Node> {
        Box::pin(async move {
            let deadline = Instant::now() + NODES_PATIENCE;
            let raw = self.raw().until(Some(deadline));
            // The first one connects.
            let (mut info, mut latency) = (raw.info(name).await, None);
            if info.is_ok() {
                let asked = Instant::now();
                info = raw.info(name).await;
                latency = info.as_ref().ok().map(|_| asked.elapsed());
            }
            let member = view.member(name);
            let seen = view.living(name).filter(|_| !view.is_kept()).cloned();
            let server = self.core.servers.server(name).ok();
            let (info, error) = match info {
                Ok(info) => (Some(info), None),
                Err(error) => (None, Some(error)),
            };
            Node {
                name: Arc::clone(name),
                state: member.map(|member| member.state),
                is_alive: error.as_ref().is_none_or(Error::is_from_server),
                error,
                weight: member.map(|member| member.weight),
                address: server.and_then(|server| server.address()),
                seen,
                latency,
                incarnation: info.as_ref().map(|info| info.row.incarnation),
                info,
            }
        })
    }
}

impl Core {
    /// When an operation that begins now must be done. Called once, where an
    /// operation begins.
    pub(crate) fn deadline_from_now(&self) -> Deadline {
        self.deadline.map(|deadline| Instant::now() + deadline)
    }

    /// Copies of an object of which nobody says otherwise.
    pub(crate) fn replicas_in(&self, view: &View) -> u8 {
        self.replicas.unwrap_or(if view.is_cloned() { u8::MAX } else { REPLICAS })
    }

    /// Where versions come from.
    pub(crate) fn clocks(&self) -> &Clocks {
        &self.servers.access().clocks
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

fn access(options: &Options) -> Access {
    let environment = options.environment.clone();
    Access {
        cluster: options.cluster.as_str().into(),
        session: SessionId(environment.unguessable()),
        token: options.token.clone(),
        patience: options.patience,
        connections_per_server: options.connections_per_server,
        host: host_id(),
        maps: options.map,
        cleanups: Cleanups::default(),
        clocks: Clocks::new(&environment),
        counters: Counters::default(),
        in_use: Arc::default(),
        buffers: Arc::new(Buffers::new(options.buffer_bytes)),
        placing: Default::default(),
        environment,
        runtime: tokio::runtime::Handle::current(),
    }
}

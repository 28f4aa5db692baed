//! `puddle up`: a cluster on this machine, in the foreground.

use rampuddle_discovery::{Strategy, masked, open};
use rampuddle_protocol::limits::PAGE_BYTES;
use serde::Serialize;

use crate::arguments::UpArguments;
use crate::cluster::{Cluster, Plan, ReadyLine};
use crate::exit::{Exit, refusal};
use crate::output::{complain, counted, escape_text};
use crate::runtime::block_on;
use crate::settings::Settings;
use crate::signals::EndSignals;

/// Runs servers until a signal comes. Their memory, and all objects, go with
/// them.
pub(crate) fn run(settings: &Settings, given: &UpArguments) -> anyhow::Result<Exit> {
    let discovery = settings.chosen_discovery().map(str::to_owned);
    let strategy = given.strategy.or(settings.serve.strategy);
    let plan = Plan { servers: given.servers.get(), pool: given.pool, discovery, strategy };
    if !given.pool.0.is_multiple_of(PAGE_BYTES) || given.pool.0 == 0 {
        let pool = given.pool;
        return Err(refusal(format!("--pool {pool}: expected a multiple of 64KiB, such as 1GiB")));
    }
    plan.check_memory("make the pool smaller (--pool), or start fewer (-n)")?;
    block_on(async {
        let mut signals = EndSignals::new()?;
        let mut cluster = tokio::select! {
            cluster = Cluster::start(settings, &plan) => cluster?,
            () = signals.next() => return Ok(Exit::Done),
        };
        note_other_strategy(settings, &cluster, strategy).await;
        tell_ready(settings, &cluster);
        let exit = watch(settings, &mut cluster, &mut signals).await?;
        tokio::select! {
            stopped = cluster.stop() => stopped?,
            // Dropping the cluster kills its servers and removes the folder.
            () = signals.next() => return Ok(Exit::Failed),
        }
        settings.output.remark("all servers have stopped");
        Ok(exit)
    })
}

/// Says so when the cluster existed, and its strategy is not the one asked for:
/// the servers themselves are told to be quiet.
async fn note_other_strategy(settings: &Settings, cluster: &Cluster, wanted: Option<Strategy>) {
    let Ok(backend) = open(&cluster.discovery, &settings.cluster) else { return };
    let found = backend.snapshot().await.ok().and_then(|snapshot| snapshot.settings);
    if let (Some(wanted), Some(found)) = (wanted, found)
        && wanted != found.strategy
    {
        let found = found.strategy;
        settings
            .output
            .remark(&format!("note: the cluster exists with strategy {found}: it stays"));
    }
}

/// Reports servers that die; returns when a signal comes or none is left.
async fn watch(
    settings: &Settings,
    cluster: &mut Cluster,
    signals: &mut EndSignals,
) -> anyhow::Result<Exit> {
    while cluster.servers.iter().any(|server| !server.has_ended) {
        tokio::select! {
            () = signals.next() => return Ok(Exit::Done),
            (name, status) = cluster.next_death() => {
                complain(&format!("server \"{name}\" has died ({status})"));
                if settings.output.json {
                    let status = status.to_string();
                    let _ = settings.output.json_line(&Died { event: "died", name, status });
                }
            }
        }
    }
    anyhow::bail!("no server is left")
}

#[derive(Debug, Serialize)]
struct Up<'a> {
    event: &'static str,
    /// Without a secret that it may have.
    discovery: String,
    cluster: &'a str,
    servers: Vec<&'a ReadyLine>,
}

#[derive(Debug, Serialize)]
struct Died {
    event: &'static str,
    name: String,
    status: String,
}

/// Nobody may be reading; the servers are up all the same.
fn tell_ready(settings: &Settings, cluster: &Cluster) {
    let servers = cluster.servers.iter().map(|server| &server.ready).collect();
    let discovery = masked(&cluster.discovery);
    let has_secret = discovery != cluster.discovery;
    let up = Up { event: "ready", discovery, cluster: &settings.cluster, servers };
    let _ = settings.output.result(&up, || text(settings, &up, has_secret));
}

fn text(settings: &Settings, up: &Up<'_>, has_secret: bool) -> String {
    let count = counted(up.servers.len() as u64, "server");
    let verb = if up.servers.len() == 1 { "is" } else { "are" };
    let mut lines = vec![format!("{count} {verb} up:")];
    for server in &up.servers {
        let pool = crate::size::rounded(server.pool_bytes);
        lines.push(format!("  {}  {}  {pool}", server.name, server.address));
    }
    let secret = if has_secret { ", with your secret in the place of ..." } else { "" };
    lines.push(format!("To use them from another terminal{secret}:"));
    lines.push(format!("  export PUDDLE_DISCOVERY={}", shell_word(&up.discovery)));
    if !settings.is_usual_cluster() {
        lines.push(format!("  export PUDDLE_CLUSTER={}", shell_word(up.cluster)));
    }
    if let Some(path) = &settings.chosen.token_file {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        lines.push(format!("  export PUDDLE_TOKEN_FILE={}", shell_word(&path.to_string_lossy())));
    }
    lines.push("  puddle put FILE; puddle ls; puddle nodes".to_owned());
    lines.push("Ctrl-C stops them; what they hold is gone then.".to_owned());
    lines.join("\n")
}

/// A text as one word of a shell.
fn shell_word(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/:._-=,*@+".contains(&byte);
    if text.bytes().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", escape_text(text).replace('\'', "'\\''"))
}

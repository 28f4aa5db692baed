//! The runtime of the commands that are clients.

use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rampuddle_client::{Client, DiscoverySource};
use rampuddle_discovery::{DiscoveryError, open, place_of};
use tokio::time::timeout;

use crate::exit::{is_settings_error, refusal};
use crate::output::escape_text;
use crate::settings::Settings;

/// Runs a command's future on this thread, and what it spawns beside it. What
/// is still stuck in the system when it is done (a read from a terminal) is
/// left behind.
pub(crate) fn block_on<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let done = runtime.block_on(command);
    runtime.shutdown_background();
    done
}

/// How long a first look at discovery may take, which tells what is wrong at once.
const FIRST_LOOK_PATIENCE: Duration = Duration::from_secs(1);
/// How long a command that is done waits until servers know what it left half done,
/// or held. What they are not told they find out by themselves, when a lease or a
/// session ends.
const LEAVE_PATIENCE: Duration = Duration::from_secs(1);

/// Ends what a client has under way behind its operations.
pub(crate) async fn leave(client: &Client) {
    // Whoever gives no answer is not waited for longer.
    let _ = timeout(LEAVE_PATIENCE, client.cleaned_up()).await;
}

/// A client of the cluster that the settings name.
///
/// # Errors
/// When the place where they say that the members are kept is not there: rather
/// a mistake in the settings than a cluster without servers.
pub(crate) async fn connect(settings: &Settings) -> anyhow::Result<Client> {
    let url = settings.discovery_to_look_at()?;
    if let Some(path) = place_of(&url) {
        check_place(&url, &path)?;
    }
    let mut options = settings.client_options_at(url.clone())?;
    let backend = open(&url, &settings.cluster)?;
    match timeout(FIRST_LOOK_PATIENCE, backend.snapshot()).await {
        Ok(Err(error)) if is_settings_error(&error) => return Err(error.into()),
        // Only the client knows whether it can begin with what it kept.
        Ok(Err(DiscoveryError::NotAllowed { .. })) => {}
        Ok(Err(error)) => {
            let reason = error.explained();
            settings.output.remark(&format!("discovery fails, trying again: {reason}"));
        }
        Ok(Ok(answer)) => options.discovery_answer = Some(answer),
        // The client waits for it, or begins with what it kept.
        Err(_) => {}
    }
    options.discovery = DiscoverySource::Backend(backend);
    Ok(Client::connect(options).await?)
}

/// Fails when the place is not there, or is not of the kind that the URL says.
fn check_place(url: &str, path: &Path) -> anyhow::Result<()> {
    let is_folder = url.starts_with("dir:");
    let shown = path.display();
    let found = path.metadata();
    let is_lost = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    Err(refusal(match (found, is_folder) {
        (Err(error), true) if is_lost(&error) => format!(
            "there is no folder {shown}, so no server was ever started with --discovery {url}: \
             check the path, or start one with `puddle serve --discovery {url}`"
        ),
        (Err(error), false) if is_lost(&error) => format!(
            "there is no file {shown} for --discovery {url}: check the path, or write the list of \
             servers there"
        ),
        (Err(error), _) => {
            format!("--discovery {url}: cannot look at {shown}: {error}; check the path")
        }
        (Ok(found), true) if !found.is_dir() => format!(
            "--discovery {url}: expected a folder, and {shown} is none; for a list of servers in a \
             file it is file:PATH"
        ),
        (Ok(found), false) if found.is_dir() => format!(
            "--discovery {url}: expected a file with a list of servers, and {shown} is a folder; \
             for the folder that servers meet in it is dir:PATH"
        ),
        (Ok(found), false) if !found.is_file() => format!(
            "--discovery {url}: expected a file with a list of servers, and {shown} is a pipe, a \
             socket or a device; write the list into a file"
        ),
        _ => return Ok(()),
    }))
}

/// Fails where nobody can be asked.
pub(crate) fn check_has_servers(settings: &Settings, client: &Client) -> anyhow::Result<()> {
    let view = client.view();
    if view.members().iter().any(|member| member.state.is_read_from()) {
        return Ok(());
    }
    Err(anyhow::Error::msg(no_servers(settings)))
}

/// What is said of a cluster without members.
pub(crate) fn no_servers(settings: &Settings) -> String {
    let cluster = escape_text(&settings.cluster);
    let check = if settings.is_usual_cluster() { "" } else { "check the name (--cluster), or " };
    format!("the cluster \"{cluster}\" has no servers; {check}start one with `puddle serve`")
}

//! The runtime of the commands that are clients.

use std::future::Future;

use anyhow::Context as _;
use rampuddle_client::Client;

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

/// A client of the cluster that the settings name.
pub(crate) async fn connect(settings: &Settings) -> anyhow::Result<Client> {
    Ok(Client::connect(settings.client_options()?).await?)
}

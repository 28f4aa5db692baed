//! `puddle serve`: one server.
//!
//! The main thread runs the server's loop; a helper thread keeps it announced
//! and takes the signals.

use std::io::ErrorKind;
use std::sync::mpsc;
use std::thread;

use anyhow::Context as _;
use rampuddle_discovery::{
    DiscoveryError, Id, JoinRequest, Living, Member, Settings as ClusterSettings, host_id,
    is_beyond_this_machine, is_loopback, open,
};
use rampuddle_server::{Server, StartError, Stopper, ZeroCopyCounts};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use serde::Serialize;
use tokio::sync::oneshot;

use crate::announcer::{Announcer, News};
use crate::arguments::{ReplicasMax, ServeArguments};
use crate::exit::{Exit, reading, refusal};
use crate::output::{Output, escape_text};
use crate::serve_settings::ServeSettings;
use crate::settings::Settings;
use crate::signals::EndSignals;
use crate::size::{Size, rounded};

/// Runs a server until it is asked to stop.
pub(crate) fn run(settings: &Settings, given: &ServeArguments) -> anyhow::Result<Exit> {
    let serve = ServeSettings::new(settings, given)?;
    let output = settings.output;
    if given.print_config {
        return reading(print_config(settings, &serve).map(|()| Exit::Done));
    }
    if let Some(parent) = given.exit_with_parent {
        exit_with_parent(parent)?;
    }
    settings.prepare_discovery()?;
    let server = bind(&serve, output)?;
    let ready = Ready::new(&server, &serve);
    let request = join_request(&server, &serve)?;
    tell_of_loopback(&ready.advertise, &serve.discovery, output);
    let told = serve.options.told.clone();
    let (url, cluster) = (serve.discovery.clone(), serve.options.cluster.clone());
    let announcer = Announcer::new(move || open(&url, &cluster), request, told);
    let helper = Helper { announcer, ready, output, stopper: server.stopper() };
    let (served, is_served) = oneshot::channel();
    let (listening, is_listening) = mpsc::channel();
    let helper = thread::Builder::new()
        .name("announcer".to_owned())
        .spawn(move || helper.run(is_served, &listening))
        .context("cannot start a thread")?;
    // Signals are caught before the first client can be served.
    let _ = is_listening.recv();
    let zero_copy = server.zero_copy();
    let result = server.run();
    if serve.options.zero_copy_from.is_some() {
        output.remark(&summary(&zero_copy));
    }
    drop(served);
    let helped = helper.join().map_err(|_| anyhow::anyhow!("the announcer panicked"))?;
    result?;
    helped.map(|()| Exit::Done)
}

/// What came of sending without a copy, for whoever chose it.
fn summary(zero_copy: &ZeroCopyCounts) -> String {
    let (done, copied) = (zero_copy.done(), zero_copy.copied());
    format!(
        "sends without a copy: {} taken, {} refused; {done} reports that some were done, \
         {copied} of them that the system copied after all",
        zero_copy.sends(),
        zero_copy.refused()
    )
}

fn print_config(settings: &Settings, serve: &ServeSettings) -> anyhow::Result<()> {
    let config = serve.as_config(settings);
    if settings.output.json {
        return settings.output.json_line(&config);
    }
    settings.output.text(toml::to_string(&config)?.trim_end())
}

/// Ends this process with the one that started it, even when that is killed.
/// `parent` is its number, 0 when not known.
fn exit_with_parent(parent: i32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM)).context("cannot follow the parent")?;
    let found = Pid::as_raw(getppid());
    if parent != 0 && found != parent {
        return Err(refusal(format!("the parent process {parent} has ended already")));
    }
    Ok(())
}

fn bind(serve: &ServeSettings, output: Output) -> anyhow::Result<Server> {
    let options = &serve.options;
    let name = &options.name;
    output.remark(&format!("memory of server \"{name}\":\n{}", options.memory()));
    Server::bind(options.clone()).map_err(|error| match error {
        StartError::Memory { needed, has, limit } => refusal(format!(
            "the server needs up to {}, but {limit} is {}: make the pool smaller than --pool {}",
            rounded(needed.total()),
            rounded(has),
            Size(options.pool_bytes)
        )),
        StartError::Listen { ref source, .. } if source.kind() == ErrorKind::AddrInUse => {
            anyhow::Error::new(error)
                .context("another program has this port: choose one with --listen")
        }
        error => error.into(),
    })
}

/// Others on other machines would look for the server on their own. An agent of Consul is on
/// this machine wherever the others are, so there it may be as it should, and is only noted.
fn tell_of_loopback(advertised: &str, discovery: &str, output: Output) {
    if !is_loopback(advertised) {
        return;
    }
    let told = format!(
        "others are told that this server is at {advertised}, where no other machine reaches it: \
         say with --advertise ADDR:PORT where they do, and listen there"
    );
    if is_beyond_this_machine(discovery) {
        tracing::warn!("{told}");
    } else if discovery.starts_with("consul://") {
        output.remark(&format!("note: {told}, if there are others"));
    }
}

fn join_request(server: &Server, serve: &ServeSettings) -> anyhow::Result<JoinRequest> {
    let options = &serve.options;
    let mut cluster = ClusterSettings::new(&options.cluster, 0);
    cluster.replicas_max = serve.replicas_max.map_or(cluster.replicas_max, ReplicasMax::get);
    cluster.strategy = serve.strategy.unwrap_or_default();
    let mut member = Member::ready(&options.name, serve.weight);
    member.zone.clone_from(&serve.zone);
    let listened = server.local_address().context("the server listens nowhere")?;
    let living = Living {
        name: options.name.clone(),
        tcp: Some(serve.advertised(listened)),
        unix_socket: options.socket.clone(),
        host: host_id(),
        incarnation: Some(Id(server.incarnation().0)),
        store_id: Some(Id(server.store_id().0)),
    };
    let mut request = JoinRequest::new(cluster, member, living);
    request.explicit_weight = serve.is_weight_chosen;
    Ok(request)
}

/// What is said when the server is up.
#[derive(Debug, Clone, Serialize)]
struct Ready {
    event: &'static str,
    name: String,
    address: String,
    advertise: String,
    socket: Option<String>,
    incarnation: String,
    pool_bytes: u64,
    announced: bool,
}

impl Ready {
    fn new(server: &Server, serve: &ServeSettings) -> Self {
        let listened = server.local_address();
        let socket = serve.options.socket.as_ref();
        Self {
            event: "ready",
            name: serve.options.name.clone(),
            address: listened.map(|address| address.to_string()).unwrap_or_default(),
            advertise: listened.map(|address| serve.advertised(address)).unwrap_or_default(),
            socket: socket.map(|path| path.to_string_lossy().into_owned()),
            incarnation: server.incarnation().to_string(),
            pool_bytes: serve.options.pool_bytes,
            announced: false,
        }
    }

    fn is_told(&self) -> bool {
        self.event != "ready"
    }

    /// Nobody may be reading; the server serves all the same.
    fn tell(&self, output: Output) {
        let socket = self.socket.as_ref().map(|path| format!(" and {}", escape_text(path)));
        let _ = output.result(self, || {
            format!(
                "server \"{}\" is ready at {}{}",
                self.name,
                self.address,
                socket.unwrap_or_default()
            )
        });
    }
}

/// The thread beside the server's own.
struct Helper {
    announcer: Announcer,
    ready: Ready,
    output: Output,
    stopper: Stopper,
}

impl Helper {
    /// Announces the server until a signal comes, the server ends by itself or
    /// the cluster refuses it; stops it then. A second signal ends the process.
    fn run(
        self,
        is_served: oneshot::Receiver<()>,
        listening: &mpsc::Sender<()>,
    ) -> anyhow::Result<()> {
        let stopper = self.stopper.clone();
        let helped = self.try_run(is_served, listening);
        stopper.stop();
        helped
    }

    fn try_run(
        mut self,
        mut is_served: oneshot::Receiver<()>,
        listening: &mpsc::Sender<()>,
    ) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ended = runtime.block_on(async {
            let mut signals = EndSignals::new()?;
            let _ = listening.send(());
            let (ready, output) = (&mut self.ready, self.output);
            let mut is_over = false;
            let refused = tokio::select! {
                error = self.announcer.keep(|news| tell(ready, output, news)) => Some(error),
                () = signals.next() => None,
                _ = &mut is_served => { is_over = true; None }
            };
            tokio::select! {
                () = self.announcer.withdraw() => {}
                () = signals.next() => end_at_once(),
            }
            self.stopper.stop();
            if !is_over {
                tokio::select! {
                    _ = is_served => {}
                    () = signals.next() => end_at_once(),
                }
            }
            refused.map_or(Ok(()), |error| Err(error.into()))
        });
        // A call to discovery that hangs must not keep the process.
        runtime.shutdown_background();
        ended
    }
}

#[expect(clippy::exit, reason = "a second signal asks for exactly this")]
fn end_at_once() {
    std::process::exit(Exit::Failed as i32)
}

fn tell(ready: &mut Ready, output: Output, news: News) {
    match news {
        News::Announced { notes, is_again } => {
            for note in notes {
                output.remark(&format!("note: {}", escape_text(&note)));
            }
            if is_again {
                tracing::warn!("the announcement was lost, and made anew");
            } else {
                tell_ready_once(ready, output, true);
            }
        }
        News::Failing(error @ DiscoveryError::NameTaken { .. }) => {
            let reason = error.explained();
            tracing::error!(
                "this server is not announced any more, serving all the same: {reason}"
            );
        }
        News::NotShown { complaint } => {
            let complaint = complaint.map(|complaint| format!(": {complaint}"));
            tracing::warn!(
                "discovery took the announcement, and does not show the server{}",
                complaint.unwrap_or_default()
            );
        }
        News::Failing(error) => {
            let reason = error.explained();
            let what =
                if ready.is_told() { "discovery fails" } else { "cannot announce the server" };
            tracing::warn!("{what}, serving all the same: {reason}");
            tell_ready_once(ready, output, false);
        }
        News::Answering => tracing::info!("discovery answers again, and has the server"),
        News::Recorded => tracing::warn!("discovery had lost the member; it is written again"),
    }
}

fn tell_ready_once(ready: &mut Ready, output: Output, announced: bool) {
    if !ready.is_told() {
        ready.announced = announced;
        ready.tell(output);
        // Should the announcement come later, that is other news.
        ready.event = "announced";
    } else if announced {
        output.remark("the server is announced now");
    }
}

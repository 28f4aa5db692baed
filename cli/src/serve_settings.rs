//! The settings of `puddle serve`, checked.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rampuddle_client::Token as ClientToken;
use rampuddle_discovery::{Member, Strategy, masked, validate};
use rampuddle_protocol::limits::PAGE_BYTES;
use rampuddle_server::{Options, Token};

use crate::arguments::{Connections, Processor, ReplicasMax, ServeArguments};
use crate::exit::{BeforeAnythingExt as _, refusal};
use crate::machine;
use crate::settings::{ConfigFile, ServeSection, Settings};
use crate::size::Size;

/// Where a server listens unless told otherwise.
pub(crate) const LISTEN: &str = "127.0.0.1:7117";

/// What a server is told, with every default filled in.
#[derive(Debug)]
pub(crate) struct ServeSettings {
    /// For the server itself.
    pub(crate) options: Options,
    /// Where the members are kept.
    pub(crate) discovery: String,
    /// Where others reach the server; `None` = where it listens.
    pub(crate) advertise: Option<String>,
    /// Its share of the keys.
    pub(crate) weight: f64,
    /// Whether somebody chose the weight.
    pub(crate) is_weight_chosen: bool,
    /// What fails together with it.
    pub(crate) zone: String,
    /// For a new cluster.
    pub(crate) replicas_max: Option<ReplicasMax>,
    /// For a new cluster.
    pub(crate) strategy: Option<Strategy>,
}

impl ServeSettings {
    /// Checks what was given, and fills in the defaults.
    ///
    /// # Errors
    /// When something makes no sense: nothing was done then.
    pub(crate) fn new(settings: &Settings, given: &ServeArguments) -> anyhow::Result<Self> {
        let given = Given { flags: given, file: &settings.serve };
        let options = given.options(settings)?;
        let advertise = given.advertise();
        check_advertise(&options, advertise.as_deref())?;
        let chosen_weight = given.flags.weight.or(given.file.weight);
        let pool_gib = options.pool_bytes as f64 / (1_u64 << 30) as f64;
        let zone = given.flags.zone.clone().or_else(|| given.file.zone.clone()).unwrap_or_default();
        // Before a pool is made, which takes seconds. What is wrong with a pool from
        // which no weight follows is told by the server.
        let mut member = Member::ready(&options.name, chosen_weight.unwrap_or(1.0));
        member.zone.clone_from(&zone);
        validate::member(&member).before_anything()?;
        Ok(Self {
            discovery: settings.discovery_url()?,
            advertise,
            weight: chosen_weight.unwrap_or(pool_gib),
            is_weight_chosen: chosen_weight.is_some(),
            zone,
            replicas_max: given.flags.replicas_max.or(given.file.replicas_max),
            strategy: given.flags.strategy.or(given.file.strategy),
            options,
        })
    }

    /// Where others reach a server that listens at `listened`.
    pub(crate) fn advertised(&self, listened: SocketAddr) -> String {
        match &self.advertise {
            None => listened.to_string(),
            Some(address) => match address.strip_suffix(":0") {
                Some(host) => format!("{host}:{}", listened.port()),
                None => address.clone(),
            },
        }
    }

    /// The config file that gives these settings.
    pub(crate) fn as_config(&self, settings: &Settings) -> ConfigFile {
        let options = &self.options;
        let mut client = settings.chosen.clone();
        client.discovery = Some(masked(&self.discovery));
        client.cluster = Some(options.cluster.clone());
        ConfigFile::new(
            client,
            settings.output.json.then_some(true),
            settings.output.quiet.then_some(true),
            ServeSection {
                name: Some(options.name.clone()),
                listen: options.listen.map(|address| address.to_string()),
                socket: options.socket.clone(),
                pool: Some(Size(options.pool_bytes)),
                advertise: self.advertise.clone(),
                weight: self.is_weight_chosen.then_some(self.weight),
                zone: Some(self.zone.clone()).filter(|zone| !zone.is_empty()),
                cpu: options.cpu.and_then(Processor::of),
                busy_poll: Some(options.busy_poll),
                huge_pages: Some(options.huge_pages),
                no_prefault: Some(!options.prefault),
                mlock: Some(options.mlock),
                no_share_pool: Some(!options.share_pool),
                zero_copy_from: options.zero_copy_from.map(Size),
                insecure_public: Some(options.insecure_public),
                connections: Connections::of(options.connections_max),
                replicas_max: self.replicas_max,
                strategy: self.strategy,
            },
        )
    }
}

/// Flags (or environment) before the config file.
struct Given<'a> {
    flags: &'a ServeArguments,
    file: &'a ServeSection,
}

impl Given<'_> {
    fn options(&self, settings: &Settings) -> anyhow::Result<Options> {
        let (flags, file) = (self.flags, self.file);
        let pool = flags.pool.or(file.pool).unwrap_or_else(default_pool);
        let name = flags.name.clone().or_else(|| file.name.clone());
        let name = name.map_or_else(host_name, Ok)?;
        validate::name(&name).before_anything()?;
        validate::name(&settings.cluster).before_anything()?;
        let listen = flags.listen.as_deref().or(file.listen.as_deref()).unwrap_or(LISTEN);
        let socket = flags.socket.as_ref().or(file.socket.as_ref());
        let on = |flag: Option<bool>, file: Option<bool>| flag.or(file).unwrap_or(false);

        let mut options = Options::new(name, &settings.cluster, pool.0);
        options.listen = Some(listen_address(listen)?);
        options.socket = socket.map(absolute).transpose()?;
        let connections = flags.connections.or(file.connections);
        options.connections_max = connections.map_or(options.connections_max, Connections::get);
        options.huge_pages = on(flags.huge_pages, file.huge_pages);
        options.prefault = !on(flags.no_prefault, file.no_prefault);
        options.mlock = on(flags.mlock, file.mlock);
        options.share_pool = !on(flags.no_share_pool, file.no_share_pool);
        options.zero_copy_from = flags.zero_copy_from.or(file.zero_copy_from).map(|size| size.0);
        options.cpu = flags.cpu.or(file.cpu).map(Processor::get);
        options.busy_poll = on(flags.busy_poll, file.busy_poll);
        options.insecure_public = on(flags.insecure_public, file.insecure_public);
        options.tokens =
            settings.chosen.token_file.as_deref().map_or(Ok(Vec::new()), read_tokens)?;
        Ok(options)
    }

    fn advertise(&self) -> Option<String> {
        self.flags.advertise.clone().or_else(|| self.file.advertise.clone())
    }
}

/// A quarter of the memory, in whole pages.
fn default_pool() -> Size {
    let quarter = machine::memory_bytes() / 4;
    Size((quarter / PAGE_BYTES).max(1) * PAGE_BYTES)
}

fn host_name() -> anyhow::Result<String> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let checked = validate::name(&name).map(|()| name);
    checked.context("the name of this host cannot be the server's; give --name").before_anything()
}

/// An address, or a name that is looked up once.
fn listen_address(text: &str) -> anyhow::Result<SocketAddr> {
    let wanted =
        || format!("cannot listen on \"{text}\": expected ADDR:PORT, for example {LISTEN}");
    let mut found = text.to_socket_addrs().with_context(wanted).before_anything()?;
    found.next().ok_or_else(|| refusal(wanted()))
}

fn absolute(path: &PathBuf) -> anyhow::Result<PathBuf> {
    let absolute = std::path::absolute(path);
    absolute.with_context(|| format!("the unix socket {}", path.display())).before_anything()
}

fn check_advertise(options: &Options, advertise: Option<&str>) -> anyhow::Result<()> {
    if let Some(address) = advertise {
        // Port 0 stands for the real one.
        let checked = address.strip_suffix(":0").map(|host| format!("{host}:1"));
        let checked = validate::address(checked.as_deref().unwrap_or(address));
        return checked.context("--advertise").before_anything();
    }
    match options.listen {
        Some(listen) if listen.ip().is_unspecified() => Err(refusal(format!(
            "{listen} is no address at which others reach the server: \
             say which one with --advertise ADDR:{}",
            listen.port()
        ))),
        _ => Ok(()),
    }
}

/// The tokens of which clients must show one.
fn read_tokens(path: &Path) -> anyhow::Result<Vec<Token>> {
    let tokens = ClientToken::read_all(path).before_anything()?;
    Ok(tokens.iter().map(server_token).collect())
}

fn server_token(token: &ClientToken) -> Token {
    let mut key_id = [0; 16];
    key_id[..token.key_id().len()].copy_from_slice(token.key_id().as_bytes());
    Token { key_id, secret: token.secret().to_vec(), role: token.role() }
}

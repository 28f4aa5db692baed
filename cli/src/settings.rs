//! The settings of all commands, checked: from flags, else the environment,
//! else the config file.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rampuddle_client::{Options, WritePolicy};
use rampuddle_discovery::{Strategy, create_default_directory, default_url, has_default_directory};
use serde::{Deserialize, Serialize};

use crate::arguments::{
    Connections, GlobalArguments, Processor, Replicas, ReplicasMax, WriteChoice,
};
use crate::exit::{BeforeAnythingExt as _, refusal};
use crate::output::Output;
use crate::size::Size;
use crate::token_file;

/// The cluster's name unless one is given.
const CLUSTER: &str = "default";
/// The longest config file that is read.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
const NO_USUAL_PLACE: &str = "there is no usual place for the members; give --discovery";

/// The config file. Every key is optional; unknown ones are refused.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigFile {
    pub(crate) discovery: Option<String>,
    pub(crate) cluster: Option<String>,
    pub(crate) replicas: Option<Replicas>,
    pub(crate) write: Option<WriteChoice>,
    pub(crate) json: Option<bool>,
    pub(crate) quiet: Option<bool>,
    pub(crate) token_file: Option<PathBuf>,
    #[serde(default)]
    pub(crate) serve: ServeSection,
}

/// The part of the config file that is for `puddle serve`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServeSection {
    pub(crate) name: Option<String>,
    pub(crate) listen: Option<String>,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) pool: Option<Size>,
    pub(crate) advertise: Option<String>,
    pub(crate) weight: Option<f64>,
    pub(crate) zone: Option<String>,
    pub(crate) cpu: Option<Processor>,
    pub(crate) busy_poll: Option<bool>,
    pub(crate) huge_pages: Option<bool>,
    pub(crate) no_prefault: Option<bool>,
    pub(crate) mlock: Option<bool>,
    pub(crate) insecure_public: Option<bool>,
    pub(crate) connections: Option<Connections>,
    pub(crate) replicas_max: Option<ReplicasMax>,
    pub(crate) strategy: Option<Strategy>,
}

impl ConfigFile {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = read_bounded(path)
            .with_context(|| format!("cannot read the config file {}", path.display()))?;
        toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let path = path.display();
            refusal(format!("the config file {path}, line {line}: {}", error.message()))
        })
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let mut file = File::open(path)?.take(CONFIG_BYTES_MAX + 1);
    file.read_to_string(&mut text).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => io::Error::other("it is not text: expected TOML"),
        _ => error,
    })?;
    if text.len() as u64 > CONFIG_BYTES_MAX {
        return Err(io::Error::other("it has more than 1 MiB"));
    }
    Ok(text)
}

/// What all commands are told.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) output: Output,
    pub(crate) cluster: String,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) replicas: Option<Replicas>,
    pub(crate) write: Option<WriteChoice>,
    pub(crate) serve: ServeSection,
    discovery: Option<String>,
}

impl Settings {
    /// Puts flags, environment and config file together.
    ///
    /// # Errors
    /// When the config file cannot be read or says something that makes no
    /// sense.
    pub(crate) fn new(given: GlobalArguments) -> anyhow::Result<Self> {
        let file = match &given.config {
            Some(path) => ConfigFile::read(path).before_anything()?,
            None => ConfigFile::default(),
        };
        let output = Output {
            json: given.json.or(file.json).unwrap_or(false),
            quiet: given.quiet.or(file.quiet).unwrap_or(false),
        };
        Ok(Self {
            output,
            cluster: given.cluster.or(file.cluster).unwrap_or_else(|| CLUSTER.to_owned()),
            token_file: given.token_file.or(file.token_file),
            replicas: given.replicas.or(file.replicas),
            write: given.write.or(file.write),
            serve: file.serve,
            discovery: given.discovery.or(file.discovery),
        })
    }

    /// Whether somebody chose the discovery URL.
    pub(crate) fn chosen_discovery(&self) -> Option<&str> {
        self.discovery.as_deref()
    }

    /// Whether somebody chose another cluster than the usual one.
    pub(crate) fn is_usual_cluster(&self) -> bool {
        self.cluster == CLUSTER
    }

    /// Where the members are kept.
    pub(crate) fn discovery_url(&self) -> anyhow::Result<String> {
        match &self.discovery {
            Some(url) => Ok(url.clone()),
            None => default_url().context(NO_USUAL_PLACE).before_anything(),
        }
    }

    /// The same for a command that only looks there, and creates nothing.
    pub(crate) fn discovery_to_look_at(&self) -> anyhow::Result<String> {
        let url = self.discovery_url()?;
        let is_there = self.discovery.is_some() || has_default_directory().before_anything()?;
        if is_there {
            return Ok(url);
        }
        Err(refusal(format!(
            "no server was ever started here: {url} is not there; start one with `puddle serve`, or \
             three with `puddle up`, which prints where they are, or give --discovery"
        )))
    }

    /// The same for a server, which joins there. Creates the default directory
    /// when nobody chose another place.
    pub(crate) fn prepare_discovery(&self) -> anyhow::Result<()> {
        match &self.discovery {
            Some(_) => Ok(()),
            None => create_default_directory().context(NO_USUAL_PLACE).before_anything(),
        }
    }

    /// What a client of the cluster is told, with members kept there.
    pub(crate) fn client_options_at(&self, discovery: String) -> anyhow::Result<Options> {
        let mut options = Options::new(discovery);
        options.cluster.clone_from(&self.cluster);
        options.token = self.token_file.as_deref().map(token_file::read_one).transpose()?;
        options.replicas = self.replicas.map(Replicas::get);
        options.write = self.write.map_or(options.write, WritePolicy::from);
        Ok(options)
    }
}

impl From<WriteChoice> for WritePolicy {
    fn from(choice: WriteChoice) -> Self {
        match choice {
            WriteChoice::All => Self::All,
            WriteChoice::Quorum => Self::Quorum,
            WriteChoice::One => Self::One,
        }
    }
}

//! The settings of all commands, checked: from flags, else the environment,
//! else the config file.

use std::path::PathBuf;

use anyhow::Context as _;
use rampuddle_client::{Configuration, Options};
use rampuddle_discovery::{Strategy, create_default_directory, default_url, has_default_directory};
use serde::{Deserialize, Serialize};

use crate::arguments::{Connections, GlobalArguments, Processor, ReplicasMax};
use crate::exit::{BeforeAnythingExt as _, refusal};
use crate::output::Output;
use crate::size::Size;

/// The cluster's name unless one is given.
const CLUSTER: &str = "default";
const NO_USUAL_PLACE: &str = "there is no usual place for the members; give --discovery";

/// The config file, with what is for `puddle serve`.
pub(crate) type ConfigFile = rampuddle_client::ConfigFile<ServeSection>;

/// The part of the config file that is for `puddle serve`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
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
    pub(crate) no_share_pool: Option<bool>,
    pub(crate) zero_copy_from: Option<Size>,
    pub(crate) insecure_public: Option<bool>,
    pub(crate) connections: Option<Connections>,
    pub(crate) replicas_max: Option<ReplicasMax>,
    pub(crate) strategy: Option<Strategy>,
}

/// What all commands are told.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) output: Output,
    pub(crate) cluster: String,
    pub(crate) serve: ServeSection,
    /// For clients, as somebody chose it.
    pub(crate) chosen: Configuration,
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
        let mut chosen = Configuration::default();
        chosen.discovery = given.discovery;
        chosen.cluster = given.cluster;
        chosen.replicas = given.replicas;
        chosen.write = given.write;
        chosen.token_file = given.token_file;
        chosen.view_file = given.view_file;
        chosen.no_map = given.no_map;
        let chosen = chosen.or(file.client);
        let cluster = chosen.cluster.clone().unwrap_or_else(|| CLUSTER.to_owned());
        Ok(Self { output, cluster, serve: file.serve, chosen })
    }

    /// Whether somebody chose the discovery URL.
    pub(crate) fn chosen_discovery(&self) -> Option<&str> {
        self.chosen.discovery.as_deref()
    }

    /// Whether somebody chose another cluster than the usual one.
    pub(crate) fn is_usual_cluster(&self) -> bool {
        self.cluster == CLUSTER
    }

    /// Where the members are kept.
    pub(crate) fn discovery_url(&self) -> anyhow::Result<String> {
        match &self.chosen.discovery {
            Some(url) => Ok(url.clone()),
            None => default_url().context(NO_USUAL_PLACE).before_anything(),
        }
    }

    /// The same for a command that only looks there, and creates nothing.
    pub(crate) fn discovery_to_look_at(&self) -> anyhow::Result<String> {
        let url = self.discovery_url()?;
        let is_there =
            self.chosen.discovery.is_some() || has_default_directory().before_anything()?;
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
        match &self.chosen.discovery {
            Some(_) => Ok(()),
            None => create_default_directory().context(NO_USUAL_PLACE).before_anything(),
        }
    }

    /// What a client of the cluster is told, with members kept there.
    pub(crate) fn client_options_at(&self, discovery: String) -> anyhow::Result<Options> {
        self.chosen.options_at(discovery).before_anything()
    }
}

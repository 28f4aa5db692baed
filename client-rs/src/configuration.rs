//! What a client is told from outside: the environment, and the file that the
//! command `puddle` reads too.
//!
//! | key of the file | variable | option |
//! |---|---|---|
//! | `discovery` | `PUDDLE_DISCOVERY` | [`Options::discovery`](crate::Options::discovery) |
//! | `cluster` | `PUDDLE_CLUSTER` | [`Options::cluster`](crate::Options::cluster) |
//! | `replicas` | `PUDDLE_REPLICAS` | [`Options::replicas`](crate::Options::replicas) |
//! | `write` | `PUDDLE_WRITE` | [`Options::write`](crate::Options::write) |
//! | `token_file` | `PUDDLE_TOKEN_FILE` | [`Options::token`](crate::Options::token) |
//! | `view_file` | `PUDDLE_VIEW_FILE` | [`Options::view_file`](crate::Options::view_file); `none` = nowhere |
//! | `no_map` | `PUDDLE_NO_MAP` | [`Options::map`](crate::Options::map), turned round |
//! | | `PUDDLE_CONFIG` | names the file |
//!
//! What the program itself says comes first, then the environment, then the
//! file, then the default. An unknown key of the file is an error that names the
//! known ones. Other variables are not looked at: programs have their own.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rampuddle_discovery::{DiscoveryError, default_url, has_default_directory, masked};
use serde::de::{DeserializeOwned, Error as _, IgnoredAny, Unexpected};
use serde::{Deserialize, Deserializer, Serialize};

use crate::options::{Options, ViewFile, WritePolicy};
use crate::token::{Token, TokenError};

/// The longest config file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The variables, and what each one says.
pub mod variables {
    /// Where the members are kept: a URL.
    pub const DISCOVERY: &str = "PUDDLE_DISCOVERY";
    /// The cluster's name.
    pub const CLUSTER: &str = "PUDDLE_CLUSTER";
    /// Copies of each object, 1 to 255.
    pub const REPLICAS: &str = "PUDDLE_REPLICAS";
    /// When a write counts as acked: `all`, `quorum` or `one`.
    pub const WRITE: &str = "PUDDLE_WRITE";
    /// The file with the token.
    pub const TOKEN_FILE: &str = "PUDDLE_TOKEN_FILE";
    /// The file that keeps the last good view, or `none`.
    pub const VIEW_FILE: &str = "PUDDLE_VIEW_FILE";
    /// Read nothing where it lies, in the memory of servers on this machine: `yes` or
    /// `no`.
    pub const NO_MAP: &str = "PUDDLE_NO_MAP";
    /// The config file.
    pub const CONFIG: &str = "PUDDLE_CONFIG";
}

/// What somebody outside of the program said of its client; `None` = nothing. Shown
/// without the secrets that a URL may have.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Configuration {
    /// Where the members are kept.
    pub discovery: Option<String>,
    /// The cluster's name.
    pub cluster: Option<String>,
    /// Copies of each object.
    pub replicas: Option<u8>,
    /// When a write counts as acked.
    pub write: Option<WritePolicy>,
    /// The file with the token.
    pub token_file: Option<PathBuf>,
    /// The file that keeps the last good view; `none` = nowhere.
    pub view_file: Option<PathBuf>,
    /// Whether nothing is read where it lies, in the memory of servers on this machine.
    pub no_map: Option<bool>,
}

/// The config file: what clients are told, and what is for the command `puddle`
/// alone, whose section `[serve]` a client does not look into.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Keys<S>", into = "Keys<S>")]
#[serde(bound(serialize = "S: Serialize + Clone", deserialize = "S: DeserializeOwned + Default"))]
#[non_exhaustive]
pub struct ConfigFile<S = IgnoredAny> {
    /// For clients.
    pub client: Configuration,
    /// Whether commands print JSON.
    pub json: Option<bool>,
    /// Whether commands say nothing but errors on stderr.
    pub quiet: Option<bool>,
    /// For servers.
    pub serve: S,
}

/// The keys as they lie in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[serde(bound(deserialize = "S: DeserializeOwned + Default"))]
struct Keys<S> {
    discovery: Option<String>,
    cluster: Option<String>,
    #[serde(default, deserialize_with = "replicas_of_file")]
    replicas: Option<u8>,
    write: Option<WritePolicy>,
    json: Option<bool>,
    quiet: Option<bool>,
    token_file: Option<PathBuf>,
    view_file: Option<PathBuf>,
    no_map: Option<bool>,
    #[serde(default)]
    serve: S,
}

/// Settings from outside that cannot work: fix them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigurationError {
    /// A variable of the environment says something that makes no sense.
    #[error("the variable {name} is \"{}\": {expected}", .found.escape_debug())]
    Variable {
        /// The variable.
        name: &'static str,
        /// What it says.
        found: String,
        /// What it may say.
        expected: String,
    },
    /// The config file cannot be read.
    #[error("cannot read the config file {}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The config file says something that makes no sense.
    #[error("the config file {}, line {line}: {problem}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where in it, from 1.
        line: usize,
        /// What is wrong, and what was expected.
        problem: String,
    },
    /// The token cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Nobody said where the members are, and the usual place cannot be used.
    #[error("there is no usual place for the members; set {}", variables::DISCOVERY)]
    NoUsualPlace(#[source] DiscoveryError),
    /// Nobody said where the members are, and there are none at the usual place.
    #[error(
        "no server was ever started here: {url} is not there; start one with `puddle serve`, or \
         say where the members are with {}",
        variables::DISCOVERY
    )]
    NothingAtUsualPlace {
        /// The usual place.
        url: String,
    },
}

impl fmt::Debug for Configuration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { discovery, cluster, replicas, write, token_file, view_file, no_map } = self;
        formatter
            .debug_struct("Configuration")
            .field("discovery", &discovery.as_deref().map(masked))
            .field("cluster", cluster)
            .field("replicas", replicas)
            .field("write", write)
            .field("token_file", token_file)
            .field("view_file", view_file)
            .field("no_map", no_map)
            .finish()
    }
}

impl Configuration {
    /// What the environment says, [`variables::CONFIG`] left out.
    ///
    /// # Errors
    /// When a variable makes no sense. An empty one makes none.
    pub fn from_env() -> Result<Self, ConfigurationError> {
        Self::from_variables(std::env::var_os)
    }

    fn from_variables(
        look: impl Fn(&'static str) -> Option<OsString>,
    ) -> Result<Self, ConfigurationError> {
        let text = |name| look(name).map(|found| text_of(name, found)).transpose();
        Ok(Self {
            discovery: text(variables::DISCOVERY)?,
            cluster: text(variables::CLUSTER)?,
            replicas: parsed(variables::REPLICAS, text(variables::REPLICAS)?, replicas_of_text)?,
            write: parsed(variables::WRITE, text(variables::WRITE)?, WritePolicy::from_str)?,
            token_file: look(variables::TOKEN_FILE).map(PathBuf::from),
            view_file: look(variables::VIEW_FILE).map(PathBuf::from),
            no_map: parsed(variables::NO_MAP, text(variables::NO_MAP)?, yes_or_no_of_text)?,
        })
    }

    /// These settings, and where they say nothing those of `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            discovery: self.discovery.or(other.discovery),
            cluster: self.cluster.or(other.cluster),
            replicas: self.replicas.or(other.replicas),
            write: self.write.or(other.write),
            token_file: self.token_file.or(other.token_file),
            view_file: self.view_file.or(other.view_file),
            no_map: self.no_map.or(other.no_map),
        }
    }

    /// The options that they make, with defaults for what they do not say.
    /// Reads the token.
    ///
    /// # Errors
    /// When the token cannot be used, and when nobody says where the members are
    /// and the usual place, a directory of this user, is not there.
    pub fn options(self) -> Result<Options, ConfigurationError> {
        let url = match &self.discovery {
            Some(url) => url.clone(),
            None => usual_place()?,
        };
        self.options_at(url)
    }

    /// The same, with members kept at a place that was chosen already.
    ///
    /// # Errors
    /// When the token cannot be used.
    pub fn options_at(
        &self,
        discovery_url: impl Into<String>,
    ) -> Result<Options, ConfigurationError> {
        let mut options = Options::new(discovery_url);
        if let Some(cluster) = &self.cluster {
            options.cluster.clone_from(cluster);
        }
        options.token = self.token_file.as_deref().map(Token::read).transpose()?;
        options.view_file = match &self.view_file {
            None => ViewFile::Usual,
            Some(path) if path.as_os_str() == "none" => ViewFile::None,
            Some(path) => ViewFile::At(path.clone()),
        };
        options.replicas = self.replicas;
        options.write = self.write.unwrap_or(options.write);
        options.map = !self.no_map.unwrap_or(!options.map);
        Ok(options)
    }
}

impl Options {
    /// The options that the environment gives, as the command `puddle` takes
    /// them: the variables of [`Configuration`], then the file that
    /// [`variables::CONFIG`] names, then the defaults. Change what the program
    /// itself knows better afterwards. Reads the files, and the token's.
    ///
    /// # Errors
    /// When something outside makes no sense.
    pub fn from_env() -> Result<Self, ConfigurationError> {
        match std::env::var_os(variables::CONFIG) {
            Some(path) => Self::from_file(path),
            None => Configuration::from_env()?.options(),
        }
    }

    /// The options that a config file gives, as `puddle --config` takes them:
    /// the variables of the environment come before it. Without them: see
    /// [`ConfigFile::read`].
    ///
    /// # Errors
    /// When something outside makes no sense.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigurationError> {
        let file = ConfigFile::<IgnoredAny>::read(path)?;
        Configuration::from_env()?.or(file.client).options()
    }
}

impl<S: DeserializeOwned + Default> ConfigFile<S> {
    /// Reads a config file, all of whose keys are optional.
    ///
    /// # Errors
    /// When it cannot be read, has an unknown key, or a value that makes no sense.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ConfigurationError> {
        let path = path.as_ref();
        let unreadable = |source| ConfigurationError::Unreadable { path: path.to_owned(), source };
        let text = read_bounded(path).map_err(unreadable)?;
        toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let problem = error.message().to_owned();
            ConfigurationError::Malformed { path: path.to_owned(), line, problem }
        })
    }
}

impl<S> ConfigFile<S> {
    /// A file with these parts.
    pub fn new(client: Configuration, json: Option<bool>, quiet: Option<bool>, serve: S) -> Self {
        Self { client, json, quiet, serve }
    }
}

impl<S> From<Keys<S>> for ConfigFile<S> {
    fn from(keys: Keys<S>) -> Self {
        let Keys { discovery, cluster, replicas, write, token_file, view_file, no_map, .. } = keys;
        let client =
            Configuration { discovery, cluster, replicas, write, token_file, view_file, no_map };
        let Keys { json, quiet, serve, .. } = keys;
        Self { client, json, quiet, serve }
    }
}

impl<S> From<ConfigFile<S>> for Keys<S> {
    fn from(file: ConfigFile<S>) -> Self {
        let ConfigFile { client, json, quiet, serve } = file;
        let Configuration { discovery, cluster, replicas, write, token_file, view_file, no_map } =
            client;
        Self {
            discovery,
            cluster,
            replicas,
            write,
            json,
            quiet,
            token_file,
            view_file,
            no_map,
            serve,
        }
    }
}

/// The number of copies that a text says: 1 to 255.
///
/// # Errors
/// When it says none; the error tells what is expected.
pub fn replicas_of_text(text: &str) -> Result<u8, &'static str> {
    // The parser of the standard library would let a plus sign through.
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| is_plain && *number > 0);
    number.ok_or("expected a whole number from 1 to 255")
}

/// What the words of a switch say: yes or no, true or false, on or off, 1 or 0.
///
/// # Errors
/// When it is none of them; the error tells what is expected.
pub fn yes_or_no_of_text(text: &str) -> Result<bool, &'static str> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" | "1" => Ok(true),
        "no" | "false" | "off" | "0" => Ok(false),
        _ => Err("expected yes or no (or true, false, on, off, 1, 0)"),
    }
}

fn replicas_of_file<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    let number = i64::deserialize(deserializer)?;
    let fitting = u8::try_from(number).ok().filter(|number| *number > 0);
    let bad =
        || D::Error::invalid_value(Unexpected::Signed(number), &"a whole number from 1 to 255");
    fitting.map(Some).ok_or_else(bad)
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let mut file = File::open(path)?.take(FILE_BYTES_MAX + 1);
    file.read_to_string(&mut text).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => io::Error::other("it is not text: expected TOML"),
        _ => error,
    })?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it has more than 1 MiB"));
    }
    Ok(text)
}

fn usual_place() -> Result<String, ConfigurationError> {
    let url = default_url().map_err(ConfigurationError::NoUsualPlace)?;
    let is_there = has_default_directory().map_err(ConfigurationError::NoUsualPlace)?;
    if is_there { Ok(url) } else { Err(ConfigurationError::NothingAtUsualPlace { url }) }
}

fn text_of(name: &'static str, found: OsString) -> Result<String, ConfigurationError> {
    let problem = |found: String, expected: &str| ConfigurationError::Variable {
        name,
        found,
        expected: expected.to_owned(),
    };
    let text = found
        .into_string()
        .map_err(|found| problem(found.to_string_lossy().into_owned(), "expected UTF-8"))?;
    if text.is_empty() {
        Err(problem(text, "expected something, or no variable"))
    } else {
        Ok(text)
    }
}

fn parsed<T, E: ToString>(
    name: &'static str,
    text: Option<String>,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, ConfigurationError> {
    let Some(text) = text else { return Ok(None) };
    match parse(&text) {
        Ok(value) => Ok(Some(value)),
        Err(expected) => {
            let expected = expected.to_string();
            Err(ConfigurationError::Variable { name, found: text, expected })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn from(pairs: &[(&'static str, &'static str)]) -> Result<Configuration, ConfigurationError> {
        let found = |name| pairs.iter().find(|(known, _)| *known == name);
        Configuration::from_variables(|name| found(name).map(|(_, value)| value.into()))
    }

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("puddle.toml");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn the_environment_comes_before_the_file_and_that_before_the_defaults() {
        let (_folder, path) = file(
            "discovery = \"static:a=h:1\"\ncluster = \"of-file\"\nreplicas = 3\njson = true\n\
             [serve]\npool = \"1GiB\"\n",
        );
        let of_file = ConfigFile::<IgnoredAny>::read(&path).unwrap();
        assert_eq!(of_file.json, Some(true));
        let environment =
            from(&[("PUDDLE_CLUSTER", "of-env"), ("PUDDLE_WRITE", "quorum")]).unwrap();
        let options = environment.or(of_file.client).options().unwrap();
        assert_eq!(options.cluster, "of-env");
        assert_eq!((options.replicas, options.write), (Some(3), WritePolicy::Quorum));
        let defaults = Options::new("static:a=h:1");
        assert_eq!(format!("{:?}", options.discovery), format!("{:?}", defaults.discovery));
        assert_eq!(options.patience, defaults.patience);
        assert!(options.token.is_none());
    }

    #[test]
    fn every_variable_says_what_its_option_is() {
        let all = [
            ("PUDDLE_DISCOVERY", "dir:/run/x"),
            ("PUDDLE_CLUSTER", "lab"),
            ("PUDDLE_REPLICAS", "255"),
            ("PUDDLE_WRITE", "one"),
            ("PUDDLE_TOKEN_FILE", "/etc/token"),
            ("PUDDLE_VIEW_FILE", "/var/cache/view"),
            ("PUDDLE_NO_MAP", "yes"),
        ];
        let wanted = Configuration {
            discovery: Some("dir:/run/x".to_owned()),
            cluster: Some("lab".to_owned()),
            replicas: Some(255),
            write: Some(WritePolicy::One),
            token_file: Some("/etc/token".into()),
            view_file: Some("/var/cache/view".into()),
            no_map: Some(true),
        };
        assert_eq!(from(&all).unwrap(), wanted);
        assert_eq!(from(&[]).unwrap(), Configuration::default());
    }

    #[test]
    fn variables_that_make_no_sense_are_named_with_what_is_expected() {
        for (name, value, expected) in [
            ("PUDDLE_REPLICAS", "0", "1 to 255"),
            ("PUDDLE_REPLICAS", "+2", "1 to 255"),
            ("PUDDLE_REPLICAS", "256", "1 to 255"),
            ("PUDDLE_WRITE", "most", "all, quorum, one"),
            ("PUDDLE_CLUSTER", "", "expected something"),
            ("PUDDLE_NO_MAP", "maybe", "yes or no"),
        ] {
            let refused = from(&[(name, value)]).unwrap_err().to_string();
            assert!(refused.contains(name) && refused.contains(expected), "{refused}");
        }
    }

    #[test]
    fn secrets_of_a_url_are_not_shown() {
        let url = "consul://topsecret@h:8500/x";
        let configuration =
            Configuration { discovery: Some(url.to_owned()), ..Configuration::default() };
        let shown = format!("{configuration:?} {:?}", configuration.options_at(url).unwrap());
        assert!(shown.contains("...@h:8500/x") && !shown.contains("topsecret"), "{shown}");
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_the_known_ones() {
        let told = |text: &str| {
            let (_folder, path) = file(text);
            ConfigFile::<IgnoredAny>::read(&path).unwrap_err().to_string()
        };
        let unknown = told("cluster = \"a\"\nclutser = \"b\"\n");
        assert!(unknown.contains("line 2") && unknown.contains("clutser"), "{unknown}");
        for key in ["discovery", "cluster", "replicas", "write", "token_file", "no_map", "serve"] {
            assert!(unknown.contains(&format!("`{key}`")), "{unknown}");
        }
        for (text, problem) in [
            ("replicas = 0\n", "1 to 255"),
            ("replicas = 2.5\n", "line 1"),
            ("write = \"most\"\n", "`most`"),
            ("cluster = \n", "line 1"),
        ] {
            assert!(told(text).contains(problem), "{text}: {}", told(text));
        }
        let absent = ConfigFile::<IgnoredAny>::read("/nonexistent/puddle.toml").unwrap_err();
        assert!(absent.to_string().contains("cannot read the config file"), "{absent}");
        assert!(told(&"#".repeat(2 << 20)).contains("cannot read"));
    }

    #[test]
    fn what_is_written_as_a_file_is_read_back() {
        let client = Configuration {
            cluster: Some("lab".to_owned()),
            replicas: Some(3),
            write: Some(WritePolicy::All),
            ..Configuration::default()
        };
        let serve = BTreeMap::from([("name", "a")]);
        let file_of = ConfigFile::new(client.clone(), None, Some(true), serve);
        let text = toml::to_string(&file_of).unwrap();
        let (_folder, path) = file(&text);
        let read = ConfigFile::<IgnoredAny>::read(&path).unwrap();
        assert_eq!((read.client, read.quiet), (client, Some(true)), "{text}");
    }
}

//! The flags as they are given. What they mean is decided in `settings`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{
    OsStringValueParser, PossibleValue, PossibleValuesParser, TypedValueParser,
    UnknownArgumentValueParser,
};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use rampuddle_client::WritePolicy;
use rampuddle_client::configuration::{replicas_of_text, variables, yes_or_no_of_text};
use rampuddle_discovery::Strategy;
use rampuddle_protocol::Version;

use crate::metadata::Meta;
use crate::size::{ByteRange, Size};
use crate::ttl::Ttl;
use crate::whole::Whole;

/// The memory of a cluster as one shared place for large files.
///
/// Exit codes: 0 done; 1 not there; 2 usage, or refused before anything was
/// done; 3 failed, or not known whether it was done.
#[derive(Debug, Parser)]
#[command(name = "puddle", version, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: GlobalArguments,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Arguments {
    /// Those of this process; ends it when they make no sense.
    pub(crate) fn read() -> Self {
        let mut matches = Self::full_command().get_matches();
        Self::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.exit())
    }

    /// The command with all its parts. Each shows its usage in full: clap would
    /// show the options that the environment sets as if they had to be given.
    pub(crate) fn full_command() -> clap::Command {
        let mut command = Self::command();
        command.build();
        with_usage(command)
    }
}

fn with_usage(mut command: clap::Command) -> clap::Command {
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").to_owned();
    command.override_usage(usage).mut_subcommands(with_usage)
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Options of all commands")]
pub(crate) struct GlobalArguments {
    /// Where the members are kept: dir:PATH, file:PATH, static:NAME=HOST:PORT,...,
    /// consul://HOST:PORT/SERVICE, etcd://HOST:PORT,.../PREFIX, zk://HOST:PORT,.../PATH,
    /// srv:NAME or dns:NAME?members=FILE [default: dir: in the user's runtime directory]
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = variables::DISCOVERY,
        hide_env_values = true
    )]
    pub(crate) discovery: Option<String>,
    /// The cluster's name [default: default]
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = variables::CLUSTER,
        hide_env_values = true
    )]
    pub(crate) cluster: Option<String>,
    /// Copies of each object, 1 to 255; 255 = one on every member [default: 2,
    /// or 255 where the cluster's strategy is clone]
    #[arg(
        long,
        global = true,
        value_name = "N",
        env = variables::REPLICAS,
        hide_env_values = true,
        allow_negative_numbers = true,
        value_parser = replicas_of_text
    )]
    pub(crate) replicas: Option<u8>,
    /// How many owners must have an object before it counts as written
    /// [default: all]
    #[arg(
        long,
        global = true,
        env = variables::WRITE,
        hide_env_values = true,
        value_parser = write_policy()
    )]
    pub(crate) write: Option<WritePolicy>,
    /// One compact JSON object per line on stdout
    #[arg(
        long, global = true,
        env = "PUDDLE_JSON",
        hide_env_values = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "yes",
        value_name = "YES|NO",
        value_parser = yes_or_no_of_text
    )]
    pub(crate) json: Option<bool>,
    /// Nothing on stderr but errors
    #[arg(
        long, short, global = true,
        env = "PUDDLE_QUIET",
        hide_env_values = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "yes",
        value_name = "YES|NO",
        value_parser = yes_or_no_of_text
    )]
    pub(crate) quiet: Option<bool>,
    /// Settings in TOML; flags and PUDDLE_* come before them
    #[arg(long, global = true, value_name = "FILE", env = variables::CONFIG, hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
    /// The token, as a line KEY_ID:ROLE:SECRET in a file
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = variables::TOKEN_FILE,
        hide_env_values = true
    )]
    pub(crate) token_file: Option<PathBuf>,
    /// Where to keep the last good view of the cluster, for a start while discovery
    /// is down; or none [default: a file in the user's cache, for services]
    #[arg(
        long,
        global = true,
        value_name = "FILE|none",
        env = variables::VIEW_FILE,
        hide_env_values = true
    )]
    pub(crate) view_file: Option<PathBuf>,
    /// Read nothing where it lies, in the memory of servers on this machine
    #[arg(
        long, global = true,
        env = variables::NO_MAP,
        hide_env_values = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "yes",
        value_name = "YES|NO",
        value_parser = yes_or_no_of_text
    )]
    pub(crate) no_map: Option<bool>,
    /// There is no such option; only to say so well.
    #[arg(long, global = true, hide = true, num_args = 0..=1, default_missing_value = "",
          value_parser = UnknownArgumentValueParser::suggest_arg("--token-file")
              .and_suggest("everybody on this machine can read a command line: put the token into a file"))]
    pub(crate) token: Option<String>,
}

/// Copies that an object may ask for; 255 has a meaning of its own.
pub(crate) type ReplicasMax = Whole<1, 254>;
/// Connections of a server.
pub(crate) type Connections = Whole<1, 1_000_000>;
/// Files in flight at once.
pub(crate) type Jobs = Whole<1, 64>;
/// A processor's number.
pub(crate) type Processor = Whole<0, 1_000_000>;

/// Which weights make sense, discovery knows.
fn weight(text: &str) -> Result<f64, &'static str> {
    text.parse().map_err(|_| "expected a number, such as 1 or 2.5")
}

/// The words of the strategies.
fn strategy() -> impl TypedValueParser<Value = Strategy> {
    let words = PossibleValuesParser::new([
        PossibleValue::new("rendezvous").help("A contest of the members for each slot"),
        PossibleValue::new("ring").help("The next points on a ring"),
        PossibleValue::new("clone").help("Every member has a copy of everything"),
    ]);
    words.map(|word| word.parse().expect("these are the words of the strategies"))
}

/// The words of the write policies.
fn write_policy() -> impl TypedValueParser<Value = WritePolicy> {
    let words = PossibleValuesParser::new([
        PossibleValue::new("all").help("All of them"),
        PossibleValue::new("quorum").help("More than half"),
        PossibleValue::new("one").help("One"),
    ]);
    words.map(|word| word.parse().expect("these are the words of the policies"))
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a server
    Serve(Box<ServeArguments>),
    /// Run a cluster on this machine until Ctrl-C
    Up(UpArguments),
    /// Store a file as an object
    Put(PutArguments),
    /// Read an object into a file
    Get(GetArguments),
    /// List objects in the order of their names
    Ls(LsArguments),
    /// Show an object, and where its copies lie
    Stat(StatArguments),
    /// Delete objects
    Rm(RmArguments),
    /// List the servers: what discovery says, and what they say themselves
    Nodes(NodesArguments),
    /// Ask one server whether it answers, whoever else is there
    Ping(PingArguments),
    /// Show how full the servers are
    Df,
    /// Read every copy of all objects, and compare every block
    Verify(VerifyArguments),
    /// The four operations on values
    #[command(subcommand)]
    Raw(RawCommand),
    /// See it work: three servers, a large file, four readers, one kill -9
    Demo(DemoArguments),
    /// Print what makes a shell complete commands and options
    Completions(CompletionsArguments),
    /// Write the manual pages into a folder
    Man(ManArguments),
}

#[derive(Debug, Args)]
pub(crate) struct NodesArguments {
    #[command(subcommand)]
    pub(crate) command: Option<NodesCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodesCommand {
    /// Take servers that never come back out of the members
    ///
    /// Their share of the keys goes to the others. One that answers is refused.
    Forget(ForgetArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ForgetArguments {
    /// Their names
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Do not ask, also where nobody knows whether they still run
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// The member's name [default: the name of the host]
    #[arg(long, env = "PUDDLE_NAME", hide_env_values = true)]
    pub(crate) name: Option<String>,
    /// Where to listen; port 0 = any free one [default: 127.0.0.1:7117]
    #[arg(long, value_name = "ADDR:PORT", env = "PUDDLE_LISTEN", hide_env_values = true)]
    pub(crate) listen: Option<String>,
    /// Listen on this unix socket too
    #[arg(long, value_name = "PATH", env = "PUDDLE_SOCKET", hide_env_values = true)]
    pub(crate) socket: Option<PathBuf>,
    /// Size of the pool, a multiple of 64KiB [default: a quarter of the
    /// memory]
    #[arg(
        long,
        value_name = "SIZE",
        env = "PUDDLE_POOL",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(crate) pool: Option<Size>,
    /// Where others reach the server; port 0 = the one listened on [default:
    /// the address listened on]
    #[arg(long, value_name = "ADDR:PORT", env = "PUDDLE_ADVERTISE", hide_env_values = true)]
    pub(crate) advertise: Option<String>,
    /// Share of the keys relative to the other members [default: the pool's
    /// GiB]
    #[arg(
        long,
        value_name = "W",
        env = "PUDDLE_WEIGHT",
        hide_env_values = true,
        allow_hyphen_values = true,
        value_parser = weight
    )]
    pub(crate) weight: Option<f64>,
    /// What fails together with it, a rack or a room
    #[arg(long, value_name = "Z", env = "PUDDLE_ZONE", hide_env_values = true)]
    pub(crate) zone: Option<String>,
    /// Run on this processor
    #[arg(
        long,
        value_name = "N",
        env = "PUDDLE_CPU",
        hide_env_values = true,
        allow_negative_numbers = true
    )]
    pub(crate) cpu: Option<Processor>,
    /// Never sleep: ask the sockets again and again
    #[arg(
        long,
        env = "PUDDLE_BUSY_POLL",
        hide_env_values = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "yes",
        value_name = "YES|NO",
        value_parser = yes_or_no_of_text
    )]
    pub(crate) busy_poll: Option<bool>,
    /// Take the pool from reserved pages of 2 MiB
    #[arg(
        long,
        env = "PUDDLE_HUGE_PAGES",
        hide_env_values = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "yes",
        value_name = "YES|NO",
        value_parser = yes_or_no_of_text
    )]
    pub(crate) huge_pages: Option<bool>,
    /// Do not touch the pool's pages before serving
    #[arg(
        long,
        env = "PUDDLE_NO_PREFAULT",
        hide_env_values = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "yes",
        value_name = "YES|NO",
        value_parser = yes_or_no_of_text
    )]
    pub(crate) no_prefault: Option<bool>,
    /// Keep the pool from being swapped out
    #[arg(
        long,
        env = "PUDDLE_MLOCK",
        hide_env_values = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "yes",
        value_name = "YES|NO",
        value_parser = yes_or_no_of_text
    )]
    pub(crate) mlock: Option<bool>,
    /// Do not let programs on this machine, which come by the unix socket, read the
    /// pool's memory
    #[arg(
        long,
        env = "PUDDLE_NO_SHARE_POOL",
        hide_env_values = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "yes",
        value_name = "YES|NO",
        value_parser = yes_or_no_of_text
    )]
    pub(crate) no_share_pool: Option<bool>,
    /// Let the network device read answers of this size and more where they lie in
    /// the pool, 64KiB to 1MiB (large objects are asked for by the MiB); over loopback and unix sockets nothing is gained
    /// [default: all are copied]
    #[arg(
        long,
        value_name = "SIZE",
        env = "PUDDLE_ZERO_COPY_FROM",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(crate) zero_copy_from: Option<Size>,
    /// Listen beyond this machine without a token
    #[arg(
        long,
        env = "PUDDLE_INSECURE_PUBLIC",
        hide_env_values = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "yes",
        value_name = "YES|NO",
        value_parser = yes_or_no_of_text
    )]
    pub(crate) insecure_public: Option<bool>,
    /// Connections at once [default: 2048]
    #[arg(
        long,
        value_name = "N",
        env = "PUDDLE_CONNECTIONS",
        hide_env_values = true,
        allow_negative_numbers = true
    )]
    pub(crate) connections: Option<Connections>,
    /// Copies that an object may ask for, if this is the cluster's first
    /// server [default: 3]
    #[arg(
        long,
        value_name = "N",
        env = "PUDDLE_REPLICAS_MAX",
        hide_env_values = true,
        allow_negative_numbers = true
    )]
    pub(crate) replicas_max: Option<ReplicasMax>,
    /// How keys find their owners, if this is the cluster's first server
    /// [default: rendezvous]
    #[arg(long, env = "PUDDLE_STRATEGY", hide_env_values = true, value_parser = strategy())]
    pub(crate) strategy: Option<Strategy>,
    /// Print the settings in force as a config file, and do nothing else
    #[arg(long)]
    pub(crate) print_config: bool,
    /// Stop when the process that started this one ends.
    #[arg(long, hide = true, value_name = "PID", num_args = 0..=1, require_equals = true, default_missing_value = "0")]
    pub(crate) exit_with_parent: Option<i32>,
}

#[derive(Debug, Args)]
pub(crate) struct UpArguments {
    /// How many servers
    #[arg(short = 'n', long, value_name = "N", default_value = "3", allow_negative_numbers = true)]
    pub(crate) servers: Whole<1, 64>,
    /// Size of each server's pool
    #[arg(long, value_name = "SIZE", default_value = "1GiB", allow_hyphen_values = true)]
    pub(crate) pool: Size,
    /// How keys find their owners [default: rendezvous]
    #[arg(long, env = "PUDDLE_STRATEGY", hide_env_values = true, value_parser = strategy())]
    pub(crate) strategy: Option<Strategy>,
}

#[derive(Debug, Args)]
pub(crate) struct PutArguments {
    /// The file, or - for stdin; with -r a directory
    pub(crate) source: PathBuf,
    /// The object's name, 1 to 900 bytes [default: the file's]; with -r what
    /// comes before the / of all names [default: the directory's name, none
    /// for .]
    pub(crate) name: Option<OsString>,
    /// All files below a directory; what is there already, byte for byte and in
    /// all its copies, is not sent again
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// With -r: files in flight at once [default: 4]
    #[arg(short, long, value_name = "N", requires = "recursive", allow_negative_numbers = true)]
    pub(crate) jobs: Option<Jobs>,
    /// With -r: take symbolic links for what they name; else they are left out,
    /// and said to be
    #[arg(short = 'L', long, requires = "recursive")]
    pub(crate) dereference: bool,
    /// Refuse to replace an object
    #[arg(long)]
    pub(crate) no_clobber: bool,
    /// Replace this version of the object only, as `stat --json` prints it
    #[arg(
        long,
        value_name = "VERSION",
        conflicts_with_all = ["no_clobber", "recursive"],
        allow_hyphen_values = true
    )]
    pub(crate) if_version: Option<Version>,
    /// Never evict the object; servers of this version evict nothing
    #[arg(long)]
    pub(crate) keep: bool,
    /// How long the object lives, such as 90s, 15m, 2h or 7d [default: for good]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) ttl: Option<Ttl>,
    /// Length of a stripe, whole MiB up to 1GiB [default: 4MiB]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(crate) stripe: Option<Size>,
    /// Store each MiB compressed, if that makes it at least a sixteenth shorter
    #[arg(long, value_name = "CODEC", default_value = "none")]
    pub(crate) compress: Compress,
    /// Keep a value under a name beside the object; may be given several times
    #[arg(
        long,
        value_name = "NAME=VALUE",
        value_parser = OsStringValueParser::new().try_map(Meta::parse)
    )]
    pub(crate) meta: Vec<Meta>,
}

/// How `put` stores the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compress {
    /// As they are
    None,
    /// Little work
    Lz4,
    /// Shorter, and more work for the writer
    Zstd,
}

#[derive(Debug, Args)]
pub(crate) struct GetArguments {
    /// The object's name; with -r what comes before the / of all names, "" for
    /// all objects
    pub(crate) name: OsString,
    /// The file or folder to write to, or - for stdout [default: a file here,
    /// called as the name's last part]; with -r a folder, made if need be
    #[arg(required_if_eq("recursive", "true"))]
    pub(crate) dest: Option<PathBuf>,
    /// Only these bytes; sizes such as 1MiB:64KiB are fine
    #[arg(
        long,
        value_name = "OFFSET:LENGTH",
        allow_hyphen_values = true,
        conflicts_with = "recursive"
    )]
    pub(crate) range: Option<ByteRange>,
    /// All objects whose names begin with NAME/, as files below DEST; files that
    /// are the same already are left alone
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// With -r: files in flight at once [default: 4]
    #[arg(short, long, value_name = "N", requires = "recursive", allow_negative_numbers = true)]
    pub(crate) jobs: Option<Jobs>,
}

#[derive(Debug, Args)]
pub(crate) struct LsArguments {
    /// Only names that begin with this
    pub(crate) prefix: Option<OsString>,
    /// Bytes, copies wanted and time of writing too
    #[arg(short, long)]
    pub(crate) long: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatArguments {
    /// The object's name
    pub(crate) name: OsString,
}

#[derive(Debug, Args)]
pub(crate) struct RmArguments {
    /// The objects' names
    #[arg(required_unless_present = "prefix", conflicts_with = "prefix")]
    pub(crate) names: Vec<OsString>,
    /// All objects whose names begin with this
    #[arg(long, value_name = "P")]
    pub(crate) prefix: Option<OsString>,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PingArguments {
    /// HOST:PORT or unix:PATH [default: where `puddle serve` with the same settings
    /// listens]
    #[arg(value_name = "ADDRESS", env = "PUDDLE_LISTEN", hide_env_values = true)]
    pub(crate) address: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// Only objects whose names begin with this; without it, stripes that belong
    /// to no object are looked for too
    pub(crate) prefix: Option<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// For which shell
    pub(crate) shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArguments {
    /// The folder, such as ~/.local/share/man/man1; made if need be
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// The file [default: one of 1.1 GiB, made up]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RawCommand {
    /// Make a value of fixed length
    Create(RawCreateArguments),
    /// Write into a value; what lies behind its end is cut
    Scatter(RawScatterArguments),
    /// Read from a value to stdout; what lies behind its end is cut
    Gather(RawGatherArguments),
    /// Delete a key
    Delete(RawDeleteArguments),
}

#[derive(Debug, Args)]
pub(crate) struct RawKey {
    /// The key, 1 to 1,024 bytes
    pub(crate) key: OsString,
    /// This server, instead of the one that the key is placed on
    #[arg(long, value_name = "NAME")]
    pub(crate) server: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RawCreateArguments {
    #[command(flatten)]
    pub(crate) key: RawKey,
    /// The value's length, raised to 64KiB [default: that of --value]
    #[arg(
        long,
        value_name = "SIZE",
        allow_hyphen_values = true,
        required_unless_present = "value"
    )]
    pub(crate) length: Option<Size>,
    /// Its first bytes, from a file or from stdin (-); the rest reads as zero
    #[arg(long, value_name = "FILE|-", allow_hyphen_values = true)]
    pub(crate) value: Option<PathBuf>,
    /// Replace what is there
    #[arg(long)]
    pub(crate) replace: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RawScatterArguments {
    #[command(flatten)]
    pub(crate) key: RawKey,
    /// Where the bytes go
    #[arg(long, value_name = "N", default_value = "0", allow_hyphen_values = true)]
    pub(crate) offset: Size,
    /// The bytes, from a file or from stdin (-)
    #[arg(long, value_name = "FILE|-", allow_hyphen_values = true)]
    pub(crate) value: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct RawGatherArguments {
    #[command(flatten)]
    pub(crate) key: RawKey,
    /// The first byte wanted
    #[arg(long, value_name = "N", default_value = "0", allow_hyphen_values = true)]
    pub(crate) offset: Size,
    /// Bytes wanted
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) length: Size,
}

#[derive(Debug, Args)]
pub(crate) struct RawDeleteArguments {
    #[command(flatten)]
    pub(crate) key: RawKey,
}

//! Every setting of a node: its name, meaning, default and bounds, in one struct.
//!
//! The same struct is the TOML file's shape, the source of the `serve` flags and of the `XCRON_*` variables, and what
//! the node is built from. Where values come from and who wins is `config/load.rs`; printing them is `config/show.rs`.
//! Fixed bounds that no operator moves are in `limits.rs`.

mod load;
mod show;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::builder::BoolishValueParser;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use crate::id::GroupCount;
use crate::limits::{GROUPS_DEFAULT, SHARDS};

pub use load::{Flags, LoadError, Loaded, Source, check_file};
pub use show::show;

// Each field's `id` is its key in the file. Flag and variable follow from it: `fire.timeout_ms` is `--fire-timeout-ms`
// and `XCRON_FIRE_TIMEOUT_MS`; a test in `config/tests.rs` holds that. `required = false` because the value that is
// already in the struct (file or default) stays when no flag is given.

/// The settings of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port of the API; port 0 takes any free one
    #[arg(id = "listen", long, env = "XCRON_LISTEN", required = false, value_name = "IP:PORT")]
    pub listen: SocketAddr,
    /// Let `listen` be an address that other machines reach; there is no authentication yet
    #[arg(id = "allow_remote", long = "allow-remote", env = "XCRON_ALLOW_REMOTE", required = false, value_name = "BOOL",
        action = clap::ArgAction::Set, value_parser = BoolishValueParser::new(),
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub allow_remote: bool,
    /// Directory of everything the node stores; made when missing
    #[arg(id = "data", long, env = "XCRON_DATA", required = false, value_name = "DIR")]
    pub data: PathBuf,
    /// Raft groups of a new cluster, a divisor of 10240; without effect on data that exists
    #[arg(id = "groups", long, env = "XCRON_GROUPS", required = false, value_name = "COUNT", value_parser = parse_groups)]
    #[serde(deserialize_with = "deserialize_groups")]
    pub groups: GroupCount,
    /// Connections to the API at the same time; more wait to be accepted
    #[arg(
        id = "connections_max",
        long = "connections-max",
        env = "XCRON_CONNECTIONS_MAX",
        required = false,
        value_name = "COUNT"
    )]
    pub connections_max: u32,
    /// Time one API request may take, from its first byte to its answer
    #[arg(
        id = "request_timeout_ms",
        long = "request-timeout-ms",
        env = "XCRON_REQUEST_TIMEOUT_MS",
        required = false,
        value_name = "MS"
    )]
    pub request_timeout_ms: u64,
    /// Time a client may take to send the head of a request
    #[arg(
        id = "header_timeout_ms",
        long = "header-timeout-ms",
        env = "XCRON_HEADER_TIMEOUT_MS",
        required = false,
        value_name = "MS"
    )]
    pub header_timeout_ms: u64,
    /// How long finished and deleted tasks can be queried, and their ids stay taken
    #[arg(
        id = "retention_secs",
        long = "retention-secs",
        env = "XCRON_RETENTION_SECS",
        required = false,
        value_name = "SECS"
    )]
    pub retention_secs: u64,
    /// `--rejoin` of `serve`: a decision of one start, so neither the file nor a variable can hold it.
    #[arg(skip)]
    #[serde(skip)]
    pub rejoin: bool,
    /// Table `[fire]`: callbacks.
    #[command(flatten)]
    pub fire: Fire,
    /// Table `[store]`: the state on disk.
    #[command(flatten)]
    pub store: Store,
    /// Table `[log]`: what the node writes to stderr.
    #[command(flatten)]
    pub log: Log,
}

/// How callbacks are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Fire {
    /// Callbacks in flight at the same time, to all targets
    #[arg(
        id = "fire.in_flight_max",
        long = "fire-in-flight-max",
        env = "XCRON_FIRE_IN_FLIGHT_MAX",
        required = false,
        value_name = "COUNT"
    )]
    pub in_flight_max: u32,
    /// Callbacks in flight at the same time to one target (scheme, host and port)
    #[arg(
        id = "fire.in_flight_per_target_max",
        long = "fire-in-flight-per-target-max",
        env = "XCRON_FIRE_IN_FLIGHT_PER_TARGET_MAX",
        required = false,
        value_name = "COUNT"
    )]
    pub in_flight_per_target_max: u32,
    /// Time one attempt may take, connecting included
    #[arg(
        id = "fire.timeout_ms",
        long = "fire-timeout-ms",
        env = "XCRON_FIRE_TIMEOUT_MS",
        required = false,
        value_name = "MS"
    )]
    pub timeout_ms: u64,
    /// Time one attempt may take to connect
    #[arg(
        id = "fire.connect_timeout_ms",
        long = "fire-connect-timeout-ms",
        env = "XCRON_FIRE_CONNECT_TIMEOUT_MS",
        required = false,
        value_name = "MS"
    )]
    pub connect_timeout_ms: u64,
    /// How far ahead of now dues are held in memory
    #[arg(
        id = "fire.window_ms",
        long = "fire-window-ms",
        env = "XCRON_FIRE_WINDOW_MS",
        required = false,
        value_name = "MS"
    )]
    pub window_ms: u64,
    /// How many dues are held in memory at most, whatever `fire.window_ms` says
    #[arg(
        id = "fire.window_tasks_max",
        long = "fire-window-tasks-max",
        env = "XCRON_FIRE_WINDOW_TASKS_MAX",
        required = false,
        value_name = "COUNT"
    )]
    pub window_tasks_max: u32,
}

/// How the state is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// Memory for blocks of the state that were read from disk
    #[arg(
        id = "store.cache_bytes",
        long = "store-cache-bytes",
        env = "XCRON_STORE_CACHE_BYTES",
        required = false,
        value_name = "BYTES"
    )]
    pub cache_bytes: u64,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Form of a log line
    #[arg(
        id = "log.format",
        long = "log-format",
        env = "XCRON_LOG_FORMAT",
        required = false,
        value_name = "FORMAT"
    )]
    pub format: LogFormat,
    /// What is logged: a level (error, warn, info, debug, trace), or `target=level` pairs separated by commas
    #[arg(
        id = "log.filter",
        long = "log-filter",
        env = "XCRON_LOG_FILTER",
        required = false,
        value_name = "FILTER"
    )]
    pub filter: String,
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8_000)),
            allow_remote: false,
            data: PathBuf::from("./xcron-data"),
            groups: GroupCount::new(GROUPS_DEFAULT).expect("limits.rs asserts that the default divides SHARDS"),
            connections_max: 10_000,
            request_timeout_ms: 10_000,
            header_timeout_ms: 5_000,
            retention_secs: 24 * 60 * 60,
            rejoin: false,
            fire: Fire::default(),
            store: Store::default(),
            log: Log::default(),
        }
    }
}

impl Default for Fire {
    fn default() -> Self {
        Self {
            in_flight_max: 1_024,
            in_flight_per_target_max: 256,
            timeout_ms: 10_000,
            connect_timeout_ms: 3_000,
            window_ms: 60_000,
            window_tasks_max: 100_000,
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self { cache_bytes: 64 << 20 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: "info".to_owned(),
        }
    }
}

/// Why a value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A number outside its bounds; a bound may be the value of another key.
    #[error("{key} = {value}: must be {min} to {max}")]
    Range {
        /// The setting.
        key: &'static str,
        /// What it was set to.
        value: u64,
        /// Smallest value.
        min: u64,
        /// Largest value, and why if that is another setting.
        max: Max,
    },
    /// Other machines would reach an API that asks nobody who they are.
    #[error(
        "listen = {listen}: other machines can reach this address, and the API has no authentication yet. \
         Listen on 127.0.0.1, or set allow_remote = true (--allow-remote) if the network keeps strangers out"
    )]
    Remote {
        /// The address.
        listen: SocketAddr,
    },
    /// Not a path that can be used and printed.
    #[error("data: must be a path that is not empty and is UTF-8")]
    Data,
    /// Not a filter.
    #[error("log.filter = {filter:?}: {why}")]
    Filter {
        /// What it was set to.
        filter: String,
        /// The parser's reason.
        why: String,
    },
}

/// The upper bound of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Max {
    /// Fixed.
    Fixed(u64),
    /// The value of another setting.
    Setting(&'static str, u64),
}

impl Max {
    fn value(self) -> u64 {
        match self {
            Self::Fixed(value) | Self::Setting(_, value) => value,
        }
    }
}

impl std::fmt::Display for Max {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(value) => write!(f, "{value}"),
            Self::Setting(key, value) => write!(f, "{value} ({key})"),
        }
    }
}

impl Invalid {
    /// The setting that is wrong.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Range { key, .. } => key,
            Self::Remote { .. } => "listen",
            Self::Data => "data",
            Self::Filter { .. } => "log.filter",
        }
    }
}

const TIMEOUT_MS_MAX: u64 = 10 * 60 * 1_000;
const RETENTION_SECS_MAX: u64 = 10 * 366 * 24 * 60 * 60;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

impl Config {
    /// Checks what the types do not: bounds, and relations between settings. The first wrong setting is returned.
    pub fn validate(&self) -> Result<(), Invalid> {
        use Max::{Fixed, Setting};
        if !self.listen.ip().to_canonical().is_loopback() && !self.allow_remote {
            return Err(Invalid::Remote { listen: self.listen });
        }
        if self.data == Path::new("") || self.data.to_str().is_none() {
            return Err(Invalid::Data);
        }
        let fire = &self.fire;
        range("connections_max", self.connections_max, 1, Fixed(1_000_000))?;
        range("request_timeout_ms", self.request_timeout_ms, 1, Fixed(TIMEOUT_MS_MAX))?;
        let request_timeout = Setting("request_timeout_ms", self.request_timeout_ms);
        range("header_timeout_ms", self.header_timeout_ms, 1, request_timeout)?;
        range("retention_secs", self.retention_secs, 1, Fixed(RETENTION_SECS_MAX))?;
        range("fire.in_flight_max", fire.in_flight_max, 1, Fixed(100_000))?;
        let in_flight = Setting("fire.in_flight_max", fire.in_flight_max.into());
        range(
            "fire.in_flight_per_target_max",
            fire.in_flight_per_target_max,
            1,
            in_flight,
        )?;
        range("fire.timeout_ms", fire.timeout_ms, 1, Fixed(TIMEOUT_MS_MAX))?;
        let timeout = Setting("fire.timeout_ms", fire.timeout_ms);
        range("fire.connect_timeout_ms", fire.connect_timeout_ms, 1, timeout)?;
        range("fire.window_ms", fire.window_ms, 1_000, Fixed(DAY_MS))?;
        range("fire.window_tasks_max", fire.window_tasks_max, 1, Fixed(10_000_000))?;
        range("store.cache_bytes", self.store.cache_bytes, 1 << 20, Fixed(1 << 40))?;
        EnvFilter::builder()
            .parse(&self.log.filter)
            .map(drop)
            .map_err(|error| Invalid::Filter {
                filter: self.log.filter.clone(),
                why: error.to_string(),
            })
    }
}

fn range(key: &'static str, value: impl Into<u64>, min: u64, max: Max) -> Result<(), Invalid> {
    let value = value.into();
    if value < min || value > max.value() {
        return Err(Invalid::Range { key, value, min, max });
    }
    Ok(())
}

/// Why a number of groups is refused; clap and toml add where it stands.
#[derive(Debug, thiserror::Error)]
#[error("groups must divide {SHARDS} without a rest, as 16, 32, 64 and 128 do")]
struct NotADivisor;

fn group_count(count: u16) -> Result<GroupCount, NotADivisor> {
    GroupCount::new(count).ok_or(NotADivisor)
}

fn parse_groups(text: &str) -> Result<GroupCount, NotADivisor> {
    text.parse().map_err(|_| NotADivisor).and_then(group_count)
}

fn deserialize_groups<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<GroupCount, D::Error> {
    group_count(u16::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests;

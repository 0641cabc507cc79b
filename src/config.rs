//! Every setting of a node: its name, meaning, default and bounds, in one struct.
//!
//! The same struct is the TOML file's shape, the source of the `serve` flags and of the `XCRON_*` variables, and what
//! the node is built from. Where values come from and who wins is `config/load.rs`; printing them is `config/show.rs`.
//! Fixed bounds that no operator moves are in `limits.rs`.

mod check;
mod cluster;
mod listen;
mod load;
mod show;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use serde::{Deserialize, Serialize};

use crate::core::retry::RetryPolicy;
use crate::id::GroupCount;
use crate::limits::{CLOCK_HOLD_SECS_DEFAULT, GROUPS_DEFAULT, REPLICAS_DEFAULT, SHARDS};
use crate::open_files::Shares;

pub use check::{Invalid, Max};
pub use cluster::{PeerListen, Seeds};
pub use listen::{HostNames, NotAListen};
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
    #[arg(id = "listen", long, env = "XCRON_LISTEN", required = false, value_name = "IP:PORT",
        value_parser = listen::parse)]
    #[serde(deserialize_with = "listen::deserialize")]
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
    /// Address and port for the other nodes (TCP and UDP), one that they can reach; empty: a node alone
    #[arg(
        id = "peer_listen",
        long = "peer-listen",
        env = "XCRON_PEER_LISTEN",
        required = false,
        value_name = "IP:PORT"
    )]
    pub peer_listen: PeerListen,
    /// Address and port at which the other nodes reach this one, where that is not `peer_listen`: behind NAT or a port mapping
    #[arg(
        id = "peer_advertise",
        long = "peer-advertise",
        env = "XCRON_PEER_ADVERTISE",
        required = false,
        value_name = "IP:PORT"
    )]
    pub peer_advertise: PeerListen,
    /// Peer addresses (host:port) of all other nodes of the cluster
    #[arg(
        id = "join",
        long = "join",
        env = "XCRON_JOIN",
        required = false,
        value_name = "ADDR[,ADDR]"
    )]
    pub join: Seeds,
    /// What fails together with this node (a rack, a site): copies of a task are kept in different zones where possible
    #[arg(
        id = "zone",
        long = "zone",
        env = "XCRON_ZONE",
        required = false,
        value_name = "NAME"
    )]
    pub zone: String,
    /// File with the cluster's secret, a key on each line; empty: the file `secret` of the data directory
    #[arg(
        id = "secret_file",
        long = "secret-file",
        env = "XCRON_SECRET_FILE",
        required = false,
        value_name = "FILE"
    )]
    pub secret_file: PathBuf,
    /// Copies of every task, where there are so many nodes: 1, 3, 5 or 7
    #[arg(
        id = "replicas",
        long = "replicas",
        env = "XCRON_REPLICAS",
        required = false,
        value_name = "COUNT"
    )]
    pub replicas: u8,
    /// Time a node must be dead before its copies are made elsewhere
    #[arg(
        id = "replace_after_secs",
        long = "replace-after-secs",
        env = "XCRON_REPLACE_AFTER_SECS",
        required = false,
        value_name = "SECS"
    )]
    pub replace_after_secs: u64,
    /// Time a jump of the wall clock by more than five minutes is held that no other node can confirm
    #[arg(
        id = "clock_hold_secs",
        long = "clock-hold-secs",
        env = "XCRON_CLOCK_HOLD_SECS",
        required = false,
        value_name = "SECS"
    )]
    pub clock_hold_secs: u64,
    /// Connections to the API at the same time; for one more the longest idle one is closed
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
    /// Time a client's connection to the API may stay idle between two requests
    #[arg(
        id = "keep_alive_ms",
        long = "keep-alive-ms",
        env = "XCRON_KEEP_ALIVE_MS",
        required = false,
        value_name = "MS"
    )]
    pub keep_alive_ms: u64,
    /// Host names by which clients may call a node that listens on loopback, as behind a proxy; `.example.com` for all below
    #[arg(
        id = "allowed_hosts",
        long = "allowed-hosts",
        env = "XCRON_ALLOWED_HOSTS",
        required = false,
        value_name = "NAME[,NAME]"
    )]
    pub allowed_hosts: HostNames,
    /// Time a stop may take, from the signal on: what runs then is cut, and done again by whoever leads next
    #[arg(
        id = "stop_timeout_ms",
        long = "stop-timeout-ms",
        env = "XCRON_STOP_TIMEOUT_MS",
        required = false,
        value_name = "MS"
    )]
    pub stop_timeout_ms: u64,
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
    /// Whether `groups` was set by somebody: then data with another number is worth a warning.
    #[arg(skip)]
    #[serde(skip)]
    pub chose_groups: bool,
    /// What each part of the node may have open: found at start, never set.
    #[arg(skip)]
    #[serde(skip)]
    pub files: Shares,
    /// Table `[fire]`: callbacks.
    #[command(flatten)]
    pub fire: Fire,
    /// Table `[retry]`: callbacks that failed.
    #[command(flatten)]
    pub retry: Retry,
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

/// How often and how soon a failed callback is tried again: [`RetryPolicy`] as settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Attempts of one fire in all, the first included
    #[arg(
        id = "retry.attempts_max",
        long = "retry-attempts-max",
        env = "XCRON_RETRY_ATTEMPTS_MAX",
        required = false,
        value_name = "COUNT"
    )]
    pub attempts_max: u16,
    /// Delay before the second attempt; doubled for each further one
    #[arg(
        id = "retry.first_delay_ms",
        long = "retry-first-delay-ms",
        env = "XCRON_RETRY_FIRST_DELAY_MS",
        required = false,
        value_name = "MS"
    )]
    pub first_delay_ms: u64,
    /// Longest delay between two attempts, unless the target asks for more
    #[arg(
        id = "retry.delay_max_ms",
        long = "retry-delay-max-ms",
        env = "XCRON_RETRY_DELAY_MAX_MS",
        required = false,
        value_name = "MS"
    )]
    pub delay_max_ms: u64,
    /// Part of each delay that is drawn at random, so that fires that failed together do not come back together
    #[arg(
        id = "retry.jitter_percent",
        long = "retry-jitter-percent",
        env = "XCRON_RETRY_JITTER_PERCENT",
        required = false,
        value_name = "PERCENT"
    )]
    pub jitter_percent: u8,
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
    /// What is logged: a level (error, warn, info, debug, trace), or `target=level` pairs separated by commas; the Raft
    /// library is silent unless it is named (`info,openraft=error`)
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
            peer_listen: PeerListen::default(),
            peer_advertise: PeerListen::default(),
            join: Seeds::default(),
            zone: String::new(),
            secret_file: PathBuf::new(),
            replicas: REPLICAS_DEFAULT,
            replace_after_secs: 5 * 60,
            clock_hold_secs: CLOCK_HOLD_SECS_DEFAULT,
            connections_max: 10_000,
            request_timeout_ms: 10_000,
            header_timeout_ms: 5_000,
            keep_alive_ms: 75_000,
            allowed_hosts: HostNames::default(),
            stop_timeout_ms: 8_000,
            retention_secs: 24 * 60 * 60,
            rejoin: false,
            chose_groups: false,
            files: Shares::default(),
            fire: Fire::default(),
            retry: Retry::default(),
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

impl Default for Retry {
    fn default() -> Self {
        let RetryPolicy {
            attempts_max,
            first_delay_ms,
            delay_max_ms,
            jitter_percent,
        } = RetryPolicy::default();
        Self {
            attempts_max,
            first_delay_ms,
            delay_max_ms,
            jitter_percent,
        }
    }
}

impl From<Retry> for RetryPolicy {
    fn from(settings: Retry) -> Self {
        let Retry {
            attempts_max,
            first_delay_ms,
            delay_max_ms,
            jitter_percent,
        } = settings;
        Self {
            attempts_max,
            first_delay_ms,
            delay_max_ms,
            jitter_percent,
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

//! Checks settings: their bounds, and what one demands of another. Called by `config/load.rs`.

use std::net::SocketAddr;
use std::path::Path;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::{Config, Retry};
use crate::core::retry::{ATTEMPTS_MAX, DELAY_MS_MAX};
use crate::limits::{REPLICAS_MAX, ZONE_BYTES_MAX};

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
    /// An even number of voters survives no more failures than one less.
    #[error("replicas = {replicas}: must be odd, from 1 to {REPLICAS_MAX}: an even number survives no more failures")]
    Replicas {
        /// What it was set to.
        replicas: u8,
    },
    /// Others could not call back.
    #[error(
        "peer_listen = {listen}: other nodes are told this address, so it must be one of this machine's; or name the one at \
         which they reach it with peer_advertise (--peer-advertise)"
    )]
    PeerListen {
        /// The address.
        listen: SocketAddr,
    },
    /// Others could not call back there either.
    #[error(
        "peer_advertise = {advertise}: must be an address and port at which other nodes reach this one, of the same kind \
         (IPv4 or IPv6) as peer_listen, which is needed too"
    )]
    PeerAdvertise {
        /// The address.
        advertise: SocketAddr,
    },
    /// A node that joins others must be reached by them.
    #[error("join: needs peer_listen (--peer-listen), the address at which the other nodes reach this one")]
    Join,
    /// Too long, or with signs that a table could not show.
    #[error("zone = {zone:?}: must have at most {ZONE_BYTES_MAX} letters, digits, and . _ -")]
    Zone {
        /// What it was set to.
        zone: String,
    },
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
            Self::Replicas { .. } => "replicas",
            Self::PeerListen { .. } => "peer_listen",
            Self::PeerAdvertise { .. } => "peer_advertise",
            Self::Join => "join",
            Self::Zone { .. } => "zone",
            Self::Filter { .. } => "log.filter",
        }
    }
}

const TIMEOUT_MS_MAX: u64 = 10 * 60 * 1_000;
const REPLACE_AFTER_SECS_MAX: u64 = 30 * 24 * 60 * 60;
const CLOCK_HOLD_SECS_MAX: u64 = 24 * 60 * 60;
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
        self.validate_cluster()?;
        let fire = &self.fire;
        range("connections_max", self.connections_max, 1, Fixed(1_000_000))?;
        range("request_timeout_ms", self.request_timeout_ms, 1, Fixed(TIMEOUT_MS_MAX))?;
        let request_timeout = Setting("request_timeout_ms", self.request_timeout_ms);
        range("header_timeout_ms", self.header_timeout_ms, 1, request_timeout)?;
        range(
            "replace_after_secs",
            self.replace_after_secs,
            10,
            Fixed(REPLACE_AFTER_SECS_MAX),
        )?;
        range("keep_alive_ms", self.keep_alive_ms, 1, Fixed(DAY_MS))?;
        range("stop_timeout_ms", self.stop_timeout_ms, 100, Fixed(TIMEOUT_MS_MAX))?;
        range("clock_hold_secs", self.clock_hold_secs, 1, Fixed(CLOCK_HOLD_SECS_MAX))?;
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
        self.retry.validate()?;
        range("store.cache_bytes", self.store.cache_bytes, 1 << 20, Fixed(1 << 40))?;
        let filter = &self.log.filter;
        let refused = |why: String| Invalid::Filter {
            filter: filter.clone(),
            why,
        };
        EnvFilter::builder()
            .parse(filter)
            .map_err(|error| refused(error.to_string()))?;
        match misspelt_level(filter) {
            Some(word) => Err(refused(format!(
                "{word:?} is no level, and as the name of a module it would silence all others: give trace, debug, info, warn, error \
                 or off, and a module as in info,xcron::raft=debug"
            ))),
            None => Ok(()),
        }
    }
}

/// A part of the filter that the parser takes for a module of its own, and its author most likely for a level.
fn misspelt_level(filter: &str) -> Option<&str> {
    let parts = filter.split(',').map(str::trim).filter(|part| !part.is_empty());
    let is_level = |part: &str| part.parse::<LevelFilter>().is_ok();
    let is_module =
        |part: &str| part.contains(['=', ':', '[']) || part.starts_with("xcron") || part.starts_with("openraft");
    parts.into_iter().find(|part| !is_level(part) && !is_module(part))
}

impl Config {
    fn validate_cluster(&self) -> Result<(), Invalid> {
        if self.replicas.is_multiple_of(2) || self.replicas > REPLICAS_MAX {
            return Err(Invalid::Replicas {
                replicas: self.replicas,
            });
        }
        if let Some(advertise) = self.peer_advertise.0 {
            let is_of_its_kind = |listen: SocketAddr| listen.is_ipv4() == advertise.is_ipv4();
            let fits = self.peer_listen.0.is_some_and(is_of_its_kind);
            if !fits || advertise.ip().is_unspecified() || advertise.port() == 0 {
                return Err(Invalid::PeerAdvertise { advertise });
            }
        }
        if let Some(listen) = self.peer_listen.0
            && listen.ip().is_unspecified()
            && self.peer_advertise.0.is_none()
        {
            return Err(Invalid::PeerListen { listen });
        }
        if !self.join.0.is_empty() && self.peer_listen.0.is_none() {
            return Err(Invalid::Join);
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if self.zone.len() > ZONE_BYTES_MAX || !self.zone.bytes().all(allowed) {
            return Err(Invalid::Zone {
                zone: self.zone.clone(),
            });
        }
        Ok(())
    }
}

impl Retry {
    fn validate(self) -> Result<(), Invalid> {
        range(
            "retry.attempts_max",
            self.attempts_max,
            1,
            Max::Fixed(ATTEMPTS_MAX.into()),
        )?;
        range("retry.delay_max_ms", self.delay_max_ms, 1, Max::Fixed(DELAY_MS_MAX))?;
        let delay_max = Max::Setting("retry.delay_max_ms", self.delay_max_ms);
        range("retry.first_delay_ms", self.first_delay_ms, 1, delay_max)?;
        range("retry.jitter_percent", self.jitter_percent, 0, Max::Fixed(100))
    }
}

fn range(key: &'static str, value: impl Into<u64>, min: u64, max: Max) -> Result<(), Invalid> {
    let value = value.into();
    if value < min || value > max.value() {
        return Err(Invalid::Range { key, value, min, max });
    }
    Ok(())
}

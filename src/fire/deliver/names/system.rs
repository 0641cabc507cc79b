//! Asks the machine's name servers, as `/etc/hosts` and `/etc/resolv.conf` say, and reads both again when they have changed.
//!
//! Owns how names are asked for: the order of addresses, search domains, tries. Keeps no answer. Used by `names.rs` alone, and
//! the only user of the resolver library.

use std::fs::Metadata;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Hosts, TokioResolver};
use parking_lot::Mutex;

use super::{Asked, Found, Lookup, LookupError};
use crate::clock::Clock;
use crate::limits::{LOOKUP_TRY_MS_MAX, NAME_FRESH_MS_MIN};

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Most tries after the first one, whatever the file says.
const REPEATS_MAX: usize = 2;

/// The machine's way to resolve names.
#[derive(Debug)]
pub(in crate::fire::deliver) struct SystemLookup {
    clock: Arc<dyn Clock>,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    way: Arc<Way>,
    /// What the files looked like when they were read, and when that was looked at.
    seen: [Option<Seen>; 2],
    looked: Duration,
}

/// Which version of a file it is.
type Seen = (u64, i64, i64, u64);

/// What was read.
struct Way {
    hosts: Hosts,
    resolver: TokioResolver,
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Way").finish_non_exhaustive()
    }
}

impl SystemLookup {
    /// Reads both files. One that is missing or damaged is told in the log; without name servers, this machine's own is asked.
    pub(in crate::fire::deliver) fn new(clock: Arc<dyn Clock>) -> Self {
        let current = Current {
            seen: seen(),
            looked: clock.monotonic(),
            way: Arc::new(read()),
        };
        let current = Mutex::new(current);
        Self { clock, current }
    }

    /// The files are small and local, and looked at once in some seconds: that does not hold up the runtime.
    fn way(&self) -> Arc<Way> {
        let now = self.clock.monotonic();
        let mut current = self.current.lock();
        if now.saturating_sub(current.looked) >= LOOK_INTERVAL {
            current.looked = now;
            let seen = seen();
            if seen != current.seen {
                current.seen = seen;
                current.way = Arc::new(read());
                tracing::info!("{HOSTS} or {RESOLV_CONF} has changed: names of targets are asked for as it says now");
            }
        }
        current.way.clone()
    }
}

impl Lookup for SystemLookup {
    fn lookup(&self, name: &str) -> Asked {
        let way = self.way();
        let name = name.to_owned();
        Box::pin(async move { way.lookup(&name).await })
    }
}

fn seen() -> [Option<Seen>; 2] {
    let version = |meta: Metadata| (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size());
    [HOSTS, RESOLV_CONF].map(|file| Path::new(file).metadata().ok().map(version))
}

fn read() -> Way {
    let hosts = Hosts::from_system().unwrap_or_else(|error| {
        tracing::warn!(%error, "{HOSTS} cannot be read: names of targets are asked of name servers alone");
        Hosts::default()
    });
    let (config, options) = read_system_conf().unwrap_or_else(|error| {
        tracing::warn!(%error, "{RESOLV_CONF} names no name server: the one of this machine is asked, at 127.0.0.1");
        let own = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
        (ResolverConfig::from_name_servers(vec![own]), ResolverOpts::default())
    });
    Way::new(hosts, config, options)
}

impl Way {
    fn new(hosts: Hosts, config: ResolverConfig, mut options: ResolverOpts) -> Self {
        options.timeout = options.timeout.min(Duration::from_millis(LOOKUP_TRY_MS_MAX));
        options.attempts = options.attempts.min(REPEATS_MAX);
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        // Each is done here, or one level up.
        options.use_hosts_file = ResolveHosts::Never;
        options.cache_size = 0;
        // One socket for each kind of address.
        options.num_concurrent_reqs = 1;
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let resolver = builder.build().expect("without TLS nothing in it can fail");
        Self { hosts, resolver }
    }

    async fn lookup(&self, name: &str) -> Result<Found, LookupError> {
        // An address that a name server would give may differ: a name that stands in the file is not asked for.
        if let Some(addresses) = self.of_this_machine(name) {
            let ttl = Duration::from_millis(NAME_FRESH_MS_MIN);
            return Ok(Found { addresses, ttl });
        }
        // Not by the rules of host names: underscores are usual inside of clusters.
        let name = Name::from_ascii(name).map_err(|_| LookupError::NoAddress)?;
        let lookup = self.resolver.lookup_ip(name).await.map_err(|error| told(&error))?;
        let addresses: Arc<[IpAddr]> = lookup.iter().collect();
        if addresses.is_empty() {
            return Err(LookupError::NoAddress);
        }
        let answers = lookup.as_lookup().answers();
        let ttl = answers.iter().map(|record| record.ttl).min().unwrap_or(0);
        let ttl = Duration::from_secs(ttl.into());
        Ok(Found { addresses, ttl })
    }

    fn of_this_machine(&self, name: &str) -> Option<Arc<[IpAddr]>> {
        let bare = name.strip_suffix('.').unwrap_or(name);
        let parsed = Name::from_ascii(bare).ok()?;
        let of_kind = |kind| {
            let lookup = self.hosts.lookup_static_host(&Query::query(parsed.clone(), kind))?;
            let addresses: Vec<_> = lookup
                .answers()
                .iter()
                .filter_map(|record| record.data.ip_addr())
                .collect();
            Some(addresses)
        };
        let found: Arc<[IpAddr]> = [RecordType::A, RecordType::AAAA]
            .into_iter()
            .filter_map(of_kind)
            .flatten()
            .collect();
        if !found.is_empty() {
            return Some(found);
        }
        let is_localhost = bare == "localhost" || bare.ends_with(".localhost");
        is_localhost.then(|| [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].into())
    }
}

fn told(error: &NetError) -> LookupError {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(_)) => LookupError::NoAddress,
        NetError::Timeout => LookupError::NoAnswer,
        NetError::Io(error) => of_io(error),
        other => LookupError::Failed(other.to_string()),
    }
}

/// A name server's port may be closed; all else is this node's own trouble.
fn of_io(error: &io::Error) -> LookupError {
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset, _) | (_, None) => {
            LookupError::Failed(error.to_string())
        }
        (_, Some(code)) => LookupError::Local(code),
    }
}

#[cfg(test)]
mod tests;

//! The addresses of the seeds: checked as text, then resolved again and again, since a name may come to mean another machine.
//! Used by `mod.rs`, which starts the resolving.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::transport::Network;

/// Time between two resolutions of the seeds' names, and the most that one name may take.
const RESOLVE_EVERY: Duration = Duration::from_secs(10);
/// Most addresses taken from one name.
const ADDRESSES_PER_NAME_MAX: usize = 16;

/// The seeds as given: addresses, and names to be resolved.
#[derive(Debug)]
pub(super) struct Seeds {
    addresses: BTreeSet<SocketAddr>,
    names: Vec<String>,
}

impl Seeds {
    /// Sorts `texts`; the first one that is neither an address nor `host:port` is the error.
    pub(super) fn parse(texts: &[String]) -> Result<Self, String> {
        let mut seeds = Self {
            addresses: BTreeSet::new(),
            names: Vec::new(),
        };
        for text in texts {
            if let Ok(address) = text.parse() {
                seeds.addresses.insert(address);
            } else if is_name(text) {
                seeds.names.push(text.clone());
            } else {
                return Err(text.clone());
            }
        }
        Ok(seeds)
    }

    /// The addresses that need no resolving.
    pub(super) fn addresses(&self) -> &BTreeSet<SocketAddr> {
        &self.addresses
    }

    /// Resolves the names for as long as somebody looks at `found`. A name that cannot be resolved keeps its addresses.
    pub(super) async fn keep_resolved(self, network: Arc<dyn Network>, found: watch::Sender<BTreeSet<SocketAddr>>) {
        let mut known: BTreeMap<&str, Vec<SocketAddr>> = BTreeMap::new();
        let mut failing: BTreeSet<&str> = BTreeSet::new();
        while !self.names.is_empty() && !found.is_closed() {
            for name in &self.names {
                let error = match timeout(RESOLVE_EVERY, network.resolve(name)).await {
                    Ok(Ok(mut addresses)) => {
                        addresses.truncate(ADDRESSES_PER_NAME_MAX);
                        known.insert(name, addresses);
                        failing.remove(name.as_str());
                        continue;
                    }
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => format!("no answer in {} s", RESOLVE_EVERY.as_secs()),
                };
                if failing.insert(name) {
                    tracing::warn!(
                        seed = name,
                        error,
                        "gossip: a seed's name cannot be resolved; trying on"
                    );
                }
            }
            let all: BTreeSet<SocketAddr> = known.values().flatten().chain(&self.addresses).copied().collect();
            found.send_if_modified(|found| {
                let is_changed = *found != all;
                *found = all;
                is_changed
            });
            sleep(RESOLVE_EVERY).await;
        }
    }
}

fn is_name(text: &str) -> bool {
    let parts = text.rsplit_once(':');
    parts.is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains([':', '/', ' ']) && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

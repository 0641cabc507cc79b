//! Founding a cluster: only on the word of `xcron cluster init`, and never beside one that can be reached.
//!
//! The node says at its peer port that it is founding, then asks every address that it knows, over TCP, who is there. A cluster
//! anywhere ends the attempt, as does a call from a member of one, who takes this node for what it was before it lost its disk. Of two nodes that are founding at the same moment the one with the lower id goes on, when it has
//! seen the other give up: each says it before it asks, so at least one of the two sees the other. What cannot be reached
//! cannot be asked: two nodes apart from each other, each told to found, make two clusters. Used by `enter.rs`.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use crate::cluster::init::InitError;
use crate::id::NodeId;
use crate::membership::Network;
use crate::net::{Dial, Greeting, Peer, Refusal};

/// Most addresses asked; names of `--join` are looked up in their order.
const ADDRESSES_MAX: usize = 256;
/// Longest time that the names of `--join` may take to be looked up.
const RESOLVE: Duration = Duration::from_secs(2);
/// Pause before those who were silent are asked once more, and before a node that is founding as well is.
const AGAIN: Duration = Duration::from_millis(300);
/// How often addresses are asked in all.
const ROUNDS_MAX: usize = 10;

/// What a founding node asks with.
pub(super) struct Asking<'a> {
    /// This node.
    pub node: NodeId,
    /// What it says at its peer port.
    pub greeting: &'a Greeting,
    /// The way to the others.
    pub dialer: &'a dyn Dial,
    /// Looks names up.
    pub network: &'a Arc<dyn Network>,
    /// Addresses and names of `--join`.
    pub join: &'a [String],
    /// Addresses of others that gossip has heard of.
    pub heard: BTreeSet<SocketAddr>,
}

/// Whether this node may found a cluster; if so, it goes on saying that it does. Returns who did not answer.
pub(super) async fn may_found(asking: &Asking<'_>) -> Result<Vec<String>, InitError> {
    asking.greeting.set_founding(true);
    let outcome = find_out(asking)
        .await
        .and_then(|silent| match asking.greeting.called() {
            Some((cluster, peer)) => Err(InitError::Exists { peer, cluster }),
            None => Ok(silent),
        });
    if outcome.is_err() {
        asking.greeting.set_founding(false);
    }
    outcome
}

async fn find_out(asking: &Asking<'_>) -> Result<Vec<String>, InitError> {
    let (addresses, mut silent) = resolve(asking.network, asking.join).await;
    let mut to_ask: Vec<SocketAddr> = addresses.union(&asking.heard).copied().take(ADDRESSES_MAX).collect();
    let mut rivals = BTreeSet::new();
    for round in 0..ROUNDS_MAX {
        let answers = join_all(
            to_ask
                .iter()
                .map(|address| asking.greeting.ask(asking.dialer, *address)),
        )
        .await;
        let mut again = Vec::new();
        for (peer, answer) in to_ask.into_iter().zip(answers) {
            match judge(asking.node, peer, &answer)? {
                Heard::Nothing if rivals.contains(&peer) => return Err(InitError::Elsewhere { peer }),
                Heard::Nothing if round == 0 => again.push(peer),
                Heard::Nothing => silent.push(peer.to_string()),
                Heard::Rival => {
                    rivals.insert(peer);
                    again.push(peer);
                }
                Heard::Waits => {
                    rivals.remove(&peer);
                }
            }
        }
        if again.is_empty() {
            return Ok(silent);
        }
        to_ask = again;
        sleep(AGAIN).await;
    }
    // Those left are founding as well, and do not come to an end.
    let rival = rivals.first().or(to_ask.first());
    Err(rival.map_or(InitError::Stopping, |peer| InitError::Elsewhere { peer: *peer }))
}

/// What an answer means for a node that is founding, unless it forbids it.
enum Heard {
    /// It waits as well.
    Waits,
    /// It is founding too, and gives way.
    Rival,
    /// There was no answer.
    Nothing,
}

fn judge(own: NodeId, address: SocketAddr, answer: &Result<Peer, Refusal>) -> Result<Heard, InitError> {
    let Ok(peer) = answer else { return Ok(Heard::Nothing) };
    if let Some(cluster) = peer.cluster.filter(|_| peer.node != own) {
        return Err(InitError::Exists { peer: address, cluster });
    }
    match peer.node.cmp(&own) {
        Ordering::Less if peer.is_founding => Err(InitError::Elsewhere { peer: address }),
        Ordering::Greater if peer.is_founding => Ok(Heard::Rival),
        _ => Ok(Heard::Waits),
    }
}

/// The addresses of `--join`, and the names that have none.
pub(super) async fn resolve(network: &Arc<dyn Network>, join: &[String]) -> (BTreeSet<SocketAddr>, Vec<String>) {
    let (mut addresses, mut unknown) = (BTreeSet::new(), Vec::new());
    let resolved = join.iter().map(async |text| match text.parse() {
        Ok(address) => vec![address],
        Err(_) => match timeout(RESOLVE, network.resolve(text)).await {
            Ok(Ok(addresses)) => addresses,
            _ => Vec::new(),
        },
    });
    for (text, found) in join.iter().zip(join_all(resolved).await) {
        if found.is_empty() {
            unknown.push(text.clone());
        }
        addresses.extend(found);
    }
    (addresses, unknown)
}

/// Says it when somebody set another number of groups than the cluster has.
pub(super) fn warn_of_groups(config: &crate::config::Config, groups: crate::id::GroupCount) {
    if config.chose_groups && config.groups != groups {
        tracing::warn!(
            groups = groups.get(),
            setting = config.groups.get(),
            "the setting groups is without effect: this cluster was founded with another number, which stays"
        );
    }
}

#[cfg(test)]
mod tests;

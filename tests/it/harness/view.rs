//! What `GET /v1/cluster` says, and whether the cluster it shows has come to rest.
//!
//! Pure: reading it over HTTP is `cluster.rs`'s.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::Deserialize;

/// How much more than its even share a node may hold, in percent of it; what is not whole is rounded up.
const SHARE_PERCENT_MAX: usize = 105;

/// The cluster as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct View {
    /// The cluster's id.
    pub cluster: String,
    /// The nodes that are known.
    pub nodes: Vec<NodeView>,
    /// The groups.
    pub groups: Vec<GroupView>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct NodeView {
    /// Its id.
    pub id: String,
    /// Where its API is.
    pub api: SocketAddr,
    /// Whether it is believed to live.
    pub alive: bool,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct GroupView {
    /// Its number.
    pub group: u16,
    /// The node that leads it.
    pub leader: Option<String>,
    /// Its voters.
    pub voters: BTreeSet<String>,
    /// Its learners.
    pub learners: BTreeSet<String>,
    /// Where it should be.
    pub planned: BTreeSet<String>,
}

impl View {
    /// The node whose API is at this address.
    pub fn node_at(&self, api: SocketAddr) -> Option<&NodeView> {
        self.nodes.iter().find(|node| node.api == api)
    }

    /// The ids of all nodes.
    pub fn ids(&self) -> BTreeSet<String> {
        self.nodes.iter().map(|node| node.id.clone()).collect()
    }

    /// How many groups each node leads; nodes that lead none are not in it.
    pub fn led(&self) -> BTreeMap<&str, usize> {
        let mut led = BTreeMap::new();
        for leader in self.groups.iter().filter_map(|group| group.leader.as_deref()) {
            *led.entry(leader).or_default() += 1;
        }
        led
    }

    /// How many groups each node holds a copy of.
    pub fn held(&self) -> BTreeMap<&str, usize> {
        let mut held = BTreeMap::new();
        for node in self.groups.iter().flat_map(|group| group.voters.union(&group.learners)) {
            *held.entry(node.as_str()).or_default() += 1;
        }
        held
    }

    /// The API of the node that leads most groups.
    pub fn busiest(&self) -> Option<SocketAddr> {
        let led = self.led();
        let (busiest, _) = led.into_iter().max_by_key(|(_, count)| *count)?;
        Some(self.nodes.iter().find(|node| node.id == busiest)?.api)
    }

    /// Why a cluster of just these nodes (by their APIs) is not at rest yet: each group led, where it should be, and the
    /// load even. `None` if it is.
    pub fn unrest(&self, apis: &[SocketAddr]) -> Option<String> {
        let alive = self.nodes.iter().filter(|node| node.alive);
        let alive: BTreeSet<SocketAddr> = alive.map(|node| node.api).collect();
        if alive != apis.iter().copied().collect() {
            return Some(format!("it believes that {alive:?} live, and not {apis:?}"));
        }
        if self.groups.is_empty() {
            return Some("it shows no groups".to_owned());
        }
        for group in &self.groups {
            let held: BTreeSet<String> = group.voters.union(&group.learners).cloned().collect();
            // The largest odd number of them votes.
            let voting = group.planned.len().saturating_sub(1) | 1;
            if group.leader.is_none() || held != group.planned || group.voters.len() != voting {
                return Some(format!("not led, or not where it should be: {group:?}"));
            }
        }
        let copies: usize = self.groups.iter().map(|group| group.planned.len()).sum();
        let uneven = |what: &str, counts: BTreeMap<&str, usize>, total: usize| {
            let most = (total * SHARE_PERCENT_MAX).div_ceil(apis.len() * 100);
            let is_even = counts.len() == apis.len() && counts.values().all(|&count| count <= most);
            (!is_even).then(|| format!("{what}: {counts:?}, at most {most} each are even"))
        };
        let led = || uneven("led", self.led(), self.groups.len());
        // Of two nodes one votes for all.
        uneven("copies", self.held(), copies).or_else(|| if apis.len() == 2 { None } else { led() })
    }
}

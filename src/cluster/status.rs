//! What a cluster looks like: what each node reports of itself, and the picture that is put together from it.
//!
//! The report goes between nodes (append-only), the picture is the JSON of `GET /v1/cluster`, which `xcron cluster` reads.

mod problems;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::core::plan::Plan;
use crate::core::record::{self, RecordError};
use crate::id::{GroupCount, GroupId, NodeHex, NodeId};
use crate::membership::ClusterView;
use crate::raft::Groups;

const MESSAGE_V1: u8 = 1;

/// What one node asks another about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// Report what you lead.
    Report,
    /// Leave the plan, and end when nothing is left.
    Drain,
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    Report(Report),
    Draining,
}

/// A node's report of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Report {
    /// Groups that it leads.
    led: Vec<Led>,
}

/// A group as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Led {
    group: GroupId,
    generation: u64,
    voters: Vec<NodeId>,
    learners: Vec<NodeId>,
    lag: u64,
    /// Members that could take over at once.
    caught_up: Vec<NodeId>,
}

pub(super) fn encode<T: Serialize>(message: &T) -> bytes::Bytes {
    record::versioned(MESSAGE_V1, message).into()
}

pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, RecordError> {
    record::decode("cluster message", MESSAGE_V1, bytes)
}

impl Report {
    /// What this node has to say of itself.
    pub(super) fn of(groups: &Groups) -> Self {
        let mut report = Self::default();
        for group in groups.iter() {
            let Some(leadership) = group.leads() else { continue };
            let members = group.members();
            let (mut voters, mut learners, mut lag, mut caught_up) = (Vec::new(), Vec::new(), 0, Vec::new());
            for (node, member) in members.members {
                if member.is_caught_up() {
                    caught_up.push(node);
                }
                lag = lag.max(member.lag.unwrap_or(0));
                if member.is_voter {
                    voters.push(node);
                } else {
                    learners.push(node);
                }
            }
            report.led.push(Led {
                group: group.id(),
                generation: leadership.generation,
                voters,
                learners,
                lag,
                caught_up,
            });
        }
        report
    }
}

/// A cluster as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The cluster's id, in hexadecimal digits.
    pub cluster: String,
    /// What is wrong, in words, the worst first; empty where nothing is.
    #[serde(default)]
    pub problems: Vec<String>,
    /// Copies that every group is to have.
    pub copies_wanted: usize,
    /// Every node that gossip shows.
    pub nodes: Vec<NodeStatus>,
    /// Every group.
    pub groups: Vec<GroupStatus>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its id, in hexadecimal digits.
    pub id: String,
    /// Its API.
    pub api: String,
    /// Where other nodes reach it.
    pub peer: String,
    /// What it fails together with.
    pub zone: String,
    /// Its release.
    pub version: String,
    /// Whether gossip hears of it.
    pub alive: bool,
    /// Whether it is on its way out.
    pub draining: bool,
    /// Whether it has said good-bye: it is not alive, and nothing is wrong with that.
    #[serde(default)]
    pub left: bool,
    /// For how long it has been as it is, alive or not, as far as the node that was asked has seen it.
    #[serde(default)]
    pub since_secs: u64,
    /// Groups that it leads.
    pub led: usize,
    /// Groups of which it holds a copy, as their leaders say: a copy that was taken from a node may not have heard of it. `null`
    /// while some group has no leader that could say.
    pub replicas: Option<usize>,
    /// How far its wall clock is from its peers' median, in milliseconds, as it says itself.
    pub clock_offset_ms: i64,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Its number.
    pub group: u16,
    /// Who leads it; none is known while it is elected.
    pub leader: Option<String>,
    /// The leader's fencing token.
    pub generation: u64,
    /// Nodes that vote.
    pub voters: Vec<String>,
    /// Nodes that only hold a copy.
    pub learners: Vec<String>,
    /// Where its copies are to be, the leader first.
    pub planned: Vec<String>,
    /// Log entries that its slowest copy lacks.
    pub lag: u64,
    /// Copies that are caught up, on live nodes, as its leader says; `null` without one.
    pub copies: Option<usize>,
}

impl GroupStatus {
    /// Whether the node holds a copy, as the leader says.
    fn holds(&self, node: &String) -> bool {
        self.voters.contains(node) || self.learners.contains(node)
    }
}

impl ClusterStatus {
    /// Whether every group has a leader, and none of them counts on the node.
    pub(super) fn does_without(&self, node: NodeId) -> bool {
        let node = node_text(node);
        let mut groups = self.groups.iter();
        groups.all(|group| group.leader.as_ref().is_some_and(|leader| *leader != node) && !group.holds(&node))
    }
}

/// A node id as it is shown.
pub fn node_text(node: NodeId) -> String {
    NodeHex(node).to_string()
}

fn texts(nodes: &[NodeId]) -> Vec<String> {
    nodes.iter().copied().map(node_text).collect()
}

/// Puts the picture together.
pub(super) fn picture(
    cluster: u128,
    count: GroupCount,
    view: &ClusterView,
    plan: &Plan,
    reports: &BTreeMap<NodeId, Report>,
    copies_wanted: usize,
    now_ms: u64,
) -> ClusterStatus {
    let is_alive = |node: &&NodeId| view.members.get(*node).is_some_and(|member| member.is_alive);
    let groups: Vec<GroupStatus> = count
        .iter()
        .map(|group| {
            let led = reports.iter().flat_map(|(node, report)| {
                let own = report.led.iter().filter(|led| led.group == group);
                own.map(|led| (*node, led))
            });
            // Two nodes may both say so for a moment: the later generation is right.
            let led = led.max_by_key(|(_, led)| led.generation);
            let voters = led.map_or(BTreeSet::new(), |(_, led)| led.voters.iter().copied().collect());
            GroupStatus {
                group: group.0,
                leader: led.map(|(node, _)| node_text(node)),
                generation: led.map_or(0, |(_, led)| led.generation),
                voters: led.map_or(Vec::new(), |(_, led)| texts(&led.voters)),
                learners: led.map_or(Vec::new(), |(_, led)| texts(&led.learners)),
                planned: texts(&plan.places(group, &voters)),
                lag: led.map_or(0, |(_, led)| led.lag),
                copies: led.map(|(_, led)| led.caught_up.iter().filter(is_alive).count()),
            }
        })
        .collect();
    let is_known = groups.iter().all(|group| group.leader.is_some());
    let nodes = view.members.values().map(|member| {
        let report = reports.get(&member.facts.node);
        let id = node_text(member.facts.node);
        NodeStatus {
            api: member.facts.api.to_string(),
            peer: member.facts.peer.to_string(),
            zone: member.facts.zone.clone(),
            version: member.facts.version.clone(),
            alive: member.is_alive,
            draining: member.facts.draining,
            left: member.has_left,
            since_secs: now_ms.saturating_sub(member.since_ms) / 1_000,
            led: report.map_or(0, |report| report.led.len()),
            replicas: is_known.then(|| groups.iter().filter(|group| group.holds(&id)).count()),
            clock_offset_ms: member.facts.clock_offset_ms,
            id,
        }
    });
    let mut status = ClusterStatus {
        cluster: format!("{cluster:032x}"),
        problems: Vec::new(),
        copies_wanted,
        nodes: nodes.collect(),
        groups,
    };
    status.problems = problems::of(&status);
    status
}

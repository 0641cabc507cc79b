//! The cluster as seen from this node, made of what was heard of each member. Pure: time and sightings are handed in.
//! Called by `gossip.rs`; read by everybody who wants to know who is there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::facts::Facts;
use crate::id::{GroupCount, NodeId};

/// How long an older process with our id has to stay alive, after we have heard of it, to be one: that of a node that has
/// just moved to this address is taken for alive until its silence is noticed.
pub const TWIN_OLDER_MS: u64 = 15_000;

/// A node as seen from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it last told.
    pub facts: Facts,
    /// Which run of the process it is: the wall clock in milliseconds at its start.
    pub incarnation: u64,
    /// It is heard of. A node that has just been learned of is not alive before it was heard of twice.
    pub is_alive: bool,
    /// It has said good-bye: it is not alive, and nothing is wrong with that.
    pub has_left: bool,
    /// Since when, by this node's monotonic clock, this incarnation has been alive, or dead.
    pub since_ms: u64,
    /// When, by this node's monotonic clock, the node was first seen alive, in whatever incarnation.
    pub known_since_ms: u64,
}

/// Another process under this node's id at another address: a copied data directory, or what this node was before it moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Twin {
    /// When it started, by its own wall clock.
    pub incarnation: u64,
    /// Where it is.
    pub peer: SocketAddr,
    /// It started after us: the others count it, and not us.
    pub is_newer: bool,
    /// It is heard of.
    pub is_alive: bool,
    /// Since when, by this node's monotonic clock, it has been alive, or dead.
    pub since_ms: u64,
}

impl Twin {
    /// Whether it is a process of its own, that started before us.
    pub fn was_first(&self, now_ms: u64) -> bool {
        !self.is_newer && self.is_alive && now_ms.saturating_sub(self.since_ms) >= TWIN_OLDER_MS
    }
}

/// The cluster as seen from here: hints that never decide. Dead members stay for [`super::DEAD_GRACE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterView {
    /// This node.
    pub me: NodeId,
    /// Every node heard of, this one always among them. Nodes of another cluster are left out, unless this node is joining.
    pub members: BTreeMap<NodeId, Member>,
    /// Set while this node's id is known from elsewhere: of two that live, the one that started later should end.
    pub twin: Option<Twin>,
}

impl ClusterView {
    /// The view of a node that does not gossip: itself.
    pub fn alone(facts: Facts) -> Self {
        let me = facts.node;
        let own = Member {
            facts,
            incarnation: 0,
            is_alive: true,
            has_left: false,
            since_ms: 0,
            known_since_ms: 0,
        };
        Self {
            me,
            members: BTreeMap::from([(me, own)]),
            twin: None,
        }
    }

    /// This node.
    pub fn own(&self) -> &Member {
        &self.members[&self.me]
    }

    /// The members that are alive, this node among them.
    pub fn live(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.is_alive)
    }

    /// The clusters that live members belong to, with their numbers of groups: what a joining node may adopt.
    pub fn clusters(&self) -> BTreeSet<(u128, GroupCount)> {
        let of = |member: &Member| Some((member.facts.cluster?, member.facts.groups?));
        self.live().filter_map(of).collect()
    }
}

/// One incarnation of a node, as gossip has it now.
#[derive(Clone, Debug)]
pub(super) struct Sighting {
    pub(super) facts: Facts,
    pub(super) incarnation: u64,
    pub(super) is_alive: bool,
    pub(super) has_left: bool,
}

/// Makes views, and remembers since when each incarnation has been as it is.
#[derive(Debug, Default)]
pub(super) struct Book {
    since: BTreeMap<(NodeId, u64), Since>,
    /// When each node was first seen alive.
    known: BTreeMap<NodeId, u64>,
}

#[derive(Clone, Copy, Debug)]
struct Since {
    is_alive: bool,
    ms: u64,
}

impl Book {
    /// The view at `now_ms` of the node with the facts `me`, given everything heard of others.
    pub(super) fn view(&mut self, me: &Facts, incarnation: u64, heard: Vec<Sighting>, now_ms: u64) -> ClusterView {
        let own = Sighting {
            facts: me.clone(),
            incarnation,
            is_alive: true,
            has_left: false,
        };
        let mut before = std::mem::take(&mut self.since);
        let known = std::mem::take(&mut self.known);
        let mut twin: Option<Twin> = None;
        let mut members: BTreeMap<NodeId, Member> = BTreeMap::new();
        for sighting in std::iter::once(own).chain(heard) {
            let key = (sighting.facts.node, sighting.incarnation);
            let same = before.remove(&key).filter(|since| since.is_alive == sighting.is_alive);
            let since = same.unwrap_or(Since {
                is_alive: sighting.is_alive,
                ms: now_ms,
            });
            self.since.insert(key, since);
            let first_ms = known.get(&key.0).copied().or(sighting.is_alive.then_some(now_ms));
            self.known.extend(first_ms.map(|ms| (key.0, ms)));
            let member = Member {
                facts: sighting.facts,
                incarnation: sighting.incarnation,
                is_alive: sighting.is_alive,
                has_left: sighting.has_left,
                since_ms: since.ms,
                known_since_ms: first_ms.unwrap_or(now_ms),
            };
            if member.facts.node == me.node && member.incarnation != incarnation {
                let other = as_twin(&member, me, incarnation);
                let rank = |twin: &Twin| (twin.is_alive, twin.incarnation);
                twin = twin.into_iter().chain(other).max_by_key(rank);
            } else if belongs(&member.facts, me) {
                keep_better(&mut members, member);
            }
        }
        ClusterView {
            me: me.node,
            members,
            twin,
        }
    }
}

/// Another incarnation of this node, if it may be a process of its own. At this node's address it cannot be one.
fn as_twin(member: &Member, me: &Facts, incarnation: u64) -> Option<Twin> {
    (member.facts.peer != me.peer).then_some(Twin {
        incarnation: member.incarnation,
        peer: member.facts.peer,
        is_newer: member.incarnation > incarnation,
        is_alive: member.is_alive,
        since_ms: member.since_ms,
    })
}

/// Whether a member concerns the node with the facts `me`. Others come in by a joining node that knows two clusters.
fn belongs(member: &Facts, me: &Facts) -> bool {
    me.cluster.is_none() || member.cluster.is_none() || member.cluster == me.cluster
}

/// Of the incarnations of one node a live one counts before a dead one, and then the newest.
fn keep_better(members: &mut BTreeMap<NodeId, Member>, member: Member) {
    let rank = |member: &Member| (member.is_alive, member.incarnation);
    match members.get(&member.facts.node) {
        Some(known) if rank(known) >= rank(&member) => {}
        _ => {
            members.insert(member.facts.node, member);
        }
    }
}

//! Walks the groups that this node leads towards the plan: who holds a copy, who votes, who leads.
//!
//! Every node runs it, each for its own groups: there is no master. What the plan is (`core/plan.rs`) and which step comes
//! next (`core/walk.rs`) are pure functions of what gossip and the group itself show; every step is a change in the group's
//! own log, so a wrong view costs time, never safety. Started by `node.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::core::plan::{Known, Plan, SETTLED_MS, candidates, plan};
use crate::core::walk::{Replica, Situation, Step, next_step};
use crate::id::{GroupId, NodeId};
use crate::limits::CLOCK_OFFSET_MS_MAX;
use crate::membership::ClusterView;
use crate::raft::{ChangeError, Group, Groups, Leadership, Members};

/// How often the groups are looked at.
const PASS: Duration = Duration::from_millis(500);
/// After its start a node moves nothing for so long, in milliseconds: it has not heard of everybody yet.
const LISTENING_MS: u64 = 2 * SETTLED_MS;
/// Groups that this node fills with a learner at the same time: each may send a snapshot.
const FILLING_MAX: usize = 4;
/// Leaderships that this node hands over in one pass: each costs its group a moment.
const HAND_OVERS_MAX: usize = 4;
/// A group is led for so many passes before its leadership is handed on: no ping-pong between nodes that see differently.
const PASSES_LED_MIN: u32 = 4;
/// Longest time one step may take; the next pass looks again.
const STEP: Duration = Duration::from_secs(10);

/// What placement works with.
pub struct Parts {
    /// This node.
    pub node: NodeId,
    /// The groups it hosts.
    pub groups: Groups,
    /// The nodes as gossip shows them.
    pub view: watch::Receiver<Arc<ClusterView>>,
    /// Wall time, for how long a node has been seen alive or dead.
    pub clock: Arc<dyn Clock>,
    /// Copies wanted of every group.
    pub replicas: u8,
    /// How long a node is dead before its copies are made elsewhere, in milliseconds.
    pub replace_after_ms: u64,
}

/// The loop of a node.
pub struct Placement {
    parts: Parts,
    /// Passes that a group has been led for, by the same leadership.
    led: BTreeMap<GroupId, (Leadership, u32)>,
}

/// The plan for the nodes that count now.
pub fn current_plan(view: &ClusterView, groups: &Groups, replicas: u8, now_ms: u64, replace_after_ms: u64) -> Plan {
    let known = known(view, groups, now_ms);
    plan(
        &candidates(&known, replicas, replace_after_ms),
        groups.count(),
        replicas,
    )
}

/// The nodes that gossip shows, and those that it does not but whose copies this node knows of: they have been dead for as
/// long as it has been running.
fn known(view: &ClusterView, groups: &Groups, now_ms: u64) -> Vec<Known> {
    let shown = view.members.values().filter(|member| member.facts.cluster.is_some());
    let shown = shown.map(|member| Known {
        node: member.facts.node,
        zone: member.facts.zone.clone(),
        is_alive: member.is_alive,
        is_leaving: member.facts.draining,
        unchanged_ms: now_ms.saturating_sub(member.since_ms),
        known_ms: now_ms.saturating_sub(member.known_since_ms),
    });
    let holders: BTreeSet<NodeId> = groups
        .iter()
        .flat_map(|group| group.members().members.into_keys())
        .collect();
    let hidden = holders.into_iter().filter(|node| !view.members.contains_key(node));
    let hidden = hidden.map(|node| Known {
        node,
        zone: String::new(),
        is_alive: false,
        is_leaving: false,
        unchanged_ms: now_ms.saturating_sub(view.own().since_ms),
        known_ms: 0,
    });
    shown.chain(hidden).collect()
}

impl Placement {
    /// A loop that has not looked yet.
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            led: BTreeMap::new(),
        }
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(PASS).await;
            self.pass().await;
        }
    }

    /// One look at every group that this node leads, and the steps that follow from it, all at the same time.
    async fn pass(&mut self) {
        let view = self.parts.view.borrow().clone();
        let now_ms = self.parts.clock.wall_ms();
        if now_ms.saturating_sub(view.own().since_ms) < LISTENING_MS {
            return;
        }
        let plan = current_plan(
            &view,
            &self.parts.groups,
            self.parts.replicas,
            now_ms,
            self.parts.replace_after_ms,
        );
        let led = self.led_groups();
        let mut filling = led.iter().filter(|(_, members, _)| is_filling(members)).count();
        let mut hand_overs = 0;
        let mut steps = FuturesUnordered::new();
        for (group, members, passes) in led {
            let replicas: Vec<Replica> = replicas(&members, &view);
            let situation = Situation {
                me: self.parts.node,
                replicas: &replicas,
                planned: &leading_in_time(&view, plan.replicas(group.id())),
                planned_voters: plan.voters(group.id()),
                is_joint: members.changing_to.is_some(),
                may_transfer_snapshot: filling < FILLING_MAX,
                may_move_leadership: passes >= PASSES_LED_MIN && hand_overs < HAND_OVERS_MAX,
            };
            // What another leader has begun is finished first: openraft goes no further by itself.
            let step = match &members.changing_to {
                Some(voters) => Step::SetVoters {
                    voters: voters.clone(),
                    keep_learners: BTreeSet::new(),
                },
                None => next_step(&situation),
            };
            match &step {
                Step::Wait => continue,
                Step::AddLearner(_) => filling += 1,
                Step::TransferLeadership(_) => hand_overs += 1,
                Step::SetVoters { .. } | Step::RemoveLearner(_) => {}
            }
            steps.push(async move {
                let taken = tokio::time::timeout(STEP, take(&group, &step)).await;
                (group.id(), step, taken)
            });
        }
        while let Some((group, step, taken)) = steps.next().await {
            match taken {
                Ok(Ok(())) => tracing::info!(group = group.0, ?step, "a step towards the plan"),
                Ok(Err(error)) => tracing::warn!(group = group.0, ?step, %error, "a step towards the plan failed"),
                Err(_) => tracing::warn!(group = group.0, ?step, "a step towards the plan takes long"),
            }
        }
    }

    /// The groups that this node leads, their members, and for how many passes it has led them.
    fn led_groups(&mut self) -> Vec<(Group, Members, u32)> {
        let mut led = Vec::new();
        let mut seen = BTreeMap::new();
        for group in self.parts.groups.iter() {
            let Some(leadership) = group.leads().filter(|_| group.may_act()) else {
                continue;
            };
            let passes = match self.led.get(&group.id()) {
                Some((before, passes)) if *before == leadership => passes + 1,
                _ => 0,
            };
            seen.insert(group.id(), (leadership, passes));
            let members = group.members();
            led.push((group, members, passes));
        }
        self.led = seen;
        led
    }
}

/// The planned nodes, those whose clocks are right first: they are to lead.
fn leading_in_time(view: &ClusterView, planned: &[NodeId]) -> Vec<NodeId> {
    let is_off = |node: &NodeId| {
        let member = view.members.get(node);
        member.is_some_and(|member| member.facts.clock_offset_ms.unsigned_abs() > CLOCK_OFFSET_MS_MAX)
    };
    let mut planned = planned.to_vec();
    planned.sort_by_key(is_off);
    planned
}

/// A learner on its way to a full copy.
fn is_filling(members: &Members) -> bool {
    members
        .members
        .values()
        .any(|member| !member.is_voter && !member.is_caught_up())
}

fn replicas(members: &Members, view: &ClusterView) -> Vec<Replica> {
    let members = members.members.iter();
    members
        .map(|(node, member)| Replica {
            node: *node,
            is_voter: member.is_voter,
            is_caught_up: member.is_caught_up(),
            is_alive: view.members.get(node).is_some_and(|member| member.is_alive),
        })
        .collect()
}

async fn take(group: &Group, step: &Step) -> Result<(), ChangeError> {
    match step {
        Step::Wait => Ok(()),
        Step::AddLearner(node) => group.add_learner(*node).await,
        Step::SetVoters { voters, .. } => group.set_voters(voters.clone()).await,
        Step::RemoveLearner(node) => group.remove_learners([*node].into()).await,
        Step::TransferLeadership(node) => group.hand_over(*node).await,
    }
}

//! Walks the groups that this node leads towards the plan: who holds a copy, who votes, who leads.
//!
//! Every node runs it, each for its own groups: there is no master. What the plan is (`core/plan.rs`) and which step comes
//! next (`core/walk.rs`) are pure functions of what gossip and the group itself show; every step is a change in the group's
//! own log, so a wrong view costs time, never safety. Started by `node.rs`.

mod going;
mod moves;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::clock::Clock;
use crate::core::plan::{Known, Plan, SETTLED_MS, candidates, plan};
use crate::core::walk::{Replica, Situation, Step, next_step};
use crate::id::{GroupId, NodeId};
use crate::limits::CLOCK_OFFSET_MS_MAX;
use crate::membership::{ClusterView, Member};
use crate::raft::{ChangeError, Group, Groups, Leadership, MOMENT, Members, Standing, Urgency};
use crate::steady::Steady;

use moves::Moves;

pub use going::{hand_everything_over, let_lost_copies_go, settle_members};

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
/// Longest time for which a leader that was asked to leave waits for callbacks in flight, however long they may take.
const PATIENCE_MAX: Duration = Duration::from_mins(1);
/// How long the outcomes of attempts in flight are waited for before leadership is handed over.
const QUIET: Duration = Duration::from_millis(800);
/// After a hand-over that callbacks in flight have kept from being made, a group is left alone for so many passes, and for
/// twice as many after each further one: as long as it waits, it fires nothing.
const CALM_PASSES: (u32, u32) = (60, 960);

/// What placement works with.
pub struct Parts {
    /// This node.
    pub node: NodeId,
    /// The groups it hosts.
    pub groups: Groups,
    /// The nodes as gossip shows them.
    pub view: watch::Receiver<Arc<ClusterView>>,
    /// Monotonic time, for how long a node has been seen alive or dead.
    pub clock: Arc<dyn Clock>,
    /// Whose clock is wrong, as measured here.
    pub steady: Steady,
    /// How long a node is dead before its copies are made elsewhere, in milliseconds.
    pub replace_after_ms: u64,
    /// How long a callback may take.
    pub callback: Duration,
    /// This node stops: it only finishes what has begun.
    pub stopping: Arc<AtomicBool>,
}

/// A group that this node leads, and what is remembered of it.
#[derive(Clone, Copy, Debug)]
struct Led {
    leadership: Leadership,
    /// Passes that it has been led for, by the same leadership.
    passes: u32,
    /// Passes for which leadership is not handed on just because the plan likes it better, and how long the last such time was.
    calm: (u32, u32),
    /// Hand-overs that the plan calls for, that were tried and were not made.
    tries: u32,
}

/// A step that was taken, or not.
type Taken = (
    GroupId,
    Step,
    Urgency,
    Result<Result<(), ChangeError>, tokio::time::error::Elapsed>,
);

/// The loop of a node.
pub struct Placement {
    parts: Parts,
    led: BTreeMap<GroupId, Led>,
    /// Steps that are being taken; one a group. They end with this value.
    steps: JoinSet<Taken>,
    stepping: BTreeMap<GroupId, Step>,
    moves: Moves,
}

/// The plan for the nodes that count now.
pub fn current_plan(view: &ClusterView, groups: &Groups, now_ms: u64, replace_after_ms: u64) -> Plan {
    let replicas = wanted_replicas(view);
    let known = known(view, groups, now_ms);
    plan(
        &candidates(&known, replicas, replace_after_ms),
        groups.count(),
        replicas,
    )
}

/// The copies that every group should have: the most that any node was started with, also one that is dead for now. So a larger
/// number counts from the first node that is restarted with it, and a smaller one from the last.
fn wanted_replicas(view: &ClusterView) -> u8 {
    let told = view.members.values().filter(|member| member.facts.cluster.is_some());
    told.map(|member| member.facts.replicas).max().unwrap_or(1).max(1)
}

/// The nodes that gossip shows, and those that it does not but that are members of a group which this node leads: they have
/// been dead for as long as it has been running. What a copy says that is not led here may be long out of date.
fn known(view: &ClusterView, groups: &Groups, now_ms: u64) -> Vec<Known> {
    let holders: BTreeSet<NodeId> = groups
        .iter()
        .filter(|group| group.leads().is_some())
        .flat_map(|group| group.members().members.into_keys())
        .collect();
    let shown = view.members.values().filter(|member| member.facts.cluster.is_some());
    let shown = shown.map(|member| Known {
        node: member.facts.node,
        zone: member.facts.zone.clone(),
        is_alive: member.is_alive,
        is_leaving: member.facts.draining,
        unchanged_ms: now_ms.saturating_sub(member.since_ms),
        known_ms: now_ms.saturating_sub(member.known_since_ms),
        is_member: holders.contains(&member.facts.node),
    });
    let hidden = holders.iter().filter(|node| !view.members.contains_key(node));
    let hidden = hidden.map(|node| Known {
        node: *node,
        zone: String::new(),
        is_alive: false,
        is_leaving: false,
        unchanged_ms: now_ms.saturating_sub(view.own().since_ms),
        known_ms: 0,
        is_member: true,
    });
    shown.chain(hidden).collect()
}

impl Placement {
    /// A loop that has not looked yet.
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            led: BTreeMap::new(),
            steps: JoinSet::new(),
            stepping: BTreeMap::new(),
            moves: Moves::default(),
        }
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        let mut passes = tokio::time::interval(PASS);
        passes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                Some(taken) = self.steps.join_next() => match taken {
                    Ok(taken) => self.taken(taken),
                    Err(error) => tracing::error!(%error, "a step towards the plan has panicked"),
                },
                _ = passes.tick() => self.pass(),
            }
        }
    }

    /// One look at every group that this node leads, and the steps that follow from it: each goes its own way, so that a slow
    /// one holds up no other group.
    fn pass(&mut self) {
        self.moves.tell(self.parts.clock.monotonic());
        let view = self.parts.view.borrow().clone();
        let now_ms = self.parts.clock.monotonic_ms();
        if now_ms.saturating_sub(view.own().since_ms) < LISTENING_MS {
            return;
        }
        let plan = current_plan(&view, &self.parts.groups, now_ms, self.parts.replace_after_ms);
        let led = self.led_groups();
        let mut filling = led.iter().filter(|(_, members, _)| is_filling(members)).count();
        let begun = self.stepping.values();
        let mut hand_overs = begun.filter(|step| matches!(step, Step::TransferLeadership(_))).count();
        for (group, members, state) in led {
            let is_stopping = self.parts.stopping.load(Ordering::SeqCst);
            let must_finish = members.is_half_way() || members.hangs_on(self.parts.node);
            if self.stepping.contains_key(&group.id()) || is_stopping && !must_finish {
                continue;
            }
            let places = plan.places(group.id(), &members.voters());
            let planned = leading_in_time(&view, &self.parts.steady, &places);
            let standing = self.standing(&view, &members, now_ms);
            let is_planned = planned
                .iter()
                .take(plan.voters(group.id()))
                .any(|node| *node == self.parts.node);
            let urgency = self.urgency(&view, is_planned, state);
            let situation = Situation {
                me: self.parts.node,
                members: &replicas(&members, &standing),
                planned: &planned,
                planned_voters: plan.voters(group.id()),
                replicas: standing.replicas,
                is_joint: members.changing_to.is_some(),
                may_transfer_snapshot: filling < FILLING_MAX,
                may_move_leadership: hand_overs < HAND_OVERS_MAX
                    && (urgency != Urgency::Convenient || state.passes >= PASSES_LED_MIN && state.calm.0 == 0),
            };
            // What another leader has begun is finished first: openraft goes no further by itself.
            let step = if members.changing_to.is_some() {
                Step::FinishChange
            } else {
                next_step(&situation)
            };
            match &step {
                Step::Wait => continue,
                Step::AddLearner(_) => filling += 1,
                Step::TransferLeadership(_) => hand_overs += 1,
                Step::SetVoters { .. } | Step::FinishChange | Step::RemoveLearner(_) => {}
            }
            self.stepping.insert(group.id(), step.clone());
            self.steps.spawn(async move {
                let taken = tokio::time::timeout(STEP, take(&group, &step, urgency, &standing)).await;
                (group.id(), step, urgency, taken)
            });
        }
    }

    /// What a change of the group's voters is judged by.
    fn standing(&self, view: &ClusterView, members: &Members, now_ms: u64) -> Standing {
        let of = |holds: &dyn Fn(&Member) -> bool| -> BTreeSet<NodeId> {
            let nodes = view.members.iter().filter(|(_, member)| holds(member));
            nodes.map(|(node, _)| *node).collect()
        };
        // A member that was not heard of since this node's start may want more copies than those that were.
        let is_unheard = |node: &NodeId| !view.members.contains_key(node);
        let is_early = now_ms.saturating_sub(view.own().since_ms) < self.parts.replace_after_ms;
        let voters = members.voters();
        let at_least = if is_early && members.members.keys().any(is_unheard) {
            u8::try_from(voters.len()).unwrap_or(u8::MAX)
        } else {
            0
        };
        Standing {
            alive: of(&|member| member.is_alive),
            draining: of(&|member| member.facts.draining),
            replicas: wanted_replicas(view).max(at_least),
        }
    }

    /// Whether this node may go on leading a group that should better be led elsewhere.
    fn urgency(&self, view: &ClusterView, is_planned: bool, state: Led) -> Urgency {
        let own = &view.own().facts;
        let must_go = own.draining || !is_planned;
        let patience = (self.parts.callback + MOMENT).min(PATIENCE_MAX);
        // Who is only out of place can stay, as long as callbacks leave no moment: better uneven than a callback twice.
        if is_clock_off(own.clock_offset_ms) || own.draining && MOMENT * state.tries >= patience {
            Urgency::Ordered
        } else if must_go {
            Urgency::Planned
        } else {
            Urgency::Convenient
        }
    }

    fn taken(&mut self, (group, step, urgency, taken): Taken) {
        self.stepping.remove(&group);
        let now = self.parts.clock.monotonic();
        match taken {
            Ok(Ok(())) => return self.moves.took(now, group, &step, None),
            // It may fail every few seconds for as long as a target hangs.
            Ok(Err(error)) if urgency == Urgency::Planned => {
                tracing::debug!(group = group.0, ?urgency, %error, "a leadership stays for now");
            }
            Ok(Err(error)) => self.moves.took(now, group, &step, Some(&error.to_string())),
            Err(_) => self.moves.took(now, group, &step, Some("it takes long")),
        }
        if let (Step::TransferLeadership(_), Some(state)) = (&step, self.led.get_mut(&group)) {
            let last = (state.calm.1 * 2).clamp(CALM_PASSES.0, CALM_PASSES.1);
            state.calm = (last, last);
            // What was only convenient has waited for no moment: it says nothing of how long callbacks take.
            state.tries += u32::from(urgency != Urgency::Convenient);
        }
    }

    /// The groups that this node leads, their members, and what is remembered of them.
    fn led_groups(&mut self) -> Vec<(Group, Members, Led)> {
        let mut led = Vec::new();
        let mut seen = BTreeMap::new();
        for group in self.parts.groups.iter() {
            let Some(leadership) = group.leads().filter(|_| group.may_act()) else {
                continue;
            };
            let state = match self.led.get(&group.id()) {
                Some(before) if before.leadership == leadership => Led {
                    passes: before.passes + 1,
                    calm: (before.calm.0.saturating_sub(1), before.calm.1),
                    ..*before
                },
                _ => Led {
                    leadership,
                    passes: 0,
                    calm: (0, 0),
                    tries: 0,
                },
            };
            seen.insert(group.id(), state);
            let members = group.members();
            led.push((group, members, state));
        }
        self.led = seen;
        led
    }
}

fn is_clock_off(offset_ms: i64) -> bool {
    offset_ms.unsigned_abs() > CLOCK_OFFSET_MS_MAX
}

/// The planned nodes, those whose clocks are right first: they are to lead.
fn leading_in_time(view: &ClusterView, steady: &Steady, planned: &[NodeId]) -> Vec<NodeId> {
    let is_off = |node: &NodeId| {
        let member = view.members.get(node);
        steady.is_wrong(*node) || member.is_some_and(|member| is_clock_off(member.facts.clock_offset_ms))
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

fn replicas(members: &Members, standing: &Standing) -> Vec<Replica> {
    let members = members.members.iter();
    members
        .map(|(node, member)| Replica {
            node: *node,
            is_voter: member.is_voter,
            is_caught_up: member.is_caught_up(),
            is_alive: standing.alive.contains(node),
            is_draining: standing.draining.contains(node),
        })
        .collect()
}

async fn take(group: &Group, step: &Step, urgency: Urgency, standing: &Standing) -> Result<(), ChangeError> {
    match step {
        Step::Wait => Ok(()),
        Step::AddLearner(node) => group.add_learner(*node).await,
        Step::SetVoters { voters, .. } => group.set_voters(voters.clone(), standing).await,
        Step::FinishChange => group.finish_change().await,
        Step::RemoveLearner(node) => group.remove_learners([*node].into()).await,
        Step::TransferLeadership(node) => group.hand_over(*node, QUIET, urgency).await,
    }
}

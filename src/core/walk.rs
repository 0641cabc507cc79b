//! The next single step that a group's leader takes from the members it has to those it should have.
//!
//! Pure, and without memory: whoever leads looks at the situation, takes the step, and looks again, so a new leader goes on where
//! the old one stopped. Owns the order of steps, not the wish (`core/plan`) nor the doing. Called by the leaders' loop.
//!
//! What every step keeps, whatever died and however often the plan changed on the way:
//! - nothing begins while a change is unfinished, or while a majority of the voters is not alive;
//! - who is made a voter is an alive, caught-up learner, and the voters after a change have an alive, caught-up majority;
//! - a leader never takes its own vote away: it hands leadership over, and its successor does;
//! - the number of voters is odd, but for one case: a single voter is replaced by way of two, so that leadership can be handed
//!   over instead of being lost for an election's timeout. Both are needed then, so the two steps out of it wait for nothing but
//!   callbacks in flight;
//! - a voter leaves through being a learner, so it hears that it no longer votes, and its copy stays until there are enough;
//! - safety is never lowered (`walk/law.rs`): whatever the plan says, the number of voters falls for those that drain, or for a
//!   smaller number of copies that was asked for, and a dead voter stays one until another has caught up in its place.

pub mod law;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use crate::id::NodeId;
use law::Change;

/// One member of a group, as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "facts that do not depend on each other")]
pub struct Replica {
    /// The member.
    pub node: NodeId,
    /// Votes; otherwise a learner.
    pub is_voter: bool,
    /// Its log is nearly as long as the leader's.
    pub is_caught_up: bool,
    /// Seen alive.
    pub is_alive: bool,
    /// Asked to leave.
    pub is_draining: bool,
}

/// What a leader knows of its group.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The leader itself, always counted as alive and caught up.
    pub me: NodeId,
    /// The members, the leader among them.
    pub members: &'a [Replica],
    /// Who should hold the group: the first should lead.
    pub planned: &'a [NodeId],
    /// How many of `planned`, from the first, should vote: an odd number.
    pub planned_voters: usize,
    /// Copies that every group should have. There may be fewer nodes.
    pub replicas: u8,
    /// A change of members has begun and is not finished.
    pub is_joint: bool,
    /// This node may begin to send another snapshot.
    pub may_transfer_snapshot: bool,
    /// The group may be led from elsewhere just because the plan likes it better: it is idle, and has been led from here for a
    /// while.
    pub may_move_leadership: bool,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make this node a learner and send it what it lacks.
    AddLearner(NodeId),
    /// Change who votes.
    SetVoters {
        /// All voters after the change.
        voters: BTreeSet<NodeId>,
        /// All learners after the change: every other member, those whose vote ends among them.
        keep_learners: BTreeSet<NodeId>,
    },
    /// Finish the change of voters that another leader has begun.
    FinishChange,
    /// Let this learner go, with its copy.
    RemoveLearner(NodeId),
    /// Hand leadership to this voter.
    TransferLeadership(NodeId),
    /// Nothing to do now.
    Wait,
}

/// The step to take now.
pub fn next_step(situation: &Situation) -> Step {
    let view = View::new(situation);
    let can_change = !situation.is_joint && view.voters.contains(&situation.me) && view.wanted.len() % 2 == 1;
    if !can_change || !is_majority(&view.voters, &view.alive) {
        return Step::Wait;
    }
    let voters = view.next_voters().map(|voters| view.set_voters(voters));
    voters
        .or_else(|| view.transfer().map(Step::TransferLeadership))
        .or_else(|| view.add())
        .or_else(|| view.remove())
        .unwrap_or(Step::Wait)
}

/// The situation as sets.
struct View<'a> {
    situation: &'a Situation<'a>,
    voters: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
    alive: BTreeSet<NodeId>,
    /// Alive and caught up.
    ready: BTreeSet<NodeId>,
    /// Asked to leave.
    draining: BTreeSet<NodeId>,
    /// Who should vote.
    wanted: BTreeSet<NodeId>,
    /// Who should vote, does not, and could at once; in the plan's order.
    joining: Vec<NodeId>,
    /// The voters but for the leader; whom the group misses least comes first.
    others: Vec<NodeId>,
    /// Those of `others` who should not vote.
    leaving: Vec<NodeId>,
}

impl<'a> View<'a> {
    fn new(situation: &'a Situation<'a>) -> Self {
        let members = |wanted: &dyn Fn(&Replica) -> bool| -> BTreeSet<NodeId> {
            let chosen = situation.members.iter().filter(|replica| wanted(replica));
            chosen.map(|replica| replica.node).collect()
        };
        let is_me = |replica: &Replica| replica.node == situation.me;
        let voters = members(&|replica| replica.is_voter);
        let ready = members(&|replica| replica.is_alive && replica.is_caught_up || is_me(replica));
        let alive = members(&|replica| replica.is_alive || is_me(replica));
        let draining = members(&|replica| replica.is_draining);
        let planned_voters = situation.planned.iter().take(situation.planned_voters).copied();
        let mut wanted: BTreeSet<NodeId> = planned_voters.clone().collect();
        let joining = planned_voters
            .filter(|node| !voters.contains(node) && ready.contains(node) && !draining.contains(node))
            .collect();
        let mut others: Vec<NodeId> = voters.iter().copied().filter(|node| *node != situation.me).collect();
        others.sort_by_key(|node| (alive.contains(node), ready.contains(node), *node));
        // A plan of fewer nodes than vote and stay does not know all of them yet.
        let goes = voters.intersection(&draining).count();
        let least = law::least(voters.len(), goes, situation.replicas);
        let is_kept = |node: &NodeId| voters.contains(node) && !draining.contains(node);
        let kept = std::iter::once(situation.me)
            .chain(others.iter().rev().copied())
            .filter(is_kept);
        for node in kept {
            // No plan at all, no step.
            if wanted.is_empty() || wanted.len() >= least {
                break;
            }
            wanted.insert(node);
        }
        Self {
            situation,
            learners: members(&|replica| !replica.is_voter),
            voters,
            alive,
            ready,
            draining,
            joining,
            leaving: others.iter().copied().filter(|node| !wanted.contains(node)).collect(),
            others,
            wanted,
        }
    }

    /// The voters after the next change of them, if one is due and safe.
    fn next_voters(&self) -> Option<BTreeSet<NodeId>> {
        let (joining, leaving) = (self.joining.as_slice(), self.leaving.as_slice());
        let (now, wanted) = (self.voters.len(), self.wanted.len());
        if now.is_multiple_of(2) {
            let (joins, leaves) = self.out_of_an_even_number()?;
            return self.changed(joins, leaves);
        }
        let are_all_wanted_in = self.wanted.is_subset(&self.voters);
        // Too many, and nobody is waited for: two at once stay an odd number. Dead ones go before their replacement is in:
        // without them the majority is smaller.
        let are_too_many =
            now > wanted && leaving.len() >= 2 && (are_all_wanted_in || !self.alive.contains(&leaving[1]));
        let too_many = are_too_many.then(|| self.changed(&[], &leaving[..2])).flatten();
        let is_replaced = !joining.is_empty() && !leaving.is_empty();
        let replaced = || {
            is_replaced
                .then(|| self.changed(&joining[..1], &leaving[..1]))
                .flatten()
        };
        let are_too_few = now < wanted && joining.len() >= 2;
        let too_few = || are_too_few.then(|| self.changed(&joining[..2], &[])).flatten();
        let is_single = now == 1 && wanted == 1 && !joining.is_empty() && self.may_hand_over();
        let two = || is_single.then(|| self.changed(&joining[..1], &[])).flatten();
        too_many.or_else(replaced).or_else(too_few).or_else(two)
    }

    /// The voters after a change, if it is safe.
    fn changed(&self, joins: &[NodeId], leaves: &[NodeId]) -> Option<BTreeSet<NodeId>> {
        let mut after = self.voters.clone();
        after.extend(joins);
        after.retain(|node| !leaves.contains(node));
        let change = Change {
            before: &self.voters,
            after: &after,
            ready: &self.ready,
            draining: &self.draining,
            replicas: self.situation.replicas,
        };
        change.check().is_ok().then_some(after)
    }

    /// An even number of voters needs more of them than one voter less would: one goes, or one comes, unless the next thing is
    /// to hand leadership over. `None` if that is so.
    fn out_of_an_even_number(&self) -> Option<(&[NodeId], &[NodeId])> {
        if let Some(first) = self.leaving.first() {
            return Some((&[], std::slice::from_ref(first)));
        }
        if let Some(first) = self.joining.first() {
            return Some((std::slice::from_ref(first), &[]));
        }
        if self.transfer().is_some() {
            return None;
        }
        let first = self.others.first()?;
        Some((&[], std::slice::from_ref(first)))
    }

    /// The leadership may be given up for the plan: at once if the leader has to go, else when it does not disturb.
    fn may_hand_over(&self) -> bool {
        !self.situation.planned.contains(&self.situation.me) || self.situation.may_move_leadership
    }

    /// The voter that should lead instead, if it is time.
    fn transfer(&self) -> Option<NodeId> {
        let situation = self.situation;
        let is_good =
            |node: &&NodeId| self.voters.contains(node) && self.ready.contains(node) && **node != situation.me;
        let first = situation.planned.iter().take(1).find(is_good);
        if self.wanted.contains(&situation.me) {
            return first.filter(|_| situation.may_move_leadership).copied();
        }
        // What only a successor can do is to take this leader's vote away: everything else is done first.
        let is_last = self.wanted.iter().all(|node| self.ready.contains(node))
            || !self.joining.is_empty() && self.leaving.is_empty();
        let is_even = self.voters.len().is_multiple_of(2);
        let is_due = is_even || is_last && self.may_hand_over();
        let mut wanted = situation.planned.iter().take(situation.planned_voters);
        wanted.find(is_good).filter(|_| is_due).copied()
    }

    /// The first planned node that is no member yet.
    fn add(&self) -> Option<Step> {
        let is_member = |node: &NodeId| self.voters.contains(node) || self.learners.contains(node);
        let missing = self.situation.planned.iter().find(|node| !is_member(node));
        missing
            .filter(|_| self.situation.may_transfer_snapshot)
            .map(|node| Step::AddLearner(*node))
    }

    /// A learner that the plan does not name: at once if it is no good copy, else when there are enough others.
    fn remove(&self) -> Option<Step> {
        let is_enough = |node: &NodeId| {
            let others = self.ready.iter().filter(|other| *other != node).count();
            others >= self.situation.planned.len()
        };
        let mut unplanned = self
            .learners
            .iter()
            .filter(|node| !self.situation.planned.contains(node));
        let gone = unplanned.find(|node| !self.ready.contains(node) || is_enough(node));
        gone.map(|node| Step::RemoveLearner(*node))
    }

    fn set_voters(&self, voters: BTreeSet<NodeId>) -> Step {
        let members = self.voters.union(&self.learners);
        let keep_learners = members.filter(|node| !voters.contains(node)).copied().collect();
        Step::SetVoters { voters, keep_learners }
    }
}

fn is_majority(of: &BTreeSet<NodeId>, good: &BTreeSet<NodeId>) -> bool {
    2 * of.intersection(good).count() > of.len()
}

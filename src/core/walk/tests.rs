//! Single steps by example, and a simulated group that is walked through deaths, returns and changing plans.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::core::plan::{Candidate, Plan, plan};
use crate::id::{GroupCount, GroupId};

/// Rounds until a member that was away or is new has caught up.
const LAG_ROUNDS: u8 = 3;
/// Rounds and steps in which a group reaches its plan when nothing dies any more: at most seven voters change one by one, and
/// as many learners come and go.
const ROUNDS_MAX: usize = 200;
const STEPS_MAX: usize = 40;

/// A Raft group, as far as its members go.
#[derive(Clone, Debug)]
struct Model {
    voters: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
    /// The voters before the unfinished change.
    joint: Option<BTreeSet<NodeId>>,
    leader: Option<NodeId>,
    dead: BTreeSet<NodeId>,
    /// Rounds until caught up.
    lag: BTreeMap<NodeId, u8>,
    planned: Vec<NodeId>,
    planned_voters: usize,
    replicas: u8,
    /// Asked to leave, dead or alive.
    draining: BTreeSet<NodeId>,
    may_transfer_snapshot: bool,
    may_move_leadership: bool,
    steps: usize,
}

impl Model {
    fn new(node: NodeId) -> Self {
        Self {
            voters: [node].into(),
            learners: BTreeSet::new(),
            joint: None,
            leader: Some(node),
            dead: BTreeSet::new(),
            lag: BTreeMap::new(),
            planned: vec![node],
            planned_voters: 1,
            replicas: 1,
            draining: BTreeSet::new(),
            may_transfer_snapshot: true,
            may_move_leadership: true,
            steps: 0,
        }
    }

    fn follow(&mut self, plan: &Plan, group: GroupId, replicas: u8) {
        self.planned = plan.replicas(group).to_vec();
        self.planned_voters = plan.voters(group);
        self.replicas = replicas;
    }

    /// A plan for these nodes. Where there are not as many as copies, all others were asked to leave: else they would be counted.
    fn plan(&mut self, bits: u8, replicas: u8, drains: bool) {
        self.follow(&plan_of(members_of(bits), 1, replicas), GroupId(0), replicas);
        let is_short = members_of(bits).count() < usize::from(replicas);
        self.draining = (0..8)
            .filter(|node| bits >> node & 1 == 0 && (drains || is_short))
            .collect();
    }

    fn alive(&self, of: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        of.difference(&self.dead).copied().collect()
    }

    fn ready(&self, of: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let alive = self.alive(of).into_iter();
        alive.filter(|node| !self.lag.contains_key(node)).collect()
    }

    /// A majority of the voters, and of those before an unfinished change, is alive.
    fn has_quorum(&self) -> bool {
        let mut sets = self.joint.iter().chain([&self.voters]);
        sets.all(|set| is_majority(set, &self.alive(set)))
    }

    fn kill(&mut self, node: NodeId) {
        self.dead.insert(node);
        if self.leader == Some(node) {
            self.leader = None;
        }
    }

    fn revive(&mut self, node: NodeId) {
        if self.dead.remove(&node) {
            self.lag.insert(node, LAG_ROUNDS);
        }
    }

    /// Someone with the longest log leads; its log is the measure of the others.
    fn elect(&mut self) {
        let alive = self.alive(&self.voters);
        let longest = alive.iter().min_by_key(|node| self.lag.get(node).copied().unwrap_or(0));
        self.leader = longest.copied().filter(|_| self.has_quorum());
        if let Some(leader) = self.leader {
            self.lag.remove(&leader);
        }
    }

    fn step(&self) -> Step {
        let me = self.leader.expect("called while there is a leader");
        let replica = |node: &NodeId| Replica {
            node: *node,
            is_voter: self.voters.contains(node),
            is_caught_up: !self.lag.contains_key(node),
            is_alive: !self.dead.contains(node),
            is_draining: self.draining.contains(node),
        };
        let replicas: Vec<_> = self.voters.union(&self.learners).map(replica).collect();
        next_step(&Situation {
            me,
            members: &replicas,
            planned: &self.planned,
            planned_voters: self.planned_voters,
            replicas: self.replicas,
            is_joint: self.joint.is_some(),
            may_transfer_snapshot: self.may_transfer_snapshot,
            may_move_leadership: self.may_move_leadership,
        })
    }

    /// Time passes, and the leader, if there is one, takes a step.
    fn round(&mut self) {
        let is_leading = self.leader.is_some_and(|leader| self.voters.contains(&leader));
        if is_leading && (self.joint.is_some() || !self.has_quorum()) {
            assert_eq!(self.step(), Step::Wait, "{self:?}");
        }
        if !is_leading || !self.has_quorum() {
            self.elect();
        }
        if self.leader.is_none() {
            return;
        }
        if self.joint.take().is_none() {
            let step = self.step();
            self.steps += usize::from(step != Step::Wait);
            self.apply(step);
        }
        let dead = &self.dead;
        self.lag.retain(|node, rounds| {
            *rounds -= u8::from(!dead.contains(node));
            *rounds > 0
        });
    }

    fn apply(&mut self, step: Step) {
        let members: BTreeSet<NodeId> = self.voters.union(&self.learners).copied().collect();
        match step {
            Step::AddLearner(node) => {
                assert!(self.may_transfer_snapshot && self.planned.contains(&node) && !members.contains(&node));
                self.learners.insert(node);
                self.lag.insert(node, LAG_ROUNDS);
            }
            Step::SetVoters { voters, keep_learners } => {
                self.check_voters(&voters);
                assert!(voters.is_disjoint(&keep_learners));
                assert_eq!(voters.union(&keep_learners).copied().collect::<BTreeSet<_>>(), members);
                self.joint = Some(std::mem::replace(&mut self.voters, voters));
                self.learners = keep_learners;
            }
            Step::RemoveLearner(node) => {
                assert!(self.learners.remove(&node) && !self.planned.contains(&node));
                let is_copy = self.ready(&members).contains(&node);
                assert!(!is_copy || self.ready(&members).len() > self.planned.len());
                self.lag.remove(&node);
            }
            Step::TransferLeadership(node) => {
                assert!(self.leader != Some(node) && self.planned.contains(&node));
                assert!(self.ready(&self.voters).contains(&node));
                self.leader = Some(node);
            }
            Step::FinishChange => unreachable!("the loop's own step"),
            Step::Wait => {
                let is_stuck = self.voters.len().is_multiple_of(2) && self.has_quorum();
                assert!(!is_stuck, "an even number of voters is left at once: {self:?}");
            }
        }
    }

    /// The laws of a change of voters.
    fn check_voters(&self, voters: &BTreeSet<NodeId>) {
        let leader = self.leader.expect("called while there is a leader");
        assert!(voters.contains(&leader));
        assert!(self.has_quorum());
        assert!(is_majority(voters, &self.ready(voters)), "{self:?} to {voters:?}");
        let is_handover = self.voters.len() == 1 && voters.len() == 2 && self.planned_voters == 1;
        assert!(voters.len() % 2 == 1 || is_handover, "{self:?} to {voters:?}");
        let added: BTreeSet<NodeId> = voters.difference(&self.voters).copied().collect();
        assert_eq!(self.ready(&self.learners).intersection(&added).count(), added.len());
        let removed: BTreeSet<NodeId> = self.voters.difference(voters).copied().collect();
        let was_even = self.voters.len() == 2;
        self.check_safety(voters, &added, &removed);
        let are_wanted = self
            .planned
            .iter()
            .take(self.planned_voters)
            .any(|node| removed.contains(node));
        assert!(!are_wanted || was_even, "{self:?} to {voters:?}");
        assert!(added.len().max(removed.len()) <= 2 && (added.is_empty() || removed.len() <= 1));
    }

    /// Rule 1, said in another way than in `law.rs`: whoever goes is accounted for.
    fn check_safety(&self, voters: &BTreeSet<NodeId>, added: &BTreeSet<NodeId>, removed: &BTreeSet<NodeId>) {
        assert!(added.is_disjoint(&self.draining));
        let stay: BTreeSet<NodeId> = self.voters.difference(&self.draining).copied().collect();
        let largest_odd = |count: usize| count.div_ceil(2) * 2 - 1;
        let wanted = usize::from(self.replicas).min(self.ready(&stay).len() + added.len());
        let fewest = self.voters.len() - removed.intersection(&self.draining).count();
        let is_enough = voters.len() >= largest_odd(wanted.max(1)) && voters.len() + 1 >= fewest;
        let is_asked_for = voters.len() >= largest_odd(usize::from(self.replicas)) && self.ready(voters) == *voters;
        assert!(
            is_enough || is_asked_for || self.voters.len() == 2,
            "{self:?} to {voters:?}"
        );
        let dead = removed
            .iter()
            .filter(|node| self.dead.contains(node) && !self.draining.contains(node));
        let is_replaced = dead.count() <= added.len();
        assert!(
            is_replaced || is_asked_for,
            "a dead voter is left out: {self:?} to {voters:?}"
        );
    }

    fn is_there(&self) -> bool {
        let (voting, learning) = self.planned.split_at(self.planned_voters);
        self.joint.is_none()
            && self.leader == Some(self.planned[0])
            && self.voters == voting.iter().copied().collect()
            && self.learners == learning.iter().copied().collect()
    }

    /// Without further faults the group reaches its plan and stays.
    fn settle(&mut self) {
        self.may_transfer_snapshot = true;
        self.may_move_leadership = true;
        self.steps = 0;
        let rounds = (0..ROUNDS_MAX).take_while(|_| {
            self.round();
            !self.is_there()
        });
        assert!(rounds.count() < ROUNDS_MAX, "not there: {self:?}");
        assert!(self.steps <= STEPS_MAX, "{} steps", self.steps);
        for _ in 0..2 * LAG_ROUNDS {
            self.round();
        }
        assert_eq!(self.step(), Step::Wait, "{self:?}");
        assert!(self.is_there());
    }
}

fn plan_of(nodes: impl IntoIterator<Item = NodeId>, groups: u16, replicas: u8) -> Plan {
    let candidate = |node| Candidate {
        node,
        zone: String::new(),
        is_lost: false,
    };
    let candidates: Vec<_> = nodes.into_iter().map(candidate).collect();
    plan(&candidates, GroupCount::new(groups).expect("a divisor"), replicas)
}

/// A leader 1 with caught-up, alive members.
struct Case {
    voters: &'static [NodeId],
    learners: &'static [NodeId],
    planned: &'static [NodeId],
    planned_voters: usize,
    draining: &'static [NodeId],
}

impl Case {
    fn model(&self) -> Model {
        Model {
            voters: self.voters.iter().copied().collect(),
            learners: self.learners.iter().copied().collect(),
            planned: self.planned.to_vec(),
            planned_voters: self.planned_voters,
            replicas: u8::try_from(self.planned.len()).expect("few"),
            draining: self.draining.iter().copied().collect(),
            ..Model::new(1)
        }
    }

    fn step(&self) -> Step {
        self.model().step()
    }
}

fn set_voters(voters: &[NodeId], learners: &[NodeId]) -> Step {
    Step::SetVoters {
        voters: voters.iter().copied().collect(),
        keep_learners: learners.iter().copied().collect(),
    }
}

fn case(
    voters: &'static [NodeId],
    learners: &'static [NodeId],
    planned: &'static [NodeId],
    planned_voters: usize,
) -> Case {
    Case {
        voters,
        learners,
        planned,
        planned_voters,
        draining: &[],
    }
}

#[test]
fn steps_by_example() {
    for (case, step) in [
        (case(&[1], &[], &[1, 2, 3], 3), Step::AddLearner(2)),
        (case(&[1], &[2], &[1, 2, 3], 3), Step::AddLearner(3)),
        (case(&[1], &[2, 3], &[1, 2, 3], 3), set_voters(&[1, 2, 3], &[])),
        (case(&[1, 2, 3], &[4], &[1, 2, 4], 3), set_voters(&[1, 2, 4], &[3])),
        (case(&[1, 2, 4], &[3], &[1, 2, 4], 3), Step::RemoveLearner(3)),
        (case(&[1, 2, 3], &[], &[1, 2, 3], 3), Step::Wait),
        (case(&[1, 2, 3], &[], &[2, 1, 3], 3), Step::TransferLeadership(2)),
        // The leader has to go: its replacement first, then another leads and takes its vote.
        (case(&[1, 2, 3], &[], &[4, 2, 3], 3), Step::AddLearner(4)),
        (case(&[1, 2, 3], &[4], &[4, 2, 3], 3), Step::TransferLeadership(2)),
        (
            case(&[1, 5, 6], &[2, 3, 4], &[2, 3, 4], 3),
            set_voters(&[1, 2, 6], &[3, 4, 5]),
        ),
        // One voter and one learner on two nodes; the voter changes by way of two.
        (case(&[1], &[2], &[1, 2], 1), Step::Wait),
        (case(&[1], &[2], &[2, 1], 1), set_voters(&[1, 2], &[])),
        (case(&[1, 2], &[], &[2, 1], 1), Step::TransferLeadership(2)),
        (case(&[1, 2], &[], &[1, 2], 1), set_voters(&[1], &[2])),
        (case(&[1, 2], &[], &[1, 2, 3], 3), set_voters(&[1], &[2])),
        (case(&[1, 2], &[3], &[1, 2, 3], 3), set_voters(&[1, 2, 3], &[])),
        // Fewer voters.
        (
            case(&[1, 2, 3, 4, 5], &[], &[1, 2, 3], 3),
            set_voters(&[1, 2, 3], &[4, 5]),
        ),
        (case(&[1, 2, 3], &[], &[2], 1), Step::TransferLeadership(2)),
        (case(&[1, 2, 3], &[], &[1], 1), set_voters(&[1], &[2, 3])),
        // No plan, no step; nor by a leader whose vote has just ended.
        (case(&[2, 3, 4], &[1], &[2, 3, 4], 3), Step::Wait),
        (case(&[1, 2, 3], &[], &[], 0), Step::Wait),
    ] {
        assert_eq!(case.step(), step, "{:?}", case.model());
    }
}

#[test]
fn the_dead_are_waited_for_and_never_counted() {
    let mut planned_is_dead = case(&[1, 2, 3], &[], &[3, 2, 1], 3).model();
    planned_is_dead.dead.insert(3);
    assert_eq!(
        planned_is_dead.step(),
        Step::Wait,
        "the plan decides when it is given up"
    );

    let mut replaced = case(&[1, 2, 3], &[4], &[1, 2, 4], 3).model();
    replaced.dead.insert(3);
    assert_eq!(replaced.step(), set_voters(&[1, 2, 4], &[3]));
    replaced.lag.insert(4, 1);
    assert_eq!(replaced.step(), Step::Wait, "its replacement has not caught up");
    replaced.lag.clear();
    replaced.dead.insert(2);
    assert_eq!(replaced.step(), Step::Wait, "no majority");

    let mut shrunk = case(&[1, 2, 3, 4, 5], &[], &[1, 6, 7], 3).model();
    shrunk.may_transfer_snapshot = false;
    shrunk.dead = [4, 5].into();
    assert_eq!(
        shrunk.step(),
        set_voters(&[1, 2, 3], &[4, 5]),
        "without the dead a majority is smaller"
    );
}

#[test]
fn the_number_of_voters_falls_for_those_that_drain_alone() {
    // A plan that does not know a node lowers nothing.
    let forgotten = Model {
        replicas: 3,
        ..case(&[1, 2, 3], &[], &[1, 2], 1).model()
    };
    assert_eq!(forgotten.step(), Step::Wait);
    let drained = |draining: &'static [NodeId]| Model {
        replicas: 3,
        ..Case {
            draining,
            ..case(&[1, 2, 3], &[], &[1, 2], 1)
        }
        .model()
    };
    assert_eq!(drained(&[3]).step(), set_voters(&[1], &[2, 3]));
    let mut one_away = drained(&[3]);
    one_away.dead.insert(2);
    assert_eq!(
        one_away.step(),
        Step::Wait,
        "two of three copies would be left out at once"
    );
    one_away.planned = vec![1, 4, 2];
    one_away.planned_voters = 3;
    one_away.learners.insert(4);
    assert_eq!(
        one_away.step(),
        set_voters(&[1, 2, 4], &[3]),
        "one takes the place of the one that goes"
    );

    // A leader that drains goes when nothing else is left to be done by it, also while another is away.
    let mut away = Model {
        draining: [1].into(),
        ..case(&[1, 2, 3], &[4], &[2, 3, 4], 3).model()
    };
    away.dead.insert(3);
    assert_eq!(away.step(), Step::TransferLeadership(2));

    // Fewer copies were asked for: the dead go once all others are well.
    let mut fewer = case(&[1, 2, 3, 4, 5], &[], &[1, 2, 3], 3).model();
    fewer.dead = [5].into();
    assert_eq!(fewer.step(), set_voters(&[1, 2, 3], &[4, 5]));
    fewer.lag.insert(3, 1);
    assert_eq!(fewer.step(), Step::Wait);
}

#[test]
fn what_may_not_be_done_now_waits() {
    let mut joint = case(&[1], &[2, 3], &[1, 2, 3], 3).model();
    joint.joint = Some([1].into());
    assert_eq!(joint.step(), Step::Wait);

    let mut busy = case(&[1, 2, 3], &[], &[2, 1, 4], 3).model();
    busy.may_move_leadership = false;
    assert_eq!(busy.step(), Step::AddLearner(4));
    busy.may_transfer_snapshot = false;
    assert_eq!(busy.step(), Step::Wait);

    let mut leaving = case(&[1], &[2], &[2], 1).model();
    leaving.may_move_leadership = false;
    assert_eq!(
        leaving.step(),
        set_voters(&[1, 2], &[]),
        "who leaves does not wait for quiet"
    );
    leaving.planned = vec![2, 1];
    assert_eq!(leaving.step(), Step::Wait);
    leaving.voters = [1, 2].into();
    leaving.learners.clear();
    assert_eq!(
        leaving.step(),
        Step::TransferLeadership(2),
        "what has begun is not put off"
    );
}

#[test]
fn a_copy_stays_while_there_are_too_few() {
    let mut model = case(&[1, 2, 3], &[4, 5], &[1, 2, 4], 3).model();
    model.lag.insert(4, 2);
    model.dead.insert(3);
    assert_eq!(model.step(), Step::Wait, "1, 2 and 5 are the only copies");
    model.lag.insert(5, 2);
    assert_eq!(model.step(), Step::RemoveLearner(5), "not a copy yet");
}

#[test]
fn a_cluster_grows_and_shrinks() {
    const GROUPS: u16 = 32;
    for replicas in [1, 3, 5] {
        let mut models: Vec<Model> = (0..GROUPS).map(|_| Model::new(1)).collect();
        for nodes in [1, 2, 3, 5, 7, 5, 4, 3, 2, 1] {
            let plan = plan_of(1..=nodes, GROUPS, replicas);
            for (model, group) in models.iter_mut().zip(0..) {
                model.draining = (nodes + 1..=7).collect();
                model.follow(&plan, GroupId(group), replicas);
                model.settle();
            }
        }
    }
}

#[test]
fn a_cluster_loses_one_node_after_the_other() {
    const GROUPS: u16 = 32;
    let mut models: Vec<Model> = (0..GROUPS).map(|_| Model::new(7)).collect();
    // Down to two nodes: the next to die may be the only voter of a group.
    for first in 1..=6 {
        let plan = plan_of(first..=7, GROUPS, 3);
        for (model, group) in models.iter_mut().zip(0..) {
            model.kill(first - 1);
            // Where there are fewer than three, the dead one was leaving.
            model.draining.extend((first >= 6).then_some(first - 1));
            model.follow(&plan, GroupId(group), 3);
            model.settle();
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Rounds(u8),
    Kill(NodeId),
    Revive(NodeId),
    /// The leader is lost, but not its node.
    Crash,
    /// A plan for the nodes of this bit set.
    Plan(u8, u8, bool),
    May(bool, bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1..6_u8).prop_map(Event::Rounds),
        2 => (0..8_u64).prop_map(Event::Kill),
        2 => (0..8_u64).prop_map(Event::Revive),
        1 => Just(Event::Crash),
        2 => (1..=255_u8, proptest::sample::select(vec![1, 3, 5, 7]), any::<bool>())
            .prop_map(|(nodes, replicas, drains)| Event::Plan(nodes, replicas, drains)),
        1 => any::<(bool, bool)>().prop_map(|(transfer, lead)| Event::May(transfer, lead)),
    ]
}

fn members_of(bits: u8) -> impl Iterator<Item = NodeId> {
    (0..8).filter(move |node| bits >> node & 1 == 1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// The laws are checked at each step (`Model::apply`). Whoever is dead at the end stays dead if the group can do without.
    #[test]
    fn a_group_reaches_its_plan_after_any_faults(
        events in proptest::collection::vec(event(), 1..80),
        last in (1..=255_u8, proptest::sample::select(vec![1, 3, 5, 7]), any::<bool>()),
    ) {
        let mut model = Model::new(0);
        for event in events {
            match event {
                Event::Rounds(rounds) => (0..rounds).for_each(|_| model.round()),
                Event::Kill(node) => model.kill(node),
                Event::Revive(node) => model.revive(node),
                Event::Crash => model.elect(),
                Event::Plan(nodes, replicas, drains) => model.plan(nodes, replicas, drains),
                Event::May(transfer, lead) => {
                    model.may_transfer_snapshot = transfer;
                    model.may_move_leadership = lead;
                }
            }
        }
        let planned: BTreeSet<NodeId> = members_of(last.0).collect();
        for node in 0..8 {
            if planned.contains(&node) || !model.has_quorum() {
                model.revive(node);
            }
        }
        model.plan(last.0, last.1, last.2);
        model.settle();
    }
}

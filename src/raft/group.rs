//! One Raft group on this node: its log, its rows, who leads it, and the right to act for it.
//!
//! A group fires only under a [`Leadership`], which exists once the first entry of this node's own term is applied: openraft
//! may report a restarted leader as leading before that. And it acts only while [`Group::may_act`]: another replica may be
//! elected, unheard of here, once the lease is over.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::raft::VoteRequest;
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::{InstantOf, LogIdOf};
use openraft::{ChangeMembers, EmptyNode, Raft, ReadPolicy};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::core::walk::law::Change;
use crate::id::{GroupId, NodeId};
use crate::metrics::Metrics;
use crate::raft::install::Wanted;
use crate::raft::machine::GroupMachine;
use crate::raft::members::{MemberState, Members, Standing};
use crate::raft::proposer::Proposer;
use crate::raft::suspension::Suspension;
use crate::raft::types::TypeConfig;
use crate::raft::words;
use crate::store::{GroupStore, StoreError};

pub(super) type RaftGroup = Raft<TypeConfig, GroupMachine>;

/// The right to decide for a group, while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// Fencing token of everything decided under it.
    pub generation: u64,
    /// The Raft term in which it was claimed: it ends with the term, noticed here or not.
    pub(super) term: u64,
}

/// Why a read was not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// This node cannot prove that it leads the group.
    #[error("this node cannot serve the task's group now: {0}")]
    Unavailable(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A fire that is being made or reported.
pub struct FireGuard(Group);

impl Drop for FireGuard {
    fn drop(&mut self) {
        self.0.0.fires.send_modify(|fires| *fires -= 1);
    }
}

/// A change of membership or leadership that was not made, or of which it is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ChangeError(pub(super) String);

/// What a group on this node is made of.
pub(super) struct Built {
    pub raft: RaftGroup,
    pub machine: GroupMachine,
    pub store: Arc<GroupStore>,
    pub proposer: Proposer,
    pub leadership: watch::Receiver<Option<Leadership>>,
    /// How long a leader binds those who have confirmed it.
    pub lease: Duration,
    /// Whether the machine has slept since.
    pub suspension: Arc<Suspension>,
    /// The end of the log that an earlier copy on this node had when it was let go.
    pub had: Option<LogIdOf<TypeConfig>>,
    /// The group stops because it was told to, not by a fault.
    pub is_ending: Arc<AtomicBool>,
    /// Where refused changes of members are counted.
    pub metrics: Arc<Metrics>,
}

pub(super) struct Inner {
    pub(super) built: Built,
    id: GroupId,
    opened: InstantOf<TypeConfig>,
    /// The term of the leader that this process has heard last, and when.
    heard: Mutex<Option<(u64, InstantOf<TypeConfig>)>>,
    /// Fires of this group that are being made or reported here.
    pub(super) fires: watch::Sender<usize>,
    /// While any wants it, no further attempt starts: leadership is about to be handed over.
    pub(super) quiet: AtomicUsize,
    /// The term in which this leader has asked another replica to lead: it acts no more in it.
    pub(super) handed_over_term: AtomicU64,
    /// Hand-overs that see to it themselves that this term ends.
    pub(super) handing_over: AtomicUsize,
}

/// One group on this node.
#[derive(Clone)]
pub struct Group(pub(super) Arc<Inner>);

impl Group {
    pub(super) fn new(built: Built) -> Self {
        Self(Arc::new(Inner {
            id: built.store.group(),
            built,
            opened: TypeConfig::now(),
            heard: Mutex::default(),
            fires: watch::Sender::new(0),
            quiet: AtomicUsize::new(0),
            handed_over_term: AtomicU64::new(u64::MAX),
            handing_over: AtomicUsize::new(0),
        }))
    }

    /// The group's number.
    pub fn id(&self) -> GroupId {
        self.0.id
    }

    /// Puts operations into the group's log.
    pub fn proposer(&self) -> &Proposer {
        &self.0.built.proposer
    }

    /// The group's rows.
    pub fn store(&self) -> &Arc<GroupStore> {
        &self.0.built.store
    }

    /// Follows this node's leadership of the group.
    pub fn leadership(&self) -> watch::Receiver<Option<Leadership>> {
        self.0.built.leadership.clone()
    }

    /// This node's leadership now. One of an earlier term is over, also while that has not been followed yet.
    pub fn leads(&self) -> Option<Leadership> {
        let claim = *self.0.built.leadership.borrow();
        claim.filter(|claim| self.led_term() == Some(claim.term))
    }

    /// Whether no other replica can lead yet: a majority has confirmed this leader so recently that its votes are still
    /// bound. By the monotonic clock, with a tenth of the lease kept back for clocks that run apart.
    ///
    /// Never again in a term in which leadership was offered to another replica: that one's election waits for no lease.
    pub fn may_act(&self) -> bool {
        // Lost and regained: what was decided meanwhile is in the store only when the new term is claimed.
        let claimed = self.leads().map(|claim| claim.term);
        if claimed.is_none_or(|term| term == self.0.handed_over_term.load(Ordering::SeqCst)) {
            return false;
        }
        // A leader that is a majority by itself needs nobody's confirmation.
        if self.is_alone() {
            return true;
        }
        let acked = self.quorum_acked();
        is_within(acked, self.0.built.lease * 9 / 10)
            && acked.is_some_and(|acked| self.0.built.suspension.is_since(acked))
    }

    /// The term in which this node leads while no majority has confirmed it for a lease, and when that was sent which
    /// one has confirmed last.
    pub(super) fn unanswered(&self) -> Option<(u64, Option<InstantOf<TypeConfig>>)> {
        let term = self.led_term().filter(|_| !self.is_alone())?;
        let acked = self.quorum_acked();
        (!is_within(acked, self.0.built.lease)).then_some((term, acked))
    }

    /// The term in which this node still leads although it has asked another replica to, and nobody waits for that any more:
    /// the hand-over has failed, or was dropped half way. It may not act in this term, and no other does instead.
    pub(super) fn abandoned(&self) -> Option<u64> {
        let is_abandoned = |term: &u64| {
            *term == self.0.handed_over_term.load(Ordering::SeqCst) && self.0.handing_over.load(Ordering::SeqCst) == 0
        };
        self.led_term().filter(is_abandoned)
    }

    /// When that was sent which a majority has confirmed last.
    fn quorum_acked(&self) -> Option<InstantOf<TypeConfig>> {
        let metrics = self.0.built.raft.data_metrics();
        let acked = metrics.borrow_watched().last_quorum_acked;
        acked.map(|acked| *acked)
    }

    /// Whether an attempt may start now: last of all before it does.
    pub fn may_fire(&self) -> bool {
        self.0.quiet.load(Ordering::SeqCst) == 0 && self.may_act()
    }

    /// Counts a fire until the guard is dropped: leadership is not handed over before its outcome is recorded.
    pub fn begin_fire(&self) -> FireGuard {
        self.0.fires.send_modify(|fires| *fires += 1);
        FireGuard(self.clone())
    }

    /// Tasks with a due or retry ahead, as applied here.
    pub fn pending(&self) -> u64 {
        self.0.built.machine.state().pending
    }

    /// Completes once everything acknowledged before this call is visible in [`Self::store`].
    pub async fn read_barrier(&self) -> Result<(), ReadError> {
        let barrier = self.0.built.raft.ensure_linearizable(ReadPolicy::LeaseRead).await;
        barrier.map_err(|error| ReadError::Unavailable(words::read(&error)))?;
        // What openraft takes for applied may still wait to be written with more, where this node had lost its leadership
        // and has it again.
        let flushed = self.0.built.machine.flush();
        flushed.map_err(|error| ReadError::Unavailable(error.to_string()))
    }

    /// Whether [`Self::store`] holds the group as it once was; everything that is decided is visible there when this returns.
    pub fn is_readable(&self) -> Result<bool, StoreError> {
        if !self.0.built.store.is_whole() || self.0.built.machine.flush().is_err() {
            return Ok(false);
        }
        Ok(self.0.built.machine.applied_index().is_some())
    }

    /// Who leads the group, as far as this process has heard lately: what the log says of it may be years old.
    pub fn leader(&self) -> Option<NodeId> {
        let (leader, term, is_own) = {
            let metrics = self.0.built.raft.server_metrics();
            let now = metrics.borrow_watched();
            (now.current_leader?, now.vote.leader_id.term, now.state.is_leader())
        };
        let silent_from = TypeConfig::now();
        let heard = *self.0.heard.lock();
        let is_heard = heard.is_some_and(|(of, at)| of == term && silent_from < at + 2 * self.0.built.lease);
        (is_own || is_heard).then_some(leader)
    }

    /// The leader of this term has called, and was accepted.
    pub(super) fn hear(&self, term: u64) {
        *self.0.heard.lock() = Some((term, TypeConfig::now()));
    }

    /// Whether a vote for this candidate might break what the process or the copy before this one has promised.
    pub(super) fn is_bound(&self, candidate: &VoteRequest<TypeConfig>) -> bool {
        // What was confirmed to a leader binds for a lease, and openraft has forgotten it. Who hands over releases its voters.
        let is_fresh = TypeConfig::now() < self.0.opened + self.0.built.lease;
        is_fresh && !self.is_alone() && !candidate.leadership_transfer
            || candidate.last_log_id.as_ref() < self.0.built.had.as_ref()
    }

    /// Whether this node is a majority by itself.
    pub(super) fn is_alone(&self) -> bool {
        self.0.built.raft.voter_ids().eq([*self.0.built.raft.node_id()])
    }

    /// Whether this node leads the group now, and its members, all of which are committed, are without `node`.
    pub(super) fn has_dismissed(&self, node: NodeId) -> bool {
        if self.leads().is_none() || !self.may_act() {
            return false;
        }
        let members = self
            .0
            .built
            .raft
            .server_metrics()
            .borrow_watched()
            .membership_config
            .clone();
        let is_member = members.nodes().any(|(member, _)| *member == node) || members.voter_ids().any(|id| id == node);
        !is_member && *members.log_id() == self.0.built.machine.membership_id()
    }

    /// The group's members as seen from here.
    pub fn members(&self) -> Members {
        let server = self.0.built.raft.server_metrics().borrow_watched().clone();
        let data = self.0.built.raft.data_metrics().borrow_watched().clone();
        let last = data.last_log.map_or(0, |id| id.index);
        let lag_of = |node: &NodeId| {
            if node == self.0.built.raft.node_id() {
                return Some(0);
            }
            let matched = data.replication.as_ref()?.get(node)?.as_ref()?;
            Some(last.saturating_sub(matched.index))
        };
        let membership = &server.membership_config;
        let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
        let members = membership.nodes().map(|(node, _)| {
            let state = MemberState {
                is_voter: voters.contains(node),
                lag: lag_of(node),
            };
            (*node, state)
        });
        Members {
            members: members.collect(),
            changing_to: match membership.membership().get_joint_config().as_slice() {
                [] | [_] => None,
                [.., last] => Some(last.clone()),
            },
        }
    }

    /// Adds a node that gets a copy and does not vote.
    pub async fn add_learner(&self, node: NodeId) -> Result<(), ChangeError> {
        let added = self.0.built.raft.add_learner(node, EmptyNode {}, false).await;
        added.map(drop).map_err(|error| ChangeError(words::change(&error)))
    }

    /// Makes exactly these the voters, by a joint change. Voters that are left out become learners. A change that would lower
    /// safety is refused: nobody who sees the group as it is wants one.
    pub async fn set_voters(&self, voters: BTreeSet<NodeId>, standing: &Standing) -> Result<(), ChangeError> {
        let members = self.members();
        let change = Change {
            before: &members.voters(),
            after: &voters,
            ready: &members.ready(&standing.alive, *self.raft().node_id()),
            draining: &standing.draining,
            replicas: standing.replicas,
        };
        if let Err(error) = change.check() {
            self.0.built.metrics.inc_unsafe_change();
            tracing::warn!(group = self.0.id.0, ?change, %error, "a change of voters was refused");
            return Err(ChangeError(error.to_string()));
        }
        self.change_voters(voters).await
    }

    /// Finishes the change of voters that another leader has begun: openraft goes no further by itself. What is committed already
    /// is not judged again.
    pub async fn finish_change(&self) -> Result<(), ChangeError> {
        match self.members().changing_to {
            Some(voters) => self.change_voters(voters).await,
            None => Ok(()),
        }
    }

    async fn change_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), ChangeError> {
        let changed = self.0.built.raft.change_membership(voters, true).await;
        changed.map(drop).map_err(|error| ChangeError(words::change(&error)))
    }

    /// Takes learners out of the group.
    pub async fn remove_learners(&self, nodes: BTreeSet<NodeId>) -> Result<(), ChangeError> {
        let change = ChangeMembers::RemoveNodes(nodes);
        let changed = self.0.built.raft.change_membership(change, true).await;
        changed.map(drop).map_err(|error| ChangeError(words::change(&error)))
    }

    /// The term in which this node leads, as openraft says.
    pub(super) fn led_term(&self) -> Option<u64> {
        let metrics = self.0.built.raft.server_metrics();
        let now = metrics.borrow_watched();
        now.state.is_leader().then_some(now.vote.leader_id.term)
    }

    /// Ends the copy: nothing is applied to its rows any more once this returns.
    pub(super) async fn end(&self) {
        self.0.built.is_ending.store(true, Ordering::SeqCst);
        if let Err(error) = self.0.built.raft.shutdown().await {
            tracing::warn!(group = self.0.id.0, %error, "a group did not stop cleanly");
        }
    }

    /// Whether the group here is at least as far as that snapshot, and follows who has sent it.
    pub(super) fn has_installed(&self, wanted: &Wanted) -> bool {
        let follows = self.0.built.raft.server_metrics().borrow_watched().vote == wanted.vote;
        let applied = self.machine().applied_index();
        follows
            && wanted
                .last
                .is_none_or(|last| applied.is_some_and(|applied| applied >= last.index))
    }

    pub(super) fn machine(&self) -> &GroupMachine {
        &self.0.built.machine
    }

    pub(super) fn raft(&self) -> &RaftGroup {
        &self.0.built.raft
    }

    /// Applies what the state machine still holds back: less to replay at the next start. A failure is in the node's
    /// [`crate::failure::Failure`].
    pub(super) fn flush(&self) {
        drop(self.0.built.machine.flush());
    }
}

fn is_within(acked: Option<InstantOf<TypeConfig>>, within: Duration) -> bool {
    acked.is_some_and(|acked| TypeConfig::now() < acked + within)
}

//! One Raft group on this node: its log, its rows, who leads it, and the right to act for it.
//!
//! A group fires only under a [`Leadership`], which exists once the first entry of this node's own term is applied: openraft
//! may report a restarted leader as leading before that. And it acts only while [`Group::may_act`]: another replica may be
//! elected, unheard of here, once the lease is over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::type_config::TypeConfigExt;
use openraft::{ChangeMembers, EmptyNode, Raft, ReadPolicy};
use tokio::sync::watch;

use crate::core::command::{Op, Reply};
use crate::failure::Failure;
use crate::id::{GroupId, NodeId};
use crate::raft::machine::GroupMachine;
use crate::raft::proposer::{ProposeError, Proposer};
use crate::raft::types::TypeConfig;
use crate::store::{GroupStore, StoreError};

pub(super) type RaftGroup = Raft<TypeConfig, GroupMachine>;

/// How long a claim of leadership is retried before the next look.
const CLAIM_RETRY: Duration = Duration::from_millis(50);
/// How long the outcomes of attempts in flight are waited for before leadership is handed over.
const QUIET: Duration = Duration::from_secs(2);
/// How long another replica may take to lead after it was asked to.
const HAND_OVER: Duration = Duration::from_millis(1_500);
/// A replica that lacks at most so many entries is caught up: it needs no snapshot, and a moment.
const CAUGHT_UP_ENTRIES: u64 = 64;

/// The right to decide for a group, while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// Fencing token of everything decided under it.
    pub generation: u64,
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
pub struct ChangeError(String);

/// One member of a group as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberState {
    /// Votes; a learner only holds a copy.
    pub is_voter: bool,
    /// Entries it lacks; `None` while nothing was heard of it.
    pub lag: Option<u64>,
}

impl MemberState {
    /// Whether it could take over at once.
    pub fn is_caught_up(self) -> bool {
        self.lag.is_some_and(|lag| lag <= CAUGHT_UP_ENTRIES)
    }
}

/// A group's members as seen from here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Every voter and learner.
    pub members: BTreeMap<NodeId, MemberState>,
    /// The voters that a change is to end with that has begun and is not finished.
    pub changing_to: Option<BTreeSet<NodeId>>,
    /// Who leads, as far as is known here.
    pub leader: Option<NodeId>,
}

struct Inner {
    id: GroupId,
    raft: RaftGroup,
    machine: GroupMachine,
    store: Arc<GroupStore>,
    proposer: Proposer,
    leadership: watch::Receiver<Option<Leadership>>,
    lease: Duration,
    /// Fires of this group that are being made or reported here.
    fires: watch::Sender<usize>,
    /// No further attempt starts: leadership is about to be handed over.
    is_quiet: AtomicBool,
    /// The term in which this leader has asked another replica to lead: it acts no more in it.
    handed_over_term: AtomicU64,
}

/// One group on this node.
#[derive(Clone)]
pub struct Group(Arc<Inner>);

impl Group {
    pub(super) fn new(
        raft: RaftGroup,
        machine: GroupMachine,
        store: Arc<GroupStore>,
        proposer: Proposer,
        leadership: watch::Receiver<Option<Leadership>>,
        lease: Duration,
    ) -> Self {
        Self(Arc::new(Inner {
            id: store.group(),
            raft,
            machine,
            store,
            proposer,
            leadership,
            lease,
            fires: watch::Sender::new(0),
            is_quiet: AtomicBool::new(false),
            handed_over_term: AtomicU64::new(u64::MAX),
        }))
    }

    /// The group's number.
    pub fn id(&self) -> GroupId {
        self.0.id
    }

    /// Puts operations into the group's log.
    pub fn proposer(&self) -> &Proposer {
        &self.0.proposer
    }

    /// The group's rows.
    pub fn store(&self) -> &Arc<GroupStore> {
        &self.0.store
    }

    /// Follows this node's leadership of the group.
    pub fn leadership(&self) -> watch::Receiver<Option<Leadership>> {
        self.0.leadership.clone()
    }

    /// This node's leadership now.
    pub fn leads(&self) -> Option<Leadership> {
        *self.0.leadership.borrow()
    }

    /// Whether no other replica can lead yet: a majority has confirmed this leader so recently that its votes are still
    /// bound. By the monotonic clock, with a tenth of the lease kept back for clocks that run apart.
    ///
    /// Never again in a term in which leadership was offered to another replica: that one's election waits for no lease.
    pub fn may_act(&self) -> bool {
        if self.term() == self.0.handed_over_term.load(Ordering::SeqCst) {
            return false;
        }
        // A leader that is a majority by itself needs nobody's confirmation.
        if self.0.raft.voter_ids().eq([*self.0.raft.node_id()]) {
            return true;
        }
        let acked = self.0.raft.data_metrics().borrow_watched().last_quorum_acked;
        acked.is_some_and(|acked| TypeConfig::now() < *acked + self.0.lease * 9 / 10)
    }

    /// Whether an attempt may start now: last of all before it does.
    pub fn may_fire(&self) -> bool {
        !self.0.is_quiet.load(Ordering::SeqCst) && self.may_act()
    }

    /// Counts a fire until the guard is dropped: leadership is not handed over before its outcome is recorded.
    pub fn begin_fire(&self) -> FireGuard {
        self.0.fires.send_modify(|fires| *fires += 1);
        FireGuard(self.clone())
    }

    /// Tasks with a due or retry ahead, as applied here.
    pub fn pending(&self) -> u64 {
        self.0.machine.state().pending
    }

    /// Completes once everything acknowledged before this call is visible in [`Self::store`].
    pub async fn read_barrier(&self) -> Result<(), ReadError> {
        let barrier = self.0.raft.ensure_linearizable(ReadPolicy::LeaseRead).await;
        barrier
            .map(drop)
            .map_err(|error| ReadError::Unavailable(error.to_string()))
    }

    /// Who leads the group, as far as is known here.
    pub fn leader(&self) -> Option<NodeId> {
        self.0.raft.server_metrics().borrow_watched().current_leader
    }

    /// The group's members as seen from here.
    pub fn members(&self) -> Members {
        let server = self.0.raft.server_metrics().borrow_watched().clone();
        let data = self.0.raft.data_metrics().borrow_watched().clone();
        let last = data.last_log.map_or(0, |id| id.index);
        let lag_of = |node: &NodeId| {
            if node == self.0.raft.node_id() {
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
            leader: server.current_leader,
        }
    }

    /// Adds a node that gets a copy and does not vote.
    pub async fn add_learner(&self, node: NodeId) -> Result<(), ChangeError> {
        let added = self.0.raft.add_learner(node, EmptyNode {}, false).await;
        added.map(drop).map_err(|error| ChangeError(error.to_string()))
    }

    /// Makes exactly these the voters, by a joint change. Voters that are left out become learners.
    pub async fn set_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), ChangeError> {
        let changed = self.0.raft.change_membership(voters, true).await;
        changed.map(drop).map_err(|error| ChangeError(error.to_string()))
    }

    /// Takes learners out of the group.
    pub async fn remove_learners(&self, nodes: BTreeSet<NodeId>) -> Result<(), ChangeError> {
        let change = ChangeMembers::RemoveNodes(nodes);
        let changed = self.0.raft.change_membership(change, true).await;
        changed.map(drop).map_err(|error| ChangeError(error.to_string()))
    }

    /// Hands leadership to a caught-up voter. This node stops starting attempts first and waits for the outcomes of those in
    /// flight, so that the new leader repeats none; if that takes long, it stays the leader. Then it stops acting for the
    /// group: the other's election waits for no lease. Should that not come about, this node gives up its term as well, since
    /// the wish may still be on its way.
    pub async fn hand_over(&self, to: NodeId) -> Result<(), ChangeError> {
        self.0.is_quiet.store(true, Ordering::SeqCst);
        let handed_over = self.hand_over_quietly(to).await;
        self.0.is_quiet.store(false, Ordering::SeqCst);
        handed_over
    }

    async fn hand_over_quietly(&self, to: NodeId) -> Result<(), ChangeError> {
        let mut fires = self.0.fires.subscribe();
        let is_settled = tokio::time::timeout(QUIET, fires.wait_for(|fires| *fires == 0))
            .await
            .is_ok();
        if !is_settled {
            return Err(ChangeError(
                "callbacks in flight take long: leadership stays for now".into(),
            ));
        }
        let failed = |error: openraft::errors::Fatal<TypeConfig>| ChangeError(error.to_string());
        let term = self.term();
        self.0.handed_over_term.store(term, Ordering::SeqCst);
        self.0.raft.trigger().transfer_leader(to).await.map_err(failed)?;
        let mut metrics = self.0.raft.server_metrics();
        let is_over = metrics.wait_until(|now| now.vote.leader_id.term != term || !now.state.is_leader());
        if tokio::time::timeout(HAND_OVER, is_over).await.is_ok() {
            return Ok(());
        }
        self.0.raft.trigger().elect(false).await.map_err(failed)?;
        Err(ChangeError(format!("node {to:016x} did not take over in time")))
    }

    fn term(&self) -> u64 {
        self.0.raft.server_metrics().borrow_watched().vote.leader_id.term
    }

    pub(super) fn raft(&self) -> &RaftGroup {
        &self.0.raft
    }

    /// Applies what the state machine still holds back: less to replay at the next start. A failure is in the node's
    /// [`crate::failure::Failure`].
    pub(super) fn flush(&self) {
        drop(self.0.machine.flush());
    }
}

/// Claims every new term with a `Lead` operation, and publishes the generation once it is applied.
pub(super) async fn follow_leadership(
    raft: RaftGroup,
    proposer: Proposer,
    node: NodeId,
    claims: watch::Sender<Option<Leadership>>,
    failure: Failure,
    is_stopping: Arc<AtomicBool>,
) {
    let mut metrics = raft.server_metrics();
    let mut claimed_term = None;
    loop {
        let (leads, term, is_alone) = {
            let now = metrics.borrow_watched();
            let is_alone = now.membership_config.nodes().count() == 1;
            (now.state.is_leader(), now.vote.leader_id.term, is_alone)
        };
        // Nobody waits for the heartbeats of a leader without followers: its timer would be most of an idle node's work.
        raft.runtime_config().tick(!(leads && is_alone));
        if !leads {
            claims.send_if_modified(|claim| claim.take().is_some());
            claimed_term = None;
        } else if claimed_term != Some(term) {
            claims.send_if_modified(|claim| claim.take().is_some());
            match proposer.propose_waiting(&Op::Lead { node }).await {
                Ok(Reply::Generation(generation)) => {
                    claims.send_replace(Some(Leadership { generation }));
                    claimed_term = Some(term);
                }
                Ok(reply) => unreachable!("a Lead is answered by its generation, not by {reply:?}"),
                Err(ProposeError::NotLeader | ProposeError::Unknown | ProposeError::Overloaded) => {
                    tokio::time::sleep(CLAIM_RETRY).await;
                    if failure.get().is_some() {
                        return;
                    }
                    continue;
                }
            }
        }
        if metrics.changed().await.is_err() {
            claims.send_replace(None);
            if !is_stopping.load(Ordering::SeqCst) {
                // A node that lives on without one of its groups would look well and never fire its tasks.
                failure.report("a Raft group has stopped by itself; the log tells why");
            }
            return;
        }
    }
}

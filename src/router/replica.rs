//! Does a call in a group that this node leads: proposes or reads, and says plainly if it is not the leader.
//!
//! Serves this node's own clients and, through [`Replicas::answer`], the calls that other nodes took.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Clock;
use crate::core::command::{self, Reply};
use crate::core::machine::View;
use crate::core::record;
use crate::core::task::Life;
use crate::id::{GroupId, NodeId, TaskId};
use crate::raft::{Group, Groups, ProposeError};
use crate::router::TaskView;
use crate::router::cluster::LeaderHints;
use crate::router::pages::Rows;
use crate::router::prepare::prepare;
use crate::router::wire::{self, Answer, Request};
use crate::space::Space;
use crate::store::StoreError;

/// How often a call that waits looks whether this node may still act for the group.
const LEASE_LOOK: Duration = Duration::from_millis(250);
/// Looks in a row that find no lease before a call is given up as unknown.
const LEASE_LOOKS_MAX: u32 = 4;
/// How often a task's two rows are read until they are of one revision.
const READS_MAX: u32 = 100;

/// Why the call was not done by this node's replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not done: another node leads, if one is known.
    NotLeader(Option<NodeId>),
    /// Not done: too many operations are waiting.
    Overloaded,
    /// Not done: what room the leader's disk has is kept for what must go on.
    DiskReserve,
    /// It may have been done.
    Unknown,
    /// Not done, for this reason.
    Failed(String),
}

/// The groups of this node, as far as calls of clients go.
#[derive(Clone)]
pub struct Replicas {
    groups: Groups,
    /// Longest time that one call may take here.
    deadline: Duration,
    /// What the nodes can read.
    hints: Arc<dyn LeaderHints>,
    /// Wall time.
    clock: Arc<dyn Clock>,
    /// Whether this node's disk has room for something new.
    space: Space,
}

impl Replicas {
    /// Calls on `groups`; one that takes longer than `deadline` is unknown.
    pub fn new(
        groups: Groups,
        deadline: Duration,
        hints: Arc<dyn LeaderHints>,
        clock: Arc<dyn Clock>,
        space: Space,
    ) -> Self {
        Self {
            groups,
            deadline,
            hints,
            clock,
            space,
        }
    }

    pub(super) fn groups(&self) -> &Groups {
        &self.groups
    }

    /// The group, if this node leads it and may act for it.
    fn led(&self, id: GroupId) -> Result<Group, Refusal> {
        let group = self.groups.get(id).ok_or(Refusal::NotLeader(None))?;
        if group.leads().is_some() && group.may_act() {
            Ok(group)
        } else {
            Err(Refusal::NotLeader(group.leader()))
        }
    }

    /// Puts an encoded operation into its group's log.
    pub(super) async fn propose(&self, group: GroupId, op: Vec<u8>) -> Result<Reply, Refusal> {
        let group = self.led(group)?;
        let op = prepare(&group, op, self.hints.as_ref(), self.clock.as_ref(), &self.space)?;
        let proposed = while_leading(&group, group.proposer().propose_encoded(op));
        let reply = tokio::time::timeout(self.deadline, proposed).await;
        match reply {
            Ok(Some(Ok(reply))) => Ok(reply),
            Ok(Some(Err(ProposeError::NotLeader))) => Err(Refusal::NotLeader(group.leader())),
            Ok(Some(Err(ProposeError::Overloaded))) => Err(Refusal::Overloaded),
            Ok(Some(Err(ProposeError::Unknown)) | None) | Err(_) => Err(Refusal::Unknown),
        }
    }

    /// Reads a task, linearizably; a deleted one is not there.
    pub(super) async fn read(&self, id: &TaskId) -> Result<Option<TaskView>, Refusal> {
        let group = self.led(self.groups.group_of(id.key()))?;
        self.barrier(&group).await?;
        look_up(&group, id)
    }

    /// Reads some tasks of a group from a row on, linearizably.
    pub(super) async fn page(&self, group: GroupId, from: &[u8]) -> Result<Rows, Refusal> {
        let group = self.led(group)?;
        self.barrier(&group).await?;
        Rows::read(&group, from)
    }

    /// Waits until everything that was acknowledged before is in the group's rows here.
    async fn barrier(&self, group: &Group) -> Result<(), Refusal> {
        match tokio::time::timeout(self.deadline, while_leading(group, group.read_barrier())).await {
            Ok(Some(Ok(()))) => Ok(()),
            Ok(Some(Err(_))) => Err(Refusal::NotLeader(group.leader())),
            Ok(None) | Err(_) => Err(Refusal::NotLeader(None)),
        }
    }

    /// Reads a task as this node's copy has it.
    pub(super) fn read_stale(&self, id: &TaskId) -> Result<Option<TaskView>, Refusal> {
        let group = self.groups.get(self.groups.group_of(id.key()));
        let group = group.ok_or(Refusal::NotLeader(None))?;
        let is_readable = group
            .is_readable()
            .map_err(|error| Refusal::Failed(error.to_string()))?;
        if is_readable {
            look_up(&group, id)
        } else {
            Err(Refusal::NotLeader(None))
        }
    }

    /// Answers the call of a client that another node took.
    pub async fn answer(&self, request: &[u8]) -> Bytes {
        match wire::decode(request) {
            Err(error) => wire::encode(&Answer::Failed(&error.to_string())),
            Ok(Request::Propose { group, op }) => {
                // Every replica would stop at an operation that it cannot read: it must not get into the log.
                if let Err(error) = command::check_op(op) {
                    return wire::encode(&Answer::Failed(&error.to_string()));
                }
                match self.propose(group, op.to_vec()).await {
                    Ok(reply) => wire::encode(&Answer::Reply(reply)),
                    Err(refusal) => refusal.encode(),
                }
            }
            Ok(Request::Read { id }) => encode_task(self.read(&id).await),
            Ok(Request::ReadStale { id }) => encode_task(self.read_stale(&id)),
            Ok(Request::Page { group, from }) => match self.page(group, from).await {
                Ok(rows) => rows.encode(),
                Err(refusal) => refusal.encode(),
            },
        }
    }
}

/// The task in the group's rows; a deleted one is not there.
pub(super) fn look_up(group: &Group, id: &TaskId) -> Result<Option<TaskView>, Refusal> {
    let failed = |error: StoreError| Refusal::Failed(error.to_string());
    for _ in 0..READS_MAX {
        let state = group.store().state(id.key()).map_err(failed)?;
        let spec = group.store().spec(id.key()).map_err(failed)?;
        match (spec, state) {
            // The text is compared as well: the key is a hash of it.
            (Some(spec), Some(state)) if spec.id == *id && state.life != Life::Deleted => {
                // Else an update came between the two reads.
                if spec.revision == state.revision {
                    return Ok(Some(TaskView { spec, state }));
                }
            }
            _ => return Ok(None),
        }
    }
    Err(Refusal::Failed("the task is changed again and again".into()))
}

fn encode_task(read: Result<Option<TaskView>, Refusal>) -> Bytes {
    match read {
        Ok(None) => wire::encode(&Answer::Task(None)),
        Ok(Some(task)) => {
            let (spec, state) = (record::encode_spec(&task.spec), record::encode_state(&task.state));
            wire::encode(&Answer::Task(Some((&spec, &state))))
        }
        Err(refusal) => refusal.encode(),
    }
}

impl Refusal {
    fn encode(&self) -> Bytes {
        wire::encode(&match self {
            Self::NotLeader(leader) => Answer::NotLeader { leader: *leader },
            Self::Overloaded => Answer::Overloaded,
            Self::DiskReserve => Answer::DiskReserve,
            Self::Unknown => Answer::Unknown,
            Self::Failed(what) => Answer::Failed(what),
        })
    }
}

/// Waits for `work` as long as this node may act for the group; `None` once it may not for a while: a leader that is cut
/// off from its replicas would wait for ever.
async fn while_leading<T>(group: &Group, work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    let mut looks = 0;
    while looks < LEASE_LOOKS_MAX {
        if let Ok(done) = tokio::time::timeout(LEASE_LOOK, &mut work).await {
            return Some(done);
        }
        looks = if group.may_act() { 0 } else { looks + 1 };
    }
    None
}

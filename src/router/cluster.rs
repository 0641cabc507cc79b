//! Serves the calls of this node's clients: finds the task's group and its leader, does the call here or hands it over,
//! follows hints, and ends in time.
//!
//! Owns what the end of a search means: an answer that did not come is unknown, never "not done".

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::core::command::{self, Op, Reply, UPDATES_AND_CLAIMS};
use crate::core::record;
use crate::core::target::target_of;
use crate::core::task::{Delivery, TaskSpec};
use crate::entropy::Entropy;
use crate::id::{GroupId, NodeId, TaskId};
use crate::net::{CallError, Service};
use crate::peer::BoxFuture;
use crate::peer::Call;
use crate::router::pages::Rows;
use crate::router::prepare::OLDER_RELEASE;
use crate::router::replica::{Refusal, Replicas};
use crate::router::wire::{self, Answer, Request};
use crate::router::{
    Change, CreateError, Cursor, DeleteError, NewTask, Page, QueryError, TaskView, Tasks, UpdateError,
};

mod update;

/// The limit that a refused proposal names.
const LIMIT: &str = "proposals_per_group";
/// When a refused client should come back: the queue is a fraction of a second long.
const RETRY_AFTER_MS: u64 = 1_000;
/// How long a leader is looked for. Longer than an election takes as a rule; a node on the minority side answers after it.
const SEARCH: Duration = Duration::from_millis(1_700);
/// Pause before the next look for a leader.
const SEARCH_PAUSE: Duration = Duration::from_millis(25);
/// How long another node may take over a call.
const FORWARD_DEADLINE: Duration = Duration::from_millis(1_500);

/// How long one node of several may take over a read that any of them can answer.
const STALE_DEADLINE: Duration = Duration::from_millis(500);

/// Knows who leads groups that this node has no replica of.
pub trait LeaderHints: Send + Sync + 'static {
    /// The node that said last that it leads the group. It may be wrong, or late.
    fn leader(&self, group: GroupId) -> Option<NodeId>;

    /// The nodes that are alive.
    fn live(&self) -> Vec<NodeId>;

    /// The newest commands that every node reads that is alive, or was a short time ago.
    fn commands(&self) -> u16;
}

/// What the router works with.
pub struct Parts {
    /// This node.
    pub node: NodeId,
    /// Its replicas.
    pub replicas: Replicas,
    /// The way to the other nodes.
    pub call: Arc<dyn Call>,
    /// Who leads the other groups.
    pub hints: Arc<dyn LeaderHints>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Ids of tasks.
    pub entropy: Arc<dyn Entropy>,
    /// How long a deleted id stays taken, in milliseconds.
    pub retention_ms: u64,
}

/// Serves every call, wherever the task is.
pub struct Router(Parts);

/// What is to be done in a group.
#[derive(Clone, Copy)]
enum Work<'a> {
    /// Put this encoded operation into its log.
    Propose(&'a [u8]),
    /// Read this task.
    Read(&'a TaskId),
    /// Read this task as the copy has it.
    ReadStale(&'a TaskId),
    /// Read tasks from this row on.
    Page(&'a [u8]),
}

/// What the group says.
enum Answered {
    Reply(Reply),
    Task(Option<Box<TaskView>>),
    Rows(Rows),
}

/// Why a call has no answer from its group.
enum Miss {
    Overloaded,
    DiskReserve,
    Unknown,
    Unavailable(String),
}

impl Router {
    /// A router over `parts`.
    pub fn new(parts: Parts) -> Self {
        Self(parts)
    }

    /// Tries the call on whoever leads, until it is answered or the search has taken too long. A try whose outcome is unknown
    /// is repeated: every call is idempotent. The `bool` says that an earlier try may have been done already.
    async fn search(&self, group: GroupId, work: Work<'_>) -> Result<(Answered, bool), Miss> {
        let end = self.0.clock.monotonic() + SEARCH;
        let (mut is_unknown, mut hint, mut avoided) = (false, None, None);
        let mut why = "no node leads the task's group at the moment".to_owned();
        loop {
            let leader = hint.take().or_else(|| self.leader(group, avoided.take()));
            let left = end.saturating_sub(self.0.clock.monotonic());
            let result = match leader {
                Some(node) if node != self.0.node => self.there(node, left.min(FORWARD_DEADLINE), group, work).await,
                _ => self.here(group, work).await,
            };
            match result {
                Ok(answer) => return Ok((answer, is_unknown)),
                Err(Refusal::NotLeader(told)) => {
                    hint = told.filter(|told| *told != self.0.node && Some(*told) != leader);
                    // It cannot be reached, or knows no better: whoever names it is not believed the next time.
                    avoided = leader.filter(|_| hint.is_none());
                }
                Err(Refusal::Overloaded | Refusal::DiskReserve) if is_unknown => return Err(Miss::Unknown),
                Err(Refusal::Overloaded) => return Err(Miss::Overloaded),
                Err(Refusal::DiskReserve) => return Err(Miss::DiskReserve),
                Err(Refusal::Unknown) => is_unknown = true,
                Err(Refusal::Failed(what)) => why = what,
            }
            if self.0.clock.monotonic() >= end {
                return Err(if is_unknown {
                    Miss::Unknown
                } else {
                    Miss::Unavailable(why)
                });
            }
            tokio::time::sleep(SEARCH_PAUSE).await;
        }
    }

    /// Does the call on this node's own replica.
    async fn here(&self, group: GroupId, work: Work<'_>) -> Result<Answered, Refusal> {
        match work {
            Work::Propose(op) => {
                let reply = self.0.replicas.propose(group, op.to_vec()).await;
                reply.map(Answered::Reply)
            }
            Work::Read(id) => {
                let task = self.0.replicas.read(id).await;
                task.map(|task| Answered::Task(task.map(Box::new)))
            }
            Work::ReadStale(id) => {
                let task = self.0.replicas.read_stale(id);
                task.map(|task| Answered::Task(task.map(Box::new)))
            }
            Work::Page(from) => self.0.replicas.page(group, from).await.map(Answered::Rows),
        }
    }

    /// Hands the call to another node.
    async fn there(
        &self,
        node: NodeId,
        deadline: Duration,
        group: GroupId,
        work: Work<'_>,
    ) -> Result<Answered, Refusal> {
        let request = wire::encode(&match work {
            Work::Propose(op) => Request::Propose { group, op },
            Work::Read(id) => Request::Read { id: id.clone() },
            Work::ReadStale(id) => Request::ReadStale { id: id.clone() },
            Work::Page(from) => Request::Page { group, from },
        });
        let answer = self.0.call.call(node, Service::Router, request, deadline).await;
        let answer = answer.map_err(|error| match error {
            CallError::NotSent(_) => Refusal::NotLeader(None),
            CallError::Unknown(_) => Refusal::Unknown,
        })?;
        let unreadable = |error: record::RecordError| Refusal::Failed(error.to_string());
        match wire::decode(&answer) {
            Ok(Answer::Reply(reply)) => Ok(Answered::Reply(reply)),
            Ok(Answer::Task(None)) => Ok(Answered::Task(None)),
            Ok(Answer::Task(Some((spec, state)))) => Ok(Answered::Task(Some(Box::new(TaskView {
                spec: record::decode_spec(spec).map_err(unreadable)?,
                state: record::decode_state(state).map_err(unreadable)?,
            })))),
            Ok(Answer::Page { tasks, next }) => Rows::decode(&tasks, next).map(Answered::Rows).map_err(unreadable),
            Ok(Answer::NotLeader { leader }) => Err(Refusal::NotLeader(leader)),
            Ok(Answer::Overloaded) => Err(Refusal::Overloaded),
            Ok(Answer::DiskReserve) => Err(Refusal::DiskReserve),
            Ok(Answer::Failed(what)) => Err(Refusal::Failed(what.to_owned())),
            // What cannot be read may tell of something that was done.
            Ok(Answer::Unknown) | Err(_) => Err(Refusal::Unknown),
        }
    }

    /// Whether some node is known to lead the group.
    pub fn is_led(&self, group: GroupId) -> bool {
        self.leader(group, None).is_some()
    }

    /// Who leads the group: as its copy here has heard, else as gossip says; whoever of them names the node `avoided` is
    /// passed over.
    fn leader(&self, group: GroupId, avoided: Option<NodeId>) -> Option<NodeId> {
        let replica = self.0.replicas.groups().get(group);
        if replica.as_ref().is_some_and(|replica| replica.leads().is_some()) {
            return Some(self.0.node);
        }
        // A leader whose first entry is not applied yet does not count.
        let heard = replica.and_then(|replica| replica.leader());
        let heard = heard.filter(|leader| *leader != self.0.node && Some(*leader) != avoided);
        heard.or_else(|| self.0.hints.leader(group).filter(|leader| Some(*leader) != avoided))
    }

    async fn propose(&self, id: &TaskId, op: Op<'_>) -> Result<(Reply, bool), Miss> {
        let group = self.0.replicas.groups().group_of(id.key());
        let op = command::encode_op(&op);
        match self.search(group, Work::Propose(&op)).await? {
            (Answered::Reply(reply), is_repeated) => Ok((reply, is_repeated)),
            (Answered::Task(_) | Answered::Rows(_), _) => Err(Miss::Unknown),
        }
    }

    /// A replica that cannot read an operation stops: so nothing new gets into a log before every node can. The leader looks
    /// again; here it saves the search.
    fn all_read(&self, commands: u16) -> Result<(), String> {
        if self.0.hints.commands() >= commands {
            return Ok(());
        }
        Err(OLDER_RELEASE.into())
    }

    fn fresh_id(&self, now_ms: u64) -> TaskId {
        let mut random = [0; 10];
        self.0.entropy.fill(&mut random);
        TaskId::generate(now_ms, random)
    }

    async fn create(&self, task: NewTask) -> Result<TaskId, CreateError> {
        let now_ms = self.0.clock.wall_ms();
        let id = task.id.unwrap_or_else(|| self.fresh_id(now_ms));
        let target = target_of(&task.url);
        let spec = TaskSpec {
            id,
            schedule: task.schedule,
            url: task.url,
            body: task.body,
            created_ms: now_ms,
            delivery: task.delivery,
            revision: 1,
        };
        if spec.delivery != Delivery::AtLeastOnce {
            self.all_read(UPDATES_AND_CLAIMS).map_err(CreateError::Unavailable)?;
        }
        let record = record::encode_spec(&spec);
        let op = Op::Create {
            key: spec.id.key(),
            spec: &record,
            due_ms: task.first_due_ms,
            target,
        };
        match self.propose(&spec.id, op).await {
            Ok((Reply::Done | Reply::Existed, _)) => Ok(spec.id),
            // An earlier try may have stored it, and somebody deleted it since.
            Ok((_, true)) | Err(Miss::Unknown) => Err(CreateError::Unknown { id: spec.id }),
            Ok((_, false)) => Err(CreateError::Conflict),
            Err(Miss::Overloaded) => Err(CreateError::TooMany {
                limit: LIMIT,
                retry_after_ms: RETRY_AFTER_MS,
            }),
            Err(Miss::DiskReserve) => Err(CreateError::DiskReserve),
            Err(Miss::Unavailable(why)) => Err(CreateError::Unavailable(why)),
        }
    }

    async fn delete(&self, id: TaskId) -> Result<(), DeleteError> {
        let at_ms = self.0.clock.wall_ms();
        let op = Op::Delete {
            key: id.key(),
            at_ms,
            expire_ms: at_ms.saturating_add(self.0.retention_ms),
        };
        match self.propose(&id, op).await {
            Ok((Reply::NotFound, _)) => Err(DeleteError::NotFound),
            Ok(_) => Ok(()),
            Err(Miss::Overloaded) => Err(DeleteError::TooMany {
                limit: LIMIT,
                retry_after_ms: RETRY_AFTER_MS,
            }),
            // Not of a delete; were it so, it is not done.
            Err(Miss::DiskReserve) => Err(DeleteError::Unavailable("the leader's disk has no room".into())),
            Err(Miss::Unknown) => Err(DeleteError::Unknown),
            Err(Miss::Unavailable(why)) => Err(DeleteError::Unavailable(why)),
        }
    }

    async fn query(&self, id: TaskId) -> Result<TaskView, QueryError> {
        let group = self.0.replicas.groups().group_of(id.key());
        match self.search(group, Work::Read(&id)).await {
            Ok((Answered::Task(Some(task)), _)) => Ok(*task),
            Ok((Answered::Task(None), _)) => Err(QueryError::NotFound),
            Err(Miss::Unavailable(why)) => Err(QueryError::Unavailable(why)),
            Ok((Answered::Reply(_) | Answered::Rows(_), _))
            | Err(Miss::Overloaded | Miss::DiskReserve | Miss::Unknown) => Err(QueryError::Unavailable(
                "no answer from the task's group in time".into(),
            )),
        }
    }
}

impl Router {
    /// The tasks of one group, and where to go on: in the same group, or in the next one.
    async fn page(&self, from: Cursor) -> Result<Page, QueryError> {
        let groups = self.0.replicas.groups().count();
        if from.group.0 >= groups.get() {
            return Ok(Page::default());
        }
        match self.search(from.group, Work::Page(&from.row)).await {
            Ok((Answered::Rows(rows), _)) => Ok(rows.page(from.group, groups)),
            Err(Miss::Unavailable(why)) => Err(QueryError::Unavailable(why)),
            Ok(_) | Err(Miss::Overloaded | Miss::DiskReserve | Miss::Unknown) => Err(QueryError::Unavailable(format!(
                "no answer from group {} in time",
                from.group.0
            ))),
        }
    }

    /// Asks this node's copy, else whoever may have one, those that lead it first.
    async fn query_stale(&self, id: TaskId) -> Result<TaskView, QueryError> {
        let group = self.0.replicas.groups().group_of(id.key());
        let end = self.0.clock.monotonic() + SEARCH;
        let leader = self.leader(group, None).filter(|leader| *leader != self.0.node);
        let others = self.0.hints.live().into_iter();
        let others = others.filter(|node| *node != self.0.node && Some(*node) != leader);
        let mut answered = self.here(group, Work::ReadStale(&id)).await;
        for node in leader.into_iter().chain(others) {
            let left = end.saturating_sub(self.0.clock.monotonic());
            if answered.is_ok() || left.is_zero() {
                break;
            }
            answered = self
                .there(node, left.min(STALE_DEADLINE), group, Work::ReadStale(&id))
                .await;
        }
        match answered {
            Ok(Answered::Task(Some(task))) => Ok(*task),
            Ok(Answered::Task(None)) => Err(QueryError::NotFound),
            Ok(Answered::Reply(_) | Answered::Rows(_)) | Err(_) => Err(QueryError::Unavailable(
                "no node that is alive has a copy of the task's group".into(),
            )),
        }
    }
}

impl Tasks for Router {
    fn create(&self, task: NewTask) -> BoxFuture<'_, Result<TaskId, CreateError>> {
        Box::pin(self.create(task))
    }

    fn update(&self, change: Change) -> BoxFuture<'_, Result<u32, UpdateError>> {
        Box::pin(self.update(change))
    }

    fn delete(&self, id: TaskId) -> BoxFuture<'_, Result<(), DeleteError>> {
        Box::pin(self.delete(id))
    }

    fn query(&self, id: TaskId) -> BoxFuture<'_, Result<TaskView, QueryError>> {
        Box::pin(self.query(id))
    }

    fn page(&self, from: Cursor) -> BoxFuture<'_, Result<Page, QueryError>> {
        Box::pin(self.page(from))
    }

    fn query_stale(&self, id: TaskId) -> BoxFuture<'_, Result<TaskView, QueryError>> {
        Box::pin(self.query_stale(id))
    }
}

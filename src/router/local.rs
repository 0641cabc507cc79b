//! Serves the calls from the groups of this node: task id -> group -> proposal or linearizable read.
//!
//! Owns the deadline of a call and what its end means: an answer that did not come is unknown, never "not done".

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::core::command::{Op, Reply};
use crate::core::machine::View;
use crate::core::record;
use crate::core::target::target_of;
use crate::core::task::{Life, TaskSpec};
use crate::entropy::Entropy;
use crate::id::{TaskId, TaskKey};
use crate::raft::{Groups, ProposeError};
use crate::router::{BoxFuture, CreateError, DeleteError, NewTask, QueryError, TaskView, Tasks};

/// The limit that a refused proposal names.
const LIMIT: &str = "proposals_per_group";
/// When a refused client should come back: the queue is a fraction of a second long.
const RETRY_AFTER_MS: u64 = 1_000;

/// Serves every call from the groups of this node.
pub struct Router {
    groups: Groups,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    retention_ms: u64,
    deadline: Duration,
}

impl Router {
    /// A router over `groups`; a call that has no answer after `deadline` is answered as unknown.
    pub fn new(
        groups: Groups,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        retention_ms: u64,
        deadline: Duration,
    ) -> Self {
        Self {
            groups,
            clock,
            entropy,
            retention_ms,
            deadline,
        }
    }

    async fn propose(&self, key: TaskKey, op: Op<'_>) -> Result<Reply, ProposeError> {
        let proposed = self.groups.of(key).proposer().propose(&op);
        tokio::time::timeout(self.deadline, proposed)
            .await
            .unwrap_or(Err(ProposeError::Unknown))
    }

    fn fresh_id(&self, now_ms: u64) -> TaskId {
        let mut random = [0; 10];
        self.entropy.fill(&mut random);
        TaskId::generate(now_ms, random)
    }

    async fn create(&self, task: NewTask) -> Result<TaskId, CreateError> {
        let now_ms = self.clock.wall_ms();
        let id = task.id.unwrap_or_else(|| self.fresh_id(now_ms));
        let key = id.key();
        let target = target_of(&task.url);
        let spec = TaskSpec {
            id,
            schedule: task.schedule,
            url: task.url,
            body: task.body,
            created_ms: now_ms,
        };
        let record = record::encode_spec(&spec);
        let op = Op::Create {
            key,
            spec: &record,
            due_ms: task.first_due_ms,
            target,
        };
        match self.propose(key, op).await {
            Ok(Reply::Done | Reply::Existed) => Ok(spec.id),
            Ok(_) => Err(CreateError::Conflict),
            Err(ProposeError::Overloaded) => Err(CreateError::TooMany {
                limit: LIMIT,
                retry_after_ms: RETRY_AFTER_MS,
            }),
            Err(error @ ProposeError::NotLeader) => Err(CreateError::Unavailable(error.to_string())),
            Err(ProposeError::Unknown) => Err(CreateError::Unknown { id: spec.id }),
        }
    }

    async fn delete(&self, id: TaskId) -> Result<(), DeleteError> {
        let at_ms = self.clock.wall_ms();
        let op = Op::Delete {
            key: id.key(),
            at_ms,
            expire_ms: at_ms.saturating_add(self.retention_ms),
        };
        match self.propose(id.key(), op).await {
            Ok(Reply::NotFound) => Err(DeleteError::NotFound),
            Ok(_) => Ok(()),
            Err(ProposeError::Overloaded) => Err(DeleteError::TooMany {
                limit: LIMIT,
                retry_after_ms: RETRY_AFTER_MS,
            }),
            Err(error @ ProposeError::NotLeader) => Err(DeleteError::Unavailable(error.to_string())),
            Err(ProposeError::Unknown) => Err(DeleteError::Unknown),
        }
    }

    async fn query(&self, id: TaskId) -> Result<TaskView, QueryError> {
        let key = id.key();
        let group = self.groups.of(key);
        let unavailable = |what: String| QueryError::Unavailable(what);
        let barrier = tokio::time::timeout(self.deadline, group.read_barrier()).await;
        let barrier = barrier.map_err(|_| unavailable("no answer from the task's group in time".into()))?;
        barrier.map_err(|error| unavailable(error.to_string()))?;
        let state = group
            .store()
            .state(key)
            .map_err(|error| unavailable(error.to_string()))?;
        let spec = group
            .store()
            .spec(key)
            .map_err(|error| unavailable(error.to_string()))?;
        match (spec, state) {
            // The text is compared as well: the key is a hash of it.
            (Some(spec), Some(state)) if spec.id == id && state.life != Life::Deleted => Ok(TaskView { spec, state }),
            _ => Err(QueryError::NotFound),
        }
    }
}

impl Tasks for Router {
    fn create(&self, task: NewTask) -> BoxFuture<'_, Result<TaskId, CreateError>> {
        Box::pin(self.create(task))
    }

    fn delete(&self, id: TaskId) -> BoxFuture<'_, Result<(), DeleteError>> {
        Box::pin(self.delete(id))
    }

    fn query(&self, id: TaskId) -> BoxFuture<'_, Result<TaskView, QueryError>> {
        Box::pin(self.query(id))
    }
}

//! What the API asks of the tasks, whichever group and whichever node has them: create, update, delete, query.
//!
//! Owns the trait and its outcomes, which keep "not done" and "may have happened" apart. Called by `api` alone.

mod cluster;
mod pages;
mod prepare;
mod replica;
mod wire;

#[cfg(test)]
mod tests;

use crate::core::task::{Delivery, Schedule, TaskSpec, TaskState};
use crate::id::TaskId;

use crate::peer::BoxFuture;

pub use cluster::{LeaderHints, Parts, Router};
pub use pages::{Cursor, Page};
pub use replica::Replicas;

/// A task to create; everything in it has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTask {
    /// The client's own id; without one, an id is made.
    pub id: Option<TaskId>,
    /// When it is due.
    pub schedule: Schedule,
    /// The first due instant, in milliseconds since the Unix epoch.
    pub first_due_ms: u64,
    /// Where its callbacks go.
    pub url: String,
    /// What they carry: the client's JSON object, byte for byte.
    pub body: Vec<u8>,
    /// How often its target may be sent a fire.
    pub delivery: Delivery,
}

/// What a task is to be from now on; everything in it has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which task.
    pub id: TaskId,
    /// The revision that is to be replaced; `None`: whichever it has.
    pub replaces: Option<u32>,
    /// When it is due.
    pub schedule: Schedule,
    /// The first due instant, in milliseconds since the Unix epoch.
    pub first_due_ms: u64,
    /// Where its callbacks go.
    pub url: String,
    /// What they carry: the client's JSON object, byte for byte.
    pub body: Vec<u8>,
    /// How often its target may be sent a fire.
    pub delivery: Delivery,
}

/// A task as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskView {
    /// What its creator said.
    pub spec: TaskSpec,
    /// What its fires have made of it.
    pub state: TaskState,
}

/// Why a create has no task to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// The id is taken by another task, or by one deleted within its retention. Not done.
    #[error("task_id exists with a different content, or was deleted a short time ago: choose another task_id")]
    Conflict,
    /// A limit is reached. Not done.
    #[error("too many requests: {limit} is reached; try again after {retry_after_ms} ms")]
    TooMany {
        /// The limit's name.
        limit: &'static str,
        /// When to try again, in milliseconds from now.
        retry_after_ms: u64,
    },
    /// The disk of the node that would store it is nearly full. Not done.
    #[error(
        "the task was not stored: the disk of the node that leads its group is nearly full, and what is left is kept for deletes \
         and outcomes. Make room on it, or try again later"
    )]
    DiskReserve,
    /// Nobody can store it now. Not done; the text says why.
    #[error("the task was not stored: {0}. Try again")]
    Unavailable(String),
    /// It may be stored or not.
    #[error(
        "whether the task was stored is not known. Its task_id is {id}: sending the same request with this task_id again \
         is safe"
    )]
    Unknown {
        /// The id it has if it was stored.
        id: TaskId,
    },
}

/// Why an update has no success to report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// No such task. Not done.
    #[error("no task has this id")]
    NotFound,
    /// It has another revision than the one that was to be replaced. Not done.
    #[error("the task has revision {revision} by now: read it again, and decide anew")]
    Outdated {
        /// The revision it has.
        revision: u32,
    },
    /// A limit is reached. Not done.
    #[error("too many requests: {limit} is reached; try again after {retry_after_ms} ms")]
    TooMany {
        /// The limit's name.
        limit: &'static str,
        /// When to try again, in milliseconds from now.
        retry_after_ms: u64,
    },
    /// The disk of the node that would do it is nearly full. Not done.
    #[error(
        "the task was not changed: the disk of the node that leads its group is nearly full, and what is left is kept for deletes \
         and outcomes. Make room on it, or try again later"
    )]
    DiskReserve,
    /// Nobody can do it now. Not done; the text says why.
    #[error("the task was not changed: {0}. Try again")]
    Unavailable(String),
    /// It may be done or not.
    #[error("whether the task was changed is not known. Read it, and decide anew")]
    Unknown,
}

/// Why a delete has no success to report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeleteError {
    /// No such task.
    #[error("no task has this task_id")]
    NotFound,
    /// A limit is reached. Not done.
    #[error("too many requests: {limit} is reached; try again after {retry_after_ms} ms")]
    TooMany {
        /// The limit's name.
        limit: &'static str,
        /// When to try again, in milliseconds from now.
        retry_after_ms: u64,
    },
    /// Nobody can delete it now. Not done; the text says why.
    #[error("the task was not deleted: {0}. Try again")]
    Unavailable(String),
    /// It may be deleted or not.
    #[error("whether the task was deleted is not known. Sending the same request again is safe")]
    Unknown,
}

/// Why a query has no task to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// No such task.
    #[error("no task has this task_id")]
    NotFound,
    /// Nobody can answer it now; the text says why.
    #[error("the task could not be read: {0}. Try again")]
    Unavailable(String),
}

/// The tasks of the whole service. Success means that it is durable and is seen by every later call.
pub trait Tasks: Send + Sync + 'static {
    /// Stores a task. The same task again under the same id is a success as well.
    fn create(&self, task: NewTask) -> BoxFuture<'_, Result<TaskId, CreateError>>;

    /// Replaces what a task is, and ends what it owed before; its new revision. The same change again is a success as well, and
    /// changes nothing.
    fn update(&self, change: Change) -> BoxFuture<'_, Result<u32, UpdateError>>;

    /// Deletes a task. Deleting one that was deleted within its retention is a success as well.
    fn delete(&self, id: TaskId) -> BoxFuture<'_, Result<(), DeleteError>>;

    /// Reads a task. A deleted one is not found.
    fn query(&self, id: TaskId) -> BoxFuture<'_, Result<TaskView, QueryError>>;

    /// Reads some tasks of one group, in the order of their rows, from the cursor on. Each page is as its group was at one moment of the
    /// call; different pages are of different moments.
    fn page(&self, from: Cursor) -> BoxFuture<'_, Result<Page, QueryError>>;

    /// Reads a task as some copy of it has it, which may lack the latest changes. Answers also where no leader does.
    fn query_stale(&self, id: TaskId) -> BoxFuture<'_, Result<TaskView, QueryError>>;
}

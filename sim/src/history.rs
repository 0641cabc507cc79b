//! What happened in a run, as the outside saw it: calls of clients, attempts at targets, faults. Owns no judgement.
//!
//! Written by the clients, the targets and the faults; read by the invariants. All times are true time: microseconds since the
//! run began, whatever the clocks of the nodes say. Wall times are milliseconds since the Unix epoch.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::invariants::Voters;

/// True time at which the wall clock of a node without skew shows this, in milliseconds since the Unix epoch.
pub const START_WALL_MS: u64 = 1_772_323_200_000;

/// True time of a wall instant, in microseconds since the run began; 0 for what was before.
pub fn true_us(wall_ms: u64) -> u64 {
    wall_ms.saturating_sub(START_WALL_MS) * 1_000
}

/// When a task is to fire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// Once, at this unix second.
    Once(u64),
    /// By a crontab line in a time zone.
    Cron {
        /// The line.
        line: String,
        /// The zone's IANA name.
        zone: String,
    },
}

/// What a client asks to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// The client's own id.
    pub id: String,
    /// When it fires.
    pub when: When,
    /// Where to.
    pub url: String,
    /// The JSON object it carries.
    pub body: String,
    /// Whether it is delivered at most once.
    pub at_most_once: bool,
}

/// One API call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `createTask`.
    Create(Task),
    /// `PUT /v1/tasks/{id}`.
    Update {
        /// What the task is to be.
        task: Task,
        /// The revision that is to be replaced, if it is said.
        replaces: Option<u32>,
    },
    /// `deleteTask`.
    Delete(String),
    /// `queryTask`.
    Query(String),
    /// `GET /v1/tasks/{id}`.
    Show(String),
}

impl Call {
    /// The task it is about.
    pub fn task(&self) -> &str {
        match self {
            Self::Create(task) | Self::Update { task, .. } => &task.id,
            Self::Delete(id) | Self::Query(id) | Self::Show(id) => id,
        }
    }
}

/// What a query showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// `format`, as text.
    pub format: String,
    /// The callback's URL.
    pub url: String,
    /// The callback's body.
    pub body: String,
    /// `run_count`: successful deliveries.
    pub run_count: u64,
    /// The revision, where it is shown.
    pub revision: Option<u32>,
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Success of a create, an update or a delete.
    Done,
    /// Success of a query.
    Shown(Shown),
    /// Another code that says that nothing was done; those of `/v1` as what they are under `/xcron/`.
    Refused(u64),
    /// No answer, or one that does not settle it: it may have happened, or may yet.
    Unknown,
}

/// A call and what came of it. A call without an answer stands here as [`Told::Unknown`].
#[derive(Clone, Debug)]
pub struct Op {
    /// Which client.
    pub client: usize,
    /// Which node it asked.
    pub node: usize,
    /// What it asked.
    pub call: Call,
    /// When it was sent.
    pub from_us: u64,
    /// When the answer was there, or the client gave up.
    pub to_us: u64,
    /// The answer.
    pub told: Told,
}

/// What a target did with an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// This status was sent back, and came.
    Status(u16),
    /// This status was sent, but the node did not hear it: reset, too late, or cut off.
    Unheard(u16),
    /// The request did not reach the target.
    Lost,
    /// The target did nothing with it, or the node is gone before it answered.
    Nothing,
}

/// One attempt, as the target saw it.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// When its node decided on it, and began to connect.
    pub decided_us: u64,
    /// When its first byte left; if none did, as before.
    pub at_us: u64,
    /// When the node had its answer, or gave up; `None` while neither.
    pub ended_us: Option<u64>,
    /// Which node made it.
    pub node: usize,
    /// Which run of that node, from 1.
    pub run_of_node: u64,
    /// What the node's wall clock showed.
    pub node_wall_ms: u64,
    /// The Raft group of its task.
    pub group: u16,
    /// The task.
    pub task: String,
    /// `webhook-id`.
    pub fire_id: String,
    /// The due it is about.
    pub due_ms: u64,
    /// Number of the attempt in its fire, from 1.
    pub attempt: u16,
    /// Number of the due in the task, from 1.
    pub run: u64,
    /// Fencing token.
    pub generation: u64,
    /// Where it went.
    pub url: String,
    /// What it carried.
    pub body: String,
    /// Its first byte left: it has begun. One that found no connection has not.
    pub is_sent: bool,
    /// What the target did.
    pub answered: Answered,
}

/// A time during which something was made to go wrong.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Its beginning.
    pub from_us: u64,
    /// Its end.
    pub to_us: u64,
    /// What was done.
    pub what: String,
    /// The node it was done to; `None` for the network or all of them.
    pub node: Option<usize>,
}

/// Who votes in a group, as the first node that committed it showed it, and how the nodes stood then.
#[derive(Clone, Debug, Default)]
pub struct Membership {
    /// When.
    pub at_us: u64,
    /// The group.
    pub group: u16,
    /// The voters.
    pub voters: Voters,
    /// Copies that every group should have.
    pub replicas: u8,
    /// Nodes that were asked to leave, and that may still be taken for leaving.
    pub draining: BTreeMap<u64, Draining>,
    /// Nodes that do not run, since when.
    pub down_since_us: BTreeMap<u64, u64>,
}

/// When a node was asked to leave, and until when others may take it for leaving: some time after it was started again.
#[derive(Clone, Copy, Debug)]
pub struct Draining {
    /// Asked.
    pub from_us: u64,
    /// The others have heard that it stays.
    pub until_us: u64,
}

/// How the nodes stand.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    /// True time.
    pub now_us: u64,
    /// The most copies that any node was started with.
    pub replicas: u8,
    /// Nodes that were asked to leave.
    pub draining: BTreeMap<u64, Draining>,
    /// Nodes that do not run, since when.
    pub down_since_us: BTreeMap<u64, u64>,
}

/// Everything that happened.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Every membership of every group, in the order in which they were first seen.
    pub memberships: Vec<Membership>,
    /// The nodes as they are now.
    pub roster: Roster,
    /// Calls, in the order of their ends.
    pub ops: Vec<Op>,
    /// Attempts, in the order of their beginnings.
    pub attempts: Vec<Attempt>,
    /// Attempts that had connected, and whose request was not sent then.
    pub withdrawn: u64,
    /// Faults, in the order of their beginnings.
    pub faults: Vec<Fault>,
    /// When the last fault had ended and everything was healed.
    pub healed_us: u64,
    /// When the run ended.
    pub ended_us: u64,
    /// Retry policy of the nodes: attempts of a fire in all.
    pub attempts_max: u16,
    /// The largest error of a node's wall clock against true time at any time of the run, in milliseconds.
    pub skew_ms_max: u64,
}

impl History {
    /// A node has committed that these vote in a group.
    pub fn vote_in(&mut self, group: u16, voters: Voters) {
        let mut known = self.memberships.iter().rev();
        if known.any(|one| one.group == group && one.voters.index == voters.index) {
            return;
        }
        let roster = &self.roster;
        let draining = roster.draining.iter();
        self.memberships.push(Membership {
            at_us: roster.now_us,
            group,
            voters,
            replicas: roster.replicas,
            draining: draining
                .filter(|(_, draining)| draining.until_us > roster.now_us)
                .map(|(node, draining)| (*node, *draining))
                .collect(),
            down_since_us: roster.down_since_us.clone(),
        });
    }
}

/// The history while it is being written.
pub type Recorder = Arc<Mutex<History>>;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Identifier and name of the invariant, such as `I2 never early`.
    pub invariant: &'static str,
    /// The task it is about, if it is about one.
    pub task: Option<String>,
    /// What was seen, and what should have been.
    pub what: String,
}

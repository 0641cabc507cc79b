//! What a task is: its immutable spec, and the state that its fires move.
//!
//! These are the domain's types. Their stored bytes are `core/record.rs`; how commands change them is `core/machine.rs`.

use serde::{Deserialize, Serialize};

use crate::core::reason::Reason;
use crate::core::target::Target;
use crate::id::TaskId;

/// When a task is due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Schedule {
    /// At one instant, in milliseconds since the Unix epoch.
    Once {
        /// The due instant.
        at_ms: u64,
    },
    /// By a crontab line, read in a time zone.
    Cron {
        /// The line as the client sent it.
        expression: String,
        /// IANA name of the zone.
        timezone: String,
    },
}

/// How often the target may be sent one fire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivery {
    /// Until it has answered, within the policy of retries; again after a fault that hid its answer.
    #[default]
    AtLeastOnce,
    /// Once at the most, under every fault: what may have been sent is not sent again.
    AtMostOnce,
}

impl Delivery {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "at_least_once",
            Self::AtMostOnce => "at_most_once",
        }
    }

    /// The delivery of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::AtLeastOnce, Self::AtMostOnce]
            .into_iter()
            .find(|delivery| delivery.name() == name)
    }
}

/// What a client said of a task; an update replaces the whole of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSpec {
    /// The task's name.
    pub id: TaskId,
    /// When it is due.
    pub schedule: Schedule,
    /// Where its callbacks go.
    pub url: String,
    /// What they carry: the client's JSON, byte for byte.
    pub body: Vec<u8>,
    /// When the task was accepted; an update leaves it as it was.
    pub created_ms: u64,
    /// How often its target may be sent a fire.
    pub delivery: Delivery,
    /// Which revision of the task this is, from 1: that of its state, if both were read at one moment.
    pub revision: u32,
}

impl TaskSpec {
    /// Whether a second create with this spec asks for the same task, so that it may be answered as if it were the first.
    pub fn is_same_request(&self, other: &Self) -> bool {
        self.id == other.id
            && self.schedule == other.schedule
            && self.url == other.url
            && self.body == other.body
            && self.delivery == other.delivery
    }
}

/// Where a task is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Life {
    /// It has a due or a retry ahead.
    Pending,
    /// All its dues have a final outcome; kept for queries until it expires.
    Finished,
    /// Deleted by a client; its id stays taken until it expires.
    Deleted,
}

/// What finally became of one due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The target answered 2xx.
    Delivered,
    /// Every attempt failed, or the target said that it wants no more.
    Failed,
    /// Not attempted, or not known to have been; the reason tells which.
    Skipped,
    /// The task was deleted, replaced or ended by its target first.
    Cancelled,
}

/// Status of an answer by which a target ends its task.
pub const GONE: u16 = 410;

/// A final outcome, as kept for queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The due instant; for skipped dues the first of `count`.
    pub due_ms: u64,
    /// How many dues in a row this outcome stands for: 1 but for skipped ones.
    pub count: u64,
    /// Attempts made.
    pub attempts: u16,
    /// What became of it.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// Whether a byte of the last attempt may have left.
    pub is_sent: bool,
    /// When it became final.
    pub at_ms: u64,
}

impl Outcome {
    /// The target's answer to the last attempt.
    pub fn http_status(&self) -> Option<u16> {
        match (self.verdict, self.reason) {
            (_, Reason::Http(status)) => Some(status),
            (Verdict::Failed, Reason::Gone) => Some(GONE),
            _ => None,
        }
    }
}

/// A fire whose attempts so far have failed and that will be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFire {
    /// The due instant.
    pub due_ms: u64,
    /// Number of this due in the task, from 1.
    pub run: u64,
    /// Attempts made so far.
    pub attempts: u16,
    /// When the next attempt is due.
    pub retry_ms: u64,
    /// Why the latest attempt failed.
    pub reason: Reason,
    /// Whether a byte of it may have left.
    pub is_sent: bool,
}

/// A fire of a task that is delivered at most once, from before its attempt until its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The due instant.
    pub due_ms: u64,
    /// Number of this due in the task, from 1.
    pub run: u64,
    /// The leadership that may make the attempt; no other ever does.
    pub generation: u64,
    /// When it was claimed.
    pub at_ms: u64,
    /// Attempts made before, none of which has sent a byte.
    pub attempts: u16,
}

/// The changing part of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskState {
    /// What the firing shares its limits by.
    pub target: Target,
    /// Raised by each update; part of every fire's identity.
    pub revision: u32,
    /// Where the task is in its life.
    pub life: Life,
    /// The next due that has had no outcome yet.
    pub next_due_ms: Option<u64>,
    /// Dues before `next_due_ms`, whatever became of them.
    pub dues_past: u64,
    /// Dues with verdict delivered.
    pub delivered: u64,
    /// Dues with verdict failed.
    pub failed: u64,
    /// Dues with verdict skipped.
    pub skipped: u64,
    /// Dues with verdict cancelled.
    pub cancelled: u64,
    /// Attempts reported for a fire that already had its final outcome.
    pub repeated: u64,
    /// Fires waiting for a retry, oldest due first; at most `OPEN_FIRES_MAX`.
    pub open: Vec<OpenFire>,
    /// The fire whose only attempt is being made.
    pub claim: Option<Claim>,
    /// The newest final outcomes, oldest first; at most `OUTCOMES_KEPT`.
    pub outcomes: Vec<Outcome>,
    /// When the record is dropped; set once the task is finished or deleted.
    pub expire_ms: Option<u64>,
}

impl TaskState {
    /// The latest due that has come, as far as outcomes are kept: one that was cancelled without an attempt may lie ahead.
    pub fn latest_due_ms(&self) -> Option<u64> {
        let has_come = |outcome: &&Outcome| outcome.verdict != Verdict::Cancelled || outcome.attempts > 0;
        let ended = self.outcomes.iter().filter(has_come).map(|outcome| outcome.due_ms);
        let open = self.open.iter().map(|open| open.due_ms);
        ended.chain(open).chain(self.claim.map(|claim| claim.due_ms)).max()
    }

    /// The state of a new task.
    pub fn new(next_due_ms: u64, target: Target) -> Self {
        Self {
            target,
            revision: 1,
            life: Life::Pending,
            next_due_ms: Some(next_due_ms),
            dues_past: 0,
            delivered: 0,
            failed: 0,
            skipped: 0,
            cancelled: 0,
            repeated: 0,
            open: Vec::new(),
            claim: None,
            outcomes: Vec::new(),
            expire_ms: None,
        }
    }
}

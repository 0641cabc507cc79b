//! The commands that change replicated state, and their bytes in the log.
//!
//! A command carries everything that apply may not find out by itself: times, next dues, ids. The bytes are stored in
//! logs and sent between nodes: ordinals of [`Op`], [`Result`](AttemptResult) and [`Reply`] are append-only.

use serde::{Deserialize, Serialize};

use crate::core::reason::Reason;
use crate::core::record::{self, RecordError, raw_bytes};
use crate::core::target::Target;
use crate::id::{NodeId, TaskKey};
use crate::limits::ENTRY_BYTES_MAX;

const COMMAND_V1: u8 = 1;

/// The newest operations that this release reads, as a number that grows with every addition. A replica that meets one it
/// cannot read stops; so what is new is proposed only where all nodes say that they read it.
pub const COMMANDS: u16 = RESCHEDULES;
/// From here on a release reads moves of next dues.
pub const RESCHEDULES: u16 = 3;
/// From here on a release reads updates, and tasks that are delivered at most once.
pub const UPDATES_AND_CLAIMS: u16 = 2;
/// What the first release reads.
const COMMANDS_FIRST: u16 = 1;

/// One operation on the state of a group. A log entry carries a batch of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op<'a> {
    /// First operation of every new leader: raises the generation.
    Lead {
        /// The new leader.
        node: NodeId,
    },
    /// Stores a task.
    Create {
        /// Key of the task.
        key: TaskKey,
        /// The encoded spec (`record::encode_spec`).
        #[serde(borrow, serialize_with = "raw_bytes")]
        spec: &'a [u8],
        /// First due instant.
        due_ms: u64,
        /// What the firing shares its limits by.
        target: Target,
    },
    /// Ends a task for ever.
    Delete {
        /// Key of the task.
        key: TaskKey,
        /// When the node accepted the request.
        at_ms: u64,
        /// Until when the id stays taken.
        expire_ms: u64,
    },
    /// Reports one attempt of a fire.
    Settle(Settle),
    /// Drops the record of a finished or deleted task whose retention has passed.
    Expire {
        /// Key of the task.
        key: TaskKey,
        /// The leader's wall clock.
        at_ms: u64,
    },
    /// Replaces what a task is, if it still has the revision that the client, or the accepting node, has seen.
    Update {
        /// Key of the task.
        key: TaskKey,
        /// The encoded spec, with the revision that it is to have.
        #[serde(borrow, serialize_with = "raw_bytes")]
        spec: &'a [u8],
        /// First due instant of the new revision.
        due_ms: u64,
        /// What the firing shares its limits by.
        target: Target,
        /// The new revision: one more than that which is replaced.
        revision: u32,
        /// When the node accepted the request.
        at_ms: u64,
    },
    /// Takes the only attempt of a fire for one leadership.
    Claim(ClaimFire),
    /// Moves the next due of a task to where its schedule says.
    Reschedule(Reschedule),
}

/// A next due that is not what the task's schedule says, as its leader has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reschedule {
    /// Key of the task.
    pub key: TaskKey,
    /// Generation of the leader that has found it.
    pub generation: u64,
    /// Revision of the task.
    pub revision: u32,
    /// The next due that was found.
    pub expected_ms: u64,
    /// What it is to be.
    pub next_due_ms: u64,
}

/// Dues in a row that a later one is fired instead of, oldest first: those that passed while no node could fire, then those that
/// passed while the task was waiting or attempted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// How many passed while no node could fire.
    pub misfires: u64,
    /// How many passed later.
    pub overlaps: u64,
    /// The first of the later ones, if there is one.
    pub overlaps_from_ms: u64,
}

impl Skipped {
    /// All of them.
    pub fn count(&self) -> u64 {
        self.misfires + self.overlaps
    }
}

/// A fire of a task that is delivered at most once, before its attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimFire {
    /// Key of the task.
    pub key: TaskKey,
    /// Generation of the leader that is to make the attempt.
    pub generation: u64,
    /// Revision of the task.
    pub revision: u32,
    /// The due instant.
    pub due_ms: u64,
    /// The task's next due; differs from `due_ms` where earlier dues were missed.
    pub expected_ms: u64,
    /// The dues from `expected_ms` on that are skipped by this fire.
    pub skipped: Skipped,
    /// Number of the attempt, from 1.
    pub attempt: u16,
    /// The leader's wall clock.
    pub at_ms: u64,
    /// The due after this one; `None` when there is none.
    pub next_due_ms: Option<u64>,
}

/// What one attempt of a fire came to, and what the leader decided from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settle {
    /// Key of the task.
    pub key: TaskKey,
    /// Generation of the leader that made the attempt.
    pub generation: u64,
    /// Revision of the task that was fired.
    pub revision: u32,
    /// The due instant that was fired.
    pub due_ms: u64,
    /// The task's next due when the fire was started; differs from `due_ms` where earlier dues were missed.
    pub expected_ms: u64,
    /// The dues from `expected_ms` on that are skipped by this fire.
    pub skipped: Skipped,
    /// Number of the attempt, from 1.
    pub attempt: u16,
    /// What the leader made of the answer.
    pub result: AttemptResult,
    /// Why.
    pub reason: Reason,
    /// Whether a byte of the request may have left.
    pub is_sent: bool,
    /// When the attempt ended.
    pub at_ms: u64,
    /// The due after this one; `None` when there is none. Ignored unless this is the fire's first report.
    pub next_due_ms: Option<u64>,
    /// Until when the task is kept, should this finish it.
    pub expire_ms: u64,
}

/// The leader's decision about an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttemptResult {
    /// Final: the target has it.
    Delivered,
    /// Not final: the next attempt is due at this instant.
    Retry {
        /// Milliseconds since the Unix epoch.
        at_ms: u64,
    },
    /// Final: no further attempt.
    Failed,
    /// Final, and the target wants nothing more of this task.
    Stop,
    /// Final: claimed by a leader that is gone, or whose claim was of unknown outcome. It may have been delivered.
    Unknown,
    /// Final, without an attempt: as many fires of the task wait for their retry as may.
    Overlap,
}

/// What applying one operation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Done as asked.
    Done,
    /// Create and update: the same task is there already; claim: it is this leadership's already. A repeated request.
    Existed,
    /// Create: the id belongs to another task, or to a deleted one within its retention.
    Conflict,
    /// There is no such task.
    NotFound,
    /// Refused: reported by a leader of an older generation.
    Stale,
    /// The fire already had its final outcome, or its task was deleted; nothing but a counter changed.
    Repeat,
    /// Lead: the generation that has begun.
    Generation(u64),
    /// Update: the task has another revision than the one that was to be replaced.
    Outdated,
}

/// Encodes one operation, to be joined with others into an entry.
pub fn encode_op(op: &Op<'_>) -> Vec<u8> {
    postcard::to_stdvec(op).expect("plain structs encode into memory")
}

/// Whether these are the bytes of one operation: what comes from another node is checked before it enters a log.
pub fn check_op(bytes: &[u8]) -> Result<(), RecordError> {
    if bytes.len() > ENTRY_BYTES_MAX {
        return Err(RecordError::Damaged {
            what: "operation",
            reason: format!("it has {} bytes, more than {ENTRY_BYTES_MAX}", bytes.len()),
        });
    }
    match decode_op(bytes)? {
        Op::Create { spec, .. } | Op::Update { spec, .. } => record::decode_spec(spec).map(drop),
        Op::Lead { .. } | Op::Delete { .. } | Op::Settle(_) | Op::Expire { .. } | Op::Claim(_) | Op::Reschedule(_) => {
            Ok(())
        }
    }
}

/// Decodes one operation.
pub fn decode_op(bytes: &[u8]) -> Result<Op<'_>, RecordError> {
    let damaged = |reason: String| RecordError::Damaged {
        what: "operation",
        reason,
    };
    let (op, left) = postcard::take_from_bytes(bytes).map_err(|error| damaged(error.to_string()))?;
    if left.is_empty() {
        Ok(op)
    } else {
        Err(damaged(format!("{} bytes are left over", left.len())))
    }
}

/// The lowest number of commands at which a release reads this operation, and what it stores.
pub fn needs(op: &Op<'_>) -> u16 {
    match op {
        Op::Reschedule(_) => RESCHEDULES,
        Op::Update { .. } | Op::Claim(_) => UPDATES_AND_CLAIMS,
        Op::Create { spec, .. } if record::is_new_spec(spec) => UPDATES_AND_CLAIMS,
        Op::Create { .. } | Op::Lead { .. } | Op::Delete { .. } | Op::Settle(_) | Op::Expire { .. } => COMMANDS_FIRST,
    }
}

/// Joins encoded operations into the bytes of one log entry; each was encoded once, by whoever proposed it.
pub fn join<'a>(ops: impl ExactSizeIterator<Item = &'a [u8]>, bytes_hint: usize) -> Vec<u8> {
    let mut entry = Vec::with_capacity(bytes_hint + 11);
    entry.push(COMMAND_V1);
    entry = postcard::to_extend(&ops.len(), entry).expect("a number encodes into memory");
    ops.for_each(|op| entry.extend_from_slice(op));
    entry
}

/// Decodes one log entry's operations; the specs stay borrowed from `bytes`.
pub fn decode(bytes: &[u8]) -> Result<Vec<Op<'_>>, RecordError> {
    record::decode("command", COMMAND_V1, bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(ops: &[Op<'_>]) -> Vec<u8> {
        let encoded: Vec<_> = ops.iter().map(encode_op).collect();
        join(encoded.iter().map(Vec::as_slice), 0)
    }

    fn ops() -> Vec<Op<'static>> {
        let key = TaskKey([0xab; 16]);
        vec![
            Op::Lead { node: 7 },
            Op::Create {
                key,
                spec: b"spec",
                due_ms: 1,
                target: Target([0xb0; 16]),
            },
            Op::Delete {
                key,
                at_ms: 2,
                expire_ms: 3,
            },
            Op::Settle(Settle {
                key,
                generation: 4,
                revision: 1,
                due_ms: 5,
                expected_ms: 5,
                skipped: Skipped::default(),
                attempt: 1,
                result: AttemptResult::Retry { at_ms: 6 },
                reason: Reason::Http(503),
                is_sent: true,
                at_ms: 7,
                next_due_ms: Some(8),
                expire_ms: 9,
            }),
            Op::Expire { key, at_ms: 10 },
            Op::Update {
                key,
                spec: b"new",
                due_ms: 11,
                target: Target([0xb1; 16]),
                revision: 12,
                at_ms: 13,
            },
            Op::Claim(ClaimFire {
                key,
                generation: 14,
                revision: 15,
                due_ms: 16,
                expected_ms: 17,
                skipped: Skipped {
                    misfires: 18,
                    overlaps: 21,
                    overlaps_from_ms: 22,
                },
                attempt: 23,
                at_ms: 19,
                next_due_ms: Some(20),
            }),
            Op::Reschedule(Reschedule {
                key,
                generation: 21,
                revision: 22,
                expected_ms: 23,
                next_due_ms: 24,
            }),
        ]
    }

    #[test]
    fn bytes_are_frozen() {
        let hex = encode(&ops())
            .iter()
            .fold(String::new(), |text, b| text + &format!("{b:02x}"));
        let (key, b0, b1) = ("ab".repeat(16), "b0".repeat(16), "b1".repeat(16));
        assert_eq!(
            hex,
            format!(
                "01080007 01{key}047370656301{b0} 02{key}0203 03{key}04010505000000 010106 00f703 01 070108 09 04{key}0a \
                 05{key}036e65770b{b1}0c0d 06{key}0e0f1011 121516 1713 0114 07{key}15161718"
            )
            .replace(' ', "")
        );
    }

    #[test]
    fn commands_come_back() {
        let bytes = encode(&ops());
        assert_eq!(decode(&bytes).expect("just encoded"), ops());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}

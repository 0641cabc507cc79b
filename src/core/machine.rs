//! The replicated state machine: a pure function of state and command.
//!
//! Owns what every operation means. It reads state through [`View`] and answers with [`Changes`]; the store writes them in
//! one batch, and the firing learns from them what is due. What becomes of a task's fires is `machine/fires.rs`. It sees no
//! clock, no random number and no zone table, so that replicas agree byte by byte; the digest in [`GroupState`] proves that
//! they do.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::core::command::{AttemptResult, ClaimFire, Op, Reply, Reschedule, Settle};
use crate::core::reason::Reason;
use crate::core::record;
use crate::core::target::Target;
use crate::core::task::{Claim, Life, OpenFire, TaskSpec, TaskState, Verdict};
use crate::id::{NodeId, TaskKey};
use crate::limits::OPEN_FIRES_MAX;

use fires::{Report, cancel_all, conclude, outcome, take_fire};

mod fires;

/// What the machine reads: the state before the batch.
pub trait View {
    /// Why a read failed.
    type Error;
    /// The task's state, if there is such a task.
    fn state(&self, key: TaskKey) -> Result<Option<TaskState>, Self::Error>;
    /// The task's spec, if it is kept.
    fn spec(&self, key: TaskKey) -> Result<Option<TaskSpec>, Self::Error>;
}

/// The replicated facts of a group as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupState {
    /// Raised by every new leader: the fencing token of the group's shards.
    pub generation: u64,
    /// The leader of this generation.
    pub leader: Option<NodeId>,
    /// Tasks whose life is pending.
    pub pending: u64,
    /// Digest of all task states of the group: equal on all replicas at the same log position, however they batched the log.
    pub digest: u64,
}

/// Why a task has an entry in the due index. The ordinals are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Wake {
    /// A due without an outcome yet.
    Fire = 1,
    /// The next attempt of an open fire, or the end of a claim that nobody has reported on.
    Retry = 2,
    /// The end of the retention.
    Expire = 3,
}

/// What the due index holds beside the instant and the key: enough to queue a fire without reading its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueEntry {
    /// Why the leader is to look at the task.
    pub wake: Wake,
    /// Whose due it is.
    pub target: Target,
}

/// A change of one entry of the due index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueChange {
    /// The instant.
    pub at_ms: u64,
    /// The task.
    pub key: TaskKey,
    /// What the index held there before.
    pub before: Option<DueEntry>,
    /// What it holds from now on.
    pub after: Option<DueEntry>,
}

/// The instants at which the leader must look at a task, each once: exactly its entries in the due index.
pub fn wakes(state: &TaskState) -> BTreeMap<u64, Wake> {
    let mut wakes = BTreeMap::new();
    let fire = state.next_due_ms.map(|at| (at, Wake::Fire));
    let retries = state.open.iter().map(|open| (open.retry_ms, Wake::Retry));
    let claim = state.claim.map(|claim| (claim.at_ms, Wake::Retry));
    let expire = state.expire_ms.map(|at| (at, Wake::Expire));
    for (at, wake) in fire.into_iter().chain(retries).chain(claim).chain(expire) {
        let entry = wakes.entry(at).or_insert(wake);
        *entry = (*entry).min(wake);
    }
    wakes
}

/// How often each thing happened in a batch; for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tasks created.
    pub created: u64,
    /// Tasks deleted by clients.
    pub deleted: u64,
    /// Tasks replaced by clients.
    pub updated: u64,
    /// Dues that became delivered.
    pub delivered: u64,
    /// Dues that became failed.
    pub failed: u64,
    /// Dues that became skipped since they passed while no node could fire.
    pub skipped_misfire: u64,
    /// Dues that became skipped since an earlier one of their task was waiting or attempted.
    pub skipped_overlap: u64,
    /// Dues that became skipped since nobody knows what became of their only attempt.
    pub skipped_unknown: u64,
    /// Dues that became cancelled.
    pub cancelled: u64,
    /// Next dues that were moved to where their schedules say.
    pub rescheduled: u64,
}

/// What a batch changes, in key order: written in one atomic batch, then shown to the firing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Specs to put, or with `None` to drop.
    pub specs: Vec<(TaskKey, Option<Vec<u8>>)>,
    /// States to put, or with `None` to drop.
    pub states: Vec<(TaskKey, Option<Vec<u8>>)>,
    /// Entries of the due index that are put, dropped, or to be looked at anew.
    pub dues: Vec<DueChange>,
    /// Tasks whose fires that were taken before must not start any more.
    pub cancelled: Vec<TaskKey>,
    /// What happened.
    pub tally: Tally,
}

enum SpecChange {
    Keep,
    Put(Vec<u8>),
    Drop,
}

struct Touched {
    before: Option<TaskState>,
    after: Option<TaskState>,
    spec: SpecChange,
    cancelled: bool,
}

/// A batch of operations being applied: reads see what earlier operations of the batch did.
pub struct Batch<'v, V> {
    view: &'v V,
    group: GroupState,
    touched: BTreeMap<TaskKey, Touched>,
    tally: Tally,
}

impl<'v, V: View> Batch<'v, V> {
    /// Begins a batch on the group's state as it is.
    pub fn new(view: &'v V, group: GroupState) -> Self {
        Self {
            view,
            group,
            touched: BTreeMap::new(),
            tally: Tally::default(),
        }
    }

    /// Applies one operation. An error is the view's: the batch must be dropped, nothing of it was written.
    pub fn apply(&mut self, op: &Op<'_>) -> Result<Reply, V::Error> {
        match op {
            Op::Lead { node } => {
                self.group.generation += 1;
                self.group.leader = Some(*node);
                Ok(Reply::Generation(self.group.generation))
            }
            Op::Create {
                key,
                spec,
                due_ms,
                target,
            } => self.create(*key, spec, TaskState::new(*due_ms, *target)),
            Op::Delete { key, at_ms, expire_ms } => self.delete(*key, *at_ms, *expire_ms),
            Op::Settle(settle) => self.settle(settle),
            Op::Expire { key, at_ms } => self.expire(*key, *at_ms),
            Op::Update { key, spec, .. } => self.update(op, *key, spec),
            Op::Claim(claim) => self.claim(claim),
            Op::Reschedule(moved) => self.reschedule(moved),
        }
    }

    /// Applies an operation that was counted elsewhere: on the replica that proposed it, or before a restart.
    pub fn apply_uncounted(&mut self, op: &Op<'_>) -> Result<Reply, V::Error> {
        let tally = self.tally;
        let reply = self.apply(op);
        self.tally = tally;
        reply
    }

    /// Ends the batch: the group's new state, and everything to write.
    pub fn finish(mut self) -> (GroupState, Changes) {
        let mut changes = Changes {
            tally: self.tally,
            ..Changes::default()
        };
        for (key, touched) in self.touched {
            let pending = |state: &Option<TaskState>| u64::from(is_pending(state.as_ref()));
            self.group.pending = self.group.pending + pending(&touched.after) - pending(&touched.before);
            self.group.digest = collect(key, touched, &mut changes, self.group.digest);
        }
        (self.group, changes)
    }

    fn create(&mut self, key: TaskKey, spec: &[u8], state: TaskState) -> Result<Reply, V::Error> {
        let touched = touch(self.view, &mut self.touched, key)?;
        match &touched.after {
            None => {
                touched.after = Some(state);
                touched.spec = SpecChange::Put(spec.to_vec());
                self.tally.created += 1;
                Ok(Reply::Done)
            }
            Some(state) if state.life == Life::Deleted => Ok(Reply::Conflict),
            Some(_) if is_same(self.view, key, &touched.spec, spec)? => Ok(Reply::Existed),
            Some(_) => Ok(Reply::Conflict),
        }
    }

    /// Ends everything that the old revision owes, and begins the new one.
    fn update(&mut self, op: &Op<'_>, key: TaskKey, spec: &[u8]) -> Result<Reply, V::Error> {
        let Op::Update {
            due_ms,
            target,
            revision,
            at_ms,
            ..
        } = *op
        else {
            unreachable!("called for updates alone")
        };
        let touched = touch(self.view, &mut self.touched, key)?;
        let Some(state) = touched.after.as_mut().filter(|state| state.life != Life::Deleted) else {
            return Ok(Reply::NotFound);
        };
        if state.revision == revision && is_same(self.view, key, &touched.spec, spec)? {
            return Ok(Reply::Existed);
        }
        if state.revision.checked_add(1) != Some(revision) {
            return Ok(Reply::Outdated);
        }
        cancel_all(state, at_ms, Reason::Updated, &mut self.tally);
        state.revision = revision;
        state.target = target;
        state.life = Life::Pending;
        state.next_due_ms = Some(due_ms);
        state.expire_ms = None;
        touched.spec = SpecChange::Put(spec.to_vec());
        touched.cancelled = true;
        self.tally.updated += 1;
        Ok(Reply::Done)
    }

    fn delete(&mut self, key: TaskKey, at_ms: u64, expire_ms: u64) -> Result<Reply, V::Error> {
        let touched = touch(self.view, &mut self.touched, key)?;
        let Some(state) = touched.after.as_mut() else {
            return Ok(Reply::NotFound);
        };
        if state.life == Life::Deleted {
            return Ok(Reply::Done);
        }
        cancel_all(state, at_ms, Reason::Deleted, &mut self.tally);
        state.life = Life::Deleted;
        state.expire_ms = Some(expire_ms);
        touched.spec = SpecChange::Drop;
        touched.cancelled = true;
        self.tally.deleted += 1;
        Ok(Reply::Done)
    }

    fn settle(&mut self, settle: &Settle) -> Result<Reply, V::Error> {
        if settle.generation != self.group.generation {
            return Ok(Reply::Stale);
        }
        let touched = touch(self.view, &mut self.touched, settle.key)?;
        let Some(state) = touched.after.as_mut() else {
            return Ok(Reply::NotFound);
        };
        if state.life != Life::Pending || state.revision != settle.revision {
            return Ok(Reply::Repeat);
        }
        let tally = &mut self.tally;
        let is_claimed = state.claim.is_some_and(|claim| claim.due_ms == settle.due_ms);
        let Some(fire) = take_fire(state, &Report::of(settle), tally) else {
            state.repeated += 1;
            return Ok(Reply::Repeat);
        };
        let verdict = match settle.result {
            // What was claimed is sent once, whatever its leader says.
            AttemptResult::Retry { .. } if is_claimed && settle.is_sent => Some(Verdict::Failed),
            // No leader starts a fire that may not wait for a retry: the bound holds without asking.
            AttemptResult::Retry { .. } if state.open.len() >= OPEN_FIRES_MAX => Some(Verdict::Failed),
            AttemptResult::Retry { at_ms } => {
                let open = OpenFire {
                    due_ms: fire.due_ms,
                    run: fire.run,
                    attempts: settle.attempt,
                    retry_ms: at_ms,
                    reason: settle.reason,
                    is_sent: settle.is_sent,
                };
                let at = state.open.partition_point(|other| other.due_ms < open.due_ms);
                state.open.insert(at, open);
                None
            }
            AttemptResult::Delivered => Some(Verdict::Delivered),
            AttemptResult::Failed | AttemptResult::Stop => Some(Verdict::Failed),
            AttemptResult::Unknown | AttemptResult::Overlap => Some(Verdict::Skipped),
        };
        if let Some(verdict) = verdict {
            conclude(state, outcome(&fire, settle, verdict), tally);
        }
        if settle.result == AttemptResult::Stop {
            cancel_all(state, settle.at_ms, Reason::Gone, tally);
        }
        if state.next_due_ms.is_none() && state.open.is_empty() && state.claim.is_none() {
            state.life = Life::Finished;
            state.expire_ms = Some(settle.expire_ms);
        }
        Ok(Reply::Done)
    }

    fn claim(&mut self, claim: &ClaimFire) -> Result<Reply, V::Error> {
        if claim.generation != self.group.generation {
            return Ok(Reply::Stale);
        }
        let touched = touch(self.view, &mut self.touched, claim.key)?;
        let Some(state) = touched.after.as_mut() else {
            return Ok(Reply::NotFound);
        };
        if state.life != Life::Pending || state.revision != claim.revision {
            return Ok(Reply::Repeat);
        }
        if let Some(held) = state.claim {
            let is_own = (held.generation, held.due_ms) == (claim.generation, claim.due_ms);
            return Ok(if is_own { Reply::Existed } else { Reply::Repeat });
        }
        let Some(fire) = take_fire(state, &Report::of_claim(claim), &mut self.tally) else {
            return Ok(Reply::Repeat);
        };
        state.claim = Some(Claim {
            due_ms: fire.due_ms,
            run: fire.run,
            generation: claim.generation,
            at_ms: claim.at_ms,
            attempts: fire.attempts,
        });
        Ok(Reply::Done)
    }

    fn reschedule(&mut self, moved: &Reschedule) -> Result<Reply, V::Error> {
        if moved.generation != self.group.generation {
            return Ok(Reply::Stale);
        }
        let touched = touch(self.view, &mut self.touched, moved.key)?;
        let Some(state) = touched.after.as_mut() else {
            return Ok(Reply::NotFound);
        };
        let is_as_found = state.life == Life::Pending
            && state.revision == moved.revision
            && state.claim.is_none()
            && state.next_due_ms == Some(moved.expected_ms);
        if !is_as_found {
            return Ok(Reply::Repeat);
        }
        state.next_due_ms = Some(moved.next_due_ms);
        self.tally.rescheduled += 1;
        Ok(Reply::Done)
    }

    fn expire(&mut self, key: TaskKey, at_ms: u64) -> Result<Reply, V::Error> {
        let touched = touch(self.view, &mut self.touched, key)?;
        let due = touched.after.as_ref().and_then(|state| state.expire_ms);
        if due.is_none_or(|expire_ms| expire_ms > at_ms) {
            return Ok(Reply::NotFound);
        }
        touched.after = None;
        touched.spec = SpecChange::Drop;
        Ok(Reply::Done)
    }
}

/// The task as this batch has it so far, read from the view at its first use.
fn touch<'t, V: View>(
    view: &V,
    touched: &'t mut BTreeMap<TaskKey, Touched>,
    key: TaskKey,
) -> Result<&'t mut Touched, V::Error> {
    match touched.entry(key) {
        Entry::Occupied(entry) => Ok(entry.into_mut()),
        Entry::Vacant(entry) => {
            let before = view.state(key)?;
            let after = before.clone();
            Ok(entry.insert(Touched {
                before,
                after,
                spec: SpecChange::Keep,
                cancelled: false,
            }))
        }
    }
}

/// Whether the task is, in this batch, what `asked` says. A spec that does not decode was refused before it was proposed: it
/// equals nothing.
fn is_same<V: View>(view: &V, key: TaskKey, spec: &SpecChange, asked: &[u8]) -> Result<bool, V::Error> {
    let stored = match spec {
        SpecChange::Put(bytes) => record::decode_spec(bytes).ok(),
        SpecChange::Keep | SpecChange::Drop => view.spec(key)?,
    };
    Ok(match (stored, record::decode_spec(asked)) {
        (Some(stored), Ok(asked)) => stored.is_same_request(&asked),
        _ => false,
    })
}

fn is_pending(state: Option<&TaskState>) -> bool {
    state.is_some_and(|state| state.life == Life::Pending)
}

/// Turns one touched task into what is to be written. Takes and returns the digest of all states.
fn collect(key: TaskKey, touched: Touched, changes: &mut Changes, digest: u64) -> u64 {
    match touched.spec {
        SpecChange::Keep => {}
        SpecChange::Put(bytes) => changes.specs.push((key, Some(bytes))),
        SpecChange::Drop => changes.specs.push((key, None)),
    }
    if touched.cancelled {
        changes.cancelled.push(key);
    }
    if touched.before == touched.after {
        return digest;
    }
    let before = touched.before.as_ref().map(wakes).unwrap_or_default();
    let after = touched.after.as_ref().map(wakes).unwrap_or_default();
    let entry = |state: &Option<TaskState>, wake: Option<&Wake>| {
        let target = state.as_ref().map_or(Target::default(), |state| state.target);
        wake.map(|wake| DueEntry { wake: *wake, target })
    };
    let change = |at_ms: &u64| DueChange {
        at_ms: *at_ms,
        key,
        before: entry(&touched.before, before.get(at_ms)),
        after: entry(&touched.after, after.get(at_ms)),
    };
    let dropped = before.keys().filter(|at| !after.contains_key(at));
    // An entry that stays the same may have been taken from the index for a fire that must not start any more.
    let is_new = |at, wake| touched.cancelled || before.get(at) != Some(wake);
    let put = after.iter().filter(|(at, wake)| is_new(at, wake));
    changes.dues.extend(dropped.chain(put.map(|(at, _)| at)).map(change));
    let row = |state: &Option<TaskState>| state.as_ref().map(record::encode_state);
    let (old, new) = (row(&touched.before), row(&touched.after));
    let hash = |row: &Option<Vec<u8>>| row.as_ref().map_or(0, |row| digest_of_row(key, row));
    let digest = digest.wrapping_sub(hash(&old)).wrapping_add(hash(&new));
    changes.states.push((key, new));
    digest
}

/// One state's part of [`GroupState::digest`], which is the wrapping sum over all rows: a function of the rows alone, so
/// that neither the order of changes nor their batching counts, and a scan gives the same.
pub fn digest_of_row(key: TaskKey, row: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&key.0);
    hasher.update(row);
    hasher.digest()
}

#[cfg(test)]
mod tests;

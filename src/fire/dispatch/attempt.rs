//! One fire: what its task owes now is read, let go, and sent, one attempt after the other. Which fire begins when is the
//! dispatcher's; what goes into the log is `record.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::{Dispatcher, Queued};
use crate::core::command::{AttemptResult, Settle};
use crate::core::due::{DueAttempt, due_attempts};
use crate::core::machine::{self, DueEntry, View};
use crate::core::retry::{Answer, NoAnswer};
use crate::core::task::{Delivery, TaskSpec, TaskState};
use crate::fire::deliver::Attempt;
use crate::id::{FireId, TaskId};
use crate::metrics::AnswerClass;
use crate::raft::Group;

/// How often a leader that has claimed a fire looks whether it may make the attempt.
const CLAIMED_LOOK: Duration = Duration::from_millis(50);

impl Dispatcher {
    /// Makes the attempts that are due, one after the other: attempts of one task never overlap.
    pub(super) async fn attempts(&self, group: &Group, fire: Queued) -> Result<Made, SecondLook> {
        // Queued under a leadership that is over: not worth a read of the task.
        if !self.may_start(fire) {
            return Ok(Made::default());
        }
        let Some((spec, state, due)) = self.read(group, fire)? else {
            return Ok(Made::default());
        };
        let mut made = Made::default();
        if let Some(claim) = state.claim {
            // Whoever has claimed it is not at work any more, or this task would be busy here.
            made.settles.push(self.unknown(fire, &state, claim));
            made.then = Then::SecondLook;
            return Ok(made);
        }
        if due.is_empty() {
            // It was due when it was taken: the clock has been set back since, or somebody else has settled it.
            made.then = put_back(&state);
        }
        let task = Fired {
            id: spec.id,
            url: spec.url.into(),
            body: Bytes::from(spec.body),
            is_once: spec.delivery == Delivery::AtMostOnce,
            state,
        };
        for attempt in due {
            match self.admit(group, fire, &task, attempt).await {
                Ok(now_ms) => made.settles.push(self.attempt(fire, &task, attempt, now_ms).await),
                Err(then) => {
                    made.then = then;
                    break;
                }
            }
            // The target wants nothing more of this task, whatever else is due.
            if made
                .settles
                .last()
                .is_some_and(|last| last.result == AttemptResult::Stop)
            {
                break;
            }
        }
        Ok(made)
    }

    /// The instant at which the attempt starts, which is now; or what becomes of the task instead.
    async fn admit(&self, group: &Group, fire: Queued, task: &Fired, attempt: DueAttempt) -> Result<u64, Then> {
        if self.0.is_stopping.load(Ordering::SeqCst) {
            return Err(Then::Nothing);
        }
        let now_ms = self.gate(fire, &task.state, attempt, || group.may_fire())?;
        if !task.is_once {
            return Ok(now_ms);
        }
        if !self.claim(group, fire, &task.state, attempt, now_ms).await {
            return Err(Then::SecondLook);
        }
        loop {
            // Who hands over waits for this fire, which is counted: that must not keep it from what it has claimed.
            match self.gate(fire, &task.state, attempt, || group.may_act()) {
                // The round took longer than the lease, or the clock is in doubt for a moment: nobody else may make it.
                Err(Then::SecondLook) => tokio::time::sleep(CLAIMED_LOOK).await,
                // Its entries are not those of the state that was read: it is claimed.
                Err(Then::PutBack(_)) => return Err(Then::SecondLook),
                other => return other,
            }
        }
    }

    fn may_start(&self, fire: Queued) -> bool {
        let window = self.0.parts.windows.of(fire.group);
        window.with(|window| window.may_start(fire.key, fire.generation)) == Some(true)
    }

    fn gate(
        &self,
        fire: Queued,
        state: &TaskState,
        attempt: DueAttempt,
        may_lead: impl Fn() -> bool,
    ) -> Result<u64, Then> {
        if !self.may_start(fire) {
            return Err(Then::Nothing);
        }
        let now_ms = self.0.parts.steady.wall_ms().ok_or(Then::SecondLook)?;
        if now_ms < attempt.due_ms {
            return Err(put_back(state));
        }
        // Last of all: without the lease another node may be firing this task already.
        if may_lead() { Ok(now_ms) } else { Err(Then::SecondLook) }
    }

    /// Makes one attempt.
    async fn attempt(&self, fire: Queued, task: &Fired, attempt: DueAttempt, now_ms: u64) -> Settle {
        let parts = &self.0.parts;
        parts.metrics.observe_attempt(now_ms - attempt.due_ms, attempt.attempt);
        let began = parts.clock.monotonic();
        let answer = parts.deliver.deliver(Attempt {
            url: task.url.clone(),
            body: task.body.clone(),
            task_id: task.id.clone(),
            fire_id: FireId::new(fire.key, task.state.revision, attempt.due_ms),
            due_ms: attempt.due_ms,
            attempt: attempt.attempt,
            run: attempt.run,
            generation: fire.generation,
            now_ms,
        });
        let answer = answer.await;
        parts.metrics.inc_attempt_answer(class(&answer));
        // Not what the wall clock shows: it may have jumped meanwhile.
        let took = parts.clock.monotonic().saturating_sub(began);
        let at_ms = now_ms + u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.settle(fire, task, attempt, &answer, at_ms)
    }

    /// Reads the task; `None` if it owes nothing, which is so when it was deleted or settled meanwhile.
    fn read(&self, group: &Group, fire: Queued) -> Result<Option<(TaskSpec, TaskState, Vec<DueAttempt>)>, SecondLook> {
        let parts = &self.0.parts;
        let now_ms = parts.steady.wall_ms().ok_or(SecondLook)?;
        let fault = |error: crate::store::StoreError| {
            parts.failure.report(error.to_string());
            SecondLook
        };
        let Some(state) = group.store().state(fire.key).map_err(fault)? else {
            return Ok(None);
        };
        let Some(spec) = group.store().spec(fire.key).map_err(fault)? else {
            return Ok(None);
        };
        if spec.revision != state.revision {
            // An update came between the two reads.
            return Err(SecondLook);
        }
        match due_attempts(&state, &spec.schedule, now_ms) {
            Ok(due) => Ok(Some((spec, state, due))),
            Err(error) => {
                tracing::error!(task = spec.id.as_str(), %error, "a stored schedule is not understood by this release");
                Err(SecondLook)
            }
        }
    }
}

/// The task could not be dealt with now.
pub(super) struct SecondLook;

/// A task as it is fired.
pub(super) struct Fired {
    id: TaskId,
    url: Arc<str>,
    body: Bytes,
    /// It is delivered at most once.
    pub(super) is_once: bool,
    pub(super) state: TaskState,
}

/// The attempts of one task that were made.
#[derive(Default)]
pub(super) struct Made {
    pub(super) settles: Vec<Settle>,
    pub(super) then: Then,
}

/// What else there is to do for a task whose attempts are recorded.
#[derive(Default)]
pub(super) enum Then {
    #[default]
    Nothing,
    /// It is not due yet: these are its entries in the index.
    PutBack(Vec<(u64, DueEntry)>),
    /// More of it is due than was attempted.
    SecondLook,
}

/// All entries of the task, whichever of them it was taken for.
fn put_back(state: &TaskState) -> Then {
    let target = state.target;
    let entries = machine::wakes(state).into_iter();
    Then::PutBack(
        entries
            .map(|(at_ms, wake)| (at_ms, DueEntry { wake, target }))
            .collect(),
    )
}

fn class(answer: &Answer) -> AnswerClass {
    match answer {
        Answer::Status { code, .. } => AnswerClass::of_status(*code),
        Answer::None {
            kind: NoAnswer::Connect,
        } => AnswerClass::Connect,
        Answer::None {
            kind: NoAnswer::Timeout,
        } => AnswerClass::Timeout,
        Answer::None { kind: NoAnswer::Reset } => AnswerClass::Reset,
        Answer::None {
            kind: NoAnswer::BadUrl | NoAnswer::Other,
        } => AnswerClass::Other,
    }
}

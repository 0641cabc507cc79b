//! One fire: what its task owes now is read, let go, and sent, one attempt after the other. Which fire begins when is the
//! dispatcher's; what goes into the log is `record.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::{Dispatcher, Queued, SECOND_LOOK_MS};
use crate::core::command::{AttemptResult, Settle};
use crate::core::due::{DueAttempt, due_attempts};
use crate::core::machine::{self, DueEntry, View};
use crate::core::retry::{Answer, NoAnswer};
use crate::core::task::{Delivery, TaskSpec, TaskState};
use crate::fire::deliver::{Attempt, Delivered, LocalLimit, MaySend};
use crate::id::{FireId, TaskId};
use crate::metrics::AnswerClass;
use crate::raft::Group;

/// How often a leader that has claimed a fire looks whether it may make the attempt.
const CLAIMED_LOOK: Duration = Duration::from_millis(50);

/// Pause before a claimed fire is tried again that this node had no means to try.
const LOCAL_LIMIT_PAUSE: Duration = Duration::from_millis(SECOND_LOOK_MS);

/// How long a missing route or port is taken to be this node's own trouble, in milliseconds: from then on it counts as a failed
/// attempt, so that a target that no route leads to does not stay open for ever.
const LOCAL_GRACE_MS: u64 = 60_000;

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
            match self.attempt(group, fire, &task, attempt).await {
                Ok(settle) => made.settles.push(settle),
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
        let now_ms = self
            .look(fire, attempt, || group.may_fire())
            .map_err(|hindrance| hindrance.then(&task.state))?;
        if !task.is_once {
            return Ok(now_ms);
        }
        if !self.claim(group, fire, &task.state, attempt, now_ms).await {
            return Err(Then::SecondLook);
        }
        self.admit_claimed(group, fire, attempt).await
    }

    /// The same for what this leadership has claimed: it waits until the attempt may be made, since nobody else may make it.
    async fn admit_claimed(&self, group: &Group, fire: Queued, attempt: DueAttempt) -> Result<u64, Then> {
        loop {
            // Who hands over waits for this fire, which is counted: that must not keep it from what it has claimed.
            match self.look(fire, attempt, || group.may_act()) {
                Ok(now_ms) => return Ok(now_ms),
                Err(Hindrance::Ended) => return Err(Then::Nothing),
                // The round took longer than the lease, or the clock is in doubt for a moment.
                Err(Hindrance::Unsure) => tokio::time::sleep(CLAIMED_LOOK).await,
                // Its entries are not those of the state that was read: it is claimed.
                Err(Hindrance::Early) => return Err(Then::SecondLook),
            }
        }
    }

    fn may_start(&self, fire: Queued) -> bool {
        let window = self.0.parts.windows.of(fire.group);
        window.with(|window| window.may_start(fire.key, fire.generation)) == Some(true)
    }

    /// Whether an attempt may be made now, and what time it is.
    fn look(&self, fire: Queued, attempt: DueAttempt, may_lead: impl Fn() -> bool) -> Result<u64, Hindrance> {
        if !self.may_start(fire) {
            return Err(Hindrance::Ended);
        }
        let now_ms = self.0.parts.steady.wall_ms().ok_or(Hindrance::Unsure)?;
        if now_ms < attempt.not_before_ms {
            return Err(Hindrance::Early);
        }
        // Last of all: without the lease another node may be firing this task already.
        if may_lead() { Ok(now_ms) } else { Err(Hindrance::Unsure) }
    }

    /// The same look, once more, directly before the first byte: connecting may have taken seconds.
    fn may_send(&self, group: &Group, fire: Queued, task: &Fired, attempt: DueAttempt) -> MaySend {
        let (dispatcher, group, is_once) = (self.clone(), group.clone(), task.is_once);
        Box::new(move || {
            // What is claimed is attempted also by who stops or hands over: nobody else will.
            let may_lead = || {
                if is_once {
                    group.may_act()
                } else {
                    !dispatcher.0.is_stopping.load(Ordering::SeqCst) && group.may_fire()
                }
            };
            dispatcher.look(fire, attempt, may_lead).is_ok()
        })
    }

    /// Makes one attempt, if it may be made: what is to be recorded of it, or what becomes of the task instead.
    async fn attempt(&self, group: &Group, fire: Queued, task: &Fired, attempt: DueAttempt) -> Result<Settle, Then> {
        let mut now_ms = self.admit(group, fire, task, attempt).await?;
        loop {
            let began = self.0.parts.clock.monotonic();
            let may_send = self.may_send(group, fire, task, attempt);
            match self.deliver(fire, task, attempt, now_ms, may_send).await {
                Delivered::Ended { answer, .. } => {
                    let parts = &self.0.parts;
                    parts.metrics.observe_attempt(now_ms - attempt.due_ms, attempt.attempt);
                    parts.metrics.inc_attempt_answer(class(&answer));
                    // Not what the wall clock shows: it may have jumped meanwhile.
                    let took = parts.clock.monotonic().saturating_sub(began);
                    let at_ms = now_ms + u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                    return Ok(self.settle(fire, task, attempt, &answer, at_ms));
                }
                Delivered::NotTried(limit) => {
                    tracing::debug!(
                        task = task.id.as_str(),
                        limit = limit.name(),
                        "this node had no means for an attempt"
                    );
                    if !task.is_once {
                        return Err(Then::SecondLook);
                    }
                    tokio::time::sleep(LOCAL_LIMIT_PAUSE).await;
                }
                Delivered::Withdrawn if task.is_once => {}
                Delivered::Withdrawn => {
                    let hindrance = self.look(fire, attempt, || group.may_fire()).err();
                    return Err(hindrance.unwrap_or(Hindrance::Unsure).then(&task.state));
                }
            }
            now_ms = self.admit_claimed(group, fire, attempt).await?;
        }
    }

    /// What came of an attempt. A missing port or route is the target's after a while, and not this node's.
    async fn deliver(
        &self,
        fire: Queued,
        task: &Fired,
        attempt: DueAttempt,
        now_ms: u64,
        may_send: MaySend,
    ) -> Delivered {
        let parts = &self.0.parts;
        let request = Attempt {
            url: task.url.clone(),
            body: task.body.clone(),
            task_id: task.id.clone(),
            fire_id: FireId::new(fire.key, task.state.revision, attempt.due_ms),
            due_ms: attempt.due_ms,
            attempt: attempt.attempt,
            run: attempt.run,
            generation: fire.generation,
            now_ms,
            needs_own_connection: task.is_once || attempt.attempt > 1,
        };
        let delivered = parts.deliver.deliver(request, may_send).await;
        let waited_ms = (now_ms - attempt.not_before_ms).min(parts.clock.monotonic_ms() - self.0.started_ms);
        match delivered {
            Delivered::NotTried(LocalLimit::Ports | LocalLimit::Route) if waited_ms >= LOCAL_GRACE_MS => {
                Delivered::Ended {
                    answer: Answer::None {
                        kind: NoAnswer::Unreachable,
                    },
                    is_sent: false,
                }
            }
            other => other,
        }
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

/// Why an attempt may not be made now.
enum Hindrance {
    /// It is not this leadership's any more, or was deleted or updated.
    Ended,
    /// Its instant has not come.
    Early,
    /// This node does not know the time, or whether it leads, or hands over.
    Unsure,
}

impl Hindrance {
    /// What becomes of the task, of which nothing is claimed.
    fn then(self, state: &TaskState) -> Then {
        match self {
            Self::Ended => Then::Nothing,
            Self::Early => put_back(state),
            Self::Unsure => Then::SecondLook,
        }
    }
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
        Answer::None { kind } => match kind {
            NoAnswer::Dns
            | NoAnswer::Refused
            | NoAnswer::Unreachable
            | NoAnswer::Tls
            | NoAnswer::ConnectTimeout
            | NoAnswer::Connect => AnswerClass::Connect,
            NoAnswer::Timeout => AnswerClass::Timeout,
            NoAnswer::Reset => AnswerClass::Reset,
            NoAnswer::BadUrl | NoAnswer::BadAnswer | NoAnswer::Other => AnswerClass::Other,
        },
    }
}

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
use crate::core::reason::NoAnswer;
use crate::core::retry::Answer;
use crate::core::task::{Delivery, TaskState};
use crate::fire::deliver::{Attempt, Delivered, LocalLimit, MaySend};
use crate::fire::queues::Heard;
use crate::fire::window::Window;
use crate::id::{FireId, TaskId};
use crate::limits::OPEN_FIRES_MAX;
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
    /// Makes the attempts that are due, one after the other: attempts of one task never overlap. Each outcome but the last is
    /// reported before the next attempt begins.
    pub(super) async fn attempts(&self, group: &Group, fire: Queued) -> Result<Made, SecondLook> {
        for _ in 0..=OPEN_FIRES_MAX {
            // Queued under a leadership that is over: not worth a read of the task.
            let Some(firing_since_ms) = self.firing_since_ms(fire) else {
                return Ok(Made::default());
            };
            let Some((task, due)) = self.read(group, fire, firing_since_ms)? else {
                return Ok(Made::default());
            };
            if let Some(claim) = task.state.claim {
                // Whoever has claimed it is not at work any more, or this task would be busy here.
                return Ok(Made {
                    settle: Some(self.unknown(fire, &task, claim)),
                    then: Then::SecondLook,
                });
            }
            let Some(attempt) = due.first() else {
                // It was due when it was taken: the clock has been set back since, or somebody else has settled it.
                return Ok(Made::nothing(put_back(&task.state)));
            };
            let settle = if attempt.is_overlap {
                self.overlap(fire, &task, *attempt)
            } else {
                match self.attempt(group, fire, &task, *attempt).await {
                    Ok(settle) => settle,
                    Err(then) => return Ok(Made::nothing(then)),
                }
            };
            // The target may want nothing more of this task, whatever else is due.
            if due.len() == 1 || settle.result == AttemptResult::Stop {
                return Ok(Made {
                    settle: Some(settle),
                    then: Then::Nothing,
                });
            }
            if !self.report(group, fire, Some(&settle)).await {
                return Err(SecondLook);
            }
        }
        // Others wait for their turn as well.
        Err(SecondLook)
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
        self.firing_since_ms(fire).is_some()
    }

    /// From when on this node could fire the task's group, if an attempt of it may start.
    fn firing_since_ms(&self, fire: Queued) -> Option<u64> {
        let window = self.0.parts.windows.of(fire.group);
        let look = |window: &mut Window| {
            let may_start = window.may_start(&fire.ticket());
            // A window that was opened just now in place of another does not know it yet, and stops nothing.
            may_start.then(|| window.firing_since_ms().unwrap_or(0))
        };
        window.with(look).flatten()
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
                Delivered::Ended { answer, is_sent } => {
                    let parts = &self.0.parts;
                    parts.metrics.observe_attempt(now_ms - attempt.due_ms, attempt.attempt);
                    parts.metrics.inc_attempt_answer(class(&answer));
                    if let Some(heard) = heard(&answer) {
                        self.0.queues.lock().hear(fire.target, heard);
                    }
                    // Not what the wall clock shows: it may have jumped meanwhile.
                    let took = parts.clock.monotonic().saturating_sub(began);
                    let at_ms = now_ms + u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                    return Ok(self.settle(fire, task, attempt, (&answer, is_sent), at_ms));
                }
                Delivered::NotTried(limit) => {
                    self.tell_not_tried(limit);
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
        let began = parts.clock.monotonic();
        let delivered = parts.deliver.deliver(request, may_send).await;
        parts
            .metrics
            .observe_callback(parts.clock.monotonic().saturating_sub(began));
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

    /// Reads the task and what it owes; `None` if there is none, which is so when it was deleted meanwhile.
    fn read(
        &self,
        group: &Group,
        fire: Queued,
        firing_since_ms: u64,
    ) -> Result<Option<(Fired, Vec<DueAttempt>)>, SecondLook> {
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
        let due = match due_attempts(&state, &spec.schedule, firing_since_ms, now_ms) {
            Ok(due) => due,
            Err(error) => {
                tracing::error!(task = spec.id.as_str(), %error, "a stored schedule is not understood by this release");
                return Err(SecondLook);
            }
        };
        let task = Fired {
            id: spec.id,
            url: spec.url.into(),
            body: Bytes::from(spec.body),
            is_once: spec.delivery == Delivery::AtMostOnce,
            state,
        };
        Ok(Some((task, due)))
    }
}

/// The task could not be dealt with now.
pub(super) struct SecondLook;

/// A task as it is fired.
pub(super) struct Fired {
    pub(super) id: TaskId,
    pub(super) url: Arc<str>,
    body: Bytes,
    /// It is delivered at most once.
    pub(super) is_once: bool,
    pub(super) state: TaskState,
}

/// What is to be done after the attempts of one task.
#[derive(Default)]
pub(super) struct Made {
    /// The last outcome, which is not reported yet.
    pub(super) settle: Option<Settle>,
    pub(super) then: Then,
}

impl Made {
    fn nothing(then: Then) -> Self {
        Self { settle: None, then }
    }
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

/// What an answer, or none, says of the target. A connection that breaks says neither that it is well nor that it is not.
fn heard(answer: &Answer) -> Option<Heard> {
    use NoAnswer::{BadAnswer, BadUrl, Connect, ConnectTimeout, Dns, Other, Refused, Reset, Timeout, Tls, Unreachable};
    match answer {
        Answer::Status { .. } => Some(Heard::Answer),
        Answer::None {
            kind: Dns | Refused | Unreachable | Tls | ConnectTimeout | Connect | Timeout,
        } => Some(Heard::Silence),
        Answer::None {
            kind: Reset | BadAnswer | BadUrl | Other,
        } => None,
    }
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

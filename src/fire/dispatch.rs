//! Makes attempts: takes queued fires as the limits allow, reads the task, posts, and reports the outcome to the log.
//!
//! A queued fire is a few bytes; the task and its body are read only when its turn has come. What is due and what an answer
//! means is decided by pure functions (`core/due.rs`, `core/retry.rs`); what becomes of the task by `core/machine.rs`. What
//! goes into the log is `dispatch/record.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::core::command::{AttemptResult, Settle};
use crate::core::due::{DueAttempt, due_attempts};
use crate::core::machine::{self, DueEntry, View, Wake};
use crate::core::retry::{Answer, NoAnswer, RetryPolicy};
use crate::core::target::Target;
use crate::core::task::{Delivery, TaskSpec, TaskState};
use crate::entropy::Entropy;
use crate::failure::Failure;
use crate::fire::deliver::{Attempt, Deliver};
use crate::fire::queues::{QueueLimits, Queues};
use crate::fire::window::Next;
use crate::fire::windows::Windows;
use crate::id::{FireId, GroupId, TaskId, TaskKey};
use crate::metrics::{AnswerClass, Metrics};
use crate::raft::{Group, Groups};
use crate::steady::Steady;

/// How long a task is left alone after its outcome could not be reported or its schedule not be read, in milliseconds.
const SECOND_LOOK_MS: u64 = 500;

/// How often a leader that has claimed a fire looks whether it may make the attempt.
const CLAIMED_LOOK: Duration = Duration::from_millis(50);

mod record;

/// A task whose time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Its group.
    pub group: GroupId,
    /// The task.
    pub key: TaskKey,
    /// The leadership under which it was taken from the window.
    pub generation: u64,
}

/// What the dispatcher works with.
pub struct Parts {
    /// The groups, for reading tasks and reporting outcomes.
    pub groups: Groups,
    /// The windows: an attempt starts only if they allow it.
    pub windows: Windows,
    /// Bounds of what is in flight.
    pub limits: QueueLimits,
    /// The way out.
    pub deliver: Arc<dyn Deliver>,
    /// What an answer means.
    pub retry: RetryPolicy,
    /// How long a finished task is kept, in milliseconds.
    pub retention_ms: u64,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Wall time, while it can be trusted.
    pub steady: Steady,
    /// Jitter.
    pub entropy: Arc<dyn Entropy>,
    /// Where attempts are counted.
    pub metrics: Arc<Metrics>,
    /// Where a fault of the store is reported.
    pub failure: Failure,
}

/// Cheap handle to the dispatcher.
#[derive(Clone)]
pub struct Dispatcher(Arc<Inner>);

struct Inner {
    parts: Parts,
    queues: Mutex<Queues<Target, Queued>>,
    /// Fires that are being made or reported.
    active: watch::Sender<usize>,
    /// No fire begins any more.
    is_stopping: AtomicBool,
}

impl Dispatcher {
    /// A dispatcher with nothing queued.
    pub fn new(parts: Parts) -> Self {
        let queues = Mutex::new(Queues::new(parts.limits));
        Self(Arc::new(Inner {
            parts,
            queues,
            active: watch::Sender::new(0),
            is_stopping: AtomicBool::new(false),
        }))
    }

    /// Queues fires, and starts as many as the limits allow.
    pub fn queue(&self, fires: impl Iterator<Item = (Target, Queued)>) {
        {
            let mut queues = self.0.queues.lock();
            fires.for_each(|(target, fire)| queues.push(target, fire));
        }
        self.start_allowed();
    }

    /// Fires waiting for their turn, and fires in flight.
    pub fn load(&self) -> (usize, usize) {
        let queues = self.0.queues.lock();
        (queues.waiting(), queues.in_flight())
    }

    /// From now on no fire begins. What is claimed already is still attempted: nobody else will.
    pub fn stop_beginning(&self) {
        self.0.is_stopping.store(true, Ordering::SeqCst);
    }

    /// Completes when nothing is in flight and every outcome is in the log. Only when no fire begins any more it stays so.
    pub async fn idle(&self) {
        let mut active = self.0.active.subscribe();
        // The sender lives as long as this handle.
        let _ = active.wait_for(|active| *active == 0).await;
    }

    fn start_allowed(&self) {
        loop {
            // A statement of its own: the lock is not held while the task is spawned.
            let next = self.0.queues.lock().pop();
            let Some((target, fire)) = next else { return };
            self.0.active.send_modify(|active| *active += 1);
            tokio::spawn(self.clone().fire(target, fire));
        }
    }

    /// Everything that one task owes now.
    async fn fire(self, target: Target, fire: Queued) {
        let Some(group) = self.0.parts.groups.get(fire.group) else {
            // The group has left this node since the fire was queued, and its window is closed. Should it come back, the task
            // must not count as busy here.
            let now_ms = self.0.parts.clock.wall_ms();
            let window = self.0.parts.windows.of(fire.group);
            window.released(fire.key, fire.generation, Next::Nothing, now_ms);
            self.0.queues.lock().finish(target);
            self.0.active.send_modify(|active| *active -= 1);
            return self.start_allowed();
        };
        let _counted = group.begin_fire();
        let settles = self.attempts(&group, fire).await;
        self.0.queues.lock().finish(target);
        self.start_allowed();
        let then = match settles {
            Ok(made) if self.report(&group, fire, &made.settles).await => made.then,
            Ok(_) | Err(SecondLook) => Then::SecondLook,
        };
        let now_ms = self.0.parts.clock.wall_ms();
        let wake = Wake::Retry;
        let next = match then {
            Then::Nothing => Next::Nothing,
            Then::PutBack(entries) => Next::PutBack(entries),
            Then::SecondLook => Next::Rest(now_ms + SECOND_LOOK_MS, DueEntry { wake, target }),
        };
        let window = self.0.parts.windows.of(fire.group);
        window.released(fire.key, fire.generation, next, now_ms);
        self.0.active.send_modify(|active| *active -= 1);
    }

    /// Makes the attempts that are due, one after the other: attempts of one task never overlap.
    async fn attempts(&self, group: &Group, fire: Queued) -> Result<Made, SecondLook> {
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
struct SecondLook;

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
struct Made {
    settles: Vec<Settle>,
    then: Then,
}

/// What else there is to do for a task whose attempts are recorded.
#[derive(Default)]
enum Then {
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

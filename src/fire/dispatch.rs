//! Makes attempts: takes queued fires as the limits allow, reads the task, posts, and reports the outcome to the log.
//!
//! A queued fire is a few bytes; the task and its body are read only when its turn has come (`dispatch/attempt.rs`). What is
//! due and what an answer means is decided by pure functions (`core/due.rs`, `core/retry.rs`); what becomes of the task by
//! `core/machine.rs`. What goes into the log is `dispatch/record.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::core::machine::{DueEntry, Wake};
use crate::core::retry::RetryPolicy;
use crate::core::target::Target;
use crate::entropy::Entropy;
use crate::failure::Failure;
use crate::fire::deliver::{Deliver, LocalLimit};
use crate::fire::queues::{PROBES, QueueLimits, Queues};
use crate::fire::window::{Next, Ticket};
use crate::fire::windows::Windows;
use crate::id::{GroupId, TaskKey};
use crate::metrics::Metrics;
use crate::raft::Groups;
use crate::steady::Steady;

use self::attempt::{Made, SecondLook, Then};
use self::throttle::Throttle;

/// Fires of one target that one group may have here at least, whatever the number of groups.
const PER_GROUP_MIN: usize = 64;

/// How long a task is left alone after its outcome could not be reported or its schedule not be read, in milliseconds.
const SECOND_LOOK_MS: u64 = 500;

mod attempt;
mod record;
mod throttle;

/// A task whose time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Its group.
    pub group: GroupId,
    /// The task.
    pub key: TaskKey,
    /// The leadership under which it was taken from the window.
    pub generation: u64,
    /// The number of its taking.
    pub number: u64,
    /// The target it was taken for.
    pub target: Target,
}

impl Queued {
    /// A task that was taken from the window of a group.
    pub fn new(group: GroupId, ticket: Ticket) -> Self {
        Self {
            group,
            key: ticket.key,
            generation: ticket.generation,
            number: ticket.number,
            target: ticket.target,
        }
    }

    /// What the window knows it by.
    pub fn ticket(&self) -> Ticket {
        Ticket {
            key: self.key,
            generation: self.generation,
            number: self.number,
            target: self.target,
        }
    }
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
    /// When this dispatcher was made, by the monotonic clock.
    started_ms: u64,
    queues: Mutex<Queues<Target, Queued>>,
    /// Lines about fires that failed, by target, and about attempts that this node had no means to make.
    failed: Throttle<Target>,
    not_tried: Throttle<LocalLimit>,
    /// Fires that are being made or reported.
    active: watch::Sender<usize>,
    /// No fire begins any more.
    is_stopping: AtomicBool,
    /// Fires of one target that one group may have queued and in flight.
    per_group_max: usize,
}

impl Dispatcher {
    /// A dispatcher with nothing queued.
    pub fn new(parts: Parts) -> Self {
        let queues = Mutex::new(Queues::new(parts.limits));
        let started_ms = parts.clock.monotonic_ms();
        // All groups together can fill a target's places twice over, and so can a few that have much to do.
        let both = 2 * parts.limits.in_flight_per_target_max;
        let per_group_max = (both / parts.windows.count().max(1)).max(PER_GROUP_MIN);
        Self(Arc::new(Inner {
            per_group_max,
            parts,
            started_ms,
            queues,
            failed: Throttle::default(),
            not_tried: Throttle::default(),
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

    /// How many fires of a target one group may have here: of one that does not answer, few.
    pub fn per_group_max(&self, target: Target) -> usize {
        let is_in_trouble = self.0.queues.lock().is_in_trouble(target);
        if is_in_trouble { PROBES } else { self.0.per_group_max }
    }

    /// Forgets what a group has queued: its leadership is over.
    pub fn forget(&self, group: GroupId) {
        self.0.queues.lock().retain(|fire| fire.group != group);
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
            let window = self.0.parts.windows.of(fire.group);
            let ticket = fire.ticket();
            if window.with(|window| window.begin(&ticket)) != Some(true) {
                // It was deleted, updated or lost to another leader while it waited: not worth a read of the task.
                self.0.queues.lock().finish(target);
                window.released(&ticket, Next::Nothing, self.0.parts.clock.wall_ms());
                continue;
            }
            self.0.active.send_modify(|active| *active += 1);
            tokio::spawn(self.clone().fire(target, fire));
        }
    }

    /// Everything that one task owes now.
    async fn fire(self, target: Target, fire: Queued) {
        let Some(group) = self.0.parts.groups.get(fire.group) else {
            // The group has left this node since the fire was queued, and its window is closed. Should it come back, the task
            // must not count as busy here.
            let now_ms = self.0.parts.steady.best_ms();
            let window = self.0.parts.windows.of(fire.group);
            window.released(&fire.ticket(), Next::Nothing, now_ms);
            self.0.queues.lock().finish(target);
            self.0.active.send_modify(|active| *active -= 1);
            return self.start_allowed();
        };
        let _counted = group.begin_fire();
        let made = self.attempts(&group, fire).await;
        self.0.queues.lock().finish(target);
        self.start_allowed();
        let then = match made {
            Ok(Made { settle, then }) if self.report(&group, fire, settle.as_ref()).await => then,
            Ok(_) | Err(SecondLook) => Then::SecondLook,
        };
        let now_ms = self.0.parts.steady.best_ms();
        let wake = Wake::Retry;
        let next = match then {
            Then::Nothing => Next::Nothing,
            Then::PutBack(entries) => Next::PutBack(entries),
            Then::SecondLook => Next::Rest(now_ms + SECOND_LOOK_MS, DueEntry { wake, target }),
        };
        let window = self.0.parts.windows.of(fire.group);
        window.released(&fire.ticket(), next, now_ms);
        self.0.active.send_modify(|active| *active -= 1);
    }
}

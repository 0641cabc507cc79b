//! One group's firing loop: opens the window when this node leads, keeps it filled, and queues what is due.
//!
//! It sleeps until the next due and never trusts the sleep: what is due is decided by the wall clock after waking.

use std::sync::Arc;
use std::time::Duration;

use crate::blocking::Blocking;
use crate::clock::Clock;
use crate::core::command::Op;
use crate::failure::Failure;
use crate::fire::dispatch::{Dispatcher, Queued};
use crate::fire::window::{Next, Ticket, Window};
use crate::fire::windows::Windows;
use crate::metrics::Metrics;
use crate::raft::{Group, Leadership};
use crate::steady::Steady;
use crate::store::StoreError;

/// Entries taken from the window at a time.
const TAKEN_MAX: usize = 256;
/// Longest sleep: bounds how late a forward jump of the wall clock is noticed.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// How often a clock that is not trusted is looked at again.
const DOUBT_LOOK: Duration = Duration::from_millis(50);
/// How often it is looked for records whose time is over.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
/// How often the low-water mark is raised.
const LOW_WATER_EVERY: Duration = Duration::from_secs(10);

/// What the loop of a group works with.
pub struct GroupFiring {
    /// The group.
    pub group: Group,
    /// The windows.
    pub windows: Windows,
    /// Takes what is due.
    pub dispatcher: Dispatcher,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// The same, while it can be trusted.
    pub steady: Steady,
    /// Where a fault of the store is reported.
    pub failure: Failure,
    /// Where the low-water mark is raised: that walks over what was removed.
    pub blocking: Arc<dyn Blocking>,
    /// Where faults are counted that were mended.
    pub metrics: Arc<Metrics>,
    /// How far ahead the window reaches, in milliseconds.
    pub window_ms: u64,
    /// Most entries of this group in memory.
    pub entries_max: usize,
}

impl GroupFiring {
    /// Follows the group's leadership until the node stops.
    pub async fn run(self) {
        let mut leadership = self.group.leadership();
        loop {
            let now = *leadership.borrow_and_update();
            let changed = match now {
                None => tokio::select! {
                    biased;
                    changed = leadership.changed() => changed,
                    fault = self.follow() => return self.failure.report(fault.to_string()),
                },
                Some(lead) => tokio::select! {
                    biased;
                    changed = leadership.changed() => changed,
                    fault = self.lead(lead) => return self.failure.report(fault.to_string()),
                },
            };
            self.windows.of(self.group.id()).close();
            self.dispatcher.forget(self.group.id());
            if changed.is_err() {
                return;
            }
        }
    }

    /// Raises the low-water mark while another node leads, so that a failover need not scan everything that ever was due.
    /// Ends only by a fault of the store.
    async fn follow(&self) -> StoreError {
        loop {
            tokio::time::sleep(LOW_WATER_EVERY).await;
            if let Err(fault) = self.raise_low_water(self.clock.wall_ms()).await {
                return fault;
            }
        }
    }

    /// Fires under one leadership, and drops what has expired; ends only by a fault of the store.
    async fn lead(&self, lead: Leadership) -> StoreError {
        tokio::select! {
            biased;
            fault = self.fire(lead) => fault,
            fault = self.keep_low_water(lead) => fault,
            never = self.expire() => never,
        }
    }

    /// Looks once for what lies below the mark, where no window would ever find it, and raises the mark from time to time. Beside
    /// the firing, which waits for neither.
    async fn keep_low_water(&self, lead: Leadership) -> StoreError {
        let store = self.group.store().clone();
        match self.blocking.run(move || store.heal_low_water()).await {
            Err(fault) => return fault,
            Ok(None) => {}
            Ok(Some((at_ms, ..))) => {
                tracing::error!(
                    group = self.group.id().0,
                    at_ms,
                    "dues were hidden below the low-water mark of this copy: a bug; they are fired now"
                );
                self.metrics.inc_low_water_healed();
                self.open_window(lead);
                self.windows.of(self.group.id()).wake();
            }
        }
        loop {
            if let Some(now_ms) = self.steady.wall_ms()
                && let Err(fault) = self.raise_low_water(now_ms).await
            {
                return fault;
            }
            tokio::time::sleep(LOW_WATER_EVERY).await;
        }
    }

    async fn raise_low_water(&self, to_ms: u64) -> Result<(), StoreError> {
        let store = self.group.store().clone();
        self.blocking.run(move || store.raise_low_water(to_ms)).await.map(drop)
    }

    fn open_window(&self, lead: Leadership) {
        let low_water_ms = self.group.store().low_water_ms();
        let window = Window::new(lead.generation, low_water_ms, self.entries_max);
        self.windows.of(self.group.id()).open(window);
        // A task that was created below the mark just before found no window to be put into.
        let lowered_ms = self.group.store().low_water_ms();
        if lowered_ms < low_water_ms {
            let window = Window::new(lead.generation, lowered_ms, self.entries_max);
            self.windows.of(self.group.id()).open(window);
        }
    }

    async fn fire(&self, lead: Leadership) -> StoreError {
        self.open_window(lead);
        loop {
            let now_ms = self.trusted_ms().await;
            // At the first look, and at the first at a window that was opened in place of another.
            self.windows
                .of(self.group.id())
                .with(|window| window.note_firing(now_ms));
            let has_read = match self.read(now_ms) {
                Ok(has_read) => has_read,
                Err(fault) => return fault,
            };
            if self.queue_due(now_ms) || has_read {
                tokio::task::yield_now().await;
            } else {
                self.sleep(now_ms).await;
            }
        }
    }

    /// Waits until the wall clock can be trusted. What was to rest until an instant of the untrusted clock rests no more.
    async fn trusted_ms(&self) -> u64 {
        let mut was_doubted = false;
        loop {
            if let Some(now_ms) = self.steady.wall_ms() {
                if was_doubted {
                    self.windows.of(self.group.id()).with(|window| {
                        window.rouse(now_ms);
                        window.begin_firing(now_ms);
                    });
                }
                return now_ms;
            }
            was_doubted = true;
            tokio::time::sleep(DOUBT_LOOK).await;
        }
    }

    /// Scans the next part of the due index: at the window's end when that reaches less than half as far as it should, and
    /// where dues of targets were left out. `false` if there was nothing to read.
    fn read(&self, now_ms: u64) -> Result<bool, StoreError> {
        let (shared, store) = (self.windows.of(self.group.id()), self.group.store());
        let begun = shared.with(|window| {
            let is_short = window.end_ms() < now_ms + self.window_ms / 2;
            is_short.then(|| window.begin_refill(now_ms + self.window_ms)).flatten()
        });
        let refill = begun.flatten();
        if let Some(refill) = refill {
            let found = store.dues(refill.from, refill.to_ms, refill.limit)?;
            shared.with(|window| window.end_refill(refill, found.into_iter()));
        }
        let lanes = shared.with(Window::begin_lanes).flatten();
        if let Some(lanes) = lanes {
            let found = store.dues(lanes.from, lanes.to_ms, lanes.limit)?;
            shared.with(|window| window.end_lanes(lanes, &found));
        }
        Ok(refill.is_some() || lanes.is_some())
    }

    /// Hands over what is due; `true` if there was something.
    fn queue_due(&self, now_ms: u64) -> bool {
        let shared = self.windows.of(self.group.id());
        let most = |target| self.dispatcher.per_group_max(target);
        let taken = shared.with(|window| window.take_due(now_ms, TAKEN_MAX, most));
        let taken = taken.unwrap_or_default();
        let is_any = !taken.is_empty();
        let queued = |(.., ticket): (_, _, Ticket)| (ticket.target, Queued::new(self.group.id(), ticket));
        self.dispatcher.queue(taken.into_iter().map(queued));
        is_any
    }

    /// Drops the records whose time is over, some at a time: beside the fires, which never wait for it, and slowly while some
    /// are due.
    async fn expire(&self) -> ! {
        let shared = self.windows.of(self.group.id());
        loop {
            let now_ms = self.steady.wall_ms();
            let taken = now_ms.and_then(|now_ms| shared.with(|window| window.take_expired(now_ms)));
            let taken = taken.unwrap_or_default();
            let at_ms = now_ms.unwrap_or_default();
            let drops = taken.iter().map(|(.., ticket)| async move {
                let op = Op::Expire { key: ticket.key, at_ms };
                self.group.proposer().propose_waiting(&op).await.is_ok()
            });
            let dropped = futures_util::future::join_all(drops).await;
            let mut may_go_on = !taken.is_empty();
            for ((due_ms, entry, ticket), is_recorded) in taken.into_iter().zip(dropped) {
                may_go_on &= is_recorded;
                // Not recorded: the entry is still in the index.
                let next = if is_recorded {
                    Next::Nothing
                } else {
                    Next::PutBack(vec![(due_ms, entry)])
                };
                shared.with(|window| window.released(&ticket, next));
            }
            let is_due = shared.with(|window| window.next_due_ms().is_some_and(|due_ms| due_ms <= at_ms));
            if !may_go_on || is_due != Some(false) {
                tokio::time::sleep(EXPIRE_EVERY).await;
            }
        }
    }

    /// Waits for the next due, the end of a full window, or a change.
    async fn sleep(&self, now_ms: u64) {
        let shared = self.windows.of(self.group.id());
        let plan = shared.with(|window| (window.next_due_ms(), window.end_ms()));
        let Some((next_due_ms, end_ms)) = plan else { return };
        // A window that ends in the past is full of busy tasks: their release wakes this loop once there is room.
        let end_ms = if end_ms > now_ms { end_ms } else { u64::MAX };
        let wake_ms = next_due_ms.unwrap_or(u64::MAX).min(end_ms);
        let sleep = Duration::from_millis(wake_ms.saturating_sub(now_ms)).min(SLEEP_MAX);
        tokio::select! {
            biased;
            () = shared.woken() => {}
            () = tokio::time::sleep(sleep) => {}
        }
    }
}

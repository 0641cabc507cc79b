//! The windows of all groups, shared by the state machine (which shows every change) and the firing.
//!
//! What a batch changed reaches the window here before anybody is answered: an acknowledged delete has stopped its fire.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::core::machine::{Changes, GroupState};
use crate::fire::window::{Dispatched, Next, Ticket, Window};
use crate::id::{GroupCount, GroupId};
use crate::metrics::Metrics;
use crate::raft::AppliedHook;

/// One group's window, open while this node leads the group.
#[derive(Debug, Default)]
pub struct GroupWindow {
    slot: Mutex<Slot>,
    /// Something changed that the group's loop must look at before its next planned look.
    changed: Notify,
}

/// The dispatcher's queues and attempts outlive a leadership: what it still has is known also while no window is open.
#[derive(Debug)]
enum Slot {
    Open(Box<Window>),
    Closed(Dispatched),
}

impl Default for Slot {
    fn default() -> Self {
        Self::Closed(Dispatched::default())
    }
}

impl Slot {
    /// Closes the window, if it is open; what the dispatcher still has.
    fn take(&mut self) -> Dispatched {
        match std::mem::take(self) {
            Self::Open(window) => window.close(),
            Self::Closed(dispatched) => dispatched,
        }
    }
}

impl GroupWindow {
    /// Opens a window for a new leadership.
    pub fn open(&self, mut window: Window) {
        let mut slot = self.slot.lock();
        if let Slot::Open(former) = &*slot {
            window.number_on(former);
        }
        window.inherit(slot.take());
        *slot = Slot::Open(Box::new(window));
    }

    /// Closes it: no further attempt of this group may start on this node.
    pub fn close(&self) {
        let mut slot = self.slot.lock();
        *slot = Slot::Closed(slot.take());
    }

    /// Looks at the window under its lock; `None` while this node does not lead the group.
    pub fn with<T>(&self, look: impl FnOnce(&mut Window) -> T) -> Option<T> {
        match &mut *self.slot.lock() {
            Slot::Open(window) => Some(look(window)),
            Slot::Closed(_) => None,
        }
    }

    /// The dispatcher is done with a task that was taken by this ticket, maybe under a former leadership. Wakes the group's
    /// loop if that gave it something to do.
    pub fn released(&self, ticket: &Ticket, next: Next, now_ms: u64) {
        let must_wake = match &mut *self.slot.lock() {
            Slot::Open(window) => {
                window.released(ticket, next);
                window.has_work(now_ms)
            }
            Slot::Closed(dispatched) => {
                if dispatched.get(&ticket.key) == Some(ticket) {
                    dispatched.remove(&ticket.key);
                }
                false
            }
        };
        if must_wake {
            self.wake();
        }
    }

    /// Wakes the group's loop.
    pub fn wake(&self) {
        self.changed.notify_one();
    }

    /// Completes when the loop is to look again.
    pub async fn woken(&self) {
        self.changed.notified().await;
    }
}

/// The windows of every group on this node.
#[derive(Clone, Debug)]
pub struct Windows {
    groups: Arc<[GroupWindow]>,
    metrics: Arc<Metrics>,
}

impl Windows {
    /// Closed windows for `count` groups.
    pub fn new(count: GroupCount, metrics: Arc<Metrics>) -> Self {
        Self {
            groups: count.iter().map(|_| GroupWindow::default()).collect(),
            metrics,
        }
    }

    /// How many groups there are.
    pub fn count(&self) -> usize {
        self.groups.len()
    }

    /// One group's window.
    pub fn of(&self, group: GroupId) -> &GroupWindow {
        &self.groups[usize::from(group.0)]
    }

    /// Closes every window: no attempt starts on this node any more.
    pub fn close_all(&self) {
        self.groups.iter().for_each(GroupWindow::close);
    }

    /// Entries in memory whose time has come and that no attempt has been queued for, over all groups.
    pub fn overdue(&self, now_ms: u64) -> usize {
        self.groups
            .iter()
            .filter_map(|group| group.with(|window| window.overdue(now_ms)))
            .sum()
    }

    /// How far behind the oldest due that is not finished lies, over all groups that are led here, in milliseconds.
    pub fn behind_ms(&self, now_ms: u64) -> u64 {
        let oldest = self
            .groups
            .iter()
            .filter_map(|group| group.with(|window| window.finished_before_ms()).flatten());
        now_ms.saturating_sub(oldest.min().unwrap_or(now_ms))
    }
}

impl AppliedHook for Windows {
    fn applied(&self, group: GroupId, _state: &GroupState, changes: &Changes) {
        self.metrics.count(&changes.tally);
        let shared = self.of(group);
        let must_wake = shared.with(|window| {
            let before = window.next_due_ms();
            for key in &changes.cancelled {
                window.cancelled(*key);
            }
            for due in &changes.dues {
                // It may have been another target's.
                if let Some(entry) = due.before {
                    window.removed(due.at_ms, due.key, entry);
                }
                if let Some(entry) = due.after {
                    window.added(due.at_ms, due.key, entry);
                }
            }
            // A later first due needs no wake: the loop finds nothing and plans again.
            window
                .next_due_ms()
                .is_some_and(|after| before.is_none_or(|before| after < before))
        });
        if must_wake == Some(true) {
            shared.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::machine::{DueEntry, Wake};
    use crate::core::target::Target;
    use crate::id::TaskKey;

    const KEY: TaskKey = TaskKey([1; 16]);
    const ENTRY: DueEntry = DueEntry {
        wake: Wake::Fire,
        target: Target([1; 16]),
    };

    fn opened(shared: &GroupWindow, generation: u64) {
        shared.open(Window::new(generation, 0, 100));
        shared.with(|window| {
            let begun = window.begin_refill(10).expect("room");
            window.end_refill(begun, vec![(1, KEY, ENTRY)].into_iter());
        });
    }

    /// Takes what is due, and begins with it.
    fn taken(shared: &GroupWindow) -> Vec<Ticket> {
        let taken = shared.with(|window| {
            let taken = window.take_due(5, 10, |_| 10).into_iter().map(|(.., ticket)| ticket);
            let taken: Vec<_> = taken.collect();
            for ticket in &taken {
                assert!(window.begin(ticket));
            }
            taken
        });
        taken.unwrap_or_default()
    }

    fn may_start(shared: &GroupWindow, ticket: &Ticket) -> bool {
        shared.with(|window| window.may_start(ticket)) == Some(true)
    }

    #[tokio::test]
    async fn a_task_that_waits_for_a_former_leaderships_attempt_wakes_the_loop_when_that_ends() {
        let shared = GroupWindow::default();
        opened(&shared, 1);
        let first = taken(&shared)[0];
        shared.close();
        opened(&shared, 2);
        assert_eq!(taken(&shared), [], "its attempt is still in flight");
        shared.released(&first, Next::Nothing, 5);
        shared.woken().await;
        let second = taken(&shared)[0];
        assert!(may_start(&shared, &second) && !may_start(&shared, &first));
    }

    #[test]
    fn what_ends_while_no_window_is_open_holds_nothing_back() {
        let shared = GroupWindow::default();
        opened(&shared, 1);
        let first = taken(&shared)[0];
        shared.close();
        shared.released(&first, Next::Nothing, 5);
        opened(&shared, 2);
        assert_eq!(taken(&shared).len(), 1);
    }

    #[test]
    fn a_window_that_is_opened_again_under_one_leadership_knows_the_tickets_of_the_first_no_more() {
        let shared = GroupWindow::default();
        opened(&shared, 1);
        let queued = shared.with(|window| window.take_due(5, 10, |_| 10)[0].2);
        let queued = queued.expect("open");
        opened(&shared, 1);
        let again = taken(&shared)[0];
        assert!(may_start(&shared, &again) && !may_start(&shared, &queued), "{queued:?}");
    }
}

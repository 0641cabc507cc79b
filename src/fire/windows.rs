//! The windows of all groups, shared by the state machine (which shows every change) and the firing.
//!
//! What a batch changed reaches the window here before anybody is answered: an acknowledged delete has stopped its fire.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::core::machine::{Changes, GroupState};
use crate::fire::window::Window;
use crate::id::{GroupCount, GroupId};
use crate::metrics::Metrics;
use crate::raft::AppliedHook;

/// One group's window, open while this node leads the group.
#[derive(Debug, Default)]
pub struct GroupWindow {
    window: Mutex<Option<Window>>,
    /// Something changed that the group's loop must look at before its next planned look.
    changed: Notify,
}

impl GroupWindow {
    /// Opens a window for a new leadership.
    pub fn open(&self, window: Window) {
        *self.window.lock() = Some(window);
    }

    /// Closes it: no further attempt of this group may start on this node.
    pub fn close(&self) {
        *self.window.lock() = None;
    }

    /// Looks at the window under its lock; `None` while this node does not lead the group.
    pub fn with<T>(&self, look: impl FnOnce(&mut Window) -> T) -> Option<T> {
        self.window.lock().as_mut().map(look)
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

    /// One group's window.
    pub fn of(&self, group: GroupId) -> &GroupWindow {
        &self.groups[usize::from(group.0)]
    }

    /// Closes every window: no attempt starts on this node any more.
    pub fn close_all(&self) {
        self.groups.iter().for_each(GroupWindow::close);
    }

    /// Entries whose time has come and that no attempt has been queued for, over all groups.
    pub fn overdue(&self, now_ms: u64) -> usize {
        self.groups
            .iter()
            .filter_map(|group| group.with(|window| window.overdue(now_ms)))
            .sum()
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
            for (at_ms, key, entry) in &changes.dues {
                match entry {
                    Some(entry) => window.added(*at_ms, *key, *entry),
                    None => window.removed(*at_ms, *key),
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

//! The firing of a node: one loop for each group it hosts, the shared windows, the shared dispatcher.
//!
//! Called by `node.rs`, which starts it and stops it in order.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::blocking::Blocking;
use crate::clock::Clock;
use crate::failure::Failure;
use crate::fire::dispatch::Dispatcher;
use crate::fire::group::GroupFiring;
use crate::fire::windows::Windows;
use crate::id::GroupCount;
use crate::metrics::Metrics;
use crate::raft::Group;
use crate::steady::Steady;

/// A group's window holds at least so many entries, whatever the setting says.
const WINDOW_ENTRIES_MIN: usize = 64;

/// What the firing works with.
pub struct Parts {
    /// The windows, which the state machines know as well.
    pub windows: Windows,
    /// Makes the attempts.
    pub dispatcher: Dispatcher,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// The same, while it can be trusted.
    pub steady: Steady,
    /// Where a fault of the store is reported.
    pub failure: Failure,
    /// Where work is done that blocks for long.
    pub blocking: Arc<dyn Blocking>,
    /// Where faults are counted that were mended.
    pub metrics: Arc<Metrics>,
    /// How far ahead a window reaches, in milliseconds.
    pub window_ms: u64,
    /// Most entries in the windows of all groups together.
    pub window_tasks_max: usize,
    /// Number of groups.
    pub count: GroupCount,
}

/// The running loops.
pub struct Firing {
    windows: Windows,
    dispatcher: Dispatcher,
    /// One task, which holds the loops: they end with this value.
    loops: JoinSet<()>,
}

impl Firing {
    /// Starts a loop for every group that comes out of `hosted`.
    pub fn start(parts: Parts, mut hosted: mpsc::Receiver<Group>) -> Self {
        let (windows, dispatcher) = (parts.windows.clone(), parts.dispatcher.clone());
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut loops = JoinSet::new();
            while let Some(group) = hosted.recv().await {
                loops.spawn(group_firing(&parts, group).run());
            }
            while loops.join_next().await.is_some() {}
        });
        Self {
            windows,
            dispatcher,
            loops: running,
        }
    }

    /// Starts no further attempt, and waits at most `longest` for those in flight and their outcomes: what is cut would be
    /// repeated by whoever leads next.
    pub async fn stop(mut self, longest: Duration) {
        self.loops.shutdown().await;
        // The windows stay open for what is claimed and not sent yet.
        self.dispatcher.stop_beginning();
        if tokio::time::timeout(longest, self.dispatcher.idle()).await.is_err() {
            tracing::warn!("stopped with callbacks in flight: they will be repeated with the same webhook-id");
        }
        self.windows.close_all();
    }
}

fn group_firing(parts: &Parts, group: Group) -> GroupFiring {
    GroupFiring {
        group,
        windows: parts.windows.clone(),
        dispatcher: parts.dispatcher.clone(),
        clock: parts.clock.clone(),
        steady: parts.steady.clone(),
        failure: parts.failure.clone(),
        blocking: parts.blocking.clone(),
        metrics: parts.metrics.clone(),
        window_ms: parts.window_ms,
        entries_max: (parts.window_tasks_max / usize::from(parts.count.get())).max(WINDOW_ENTRIES_MIN),
    }
}

//! Looks at the node again and again: may it be sent requests, and what is not served. Sets `/readyz` and the gauges that an
//! operator is told to alert on. What follows from a look is `readiness.rs`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::core::machine::Wake;
use crate::core::plan::odd;
use crate::failure::Failure;
use crate::id::{GroupId, TaskKey};
use crate::membership::ClusterView;
use crate::metrics::{GroupFigures, Metrics};
use crate::raft::{Group, Groups};
use crate::readiness::{Judge, Readiness, Seen};
use crate::router::Router;
use crate::steady::{Hold, Steady};

/// How often a starting node looks whether every group has a leader.
const STARTING_LOOK: Duration = Duration::from_millis(10);
/// How often a node that serves looks.
const LOOK: Duration = Duration::from_millis(500);
/// Entries of the due index that are counted of a group without a leader: beyond it there are "at least so many".
const OVERDUE_COUNTED_MAX: usize = 1_000;

/// What is due in groups of which no leader is known, as far as this node has a copy of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unserved {
    /// The oldest due, in milliseconds since the Unix epoch.
    pub oldest_ms: Option<u64>,
    /// Dues that have passed.
    pub overdue: usize,
}

/// What is looked at.
pub(super) struct Watched {
    pub groups: Groups,
    pub router: Arc<Router>,
    pub view: watch::Receiver<Arc<ClusterView>>,
    pub clock: Arc<dyn Clock>,
    pub steady: Steady,
    pub metrics: Arc<Metrics>,
    pub failure: Failure,
    /// Copies wanted of every group: one for a node alone.
    pub copies: usize,
    pub unserved: Arc<Mutex<Unserved>>,
}

impl Watched {
    /// Looks for as long as it is polled. `ready` is called when the node is ready for the first time.
    pub(super) async fn judge(self, readiness: &watch::Sender<Readiness>, ready: impl FnOnce()) -> Infallible {
        let (mut judge, mut ready) = (Judge::default(), Some(ready));
        loop {
            let seen = self.look();
            let now = judge.judge(&seen, self.clock.monotonic());
            self.metrics.set_ready(now == Readiness::Ready);
            if now == Readiness::Ready
                && let Some(ready) = ready.take()
            {
                ready();
            }
            tell(readiness, now, ready.is_none());
            tokio::time::sleep(if ready.is_some() { STARTING_LOOK } else { LOOK }).await;
        }
    }

    fn look(&self) -> Seen {
        let view = self.view.borrow().clone();
        let count = self.groups.count();
        let unled: Vec<GroupId> = count.iter().filter(|group| !self.is_led(*group)).collect();
        let now_ms = self.steady.best_ms();
        let unserved = unled.iter().filter_map(|group| self.groups.get(*group));
        *self.unserved.lock() = unserved.fold(Unserved::default(), |sum, group| self.add(sum, &group, now_ms));
        let led: Vec<Group> = self.groups.iter().filter(|group| group.leads().is_some()).collect();
        let (mut under, mut lag) = (0, 0);
        for group in &led {
            let members = group.members().members;
            let is_here = |node: &u64| view.members.get(node).is_some_and(|member| member.is_alive);
            let whole = members
                .iter()
                .filter(|(node, member)| member.is_caught_up() && is_here(node));
            let voters = members.values().filter(|member| member.is_voter).count();
            under += usize::from(whole.count() < self.copies || voters < odd(self.copies));
            lag = members
                .values()
                .filter_map(|member| member.lag)
                .max()
                .unwrap_or(0)
                .max(lag);
        }
        self.metrics.set_groups(GroupFigures {
            groups: count.get().into(),
            led: led.len(),
            without_leader: unled.len(),
            under_replicated: under,
            lag_entries: lag,
        });
        let known = view.members.values().filter(|member| !member.has_left);
        Seen {
            groups: count.get().into(),
            unled: unled.len(),
            nodes: known.clone().count(),
            silent: known.filter(|member| !member.is_alive).count(),
            clock: self.steady.hold().map(|hold| held(&hold)),
        }
    }

    /// Whether somebody is known to lead the group who can act: a leader here whom no majority confirms cannot.
    fn is_led(&self, group: GroupId) -> bool {
        let own = self.groups.get(group).filter(|own| own.leads().is_some());
        own.map_or_else(|| self.router.is_led(group), |own| own.may_act())
    }

    /// Adds what is overdue in the node's copy of a group that nobody leads.
    fn add(&self, sum: Unserved, group: &Group, now_ms: u64) -> Unserved {
        let store = group.store();
        let from = (store.low_water_ms(), TaskKey([0; 16]));
        match store.dues(from, now_ms.saturating_add(1), OVERDUE_COUNTED_MAX) {
            Ok(dues) => {
                let fires = dues.iter().filter(|(.., entry)| entry.wake != Wake::Expire);
                let oldest_ms = fires.clone().map(|(at_ms, ..)| *at_ms).min();
                Unserved {
                    oldest_ms: sum.oldest_ms.into_iter().chain(oldest_ms).min(),
                    overdue: sum.overdue + fires.count(),
                }
            }
            Err(error) => {
                self.failure.report(error.to_string());
                sum
            }
        }
    }
}

/// What a held clock is told as.
fn held(hold: &Hold) -> String {
    let way = if hold.moved_ms > 0 { "ahead" } else { "back" };
    format!(
        "the wall clock has jumped {} s {way}: what is due by it alone is held for {} s more, unless it is set right, peers confirm \
         it, or 'xcron clock accept' says that it is right",
        hold.moved_ms.unsigned_abs() / 1_000,
        hold.left.as_secs()
    )
}

/// Shows a change, and tells the log of it once the node has served.
fn tell(readiness: &watch::Sender<Readiness>, now: Readiness, has_served: bool) {
    readiness.send_if_modified(|shown| {
        let (was, is) = (*shown == Readiness::Ready, now == Readiness::Ready);
        if has_served && was != is {
            if let Some(reason) = now.reason() {
                tracing::warn!(reason, "this node is not ready any more");
            } else {
                tracing::info!("this node is ready");
            }
        }
        let is_new = *shown != now;
        *shown = now;
        is_new
    });
}

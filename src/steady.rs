//! Whether the wall clock can be trusted to say what is due: after a jump not before it was compared with the peers' again, and
//! where there is nobody to compare with, not before it has lasted.
//!
//! Every look compares the wall clock with the monotonic one, so that no jump goes unseen between it and the use of the time.
//! While the clock is not trusted the firing (`fire/`) takes nothing that is due and begins no attempt; reading, writing and leading go
//! on. `cluster/clocks.rs` compares the clocks and reports here. The highest trusted time is kept on disk ([`keep_trusted`]), so
//! that a jump while the process was away is seen as well.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::clock::Clock;
use crate::id::NodeId;
use crate::limits::{CLOCK_LATE_START_MS, CLOCK_OFFSET_MS_MAX, CLOCK_STEP_MS_MAX};
use crate::log_limit::LogLimit;

/// The wall clock moving by more against the monotonic one, between two comparisons with the peers, is a jump. Far above what a
/// clock is slewed by in that time, and below what a node may be off.
const JUMP_MS: u64 = 200;
/// How long a node that has nobody to compare its clock with fires nothing after a small jump.
const ALONE: Duration = Duration::from_secs(2);
/// By so much, in milliseconds, a node alone follows its clock at one look: small steps, one after the other, must not add up to a
/// large one that nobody has held.
const FOLLOWED_MS: i64 = 100;
/// How often the highest trusted time is kept.
const KEEP_EVERY: Duration = Duration::from_secs(10);

/// Why the clock is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It was never compared since the process began.
    Unknown,
    /// It has jumped, or the process began long after, or before, the last trusted time: its own word does not count any more.
    Jumped,
    /// It is too far from the others.
    Off,
}

/// Who has said that the clock is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum By {
    /// A majority of the peers.
    Peers,
    /// Nobody: it has lasted.
    Time,
    /// The operator.
    Operator,
}

impl By {
    /// As a metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Peers => "peers",
            Self::Time => "time",
            Self::Operator => "operator",
        }
    }
}

/// A large jump that has not been accepted yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// How far the clock has moved, in milliseconds.
    pub moved_ms: i64,
    /// How long it is held yet, should nobody confirm it.
    pub left: Duration,
}

/// Where the highest trusted wall time is kept: a file of the data directory, or a simulation's own.
pub trait TrustedTime: fmt::Debug + Send + Sync + 'static {
    /// What was kept last, in milliseconds since the Unix epoch; `None` where nothing that can be read was.
    fn load(&self) -> Option<u64>;
    /// Keeps it: on disk when this completes, whole or not at all.
    fn keep(&self, wall_ms: u64) -> BoxFuture<'_, io::Result<()>>;
}

/// The wall clock, as far as it can be trusted. A cheap handle.
#[derive(Clone)]
pub struct Steady(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    /// How long a large jump is held that nobody can confirm.
    hold: Duration,
    /// It has others to compare with.
    has_peers: bool,
    state: Mutex<State>,
    /// Peers whose clocks are too far from this one, which is right.
    wrong: Mutex<BTreeSet<NodeId>>,
    jumped: Notify,
    /// Raised whenever a clock is right again that had jumped, this node's or a peer's: what was computed by it may be wrong.
    corrections: watch::Sender<u64>,
    /// Told of large jumps that were accepted.
    accepted: Box<dyn Fn(By) + Send + Sync>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// Wall time minus monotonic time when it was last compared.
    base_ms: i64,
    /// The same, as it may be without being a large jump: from, to.
    believed_ms: (i64, i64),
    /// The same, as it was expected to be.
    expected_ms: i64,
    /// Since when by the monotonic clock, and why.
    doubt: Option<(Duration, Doubt)>,
    /// The highest wall time that was trusted.
    highest_ms: u64,
    /// The large jump happened while the process was away, forward: what is due by the last trusted time may fire.
    is_late_start: bool,
}

impl State {
    /// Whether the clock has made a large jump that was not accepted yet.
    fn is_held(&self) -> bool {
        let (low_ms, high_ms) = self.believed_ms;
        matches!(self.doubt, Some((_, Doubt::Jumped))) && !(low_ms..=high_ms).contains(&self.base_ms)
    }

    fn moved_ms(&self) -> i64 {
        self.base_ms - self.expected_ms
    }

    fn expect(&mut self, base_ms: i64) {
        self.expected_ms = base_ms;
        self.believed_ms = around(base_ms);
    }

    /// The clock is right as it is.
    fn believe(&mut self, base_ms: i64, wall_ms: u64) {
        self.base_ms = base_ms;
        self.expect(base_ms);
        self.highest_ms = if self.highest_ms > wall_ms.saturating_add(CLOCK_STEP_MS_MAX) {
            // It was ahead when that was trusted.
            wall_ms
        } else {
            self.highest_ms.max(wall_ms)
        };
        self.doubt = None;
        self.is_late_start = false;
    }
}

impl fmt::Debug for Steady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Steady").field(&*self.0.state.lock()).finish()
    }
}

impl Steady {
    /// A clock that is trusted from the start, unless it is far from what was `kept` last; or only when `has_peers` have been
    /// asked. A large jump that nobody can confirm is held for `hold`. `accepted` is told of each that was accepted.
    pub fn new(
        clock: Arc<dyn Clock>,
        has_peers: bool,
        hold: Duration,
        kept_ms: Option<u64>,
        accepted: impl Fn(By) + Send + Sync + 'static,
    ) -> Self {
        let (base_ms, now, wall_ms) = moment(clock.as_ref());
        let kept_base_ms = kept_ms.map(|kept_ms| signed(kept_ms) - ms_of(now));
        let believed_ms = kept_base_ms.map_or_else(
            || around(base_ms),
            |kept_ms| {
                (
                    kept_ms - signed(CLOCK_STEP_MS_MAX),
                    kept_ms + signed(CLOCK_LATE_START_MS),
                )
            },
        );
        let is_far = !(believed_ms.0..=believed_ms.1).contains(&base_ms);
        if is_far {
            tracing::warn!(
                moved_ms = base_ms - kept_base_ms.unwrap_or(base_ms),
                "the wall clock is far from what it was when this node last ran: what is due by it alone is held (see /readyz); \
                 if it is right, say so: 'xcron clock accept'"
            );
        }
        let doubt = if is_far {
            Some(Doubt::Jumped)
        } else {
            has_peers.then_some(Doubt::Unknown)
        };
        Self(Arc::new(Inner {
            clock,
            hold,
            has_peers,
            state: Mutex::new(State {
                base_ms,
                believed_ms,
                expected_ms: kept_base_ms.unwrap_or(base_ms),
                doubt: doubt.map(|doubt| (now, doubt)),
                highest_ms: kept_ms.unwrap_or(if is_far { 0 } else { wall_ms }),
                is_late_start: is_far && base_ms > believed_ms.1,
            }),
            wrong: Mutex::default(),
            jumped: Notify::new(),
            corrections: watch::Sender::new(0),
            accepted: Box::new(accepted),
        }))
    }

    /// Wall time, unless there is a doubt about it. A node alone that was away for long and has not accepted its clock yet is
    /// given the last instant that nobody doubts: what was due by then fires.
    pub fn wall_ms(&self) -> Option<u64> {
        let (wall_ms, now, state) = self.look();
        if state.doubt.is_none() {
            return Some(wall_ms);
        }
        let is_free = state.is_late_start && !self.0.has_peers && state.is_held();
        let undoubted_ms = state.believed_ms.1.saturating_add(ms_of(now));
        is_free.then(|| wall_ms.min(u64::try_from(undoubted_ms).unwrap_or(0)))
    }

    /// Wall time as well as it is known: for what only orders and counts.
    pub fn best_ms(&self) -> u64 {
        self.wall_ms().unwrap_or_else(|| self.0.clock.wall_ms())
    }

    /// The doubt there is about the clock now, and since when by the monotonic clock.
    pub fn doubt(&self) -> Option<(Duration, Doubt)> {
        self.look().2.doubt
    }

    /// The large jump that is held now.
    pub fn hold(&self) -> Option<Hold> {
        let (_, now, state) = self.look();
        let (since, _) = state.doubt.filter(|_| state.is_held())?;
        Some(Hold {
            moved_ms: state.moved_ms(),
            left: (since + self.0.hold).saturating_sub(now),
        })
    }

    /// The highest wall time that was ever trusted.
    pub fn highest_ms(&self) -> u64 {
        let (wall_ms, _, state) = self.look();
        if state.doubt.is_some() {
            return state.highest_ms;
        }
        let mut state = self.0.state.lock();
        state.highest_ms = state.highest_ms.max(wall_ms);
        state.highest_ms
    }

    /// Completes when a jump is seen.
    pub async fn jumped(&self) {
        self.0.jumped.notified().await;
    }

    /// How often a clock that had jumped was trusted again: then what was computed by it is looked at again.
    pub fn corrections(&self) -> watch::Receiver<u64> {
        self.0.corrections.subscribe()
    }

    /// The doubt has lasted as long as it must where nobody can confirm the clock; or there is none.
    pub fn has_lasted(&self) -> bool {
        let (_, now, state) = self.look();
        let wait = if state.is_held() { self.0.hold } else { ALONE };
        state.doubt.is_none_or(|(since, _)| now.saturating_sub(since) >= wait)
    }

    /// The clock was compared, wholly after `since` where there was a doubt: this is how far it is off. A newer doubt stays.
    pub fn compared(&self, since: Option<Duration>, offset_ms: i64, by: By) {
        let (.., seen) = self.look();
        let mut state = self.0.state.lock();
        if seen.doubt.map(|(since, _)| since) != since {
            return;
        }
        let (base_ms, now, wall_ms) = moment(self.0.clock.as_ref());
        if offset_ms.unsigned_abs() > CLOCK_OFFSET_MS_MAX {
            state.base_ms = base_ms;
            state.doubt = state.doubt.or(Some((now, Doubt::Off)));
            return;
        }
        let Some((_, doubt)) = state.doubt else {
            // Slewing since then is no jump.
            state.base_ms = base_ms;
            if by == By::Peers {
                state.expect(base_ms);
            } else {
                follow(&mut state);
            }
            return;
        };
        let was_held = state.is_held();
        let moved_ms = state.moved_ms();
        if was_held || by == By::Peers {
            state.believe(base_ms, wall_ms);
        } else {
            state.base_ms = base_ms;
            state.doubt = None;
            state.is_late_start = false;
            follow(&mut state);
        }
        drop(state);
        self.trusted_again(doubt, was_held.then_some(moved_ms), by);
    }

    /// The operator says that the clock is right. `None` if nothing is held.
    pub fn accept(&self) -> Option<i64> {
        self.look();
        let mut state = self.0.state.lock();
        let (_, doubt) = state.doubt.filter(|_| state.is_held())?;
        let moved_ms = state.moved_ms();
        let (base_ms, _, wall_ms) = moment(self.0.clock.as_ref());
        state.believe(base_ms, wall_ms);
        drop(state);
        self.trusted_again(doubt, Some(moved_ms), By::Operator);
        Some(moved_ms)
    }

    fn trusted_again(&self, doubt: Doubt, accepted_ms: Option<i64>, by: By) {
        if let Some(moved_ms) = accepted_ms {
            tracing::warn!(
                moved_ms,
                by = by.label(),
                "a large jump of this node's wall clock was accepted: what is due by it fires"
            );
            (self.0.accepted)(by);
        } else {
            tracing::info!("this node's clock is trusted again: its tasks fire");
        }
        if doubt == Doubt::Jumped {
            self.0.corrections.send_modify(|corrections| *corrections += 1);
        }
    }

    /// These peers' clocks are wrong, and no others: measured here, since the news of such a node is too old or too new for
    /// gossip.
    pub fn found_wrong(&self, peers: BTreeSet<NodeId>) {
        let mut wrong = self.0.wrong.lock();
        let is_over = !wrong.is_subset(&peers);
        *wrong = peers;
        drop(wrong);
        if is_over {
            // What a peer has computed by its wrong clock, the first due of a task for one, may be led here.
            self.0.corrections.send_modify(|corrections| *corrections += 1);
        }
    }

    /// Whether a peer's clock is wrong.
    pub fn is_wrong(&self, peer: NodeId) -> bool {
        self.0.wrong.lock().contains(&peer)
    }

    fn look(&self) -> (u64, Duration, State) {
        let clock = self.0.clock.as_ref();
        let mut state = self.0.state.lock();
        let (mut base_ms, mut now, mut wall_ms) = moment(clock);
        if base_ms.abs_diff(state.base_ms) > JUMP_MS {
            // Unless this thread stood still between reading the two clocks.
            (base_ms, now, wall_ms) = moment(clock);
        }
        let moved_ms = base_ms - state.base_ms;
        if moved_ms.unsigned_abs() > JUMP_MS {
            state.base_ms = base_ms;
            state.doubt = Some((now, Doubt::Jumped));
            state.is_late_start = false;
            self.0.jumped.notify_one();
            tracing::warn!(
                moved_ms,
                is_large = state.is_held(),
                "this node's wall clock has jumped: nothing fires until it was compared with its peers', is gone, or has lasted"
            );
        }
        (wall_ms, now, *state)
    }
}

/// Moves what is believed a little towards what the clock is.
fn follow(state: &mut State) {
    let (low_ms, high_ms) = state.believed_ms;
    let (step_ms, base_ms) = (state.base_ms - state.expected_ms, state.base_ms);
    state.expect(if high_ms - low_ms == 2 * signed(CLOCK_STEP_MS_MAX) {
        state.expected_ms + step_ms.clamp(-FOLLOWED_MS, FOLLOWED_MS)
    } else {
        // After the start the whole day that a stop may have taken was believed: from here on the clock itself is.
        base_ms
    });
}

fn around(base_ms: i64) -> (i64, i64) {
    (base_ms - signed(CLOCK_STEP_MS_MAX), base_ms + signed(CLOCK_STEP_MS_MAX))
}

/// Any time, also a mad one: half the range, so that sums and differences stay in bounds.
fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX).min(i64::MAX / 4)
}

fn ms_of(since: Duration) -> i64 {
    signed(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Wall time minus monotonic time, and the two, in the order monotonic, wall.
fn moment(clock: &dyn Clock) -> (i64, Duration, u64) {
    let (now, wall_ms) = (clock.monotonic(), clock.wall_ms());
    (signed(wall_ms) - ms_of(now), now, wall_ms)
}

/// Keeps the highest trusted time, again and again, for as long as it is polled. A disk that does not take it ends nothing: an older
/// time only makes a jump be held that would not have been.
pub async fn keep_trusted(steady: Steady, kept: Arc<dyn TrustedTime>) {
    let (mut last_ms, log) = (None, LogLimit::default());
    loop {
        let highest_ms = steady.highest_ms();
        if last_ms != Some(highest_ms) && highest_ms > 0 {
            match kept.keep(highest_ms).await {
                Ok(()) => last_ms = Some(highest_ms),
                Err(error) => {
                    if let Some(unlogged) = log.line((), steady.0.clock.monotonic()) {
                        tracing::warn!(%error, unlogged, "the trusted time cannot be kept; trying again");
                    }
                }
            }
        }
        tokio::time::sleep(KEEP_EVERY).await;
    }
}

#[cfg(test)]
mod tests;

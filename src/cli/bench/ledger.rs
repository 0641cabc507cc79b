//! What was asked of the nodes and what came back, task by task, in 12 bytes each.
//!
//! The load records what it sent and how it was answered; the sink's thread records each callback; the report reads
//! the sums. Counting is exact for any number of tasks; times go into histograms. No I/O and no clock here.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use super::figures::new_histogram;
use crate::cli::callback::Callback;

/// What the client knows of one create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Answer {
    /// Not sent, or sent and not yet answered, or lost on the way: it may or may not exist.
    Unknown = 0,
    /// Code 0: its callback is owed.
    Acked = 1,
    /// A code that says it was not stored: a callback would be wrong.
    Refused = 2,
}

/// The record of one task.
#[derive(Debug, Default)]
struct Task {
    /// Seconds since the epoch; 0 = never sent.
    due_s: AtomicU32,
    /// Hash of the fire id of the first callback.
    fire: AtomicU32,
    answer: AtomicU8,
    /// Callbacks, saturating.
    calls: AtomicU8,
}

/// Callbacks of the tasks due in one second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Burst {
    /// Tasks called.
    pub tasks: u64,
    /// Arrival of the first, in microseconds since the epoch.
    pub first_us: u64,
    /// Arrival of the last.
    pub last_us: u64,
}

/// Sums over all callbacks, in the order they came.
#[derive(Debug, Clone)]
pub struct Arrivals {
    /// Arrival minus due of the first callback of each task, in microseconds; 0 for an early one.
    pub lateness_us: Histogram<u64>,
    /// By due, in seconds since the epoch.
    pub bursts: BTreeMap<u32, Burst>,
    /// Callbacks that came before their due.
    pub early: u64,
    /// By how much the earliest was early, in microseconds.
    pub earliest_us: u64,
    /// Callbacks after the first of their task.
    pub repeated: u64,
    /// Those of `repeated` that claim to be another fire: at most-once would have been broken, not only retried.
    pub refired: u64,
    /// Tasks whose first callback was not the first attempt.
    pub retried: u64,
    /// Requests that no task of this run explains, or whose headers contradict what was asked.
    pub strange: u64,
    /// Why the first of them was strange.
    pub strange_example: Option<String>,
}

/// Sums over all tasks at the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Creates acknowledged.
    pub acked: u64,
    /// Acknowledged, not called.
    pub missing: u64,
    /// Called though the client never learnt whether the create succeeded.
    pub unknown_called: u64,
    /// Called though refused.
    pub refused_called: u64,
}

/// The records of one run. Shared by the load's thread and the sink's.
#[derive(Debug)]
pub struct Ledger {
    tasks: Vec<Task>,
    called: AtomicU32,
    arrivals: Mutex<Arrivals>,
}

impl Ledger {
    /// Records for `tasks` tasks, none sent.
    pub fn new(tasks: u32) -> Self {
        Self {
            tasks: (0..tasks).map(|_| Task::default()).collect(),
            called: AtomicU32::new(0),
            arrivals: Mutex::new(Arrivals {
                lateness_us: new_histogram(),
                bursts: BTreeMap::new(),
                early: 0,
                earliest_us: 0,
                repeated: 0,
                refired: 0,
                retried: 0,
                strange: 0,
                strange_example: None,
            }),
        }
    }

    /// Task `index` is about to be sent with this due.
    pub fn sent(&self, index: u32, due_s: u64) {
        if let Some(task) = self.task(index) {
            task.due_s
                .store(u32::try_from(due_s).unwrap_or(u32::MAX), Ordering::Release);
        }
    }

    /// Task `index` was answered.
    pub fn answered(&self, index: u32, answer: Answer) {
        if let Some(task) = self.task(index) {
            task.answer.store(answer as u8, Ordering::Release);
        }
    }

    /// Task `index` was called at `arrival_us`, microseconds since the epoch. Only the sink's thread calls this.
    pub fn called(&self, index: u32, callback: &Callback<'_>, arrival_us: u64) {
        let due_s = self.task(index).map_or(0, |task| task.due_s.load(Ordering::Acquire));
        let Some(task) = self.task(index).filter(|_| due_s > 0) else {
            return self.strange(|| format!("task {index} of the URL was never sent by this run"));
        };
        let fire = callback.fire_id.map_or(0, hash);
        let calls = task.calls.load(Ordering::Relaxed);
        task.calls.store(calls.saturating_add(1), Ordering::Relaxed);
        let first = calls == 0;
        let mut arrivals = self.arrivals.lock();
        let due_us = u64::from(due_s) * 1_000_000;
        if arrival_us < due_us {
            arrivals.early += 1;
            arrivals.earliest_us = arrivals.earliest_us.max(due_us - arrival_us);
        }
        if first {
            task.fire.store(fire, Ordering::Relaxed);
            arrivals.first_call(due_s, arrival_us, callback);
        } else {
            arrivals.repeated += 1;
            arrivals.refired += u64::from(task.fire.load(Ordering::Relaxed) != fire);
        }
        drop(arrivals);
        if first {
            self.called.fetch_add(1, Ordering::Release);
        }
        if let Some(why) = contradiction(callback, due_s) {
            self.strange(|| format!("task {index}: {why}"));
        }
    }

    /// A request to the sink that is no callback of this run.
    pub fn strange(&self, why: impl FnOnce() -> String) {
        let mut arrivals = self.arrivals.lock();
        arrivals.strange += 1;
        if arrivals.strange_example.is_none() {
            arrivals.strange_example = Some(why());
        }
    }

    /// How many tasks have been called.
    pub fn tasks_called(&self) -> u64 {
        u64::from(self.called.load(Ordering::Acquire))
    }

    /// Goes through all tasks.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for task in &self.tasks {
            let called = task.calls.load(Ordering::Relaxed) > 0;
            let answer = task.answer.load(Ordering::Acquire);
            if answer == Answer::Acked as u8 {
                counts.acked += 1;
                counts.missing += u64::from(!called);
            } else if answer == Answer::Refused as u8 {
                counts.refused_called += u64::from(called);
            } else {
                counts.unknown_called += u64::from(called);
            }
        }
        counts
    }

    /// The sums over all callbacks so far.
    pub fn arrivals(&self) -> Arrivals {
        self.arrivals.lock().clone()
    }

    fn task(&self, index: u32) -> Option<&Task> {
        self.tasks.get(usize::try_from(index).ok()?)
    }
}

impl Arrivals {
    fn first_call(&mut self, due_s: u32, arrival_us: u64, callback: &Callback<'_>) {
        let due_us = u64::from(due_s) * 1_000_000;
        self.lateness_us.saturating_record(arrival_us.saturating_sub(due_us));
        self.retried += u64::from(callback.attempt.is_some_and(|attempt| attempt > 1));
        let burst = self.bursts.entry(due_s).or_insert(Burst {
            tasks: 0,
            first_us: arrival_us,
            last_us: arrival_us,
        });
        burst.tasks += 1;
        burst.first_us = burst.first_us.min(arrival_us);
        burst.last_us = burst.last_us.max(arrival_us);
    }
}

/// What a callback's headers say that cannot be, if anything.
fn contradiction(callback: &Callback<'_>, due_s: u32) -> Option<&'static str> {
    if callback.task_id.is_none() {
        Some("no header xcron-task-id")
    } else if callback.fire_id.is_none() {
        Some("no header webhook-id")
    } else if callback.attempt.is_none_or(|attempt| attempt == 0) {
        Some("no number in header xcron-attempt")
    } else if callback.due_ms != Some(u64::from(due_s) * 1_000) {
        Some("header xcron-due is not the due that was asked for")
    } else {
        None
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "any 32 bits of the hash will do: it only tells two fire ids of one task apart"
)]
fn hash(bytes: &[u8]) -> u32 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUE_S: u64 = 1_800_000_000;
    const DUE_US: u64 = DUE_S * 1_000_000;

    fn callback(fire_id: &'static [u8]) -> Callback<'static> {
        Callback {
            task_id: Some(b"task"),
            fire_id: Some(fire_id),
            due_ms: Some(DUE_S * 1_000),
            attempt: Some(1),
        }
    }

    fn ledger_of_acked(tasks: u32) -> Ledger {
        let ledger = Ledger::new(tasks);
        for index in 0..tasks {
            ledger.sent(index, DUE_S);
            ledger.answered(index, Answer::Acked);
        }
        ledger
    }

    #[test]
    fn a_task_not_called_is_missing_only_if_it_was_acked() {
        let ledger = ledger_of_acked(4);
        ledger.answered(1, Answer::Refused);
        ledger.answered(2, Answer::Unknown);
        ledger.called(0, &callback(b"f"), DUE_US);
        let counts = ledger.counts();
        assert_eq!((counts.acked, counts.missing), (2, 1));
        assert_eq!((counts.unknown_called, counts.refused_called), (0, 0));
        assert_eq!(ledger.tasks_called(), 1);
    }

    #[test]
    fn a_callback_of_a_create_without_an_ack_is_told_apart() {
        let ledger = ledger_of_acked(2);
        ledger.answered(0, Answer::Refused);
        ledger.answered(1, Answer::Unknown);
        ledger.called(0, &callback(b"f"), DUE_US);
        ledger.called(1, &callback(b"g"), DUE_US);
        let counts = ledger.counts();
        assert_eq!(
            (counts.unknown_called, counts.refused_called, counts.missing),
            (1, 1, 0)
        );
    }

    #[test]
    fn one_microsecond_before_the_due_is_early_and_the_due_itself_is_not() {
        let ledger = ledger_of_acked(2);
        ledger.called(0, &callback(b"f"), DUE_US);
        assert_eq!(ledger.arrivals().early, 0);
        ledger.called(1, &callback(b"g"), DUE_US - 1);
        let arrivals = ledger.arrivals();
        assert_eq!((arrivals.early, arrivals.earliest_us), (1, 1));
        assert_eq!(arrivals.lateness_us.max(), 0);
    }

    #[test]
    fn repeats_are_counted_and_another_fire_is_worse() {
        let ledger = ledger_of_acked(1);
        for fire in [b"f", b"f", b"g"] {
            ledger.called(0, &callback(fire), DUE_US + 2_000);
        }
        let arrivals = ledger.arrivals();
        assert_eq!((arrivals.repeated, arrivals.refired, arrivals.strange), (2, 1, 0));
        assert_eq!((arrivals.lateness_us.len(), ledger.tasks_called()), (1, 1));
    }

    #[test]
    fn repeats_beyond_what_a_record_holds_are_still_counted() {
        let ledger = ledger_of_acked(1);
        for _ in 0..300 {
            ledger.called(0, &callback(b"f"), DUE_US);
        }
        assert_eq!((ledger.arrivals().repeated, ledger.tasks_called()), (299, 1));
    }

    #[test]
    fn bursts_keep_the_first_and_last_arrival_of_their_second() {
        let ledger = ledger_of_acked(3);
        ledger.sent(2, DUE_S + 1);
        for (index, arrival_us) in [(0, DUE_US + 500), (1, DUE_US + 100), (2, DUE_US + 1_000_007)] {
            ledger.called(index, &callback(b"f"), arrival_us);
        }
        let bursts: Vec<_> = ledger.arrivals().bursts.into_values().collect();
        let burst = |tasks, first, last| Burst {
            tasks,
            first_us: DUE_US + first,
            last_us: DUE_US + last,
        };
        assert_eq!(bursts, [burst(2, 100, 500), burst(1, 1_000_007, 1_000_007)]);
    }

    #[test]
    fn contradictions_are_strange_and_the_first_is_told() {
        let ledger = ledger_of_acked(2);
        ledger.called(7, &callback(b"f"), DUE_US);
        ledger.called(
            0,
            &Callback {
                due_ms: Some(1),
                ..callback(b"f")
            },
            DUE_US,
        );
        ledger.called(
            1,
            &Callback {
                task_id: None,
                ..callback(b"f")
            },
            DUE_US,
        );
        let arrivals = ledger.arrivals();
        assert_eq!(arrivals.strange, 3);
        assert!(arrivals.strange_example.is_some_and(|why| why.contains("task 7")));
    }

    #[test]
    fn a_first_callback_that_is_a_later_attempt_was_retried() {
        let ledger = ledger_of_acked(1);
        let second = Callback {
            attempt: Some(2),
            ..callback(b"f")
        };
        ledger.called(0, &second, DUE_US);
        assert_eq!(ledger.arrivals().retried, 1);
    }
}

//! Which callbacks of the demo's own tasks are owed, and which came. Pure; told by the load and the receiver.

use std::collections::HashMap;
use std::fmt;

/// A callback later than this counts as missing, in milliseconds: longer than a failover with two unlucky elections.
const MISSING_MS: u64 = 10_000;

/// What a callback is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The first of its task.
    First,
    /// A repeat: the attempt before it may not have been recorded when a node died.
    Again,
    /// Of a task that the demo did not create.
    Foreign,
}

#[derive(Debug, Default)]
struct Task {
    due_ms: u64,
    is_acked: bool,
    arrivals: u32,
    is_early: bool,
}

/// The demo's tasks.
#[derive(Debug, Default)]
pub struct Tally {
    tasks: HashMap<String, Task>,
}

/// How the tasks stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Acknowledged by a node.
    pub created: usize,
    /// Called back at least once.
    pub fired: usize,
    /// Not yet due, or due just now.
    pub ahead: usize,
    /// Acknowledged, long due, and not called back.
    pub missing: usize,
    /// Called back before they were due.
    pub early: usize,
    /// Called back more than once.
    pub again: usize,
}

impl Tally {
    /// A task is about to be created; it may fire from now on.
    pub fn creating(&mut self, id: &str, due_ms: u64) {
        let task = Task {
            due_ms,
            ..Task::default()
        };
        self.tasks.insert(id.to_owned(), task);
    }

    /// A node has acknowledged it.
    pub fn created(&mut self, id: &str) {
        if let Some(task) = self.tasks.get_mut(id) {
            task.is_acked = true;
        }
    }

    /// A callback has come.
    pub fn arrived(&mut self, id: &str, at_ms: u64) -> Arrival {
        let Some(task) = self.tasks.get_mut(id) else {
            return Arrival::Foreign;
        };
        task.arrivals += 1;
        task.is_early |= at_ms < task.due_ms;
        if task.arrivals == 1 {
            Arrival::First
        } else {
            Arrival::Again
        }
    }

    /// How things stand at `now_ms`.
    pub fn summary(&self, now_ms: u64) -> Summary {
        let mut summary = Summary::default();
        for task in self.tasks.values() {
            let is_owed = task.is_acked && task.arrivals == 0;
            let is_late = now_ms >= task.due_ms.saturating_add(MISSING_MS);
            summary.created += usize::from(task.is_acked);
            summary.fired += usize::from(task.arrivals > 0);
            summary.ahead += usize::from(is_owed && !is_late);
            summary.missing += usize::from(is_owed && is_late);
            summary.early += usize::from(task.is_early);
            summary.again += usize::from(task.arrivals > 1);
        }
        summary
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} tasks created: {} fired, {} still to come, {} missing, {} early, {} repeated",
            self.created, self.fired, self.ahead, self.missing, self.early, self.again
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_accounted_for() {
        let mut tally = Tally::default();
        for id in ["fired", "twice", "early", "lost", "unknown", "soon"] {
            tally.creating(id, if id == "soon" { 50_000 } else { 1_000 });
        }
        for id in ["fired", "twice", "early", "lost", "soon"] {
            tally.created(id);
        }
        assert_eq!(tally.arrived("fired", 1_000), Arrival::First);
        assert_eq!(tally.arrived("twice", 1_010), Arrival::First);
        assert_eq!(tally.arrived("twice", 1_020), Arrival::Again);
        assert_eq!(tally.arrived("early", 999), Arrival::First);
        assert_eq!(tally.arrived("mine", 5), Arrival::Foreign);
        let wanted = Summary {
            created: 5,
            fired: 3,
            ahead: 2,
            missing: 0,
            early: 1,
            again: 1,
        };
        assert_eq!(tally.summary(1_000 + MISSING_MS - 1), wanted);
        let later = Summary {
            ahead: 1,
            missing: 1,
            ..wanted
        };
        assert_eq!(tally.summary(1_000 + MISSING_MS), later);
        let text = "5 tasks created: 3 fired, 1 still to come, 1 missing, 1 early, 1 repeated";
        assert_eq!(later.to_string(), text);
    }
}

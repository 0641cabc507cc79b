//! What clients know about their one-shots, and the judgement of what the target saw against it.
//!
//! Every task is entered before its call is sent, as unknown, so that a call cut by a crash is never taken for a refusal.
//! Judges by counts and order; of clock times only by the due itself, which is a promise.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::client::Told;
use super::sink::Arrival;
use super::wall_ms;

/// What is known of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Acknowledged, at this time.
    Acked(u64),
    /// Refused for good.
    Refused,
    /// Sent, and no answer that settles it.
    Unknown,
}

impl Known {
    fn from(told: &Told) -> Self {
        match told {
            Told::Done(_) => Self::Acked(wall_ms()),
            Told::Refused(..) => Self::Refused,
            Told::Unknown(_) => Self::Unknown,
        }
    }
}

/// One one-shot.
#[derive(Clone, Debug)]
struct Entry {
    due_ms: u64,
    path: String,
    body: String,
    create: Known,
    delete: Option<Known>,
    /// Since when a query has shown the delivery.
    settled_ms: Option<u64>,
}

impl Entry {
    /// Acknowledged, and nobody asked to delete it (or was refused).
    fn must_arrive(&self) -> bool {
        matches!(self.create, Known::Acked(_)) && matches!(self.delete, None | Some(Known::Refused))
    }

    /// Refused, or deleted for certain before it was due.
    fn must_not_arrive(&self) -> bool {
        let is_deleted_in_time = matches!(self.delete, Some(Known::Acked(at_ms)) if at_ms < self.due_ms);
        self.create == Known::Refused || is_deleted_in_time
    }
}

/// Everything the clients of one test know.
#[derive(Debug, Default)]
pub struct Oracle {
    entries: Mutex<BTreeMap<String, Entry>>,
    faults: Mutex<Vec<Fault>>,
}

/// What was done to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kill,
    Pause,
}

/// A fault: of a kill from just before the signal until the process was gone, of a pause until just before it went on.
#[derive(Clone, Copy, Debug)]
struct Fault {
    kind: Kind,
    from_ms: u64,
    to_ms: u64,
}

impl Fault {
    /// Whether an attempt that arrived at `at_ms` may have begun before the pause: nothing can call it back then.
    fn may_have_frozen(&self, due_ms: u64, at_ms: u64) -> bool {
        self.kind == Kind::Pause && due_ms <= self.from_ms && at_ms >= self.to_ms
    }
}

/// What the judgement counted.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Tasks whose create was acknowledged.
    pub acked: usize,
    /// Of these, tasks that clients asked to delete.
    pub deletes: usize,
    /// Creates whose outcome is unknown.
    pub unknown: usize,
    /// Attempts beyond the first of their fire.
    pub repeats: usize,
    /// Those of them without a fault between: their owner changed in quiet times.
    pub quiet_repeats: usize,
    /// Attempts that a pause held back until after their fire was settled.
    pub thawed: usize,
    /// The longest that a fire came after its due: for the reader, not for judgement.
    pub silence_ms_max: u64,
    /// The longest time between the arrival of an attempt that was repeated and the kill that made it so.
    pub unrecorded_ms_max: u64,
    /// Everything that breaks a promise, in words.
    pub violations: Vec<String>,
}

impl Oracle {
    /// Enters a task whose create is about to be sent.
    pub fn creating(&self, id: &str, due_ms: u64, path: &str, body: &str) {
        let entry = Entry {
            due_ms,
            path: path.to_owned(),
            body: body.to_owned(),
            create: Known::Unknown,
            delete: None,
            settled_ms: None,
        };
        let old = self.entries.lock().insert(id.to_owned(), entry);
        assert!(old.is_none(), "the test gave the id {id} twice");
    }

    /// Enters the answer of a create. A refusal of a repeated call says nothing about the first one.
    pub fn created(&self, id: &str, told: &Told) {
        self.change(id, |entry| entry.create = Known::from(told));
    }

    /// Enters a delete that is about to be sent.
    pub fn deleting(&self, id: &str) {
        self.change(id, |entry| entry.delete = Some(Known::Unknown));
    }

    /// Enters the answer of a delete.
    pub fn deleted(&self, id: &str, told: &Told) {
        self.change(id, |entry| entry.delete = Some(Known::from(told)));
    }

    /// A query has shown that the delivery is recorded: no attempt may follow.
    pub fn settled(&self, id: &str) {
        self.change(id, |entry| entry.settled_ms = Some(wall_ms()));
    }

    /// A node was killed within these times.
    pub fn killed(&self, from_ms: u64, to_ms: u64) {
        self.disturbed(Kind::Kill, from_ms, to_ms);
    }

    /// A node stood still between these times.
    pub fn paused(&self, from_ms: u64, to_ms: u64) {
        self.disturbed(Kind::Pause, from_ms, to_ms);
    }

    fn disturbed(&self, kind: Kind, from_ms: u64, to_ms: u64) {
        self.faults.lock().push(Fault { kind, from_ms, to_ms });
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.entries.lock();
        change(entries.get_mut(id).expect("the task was entered before its call"));
    }

    /// Tasks whose create has an unknown outcome and whose due is later than `due_ms`.
    pub fn unknown_due_after(&self, due_ms: u64) -> Vec<String> {
        let entries = self.entries.lock();
        let is_open = |entry: &Entry| entry.create == Known::Unknown && entry.delete.is_none() && entry.due_ms > due_ms;
        let open = entries.iter().filter(|(_, entry)| is_open(entry));
        open.map(|(id, _)| id.clone()).collect()
    }

    /// Due and body of a task.
    pub fn task(&self, id: &str) -> (u64, String) {
        let entries = self.entries.lock();
        (entries[id].due_ms, entries[id].body.clone())
    }

    /// Whether a client has asked to delete the task.
    pub fn is_deleted(&self, id: &str) -> bool {
        self.entries.lock()[id].delete.is_some()
    }

    /// Tasks that must have arrived and have not.
    pub fn missing(&self, arrivals: &[Arrival]) -> Vec<String> {
        let by_task = by_task(arrivals);
        let entries = self.entries.lock();
        let missing = entries
            .iter()
            .filter(|(id, entry)| entry.must_arrive() && !by_task.contains_key(id.as_str()));
        missing.map(|(id, _)| id.clone()).collect()
    }

    /// Judges all attempts of a test, once it is certain that none is to follow.
    pub fn judge(&self, arrivals: &[Arrival]) -> Verdict {
        let by_task = by_task(arrivals);
        let entries = self.entries.lock();
        let mut verdict = Verdict::default();
        for (id, entry) in entries.iter() {
            verdict.acked += usize::from(matches!(entry.create, Known::Acked(_)));
            verdict.unknown += usize::from(entry.create == Known::Unknown);
            verdict.deletes += usize::from(matches!(entry.create, Known::Acked(_)) && entry.delete.is_some());
            if matches!(entry.create, Known::Acked(_)) && entry.delete == Some(Known::Refused) {
                verdict
                    .violations
                    .push(format!("{id}: acknowledged, and then unknown to deleteTask"));
            }
            let attempts = by_task.get(id.as_str()).map_or(&[][..], Vec::as_slice);
            if attempts.is_empty() && entry.must_arrive() {
                verdict
                    .violations
                    .push(format!("{id}: acknowledged, due {}, lost", entry.due_ms));
            }
            if !attempts.is_empty() && entry.must_not_arrive() {
                let at_ms = attempts[0].at_ms;
                verdict
                    .violations
                    .push(format!("{id}: must not arrive, arrived at {at_ms}: {entry:?}"));
            }
            verdict.repeats += attempts.len().saturating_sub(1);
            if let Some(first) = attempts.first() {
                verdict.silence_ms_max = verdict.silence_ms_max.max(first.at_ms.saturating_sub(entry.due_ms));
            }
            self.judge_attempts(id, entry, attempts, &mut verdict);
        }
        for (id, attempts) in by_task.iter().filter(|(id, _)| !entries.contains_key(**id)) {
            verdict
                .violations
                .push(format!("{id}: nobody created it: {:?}", attempts[0]));
        }
        verdict
    }

    /// Judges crontab tasks whose target answers every attempt with 200: each due is a fire of its own, of which a repeat needs
    /// a fault between, and another owner.
    pub fn judge_periodic(&self, arrivals: &[Arrival]) -> Verdict {
        let mut fires: BTreeMap<(&str, u64), Vec<&Arrival>> = BTreeMap::new();
        for arrival in arrivals {
            fires.entry((&arrival.task, arrival.due_ms)).or_default().push(arrival);
        }
        let mut verdict = Verdict::default();
        for ((id, due_ms), attempts) in &fires {
            verdict.repeats += attempts.len() - 1;
            let early = attempts.iter().filter(|arrival| arrival.at_ms < *due_ms);
            verdict
                .violations
                .extend(early.map(|arrival| format!("{id}: early: {arrival:?}")));
            self.judge_repeats(id, attempts, &mut verdict);
        }
        verdict
    }

    fn judge_attempts(&self, id: &str, entry: &Entry, attempts: &[&Arrival], verdict: &mut Verdict) {
        let faults = self.faults.lock();
        let violations = &mut verdict.violations;
        for arrival in attempts {
            let at_ms = arrival.at_ms;
            if at_ms < entry.due_ms {
                violations.push(format!("{id}: early: due {}, arrived {at_ms}", entry.due_ms));
            }
            if arrival.due_ms != entry.due_ms || arrival.body != entry.body || arrival.path != entry.path {
                violations.push(format!("{id}: altered: {entry:?} arrived as {arrival:?}"));
            }
            if entry.settled_ms.is_some_and(|settled_ms| at_ms > settled_ms) {
                if faults.iter().any(|fault| fault.may_have_frozen(entry.due_ms, at_ms)) {
                    verdict.thawed += 1;
                } else {
                    violations.push(format!(
                        "{id}: repeated after a query had shown the delivery: {arrival:?}"
                    ));
                }
            }
        }
        drop(faults);
        self.judge_repeats(id, attempts, verdict);
    }

    /// Judges the attempts of one due against each other.
    fn judge_repeats(&self, id: &str, attempts: &[&Arrival], verdict: &mut Verdict) {
        let faults = self.faults.lock();
        let violations = &mut verdict.violations;
        for pair in attempts.windows(2) {
            let (first, second) = (pair[0], pair[1]);
            if first.fire != second.fire {
                violations.push(format!(
                    "{id}: two fires of one due: {} and {}",
                    first.fire, second.fire
                ));
            }
            // The target answers every attempt with 200, so one owner has no reason for another.
            if first.generation == second.generation {
                violations.push(format!("{id}: repeated by the same owner: {first:?} and {second:?}"));
            }
            let mut between = faults
                .iter()
                .filter(|fault| fault.to_ms >= first.at_ms && fault.from_ms <= second.at_ms);
            match between.next() {
                Some(fault) => {
                    let unrecorded_ms = fault.from_ms.saturating_sub(first.at_ms);
                    verdict.unrecorded_ms_max = verdict.unrecorded_ms_max.max(unrecorded_ms);
                }
                None => verdict.quiet_repeats += 1,
            }
        }
    }
}

fn by_task(arrivals: &[Arrival]) -> BTreeMap<&str, Vec<&Arrival>> {
    let mut by_task: BTreeMap<&str, Vec<&Arrival>> = BTreeMap::new();
    for arrival in arrivals {
        by_task.entry(&arrival.task).or_default().push(arrival);
    }
    by_task
}

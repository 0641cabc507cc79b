//! Whether what clients saw of one task could have happened one call at a time: a linearizability checker.
//!
//! The search is that of Wing and Gong with Lowe's memory of what was tried. Tasks do not know each other, so each has a
//! history of its own: a history is linearizable if and only if each task's is. A call whose outcome is unknown stays open
//! for ever: it may take effect at any later time, or never. Used by `linear.rs`.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Most operations of one task: the set of those that are done is one number.
pub const OPERATIONS_MAX: usize = 128;
/// Most combinations looked at for one task. A history that needs more says nothing, which is the test's own fault.
const COMBINATIONS_MAX: usize = 4_000_000;

/// No such task.
pub const NOT_FOUND: u64 = 1008;
/// Taken by another content, or by a deleted task.
pub const TAKEN: u64 = 1012;
/// The task has another revision.
pub const OUTDATED: u64 = 412;

/// What a task is, as a number.
pub type Content = u64;
/// How often it was replaced, from 1.
pub type Revision = u64;

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `createTask` with this content.
    Create(Content),
    /// `PUT /v1/tasks/{id}` of this content, if the task has the revision, where one is said.
    Update(Content, Option<Revision>),
    /// `deleteTask`.
    Delete,
    /// `queryTask`.
    Query,
    /// `GET /v1/tasks/{id}`.
    Show,
}

impl Call {
    /// Whether it changes nothing.
    fn is_look(self) -> bool {
        matches!(self, Self::Query | Self::Show)
    }
}

/// What it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Success without a content.
    Done,
    /// Success of a query, and what it showed.
    Shown(Content),
    /// The same with the revision.
    Seen(Content, Revision),
    /// Not done: the code.
    Refused(u64),
    /// No answer that settles it.
    Unknown,
}

/// One call, from before it was sent until after its answer was there.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// Who called, for the reader.
    pub client: u64,
    /// What was asked.
    pub call: Call,
    /// What was answered.
    pub outcome: Outcome,
    /// When it was sent.
    pub from: u64,
    /// When it was answered; an unknown outcome has no end, whatever stands here.
    pub to: u64,
}

impl Operation {
    fn is_open(&self) -> bool {
        self.outcome == Outcome::Unknown
    }
}

/// A task as the API promises it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Absent,
    Present(Content, Revision),
    /// Within its retention, which is longer than any test: the id stays taken.
    Deleted,
}

impl State {
    fn apply(self, call: Call) -> (Outcome, Self) {
        match (call, self) {
            (Call::Create(content), Self::Absent) => (Outcome::Done, Self::Present(content, 1)),
            (Call::Create(content), Self::Present(present, _)) if content == present => (Outcome::Done, self),
            (Call::Create(_), _) => (Outcome::Refused(TAKEN), self),
            (Call::Delete, Self::Present(..) | Self::Deleted) => (Outcome::Done, Self::Deleted),
            (Call::Query, Self::Present(content, _)) => (Outcome::Shown(content), self),
            (Call::Show, Self::Present(content, revision)) => (Outcome::Seen(content, revision), self),
            (Call::Update(content, replaces), Self::Present(present, revision)) => {
                self.update(content, replaces, present, revision)
            }
            (Call::Delete, Self::Absent) | (_, Self::Absent | Self::Deleted) => (Outcome::Refused(NOT_FOUND), self),
        }
    }

    /// What is asked for and is there already is a success that changes nothing, so that it can be sent again.
    fn update(
        self,
        content: Content,
        replaces: Option<Revision>,
        present: Content,
        revision: Revision,
    ) -> (Outcome, Self) {
        let is_repeated = content == present && replaces.is_none_or(|replaced| replaced + 1 == revision);
        if is_repeated {
            return (Outcome::Done, self);
        }
        if replaces.is_none_or(|replaced| replaced == revision) {
            return (Outcome::Done, Self::Present(content, revision + 1));
        }
        (Outcome::Refused(OUTDATED), self)
    }
}

/// Judges the history of one task that was absent before; the error says how far it could be explained.
pub fn check(history: &[Operation]) -> Result<(), String> {
    // A look without an answer has changed nothing and says nothing.
    let told = |operation: &&Operation| !(operation.is_open() && operation.call.is_look());
    let mut operations: Vec<Operation> = history.iter().filter(told).copied().collect();
    operations.sort_by_key(|operation| operation.from);
    let mut search = Search {
        must: 0,
        seen: HashSet::new(),
        furthest: 0,
        operations,
    };
    assert!(
        search.operations.len() <= OPERATIONS_MAX,
        "{} operations of one task: at most {OPERATIONS_MAX} can be judged",
        search.operations.len()
    );
    for (place, _) in search.operations.iter().enumerate().filter(|(_, op)| !op.is_open()) {
        search.must |= 1 << place;
    }
    if search.explains(0, State::Absent) {
        Ok(())
    } else {
        Err(search.complaint())
    }
}

struct Search {
    /// By the time of their call.
    operations: Vec<Operation>,
    /// Those that have an answer: all of them must be explained.
    must: u128,
    /// Combinations that were tried, all of them in vain.
    seen: HashSet<(u128, State)>,
    /// The most operations that could be explained together.
    furthest: u128,
}

impl Search {
    /// Whether the operations that are not in `done` can follow on `state` in some order that their times allow.
    fn explains(&mut self, done: u128, state: State) -> bool {
        if done & self.must == self.must {
            return true;
        }
        if !self.seen.insert((done, state)) {
            return false;
        }
        assert!(
            self.seen.len() < COMBINATIONS_MAX,
            "the history is too concurrent to be judged"
        );
        if (done & self.must).count_ones() > (self.furthest & self.must).count_ones() {
            self.furthest = done;
        }
        let is_left = |place: usize| done & (1 << place) == 0;
        let left = self.operations.iter().enumerate().filter(|(place, _)| is_left(*place));
        let answered = left.filter(|(_, operation)| !operation.is_open());
        let first_answer = answered.map(|(_, operation)| operation.to).min().unwrap_or(u64::MAX);
        for place in 0..self.operations.len() {
            let operation = self.operations[place];
            if operation.from > first_answer {
                // Another call was over before this one, and all after it, began.
                return false;
            }
            if !is_left(place) {
                continue;
            }
            let (outcome, next) = state.apply(operation.call);
            // An open call that changes nothing here may as well be left out.
            let is_possible = if operation.is_open() {
                next != state
            } else {
                outcome == operation.outcome
            };
            if is_possible && self.explains(done | (1 << place), next) {
                return true;
            }
        }
        false
    }

    fn complaint(&self) -> String {
        let explained = (self.furthest & self.must).count_ones();
        let mut text = format!(
            "{explained} of {} answers can be explained together (marked +):\n",
            self.must.count_ones()
        );
        for (place, operation) in self.operations.iter().enumerate() {
            let mark = if self.furthest & (1 << place) == 0 { ' ' } else { '+' };
            let Operation {
                client,
                call,
                outcome,
                from,
                to,
            } = operation;
            let end = if operation.is_open() {
                "open".to_owned()
            } else {
                to.to_string()
            };
            writeln!(
                text,
                "{mark} {from:>6}..{end:<6} client {client}: {call:?} -> {outcome:?}"
            )
            .expect("a text takes it");
        }
        text
    }
}

/// The histories of all tasks of one test.
#[derive(Debug, Default)]
pub struct Histories {
    /// Counts beginnings and ends of calls: their order is all that the judgement needs of time.
    ticks: AtomicU64,
    tasks: Mutex<BTreeMap<String, Vec<Operation>>>,
}

impl Histories {
    /// The time of a call that is about to be sent.
    pub fn begin(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }

    /// Enters a call that began at `from` and is over now.
    pub fn end(&self, task: &str, client: u64, call: Call, outcome: Outcome, from: u64) {
        let to = self.ticks.fetch_add(1, Ordering::SeqCst);
        let operation = Operation {
            client,
            call,
            outcome,
            from,
            to,
        };
        self.tasks.lock().entry(task.to_owned()).or_default().push(operation);
    }

    /// The tasks.
    pub fn tasks(&self) -> Vec<String> {
        self.tasks.lock().keys().cloned().collect()
    }

    /// How many operations there are, and how many of them are open.
    pub fn counts(&self) -> (usize, usize) {
        let tasks = self.tasks.lock();
        let open = tasks.values().flatten().filter(|operation| operation.is_open());
        (tasks.values().map(Vec::len).sum(), open.count())
    }

    /// What cannot be explained, by task.
    pub fn violations(&self) -> Vec<String> {
        let tasks = self.tasks.lock();
        let judged = tasks.iter().map(|(task, history)| (task, check(history)));
        judged
            .filter_map(|(task, verdict)| Some(format!("{task}: {}", verdict.err()?)))
            .collect()
    }
}

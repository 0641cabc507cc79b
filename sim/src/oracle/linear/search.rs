//! Looks for an order of the calls of one task that explains every answer: the search of Wing and Gong, with Lowe's memory of
//! what was tried in vain.
//!
//! A call of unknown outcome stays open for ever: it may take effect at any later time, or never.

use std::collections::HashSet;

use super::{NOT_FOUND, OUTDATED, PAST, TAKEN, from, shows, tell, to};
use crate::history::{Call, Op, Task, Told};

#[cfg(test)]
mod tests;

/// Most calls of one task: the set of those that are done is one number.
const CALLS_MAX: usize = 128;
/// Most combinations that are looked at.
const COMBINATIONS_MAX: usize = 4_000_000;

/// A task as the API promises it; contents are places in the list of all contents that anybody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Absent,
    Present { content: usize, revision: u32 },
    Deleted,
}

struct Search<'a> {
    /// By the time at which they were sent.
    ops: Vec<&'a Op>,
    contents: Vec<&'a Task>,
    /// Those that have an answer: all of them must be explained.
    must: u128,
    seen: HashSet<(u128, State)>,
    /// The most that could be explained together.
    furthest: u128,
}

/// Judges the calls of one task that was absent before.
pub(super) fn check(ops: &[&Op]) -> Result<(), String> {
    // A look without an answer has changed nothing and says nothing.
    let is_look = |op: &Op| matches!(op.call, Call::Query(_) | Call::Show(_));
    let says = |op: &&&Op| !(is_look(op) && is_open(op));
    let mut ops: Vec<&Op> = ops.iter().filter(says).copied().collect();
    ops.sort_by_key(|op| op.from_us);
    assert!(
        ops.len() <= CALLS_MAX,
        "{} calls of one task are too many to be judged",
        ops.len()
    );
    let mut contents: Vec<&Task> = Vec::new();
    for op in &ops {
        if let Call::Create(task) | Call::Update { task, .. } = &op.call
            && !contents.contains(&task)
        {
            contents.push(task);
        }
    }
    let answered = ops.iter().enumerate().filter(|(_, op)| !is_open(op));
    let must = answered.fold(0, |must, (place, _)| must | 1 << place);
    let mut search = Search {
        ops,
        contents,
        must,
        seen: HashSet::new(),
        furthest: 0,
    };
    if search.explains(0, State::Absent) {
        Ok(())
    } else {
        Err(search.complaint())
    }
}

fn is_open(op: &Op) -> bool {
    op.told == Told::Unknown
}

impl Search<'_> {
    /// Whether the calls that are not in `done` can follow on `state` in some order that their times allow.
    fn explains(&mut self, done: u128, state: State) -> bool {
        if done & self.must == self.must {
            return true;
        }
        if !self.seen.insert((done, state)) {
            return false;
        }
        assert!(
            self.seen.len() < COMBINATIONS_MAX,
            "the calls are too concurrent to be judged"
        );
        if (done & self.must).count_ones() > (self.furthest & self.must).count_ones() {
            self.furthest = done;
        }
        let is_left = |place: usize| done & (1 << place) == 0;
        let left = self.ops.iter().enumerate().filter(|(place, _)| is_left(*place));
        let answered = left.filter(|(_, op)| !is_open(op));
        let first_answer = answered.map(|(_, op)| to(op)).min().unwrap_or(u64::MAX);
        for place in (0..self.ops.len()).filter(|place| is_left(*place)) {
            if from(self.ops[place]) > first_answer {
                // Another call was over before this one, and all after it, were sent.
                return false;
            }
            for next in self.next(state, self.ops[place]).into_iter().flatten() {
                if self.explains(done | (1 << place), next) {
                    return true;
                }
            }
        }
        false
    }

    /// The states in which the call can leave the task if it was given this answer; an open call that changes nothing may as well
    /// be left out.
    fn next(&self, state: State, op: &Op) -> [Option<State>; 2] {
        let same = |is_possible: bool| [is_possible.then_some(state), None];
        match (&op.call, &op.told) {
            (Call::Create(task), told) => self.create(state, task, told),
            (Call::Update { task, replaces }, told) => self.update(state, task, *replaces, told),
            (Call::Delete(_), Told::Done | Told::Unknown) => match state {
                State::Present { .. } => [Some(State::Deleted), None],
                State::Deleted => same(op.told == Told::Done),
                State::Absent => same(false),
            },
            (Call::Delete(_), Told::Refused(NOT_FOUND)) => same(state == State::Absent),
            (Call::Query(_) | Call::Show(_), Told::Refused(NOT_FOUND)) => same(!matches!(state, State::Present { .. })),
            (Call::Query(_) | Call::Show(_), Told::Shown(shown)) => same(match state {
                State::Present { content, revision } => {
                    shows(shown, self.contents[content]) && shown.revision.is_none_or(|shown| shown == revision)
                }
                State::Absent | State::Deleted => false,
            }),
            (_, Told::Refused(_)) => same(true),
            (_, Told::Done | Told::Shown(_) | Told::Unknown) => same(false),
        }
    }

    fn place(&self, task: &Task) -> usize {
        let place = self.contents.iter().position(|content| *content == task);
        place.expect("every content was collected")
    }

    fn create(&self, state: State, task: &Task, told: &Told) -> [Option<State>; 2] {
        let asked = self.place(task);
        let is_same = matches!(state, State::Present { content, .. } if content == asked);
        let next = match (told, state) {
            (Told::Done | Told::Unknown, State::Absent) => Some(State::Present {
                content: asked,
                revision: 1,
            }),
            (Told::Done, _) => Some(state).filter(|_| is_same),
            (Told::Refused(TAKEN), _) => Some(state).filter(|_| state != State::Absent && !is_same),
            (Told::Refused(PAST), _) => Some(state).filter(|_| !is_same),
            (Told::Refused(_), _) => Some(state),
            (Told::Unknown | Told::Shown(_), _) => None,
        };
        [next, None]
    }

    fn update(&self, state: State, task: &Task, replaces: Option<u32>, told: &Told) -> [Option<State>; 2] {
        let asked = self.place(task);
        let State::Present { content, revision } = state else {
            let is_said = matches!(told, Told::Refused(code) if *code != OUTDATED && *code != PAST);
            return [is_said.then_some(state), None];
        };
        let is_same = content == asked;
        let replaced = State::Present {
            content: asked,
            revision: revision + 1,
        };
        let is_meant = replaces.is_none_or(|replaces| replaces == revision);
        // Whoever asks for what is there already gets the same success.
        let is_repeated = is_same && replaces.is_none_or(|replaces| replaces + 1 == revision);
        match told {
            // What is asked for again begins a task anew that is over, which is not seen here.
            Told::Done => [is_repeated.then_some(state), is_meant.then_some(replaced)],
            Told::Unknown => [None, is_meant.then_some(replaced)],
            Told::Refused(OUTDATED) => [(!is_meant && !is_repeated).then_some(state), None],
            // Its instant counts before anything else.
            Told::Refused(PAST) => [(!is_same).then_some(state), None],
            Told::Refused(NOT_FOUND) | Told::Shown(_) => [None, None],
            Told::Refused(_) => [Some(state), None],
        }
    }

    fn complaint(&self) -> String {
        let explained = (self.furthest & self.must).count_ones();
        let lines = self.ops.iter().enumerate().map(|(place, op)| {
            let mark = if self.furthest & (1 << place) == 0 { ' ' } else { '+' };
            format!("\n{mark} {}", tell(op))
        });
        format!(
            "{explained} of {} answers can be explained together (marked +):{}",
            self.must.count_ones(),
            lines.collect::<String>()
        )
    }
}

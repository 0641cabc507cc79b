//! I14: the state machine itself refuses what an older leadership says, and a second report of one attempt; not only its callers.
//!
//! Such messages are rare. So they are replayed here, on every state that a run ends with, and forgotten again.

use std::convert::Infallible;

use xcron::core::command::{AttemptResult, ClaimFire, Op, Reply, Settle, Skipped};
use xcron::core::machine::{Batch, GroupState, View};
use xcron::core::reason::Reason;
use xcron::core::task::{Life, TaskSpec, TaskState};
use xcron::id::TaskKey;

use super::facts::Run;
use super::view::GroupView;
use crate::history::Violation;

/// The invariant.
pub const NAME: &str = "I14 fencing";

/// A task as the only one.
struct One<'a>(&'a TaskState);

impl View for One<'_> {
    type Error = Infallible;

    fn state(&self, _: TaskKey) -> Result<Option<TaskState>, Infallible> {
        Ok(Some(self.0.clone()))
    }

    fn spec(&self, _: TaskKey) -> Result<Option<TaskSpec>, Infallible> {
        Ok(None)
    }
}

/// Replays on every pending task of every copy.
pub fn check(run: &Run<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for (node, view) in run.copies() {
        let pending = view.tasks.iter().filter(|(_, (_, state))| state.life == Life::Pending);
        let wrong = pending.filter_map(|(key, (_, state))| {
            let key = TaskKey(*key);
            let reported = replies(view, key, state).and_then(|replies| wrong(replies, Reply::Repeat));
            reported.or_else(|| wrong(claims(view, key, state)?, Reply::Existed))
        });
        found.extend(wrong.map(|what| Violation {
            invariant: NAME,
            task: None,
            what: format!("node {node}, group {}: {what}", view.group),
        }));
    }
    found
}

/// What is said to the reports of an older and of a later leadership, to the first report of this one, and to the same once more.
fn replies(view: &GroupView, key: TaskKey, state: &TaskState) -> Option<[Reply; 4]> {
    let open = state.open.first().map(|open| (open.due_ms, open.attempts + 1));
    let (due_ms, attempt) = open.or(state.next_due_ms.map(|due_ms| (due_ms, 1)))?;
    let report = |generation| {
        Op::Settle(Settle {
            key,
            generation,
            revision: state.revision,
            due_ms,
            expected_ms: due_ms,
            skipped: Skipped::default(),
            attempt,
            result: AttemptResult::Retry { at_ms: due_ms + 1_000 },
            reason: Reason::Http(500),
            is_sent: true,
            at_ms: due_ms,
            next_due_ms: None,
            expire_ms: due_ms + 1_000_000,
        })
    };
    let one = One(state);
    let mut batch = Batch::new(&one, group(view));
    let generations = generations(view)?;
    Some(generations.map(|generation| batch.apply(&report(generation)).unwrap_or_else(|never| match never {})))
}

/// What is said to the claims of an older and of a later leadership, to that of this one, and to the same once more. `None` where
/// nothing can be claimed.
fn claims(view: &GroupView, key: TaskKey, state: &TaskState) -> Option<[Reply; 4]> {
    let due_ms = state.next_due_ms.filter(|_| state.claim.is_none())?;
    let claim = |generation| {
        Op::Claim(ClaimFire {
            key,
            generation,
            revision: state.revision,
            due_ms,
            expected_ms: due_ms,
            skipped: Skipped::default(),
            attempt: 1,
            at_ms: due_ms,
            next_due_ms: None,
        })
    };
    let one = One(state);
    let mut batch = Batch::new(&one, group(view));
    let generations = generations(view)?;
    Some(generations.map(|generation| batch.apply(&claim(generation)).unwrap_or_else(|never| match never {})))
}

fn group(view: &GroupView) -> GroupState {
    GroupState {
        generation: view.generation,
        leader: view.leader,
        pending: 1,
        digest: view.digest,
    }
}

/// An older leadership, a later one, and this one twice.
fn generations(view: &GroupView) -> Option<[u64; 4]> {
    let older = view.generation.checked_sub(1)?;
    Some([older, view.generation + 1, view.generation, view.generation])
}

fn wrong([older, later, first, second]: [Reply; 4], again: Reply) -> Option<String> {
    let expected = [Reply::Stale, Reply::Stale, Reply::Done, again];
    (([older, later, first, second]) != expected).then(|| {
        format!(
            "reports or claims of an older and a later leadership, of this one, and of this one again, got {older:?}, {later:?}, {first:?}, {second:?}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_be_refused_is() {
        let (done, stale, repeat) = (Reply::Done, Reply::Stale, Reply::Repeat);
        assert_eq!(wrong([stale, stale, done, repeat], repeat), None);
        for bad in [
            [done, stale, done, repeat],
            [stale, done, done, repeat],
            [stale, stale, repeat, repeat],
            [stale, stale, done, done],
        ] {
            assert!(wrong(bad, repeat).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn the_machine_refuses() {
        let view = GroupView {
            generation: 4,
            ..GroupView::default()
        };
        let said = replies(
            &view,
            TaskKey([1; 16]),
            &TaskState::new(5_000, xcron::core::target::Target([7; 16])),
        );
        assert_eq!(wrong(said.expect("a task that waits"), Reply::Repeat), None);
        let said = claims(
            &view,
            TaskKey([1; 16]),
            &TaskState::new(5_000, xcron::core::target::Target([7; 16])),
        );
        assert_eq!(wrong(said.expect("a task that waits"), Reply::Existed), None);
    }
}

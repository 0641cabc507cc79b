//! What the nodes hold at the end.

use xcron::core::reason::Reason;
use xcron::core::target::Target;
use xcron::core::task::{Life, TaskState, Verdict};

use super::{Sample, cron, key, once, outcome, spec, waiting, wall};
use crate::history::Told;
use crate::invariants::{
    acked_survives, full_accounting, index_conservation, low_water, no_ghosts, one_owner, replicas_agree, run_count,
};

#[test]
fn a_lost_task_is_found() {
    let name = acked_survives::NAME;
    Sample::shows("nothing is stored", name, |run| {
        for node in &mut run.nodes {
            node.groups[0].tasks.remove(&key("once"));
        }
    });
    Sample::shows("another content", name, |run| {
        run.change("once", |(spec, _)| {
            *spec = Some(super::spec(&once("once", 11_000), 1_050));
        });
    });
    Sample::shows("deleted by nobody", name, |run| {
        run.change("cron", |(_, state)| state.life = Life::Deleted);
    });
    Sample::shows("a delete undone", name, |run| {
        run.change("gone", |row| {
            *row = (
                Some(spec(&once("gone", 30_000), 3_050)),
                TaskState::new(wall(30_000), Target([7; 16])),
            );
        });
    });
}

#[test]
fn the_newest_copy_counts() {
    Sample::accepts("a copy that lags", |run| {
        let lagging = &mut run.nodes[0].groups[0];
        lagging.applied = vec![1, 1, 1, 9, 29];
        lagging.tasks.remove(&key("flaky"));
        super::reindex(lagging);
    });
}

#[test]
fn copies_that_differ_are_found() {
    let name = replicas_agree::NAME;
    Sample::shows("the digest", name, |run| run.nodes[1].groups[0].digest = 6);
    Sample::shows("a task", name, |run| {
        let row = run.nodes[1].groups[0].tasks.get_mut(&key("once"));
        row.expect("one of the sample's tasks").1.repeated = 1;
    });
    Sample::shows("a task less", name, |run| {
        drop(run.nodes[0].groups[0].tasks.remove(&key("gone")));
    });
    Sample::shows("the index", name, |run| run.nodes[1].groups[0].dues.truncate(2));
    Sample::shows("the leader", one_owner::NAME, |run| {
        run.nodes[1].groups[0].leader = None;
    });
}

#[test]
fn a_wrong_index_is_found() {
    let name = index_conservation::NAME;
    Sample::shows("an entry is missing", name, |run| {
        run.nodes[1].groups[0].dues.truncate(2);
    });
    Sample::shows("an entry too many", name, |run| {
        run.nodes[0].groups[0].dues.push((wall(999_000), key("cron"), 2));
    });
    Sample::shows("an entry of no task", name, |run| {
        run.nodes[0].groups[0].dues.push((wall(999_000), [3; 16], 1));
    });
    Sample::shows("another reason", name, |run| run.nodes[0].groups[0].dues[0].2 = 2);
}

#[test]
fn a_due_below_the_mark_is_found() {
    Sample::shows("hidden below the mark", low_water::NAME, |run| {
        run.nodes[0].groups[0].low_water_ms = wall(180_001);
    });
}

#[test]
fn a_due_that_is_not_accounted_for_is_found() {
    let name = full_accounting::NAME;
    Sample::shows("counted twice", name, |run| {
        run.change("cron", |(_, state)| state.skipped = 1);
    });
    Sample::shows("not counted", name, |run| {
        run.change("cron", |(_, state)| (state.dues_past, state.delivered) = (1, 1));
    });
    Sample::shows("a due left out", name, |run| {
        run.change("cron", |(_, state)| state.next_due_ms = Some(wall(240_000)));
    });
    Sample::shows("an instant that is not due", name, |run| {
        run.change("cron", |(_, state)| state.next_due_ms = Some(wall(180_500)));
    });
    Sample::shows("pending, and nothing to come", name, |run| {
        run.change("cron", |(_, state)| state.next_due_ms = None);
    });
    Sample::shows("finished, and something to come", name, |run| {
        run.change("once", |(_, state)| state.next_due_ms = Some(wall(10_000)));
    });
    Sample::shows("kept for ever", name, |run| {
        run.change("gone", |(_, state)| state.expire_ms = None);
    });
    Sample::shows("a one-shot with two dues", name, |run| {
        run.change("once", |(_, state)| (state.dues_past, state.failed) = (2, 1));
    });
    Sample::shows("a one-shot of another due", name, |run| {
        run.change("once", |(_, state)| state.outcomes[0].due_ms += 1_000);
    });
    Sample::shows("a retry forgotten", name, |run| {
        run.change("flaky", |(_, state)| {
            *state = TaskState {
                next_due_ms: None,
                dues_past: 1,
                open: vec![waiting(40_000, 45_000)],
                ..TaskState::new(0, Target([7; 16]))
            };
        });
    });
    Sample::shows("given up before the last attempt", name, |run| {
        run.change("flaky", |(_, state)| {
            (state.delivered, state.failed) = (0, 1);
            state.outcomes[0].verdict = Verdict::Failed;
            state.outcomes[0].reason = Reason::Http(500);
        });
    });
    Sample::shows("a due that waits for ever", name, |run| {
        run.history.ended_us = 250_000_000;
        run.change("cron", |_| {});
    });
}

#[test]
fn a_stored_count_that_is_wrong_is_found() {
    let name = run_count::NAME;
    Sample::shows("more than was taken", name, |run| {
        run.change("cron", |(_, state)| (state.dues_past, state.delivered) = (3, 3));
    });
    Sample::shows("fewer than was taken", name, |run| {
        run.change("cron", |(_, state)| (state.delivered, state.skipped) = (1, 1));
    });
    Sample::shows("other than the outcomes say", name, |run| {
        run.change("cron", |(_, state)| {
            state.outcomes[0] = outcome(60_000, 3, Verdict::Failed);
        });
    });
    Sample::accepts("a report that was lost with its leader: skipped", |run| {
        run.fault(60_000, 62_000);
        run.history.ops[7].told = Told::Unknown;
        run.history.ops.pop();
        run.change("cron", |(_, state)| {
            (state.delivered, state.skipped) = (1, 1);
            state.outcomes[0] = outcome(60_000, 0, Verdict::Skipped);
        });
    });
}

#[test]
fn a_stored_ghost_is_found() {
    Sample::shows("a row that nobody created", no_ghosts::NAME, |run| {
        for node in &mut run.nodes {
            let row = (
                Some(spec(&cron("ghost"), 2_050)),
                TaskState::new(wall(180_000), Target([7; 16])),
            );
            node.groups[0].tasks.insert(key("ghost"), row);
            super::reindex(&mut node.groups[0]);
        }
    });
}

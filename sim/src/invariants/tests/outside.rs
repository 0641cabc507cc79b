//! What the outside sees: calls and attempts.

use super::{Sample, attempt, cron, once, op, query, wall};
use crate::history::{Answered, Attempt, Call, Told};
use crate::invariants::{
    bounded_repeats, delete_is_final, exact_schedule, healed, idempotent_create, linearizable, never_early, no_ghosts,
    no_loss, once_when_calm, one_owner, run_count,
};

#[test]
fn a_loss_is_found() {
    let name = no_loss::NAME;
    Sample::shows("a one-shot never fires", name, |run| {
        drop(run.history.attempts.remove(0));
    });
    Sample::shows("a due of a cron task never comes", name, |run| {
        drop(run.history.attempts.remove(3));
    });
    Sample::shows("late without a reason", name, |run| {
        run.history.attempts[4] = attempt(124_000, &cron("cron"), 120_000, 1, 2, 200);
    });
    Sample::shows("late after the healing", name, |run| {
        run.fault(50_000, 70_000);
        run.history.attempts[3] = attempt(81_000, &cron("cron"), 60_000, 1, 1, 200);
    });
    Sample::shows("skipped, though the latest that was missed", name, |run| {
        run.fault(50_000, 70_000);
        run.history.attempts.remove(3);
    });
    Sample::shows("a delete that came too late for an excuse", name, |run| {
        run.history.attempts.remove(0);
        run.history
            .ops
            .push(op(15_000, 15_100, Call::Delete("once".into()), Told::Unknown));
    });
    // Of the same target, without an answer: before the due, and for as long as the run lasts.
    let silent = |at_ms, ended_us| Attempt {
        answered: Answered::Nothing,
        ended_us,
        ..attempt(at_ms, &once("flaky", 40_000), 40_000, 1, 1, 0)
    };
    Sample::shows("left alone by a target that nobody tries any more", name, |run| {
        run.history.attempts.remove(0);
        run.add(silent(1_000, Some(2_000_000)));
    });
    let mut waiting = super::good();
    waiting.history.attempts.remove(0);
    waiting.add(silent(1_000, Some(2_000_000)));
    waiting.add(silent(2_000, None));
    assert!(
        !waiting.breaks().contains(&name),
        "it waits for a place at a silent target"
    );
    let late_but_soon_after = |run: &mut Sample| {
        run.fault(50_000, 70_000);
        run.history.attempts[3] = attempt(79_000, &cron("cron"), 60_000, 1, 1, 200);
    };
    Sample::accepts("soon after the healing", late_but_soon_after);
    let mut deleted = super::good();
    deleted.history.attempts.remove(0);
    deleted
        .history
        .ops
        .push(op(9_000, 15_100, Call::Delete("once".into()), Told::Unknown));
    assert!(!deleted.breaks().contains(&name), "perhaps deleted in time");
}

#[test]
fn an_early_attempt_is_found() {
    let name = never_early::NAME;
    Sample::shows("by the node's clock", name, |run| {
        run.history.attempts[0].node_wall_ms -= 1;
    });
    Sample::shows("by the true clock", name, |run| {
        run.history.attempts[0].at_us -= 1_000_000;
    });
    Sample::accepts("within the clock's error", |run| {
        run.history.skew_ms_max = 1_000;
        run.history.attempts[0].at_us -= 1_000_000;
    });
}

#[test]
fn a_repeat_without_a_fault_is_found() {
    let again = |run: &mut Sample| {
        let mut again = attempt(12_000, &once("once", 10_000), 10_000, 2, 1, 200);
        again.generation = 2;
        run.add(again);
    };
    Sample::shows("another generation repeats", once_when_calm::NAME, again);
    Sample::accepts("around a fault", |run| {
        run.fault(11_000, 11_500);
        again(run);
    });
    Sample::shows("a number is left out", once_when_calm::NAME, |run| {
        run.history.attempts[2].attempt = 3;
    });
    Sample::shows("it begins with the second", once_when_calm::NAME, |run| {
        run.history.attempts[0].attempt = 2;
    });
}

#[test]
fn repeats_beyond_the_policy_are_found() {
    let name = bounded_repeats::NAME;
    let flaky = once("flaky", 40_000);
    Sample::shows("more than the policy", name, |run| {
        run.add(attempt(50_000, &flaky, 40_000, 3, 1, 500));
        run.add(attempt(60_000, &flaky, 40_000, 4, 1, 500));
    });
    Sample::shows("overlapping", name, |run| {
        run.history.attempts[1].ended_us = Some(46_000_000);
    });
    Sample::shows("overlapping without an end", name, |run| {
        run.history.attempts[1].ended_us = None;
    });
    Sample::shows("the number stands still", name, |run| {
        run.history.attempts[2].attempt = 1;
    });
    Sample::shows("after 2xx", name, |run| {
        run.history.attempts[1].answered = Answered::Status(204);
    });
    Sample::shows("two names of a fire", name, |run| {
        run.history.attempts[2].fire_id = "other".into();
    });
    Sample::shows("one name of two fires", name, |run| {
        run.history.attempts[4].fire_id = "cron-60000".into();
    });
    Sample::accepts("repeated when nobody heard the answer", |run| {
        run.history.attempts[1].answered = Answered::Unheard(200);
    });
}

#[test]
fn an_attempt_after_the_delete_is_found() {
    let name = delete_is_final::NAME;
    let gone = once("gone", 30_000);
    Sample::shows("at its due", name, |run| {
        run.add(attempt(30_000, &gone, 30_000, 1, 1, 200));
    });
    let mut before = super::good();
    before.history.ops[4] = op(29_000, 30_010, Call::Delete("gone".into()), Told::Done);
    before.add(attempt(30_000, &gone, 30_000, 1, 1, 500));
    assert_eq!(before.breaks(), Vec::<&str>::new(), "it had begun before");
}

#[test]
fn an_impossible_answer_is_found() {
    let name = linearizable::NAME;
    Sample::shows("a stale query", name, |run| {
        run.history
            .ops
            .push(op(21_000, 21_100, Call::Query("once".into()), Told::Refused(1008)));
    });
    Sample::shows("a deleted task shows", name, |run| {
        run.history.ops.push(query(6_000, &once("gone", 30_000), 0));
    });
}

#[test]
fn two_tasks_under_one_id_are_found() {
    let name = idempotent_create::NAME;
    Sample::shows("another body", name, |run| run.history.attempts[0].body = "{}".into());
    Sample::shows("another URL", name, |run| {
        run.history.attempts[2].url = "http://ok.test/".into();
    });
    Sample::shows("two contents acknowledged", name, |run| {
        let other = once("once", 11_000);
        run.history.ops.push(op(1_500, 1_600, Call::Create(other), Told::Done));
    });
    Sample::shows("first one, then another of two that may be", name, |run| {
        let other = once("flaky", 41_000);
        run.history.ops[3].told = Told::Unknown;
        run.history
            .ops
            .push(op(4_000, 4_100, Call::Create(other.clone()), Told::Unknown));
        run.history.attempts[2] = attempt(45_000, &other, 41_000, 1, 1, 200);
    });
}

#[test]
fn a_wrong_count_is_found() {
    let name = run_count::NAME;
    Sample::shows("it falls", name, |run| {
        run.history.ops.push(query(145_000, &cron("cron"), 1));
    });
    Sample::shows("nothing was taken yet", name, |run| {
        run.history.ops.push(query(8_000, &once("once", 10_000), 1));
    });
    Sample::shows("a failure is counted", name, |run| {
        run.history.ops.push(query(42_000, &once("flaky", 40_000), 1));
    });
    Sample::shows("a delivery is forgotten", name, |run| {
        run.history.ops[5] = query(20_000, &once("once", 10_000), 0);
    });
    Sample::accepts("a query during the report", |run| {
        run.history.ops.push(query(11_000, &once("once", 10_000), 0));
    });
}

#[test]
fn a_wrong_due_is_found() {
    let name = exact_schedule::NAME;
    Sample::shows("not a due of the line", name, |run| {
        run.history.attempts[3] = attempt(60_500, &cron("cron"), 60_500, 1, 1, 200);
    });
    Sample::shows("a run is counted twice", name, |run| run.history.attempts[4].run = 3);
    Sample::shows("all runs are too high", name, |run| {
        run.history.attempts[3].run = 2;
        run.history.attempts[4].run = 3;
    });
    Sample::shows("a run too high for the first", name, |run| {
        run.nodes.clear();
        run.history.attempts[3].run = 4;
        run.history.attempts[4].run = 5;
    });
    Sample::shows("before the creation", name, |run| {
        run.add(attempt(2_500, &cron("cron"), 0, 1, 1, 200));
    });
}

#[test]
fn two_owners_are_found() {
    let name = one_owner::NAME;
    Sample::shows("another node", name, |run| run.history.attempts[1].node = 1);
    Sample::shows("another run of the node", name, |run| {
        run.history.attempts[3].run_of_node = 2;
    });
    Sample::shows("two leaders in the states", name, |run| {
        run.nodes[1].groups[0].leader = Some(8);
    });
}

#[test]
fn a_cluster_that_does_not_heal_is_found() {
    let name = healed::NAME;
    let create = |at_ms, told| op(at_ms, at_ms + 100, Call::Create(once("late", 900_000)), told);
    Sample::shows("a call without an answer", name, |run| {
        run.history.ops.push(create(140_000, Told::Unknown));
    });
    Sample::shows("a node that answers nothing", name, |run| {
        run.fault(100_000, 125_000);
        let mut silent = create(136_000, Told::Refused(1004));
        silent.node = 1;
        run.history.ops.push(silent);
    });
    Sample::accepts("soon after the healing", |run| {
        run.fault(100_000, 130_000);
        run.history.ops.push(create(135_000, Told::Unknown));
    });
}

#[test]
fn a_ghost_is_found() {
    let name = no_ghosts::NAME;
    Sample::shows("nobody created it", name, |run| {
        run.add(attempt(70_000, &once("ghost", 70_000), 70_000, 1, 1, 200));
    });
    Sample::shows("its create was refused", name, |run| {
        run.add(attempt(70_000, &once("ghost", 70_000), 70_000, 1, 1, 200));
        run.history.ops.push(op(
            9_000,
            9_100,
            Call::Create(once("ghost", 70_000)),
            Told::Refused(1009),
        ));
    });
    Sample::shows("before it was created", name, |run| {
        run.add(attempt(70_000, &once("ghost", 70_000), 70_000, 1, 1, 200));
        run.history
            .ops
            .push(op(71_000, 71_100, Call::Create(once("ghost", 70_000)), Told::Unknown));
    });
    Sample::shows("stored, though its create was refused", name, |run| {
        run.history.ops[2].told = Told::Refused(1009);
    });
    assert_eq!(wall(0) % 60_000, 0, "the sample's dues are whole minutes");
}

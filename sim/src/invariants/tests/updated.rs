//! Tasks that are updated, and those that are delivered at most once.

use xcron::core::task::{Claim, Verdict};

use super::{Sample, attempt, cron, once, op, outcome, query, spec, wall};
use crate::history::{Answered, Attempt, Call, Task, Told};
use crate::invariants::{
    acked_survives, at_most_once, bounded_repeats, full_accounting, linearizable, no_loss, run_count, update_is_atomic,
};

/// What "once" becomes by an update at 6 s, instead of its due at 10 s.
fn moved() -> Task {
    Task {
        url: "http://ok.test/moved".into(),
        body: "{\"moved\":true}".into(),
        ..once("once", 20_000)
    }
}

fn update(from_ms: u64, task: Task, told: Told) -> crate::history::Op {
    let replaces = None;
    op(from_ms, from_ms + 100, Call::Update { task, replaces }, told)
}

/// The good run, but that "once" was moved to 20 s, and fired there.
fn with_update(run: &mut Sample) {
    run.history.ops.insert(5, update(6_000, moved(), Told::Done));
    run.history.attempts[0] = attempt(20_000, &moved(), 20_000, 1, 2, 200);
    let place = run.history.ops.iter().position(|op| matches!(op.told, Told::Shown(_)));
    run.history.ops[place.expect("a query")] = query(25_000, &moved(), 1);
    run.change("once", |(stored, state)| {
        let mut new = spec(&moved(), 1_050);
        new.revision = 2;
        *stored = Some(new);
        state.revision = 2;
        state.dues_past = 2;
        state.cancelled = 1;
        state.outcomes = vec![
            outcome(10_000, 0, Verdict::Cancelled),
            outcome(20_000, 1, Verdict::Delivered),
        ];
    });
}

fn shows(what: &str, invariant: &str, spoil: impl FnOnce(&mut Sample)) {
    Sample::shows(what, invariant, |run| {
        with_update(run);
        spoil(run);
    });
}

#[test]
fn an_update_is_accepted() {
    Sample::accepts("as it should be", with_update);
    Sample::accepts("on its way when the update was acknowledged", |run| {
        with_update(run);
        run.history.ops[5] = update(9_950, moved(), Told::Done);
        run.add(attempt(10_001, &once("once", 10_000), 10_000, 1, 1, 200));
    });
}

#[test]
fn a_mixture_and_an_attempt_that_comes_late_are_found() {
    let name = update_is_atomic::NAME;
    shows("the old due with the new body", name, |run| {
        run.add(attempt(10_000, &moved(), 10_000, 1, 1, 200));
    });
    shows("the new due with the old body", name, |run| {
        run.history.attempts[0] = attempt(20_000, &once("once", 10_000), 20_000, 1, 2, 200);
    });
    shows("the old one after the update", name, |run| {
        run.add(attempt(10_000, &once("once", 10_000), 10_000, 1, 1, 200));
    });
    Sample::shows("a due that a new crontab line has not", name, |run| {
        let mut hourly = cron("cron");
        hourly.body = "{}".into();
        hourly.when = crate::history::When::Cron {
            line: "@hourly".into(),
            zone: "UTC".into(),
        };
        run.history.ops.push(update(50_000, hourly.clone(), Told::Unknown));
        run.add(attempt(120_001, &hourly, 120_000, 1, 2, 200));
    });
}

#[test]
fn what_was_updated_is_lost_and_stored_and_counted_like_any_other() {
    shows("the new due never comes", no_loss::NAME, |run| {
        drop(run.history.attempts.remove(0));
    });
    shows("the old content is stored", acked_survives::NAME, |run| {
        run.change("once", |(stored, _)| *stored = Some(spec(&once("once", 10_000), 1_050)));
    });
    shows("the old content is shown", linearizable::NAME, |run| {
        run.history.ops.push(query(60_000, &once("once", 10_000), 1));
    });
    shows("a delivery is not counted", run_count::NAME, |run| {
        run.change("once", |(_, state)| state.delivered = 0);
    });
    shows("a due is nothing", full_accounting::NAME, |run| {
        run.change("once", |(_, state)| state.cancelled = 0);
    });
    shows("two names of one fire", bounded_repeats::NAME, |run| {
        let mut again = attempt(25_000, &moved(), 20_000, 2, 2, 200);
        again.fire_id = "another".into();
        run.add(again);
    });
}

/// The good run, but that "flaky" is delivered at most once, and its first attempt is the last.
fn with_once(run: &mut Sample) {
    let is_its = |task: &Task| task.id == "flaky";
    for op in &mut run.history.ops {
        match &mut op.call {
            Call::Create(task) if is_its(task) => task.at_most_once = true,
            _ => {}
        }
        match &mut op.told {
            Told::Shown(shown) if shown.url.ends_with("flaky") => shown.run_count = 0,
            _ => {}
        }
    }
    run.history.attempts.remove(2);
    run.change("flaky", |(stored, state)| {
        let mut task = once("flaky", 40_000);
        task.at_most_once = true;
        *stored = Some(spec(&task, 4_050));
        (state.delivered, state.failed) = (0, 1);
        state.outcomes = vec![outcome(40_000, 1, Verdict::Failed)];
    });
}

#[test]
fn a_second_attempt_is_found() {
    Sample::accepts("one attempt", with_once);
    Sample::shows("a retry", at_most_once::NAME, |run| {
        with_once(run);
        run.add(attempt(45_000, &once("flaky", 40_000), 40_000, 2, 1, 200));
    });
    Sample::shows("a repeat by another leader", at_most_once::NAME, |run| {
        with_once(run);
        run.fault(39_000, 41_000);
        let mut again = attempt(45_000, &once("flaky", 40_000), 40_000, 1, 1, 200);
        again.generation = 2;
        run.add(again);
    });
    // On a connection that the target had closed: nobody has it, but nobody could know.
    let lost = |is_sent| {
        move |run: &mut Sample| {
            with_once(run);
            run.add(Attempt {
                is_sent,
                answered: Answered::Lost,
                ..attempt(35_000, &once("flaky", 40_000), 40_000, 1, 1, 0)
            });
        }
    };
    Sample::shows("a repeat of one that was sent and lost", at_most_once::NAME, lost(true));
    let mut unsent = super::good();
    lost(false)(&mut unsent);
    assert!(
        !unsent.breaks().contains(&at_most_once::NAME),
        "one without a connection has not begun"
    );
}

#[test]
fn what_may_be_delivered_once_is_not_lost_in_quiet_times() {
    let unknown = |run: &mut Sample| {
        with_once(run);
        run.history.attempts.remove(1);
        run.change("flaky", |(_, state)| {
            (state.failed, state.skipped) = (0, 1);
            state.outcomes = vec![outcome(40_000, 1, Verdict::Skipped)];
        });
    };
    Sample::shows("without a fault", no_loss::NAME, unknown);
    Sample::accepts("its leader died", |run| {
        unknown(run);
        run.fault(40_000, 41_000);
    });
}

#[test]
fn a_claim_that_nobody_ends_is_found() {
    Sample::shows("it waits for ever", full_accounting::NAME, |run| {
        run.change("cron", |(_, state)| {
            state.delivered -= 1;
            state.outcomes.truncate(1);
            state.claim = Some(Claim {
                due_ms: wall(120_000),
                run: 2,
                generation: 1,
                at_ms: wall(120_001),
                attempts: 0,
            });
        });
    });
}

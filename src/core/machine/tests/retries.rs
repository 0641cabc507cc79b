//! What becomes of a fire whose attempt has failed: of a claimed one only if no byte was sent, and beside many others.

use super::*;

fn unsent(attempt: u16, result: AttemptResult) -> Settle {
    Settle {
        is_sent: false,
        reason: Reason::None(crate::core::reason::NoAnswer::Refused),
        ..settle("a", attempt, result)
    }
}

fn claim_of(attempt: u16) -> Op<'static> {
    Op::Claim(ClaimFire {
        attempt,
        ..claim("a", 1)
    })
}

#[test]
fn a_claimed_fire_that_was_sent_is_never_tried_again() {
    let model = led_with_task();
    model.one(claim_of(1));
    let retry = settle("a", 1, AttemptResult::Retry { at_ms: 500 });
    assert_eq!(model.one(Op::Settle(retry)), Reply::Done);
    let task = model.task("a");
    assert_eq!((task.failed, task.open.len(), task.life), (1, 0, Life::Finished));
    assert_eq!((task.outcomes[0].attempts, task.outcomes[0].is_sent), (1, true));
    model.check();
}

#[test]
fn a_claimed_fire_of_which_no_byte_was_sent_is_claimed_again_for_each_try() {
    let model = led_with_task();
    let refused = Op::Settle(unsent(1, AttemptResult::Retry { at_ms: 500 }));
    model.one(claim_of(1));
    assert_eq!(model.one(refused.clone()), Reply::Done);
    let open = model.task("a").open;
    assert_eq!((open.len(), open[0].attempts, open[0].is_sent), (1, 1, false));
    assert_eq!(open[0].reason.name(), "refused");
    model.check();
    assert_eq!(model.one(claim_of(1)), Reply::Repeat, "a late try of the first claim");
    assert_eq!(model.one(claim_of(2)), Reply::Done);
    assert_eq!(model.task("a").claim.map(|claim| claim.attempts), Some(1));
    assert_eq!(
        model.one(refused),
        Reply::Repeat,
        "a late try of the first report does not give the second claim back"
    );
    assert!(model.task("a").claim.is_some());
    let sent = settle("a", 2, AttemptResult::Retry { at_ms: 900 });
    assert_eq!(model.one(Op::Settle(sent)), Reply::Done);
    let task = model.task("a");
    assert_eq!(
        (task.failed, task.outcomes[0].attempts, task.life),
        (1, 2, Life::Finished)
    );
    model.check();
}

#[test]
fn a_due_beside_as_many_open_fires_as_may_be_ends_alone() {
    let model = led_with_task();
    let first = |due_ms: u64, result| {
        Op::Settle(Settle {
            due_ms,
            expected_ms: due_ms,
            next_due_ms: Some(due_ms + 100),
            ..settle("a", 1, result)
        })
    };
    let count = OPEN_FIRES_MAX as u64;
    for n in 1..=count {
        assert_eq!(
            model.one(first(100 * n, AttemptResult::Retry { at_ms: 9_000 + n })),
            Reply::Done
        );
    }
    let before = model.task("a").open;
    let skipped = Op::Settle(Settle {
        reason: Reason::Overlap,
        is_sent: false,
        attempt: 0,
        due_ms: 100 * (count + 1),
        expected_ms: 100 * (count + 1),
        next_due_ms: Some(100 * (count + 2)),
        ..settle("a", 0, AttemptResult::Overlap)
    });
    assert_eq!(model.one(skipped), Reply::Done);
    // No leader reports this; the bound holds all the same.
    let beyond = first(100 * (count + 2), AttemptResult::Retry { at_ms: 9_500 });
    assert_eq!(model.one(beyond), Reply::Done);
    let task = model.task("a");
    assert_eq!(task.open, before, "none of those that wait has ended early");
    let ended: Vec<_> = task
        .outcomes
        .iter()
        .map(|o| (o.verdict, o.reason, o.attempts))
        .collect();
    assert_eq!(
        ended,
        [
            (Verdict::Skipped, Reason::Overlap, 0),
            (Verdict::Failed, Reason::Http(200), 1)
        ]
    );
    model.check();
}

#[test]
fn what_is_cancelled_says_why_and_whether_it_may_have_been_sent() {
    let model = led_with_task();
    model.one(Op::Settle(Settle {
        next_due_ms: Some(200),
        ..unsent(1, AttemptResult::Retry { at_ms: 500 })
    }));
    model.one(Op::Claim(ClaimFire {
        due_ms: 200,
        expected_ms: 200,
        next_due_ms: Some(300),
        ..claim("a", 1)
    }));
    model.one(Op::Delete {
        key: key("a"),
        at_ms: 250,
        expire_ms: 900,
    });
    let task = model.task("a");
    let ended: Vec<_> = task
        .outcomes
        .iter()
        .map(|o| (o.due_ms, o.reason, o.attempts, o.is_sent))
        .collect();
    assert_eq!(
        ended,
        [
            (100, Reason::Deleted, 1, false),
            (200, Reason::Deleted, 1, true),
            (300, Reason::Deleted, 0, false)
        ]
    );
    model.check();
}

//! The oracle is checked: what each rule must catch, and what it must let pass.

use bytes::Bytes;
use hyper::HeaderMap;
use serde_json::Value;

use super::{Known, Oracle, Verdict};
use crate::harness::client::Told;
use crate::harness::sink::Arrival;

/// Far in the future of every call of these tests, so that all of them count as made before it.
const DUE_MS: u64 = 9_000_000_000_000;

fn done() -> Told {
    Told::Done(Value::Null)
}

/// An oracle that knows one acknowledged task, "t".
fn oracle() -> Oracle {
    let oracle = Oracle::default();
    oracle.creating("t", DUE_MS, "/ok", "{}");
    oracle.created("t", &done());
    oracle
}

fn arrival(after_due_ms: i64, generation: u64) -> Arrival {
    Arrival {
        path: "/ok".to_owned(),
        task: "t".to_owned(),
        fire: "f".to_owned(),
        due_ms: DUE_MS,
        attempt: 1,
        generation,
        at_ms: DUE_MS.saturating_add_signed(after_due_ms),
        headers: HeaderMap::new(),
        body: Bytes::from_static(b"{}"),
    }
}

#[track_caller]
fn violates(verdict: &Verdict, what: &str) {
    let found = &verdict.violations;
    assert!(
        found.len() == 1 && found[0].contains(what),
        "{what} is not all of {found:?}"
    );
}

#[test]
fn what_is_promised_passes() {
    let verdict = oracle().judge(&[arrival(7, 1)]);
    assert_eq!(verdict.violations, Vec::<String>::new());
    assert_eq!((verdict.acked, verdict.repeats, verdict.silence_ms_max), (1, 0, 7));
}

#[test]
fn what_breaks_a_promise_is_told() {
    violates(&oracle().judge(&[]), "lost");
    violates(&oracle().judge(&[arrival(-1, 1)]), "early");
    let mut altered = arrival(1, 1);
    altered.body = Bytes::from_static(b"{ }");
    violates(&oracle().judge(&[altered]), "altered");
    let mut strange = arrival(1, 1);
    strange.task = "u".to_owned();
    violates(&oracle().judge(&[arrival(1, 1), strange]), "nobody created it");
    let mut other = arrival(2, 2);
    other.fire = "g".to_owned();
    violates(&oracle().judge(&[arrival(1, 1), other]), "two fires");

    let refused = Oracle::default();
    refused.creating("t", DUE_MS, "/ok", "{}");
    refused.created("t", &Told::Refused(1009, String::new()));
    violates(&refused.judge(&[arrival(1, 1)]), "must not arrive");

    let deleted = oracle();
    deleted.deleting("t");
    deleted.deleted("t", &done());
    violates(&deleted.judge(&[arrival(1, 1)]), "must not arrive");
    assert!(deleted.is_deleted("t") && !oracle().is_deleted("t"));
    // A delete that is acknowledged before the due forbids the attempt on any node, also on one that stood still.
    deleted.paused(DUE_MS, DUE_MS + 10);
    violates(&deleted.judge(&[arrival(20, 1)]), "must not arrive");
}

#[test]
fn an_owner_makes_one_attempt_and_another_owner_needs_a_reason() {
    violates(&oracle().judge(&[arrival(1, 4), arrival(2, 4)]), "the same owner");
    let quiet = oracle().judge(&[arrival(1, 4), arrival(2, 5)]);
    assert_eq!((quiet.repeats, quiet.quiet_repeats, quiet.violations.len()), (1, 1, 0));
    let killed = oracle();
    killed.killed(DUE_MS + 5, DUE_MS + 6);
    let verdict = killed.judge(&[arrival(1, 4), arrival(90, 5)]);
    assert_eq!(
        (verdict.repeats, verdict.quiet_repeats, verdict.violations.len()),
        (1, 0, 0)
    );
    assert_eq!(verdict.unrecorded_ms_max, 4);
}

#[test]
fn after_the_delivery_was_shown_only_a_frozen_attempt_may_follow() {
    let settled_at = |after_due_ms: u64| {
        let oracle = oracle();
        oracle.change("t", |entry| entry.settled_ms = Some(DUE_MS + after_due_ms));
        oracle
    };
    let oracle = settled_at(50);
    oracle.killed(DUE_MS + 3, DUE_MS + 4);
    violates(&oracle.judge(&[arrival(1, 4), arrival(90, 5)]), "a query had shown");
    // It stood still from 3 to 80: its attempt of before went out at 90.
    let oracle = settled_at(50);
    oracle.paused(DUE_MS + 3, DUE_MS + 80);
    let verdict = oracle.judge(&[arrival(10, 5), arrival(90, 4)]);
    assert_eq!((verdict.thawed, verdict.violations.len()), (1, 0), "{verdict:?}");
    // It stood still before the due: whatever it began, it began afterwards.
    let oracle = settled_at(50);
    oracle.paused(DUE_MS - 9, DUE_MS + 80);
    violates(&oracle.judge(&[arrival(10, 5), arrival(90, 4)]), "a query had shown");
}

#[test]
fn an_unknown_call_promises_nothing() {
    let oracle = Oracle::default();
    oracle.creating("t", DUE_MS, "/ok", "{}");
    oracle.created("t", &Told::Unknown("cut".to_owned()));
    for arrivals in [&[][..], &[arrival(1, 1)]] {
        let verdict = oracle.judge(arrivals);
        assert_eq!((verdict.unknown, verdict.violations.len()), (1, 0));
    }
    assert_eq!(oracle.unknown_due_after(DUE_MS - 1), ["t"]);
    assert_eq!(oracle.unknown_due_after(DUE_MS), Vec::<String>::new());
    assert_eq!(Known::from(&Told::Refused(1008, String::new())), Known::Refused);
}

#[test]
fn repeats_of_crontab_tasks_are_judged_due_by_due() {
    let next = |after_due_ms: i64, generation: u64| Arrival {
        due_ms: DUE_MS + 60_000,
        fire: "g".to_owned(),
        ..arrival(60_000 + after_due_ms, generation)
    };
    let oracle = Oracle::default();
    let verdict = oracle.judge_periodic(&[arrival(5, 1), next(5, 1)]);
    assert_eq!(
        (verdict.repeats, verdict.quiet_repeats),
        (0, 0),
        "two dues are no repeat"
    );
    violates(&oracle.judge_periodic(&[next(-1, 1)]), "early");
    violates(&oracle.judge_periodic(&[arrival(5, 1), arrival(9, 1)]), "same owner");
    assert_eq!(oracle.judge_periodic(&[arrival(5, 1), arrival(9, 2)]).quiet_repeats, 1);
    oracle.killed(DUE_MS + 8, DUE_MS + 9);
    let verdict = oracle.judge_periodic(&[arrival(5, 1), arrival(10, 2)]);
    assert_eq!(
        (verdict.repeats, verdict.quiet_repeats, verdict.unrecorded_ms_max),
        (1, 0, 3)
    );
}

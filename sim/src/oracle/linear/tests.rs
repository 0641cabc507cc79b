//! Histories whose verdict is known, and agreement with a checker that tries every order.

use proptest::prelude::*;

use super::check;
use crate::history::{Call, Op, Shown, Task, Told, When};

pub(super) const DONE: Told = Told::Done;
pub(super) const NOT_FOUND: Told = Told::Refused(1008);
const TAKEN: Told = Told::Refused(1012);

pub(super) fn task(content: u64) -> Task {
    Task {
        id: "a".into(),
        when: When::Once(content),
        url: "http://ok.test/".into(),
        body: "{\"b\":1, \"a\":2}".into(),
        at_most_once: false,
    }
}

pub(super) fn op(from_us: u64, to_us: u64, call: Call, told: Told) -> Op {
    Op {
        client: 0,
        node: 0,
        call,
        from_us,
        to_us,
        told,
    }
}

pub(super) fn create(from: u64, to: u64, content: u64, told: Told) -> Op {
    op(from, to, Call::Create(task(content)), told)
}

pub(super) fn delete(from: u64, to: u64, told: Told) -> Op {
    op(from, to, Call::Delete("a".into()), told)
}

pub(super) fn query(from: u64, to: u64, told: Told) -> Op {
    op(from, to, Call::Query("a".into()), told)
}

pub(super) fn shown(content: u64) -> Told {
    Told::Shown(Shown {
        format: content.to_string(),
        url: "http://ok.test/".into(),
        body: "{\"a\":2,\"b\":1}".into(),
        run_count: 0,
        revision: None,
    })
}

fn judge(ops: &[Op]) -> Result<(), String> {
    check(&ops.iter().collect::<Vec<_>>())
}

#[test]
fn good_histories() {
    for ops in [
        vec![],
        vec![query(0, 1, NOT_FOUND), delete(2, 3, NOT_FOUND)],
        vec![
            create(0, 1, 1, DONE),
            create(2, 3, 1, DONE),
            create(4, 5, 2, TAKEN),
            query(6, 7, shown(1)),
        ],
        vec![
            create(0, 1, 1, DONE),
            delete(2, 3, DONE),
            create(4, 5, 1, TAKEN),
            delete(6, 7, DONE),
            query(8, 9, NOT_FOUND),
        ],
        // An unknown create is seen, then not: only after an unknown delete.
        vec![
            create(0, 1, 1, Told::Unknown),
            query(2, 3, NOT_FOUND),
            query(4, 5, shown(1)),
            delete(6, 7, Told::Unknown),
            query(8, 9, NOT_FOUND),
        ],
        // All at once.
        vec![
            create(0, 9, 1, DONE),
            delete(0, 9, DONE),
            query(0, 9, shown(1)),
            query(0, 9, NOT_FOUND),
        ],
        // A refusal that says nothing of the task.
        vec![create(0, 1, 1, Told::Refused(1002)), query(2, 3, NOT_FOUND)],
        // Created and deleted within one call's time: every query may find nothing.
        vec![
            create(0, 9, 1, DONE),
            query(1, 2, NOT_FOUND),
            delete(3, 12, DONE),
            query(10, 11, NOT_FOUND),
        ],
    ] {
        assert_eq!(judge(&ops), Ok(()));
    }
}

#[test]
fn bad_histories() {
    for ops in [
        vec![query(0, 1, shown(1))],
        vec![create(0, 1, 1, DONE), query(1, 2, NOT_FOUND)],
        vec![create(0, 1, 1, DONE), delete(2, 3, NOT_FOUND)],
        vec![create(0, 1, 1, DONE), query(2, 3, shown(2))],
        vec![create(0, 1, 1, DONE), create(2, 3, 2, DONE)],
        vec![create(0, 1, 1, DONE), create(2, 3, 1, TAKEN)],
        vec![create(0, 1, 1, DONE), delete(2, 3, DONE), query(4, 5, shown(1))],
        vec![create(0, 1, 1, DONE), delete(2, 3, DONE), create(4, 5, 1, DONE)],
        // Seen, lost, and seen again.
        vec![
            create(0, 1, 1, Told::Unknown),
            query(2, 3, shown(1)),
            query(4, 5, NOT_FOUND),
        ],
        vec![
            create(0, 1, 1, DONE),
            delete(2, 3, Told::Unknown),
            query(4, 5, NOT_FOUND),
            query(6, 7, shown(1)),
        ],
        vec![delete(0, 1, Told::Unknown), create(2, 3, 1, TAKEN)],
        vec![
            create(0, 1, 1, DONE),
            query(2, 3, NOT_FOUND),
            query(4, 5, shown(1)),
            delete(6, 7, DONE),
        ],
        // A repetition after its time is told so only if the task is not there.
        vec![create(0, 1, 1, DONE), create(2, 3, 1, Told::Refused(1002))],
    ] {
        let verdict = judge(&ops);
        assert!(verdict.is_err(), "{ops:?}");
    }
}

#[test]
fn a_complaint_names_the_calls() {
    let complaint = judge(&[create(0, 1_000, 1, DONE), query(2_000, 3_000, NOT_FOUND)]).expect_err("lost");
    assert!(
        complaint.contains("2.000..3.000 ms") && complaint.contains("0.000..1.000 ms"),
        "{complaint}"
    );
}

/// Absent, present with a content, or deleted.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Absent,
    Present(u64),
    Deleted,
}

fn content(task: &Task) -> u64 {
    match task.when {
        When::Once(content) => content,
        When::Cron { .. } => unreachable!("these tests have one-shots only"),
    }
}

fn apply(state: State, call: &Call) -> (Told, State) {
    match (call, state) {
        (Call::Create(task), State::Absent) => (DONE, State::Present(content(task))),
        (Call::Create(task), State::Present(present)) if content(task) == present => (DONE, state),
        (Call::Create(_), _) => (TAKEN, state),
        (Call::Delete(_), State::Absent) | (Call::Query(_), State::Absent | State::Deleted) => (NOT_FOUND, state),
        (Call::Delete(_), _) => (DONE, State::Deleted),
        (Call::Query(_), State::Present(present)) => (shown(present), state),
        (Call::Update { .. } | Call::Show(_), _) => unreachable!("these are searched: search/tests.rs"),
    }
}

/// Tries every order, and for calls of unknown outcome also to leave them out.
fn is_possible(left: &[&Op], state: State) -> bool {
    let is_open = |op: &Op| op.told == Told::Unknown;
    if left.iter().all(|op| is_open(op)) {
        return true;
    }
    (0..left.len()).any(|place| {
        let op = left[place];
        if left.iter().any(|other| !is_open(other) && other.to_us <= op.from_us) {
            return false;
        }
        let rest: Vec<&Op> = left
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != place)
            .map(|(_, op)| *op)
            .collect();
        let (told, next) = apply(state, &op.call);
        (is_open(op) || told == op.told) && is_possible(&rest, next)
    })
}

fn any_op() -> impl Strategy<Value = Op> {
    let call = prop_oneof![
        (1..3_u64).prop_map(|content| Call::Create(task(content))),
        Just(Call::Delete("a".into())),
        Just(Call::Query("a".into())),
    ];
    (0..12_u64, 1..6_u64, call, 0..3_usize).prop_map(|(from, takes, call, told)| {
        let answers = match call {
            Call::Create(_) => [DONE, TAKEN, Told::Unknown],
            Call::Delete(_) => [DONE, NOT_FOUND, Told::Unknown],
            Call::Query(_) | Call::Show(_) | Call::Update { .. } => [shown(1), NOT_FOUND, shown(2)],
        };
        op(from, from + takes, call, answers[told].clone())
    })
}

pub(super) fn any_history() -> impl Strategy<Value = Vec<Op>> {
    proptest::collection::vec(any_op(), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_search_of_all_orders(ops in any_history()) {
        let all: Vec<&Op> = ops.iter().collect();
        prop_assert_eq!(check(&all).is_ok(), is_possible(&all, State::Absent));
    }
}

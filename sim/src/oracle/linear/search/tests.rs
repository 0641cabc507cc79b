//! Histories with updates whose verdict is known, and agreement with the other judgement where there are none.

use proptest::prelude::*;

use super::super::tests::{DONE, NOT_FOUND, any_history, create, delete, op, query, shown, task};
use super::check;
use crate::history::{Call, Op, Told};

const OUTDATED: Told = Told::Refused(412);

fn update(from: u64, to: u64, content: u64, replaces: Option<u32>, told: Told) -> Op {
    let task = task(content);
    op(from, to, Call::Update { task, replaces }, told)
}

fn show(from: u64, to: u64, content: u64, revision: u32) -> Op {
    let Told::Shown(mut seen) = shown(content) else {
        unreachable!("it is shown")
    };
    seen.revision = Some(revision);
    op(from, to, Call::Show("a".into()), Told::Shown(seen))
}

fn judge(ops: &[Op]) -> Result<(), String> {
    check(&ops.iter().collect::<Vec<_>>())
}

#[test]
fn good_histories() {
    for ops in [
        vec![
            create(0, 1, 1, DONE),
            update(2, 3, 2, None, DONE),
            query(4, 5, shown(2)),
            show(6, 7, 2, 2),
            update(8, 9, 1, Some(1), OUTDATED),
            update(10, 11, 2, None, DONE),
            update(12, 13, 2, Some(1), DONE),
            show(14, 15, 2, 2),
        ],
        vec![
            update(0, 1, 1, None, NOT_FOUND),
            create(2, 3, 1, DONE),
            show(4, 5, 1, 1),
        ],
        vec![
            create(0, 1, 1, DONE),
            update(2, 3, 2, None, Told::Unknown),
            query(4, 5, shown(1)),
            query(6, 7, shown(2)),
        ],
        vec![
            create(0, 1, 1, DONE),
            update(2, 9, 2, Some(1), DONE),
            update(3, 8, 3, Some(1), OUTDATED),
            delete(10, 11, DONE),
            update(12, 13, 3, Some(2), NOT_FOUND),
        ],
        vec![
            create(0, 1, 1, DONE),
            update(2, 9, 2, None, DONE),
            update(2, 9, 3, None, DONE),
            show(10, 11, 2, 3),
        ],
    ] {
        assert_eq!(judge(&ops), Ok(()), "{ops:#?}");
    }
}

#[test]
fn bad_histories() {
    for (what, ops) in [
        (
            "an update is undone by one that comes late",
            vec![
                create(0, 1, 1, DONE),
                update(2, 9, 2, None, DONE),
                query(3, 4, shown(2)),
                update(5, 6, 3, None, DONE),
                query(7, 8, shown(2)),
            ],
        ),
        (
            "an acknowledged update is not seen",
            vec![
                create(0, 1, 1, DONE),
                update(2, 3, 2, None, DONE),
                query(4, 5, shown(1)),
            ],
        ),
        (
            "two replace the same revision",
            vec![
                create(0, 1, 1, DONE),
                update(2, 9, 2, Some(1), DONE),
                update(2, 9, 3, Some(1), DONE),
            ],
        ),
        (
            "a task that was not there",
            vec![update(0, 1, 1, None, DONE), create(2, 3, 1, DONE)],
        ),
        (
            "one that is gone",
            vec![create(0, 1, 1, DONE), delete(2, 3, DONE), update(4, 5, 2, None, DONE)],
        ),
        (
            "refused for nothing",
            vec![create(0, 1, 1, DONE), update(2, 3, 2, Some(1), OUTDATED)],
        ),
        (
            "a revision that cannot be",
            vec![create(0, 1, 1, DONE), update(2, 3, 2, None, DONE), show(4, 5, 2, 3)],
        ),
        (
            "not found between",
            vec![
                create(0, 1, 1, DONE),
                update(2, 3, 2, None, NOT_FOUND),
                query(4, 5, shown(1)),
            ],
        ),
    ] {
        assert!(judge(&ops).is_err(), "{what}: {ops:#?}");
    }
}

proptest! {
    #[test]
    fn both_judgements_agree_where_there_is_no_update(ops in any_history()) {
        let all: Vec<&Op> = ops.iter().collect();
        prop_assert_eq!(check(&all).is_ok(), super::super::check(&all).is_ok());
    }
}

//! The window against a model of the due index.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const ENTRY: DueEntry = DueEntry {
    wake: Wake::Fire,
    target: 1,
};

fn key(n: u8) -> TaskKey {
    TaskKey([n; 16])
}

fn refill(window: &mut Window, index: &BTreeMap<Position, DueEntry>, to_ms: u64) {
    if let Some(refill) = window.begin_refill(to_ms) {
        let range = index.range(refill.from..(refill.to_ms, LOWEST_KEY)).take(refill.limit);
        let found: Vec<_> = range.map(|((at, key), entry)| (*at, *key, *entry)).collect();
        window.end_refill(refill, found.into_iter());
    }
}

#[test]
fn an_entry_added_between_begin_and_end_of_a_refill_is_kept() {
    let mut window = Window::new(1, 0, 100);
    let begun = window.begin_refill(1_000).expect("room");
    window.added(500, key(1), ENTRY);
    window.end_refill(begun, Vec::new().into_iter());
    assert_eq!(window.take_due(500, 10), [(500, key(1), ENTRY)]);
}

#[test]
fn an_entry_beyond_the_end_is_left_to_the_scan() {
    let mut window = Window::new(1, 0, 100);
    window.added(5, key(1), ENTRY);
    assert_eq!(window.next_due_ms(), None);
}

#[test]
fn a_deleted_task_does_not_start_and_an_old_leadership_neither() {
    let mut window = Window::new(3, 0, 100);
    let begun = window.begin_refill(10).expect("room");
    window.end_refill(begun, vec![(1, key(1), ENTRY)].into_iter());
    window.take_due(1, 10);
    assert!(window.may_start(key(1), 3));
    assert!(!window.may_start(key(1), 2));
    window.cancelled(key(1));
    assert!(!window.may_start(key(1), 3));
    window.released(key(1), 3, None);
    assert!(!window.may_start(key(1), 3));
}

#[test]
fn a_task_that_comes_up_while_busy_is_looked_at_afterwards() {
    let mut window = Window::new(1, 0, 100);
    let begun = window.begin_refill(10).expect("room");
    window.end_refill(begun, vec![(1, key(1), ENTRY), (2, key(1), ENTRY)].into_iter());
    assert_eq!(window.take_due(5, 10), [(1, key(1), ENTRY)], "one at a time");
    window.released(key(1), 1, None);
    assert_eq!(window.take_due(5, 10), [(2, key(1), ENTRY)]);
    window.released(key(1), 1, Some((9, ENTRY)));
    assert_eq!(window.next_due_ms(), Some(9));
}

#[test]
fn a_straggler_of_a_former_leadership_holds_its_task_back_and_releases_only_itself() {
    let index = BTreeMap::from([((1, key(1)), ENTRY)]);
    let mut first = Window::new(1, 0, 100);
    refill(&mut first, &index, 10);
    first.take_due(5, 10);
    let mut second = Window::new(2, 0, 100);
    second.inherit(first.close());
    refill(&mut second, &index, 10);
    assert_eq!(second.take_due(5, 10), [], "its attempt may be in flight");
    assert!(!second.may_start(key(1), 1) && !second.may_start(key(1), 2));
    second.released(key(1), 1, None);
    assert_eq!(second.take_due(5, 10), [(1, key(1), ENTRY)], "and then it has its turn");
    second.released(key(1), 1, None);
    assert!(
        second.may_start(key(1), 2),
        "another release of the first leadership is none of this one"
    );
    second.cancelled(key(1));
    assert!(!second.may_start(key(1), 2));
}

#[test]
fn what_the_loop_had_ends_with_its_leadership() {
    let expire = DueEntry {
        wake: Wake::Expire,
        target: 0,
    };
    let index = BTreeMap::from([((1, key(1)), expire)]);
    let mut first = Window::new(1, 0, 100);
    refill(&mut first, &index, 10);
    first.take_due(5, 10);
    let mut second = Window::new(2, 0, 100);
    second.inherit(first.close());
    refill(&mut second, &index, 10);
    assert_eq!(second.take_due(5, 10), [(1, key(1), expire)]);
}

#[derive(Clone, Debug)]
enum Step {
    Add(u64, u8),
    Remove(u64, u8),
    Refill(u64),
    Fire(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..50_u64, any::<u8>()).prop_map(|(at, n)| Step::Add(at, n)),
        1 => (0..50_u64, any::<u8>()).prop_map(|(at, n)| Step::Remove(at, n)),
        1 => (0..60_u64).prop_map(Step::Refill),
        1 => (0..50_u64).prop_map(Step::Fire),
    ]
}

proptest! {
    /// Whatever happens, firing everything finds every entry of the index, and memory stays bounded.
    #[test]
    fn nothing_is_lost(steps in proptest::collection::vec(step(), 1..200), max in 4..20_usize) {
        let mut window = Window::new(1, 0, max);
        let mut index = BTreeMap::new();
        for step in steps {
            match step {
                Step::Add(at, n) => {
                    index.insert((at, key(n)), ENTRY);
                    window.added(at, key(n), ENTRY);
                }
                Step::Remove(at, n) => {
                    index.remove(&(at, key(n)));
                    window.removed(at, key(n));
                }
                Step::Refill(to) => refill(&mut window, &index, to),
                Step::Fire(now) => {
                    for (at, key, _) in window.take_due(now, usize::MAX) {
                        index.remove(&(at, key));
                        window.released(key, 1, None);
                    }
                }
            }
            prop_assert!(window.held_entries() <= max, "{} entries held", window.held_entries());
        }
        for _ in 0..1_000 {
            refill(&mut window, &index, 100);
            for (at, key, _) in window.take_due(100, usize::MAX) {
                index.remove(&(at, key));
                window.removed(at, key);
                window.released(key, 1, None);
            }
        }
        prop_assert!(index.is_empty(), "left behind: {index:?}");
    }
}

//! The window against a model of the due index.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::core::target::Target;

const ENTRY: DueEntry = DueEntry {
    wake: Wake::Fire,
    target: Target([1; 16]),
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
    window.released(key(1), 3, Next::Nothing);
    assert!(!window.may_start(key(1), 3));
}

#[test]
fn a_task_that_comes_up_while_busy_is_looked_at_afterwards() {
    let mut window = Window::new(1, 0, 100);
    let begun = window.begin_refill(10).expect("room");
    window.end_refill(begun, vec![(1, key(1), ENTRY), (2, key(1), ENTRY)].into_iter());
    assert_eq!(window.take_due(5, 10), [(1, key(1), ENTRY)], "one at a time");
    window.released(key(1), 1, Next::Nothing);
    assert_eq!(window.take_due(5, 10), [(2, key(1), ENTRY)]);
    window.released(key(1), 1, Next::PutBack(vec![(9, ENTRY)]));
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
    second.released(key(1), 1, Next::Nothing);
    assert_eq!(second.take_due(5, 10), [(1, key(1), ENTRY)], "and then it has its turn");
    second.released(key(1), 1, Next::Nothing);
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
        target: Target([0; 16]),
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

#[test]
fn a_task_that_rests_outlives_a_cut_scan_and_an_overflow() {
    let mut window = Window::new(1, 0, 8);
    let mut index = BTreeMap::from([((1, key(1)), ENTRY)]);
    refill(&mut window, &index, 10);
    assert_eq!(window.take_due(5, 10), [(1, key(1), ENTRY)]);
    window.released(key(1), 1, Next::Rest(500, ENTRY));
    assert_eq!(window.next_due_ms(), Some(500), "the loop wakes for it");
    for n in 2..40 {
        index.insert((u64::from(n), key(n)), ENTRY);
    }
    refill(&mut window, &index, 1_000);
    assert!(window.end < (1_000, LOWEST_KEY), "the scan was cut");
    window.added(10, key(90), ENTRY);
    window.added(10, key(91), ENTRY);
    let taken: Vec<_> = window.take_due(500, 1).into_iter().map(|(_, key, _)| key).collect();
    assert_eq!(taken, [key(1)]);
    assert!(window.may_start(key(1), 1));
}

#[test]
fn a_deleted_task_does_not_rest() {
    let index = BTreeMap::from([((1, key(1)), ENTRY), ((2, key(1)), ENTRY)]);
    let mut window = Window::new(1, 0, 8);
    refill(&mut window, &index, 10);
    window.take_due(5, 10);
    window.released(key(1), 1, Next::Rest(500, ENTRY));
    window.cancelled(key(1));
    assert_eq!(
        window.take_due(500, 10),
        [(2, key(1), ENTRY)],
        "only what the index still has"
    );
    window.cancelled(key(1));
    window.released(key(1), 1, Next::Rest(500, ENTRY));
    assert_eq!(window.next_due_ms(), None);
}

#[test]
fn the_end_never_moves_over_what_was_given_up() {
    let mut window = Window::new(1, 0, 4);
    let begun = window.begin_refill(100).expect("room");
    for n in 1..6 {
        window.added(u64::from(n) * 10, key(n), ENTRY);
    }
    assert_eq!(window.end, (50, key(5)));
    window.end_refill(begun, vec![(70, key(7), ENTRY)].into_iter());
    window.added(5, key(9), ENTRY);
    assert!(window.end <= (50, key(5)), "the entry at 50 is to be scanned again");
}

#[test]
fn a_full_window_has_work_again_once_it_has_room_to_read_on() {
    let mut window = Window::new(1, 0, 8);
    let index: BTreeMap<_, _> = (1..20).map(|n| ((1, key(n)), ENTRY)).collect();
    refill(&mut window, &index, 100);
    assert_eq!(window.take_due(5, 100).len(), 8);
    assert!(!window.has_work(5), "full of what is in flight");
    // It rests: what is known to be due next lies ahead, but the index has more.
    window.released(key(1), 1, Next::Rest(500, ENTRY));
    window.released(key(2), 1, Next::Nothing);
    assert!(!window.has_work(5), "not worth a scan yet");
    window.released(key(3), 1, Next::Nothing);
    assert!(window.has_work(5));
    assert!(window.begin_refill(100).is_some());
}

#[test]
fn the_oldest_unfinished_due_is_known_whoever_has_it() {
    let mut window = Window::new(1, 0, 8);
    assert_eq!(
        window.finished_before_ms(),
        None,
        "nothing is known of an index that was not read"
    );
    let expire = DueEntry {
        wake: Wake::Expire,
        target: Target([0; 16]),
    };
    let index = BTreeMap::from([((1, key(9)), expire), ((3, key(1)), ENTRY), ((7, key(1)), ENTRY)]);
    refill(&mut window, &index, 100);
    assert_eq!(window.finished_before_ms(), Some(3), "waiting");
    window.take_due(10, 10);
    assert_eq!(window.finished_before_ms(), Some(3), "in flight");
    window.released(key(1), 1, Next::Rest(500, ENTRY));
    assert_eq!(window.finished_before_ms(), Some(3), "not recorded");
    window.take_due(500, 10);
    window.removed(3, key(1));
    window.released(key(1), 1, Next::Nothing);
    assert_eq!(window.finished_before_ms(), Some(7), "the next one of the task");
    window.removed(7, key(1));
    assert_eq!(window.finished_before_ms(), Some(100), "up to where the index was read");
}

#[derive(Clone, Debug)]
enum Step {
    Add(u64, u8),
    Remove(u64, u8),
    Refill(u64),
    Fire(u64),
    /// One of those in flight is released: 0 done, 1 put back, else it rests so long.
    Release(usize, u64),
    /// The leadership is lost and won again.
    Flap,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..50_u64, 0..40_u8).prop_map(|(at, n)| Step::Add(at, n)),
        2 => (0..50_u64, 0..40_u8).prop_map(|(at, n)| Step::Remove(at, n)),
        2 => (0..60_u64).prop_map(Step::Refill),
        2 => (0..50_u64).prop_map(Step::Fire),
        4 => (any::<usize>(), 0..60_u64).prop_map(|(which, next)| Step::Release(which, next)),
        1 => Just(Step::Flap),
    ]
}

/// A window with its index and what the dispatcher has of it.
struct World {
    window: Window,
    index: BTreeMap<Position, DueEntry>,
    /// Task and leadership of each.
    in_flight: Vec<(TaskKey, u64)>,
    max: usize,
}

impl World {
    fn fire(&mut self, now_ms: u64) {
        let generation = self.window.generation;
        for (_, key, _) in self.window.take_due(now_ms, usize::MAX) {
            assert!(
                self.in_flight.iter().all(|(busy, _)| *busy != key),
                "attempts of one task overlap"
            );
            assert!(self.window.may_start(key, generation));
            self.in_flight.push((key, generation));
        }
    }

    /// Its entries as the index has them.
    fn entries(&self, of: TaskKey) -> Vec<(u64, DueEntry)> {
        let own = self.index.iter().filter(|((_, key), _)| *key == of);
        own.map(|((at_ms, _), entry)| (*at_ms, *entry)).collect()
    }

    fn release(&mut self, which: usize, next: u64) {
        if self.in_flight.is_empty() {
            return;
        }
        let (key, generation) = self.in_flight.swap_remove(which % self.in_flight.len());
        let next = match next {
            // Its outcome counts only under its own leadership.
            0 if generation == self.window.generation => {
                for (at_ms, _) in self.entries(key) {
                    self.index.remove(&(at_ms, key));
                    self.window.removed(at_ms, key);
                }
                Next::Nothing
            }
            0 => Next::Nothing,
            1 => Next::PutBack(self.entries(key)),
            later => Next::Rest(later, ENTRY),
        };
        self.window.released(key, generation, next);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Add(at, n) => {
                self.index.insert((at, key(n)), ENTRY);
                self.window.added(at, key(n), ENTRY);
            }
            Step::Remove(at, n) => {
                self.index.remove(&(at, key(n)));
                self.window.removed(at, key(n));
            }
            Step::Refill(to) => refill(&mut self.window, &self.index, to),
            Step::Fire(now) => self.fire(now),
            Step::Release(which, next) => self.release(which, next),
            Step::Flap => {
                let next = Window::new(self.window.generation + 1, 0, self.max);
                let dispatched = std::mem::replace(&mut self.window, next).close();
                self.window.inherit(dispatched);
            }
        }
    }
}

/// Whatever happens - also outcomes that cannot be recorded, clocks set back, leaderships that flap - firing everything finds
/// every entry of the index, no attempts of a task overlap, and memory stays bounded.
fn loses_nothing(steps: &[Step], max: usize) {
    let (window, index) = (Window::new(1, 0, max), BTreeMap::new());
    let mut world = World {
        window,
        index,
        in_flight: Vec::new(),
        max,
    };
    for step in steps {
        world.step(step);
        let held = world.window.held_entries();
        assert!(held <= max, "{held} entries held");
    }
    for _ in 0..1_000 {
        refill(&mut world.window, &world.index, 100);
        world.fire(100);
        while !world.in_flight.is_empty() {
            world.release(0, 0);
        }
    }
    assert!(world.index.is_empty(), "left behind: {:?}", world.index);
    assert_eq!(world.window.held_entries(), 0);
}

/// What the property below once found.
#[test]
fn three_entries_of_one_instant_in_a_small_window_are_not_lost() {
    loses_nothing(&[Step::Add(0, 155), Step::Add(1, 155), Step::Add(2, 155)], 4);
}

proptest! {
    #[test]
    fn nothing_is_lost(steps in proptest::collection::vec(step(), 1..300), max in 4..20_usize) {
        loses_nothing(&steps, max);
    }
}

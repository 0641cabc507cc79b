//! The window against a model of the due index.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::lanes::HOUSEKEEPING;
use super::*;

mod many;

const ENTRY: DueEntry = fire_of(1);
const EXPIRE: DueEntry = DueEntry {
    wake: Wake::Expire,
    target: Target([0; 16]),
};

const fn fire_of(target: u8) -> DueEntry {
    DueEntry {
        wake: Wake::Fire,
        target: Target([target; 16]),
    }
}

fn key(n: u8) -> TaskKey {
    TaskKey([n; 16])
}

type Index = BTreeMap<Position, DueEntry>;

fn read(index: &Index, refill: Refill) -> Vec<(u64, TaskKey, DueEntry)> {
    let range = index.range(refill.from..(refill.to_ms, LOWEST_KEY)).take(refill.limit);
    range.map(|((at, key), entry)| (*at, *key, *entry)).collect()
}

fn refill(window: &mut Window, index: &Index, to_ms: u64) {
    if let Some(refill) = window.begin_refill(to_ms) {
        window.end_refill(refill, read(index, refill).into_iter());
    }
}

fn opened(generation: u64, index: &Index, to_ms: u64, max: usize) -> Window {
    let mut window = Window::new(generation, 0, max);
    refill(&mut window, index, to_ms);
    window
}

/// Takes what is due, and begins with it.
fn take(window: &mut Window, now_ms: u64) -> Vec<Ticket> {
    let taken = window.take_due(now_ms, usize::MAX, |_| 100);
    let tickets: Vec<_> = taken.into_iter().map(|(.., ticket)| ticket).collect();
    for ticket in &tickets {
        assert!(window.begin(ticket), "just taken");
    }
    tickets
}

fn keys(tickets: &[Ticket]) -> Vec<TaskKey> {
    tickets.iter().map(|ticket| ticket.key).collect()
}

#[test]
fn an_entry_added_between_begin_and_end_of_a_refill_is_kept() {
    let mut window = Window::new(1, 0, 100);
    let begun = window.begin_refill(1_000).expect("room");
    window.added(500, key(1), ENTRY);
    window.end_refill(begun, Vec::new().into_iter());
    assert_eq!(keys(&take(&mut window, 500)), [key(1)]);
}

#[test]
fn an_entry_beyond_the_end_is_left_to_the_scan() {
    let mut window = Window::new(1, 0, 100);
    window.added(5, key(1), ENTRY);
    assert_eq!(window.next_due_ms(), None);
}

#[test]
fn a_deleted_task_does_not_start_and_an_old_leadership_neither() {
    let mut window = opened(3, &Index::from([((1, key(1)), ENTRY)]), 10, 100);
    let ticket = take(&mut window, 1)[0];
    assert!(window.may_start(&ticket));
    assert!(!window.may_start(&Ticket {
        generation: 2,
        ..ticket
    }));
    window.cancelled(key(1));
    assert!(!window.may_start(&ticket));
    window.released(&ticket, Next::Nothing);
    assert!(!window.may_start(&ticket));
}

#[test]
fn a_task_that_comes_up_while_busy_is_looked_at_afterwards() {
    let index = Index::from([((1, key(1)), ENTRY), ((2, key(1)), ENTRY)]);
    let mut window = opened(1, &index, 10, 100);
    let first = take(&mut window, 5);
    assert_eq!(first.len(), 1, "one at a time");
    window.released(&first[0], Next::Nothing);
    let second = take(&mut window, 5);
    assert_eq!(keys(&second), [key(1)]);
    window.released(&second[0], Next::PutBack(vec![(9, ENTRY)]));
    assert_eq!(window.next_due_ms(), Some(9));
}

#[test]
fn what_waits_in_the_queue_of_a_former_target_is_free_to_go() {
    let mut window = opened(1, &Index::from([((1, key(1)), ENTRY)]), 10, 100);
    let (_, _, queued) = window.take_due(1, 10, |_| 100)[0];
    // The task is updated: the same instant, another target.
    window.cancelled(key(1));
    window.removed(1, key(1), ENTRY);
    window.added(1, key(1), fire_of(2));
    let moved = take(&mut window, 1);
    assert_eq!((moved[0].key, moved[0].target), (key(1), Target([2; 16])));
    assert!(!window.begin(&queued) && !window.may_start(&queued));
    window.released(&queued, Next::Nothing);
    assert!(window.may_start(&moved[0]), "the old ticket releases nothing");
    window.removed(1, key(1), fire_of(2));
    window.released(&moved[0], Next::Nothing);
    assert_eq!((window.held_entries(), window.lanes.count()), (0, 0));
}

#[test]
fn what_had_begun_ends_before_the_new_content_starts() {
    let mut window = opened(1, &Index::from([((1, key(1)), ENTRY)]), 10, 100);
    let begun = take(&mut window, 1)[0];
    window.cancelled(key(1));
    window.removed(1, key(1), ENTRY);
    window.added(2, key(1), fire_of(2));
    assert_eq!(keys(&take(&mut window, 5)), [], "attempts of one task do not overlap");
    window.released(&begun, Next::Nothing);
    assert_eq!(keys(&take(&mut window, 5)), [key(1)]);
}

#[test]
fn a_straggler_of_a_former_leadership_holds_its_task_back_and_releases_only_itself() {
    let index = Index::from([((1, key(1)), ENTRY)]);
    let mut first = opened(1, &index, 10, 100);
    let straggler = take(&mut first, 5)[0];
    let mut second = Window::new(2, 0, 100);
    second.inherit(first.close());
    refill(&mut second, &index, 10);
    assert_eq!(keys(&take(&mut second, 5)), [], "its attempt may be in flight");
    assert!(!second.may_start(&straggler));
    second.released(&straggler, Next::Nothing);
    let own = take(&mut second, 5);
    assert_eq!(keys(&own), [key(1)], "and then it has its turn");
    second.released(&straggler, Next::Nothing);
    assert!(
        second.may_start(&own[0]),
        "another release of the first leadership is none of this one"
    );
    second.cancelled(key(1));
    assert!(!second.may_start(&own[0]));
}

#[test]
fn what_was_only_queued_ends_with_its_leadership() {
    for entry in [ENTRY, EXPIRE] {
        let index = Index::from([((1, key(1)), entry)]);
        let mut first = opened(1, &index, 10, 100);
        let old = first.take_due(5, 10, |_| 100);
        let expired = first.take_expired(5);
        assert_eq!(old.len() + expired.len(), 1);
        let mut second = Window::new(2, 0, 100);
        second.inherit(first.close());
        refill(&mut second, &index, 10);
        assert_eq!(
            take(&mut second, 5).len() + second.take_expired(5).len(),
            1,
            "{entry:?}"
        );
        assert!(old.iter().all(|(.., ticket)| !second.begin(ticket)));
    }
}

#[test]
fn a_task_that_rests_outlives_a_cut_scan_and_an_overflow() {
    let mut index = Index::from([((1, key(1)), ENTRY)]);
    let mut window = opened(1, &index, 10, 8);
    let ticket = take(&mut window, 5)[0];
    window.released(&ticket, Next::Rest(500, ENTRY));
    assert_eq!(window.next_due_ms(), Some(500), "the loop wakes for it");
    for n in 2..40 {
        index.insert((u64::from(n), key(n)), fire_of(n));
    }
    refill(&mut window, &index, 1_000);
    assert!(window.end < (1_000, LOWEST_KEY), "the scan was cut");
    window.added(10, key(90), ENTRY);
    window.added(10, key(91), ENTRY);
    let (_, _, again) = window.take_due(500, 1, |_| 100)[0];
    assert_eq!(again.key, key(1));
    assert!(window.begin(&again) && !window.may_start(&ticket));
}

#[test]
fn a_deleted_task_does_not_rest() {
    let index = Index::from([((1, key(1)), ENTRY), ((2, key(1)), ENTRY)]);
    let mut window = opened(1, &index, 10, 8);
    let first = take(&mut window, 5)[0];
    window.released(&first, Next::Rest(500, ENTRY));
    window.cancelled(key(1));
    let second = take(&mut window, 500);
    assert_eq!(keys(&second), [key(1)], "only what the index still has");
    window.cancelled(key(1));
    window.released(&second[0], Next::Rest(500, ENTRY));
    assert_eq!(window.next_due_ms(), None);
}

#[test]
fn the_end_never_moves_over_what_was_given_up() {
    let mut window = Window::new(1, 0, 4);
    let begun = window.begin_refill(100).expect("room");
    for n in 1..6 {
        window.added(u64::from(n) * 10, key(n), fire_of(n));
    }
    assert_eq!(window.end, (50, key(5)));
    window.end_refill(begun, vec![(70, key(7), ENTRY)].into_iter());
    window.added(5, key(9), fire_of(9));
    assert!(window.end <= (50, key(5)), "the entry at 50 is to be scanned again");
}

#[test]
fn a_full_window_has_work_again_once_it_has_room_to_read_on() {
    let index: Index = (1..20).map(|n| ((1, key(n)), fire_of(n))).collect();
    let mut window = opened(1, &index, 100, 8);
    let taken = take(&mut window, 5);
    assert_eq!(taken.len(), 8);
    assert!(!window.has_work(5), "full of what is in flight");
    // It rests: what is known to be due next lies ahead, but the index has more.
    window.released(&taken[0], Next::Rest(500, ENTRY));
    window.released(&taken[1], Next::Nothing);
    assert!(!window.has_work(5), "not worth a scan yet");
    window.released(&taken[2], Next::Nothing);
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
    let index = Index::from([((1, key(9)), EXPIRE), ((3, key(1)), ENTRY), ((7, key(1)), ENTRY)]);
    refill(&mut window, &index, 100);
    assert_eq!(window.finished_before_ms(), Some(3), "waiting");
    let first = take(&mut window, 10)[0];
    take(&mut window, 10);
    assert_eq!(window.finished_before_ms(), Some(3), "in flight");
    window.released(&first, Next::Rest(500, ENTRY));
    assert_eq!(window.finished_before_ms(), Some(3), "not recorded");
    let again = take(&mut window, 500)[0];
    window.removed(3, key(1), ENTRY);
    window.released(&again, Next::Nothing);
    assert_eq!(window.finished_before_ms(), Some(7), "the next one of the task");
    window.removed(7, key(1), ENTRY);
    assert_eq!(window.finished_before_ms(), Some(100), "up to where the index was read");
}

/// What changes the index.
#[derive(Clone, Copy, Debug)]
enum Change {
    Add(u64, u8, u8),
    Remove(u64, u8),
    /// The task gets this due instead of all others, at another target.
    Update(u64, u8, u8),
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Change(Change),
    /// With what happens between the scan and its end.
    Refill(u64, Option<Change>),
    ReadLanes(Option<Change>),
    Fire(u64),
    Begin(usize),
    /// One of those that were taken is released: 0 done, 1 put back, else it rests so long.
    Release(usize, u64),
    /// The leadership is lost and won again.
    Flap,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (0..50_u64, 0..40_u8, 0..5_u8).prop_map(|(at, n, target)| Change::Add(at, n, target)),
        2 => (0..50_u64, 0..40_u8).prop_map(|(at, n)| Change::Remove(at, n)),
        2 => (0..50_u64, 0..40_u8, 0..5_u8).prop_map(|(at, n, target)| Change::Update(at, n, target)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => change().prop_map(Step::Change),
        2 => (0..60_u64, proptest::option::of(change())).prop_map(|(to, meanwhile)| Step::Refill(to, meanwhile)),
        3 => proptest::option::of(change()).prop_map(Step::ReadLanes),
        2 => (0..50_u64).prop_map(Step::Fire),
        4 => any::<usize>().prop_map(Step::Begin),
        4 => (any::<usize>(), 0..60_u64).prop_map(|(which, next)| Step::Release(which, next)),
        1 => Just(Step::Flap),
    ]
}

/// A window with its index and what the dispatcher has of it.
struct World {
    window: Window,
    index: Index,
    /// What was taken, and whether it has begun.
    taken: Vec<(Ticket, bool)>,
    max: usize,
}

impl World {
    fn put(&mut self, at: u64, n: u8, target: u8) {
        // One in five is housekeeping.
        let entry = if target == 0 { EXPIRE } else { fire_of(target) };
        if let Some(before) = self.index.insert((at, key(n)), entry) {
            self.window.removed(at, key(n), before);
        }
        self.window.added(at, key(n), entry);
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Add(at, n, target) => self.put(at, n, target),
            Change::Remove(at, n) => {
                if let Some(before) = self.index.remove(&(at, key(n))) {
                    self.window.removed(at, key(n), before);
                }
            }
            Change::Update(at, n, target) => {
                self.window.cancelled(key(n));
                for (at, before) in self.entries(key(n)) {
                    self.index.remove(&(at, key(n)));
                    self.window.removed(at, key(n), before);
                }
                self.put(at, n, target);
            }
        }
    }

    fn fire(&mut self, now_ms: u64) {
        let fires = self
            .window
            .take_due(now_ms, usize::MAX, |target| usize::from(target.0[0]));
        self.taken.extend(fires.into_iter().map(|(.., ticket)| (ticket, false)));
        let expired = self.window.take_expired(now_ms);
        self.taken
            .extend(expired.into_iter().map(|(.., ticket)| (ticket, true)));
    }

    fn begin(&mut self, which: usize) {
        let Some(count @ 1..) = Some(self.taken.len()) else {
            return;
        };
        let (ticket, has_begun) = self.taken[which % count];
        if !has_begun && self.window.begin(&ticket) {
            let overlaps = |(other, has_begun): &&(Ticket, bool)| *has_begun && other.key == ticket.key;
            assert_eq!(self.taken.iter().find(overlaps), None, "attempts of one task overlap");
            assert!(self.window.may_start(&ticket));
            self.taken[which % count].1 = true;
        }
    }

    /// Its entries as the index has them.
    fn entries(&self, of: TaskKey) -> Vec<(u64, DueEntry)> {
        let own = self.index.iter().filter(|((_, key), _)| *key == of);
        own.map(|((at_ms, _), entry)| (*at_ms, *entry)).collect()
    }

    fn release(&mut self, which: usize, next: u64) {
        let Some(count @ 1..) = Some(self.taken.len()) else {
            return;
        };
        self.begin(which);
        let (ticket, has_begun) = self.taken.swap_remove(which % count);
        let next = match next {
            // Not begun: it was cancelled, or its leadership is over.
            _ if !has_begun => Next::Nothing,
            // Its outcome counts only under its own leadership, and for the task that it was.
            0 if self.window.may_start(&ticket) => {
                for (at_ms, entry) in self.entries(ticket.key) {
                    self.index.remove(&(at_ms, ticket.key));
                    self.window.removed(at_ms, ticket.key, entry);
                }
                Next::Nothing
            }
            0 => Next::Nothing,
            // An expiration has no rest.
            1 => Next::PutBack(self.entries(ticket.key)),
            _ if ticket.target == HOUSEKEEPING => Next::PutBack(self.entries(ticket.key)),
            later => Next::Rest(later, ENTRY),
        };
        self.window.released(&ticket, next);
    }

    fn refill(&mut self, to_ms: u64, meanwhile: Option<Change>) {
        let Some(mut refill) = self.window.begin_refill(to_ms) else {
            return;
        };
        refill.limit = 5;
        let found = read(&self.index, refill);
        if let Some(change) = meanwhile {
            self.change(change);
        }
        self.window.end_refill(refill, found.into_iter());
    }

    fn read_lanes(&mut self, meanwhile: Option<Change>) {
        let Some(mut refill) = self.window.begin_lanes() else {
            return;
        };
        refill.limit = 5;
        let found = read(&self.index, refill);
        if let Some(change) = meanwhile {
            self.change(change);
        }
        self.window.end_lanes(refill, &found);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Change(change) => self.change(change),
            Step::Refill(to, meanwhile) => self.refill(to, meanwhile),
            Step::ReadLanes(meanwhile) => self.read_lanes(meanwhile),
            Step::Fire(now) => self.fire(now),
            Step::Begin(which) => self.begin(which),
            Step::Release(which, next) => self.release(which, next),
            Step::Flap => {
                let next = Window::new(self.window.generation + 1, 0, self.max);
                let dispatched = std::mem::replace(&mut self.window, next).close();
                self.window.inherit(dispatched);
                // What the loop itself had ends with it.
                self.taken.retain(|(ticket, _)| ticket.target != HOUSEKEEPING);
            }
        }
    }
}

/// Whatever happens - also outcomes that cannot be recorded, clocks set back, leaderships that flap, tasks that move to other
/// targets - firing everything finds every entry of the index, no attempts of a task overlap, and memory stays bounded.
fn loses_nothing(steps: &[Step], max: usize) {
    let (window, index) = (Window::new(1, 0, max), Index::new());
    let mut world = World {
        window,
        index,
        taken: Vec::new(),
        max,
    };
    for step in steps {
        world.step(*step);
        let held = world.window.held_entries();
        assert!(held <= max, "{held} entries held");
    }
    for _ in 0..1_000 {
        world.refill(100, None);
        world.read_lanes(None);
        world.fire(100);
        while !world.taken.is_empty() {
            world.release(0, 0);
        }
    }
    assert!(world.index.is_empty(), "left behind: {:?}", world.index);
    assert_eq!((world.window.held_entries(), world.window.lanes.count()), (0, 0));
}

/// What the property below once found.
#[test]
fn three_entries_of_one_instant_in_a_small_window_are_not_lost() {
    let add = |at, n| Step::Change(Change::Add(at, n, 1));
    loses_nothing(&[add(0, 155), add(1, 155), add(2, 155)], 4);
}

proptest! {
    #[test]
    fn nothing_is_lost(steps in proptest::collection::vec(step(), 1..300), max in 4..20_usize) {
        loses_nothing(&steps, max);
    }
}

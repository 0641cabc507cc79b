//! Backlogs of any size at targets that do not answer, beside targets that do.

use std::collections::BTreeSet;

use super::*;

/// A window of a real size, and rows that are many times more.
const MAX: usize = 512;

fn numbered(n: usize) -> TaskKey {
    let mut key = TaskKey([0; 16]);
    key.0[..8].copy_from_slice(&(n as u64).to_be_bytes());
    key
}

/// Targets up to this number hang.
const HUNG: u8 = 100;

/// A group's loop, with targets that answer between two steps, or never.
struct Loop {
    window: Window,
    index: Index,
    hung: Vec<(u64, DueEntry, Ticket)>,
    /// What the healthy targets got, in order.
    delivered: Vec<Position>,
    rows: usize,
}

impl Loop {
    fn new(index: Index) -> Self {
        Self {
            window: Window::new(1, 0, MAX),
            index,
            hung: Vec::new(),
            delivered: Vec::new(),
            rows: 0,
        }
    }

    /// One round, as `fire/group.rs` makes it.
    fn step(&mut self, now_ms: u64) {
        if let Some(refill) = self.window.begin_refill(now_ms + 1) {
            let found = read(&self.index, refill);
            self.rows += found.len();
            self.window.end_refill(refill, found.into_iter());
        }
        if let Some(refill) = self.window.begin_lanes() {
            let found = read(&self.index, refill);
            self.rows += found.len();
            self.window.end_lanes(refill, &found);
        }
        let is_hung = |target: Target| target.0[0] <= HUNG;
        let taken = self
            .window
            .take_due(now_ms, 256, |target| if is_hung(target) { 1 } else { 8 });
        for (at_ms, entry, ticket) in taken {
            assert!(self.window.begin(&ticket));
            if is_hung(ticket.target) {
                self.hung.push((at_ms, entry, ticket));
            } else {
                self.delivered.push((at_ms, ticket.key));
                self.end(at_ms, entry, &ticket);
            }
        }
        assert!(
            self.window.held_entries() <= MAX,
            "{} are held",
            self.window.held_entries()
        );
    }

    fn end(&mut self, at_ms: u64, entry: DueEntry, ticket: &Ticket) {
        self.index.remove(&(at_ms, ticket.key));
        self.window.removed(at_ms, ticket.key, entry);
        self.window.released(ticket, Next::Nothing);
    }

    /// One attempt at a hung target ends after all, as delivered.
    fn recover(&mut self) {
        let Some((at_ms, entry, ticket)) = self.hung.pop() else {
            return;
        };
        self.end(at_ms, entry, &ticket);
    }
}

/// `backlog` dues of `targets` that hang, in turn, all at the instant 10, housekeeping among them.
fn backlog(backlog: usize, targets: u8) -> Index {
    let entry = |n: usize| match u8::try_from(n % usize::from(targets)).expect("few") {
        0 if targets > 2 => EXPIRE,
        n => fire_of(n + 1),
    };
    (0..backlog).map(|n| ((10, numbered(n)), entry(n))).collect()
}

#[test]
fn dues_behind_a_backlog_of_many_windows_come_in_time() {
    for targets in [1, 3, 20, 100] {
        let mut index = backlog(20_000, targets);
        let healthy: Vec<Position> = (0..500).map(|n| (20 + n as u64 / 100, numbered(100_000 + n))).collect();
        index.extend(healthy.iter().map(|at| (*at, fire_of(200))));
        let mut group = Loop::new(index);
        // As many rounds as it takes to read everything once, and to send what is due, however few at a time.
        for _ in 0..20_500 / 1_024 + 500 + 10 {
            group.step(100);
        }
        assert_eq!(group.delivered.len(), 500, "{targets} hung targets");
        assert!(group.delivered == healthy, "in order");
        assert!(
            group.rows < 3 * 20_500,
            "{} rows were read: {targets} hung targets",
            group.rows
        );
        assert_eq!(
            group.window.finished_before_ms(),
            Some(10),
            "what waits in the index is not forgotten"
        );
    }
}

#[test]
fn more_targets_than_the_window_has_places_hold_up_nobody_for_ever() {
    // Each has one due, so that nothing can be left to the index.
    let mut index: Index = (0..2_000)
        .map(|n| {
            ((10, numbered(n)), {
                let mut target = Target([1; 16]);
                target.0[8..].copy_from_slice(&(n as u64).to_be_bytes());
                DueEntry {
                    wake: Wake::Fire,
                    target,
                }
            })
        })
        .collect();
    index.insert((20, numbered(5_000)), fire_of(200));
    let mut group = Loop::new(index);
    for _ in 0..4_000 {
        group.step(100);
        group.recover();
    }
    assert_eq!(group.delivered, [(20, numbered(5_000))]);
    assert!(group.index.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Hung targets with any backlogs, and healthy dues before, between and behind them: those come, each target's in order;
    /// and when the others recover, theirs come too.
    #[test]
    fn one_targets_backlog_is_nobody_elses(
        rows in proptest::collection::vec((1..60_u64, prop_oneof![3 => 1..=HUNG, 1 => 101..105_u8], 1..60_usize), 1..150),
    ) {
        let mut index = Index::new();
        for (at, target, count) in rows {
            for _ in 0..count {
                index.insert((at, numbered(index.len())), fire_of(target));
            }
        }
        let (all, entries) = (index.len(), index.clone());
        let healthy: BTreeSet<Position> =
            index.iter().filter(|(_, entry)| entry.target.0[0] > HUNG).map(|(at, _)| *at).collect();
        let mut group = Loop::new(index);
        for _ in 0..3 * (all / 1_024 + 1) + healthy.len() {
            group.step(100);
        }
        let mut lasts: BTreeMap<Target, Position> = BTreeMap::new();
        for at in &group.delivered {
            let last = lasts.insert(entries[at].target, *at);
            prop_assert!(last.is_none_or(|last| last < *at), "each target's in order");
        }
        prop_assert_eq!(group.delivered.len(), healthy.len());
        prop_assert!(group.delivered.iter().all(|at| healthy.contains(at)));
        for _ in 0..2 * all {
            group.recover();
            group.step(100);
        }
        prop_assert!(group.index.is_empty(), "{} are left behind", group.index.len());
        prop_assert_eq!((group.window.held_entries(), group.window.lanes.count()), (0, 0));
    }
}

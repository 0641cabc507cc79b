//! Real threads on one group's store: entries are applied and snapshots installed, in turn as the state machine does, while others
//! raise the mark, look below it, and scan. At no moment may the mark hide a due.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::entropy::{Entropy, SystemEntropy};

/// Longest that it may take; it ends earlier where all rounds are done.
const LONGEST: Duration = Duration::from_secs(5);
const ROUNDS: usize = 400;
/// Rounds between two installs.
const INSTALL_EVERY: usize = 20;
const TASKS: u64 = 300;
/// Dues lie so many milliseconds around the moment.
const AROUND: u64 = 2_000;

/// What the index must hold: each task's instant.
type Model = BTreeMap<TaskKey, u64>;

/// The tasks of a store, and how it is written.
struct Writer {
    store: Arc<GroupStore>,
    meta: GroupMeta,
    /// Pending tasks, and deleted ones until they expire.
    model: Model,
    deleted: BTreeMap<TaskKey, u64>,
    random: StdRng,
}

impl Writer {
    /// One entry: a create, a delete, or the expiry of a deleted task.
    fn write(&mut self, now_ms: u64) {
        let id = format!("t{}", self.random.random_range(0..TASKS));
        let key = key_of(&id);
        if let Some(expire_ms) = self.deleted.remove(&key) {
            let op = Op::Expire { key, at_ms: expire_ms };
            run(&self.store, &mut self.meta, &op);
            self.model.remove(&key);
        } else if self.model.contains_key(&key) {
            let expire_ms = now_ms + self.random.random_range(0..AROUND);
            let op = Op::Delete {
                key,
                at_ms: now_ms,
                expire_ms,
            };
            run(&self.store, &mut self.meta, &op);
            self.model.insert(key, expire_ms);
            self.deleted.insert(key, expire_ms);
        } else {
            let due_ms = (now_ms + self.random.random_range(0..AROUND)).saturating_sub(AROUND / 2);
            create(&self.store, &mut self.meta, &id, due_ms);
            self.model.insert(key, due_ms);
        }
        self.meta.applied.truncate(8);
    }
}

fn first_of(model: &Model) -> Option<u64> {
    model.values().copied().min()
}

#[test]
fn the_mark_hides_nothing_whatever_goes_on_at_the_same_time() {
    let seed = std::env::var("XCRON_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| SystemEntropy::default().next_u64());
    println!("seed {seed} (XCRON_TEST_SEED={seed})");
    let (ours, theirs) = (Fixture::new(), Fixture::new());
    let writer = |fixture: &Fixture, seed| {
        let (store, meta) = fixture.open();
        Writer {
            store: Arc::new(store),
            meta,
            model: Model::new(),
            deleted: BTreeMap::new(),
            random: StdRng::seed_from_u64(seed),
        }
    };
    let (mut here, mut there) = (writer(&ours, seed), writer(&theirs, seed ^ 1));
    let (now_ms, is_over) = (AtomicU64::new(10 * AROUND), AtomicBool::new(false));
    let store = here.store.clone();
    thread::scope(|scope| {
        for number in 0..2 {
            let (store, now_ms, is_over) = (&store, &now_ms, &is_over);
            scope.spawn(move || {
                let mut random = StdRng::seed_from_u64(seed ^ (2 + number));
                while !is_over.load(Ordering::SeqCst) {
                    let to_ms = now_ms.load(Ordering::SeqCst) + random.random_range(0..AROUND);
                    store.raise_low_water(to_ms).expect("readable");
                }
            });
        }
        let (looking, over) = (&store, &is_over);
        scope.spawn(move || {
            while !over.load(Ordering::SeqCst) {
                let hidden = looking.heal_low_water().expect("readable");
                if hidden.is_some() {
                    over.store(true, Ordering::SeqCst);
                }
                assert_eq!(hidden, None, "a due was below the mark");
                let from = (looking.low_water_ms(), LOWEST_KEY);
                let dues = looking.dues(from, u64::MAX, 64).expect("readable");
                assert!(dues.is_sorted_by_key(|(at_ms, key, _)| (*at_ms, *key)));
            }
        });
        write_and_install(&mut here, &mut there, &now_ms, &is_over);
        is_over.store(true, Ordering::SeqCst);
    });
    let all = store.dues((0, LOWEST_KEY), u64::MAX, usize::MAX).expect("readable");
    let held: Model = all.iter().map(|(at_ms, key, _)| (*key, *at_ms)).collect();
    assert_eq!(held, here.model);
    assert!(first_of(&here.model).is_none_or(|first| store.low_water_ms() <= first));
    drop((store, here, there));
    let (reopened, _) = ours.open();
    assert_eq!(reopened.heal_low_water().expect("readable"), None, "on disk as well");
}

/// The one that changes rows, as a group has one.
fn write_and_install(here: &mut Writer, there: &mut Writer, now_ms: &AtomicU64, is_over: &AtomicBool) {
    let clock = SystemClock::default();
    let threads: Arc<dyn Blocking> = Arc::new(Threads::start().expect("threads"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("no driver");
    for round in 0..ROUNDS {
        if clock.monotonic() > LONGEST || is_over.load(Ordering::SeqCst) {
            return;
        }
        let now = now_ms.fetch_add(20, Ordering::SeqCst);
        for _ in 0..8 {
            here.write(now);
            there.write(now);
        }
        if round % INSTALL_EVERY == 0 {
            let snapshot = Snapshot::take(&there.store, there.meta.clone());
            runtime
                .block_on(here.store.install(&snapshot, &threads))
                .expect("there is room");
            here.meta = there.meta.clone();
            here.model = there.model.clone();
            here.deleted = there.deleted.clone();
        }
        // A due that is in the model and below the mark is lost, whoever looks.
        let first = first_of(&here.model);
        let low_water_ms = here.store.low_water_ms();
        assert!(
            first.is_none_or(|first| low_water_ms <= first),
            "{low_water_ms} is above {first:?}"
        );
    }
}

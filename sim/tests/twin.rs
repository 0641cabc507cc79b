//! The state's twin in memory behaves as fjall does: the same random operations on both, and the same answers.

use std::sync::Arc;

use proptest::prelude::*;
use xcron::store::fjall_kv::FjallKv;
use xcron::store::key::Table;
use xcron::store::kv::{Kv, ReadKv, Write};
use xcron_sim::dice::Dice;
use xcron_sim::disk::{Disk, SimKv};

/// One operation.
#[derive(Clone, Debug)]
enum Step {
    /// A batch of puts and removals.
    Commit(Vec<Write>),
    /// A point read.
    Get(Table, Vec<u8>),
    /// A range of at most so many rows.
    Scan(Table, Vec<u8>, Vec<u8>, usize),
    /// Keeps a view, to be read at the end.
    View,
    /// Everything so far is to be on disk.
    Persist,
    /// The process ends and comes back.
    Reopen,
}

fn table() -> impl Strategy<Value = Table> {
    prop::sample::select(Table::ALL.to_vec())
}

/// Few keys, so that they meet; some with others as their beginnings.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0u8, 1, 255]), 1..4)
}

fn write() -> impl Strategy<Value = Write> {
    let value = prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..40));
    (table(), key(), value).prop_map(|(table, key, value)| Write { table, key, value })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => prop::collection::vec(write(), 0..6).prop_map(Step::Commit),
        2 => (table(), key()).prop_map(|(table, key)| Step::Get(table, key)),
        3 => (table(), key(), key(), 0usize..5).prop_map(|(table, from, to, limit)| Step::Scan(table, from, to, limit)),
        1 => Just(Step::View),
        1 => Just(Step::Persist),
        1 => Just(Step::Reopen),
    ]
}

fn everything(kv: &dyn ReadKv) -> Vec<(Vec<u8>, Vec<u8>)> {
    let tables = Table::ALL.into_iter();
    let rows = tables.flat_map(|table| kv.scan(table, &[], &[255; 8], usize::MAX).expect("readable"));
    rows.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_twin_answers_as_fjall_does(steps in prop::collection::vec(step(), 1..40), seed in any::<u64>()) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime");
        let disk = Disk::new(Dice::new(seed, "twin"));
        let open = |disk: &Disk| SimKv::new(disk.mount(), Arc::new(|_: &[Write], _: &dyn ReadKv| {}));
        let mut real = Some(FjallKv::open(directory.path(), 8 << 20, 900).expect("an empty directory"));
        let mut twin = open(&disk);
        let mut views = Vec::new();
        for step in steps {
            let fjall = real.as_ref().expect("it is open between steps");
            match step {
                Step::Commit(writes) => {
                    prop_assert_eq!(fjall.commit(writes.clone()), twin.commit(writes));
                }
                Step::Get(table, key) => prop_assert_eq!(fjall.get(table, &key), twin.get(table, &key)),
                Step::Scan(table, from, to, limit) => {
                    prop_assert_eq!(fjall.scan(table, &from, &to, limit), twin.scan(table, &from, &to, limit));
                }
                Step::View => views.push((fjall.view(), everything(twin.view().as_ref()))),
                Step::Persist => {
                    prop_assert_eq!(runtime.block_on(async { fjall.persist().await }), runtime.block_on(async { twin.persist().await }));
                }
                Step::Reopen => {
                    for (view, then) in views.drain(..) {
                        prop_assert_eq!(everything(view.as_ref()), then);
                    }
                    drop(real.take());
                    real = Some(FjallKv::open(directory.path(), 8 << 20, 900).expect("it was left in order"));
                    twin = open(&disk);
                }
            }
            let fjall = real.as_ref().expect("it is open between steps");
            prop_assert_eq!(everything(fjall), everything(&twin));
        }
        for (view, then) in views {
            prop_assert_eq!(everything(view.as_ref()), then);
        }
        // What a power cut leaves is a prefix of the commits, and all that was persisted.
        runtime.block_on(async { twin.persist().await }).expect("nothing fails");
        let kept = everything(&twin);
        disk.lose_power();
        prop_assert_eq!(everything(&open(&disk)), kept);
    }
}

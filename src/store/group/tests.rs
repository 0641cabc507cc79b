//! The group store on a real database in a temporary directory.

use super::*;
use crate::blocking::{Blocking, Threads};
use crate::core::command::Op;
use crate::core::machine::{Batch, Wake};
use crate::core::target::Target;
use crate::core::task::{Delivery, Schedule};
use crate::id::TaskId;
use crate::store::Snapshot;
use crate::store::fjall_kv::FjallKv;

struct Fixture {
    directory: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    fn open(&self) -> (GroupStore, GroupMeta) {
        let kv = FjallKv::open(self.directory.path(), 8 << 20, 900).expect("opens");
        let groups = GroupCount::new(1).expect("a divisor");
        GroupStore::open(Arc::new(kv), groups, GroupId(0)).expect("undamaged")
    }
}

fn key_of(id: &str) -> TaskKey {
    TaskId::parse(id).expect("valid").key()
}

fn create(store: &GroupStore, meta: &mut GroupMeta, id: &str, due_ms: u64) {
    let spec = record::encode_spec(&TaskSpec {
        id: TaskId::parse(id).expect("valid"),
        schedule: Schedule::Once { at_ms: due_ms },
        url: "http://x/".into(),
        body: b"{}".to_vec(),
        created_ms: 1,
        delivery: Delivery::AtLeastOnce,
        revision: 1,
    });
    run(
        store,
        meta,
        &Op::Create {
            key: key_of(id),
            spec: &spec,
            due_ms,
            target: Target([9; 16]),
        },
    );
}

fn run(store: &GroupStore, meta: &mut GroupMeta, op: &Op<'_>) {
    let mut batch = Batch::new(store, meta.state);
    batch.apply(op).expect("readable");
    let (state, mut changes) = batch.finish();
    meta.state = state;
    meta.applied.push(1);
    store.commit(meta, &mut changes).expect("writable");
}

#[test]
fn what_was_committed_is_there_after_a_reopen() {
    let fixture = Fixture::new();
    let (store, mut meta) = fixture.open();
    create(&store, &mut meta, "a", 50);
    drop(store);
    let (store, reopened) = fixture.open();
    assert_eq!(reopened, meta);
    assert_eq!(
        store.state(key_of("a")).expect("readable").expect("there").next_due_ms,
        Some(50)
    );
    assert_eq!(
        store.spec(key_of("a")).expect("readable").expect("there").url,
        "http://x/"
    );
    let entry = DueEntry {
        wake: Wake::Fire,
        target: Target([9; 16]),
    };
    assert_eq!(
        store.dues((0, TaskKey([0; 16])), 100, 10).expect("readable"),
        [(50, key_of("a"), entry)]
    );
}

#[test]
fn the_low_water_mark_never_passes_an_entry() {
    let fixture = Fixture::new();
    let (store, mut meta) = fixture.open();
    create(&store, &mut meta, "a", 50);
    assert_eq!(store.raise_low_water(40).expect("works"), 40);
    assert_eq!(store.raise_low_water(90).expect("works"), 50, "stops at the entry");
    run(
        &store,
        &mut meta,
        &Op::Delete {
            key: key_of("a"),
            at_ms: 45,
            expire_ms: 200,
        },
    );
    assert_eq!(store.raise_low_water(90).expect("works"), 90);
    create(&store, &mut meta, "b", 60);
    assert_eq!(store.low_water_ms(), 60, "an entry below the mark lowers it");
    drop(store);
    assert_eq!(fixture.open().0.low_water_ms(), 60);
}

#[test]
fn a_mark_that_hides_a_due_is_lowered_to_it() {
    let fixture = Fixture::new();
    let (store, mut meta) = fixture.open();
    create(&store, &mut meta, "a", 50);
    create(&store, &mut meta, "b", 70);
    assert_eq!(store.heal_low_water().expect("readable"), None, "nothing is hidden");
    // As a copy was left by an install whose mark had been raised meanwhile.
    store.kv.commit(vec![store.low_water_write(60)]).expect("writable");
    drop(store);
    let (store, _) = fixture.open();
    assert_eq!(store.low_water_ms(), 60);
    let found = store.heal_low_water().expect("readable").expect("hidden");
    assert_eq!((found.0, found.1), (50, key_of("a")));
    assert_eq!(store.heal_low_water().expect("readable"), None, "mended");
    drop(store);
    assert_eq!(fixture.open().0.low_water_ms(), 50, "also on disk");
}

#[tokio::test]
async fn a_snapshot_installs_exactly_the_rows_of_its_moment() {
    let (source, target) = (Fixture::new(), Fixture::new());
    let (store, mut meta) = source.open();
    for n in 0..3_000 {
        create(&store, &mut meta, &format!("t{n}"), 10 + n);
    }
    let snapshot = Snapshot::take(&store, meta.clone());
    run(
        &store,
        &mut meta,
        &Op::Delete {
            key: key_of("t0"),
            at_ms: 1,
            expire_ms: 9,
        },
    );
    let (other, mut other_meta) = target.open();
    create(&other, &mut other_meta, "gone", 5);
    let (other, threads) = (Arc::new(other), Threads::start().expect("threads"));
    let threads: Arc<dyn Blocking> = Arc::new(threads);
    other.install(&snapshot, &threads).await.expect("installs");
    drop(other);
    let (other, installed) = target.open();
    assert_eq!(installed, snapshot.meta);
    assert_eq!(
        other
            .dues((0, TaskKey([0; 16])), u64::MAX, 9_999)
            .expect("readable")
            .len(),
        3_000
    );
    assert!(other.spec(key_of("t0")).expect("readable").is_some());
    assert!(other.state(key_of("gone")).expect("readable").is_none());
}

#[test]
fn tables_at_different_positions_are_refused() {
    let fixture = Fixture::new();
    let (store, mut meta) = fixture.open();
    create(&store, &mut meta, "a", 50);
    let key = key::fact(Fact::Applied, GroupId(0)).to_vec();
    store
        .kv()
        .commit(vec![Write {
            table: Table::Due,
            key,
            value: Some(vec![9]),
        }])
        .expect("writable");
    let reopened = GroupStore::open(store.kv().clone(), store.groups(), GroupId(0));
    assert!(matches!(reopened, Err(StoreError::Torn { .. })), "{reopened:?}");
}

#[test]
fn a_stored_meta_of_the_first_release_is_readable() {
    // Written when the digest had 32 bits: a varint has no width.
    let bytes = [1, 1, 0xaa, 5, 1, 7, 3, 0xff, 0xff, 0xff, 0xff, 0x0f];
    let meta = GroupMeta {
        applied: vec![0xaa],
        state: GroupState {
            generation: 5,
            leader: Some(7),
            pending: 3,
            digest: u64::from(u32::MAX),
        },
    };
    assert_eq!(record::decode("group meta", META_V1, &bytes), Ok(meta.clone()));
    assert_eq!(record::versioned(META_V1, &meta), bytes);
}

mod stress;

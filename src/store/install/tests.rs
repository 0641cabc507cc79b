//! Snapshots from one store to another: complete or refused, and never half of one after a crash.

use proptest::prelude::*;

use super::*;
use crate::blocking::{Job, Threads};
use crate::core::machine::GroupState;
use crate::store::GroupMeta;
use crate::store::fjall_kv::FjallKv;
use crate::store::inbox::Inbox;
use crate::store::kv::ReadKv;
use crate::store::spool::{DirSpools, PIECE_BYTES_MAX};

const GROUP: GroupId = GroupId(3);
const SENDER: u64 = 7;

fn groups() -> GroupCount {
    GroupCount::new(32).expect("a divisor")
}

fn threads() -> Arc<dyn Blocking> {
    Arc::new(Threads::start().expect("threads"))
}

struct Node {
    directory: tempfile::TempDir,
    kv: Arc<dyn Kv>,
    spools: Arc<dyn Spools>,
}

impl Node {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let kv = FjallKv::open(&directory.path().join("state"), 8 << 20, 900).expect("an empty store");
        let spools = DirSpools::open(&directory.path().join("incoming")).expect("a fresh directory");
        Self {
            directory,
            kv: Arc::new(kv),
            spools: Arc::new(spools),
        }
    }

    fn store(&self) -> Arc<GroupStore> {
        Arc::new(GroupStore::unchecked(self.kv.clone(), groups(), GROUP))
    }

    fn put(&self, rows: &[(Table, Vec<u8>, Vec<u8>)], applied: u8) {
        let writes = rows.iter().map(|(table, key, value)| Write {
            table: *table,
            key: key.clone(),
            value: Some(value.clone()),
        });
        let mut writes: Vec<Write> = writes.collect();
        writes.extend(self.store().meta_writes(&meta(applied)));
        self.kv.commit(writes).expect("there is room");
    }

    /// Every row of the group and of its neighbours.
    fn rows(&self) -> Vec<(Table, Row)> {
        let all = |table| {
            let rows = self.kv.scan(table, &[0], &[0xf0], 1_000_000).expect("readable");
            rows.into_iter().map(move |row| (table, row))
        };
        Table::ALL.into_iter().flat_map(all).collect()
    }
}

fn meta(applied: u8) -> GroupMeta {
    GroupMeta {
        applied: vec![applied],
        state: GroupState::default(),
    }
}

fn key(table: Table, group: GroupId, rest: &[u8]) -> Vec<u8> {
    let (first, _) = range(groups(), group, table);
    [&first, rest].concat()
}

fn chunks_of(node: &Node, applied: u8) -> Vec<Bytes> {
    let snapshot = Snapshot::take(&node.store(), meta(applied));
    let mut chunks = snapshot.chunks();
    let mut all = Vec::new();
    while let Some(chunk) = chunks.next_chunk().expect("readable") {
        all.push(chunk);
    }
    all
}

/// A node with rows enough for several chunks.
fn source() -> Node {
    let node = Node::new();
    let rows: Vec<_> = (0..600u16)
        .flat_map(|n| Table::ALL.map(|table| (table, key(table, GROUP, &n.to_be_bytes()), vec![table as u8; 1_500])))
        .collect();
    node.put(&rows, 9);
    node
}

fn send(chunks: &[Bytes], to: &Node) -> Result<Snapshot, ChunkError> {
    let inbox = Inbox::new(to.spools.clone(), groups());
    for chunk in chunks {
        inbox.take(GROUP, SENDER, chunk)?;
    }
    inbox.finish(GROUP, SENDER)
}

#[tokio::test]
async fn what_is_sent_replaces_the_group_and_nothing_else() {
    let (from, to) = (source(), Node::new());
    let neighbour = (Table::State, key(Table::State, GroupId(4), b"n"), b"stays".to_vec());
    let old = (Table::State, key(Table::State, GROUP, b"old"), b"goes".to_vec());
    to.put(&[neighbour.clone(), old.clone()], 1);
    let chunks = chunks_of(&from, 9);
    assert!(chunks.len() > 6, "several chunks a table");
    assert!(chunks.iter().all(|chunk| chunk.len() < PIECE_BYTES_MAX));
    let snapshot = send(&chunks, &to).expect("complete");
    to.store().install(&snapshot, &threads()).await.expect("installs");
    let mut expected = from.rows();
    expected.push((neighbour.0, (neighbour.1.into(), neighbour.2.into())));
    let mut rows = to.rows();
    rows.sort_by(|a, b| (a.0 as u8, &a.1).cmp(&(b.0 as u8, &b.1)));
    expected.sort_by(|a, b| (a.0 as u8, &a.1).cmp(&(b.0 as u8, &b.1)));
    assert!(rows == expected, "{} rows in place of {}", rows.len(), expected.len());
    let (_, installed) = GroupStore::open(to.kv.clone(), groups(), GROUP).expect("undamaged");
    assert_eq!(installed, meta(9));
    assert!(to.spools.read(GROUP).expect("readable").is_none(), "the spool is gone");
}

#[test]
fn a_stream_that_is_not_whole_is_refused() {
    let (from, to) = (source(), Node::new());
    let chunks = chunks_of(&from, 9);
    assert!(matches!(
        send(&chunks[..chunks.len() - 1], &to),
        Err(ChunkError::Incomplete)
    ));
    let mut swapped = chunks.clone();
    swapped.swap(1, 2);
    assert!(matches!(send(&swapped, &to), Err(ChunkError::Order { .. })));
    let mut doubled = chunks.clone();
    doubled.insert(3, chunks[1].clone());
    assert!(matches!(send(&doubled, &to), Err(ChunkError::Order { .. })));
    let mut longer = chunks.clone();
    longer.push(chunks[1].clone());
    assert!(matches!(send(&longer, &to), Err(ChunkError::Order { .. })));
    let inbox = Inbox::new(to.spools.clone(), groups());
    assert!(matches!(
        inbox.take(GroupId(4), SENDER, &chunks[0]),
        Err(ChunkError::Group(_))
    ));
    inbox.take(GROUP, SENDER, &chunks[0]).expect("the first");
    assert!(
        inbox.take(GROUP, SENDER + 1, &chunks[1]).is_err(),
        "another sender begins anew"
    );
    assert!(to.rows().is_empty(), "nothing was changed");
}

#[test]
fn a_chunk_that_comes_twice_is_stored_once() {
    let (from, to) = (source(), Node::new());
    let twice: Vec<_> = chunks_of(&from, 9)
        .into_iter()
        .flat_map(|chunk| [chunk.clone(), chunk])
        .collect();
    // The first one twice is a new beginning.
    let snapshot = send(&twice[1..], &to).expect("complete");
    assert_eq!(snapshot.meta, meta(9));
    let spooled = to.spools.read(GROUP).expect("readable").expect("there");
    assert_eq!(spooled.count(), twice.len() / 2);
}

/// Raises the mark after every piece of work, as the firing may do at any time.
#[derive(Debug)]
struct Raising {
    threads: Arc<dyn Blocking>,
    store: Arc<GroupStore>,
}

impl Blocking for Raising {
    fn offload(&self, job: Job) {
        let store = self.store.clone();
        self.threads.offload(Box::new(move || {
            job();
            store.raise_low_water(1 << 50).expect("readable");
        }));
    }
}

#[tokio::test]
async fn the_mark_never_passes_what_an_install_brings() {
    let (from, to) = (Node::new(), Node::new());
    let due = |at_ms: u64| {
        let row = key::due(GROUP, at_ms, crate::id::TaskKey([7; 16]));
        let entry = crate::core::machine::DueEntry {
            wake: crate::core::machine::Wake::Fire,
            target: crate::core::target::Target([1; 16]),
        };
        (Table::Due, row.to_vec(), key::due_entry(entry).to_vec())
    };
    let dues: Vec<_> = (1..40_000).map(|n| due(1_000 * n)).collect();
    from.put(&dues, 9);
    to.put(&[due(50), due(60)], 1);
    let store = to.store();
    assert_eq!(store.raise_low_water(1 << 50).expect("readable"), 50);
    let snapshot = send(&chunks_of(&from, 9), &to).expect("complete");
    let raising: Arc<dyn Blocking> = Arc::new(Raising {
        threads: threads(),
        store: store.clone(),
    });
    store.install(&snapshot, &raising).await.expect("installs");
    assert!(store.low_water_ms() <= 1_000, "{}", store.low_water_ms());
    assert_eq!(store.raise_low_water(1 << 50).expect("readable"), 1_000);
    assert_eq!(store.heal_low_water().expect("readable"), None);
    let (reopened, _) = GroupStore::open(to.kv.clone(), groups(), GROUP).expect("undamaged");
    assert_eq!(reopened.low_water_ms(), 1_000);
}

#[tokio::test]
async fn nothing_is_applied_while_rows_are_replaced() {
    let to = Node::new();
    let store = to.store();
    store.begin_replacing().expect("there is room");
    assert!(!store.is_whole());
    let refused = store.commit(&meta(2), &mut crate::core::machine::Changes::default());
    assert!(matches!(refused, Err(StoreError::Torn { .. })), "{refused:?}");
    store.end_replacing(&meta(9)).expect("there is room");
    store
        .commit(&meta(10), &mut crate::core::machine::Changes::default())
        .expect("whole again");
}

#[test]
fn a_spool_is_not_overwritten_while_it_is_installed() {
    let (from, to) = (source(), Node::new());
    let chunks = chunks_of(&from, 9);
    let inbox = Inbox::new(to.spools.clone(), groups());
    for chunk in &chunks {
        inbox.take(GROUP, SENDER, chunk).expect("in order");
    }
    let snapshot = inbox.finish(GROUP, SENDER).expect("complete");
    assert!(matches!(
        inbox.take(GROUP, SENDER, &chunks[0]),
        Err(ChunkError::Installing)
    ));
    drop(snapshot);
    assert!(inbox.take(GROUP, SENDER, &chunks[0]).is_ok());
}

/// Fails every commit after the first few, as a process that is gone.
#[derive(Debug)]
struct Dying {
    kv: Arc<dyn Kv>,
    left: std::sync::atomic::AtomicUsize,
}

impl ReadKv for Dying {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, crate::store::KvError> {
        self.kv.get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, crate::store::KvError> {
        self.kv.scan(table, from, to, limit)
    }
}

impl Kv for Dying {
    fn commit(&self, writes: Vec<Write>) -> Result<(), crate::store::KvError> {
        use std::sync::atomic::Ordering;
        let left = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_err() {
            return Err(crate::store::KvError::Disk {
                path: "gone".into(),
                what: "gone".into(),
            });
        }
        self.kv.commit(writes)
    }

    fn persist(&self) -> std::pin::Pin<Box<dyn Future<Output = Result<(), crate::store::KvError>> + Send>> {
        self.kv.persist()
    }

    fn check(&self) -> Result<(), crate::store::KvError> {
        self.kv.check()
    }

    fn view(&self) -> Arc<dyn ReadKv> {
        self.kv.view()
    }
}

#[tokio::test]
async fn an_install_that_is_cut_anywhere_is_finished_at_the_next_start() {
    let from = source();
    let chunks = chunks_of(&from, 9);
    for commits in 0..80 {
        let to = Node::new();
        to.put(&[(Table::State, key(Table::State, GROUP, b"old"), b"old".to_vec())], 1);
        let snapshot = send(&chunks, &to).expect("complete");
        let dying = Dying {
            kv: to.kv.clone(),
            left: commits.into(),
        };
        let store = Arc::new(GroupStore::unchecked(Arc::new(dying), groups(), GROUP));
        let is_installed = store.install(&snapshot, &threads()).await.is_ok();
        drop((store, snapshot));
        resume(&to.kv, groups(), GROUP, &to.spools, &threads())
            .await
            .expect("the spool is whole");
        let (_, found) = GroupStore::open(to.kv.clone(), groups(), GROUP).expect("undamaged");
        // Cut before its first commit, the old state stands; after it, the new one is complete.
        let expected = if commits == 0 { meta(1) } else { meta(9) };
        assert_eq!(found, expected, "cut after {commits} commits");
        if commits > 0 {
            assert!(to.rows() == from.rows(), "cut after {commits} commits");
        }
        if is_installed {
            return;
        }
    }
    panic!("the install has more commits than were tried");
}

#[tokio::test]
async fn a_damaged_spool_is_refused_at_the_next_start() {
    let (from, to) = (source(), Node::new());
    let snapshot = send(&chunks_of(&from, 9), &to).expect("complete");
    let dying = Dying {
        kv: to.kv.clone(),
        left: 3.into(),
    };
    let store = Arc::new(GroupStore::unchecked(Arc::new(dying), groups(), GROUP));
    assert!(store.install(&snapshot, &threads()).await.is_err());
    let file = to.directory.path().join("incoming").join("group-3");
    let mut bytes = std::fs::read(&file).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).expect("writable");
    let refusal = resume(&to.kv, groups(), GROUP, &to.spools, &threads())
        .await
        .expect_err("damaged");
    assert!(refusal.to_string().contains("--rejoin"), "{refusal}");
    std::fs::remove_file(&file).expect("there");
    let refusal = resume(&to.kv, groups(), GROUP, &to.spools, &threads())
        .await
        .expect_err("missing");
    assert!(refusal.to_string().contains("missing"), "{refusal}");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Chunk::decode(&bytes);
    }

    #[test]
    fn a_flipped_bit_is_noticed(at in 0usize..2_000, bit in 0u8..8) {
        let chunk = Chunk {
            number: 0,
            groups: groups(),
            group: GROUP,
            meta: meta(1),
            table: 0,
            rows: vec![(Bytes::from_static(b"key"), Bytes::from_static(b"value"))],
            is_last: true,
        };
        let mut bytes = chunk.encode().to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        prop_assert!(Chunk::decode(&bytes).is_err());
    }
}

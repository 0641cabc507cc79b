//! A store that has failed by itself, and a disk that fills and empties again.

use std::sync::atomic::{AtomicBool, AtomicU64};

use bytes::Bytes;

use super::*;
use crate::router::{Change, CreateError, UpdateError};
use crate::space::{Disk, Room};
use crate::store::key::Table;
use crate::store::kv::{Kv, KvError, ReadKv, Row, Write};

const GIB: u64 = 1 << 30;

/// A store whose work in the background may have failed.
#[derive(Debug)]
struct Failing {
    kv: Arc<dyn Kv>,
    has_failed: Arc<AtomicBool>,
}

impl ReadKv for Failing {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.kv.get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, KvError> {
        self.kv.scan(table, from, to, limit)
    }
}

impl Kv for Failing {
    fn commit(&self, writes: Vec<Write>) -> Result<(), KvError> {
        self.kv.commit(writes)
    }

    fn persist(&self) -> std::pin::Pin<Box<dyn Future<Output = Result<(), KvError>> + Send>> {
        self.kv.persist()
    }

    fn check(&self) -> Result<(), KvError> {
        if !self.has_failed.load(Ordering::SeqCst) {
            return self.kv.check();
        }
        Err(KvError::Disk {
            path: "state".into(),
            what: "it failed in the background".into(),
        })
    }

    fn view(&self) -> Arc<dyn ReadKv> {
        self.kv.view()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_failed_by_itself_ends_an_idle_node() {
    let fixture = Fixture::new();
    let config = Config {
        data: fixture.directory.path().to_owned(),
        ..Config::default()
    };
    let mut world = open(&config).await.expect("opens");
    let has_failed = Arc::<AtomicBool>::default();
    world.kv = Arc::new(Failing {
        kv: world.kv.clone(),
        has_failed: has_failed.clone(),
    });
    let node = Node::start(config, world).await.expect("starts");
    node.all_led().await;
    let ended = tokio::time::timeout(3 * STORE_LOOK, node.failure.wait()).await;
    assert!(ended.is_err(), "nothing is wrong: {ended:?}");
    has_failed.store(true, Ordering::SeqCst);
    let fault = node.failure.wait().await;
    assert!(fault.contains("in the background"), "{fault}");
}

/// A disk with as much room as a test wants.
#[derive(Debug)]
struct Small(AtomicU64);

impl Disk for Small {
    fn room(&self) -> std::io::Result<Room> {
        Ok(Room {
            free_bytes: self.0.load(Ordering::SeqCst),
            total_bytes: 100 * GIB,
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_room_is_left_is_kept_for_deletes_and_outcomes() {
    let fixture = Fixture::new();
    let config = Config {
        data: fixture.directory.path().to_owned(),
        ..Config::default()
    };
    let mut world = open(&config).await.expect("opens");
    let disk = Arc::new(Small(AtomicU64::new(50 * GIB)));
    world.disk = disk.clone();
    world.deliver = Arc::new(fixture.targets.clone());
    let node = Node::start(config, world).await.expect("starts");
    node.all_led().await;
    let router = &node.router;
    for id in ["kept", "deleted"] {
        router
            .create(fixture.task(id, 1_000_000, "ok"))
            .await
            .expect("there is room");
    }
    router
        .create(fixture.task("due", 3_000, "ok"))
        .await
        .expect("there is room");
    disk.0.store(GIB / 4, Ordering::SeqCst);
    for number in 0.. {
        assert!(number < 5_000, "it is never refused");
        let id = format!("new-{number}");
        match router.create(fixture.task(&id, 1_000_000, "ok")).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(CreateError::DiskReserve) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let wanted = fixture.task("kept", 2_000_000, "ok");
    let change = Change {
        id: TaskId::parse("kept").expect("valid"),
        replaces: None,
        schedule: wanted.schedule,
        first_due_ms: wanted.first_due_ms,
        url: wanted.url,
        body: wanted.body,
        delivery: wanted.delivery,
    };
    assert_eq!(router.update(change).await, Err(UpdateError::DiskReserve));
    let deleted = TaskId::parse("deleted").expect("valid");
    router.delete(deleted).await.expect("deletes go on");
    fixture.wait_for_attempts(1).await;
    let due = TaskId::parse("due").expect("valid");
    while router.query(due.clone()).await.expect("there").state.life == Life::Pending {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    disk.0.store(50 * GIB, Ordering::SeqCst);
    loop {
        match router.create(fixture.task("again", 1_000_000, "ok")).await {
            Ok(_) => break,
            Err(CreateError::DiskReserve) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

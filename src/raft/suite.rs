//! openraft's own storage test suite on our log and state machine, and what it does not look at.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::JoinHandle;

use futures_util::stream;
use openraft::alias::LeaderIdOf;
use openraft::entry::RaftEntry;
use openraft::storage::RaftStateMachine;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::alias::{LogIdOf, PayloadOf};
use openraft::vote::RaftLeaderIdExt;
use openraft::{EntryPayload, Membership, StorageError};

use crate::blocking::{Blocking, Threads};
use crate::clock::SystemClock;
use crate::core::machine::{Changes, GroupState};
use crate::failure::Failure;
use crate::id::{GroupCount, GroupId};
use crate::raft::log::GroupLog;
use crate::raft::machine::{AppliedHook, GroupMachine, WAITING_MAX};
use crate::raft::types::{Entry, TypeConfig};
use crate::store::GroupStore;
use crate::store::fjall_kv::FjallKv;
use crate::wal;

#[derive(Debug)]
struct NoHook;

impl AppliedHook for NoHook {
    fn applied(&self, _: GroupId, _: &GroupState, _: &Changes) {}
}

#[derive(Debug)]
struct NoObserver;

impl wal::Observe for NoObserver {
    fn synced(&self, _: u64, _: usize, _: usize, _: std::time::Duration) {}
}

/// Removes the directory after the stores in it are closed.
struct Guard {
    _directory: tempfile::TempDir,
    _writer: JoinHandle<()>,
}

struct Builder;

impl StoreBuilder<TypeConfig, GroupLog, GroupMachine, Guard> for Builder {
    async fn build(&self) -> Result<(Guard, GroupLog, GroupMachine), StorageError<TypeConfig>> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(directory.path().join("log")).expect("a fresh directory");
        let files = wal::DirFiles::open(&directory.path().join("log")).expect("a fresh directory");
        let options = wal::Options {
            segment_bytes: 1 << 20,
            ..wal::Options::default()
        };
        let clock = Arc::new(SystemClock::default());
        let (wal, writer) = wal::open(Arc::new(files), options, clock, Arc::new(NoObserver)).expect("an empty log");
        let writer = std::thread::spawn(move || drop(writer.run()));
        let kv = Arc::new(FjallKv::open(&directory.path().join("state"), 8 << 20, 900).expect("an empty store"));
        let count = GroupCount::new(32).expect("a divisor");
        let (store, meta) = GroupStore::open(kv, count, GroupId(3)).expect("undamaged");
        let blocking: Arc<dyn Blocking> = Arc::new(Threads::start().expect("threads"));
        let machine = GroupMachine::new(
            Arc::new(store),
            &meta,
            Arc::new(NoHook),
            Failure::default(),
            blocking.clone(),
        );
        let guard = Guard {
            _directory: directory,
            _writer: writer,
        };
        Ok((
            guard,
            GroupLog::new(wal, GroupId(3), blocking),
            machine.expect("a fresh machine"),
        ))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openraft_storage_suite() {
    Suite::test_all(Builder).await.expect("the suite passes");
}

fn entry(index: u64, payload: PayloadOf<TypeConfig>) -> Entry {
    let leader = LeaderIdOf::<TypeConfig>::new_committed(1, 1);
    Entry::new(LogIdOf::<TypeConfig>::new(leader, index), payload)
}

#[tokio::test]
async fn entries_that_nobody_waits_for_are_written_together() {
    let (_guard, _log, mut machine) = Builder.build().await.expect("an empty store");
    let mut applied = async |index: u64, payload: PayloadOf<TypeConfig>| {
        let item = Ok((entry(index, payload), None));
        machine.apply(stream::iter([item])).await.expect("the disk works");
        let (told, _) = machine.applied_state().await.expect("it is in memory");
        assert_eq!(told.map(|id| id.index), Some(index), "openraft takes it for applied");
        machine.applied_index()
    };
    for index in 0..WAITING_MAX as u64 {
        assert_eq!(applied(index, EntryPayload::Blank).await, None);
    }
    let full = WAITING_MAX as u64;
    assert_eq!(applied(full, EntryPayload::Blank).await, Some(full), "no more may wait");
    assert_eq!(applied(full + 1, EntryPayload::Blank).await, Some(full));
    let members = Membership::new(vec![BTreeSet::from([1])], BTreeSet::from([1])).expect("one member");
    let members = EntryPayload::Membership(members);
    assert_eq!(
        applied(full + 2, members).await,
        Some(full + 2),
        "who votes is known at once"
    );
    assert_eq!(applied(full + 3, EntryPayload::Blank).await, Some(full + 2));
    let snapshot = machine.get_current_snapshot().await.expect("the disk works");
    let last = snapshot.and_then(|snapshot| snapshot.meta.last_log_id);
    assert_eq!(last.map(|id| id.index), Some(full + 3), "a snapshot has everything");
    assert_eq!(machine.applied_index(), Some(full + 3));
}

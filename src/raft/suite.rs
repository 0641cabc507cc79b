//! openraft's own storage test suite on our log and state machine.

use std::sync::Arc;
use std::thread::JoinHandle;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use crate::clock::SystemClock;
use crate::core::machine::{Changes, GroupState};
use crate::failure::Failure;
use crate::id::{GroupCount, GroupId};
use crate::raft::log::GroupLog;
use crate::raft::machine::{AppliedHook, GroupMachine};
use crate::raft::types::TypeConfig;
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
    fn synced(&self, _: usize, _: usize, _: std::time::Duration) {}
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
        let kv = Arc::new(FjallKv::open(&directory.path().join("state"), 8 << 20).expect("an empty store"));
        let count = GroupCount::new(32).expect("a divisor");
        let (store, meta) = GroupStore::open(kv, count, GroupId(3)).expect("undamaged");
        let machine = GroupMachine::new(Arc::new(store), &meta, Arc::new(NoHook), Failure::default());
        let guard = Guard {
            _directory: directory,
            _writer: writer,
        };
        Ok((guard, GroupLog::new(wal, GroupId(3)), machine.expect("a fresh machine")))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openraft_storage_suite() {
    Suite::test_all(Builder).await.expect("the suite passes");
}

//! openraft's state machine on the store: decodes entries, applies them in one batch, writes once, then answers.
//!
//! What nobody waits for - a follower's entries, those of former leaders - is gathered first: many entries in one write cost a
//! follower half of one write each. A leader's first own operation applies them all, so who leads has everything in the store.
//!
//! What the operations mean is `core/machine.rs`. The order at the end of a batch matters: committed to the store, shown to
//! the hook, and only then answered, so that an acknowledged delete has already stopped its fire.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::type_config::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::blocking::Blocking;
use crate::core::command;
use crate::core::machine::{Batch, Changes, GroupState};
use crate::core::record::{self, RecordError};
use crate::failure::Failure;
use crate::id::{GroupId, NodeId};
use crate::raft::types::{Entry, Replies, TypeConfig};
use crate::store::{GroupMeta, GroupStore, Snapshot, StoreError};

/// Most bytes of entries applied in one batch: bounds the memory of a long replay.
const BATCH_BYTES_MAX: usize = 2 << 20;
/// Most entries, and bytes of them, that wait to be applied together while nobody waits for one.
pub(super) const WAITING_MAX: usize = 64;
const WAITING_BYTES_MAX: usize = 256 << 10;
const POSITION_V1: u8 = 1;

/// Learns what each batch changed, before anybody is answered. Called in log order of the group; must not block.
pub trait AppliedHook: Debug + Send + Sync + 'static {
    /// `changes` has its spec and state rows taken out: they are written already.
    fn applied(&self, group: GroupId, state: &GroupState, changes: &Changes);
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Position {
    applied: Option<LogIdOf<TypeConfig>>,
    membership: StoredMembershipOf<TypeConfig>,
}

#[derive(Debug)]
struct Current {
    position: Position,
    state: GroupState,
    waiting: Waiting,
    /// The copy is let go: its rows are removed, and nothing may be added to them.
    is_closed: bool,
}

/// Entries that openraft takes for applied, and that are not in the store yet. After a crash they come from the log again.
#[derive(Debug, Default)]
struct Waiting {
    entries: Vec<Entry>,
    bytes: usize,
}

impl Waiting {
    /// Keeps the entries, unless there are too many or somebody waits for one; members are known at once.
    fn keep(&mut self, entries: &mut Entries, bytes: usize) -> bool {
        let may_wait = |(entry, responder): &(Entry, Option<_>)| {
            responder.is_none() && !matches!(entry.payload, EntryPayload::Membership(_))
        };
        let fits = self.entries.len() + entries.len() <= WAITING_MAX && self.bytes + bytes <= WAITING_BYTES_MAX;
        if !fits || !entries.iter().all(may_wait) {
            return false;
        }
        self.entries.extend(entries.drain(..).map(|(entry, _)| entry));
        self.bytes += bytes;
        true
    }
}

/// Entries, with who waits for their replies.
type Entries = Vec<(Entry, Option<ApplyResponder<TypeConfig>>)>;

impl Current {
    fn meta(&self) -> GroupMeta {
        GroupMeta {
            applied: record::versioned(POSITION_V1, &self.position),
            state: self.state,
        }
    }
}

/// One group's state machine.
#[derive(Clone, Debug)]
pub struct GroupMachine {
    store: Arc<GroupStore>,
    hook: Arc<dyn AppliedHook>,
    failure: Failure,
    blocking: Arc<dyn Blocking>,
    current: Arc<Mutex<Current>>,
    /// Held while a snapshot replaces the rows, or is built from them: they are not whole meanwhile.
    whole: Arc<tokio::sync::Mutex<()>>,
}

/// The position in the log of a snapshot, and the membership there.
pub(super) fn position_of(
    meta: &GroupMeta,
) -> Result<(Option<LogIdOf<TypeConfig>>, StoredMembershipOf<TypeConfig>), RecordError> {
    let position: Position = record::decode("position", POSITION_V1, &meta.applied)?;
    Ok((position.applied, position.membership))
}

impl GroupMachine {
    /// Begins at the stored position.
    pub fn new(
        store: Arc<GroupStore>,
        meta: &GroupMeta,
        hook: Arc<dyn AppliedHook>,
        failure: Failure,
        blocking: Arc<dyn Blocking>,
    ) -> Result<Self, StoreError> {
        let position = if meta.applied.is_empty() {
            Position::default()
        } else {
            let group = store.group();
            record::decode("position", POSITION_V1, &meta.applied)
                .map_err(|error| StoreError::Record { group, error })?
        };
        let current = Arc::new(Mutex::new(Current {
            position,
            state: meta.state,
            waiting: Waiting::default(),
            is_closed: false,
        }));
        Ok(Self {
            store,
            hook,
            failure,
            blocking,
            current,
            whole: Arc::default(),
        })
    }

    /// Index of the last entry that is applied in the store.
    pub fn applied_index(&self) -> Option<u64> {
        self.current.lock().position.applied.map(|id| id.index)
    }

    /// Whether nobody but `node` votes in the group, as applied here.
    pub fn is_sole_voter(&self, node: NodeId) -> bool {
        self.current
            .lock()
            .position
            .membership
            .voter_ids()
            .all(|voter| voter == node)
    }

    /// Which entry made the members what they are, as applied here.
    pub(super) fn membership_id(&self) -> Option<LogIdOf<TypeConfig>> {
        *self.current.lock().position.membership.log_id()
    }

    /// From now on nothing is applied: the rows are about to be removed.
    pub(super) fn close(&self) {
        let mut current = self.current.lock();
        current.is_closed = true;
        current.waiting = Waiting::default();
        self.store.close();
    }

    /// The replicated facts of the group as applied here.
    pub fn state(&self) -> GroupState {
        self.current.lock().state
    }

    /// Applies what waits.
    pub fn flush(&self) -> Result<(), io::Error> {
        let mut current = self.current.lock();
        self.fatal(self.apply_now(&mut current, Vec::new()))
    }

    /// Applies entries of so many bytes and answers them, now or, if nobody waits for one, with those that come.
    fn apply_batch(&self, mut entries: Entries, bytes: usize) -> Result<(), io::Error> {
        let mut current = self.current.lock();
        if current.is_closed {
            return Err(io::Error::other("the copy of this group is let go"));
        }
        if current.waiting.keep(&mut entries, bytes) {
            return Ok(());
        }
        self.fatal(self.apply_now(&mut current, entries))
    }

    /// Applies what waits, and then `entries`, in one batch.
    fn apply_now(&self, current: &mut Current, entries: Entries) -> Result<(), StoreError> {
        let waiting = std::mem::take(&mut current.waiting).entries;
        if waiting.is_empty() && entries.is_empty() {
            return Ok(());
        }
        let entries = waiting.into_iter().map(|entry| (entry, None)).chain(entries);
        let mut position = current.position.clone();
        let mut batch = Batch::new(self.store.as_ref(), current.state);
        let mut answers = Vec::new();
        for (entry, responder) in entries {
            position.applied = Some(entry.log_id());
            let mut replies = Vec::new();
            match &entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(payload) => {
                    let group = self.store.group();
                    let ops = command::decode(&payload.0).map_err(|error| StoreError::Record { group, error })?;
                    for op in &ops {
                        let reply = match &responder {
                            Some(_) => batch.apply(op),
                            None => batch.apply_uncounted(op),
                        };
                        replies.push(reply?);
                    }
                }
                EntryPayload::Membership(membership) => {
                    position.membership = StoredMembershipOf::<TypeConfig>::new(position.applied, membership.clone());
                }
            }
            answers.extend(responder.map(|responder| (responder, Replies(replies))));
        }
        let (state, mut changes) = batch.finish();
        let next = Current {
            position,
            state,
            waiting: Waiting::default(),
            is_closed: false,
        };
        self.store.commit(&next.meta(), &mut changes)?;
        *current = next;
        self.hook.applied(self.store.group(), &state, &changes);
        for (responder, replies) in answers {
            responder.send(replies);
        }
        Ok(())
    }

    /// A fault of the store ends the node, not only this group.
    fn fatal<T>(&self, result: Result<T, StoreError>) -> Result<T, io::Error> {
        result.map_err(|error| {
            self.failure.report(error.to_string());
            io::Error::other(error)
        })
    }

    fn snapshot(&self) -> Result<SnapshotOf<TypeConfig, Snapshot>, io::Error> {
        let mut current = self.current.lock();
        if current.is_closed {
            return Err(io::Error::other("the copy of this group is let go"));
        }
        self.fatal(self.apply_now(&mut current, Vec::new()))?;
        let meta = SnapshotMetaOf::<TypeConfig> {
            last_log_id: current.position.applied,
            last_membership: current.position.membership.clone(),
        };
        Ok(openraft::storage::Snapshot {
            meta,
            snapshot: Snapshot::take(&self.store, current.meta()),
        })
    }
}

impl RaftStateMachine<TypeConfig> for GroupMachine {
    type SnapshotData = Snapshot;
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogIdOf<TypeConfig>>, StoredMembershipOf<TypeConfig>), io::Error> {
        let current = self.current.lock();
        let waiting = current.waiting.entries.last().map(RaftEntry::log_id);
        Ok((
            waiting.or(current.position.applied),
            current.position.membership.clone(),
        ))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            if let EntryPayload::Normal(payload) = &entry.payload {
                bytes += payload.0.len();
            }
            batch.push((entry, responder));
            if bytes >= BATCH_BYTES_MAX {
                self.apply_batch(std::mem::take(&mut batch), std::mem::take(&mut bytes))?;
            }
        }
        if batch.is_empty() {
            Ok(())
        } else {
            self.apply_batch(batch, bytes)
        }
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<TypeConfig>,
        snapshot: Snapshot,
    ) -> Result<(), io::Error> {
        let _whole = self.whole.lock().await;
        // The snapshot has what waits, and to the rows of an install that is half done nothing may be applied.
        self.current.lock().waiting = Waiting::default();
        self.fatal(self.store.install(&snapshot, &self.blocking).await)?;
        let position = Position {
            applied: meta.last_log_id,
            membership: meta.last_membership.clone(),
        };
        *self.current.lock() = Current {
            position,
            state: snapshot.meta.state,
            waiting: Waiting::default(),
            is_closed: false,
        };
        Ok(())
    }

    /// The state itself is the snapshot: it is as new as what was applied.
    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<TypeConfig, Snapshot>>, io::Error> {
        let snapshot = self.snapshot()?;
        Ok(snapshot.meta.last_log_id.is_some().then_some(snapshot))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for GroupMachine {
    type SnapshotData = Snapshot;

    /// The log is purged up to what this returns: it must be on disk first.
    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, Snapshot>, io::Error> {
        let _whole = self.whole.lock().await;
        let snapshot = self.snapshot()?;
        let persisted = self.store.kv().persist().await;
        self.fatal(persisted.map_err(StoreError::from))?;
        Ok(snapshot)
    }
}

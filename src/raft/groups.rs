//! The Raft groups that this node hosts: starts them, follows who leads, and serves linearizable reads.
//!
//! A group fires only under a [`Leadership`], which exists once the first entry of this node's own term is applied: openraft
//! may report a restarted leader as leading before that.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::{Config, Raft, ReadPolicy, SnapshotPolicy};
use tokio::sync::watch;

use crate::core::command::{Op, Reply};
use crate::failure::Failure;
use crate::id::{GroupCount, GroupId, NodeId, TaskKey};
use crate::metrics::Metrics;
use crate::raft::log::GroupLog;
use crate::raft::machine::{AppliedHook, GroupMachine};
use crate::raft::network::{GroupNetwork, Peers};
use crate::raft::proposer::{ProposeError, Proposer};
use crate::raft::types::TypeConfig;
use crate::store::{GroupStore, Kv, StoreError};
use crate::wal::Wal;

/// Heartbeat interval, in milliseconds. openraft ticks five times in it, for each group: it decides the idle cost of a node.
const HEARTBEAT_MS: u64 = 500;
/// Election timeout, in milliseconds: least and most.
const ELECTION_MS: (u64, u64) = (1_500, 2_000);
/// A snapshot, and with it a purge of the log, is due after this many entries of a group.
const SNAPSHOT_ENTRIES: u64 = 4_000;
/// Entries kept behind a snapshot for replicas that lag a little.
const ENTRIES_KEPT: u64 = 200;
/// Proposals of a group that openraft takes at once. Its proposer has four rounds in flight: the default, sized for single
/// operations, would only hold memory.
const PROPOSALS_AT_ONCE_MAX: u64 = 64;
/// How long a claim of leadership is retried before the next look.
const CLAIM_RETRY: Duration = Duration::from_millis(50);

pub(super) type RaftGroup = Raft<TypeConfig, GroupMachine>;

/// Why the groups did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The state cannot be read or is damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log says that more was purged than the state has applied: the state lost acknowledged changes.
    #[error(
        "group {group}: the state is at log index {applied}, but the log before {purged} is gone: the state lost \
         acknowledged changes. Start with --rejoin to set the directory aside"
    )]
    StateBehindLog {
        /// The group.
        group: GroupId,
        /// Last entry in the state.
        applied: u64,
        /// Last entry purged from the log.
        purged: u64,
    },
    /// The state has applied entries that the log never had.
    #[error(
        "group {group}: the state is at log index {applied}, but the log ends at {last}: the log lost acknowledged \
         entries. Start with --rejoin to set the directory aside"
    )]
    LogBehindState {
        /// The group.
        group: GroupId,
        /// Last entry in the state.
        applied: u64,
        /// Last entry in the log.
        last: u64,
    },
    /// openraft refused to start.
    #[error("group {group}: {what}")]
    Raft {
        /// The group.
        group: GroupId,
        /// What it said.
        what: String,
    },
}

/// The right to decide for a group, while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// Fencing token of everything decided under it.
    pub generation: u64,
}

/// Why a read was not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// This node cannot prove that it leads the group.
    #[error("this node cannot serve the task's group now: {0}")]
    Unavailable(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One group on this node.
#[derive(Clone)]
pub struct Group {
    id: GroupId,
    raft: RaftGroup,
    machine: GroupMachine,
    store: Arc<GroupStore>,
    proposer: Proposer,
    leadership: watch::Receiver<Option<Leadership>>,
}

impl Group {
    /// The group's number.
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// Puts operations into the group's log.
    pub fn proposer(&self) -> &Proposer {
        &self.proposer
    }

    /// The group's rows.
    pub fn store(&self) -> &Arc<GroupStore> {
        &self.store
    }

    /// Follows this node's leadership of the group.
    pub fn leadership(&self) -> watch::Receiver<Option<Leadership>> {
        self.leadership.clone()
    }

    /// Tasks with a due or retry ahead, as applied here.
    pub fn pending(&self) -> u64 {
        self.machine.state().pending
    }

    /// Completes once everything acknowledged before this call is visible in [`Self::store`].
    pub async fn read_barrier(&self) -> Result<(), ReadError> {
        let barrier = self.raft.ensure_linearizable(ReadPolicy::LeaseRead).await;
        barrier
            .map(drop)
            .map_err(|error| ReadError::Unavailable(error.to_string()))
    }
}

/// Every group of the cluster that this node hosts; a node alone hosts all of them.
#[derive(Clone)]
pub struct Groups {
    count: GroupCount,
    groups: Arc<[Group]>,
}

/// What the groups are built on.
pub struct Parts {
    /// This node.
    pub node: NodeId,
    /// The shared log stream.
    pub wal: Wal,
    /// The store of the state.
    pub kv: Arc<dyn Kv>,
    /// Number of groups.
    pub count: GroupCount,
    /// Learns what is applied.
    pub hook: Arc<dyn AppliedHook>,
    /// Where a fatal fault is reported.
    pub failure: Failure,
    /// Where batches are counted.
    pub metrics: Arc<Metrics>,
}

impl Groups {
    /// Recovers every group and starts it. A group that was never initialized is born with this node as its only voter.
    pub async fn start(parts: Parts) -> Result<Self, StartError> {
        let config = Arc::new(config());
        let mut groups = Vec::with_capacity(usize::from(parts.count.get()));
        for id in parts.count.iter() {
            groups.push(start_group(&parts, &config, id).await?);
        }
        Ok(Self {
            count: parts.count,
            groups: groups.into(),
        })
    }

    /// The group that owns a task.
    pub fn of(&self, key: TaskKey) -> &Group {
        self.get(self.count.group_of(key.shard()))
    }

    /// A group by its number.
    pub fn get(&self, id: GroupId) -> &Group {
        &self.groups[usize::from(id.0)]
    }

    /// Every group, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter()
    }

    /// Completes once this node leads every group.
    pub async fn all_led(&self) {
        for group in self.iter() {
            // The sender lives as long as the node's tasks; its end means that the node is stopping.
            drop(group.leadership().wait_for(Option::is_some).await);
        }
    }

    /// Stops every group; what was acknowledged is on disk already.
    pub async fn shutdown(&self) {
        for group in self.iter() {
            if let Err(error) = group.raft.shutdown().await {
                tracing::warn!(group = group.id.0, %error, "a group did not stop cleanly");
            }
        }
    }
}

fn config() -> Config {
    let config = Config {
        cluster_name: "xcron".into(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS.0,
        election_timeout_max: ELECTION_MS.1,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_ENTRIES),
        max_in_snapshot_log_to_keep: ENTRIES_KEPT,
        replication_lag_threshold: 2 * SNAPSHOT_ENTRIES,
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        api_batch_capacity: PROPOSALS_AT_ONCE_MAX,
        log_stage_capacity: Some(PROPOSALS_AT_ONCE_MAX),
        ..Config::default()
    };
    config.validate().expect("constant settings are valid")
}

async fn start_group(parts: &Parts, config: &Arc<Config>, id: GroupId) -> Result<Group, StartError> {
    let (store, meta) = GroupStore::open(parts.kv.clone(), parts.count, id)?;
    let store = Arc::new(store);
    let machine = GroupMachine::new(store.clone(), &meta, parts.hook.clone(), parts.failure.clone())?;
    compare(&parts.wal, &machine, id)?;
    let log = GroupLog::new(parts.wal.clone(), id);
    let network = GroupNetwork::new(Peers, id);
    let refused = |what: String| StartError::Raft { group: id, what };
    let raft = RaftGroup::new(parts.node, config.clone(), network, log, machine.clone())
        .await
        .map_err(|error| refused(error.to_string()))?;
    if raft
        .is_initialized()
        .await
        .map_err(|error| refused(error.to_string()))?
    {
        // A sole voter needs nobody's vote: waiting for the election timeout would only delay the first fire.
        if raft.voter_ids().eq([parts.node]) {
            raft.trigger()
                .elect(false)
                .await
                .map_err(|error| refused(error.to_string()))?;
        }
    } else {
        let voters = BTreeSet::from([parts.node]);
        raft.initialize(voters)
            .await
            .map_err(|error| refused(error.to_string()))?;
    }
    let proposer = Proposer::spawn(raft.clone(), parts.metrics.clone());
    let (claims, leadership) = watch::channel(None);
    tokio::spawn(follow_leadership(
        raft.clone(),
        proposer.clone(),
        parts.node,
        claims,
        parts.failure.clone(),
    ));
    Ok(Group {
        id,
        raft,
        machine,
        store,
        proposer,
        leadership,
    })
}

/// The log and the state must overlap: a gap between them is acknowledged data that is gone.
fn compare(wal: &Wal, machine: &GroupMachine, group: GroupId) -> Result<(), StartError> {
    let log = wal.group(group.0);
    let applied = machine.applied_index();
    let purged = log.purged.as_ref().map(|(index, _)| *index);
    if let Some(purged) = purged
        && applied.is_none_or(|applied| applied < purged)
    {
        return Err(StartError::StateBehindLog {
            group,
            applied: applied.unwrap_or(0),
            purged,
        });
    }
    let last = log.last_index.or(purged);
    if let Some(applied) = applied
        && last.is_none_or(|last| last < applied)
    {
        return Err(StartError::LogBehindState {
            group,
            applied,
            last: last.unwrap_or(0),
        });
    }
    Ok(())
}

/// Claims every new term with a `Lead` operation, and publishes the generation once it is applied.
async fn follow_leadership(
    raft: RaftGroup,
    proposer: Proposer,
    node: NodeId,
    claims: watch::Sender<Option<Leadership>>,
    failure: Failure,
) {
    let mut metrics = raft.server_metrics();
    let mut claimed_term = None;
    loop {
        let (leads, term, is_alone) = {
            let now = metrics.borrow_watched();
            let is_alone = now.membership_config.nodes().count() == 1;
            (now.state.is_leader(), now.vote.leader_id.term, is_alone)
        };
        // Nobody waits for the heartbeats of a leader without followers: its timer would be most of an idle node's work.
        raft.runtime_config().tick(!(leads && is_alone));
        if !leads {
            claims.send_if_modified(|claim| claim.take().is_some());
            claimed_term = None;
        } else if claimed_term != Some(term) {
            claims.send_if_modified(|claim| claim.take().is_some());
            match proposer.propose_waiting(&Op::Lead { node }).await {
                Ok(Reply::Generation(generation)) => {
                    claims.send_replace(Some(Leadership { generation }));
                    claimed_term = Some(term);
                }
                Ok(reply) => unreachable!("a Lead is answered by its generation, not by {reply:?}"),
                Err(ProposeError::NotLeader | ProposeError::Unknown | ProposeError::Overloaded) => {
                    tokio::time::sleep(CLAIM_RETRY).await;
                    if failure.get().is_some() {
                        return;
                    }
                    continue;
                }
            }
        }
        if metrics.changed().await.is_err() {
            // The group has stopped: on its own only after a fault of its storage.
            claims.send_replace(None);
            return;
        }
    }
}

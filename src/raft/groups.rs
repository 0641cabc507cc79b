//! The Raft groups that this node hosts: recovers those on its disk, makes those of a new cluster, and begins to host
//! another when one of its replicas calls.
//!
//! What one group can do is `group.rs`; who answers its replicas is `serve.rs`. Called by `node.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use parking_lot::RwLock;
use tokio::sync::{Mutex, mpsc, watch};

use crate::blocking::Blocking;
use crate::clock::Clock;
use crate::failure::Failure;
use crate::id::{GroupCount, GroupId, NodeId, TaskKey};
use crate::metrics::Metrics;
use crate::peer::Call;
use crate::raft::group::{Built, Group, RaftGroup};
use crate::raft::install::Installs;
use crate::raft::leading::follow_leadership;
use crate::raft::leave;
use crate::raft::log::GroupLog;
use crate::raft::machine::{AppliedHook, GroupMachine};
use crate::raft::network::{GroupNetwork, Peers};
use crate::raft::proposer::Proposer;
use crate::raft::suspension::Suspension;
use crate::store::{GroupStore, Inbox, Kv, Spools, StoreError, install};
use crate::wal::Wal;

/// Heartbeat interval, in milliseconds. openraft ticks five times in it, for each group: it decides the idle cost of a node.
const HEARTBEAT_MS: u64 = 300;
/// Election timeout, in milliseconds: least and most. The most is also how long a leader's lease binds its voters.
const ELECTION_MS: (u64, u64) = (450, 650);
/// A snapshot, and with it a purge of the log, is due after this many entries of a group.
pub const SNAPSHOT_ENTRIES: u64 = 4_000;
/// Entries kept behind a snapshot for replicas that lag a little.
const ENTRIES_KEPT: u64 = 200;
/// Proposals of a group that openraft takes at once. Its proposer has four rounds in flight: the default, sized for single
/// operations, would only hold memory.
const PROPOSALS_AT_ONCE_MAX: u64 = 64;

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
    /// A copy that this node had is being removed.
    #[error("group {0}: what is left of an earlier copy is being removed; try again")]
    Leaving(GroupId),
    /// openraft refused to start.
    #[error("group {group}: {what}")]
    Raft {
        /// The group.
        group: GroupId,
        /// What it said.
        what: String,
    },
}

/// What the groups are built on.
pub struct Parts {
    /// This node.
    pub node: NodeId,
    /// The shared log stream.
    pub wal: Wal,
    /// The store of the state.
    pub kv: Arc<dyn Kv>,
    /// Where snapshots are kept that other nodes send.
    pub spools: Arc<dyn Spools>,
    /// Where work is done that blocks for long.
    pub blocking: Arc<dyn Blocking>,
    /// Number of groups.
    pub count: GroupCount,
    /// Entries of a group between two snapshots; [`SNAPSHOT_ENTRIES`] unless a simulation wants more of them.
    pub snapshot_entries: u64,
    /// Learns what is applied.
    pub hook: Arc<dyn AppliedHook>,
    /// The way to the other nodes.
    pub call: Arc<dyn Call>,
    /// Where a fatal fault is reported.
    pub failure: Failure,
    /// Where batches are counted.
    pub metrics: Arc<Metrics>,
    /// A clock that goes on while the machine sleeps.
    pub clock: Arc<dyn Clock>,
}

pub(super) struct Inner {
    pub(super) parts: Parts,
    config: Arc<Config>,
    pub(super) slots: Box<[RwLock<Option<Group>>]>,
    /// Held while a group starts: it must not be started twice. The groups in it are being let go.
    pub(super) starting: Mutex<BTreeSet<GroupId>>,
    hosted: mpsc::Sender<Group>,
    inbox: Arc<Inbox>,
    /// Snapshots that other nodes asked this one to install.
    pub(super) installs: Installs,
    suspension: Arc<Suspension>,
}

/// The groups that this node hosts, by number.
#[derive(Clone)]
pub struct Groups(pub(super) Arc<Inner>);

impl Groups {
    /// Recovers every group that is on this node's disk. With `is_birth`, makes those that are missing, with this node as
    /// their only voter: only for a cluster that is being born. Every group that is hosted, now or later, comes out of the
    /// receiver once.
    pub async fn start(parts: Parts, is_birth: bool) -> Result<(Self, mpsc::Receiver<Group>), StartError> {
        let count = parts.count;
        let (hosted, receiver) = mpsc::channel(usize::from(count.get()));
        let groups = Self(Arc::new(Inner {
            slots: count.iter().map(|_| RwLock::new(None)).collect(),
            config: Arc::new(config(parts.snapshot_entries)),
            starting: Mutex::default(),
            hosted,
            inbox: Arc::new(Inbox::new(parts.spools.clone(), count)),
            installs: Installs::default(),
            suspension: Arc::new(Suspension::new(parts.clock.clone())),
            parts,
        }));
        for id in count.iter() {
            leave::finish(&groups.0.parts, id).await?;
        }
        let on_disk: BTreeSet<u16> = groups.0.parts.wal.groups().into_iter().collect();
        for id in count.iter().filter(|id| is_birth || on_disk.contains(&id.0)) {
            let group = groups.host(id).await?;
            groups.begin(&group, is_birth).await?;
        }
        Ok((groups, receiver))
    }

    pub(super) fn inbox(&self) -> &Arc<Inbox> {
        &self.0.inbox
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.0.parts.node
    }

    /// How many groups the cluster has.
    pub fn count(&self) -> GroupCount {
        self.0.parts.count
    }

    /// The group that owns a task.
    pub fn group_of(&self, key: TaskKey) -> GroupId {
        self.count().group_of(key.shard())
    }

    /// A group by its number; `None` if this node has no replica of it.
    pub fn get(&self, id: GroupId) -> Option<Group> {
        self.0.slots.get(usize::from(id.0))?.read().clone()
    }

    /// Every group that this node hosts, in order.
    pub fn iter(&self) -> impl Iterator<Item = Group> + '_ {
        self.0.slots.iter().filter_map(|slot| slot.read().clone())
    }

    /// The group's replica on this node, started empty if there is none yet: its leader will fill it.
    pub async fn host(&self, id: GroupId) -> Result<Group, StartError> {
        if let Some(group) = self.get(id) {
            return Ok(group);
        }
        let leaving = self.0.starting.lock().await;
        if let Some(group) = self.get(id) {
            return Ok(group);
        }
        if leaving.contains(&id) {
            return Err(StartError::Leaving(id));
        }
        self.host_now(id).await
    }

    /// Opens the group, which is not hosted, and shows it to the firing.
    pub(super) async fn host_now(&self, id: GroupId) -> Result<Group, StartError> {
        self.0.installs.forget(id);
        let group = self.open(id).await?;
        *self.0.slots[usize::from(id.0)].write() = Some(group.clone());
        // There is room for every group, and each is sent once; nobody may want to know any more when the node stops.
        let _ = self.0.hosted.try_send(group.clone());
        Ok(group)
    }

    /// Stops every group; what was acknowledged is on disk already.
    pub async fn shutdown(&self) {
        for group in self.iter() {
            group.end().await;
            group.flush();
        }
    }

    async fn open(&self, id: GroupId) -> Result<Group, StartError> {
        let parts = &self.0.parts;
        install::resume(&parts.kv, parts.count, id, &parts.spools, &parts.blocking).await?;
        let (store, meta) = GroupStore::open(parts.kv.clone(), parts.count, id)?;
        let store = Arc::new(store);
        let machine = GroupMachine::new(
            store.clone(),
            &meta,
            parts.hook.clone(),
            parts.failure.clone(),
            parts.blocking.clone(),
        )?;
        compare(&parts.wal, &machine, parts.node, id)?;
        let had = leave::before(parts, id).await?;
        let log = GroupLog::new(parts.wal.clone(), id, parts.blocking.clone());
        let peers = Peers::new(parts.call.clone(), parts.metrics.clone(), parts.blocking.clone());
        let network = GroupNetwork::new(peers, id);
        let raft = RaftGroup::new(parts.node, self.0.config.clone(), network, log, machine.clone())
            .await
            .map_err(refused(id))?;
        let proposer = Proposer::spawn(raft.clone(), parts.metrics.clone());
        let (claims, leadership) = watch::channel(None);
        let is_ending = Arc::<AtomicBool>::default();
        tokio::spawn(follow_leadership(
            raft.clone(),
            proposer.clone(),
            claims,
            parts.failure.clone(),
            parts.metrics.clone(),
            is_ending.clone(),
        ));
        let lease = Duration::from_millis(ELECTION_MS.1);
        let group = Group::new(Built {
            raft,
            machine,
            store,
            proposer,
            leadership,
            lease,
            suspension: self.0.suspension.clone(),
            had,
            is_ending,
            metrics: parts.metrics.clone(),
        });
        self.wait_for_lease(&group, lease).await?;
        Ok(group)
    }

    /// Lets a copy that comes back stand for no election before the lease is over that the process before this one may have
    /// confirmed to a leader. For votes asked of it, see [`Group::is_bound`].
    async fn wait_for_lease(&self, group: &Group, lease: Duration) -> Result<(), StartError> {
        let raft = group.raft();
        if group.is_alone() || !raft.is_initialized().await.map_err(refused(group.id()))? {
            return Ok(());
        }
        raft.runtime_config().elect(false);
        let raft = raft.clone();
        tokio::spawn(async move {
            tokio::time::sleep(lease).await;
            raft.runtime_config().elect(true);
        });
        Ok(())
    }

    async fn begin(&self, group: &Group, is_birth: bool) -> Result<(), StartError> {
        let (raft, node) = (group.raft(), self.0.parts.node);
        let id = group.id();
        if raft.is_initialized().await.map_err(refused(id))? {
            // A sole voter needs nobody's vote: waiting for the election timeout would only delay the first fire.
            if group.is_alone() {
                raft.trigger().elect(false).await.map_err(refused(id))?;
            }
        } else if is_birth {
            raft.initialize(BTreeSet::from([node])).await.map_err(refused(id))?;
        }
        Ok(())
    }
}

pub(super) fn refused<E: ToString>(group: GroupId) -> impl FnOnce(E) -> StartError {
    move |error| StartError::Raft {
        group,
        what: error.to_string(),
    }
}

fn config(snapshot_entries: u64) -> Config {
    let config = Config {
        cluster_name: "xcron".into(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS.0,
        election_timeout_max: ELECTION_MS.1,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_entries),
        max_in_snapshot_log_to_keep: ENTRIES_KEPT.min(snapshot_entries),
        replication_lag_threshold: 2 * snapshot_entries,
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        api_batch_capacity: PROPOSALS_AT_ONCE_MAX,
        log_stage_capacity: Some(PROPOSALS_AT_ONCE_MAX),
        ..Config::default()
    };
    config.validate().expect("constant settings are valid")
}

/// The log and the state must overlap: a gap between them is acknowledged data that is gone.
fn compare(wal: &Wal, machine: &GroupMachine, node: NodeId, group: GroupId) -> Result<(), StartError> {
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
    // Where other nodes vote as well, they may have committed what this node's log did not have on disk yet: what it applied
    // of that stands, and openraft lets the log go on behind it. What it promised itself, the log stream has judged.
    if machine.is_sole_voter(node)
        && let Some(applied) = applied
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

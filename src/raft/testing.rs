//! A cluster of replicas in one process, with a network between them that loses what a test wants.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::blocking::Threads;
use crate::clock::{Clock, SystemClock};
use crate::core::command::{Op, Reply};
use crate::core::machine::{Changes, GroupState, View};
use crate::core::record;
use crate::core::target::Target;
use crate::core::task::{Delivery, Schedule, TaskSpec};
use crate::failure::Failure;
use crate::id::{GroupCount, GroupId, NodeId, TaskId};
use crate::metrics::Metrics;
use crate::net::{CallError, Handle, Service};
use crate::peer::{BoxFuture, Call};
use crate::raft::groups::Parts;
use crate::raft::wire::{self, Request};
use crate::raft::{AppliedHook, Group, Groups, SNAPSHOT_ENTRIES, Standing};
use crate::store::fjall_kv::FjallKv;
use crate::store::{DirSpools, Kv, Spools};
use crate::wal::{self, Wal};

/// The only group.
pub const GROUP: GroupId = GroupId(0);
/// How long a test waits for what must come about.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether a call passes, from the first node to the second; replicas' requests are readable.
type Rule = dyn Fn(NodeId, NodeId, Option<&Request>) -> bool + Send + Sync;

/// The network.
#[derive(Default)]
pub struct Net {
    handlers: Mutex<BTreeMap<NodeId, Arc<dyn Handle>>>,
    rule: Mutex<Option<Arc<Rule>>>,
    /// Hears nobody, neither calls nor answers.
    deaf: Mutex<Option<NodeId>>,
}

impl Net {
    /// From now on only what this says passes.
    pub fn only(&self, rule: impl Fn(NodeId, NodeId, Option<&Request>) -> bool + Send + Sync + 'static) {
        *self.rule.lock() = Some(Arc::new(rule));
    }

    /// From now on this node hears nobody, and all hear it.
    pub fn deafen(&self, node: NodeId) {
        *self.deaf.lock() = Some(node);
    }

    /// Everything passes.
    pub fn heal(&self) {
        *self.rule.lock() = None;
        *self.deaf.lock() = None;
    }

    /// Who answers for a node.
    pub fn serve(&self, node: NodeId, handler: Arc<dyn Handle>) {
        self.handlers.lock().insert(node, handler);
    }

    /// The node is gone.
    pub fn lose(&self, node: NodeId) {
        self.handlers.lock().remove(&node);
    }
}

/// One node's way to the others.
pub struct Endpoint(pub Arc<Net>, pub NodeId);

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint({})", self.1)
    }
}

impl Call for Endpoint {
    fn call(
        &self,
        to: NodeId,
        service: Service,
        request: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, CallError>> {
        Box::pin(async move {
            let handler = self.0.handlers.lock().get(&to).cloned();
            let rule = self.0.rule.lock().clone();
            let raft = (service == Service::Raft).then(|| wire::decode_request(&request).expect("own bytes").1);
            let passes = rule.is_none_or(|rule| rule(self.1, to, raft.as_ref()));
            let deaf = *self.0.deaf.lock();
            let Some(handler) = handler.filter(|_| passes && deaf != Some(to)) else {
                return Err(CallError::NotSent("lost".into()));
            };
            let answer = tokio::time::timeout(deadline, handler.handle(self.1, service, request)).await;
            if deaf == Some(self.1) {
                return Err(CallError::Unknown("lost".into()));
            }
            answer.map_err(|_| CallError::Unknown("late".into()))
        })
    }
}

struct Replica(Groups);

impl Handle for Replica {
    fn handle(&self, from: NodeId, _: Service, request: Bytes) -> futures_util::future::BoxFuture<'_, Bytes> {
        Box::pin(async move { self.0.answer(from, &request).await })
    }
}

#[derive(Debug)]
struct Nothing;

impl AppliedHook for Nothing {
    fn applied(&self, _: GroupId, _: &GroupState, _: &Changes) {}
}

impl wal::Observe for Nothing {
    fn synced(&self, _: u64, _: usize, _: usize, _: Duration) {}
}

/// The clock of a machine that may sleep.
#[derive(Debug, Default)]
pub struct SleepingClock {
    awake: SystemClock,
    slept_ms: AtomicU64,
}

impl SleepingClock {
    /// The machine sleeps, and no time passes for what runs on it.
    pub fn sleep(&self, slept: Duration) {
        let slept_ms = u64::try_from(slept.as_millis()).expect("short");
        self.slept_ms.fetch_add(slept_ms, Ordering::SeqCst);
    }
}

impl Clock for SleepingClock {
    fn wall_ms(&self) -> u64 {
        self.awake.wall_ms()
    }

    fn monotonic(&self) -> Duration {
        self.awake.monotonic() + Duration::from_millis(self.slept_ms.load(Ordering::SeqCst))
    }
}

/// A node's disk, which outlives its replicas.
pub struct Disk {
    /// The log stream.
    pub wal: Wal,
    /// The rows.
    pub kv: Arc<dyn Kv>,
    /// The snapshots on their way.
    pub spools: Arc<dyn Spools>,
    /// The fault of the node, if it had one.
    pub failure: Failure,
    /// A clock that goes on while the machine sleeps.
    pub clock: Arc<SleepingClock>,
    _directory: tempfile::TempDir,
}

impl Default for Disk {
    /// An empty disk.
    fn default() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = |name| directory.path().join(name);
        std::fs::create_dir(path("log")).expect("a fresh directory");
        let files = wal::DirFiles::open(&path("log")).expect("a fresh directory");
        let clock = Arc::new(SystemClock::default());
        let options = wal::Options {
            segment_bytes: 1 << 20,
            ..wal::Options::default()
        };
        let (wal, writer) = wal::open(Arc::new(files), options, clock, Arc::new(Nothing)).expect("an empty log");
        std::thread::spawn(move || drop(writer.run()));
        Self {
            wal,
            kv: Arc::new(FjallKv::open(&path("state"), 8 << 20, 900).expect("an empty store")),
            spools: Arc::new(DirSpools::open(&path("incoming")).expect("a fresh directory")),
            failure: Failure::default(),
            clock: Arc::default(),
            _directory: directory,
        }
    }
}

impl Disk {
    /// What groups on this disk are built on.
    pub fn parts(&self, net: &Arc<Net>, node: NodeId) -> Parts {
        Parts {
            node,
            wal: self.wal.clone(),
            kv: self.kv.clone(),
            spools: self.spools.clone(),
            blocking: Arc::new(Threads::start().expect("threads")),
            count: GroupCount::new(1).expect("a divisor"),
            snapshot_entries: SNAPSHOT_ENTRIES,
            hook: Arc::new(Nothing),
            call: Arc::new(Endpoint(net.clone(), node)),
            failure: self.failure.clone(),
            metrics: Arc::new(Metrics::default()),
            clock: self.clock.clone(),
        }
    }

    /// Starts the replicas of the node on this disk.
    pub async fn start(&self, net: &Arc<Net>, node: NodeId, is_birth: bool) -> Groups {
        let (groups, _) = Groups::start(self.parts(net, node), is_birth).await.expect("starts");
        net.serve(node, Arc::new(Replica(groups.clone())));
        groups
    }
}

/// All nodes are well, and one copy is enough: a test may make any change that leaves somebody.
pub fn any_change() -> Standing {
    Standing {
        alive: (1..=9).collect(),
        draining: BTreeSet::new(),
        replicas: 1,
    }
}

/// Nodes 1, 2, ... each with its disk; node 1 is the first to lead.
pub struct Cluster {
    /// The network.
    pub net: Arc<Net>,
    /// The nodes' disks.
    pub disks: BTreeMap<NodeId, Disk>,
    /// The nodes' replicas.
    pub groups: BTreeMap<NodeId, Groups>,
}

impl Cluster {
    /// So many nodes, the first `voters` of which vote; the others have no copy.
    pub async fn start(nodes: NodeId, voters: NodeId) -> Self {
        let net = Arc::<Net>::default();
        let (mut disks, mut groups) = (BTreeMap::new(), BTreeMap::new());
        for node in 1..=nodes {
            let disk = Disk::default();
            groups.insert(node, disk.start(&net, node, node == 1).await);
            disks.insert(node, disk);
        }
        let cluster = Self { net, disks, groups };
        cluster.leader().await;
        for node in 2..=voters {
            cluster.join(1, node).await;
        }
        if voters > 1 {
            let changed = cluster.copy(1).set_voters((1..=voters).collect(), &any_change()).await;
            changed.expect("everybody is there");
        }
        cluster
    }

    /// Makes `node` a learner, and waits until it has caught up.
    pub async fn join(&self, leader: NodeId, node: NodeId) {
        self.copy(leader).add_learner(node).await.expect("the leader leads");
        eventually("the learner catches up", || {
            let members = self.copy(leader).members();
            members
                .members
                .get(&node)
                .filter(|member| member.lag == Some(0))
                .map(drop)
        })
        .await;
    }

    /// The node's copy of the group.
    pub fn copy(&self, node: NodeId) -> Group {
        self.groups[&node].get(GROUP).expect("it has a copy")
    }

    /// A node that may act as the leader.
    pub async fn leader(&self) -> NodeId {
        eventually("a leader", || {
            let mut groups = self.groups.iter();
            let leads = |groups: &Groups| {
                groups
                    .get(GROUP)
                    .is_some_and(|group| group.leads().is_some() && group.may_act())
            };
            groups.find(|(_, groups)| leads(groups)).map(|(node, _)| *node)
        })
        .await
    }

    /// Stops a node's replicas and starts them again on what they have left.
    pub async fn restart(&mut self, node: NodeId) {
        self.net.lose(node);
        self.groups[&node].shutdown().await;
        let again = self.disks[&node].start(&self.net, node, false).await;
        self.groups.insert(node, again);
    }
}

/// Stores a task through the copy that leads.
pub async fn create(group: &Group, id: &str) -> bool {
    let id = TaskId::parse(id).expect("valid");
    let spec = record::encode_spec(&TaskSpec {
        id: id.clone(),
        schedule: Schedule::Once { at_ms: 1 << 41 },
        url: "http://x/".into(),
        body: b"{}".to_vec(),
        created_ms: 1,
        delivery: Delivery::AtLeastOnce,
        revision: 1,
    });
    let op = Op::Create {
        key: id.key(),
        spec: &spec,
        due_ms: 1 << 41,
        target: Target::default(),
    };
    let done = tokio::time::timeout(Duration::from_secs(2), group.proposer().propose(&op)).await;
    matches!(done, Ok(Ok(Reply::Done)))
}

/// Whether the copy's rows have the task.
pub fn has(group: &Group, id: &str) -> bool {
    let key = TaskId::parse(id).expect("valid").key();
    group.store().state(key).expect("readable").is_some()
}

/// Waits until there is something.
pub async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let waited = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, waited).await;
    found.unwrap_or_else(|_| panic!("it never came about: {what}"))
}

//! The composition root: puts a node together, runs it, and ends it in order.
//!
//! Everything that touches the outside world comes in through [`World`]; `serve` gives the real one, a simulation its own.

mod enter;
mod found;
mod front;
mod judge;
mod memory;
mod observers;
mod recover;
mod time;
mod trusted_time;
mod world;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api;
use crate::clock::Clock;
use crate::cluster::{self, Cluster, Nodes};
use crate::config::Config;
use crate::entropy::Entropy;
use crate::failure::Failure;
use crate::fire::deliver::DeliverBuildError;
use crate::fire::dispatch::{self, Dispatcher};
use crate::fire::firing::{self, Firing};
use crate::fire::queues::QueueLimits;
use crate::fire::windows::Windows;
use crate::identity::{Home, Identity, IdentityError, Stage};
use crate::membership::ClusterView;
use crate::metrics::Metrics;
use crate::net::{self, Peers};
use crate::peer::{Call, NoPeers};
use crate::placement::{self, Placement};
use crate::raft::{self, Groups};
use crate::readiness::Readiness;
use crate::router::{self, Replicas, Router};
use crate::space::Space;
use crate::steady::Steady;
use crate::store::KvError;
use crate::wal::{self, Wal, WalError};

use observers::{Answers, ApiMetrics, LogMetrics, PeerMetrics};

pub use enter::{Doorway, EnterError, Entered, Entrance, enter};
pub use front::{Shown, Waiting, waiting};
pub use recover::{Offline, Survey};
pub use world::{Basics, LogWorld, PeerWorld, World, listen, note_damage};

use front::Front;
use judge::{Unserved, Watched};
use memory::Memory;
use time::{steady, watch_time};

/// How long a node that was told to stop hands over what it leads.
const HAND_OVER: Duration = Duration::from_secs(2);
/// How long a node that was told to stop waits for changes of members that have begun.
const SETTLE: Duration = Duration::from_secs(2);
/// How long open requests may take to end after the node was told to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// Time that is left for closing the groups, whatever a stop still waits for.
const CLOSE: Duration = Duration::from_millis(500);
/// How long an answer may take to leave after the router's deadline.
const ANSWER_GRACE: Duration = Duration::from_secs(2);
/// How often the store is asked whether it still takes writes.
const STORE_LOOK: Duration = Duration::from_secs(1);

/// Why a node did not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The node does not get into its cluster.
    #[error(transparent)]
    Enter(#[from] EnterError),
    /// The peers' address cannot be used.
    #[error("cannot listen on {address} for other nodes: {error}; choose another address with --peer-listen")]
    PeerListen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        error: std::io::Error,
    },
    /// The log is damaged or cannot be opened.
    #[error(transparent)]
    Log(#[from] wal::OpenError),
    /// The state is damaged or cannot be opened.
    #[error(transparent)]
    State(#[from] KvError),
    /// The groups do not start.
    #[error(transparent)]
    Groups(#[from] raft::StartError),
    /// The HTTP client cannot be built.
    #[error(transparent)]
    Deliver(#[from] DeliverBuildError),
    /// A thread cannot be started.
    #[error("cannot start a thread for the disk: {0}")]
    Thread(std::io::Error),
    /// A fault while running: what was acknowledged is on disk, and nothing was acknowledged after the fault.
    #[error(
        "the node has stopped itself: {0}. Everything it acknowledged is on disk; repair the cause and start it again"
    )]
    Fault(String),
}

/// Runs a node until `shutdown` completes, it has handed everything over, or a fault ends it. `open` completes once it knows
/// who it is; until then it answers that it waits, as `shown` says. `ready` is called once every group is led and the node
/// serves.
pub async fn run<L: api::Listen, P: net::Listen>(
    config: Config,
    basics: Basics,
    shown: Shown,
    open: impl Future<Output = Result<World<P>, NodeError>>,
    listener: L,
    ready: impl FnOnce(),
    shutdown: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let mut shutdown = pin!(shutdown);
    let front = Front::start(&config, &basics, shown, listener);
    let world = tokio::select! {
        biased;
        () = &mut shutdown => {
            tracing::info!("stopped before it was in a cluster");
            front.stop().await;
            return Ok(());
        }
        world = open => world?,
    };
    let memory = world.peers.as_ref().map(|peers| peers.memory.clone());
    let node = Node::start(config, world).await?;
    node.home.note_sound()?;
    let (readiness, readiness_seen) = watch::channel(Readiness::Starting);
    front.show(node.api(readiness_seen));
    let serving = node.watched().judge(&readiness, ready);
    let result = tokio::select! {
        biased;
        fault = node.failure.wait() => Err(NodeError::Fault(fault)),
        error = forgotten(memory.as_ref(), node.home.as_ref()) => Err(error),
        twin = node.cluster.twin() => Err(EnterError::twin(node.groups.node(), &twin).into()),
        () = &mut shutdown => Ok(Reason::Told),
        never = serving => match never {},
        () = node.cluster.drained() => {
            tracing::info!("everything is handed over: this node ends");
            Ok(Reason::Drained)
        }
    };
    let why = result
        .as_ref()
        .err()
        .map_or("the node is stopping".to_owned(), ToString::to_string);
    readiness.send_replace(Readiness::NotReady(why));
    node.metrics.set_ready(false);
    let failure = node.failure.clone();
    match &result {
        Ok(reason) => node.stop(*reason, front).await,
        Err(_) => drop(front.stop()),
    }
    // A fault in the middle of an ordered stop is a fault.
    match failure.get() {
        Some(fault) => Err(NodeError::Fault(fault)),
        None => result.map(drop),
    }
}

/// Completes when other nodes have seen this one further on than it is, or when what it hears of them cannot be kept.
async fn forgotten(memory: Option<&Memory>, home: &dyn Home) -> NodeError {
    let Some(memory) = memory else {
        return std::future::pending().await;
    };
    tokio::select! {
        biased;
        () = memory.until_superseded() => enter::mark_superseded(home).into(),
        fault = memory.until_failed() => NodeError::Fault(fault),
    }
}

/// Why a node ends in order.
#[derive(Clone, Copy, Debug)]
enum Reason {
    /// It was told to.
    Told,
    /// It was drained: it leads nothing and holds nothing any more.
    Drained,
}

/// The parts of a running node that more than one function needs.
struct Node {
    config: Config,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    metrics: Arc<Metrics>,
    failure: Failure,
    groups: Groups,
    router: Arc<Router>,
    cluster: Cluster,
    windows: Windows,
    dispatcher: Dispatcher,
    firing: Firing,
    view: watch::Receiver<Arc<ClusterView>>,
    /// It has no peers.
    is_alone: bool,
    steady: Steady,
    unserved: Arc<Mutex<Unserved>>,
    /// Peers' server and gossip's news: they end when the node does.
    _loops: JoinSet<()>,
    /// The disk's, as well.
    _watches: JoinSet<()>,
    /// Placement.
    moving: JoinSet<()>,
    home: Arc<dyn Home>,
}

impl Node {
    /// Recovers what is on disk, starts the groups, their firing, and this node's part in the cluster.
    async fn start<P: net::Listen>(config: Config, mut world: World<P>) -> Result<Self, NodeError> {
        found::warn_of_groups(&config, world.identity.groups);
        let metrics = world.metrics.clone();
        let failure = Failure::default();
        let windows = Windows::new(world.identity.groups, metrics.clone());
        let steady = steady(&config, &world, &metrics);
        let (local, peers) = peers(&world, &metrics).unzip();
        let call: Arc<dyn Call> = peers.clone().map_or(Arc::new(NoPeers), |peers| Arc::new(peers));
        let parts = raft::groups::Parts {
            node: world.identity.node,
            wal: open_log(&world, &metrics, &failure)?,
            kv: world.kv.clone(),
            spools: world.spools.clone(),
            blocking: world.blocking.clone(),
            count: world.identity.groups,
            snapshot_entries: world.log.snapshot_entries,
            hook: Arc::new(windows.clone()),
            call: call.clone(),
            failure: failure.clone(),
            metrics: metrics.clone(),
            clock: world.clock.clone(),
        };
        let is_birth = world.identity.stage == Stage::Founding;
        let (groups, hosted) = Groups::start(parts, is_birth).await?;
        settled(&world)?;
        let dispatcher = dispatcher(&config, &world, &groups, &windows, &steady, &metrics, &failure);
        let parts = firing_parts(&config, &world, &windows, &dispatcher, &steady, &failure);
        let firing = Firing::start(parts, hosted);
        let mut watches = JoinSet::new();
        let space = watch_disk(&world, &failure, &mut watches);
        let replicas = replicas(&config, &world, &groups, space);
        let router = router(&config, &world, &replicas, &call);
        let cluster = part_in_cluster(&config, &world, &groups, (call, peers), &steady);
        let is_alone = world.peers.is_none();
        let (mut loops, moving) =
            cluster_loops(&config, &mut world, local, &groups, replicas, &cluster, steady.clone());
        watch_time(&mut loops, &groups, &world, &steady, &failure);
        Ok(Self {
            config,
            clock: world.clock,
            entropy: world.entropy,
            metrics,
            failure,
            groups,
            router: Arc::new(router),
            cluster,
            windows,
            dispatcher,
            firing,
            view: world.view,
            is_alone,
            steady,
            unserved: Arc::default(),
            _loops: loops,
            _watches: watches,
            moving,
            home: world.home,
        })
    }

    /// Ends in order, within the time that the reason gives.
    async fn stop(mut self, reason: Reason, front: Front) {
        // An attempt ends by its own timeout at the latest.
        let attempt = Duration::from_millis(self.config.fire.timeout_ms) + DRAIN;
        let longest = match reason {
            Reason::Told => Duration::from_millis(self.config.stop_timeout_ms),
            Reason::Drained => HAND_OVER + attempt + DRAIN,
        };
        let end = self.clock.monotonic() + longest;
        let left = || end.saturating_sub(self.clock.monotonic());
        // Others lead before this node falls silent. Its clients are served until then.
        self.cluster.settle_members(SETTLE.min(left())).await;
        self.moving.shutdown().await;
        self.cluster.hand_everything_over(HAND_OVER.min(left())).await;
        // At once, or the others hand back to a node that they take for the best.
        self.cluster.say_goodbye().await;
        let api = front.stop();
        // What is led elsewhere now cannot be recorded here.
        let leads = self.groups.iter().any(|group| group.leads().is_some());
        let longest = if leads { attempt } else { DRAIN };
        if let (_, in_flight @ 1..) = self.dispatcher.load() {
            tracing::info!(in_flight, "waiting for the callbacks in flight");
        }
        self.firing.stop(longest.min(left().saturating_sub(CLOSE))).await;
        // Requests that are not answered by then are cut: their clients must take the outcome as unknown.
        drop(tokio::time::timeout(DRAIN.min(left().saturating_sub(CLOSE)), api).await);
        if tokio::time::timeout(left().max(CLOSE), self.groups.shutdown())
            .await
            .is_err()
        {
            tracing::warn!("the groups did not end in time: what they acknowledged is on disk");
        }
    }

    /// What `/readyz` and the gauges are judged by.
    fn watched(&self) -> Watched {
        Watched {
            groups: self.groups.clone(),
            router: self.router.clone(),
            view: self.view.clone(),
            clock: self.clock.clone(),
            steady: self.steady.clone(),
            metrics: self.metrics.clone(),
            failure: self.failure.clone(),
            copies: if self.is_alone { 1 } else { self.config.replicas.into() },
            unserved: self.unserved.clone(),
        }
    }

    /// The whole API over this node.
    fn api(&self, readiness: watch::Receiver<Readiness>) -> api::App {
        api::app(api::ApiState {
            tasks: self.router.clone(),
            cluster: Arc::new(self.cluster.clone()),
            clock: self.clock.clone(),
            entropy: self.entropy.clone(),
            readiness,
            metrics_text: self.metrics_text(),
            observe: Arc::new(ApiMetrics(self.metrics.clone())),
        })
    }

    /// Encodes the metrics; gauges of the moment are set just before.
    fn metrics_text(&self) -> Arc<dyn Fn() -> String + Send + Sync> {
        let (metrics, groups, windows) = (self.metrics.clone(), self.groups.clone(), self.windows.clone());
        let (dispatcher, clock) = (self.dispatcher.clone(), self.clock.clone());
        let unserved = self.unserved.clone();
        Arc::new(move || {
            let (queued, in_flight) = dispatcher.load();
            metrics.set_fires_queued(queued);
            metrics.set_fires_in_flight(in_flight);
            let now_ms = clock.wall_ms();
            let unserved = *unserved.lock();
            metrics.set_fires_overdue(windows.overdue(now_ms) + queued + unserved.overdue);
            let unserved_ms = unserved.oldest_ms.map_or(0, |at_ms| now_ms.saturating_sub(at_ms));
            metrics.set_fires_behind_ms(windows.behind_ms(now_ms).max(unserved_ms));
            // Copies that this node does not lead are counted where they are led.
            let led = groups.iter().filter(|group| group.leads().is_some());
            metrics.set_tasks_pending(led.map(|group| group.pending()).sum());
            metrics.encode()
        })
    }
}

/// How this node presents itself to its peers, and the way to them; `None` for a node alone.
fn peers<P>(world: &World<P>, metrics: &Arc<Metrics>) -> Option<(Arc<net::Local>, Peers)> {
    let peers = world.peers.as_ref()?;
    let local = Arc::new(net::Local {
        node: world.identity.node,
        cluster: world.identity.cluster,
        secret: peers.secret.clone(),
        clock: world.clock.clone(),
        entropy: world.entropy.clone(),
        observe: Arc::new(PeerMetrics(metrics.clone())),
        memory: Arc::new(peers.memory.clone()),
    });
    let calls = Peers::new(net::Parts {
        local: local.clone(),
        addresses: Arc::new(Nodes(world.view.clone())),
        dialer: peers.dialer.clone(),
    });
    Some((local, calls))
}

/// This node's part in the cluster as a whole.
fn part_in_cluster<P>(
    config: &Config,
    world: &World<P>,
    groups: &Groups,
    (call, peers): (Arc<dyn Call>, Option<Peers>),
    steady: &Steady,
) -> Cluster {
    Cluster::new(cluster::Parts {
        node: world.identity.node,
        cluster: world.identity.cluster,
        view: world.view.clone(),
        gossip: world.peers.as_ref().map(|peers| peers.membership.clone()),
        groups: groups.clone(),
        call,
        peers,
        metrics: world.metrics.clone(),
        clock: world.clock.clone(),
        steady: steady.clone(),
        replace_after_ms: config.replace_after_secs * 1_000,
        stopping: Arc::default(),
    })
}

/// This node's part in the cluster: answers its peers, tells what it leads; and, of its own, walks its groups to the plan.
fn cluster_loops<P: net::Listen>(
    config: &Config,
    world: &mut World<P>,
    local: Option<Arc<net::Local>>,
    groups: &Groups,
    replicas: Replicas,
    cluster: &Cluster,
    steady: Steady,
) -> (JoinSet<()>, JoinSet<()>) {
    let (mut loops, mut moving) = (JoinSet::new(), JoinSet::new());
    loops.spawn(cluster.clone().watch_clock());
    let (Some(peers), Some(local)) = (world.peers.take(), local) else {
        return (loops, moving);
    };
    let answers = Answers {
        groups: groups.clone(),
        replicas,
        cluster: cluster.clone(),
    };
    loops.spawn(peers.memory.clone().keep());
    loops.spawn(peers.memory.follow(world.view.clone()));
    let limits = net::DoorLimits::of_files(config.files.peers);
    loops.spawn(async move {
        if let Some(listener) = peers.listener.end().await {
            net::serve(listener, local, Arc::new(answers), limits, std::future::pending()).await;
        }
    });
    loops.spawn(cluster.clone().publish());
    loops.spawn(cluster::tell_of_nodes(world.view.clone()));
    loops.spawn(raft::end_deaf_terms(groups.clone()));
    let placement = Placement::new(placement::Parts {
        node: world.identity.node,
        groups: groups.clone(),
        view: world.view.clone(),
        clock: world.clock.clone(),
        steady,
        replace_after_ms: config.replace_after_secs * 1_000,
        callback: Duration::from_millis(config.fire.timeout_ms),
        stopping: cluster.stopping(),
    });
    moving.spawn(placement.run());
    moving.spawn(placement::let_lost_copies_go(groups.clone(), world.view.clone()));
    (loops, moving)
}

/// What the firing works with.
fn firing_parts<P>(
    config: &Config,
    world: &World<P>,
    windows: &Windows,
    dispatcher: &Dispatcher,
    steady: &Steady,
    failure: &Failure,
) -> firing::Parts {
    firing::Parts {
        windows: windows.clone(),
        dispatcher: dispatcher.clone(),
        clock: world.clock.clone(),
        steady: steady.clone(),
        failure: failure.clone(),
        blocking: world.blocking.clone(),
        metrics: world.metrics.clone(),
        window_ms: config.fire.window_ms,
        window_tasks_max: config.fire.window_tasks_max as usize,
        count: world.identity.groups,
    }
}

/// From now on a log that is missing is lost, and a group that is missing lives elsewhere: neither must be made anew.
fn settled<P>(world: &World<P>) -> Result<(), NodeError> {
    if world.identity.stage == Stage::Settled {
        return Ok(());
    }
    let settled = Identity {
        stage: Stage::Settled,
        ..world.identity.clone()
    };
    Ok(world.home.keep(&settled)?)
}

/// The room on the disk, as it is now and as it will be, and the store's own failures, also where nobody writes.
fn watch_disk<P>(world: &World<P>, failure: &Failure, loops: &mut JoinSet<()>) -> Space {
    let space = Space::default();
    if let Ok(room) = world.disk.room() {
        space.see(room, &world.metrics);
    }
    let (disk, blocking, metrics) = (world.disk.clone(), world.blocking.clone(), world.metrics.clone());
    loops.spawn(space.clone().watch(disk, blocking, metrics));
    let (kv, blocking, failure) = (world.kv.clone(), world.blocking.clone(), failure.clone());
    loops.spawn(async move {
        loop {
            let asked = kv.clone();
            if let Err(error) = blocking.run(move || asked.check()).await {
                return failure.report(error.to_string());
            }
            tokio::time::sleep(STORE_LOOK).await;
        }
    });
    space
}

fn replicas<P: net::Listen>(config: &Config, world: &World<P>, groups: &Groups, space: Space) -> Replicas {
    Replicas::new(
        groups.clone(),
        Duration::from_millis(config.request_timeout_ms),
        Arc::new(Nodes(world.view.clone())),
        world.clock.clone(),
        space,
    )
}

fn router<P>(config: &Config, world: &World<P>, replicas: &Replicas, call: &Arc<dyn Call>) -> Router {
    Router::new(router::Parts {
        node: world.identity.node,
        replicas: replicas.clone(),
        call: call.clone(),
        hints: Arc::new(Nodes(world.view.clone())),
        clock: world.clock.clone(),
        entropy: world.entropy.clone(),
        retention_ms: config.retention_secs * 1_000,
    })
}

fn dispatcher<P>(
    config: &Config,
    world: &World<P>,
    groups: &Groups,
    windows: &Windows,
    steady: &Steady,
    metrics: &Arc<Metrics>,
    failure: &Failure,
) -> Dispatcher {
    Dispatcher::new(dispatch::Parts {
        groups: groups.clone(),
        windows: windows.clone(),
        limits: QueueLimits {
            in_flight_max: config.fire.in_flight_max as usize,
            in_flight_per_target_max: config.fire.in_flight_per_target_max as usize,
        },
        deliver: world.deliver.clone(),
        retry: config.retry.into(),
        retention_ms: config.retention_secs * 1_000,
        clock: world.clock.clone(),
        steady: steady.clone(),
        entropy: world.entropy.clone(),
        metrics: metrics.clone(),
        failure: failure.clone(),
    })
}

/// Opens the log stream and starts its writer on a thread of its own: it blocks on the disk.
fn open_log<P>(world: &World<P>, metrics: &Arc<Metrics>, failure: &Failure) -> Result<Wal, NodeError> {
    let options = wal::Options {
        new_log_id: world.entropy.next_u64(),
        segment_bytes: world.log.segment_bytes,
        ..wal::Options::default()
    };
    let memory = world.peers.as_ref().map(|peers| peers.memory.clone());
    let observe = Arc::new(LogMetrics(metrics.clone(), memory.clone()));
    let (wal, writer) = wal::open(world.log.files.clone(), options, world.clock.clone(), observe)?;
    if let Some(memory) = memory {
        memory.log_is_at(wal.recovered_lsn());
    }
    let failure = failure.clone();
    let ended = move |error: Option<WalError>| {
        if let Some(error) = error {
            failure.report(error.to_string());
        }
    };
    world
        .log
        .runner
        .start(writer, Box::new(ended))
        .map_err(NodeError::Thread)?;
    Ok(wal)
}

#[cfg(test)]
mod tests;

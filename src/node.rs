//! The composition root: puts a node together, runs it, and ends it in order.
//!
//! Everything that touches the outside world comes in through [`World`]; `serve` gives the real one, a simulation its own.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::api;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::entropy::{Entropy, SystemEntropy};
use crate::failure::Failure;
use crate::fire::deliver::{Deliver, DeliverBuildError, DeliverOptions, HttpDeliver};
use crate::fire::dispatch::{self, Dispatcher};
use crate::fire::group::GroupFiring;
use crate::fire::queues::QueueLimits;
use crate::fire::windows::Windows;
use crate::identity::{DataDirectory, Identity, IdentityError};
use crate::limits::IDLE_PER_TARGET_MAX;
use crate::metrics::Metrics;
use crate::raft::{self, Groups};
use crate::readiness::Readiness;
use crate::router::Router;
use crate::store::fjall_kv::FjallKv;
use crate::store::{Kv, KvError};
use crate::wal::{self, Wal};

/// How long open requests may take to end after the node was told to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// How long an answer may take to leave after the router's deadline.
const ANSWER_GRACE: Duration = Duration::from_secs(2);
/// A group's window holds at least so many entries, whatever the setting says.
const WINDOW_ENTRIES_MIN: usize = 64;

/// Why a node did not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
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
    /// The log's thread cannot be started.
    #[error("cannot start the log's thread: {0}")]
    Thread(std::io::Error),
    /// A fault while running: what was acknowledged is on disk, and nothing was acknowledged after the fault.
    #[error(
        "the node has stopped itself: {0}. Everything it acknowledged is on disk; repair the cause and start it again"
    )]
    Fault(String),
}

/// Everything outside the node.
pub struct World {
    /// Wall and monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Random numbers.
    pub entropy: Arc<dyn Entropy>,
    /// The way to the callbacks' targets.
    pub deliver: Arc<dyn Deliver>,
    /// Who this node is.
    pub identity: Identity,
    /// Where the log stream's files live.
    pub log_files: Arc<dyn wal::Files>,
    /// Where the state lives.
    pub kv: Arc<dyn Kv>,
    /// Held while the node runs: the lock on the data directory.
    pub data: Option<DataDirectory>,
}

impl World {
    /// The real world: this machine's clock, network and the configured data directory.
    pub fn open(config: &Config) -> Result<Self, NodeError> {
        let clock = Arc::new(SystemClock::default());
        let entropy = Arc::new(SystemEntropy::default());
        let deliver = HttpDeliver::new(&DeliverOptions {
            timeout_ms: config.fire.timeout_ms,
            connect_timeout_ms: config.fire.connect_timeout_ms,
            idle_per_target: (config.fire.in_flight_per_target_max as usize).min(IDLE_PER_TARGET_MAX),
            extra_roots_pem: None,
        })?;
        let data = DataDirectory::open(&config.data)?;
        if config.rejoin
            && let Some(aside) = data.set_aside(clock.wall_ms() / 1_000)?
        {
            tracing::warn!(directory = %aside.display(), "the old data was set aside; this node starts as a new one");
        }
        let identity = data.identity(config.groups, entropy.as_ref())?;
        let log_files = Arc::new(data.open_log()?);
        let kv = Arc::new(FjallKv::open(&data.state(), config.store.cache_bytes)?);
        Ok(Self {
            clock,
            entropy,
            deliver: Arc::new(deliver),
            identity,
            log_files,
            kv,
            data: Some(data),
        })
    }
}

/// Runs a node until `shutdown` completes or a fault ends it. `ready` is called once every group is led and the node serves.
pub async fn run<L: api::Listen>(
    config: Config,
    world: World,
    listener: L,
    ready: impl FnOnce(),
    shutdown: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let mut node = Node::start(config, world).await?;
    let (readiness, readiness_seen) = watch::channel(Readiness::Starting);
    let (stop_api, api_stopped) = oneshot::channel::<()>();
    let api = tokio::spawn(node.api(listener, readiness_seen, async move { drop(api_stopped.await) }));
    let serving = async {
        node.groups.all_led().await;
        readiness.send_replace(Readiness::Ready);
        node.metrics.set_ready(true);
        ready();
        shutdown.await;
    };
    let result = tokio::select! {
        biased;
        fault = node.failure.wait() => Err(NodeError::Fault(fault)),
        () = serving => Ok(()),
    };
    let why = result
        .as_ref()
        .err()
        .map_or("the node is stopping".to_owned(), ToString::to_string);
    readiness.send_replace(Readiness::NotReady(why));
    node.metrics.set_ready(false);
    drop(stop_api);
    if result.is_ok() {
        node.stop_firing().await;
        // Requests that are not answered by then are cut: their clients must take the outcome as unknown.
        drop(tokio::time::timeout(DRAIN, api).await);
        node.groups.shutdown().await;
    }
    result
}

/// The parts of a running node that more than one function needs.
struct Node {
    config: Config,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    metrics: Arc<Metrics>,
    failure: Failure,
    groups: Groups,
    windows: Windows,
    dispatcher: Dispatcher,
    firing: JoinSet<()>,
    _data: Option<DataDirectory>,
}

impl Node {
    /// Recovers what is on disk, starts the groups and their firing.
    async fn start(config: Config, world: World) -> Result<Self, NodeError> {
        let metrics = Arc::new(Metrics::default());
        let failure = Failure::default();
        let count = world.identity.groups;
        let wal = open_log(&world, &metrics, &failure)?;
        let windows = Windows::new(count, metrics.clone());
        let groups = Groups::start(raft::groups::Parts {
            node: world.identity.node,
            wal,
            kv: world.kv,
            count,
            hook: Arc::new(windows.clone()),
            failure: failure.clone(),
            metrics: metrics.clone(),
        })
        .await?;
        let dispatcher = Dispatcher::new(dispatch::Parts {
            groups: groups.clone(),
            windows: windows.clone(),
            limits: QueueLimits {
                in_flight_max: config.fire.in_flight_max as usize,
                in_flight_per_target_max: config.fire.in_flight_per_target_max as usize,
            },
            deliver: world.deliver,
            retry: config.retry.into(),
            retention_ms: config.retention_secs * 1_000,
            clock: world.clock.clone(),
            entropy: world.entropy.clone(),
            metrics: metrics.clone(),
            failure: failure.clone(),
        });
        let mut firing = JoinSet::new();
        for group in groups.iter() {
            let group_firing = GroupFiring {
                group: group.clone(),
                windows: windows.clone(),
                dispatcher: dispatcher.clone(),
                clock: world.clock.clone(),
                failure: failure.clone(),
                window_ms: config.fire.window_ms,
                entries_max: (config.fire.window_tasks_max as usize / usize::from(count.get())).max(WINDOW_ENTRIES_MIN),
            };
            firing.spawn(group_firing.run());
        }
        let (clock, entropy) = (world.clock, world.entropy);
        Ok(Self {
            config,
            clock,
            entropy,
            metrics,
            failure,
            groups,
            windows,
            dispatcher,
            firing,
            _data: world.data,
        })
    }

    /// Starts no further attempt, and waits for those in flight and their outcomes: what is cut would be repeated by the
    /// next process. An attempt ends by its own timeout at the latest.
    async fn stop_firing(&mut self) {
        self.firing.shutdown().await;
        self.windows.close_all();
        let longest = Duration::from_millis(self.config.fire.timeout_ms) + DRAIN;
        if tokio::time::timeout(longest, self.dispatcher.idle()).await.is_err() {
            tracing::warn!("stopped with callbacks in flight: the next start repeats them with the same webhook-id");
        }
    }

    /// The API server over this node.
    fn api<L: api::Listen>(
        &self,
        listener: L,
        readiness: watch::Receiver<Readiness>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let deadline = Duration::from_millis(self.config.request_timeout_ms);
        let router = Router::new(
            self.groups.clone(),
            self.clock.clone(),
            self.entropy.clone(),
            self.config.retention_secs * 1_000,
            deadline,
        );
        let observe: Arc<dyn api::ApiObserve> = Arc::new(ApiMetrics(self.metrics.clone()));
        let state = api::ApiState {
            tasks: Arc::new(router),
            clock: self.clock.clone(),
            entropy: self.entropy.clone(),
            readiness,
            metrics_text: self.metrics_text(),
            observe: observe.clone(),
        };
        let limits = api::ServeLimits {
            connections_max: self.config.connections_max,
            header_timeout: Duration::from_millis(self.config.header_timeout_ms),
            // Longer than the router's own deadline, so that its answer still gets out.
            request_timeout: deadline + ANSWER_GRACE,
        };
        api::serve(listener, api::app(state), limits, observe, stop)
    }

    /// Encodes the metrics; gauges of the moment are set just before.
    fn metrics_text(&self) -> Arc<dyn Fn() -> String + Send + Sync> {
        let (metrics, groups, windows) = (self.metrics.clone(), self.groups.clone(), self.windows.clone());
        let (dispatcher, clock) = (self.dispatcher.clone(), self.clock.clone());
        Arc::new(move || {
            let (queued, in_flight) = dispatcher.load();
            metrics.set_fires_queued(queued);
            metrics.set_fires_in_flight(in_flight);
            metrics.set_fires_overdue(windows.overdue(clock.wall_ms()) + queued);
            metrics.set_tasks_pending(groups.iter().map(raft::Group::pending).sum());
            metrics.encode()
        })
    }
}

/// Opens the log stream and starts its writer on a thread of its own: it blocks on the disk.
fn open_log(world: &World, metrics: &Arc<Metrics>, failure: &Failure) -> Result<Wal, NodeError> {
    let options = wal::Options {
        new_log_id: world.entropy.next_u64(),
        ..wal::Options::default()
    };
    let observe = Arc::new(LogMetrics(metrics.clone()));
    let (wal, writer) = wal::open(world.log_files.clone(), options, world.clock.clone(), observe)?;
    let failure = failure.clone();
    let run = move || {
        if let Some(error) = writer.run() {
            failure.report(error.to_string());
        }
    };
    std::thread::Builder::new()
        .name("xcron-log".into())
        .spawn(run)
        .map_err(NodeError::Thread)?;
    Ok(wal)
}

#[derive(Debug)]
struct LogMetrics(Arc<Metrics>);

impl wal::Observe for LogMetrics {
    fn synced(&self, jobs: usize, bytes: usize, duration: Duration) {
        self.0.observe_log_sync(jobs, bytes, duration);
    }
}

struct ApiMetrics(Arc<Metrics>);

impl api::ApiObserve for ApiMetrics {
    fn answered(&self, call: api::Call, code: u16, duration: Duration) {
        self.0.observe_api_answer(call.name(), code, duration);
    }

    fn connections(&self, open: bool) {
        if open {
            self.0.inc_api_connections();
        } else {
            self.0.dec_api_connections();
        }
    }
}

#[cfg(test)]
mod tests;

//! The composition root: puts a node together, runs it, and ends it in order.
//!
//! Everything that touches the outside world comes in through [`World`]; `serve` gives the real one, a simulation its own.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

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
use crate::metrics::Metrics;
use crate::raft::{self, Groups};
use crate::readiness::Readiness;
use crate::router::Router;
use crate::store::fjall_kv::FjallKv;
use crate::store::{Kv, KvError};
use crate::wal::{self, Wal};

/// How long open requests may take to end after the node was told to stop.
const DRAIN: Duration = Duration::from_secs(5);

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
    /// A fault while running: what was acknowledged is on disk, and nothing was acknowledged after the fault.
    #[error("the node has stopped itself: {0}. Everything it acknowledged is on disk; repair the cause and start it again")]
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
        let deliver = HttpDeliver::new(DeliverOptions {
            timeout_ms: config.fire.timeout_ms,
            connect_timeout_ms: config.fire.connect_timeout_ms,
            ..DeliverOptions::default()
        })?;
        let data = DataDirectory::open(&config.data)?;
        if config.rejoin
            && let Some(aside) = data.set_aside(clock.wall_ms() / 1_000)?
        {
            tracing::warn!(directory = %aside.display(), "the old data was set aside; this node starts as a new one");
        }
        let identity = data.identity(config.groups, entropy.as_ref())?;
        let log_files = open_log_files(&data.log())?;
        let kv = Arc::new(FjallKv::open(&data.state(), config.store.cache_bytes)?);
        Ok(Self { clock, entropy, deliver: Arc::new(deliver), identity, log_files, kv, data: Some(data) })
    }
}

fn open_log_files(path: &Path) -> Result<Arc<dyn wal::Files>, NodeError> {
    Ok(Arc::new(wal::DirFiles::open(path)?))
}

/// Runs a node until `shutdown` completes or a fault ends it. `ready` is called once every group is led and the node serves.
pub async fn run<L: api::Listen>(
    config: Config,
    open: impl FnOnce(&Config) -> Result<World, NodeError>,
    listener: L,
    ready: impl FnOnce(),
    shutdown: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let world = open(&config)?;
    let metrics = Arc::new(Metrics::default());
    let failure = Failure::default();
    let (readiness, readiness_seen) = watch::channel(Readiness::Starting);
    let wal = open_log(&world, &metrics, &failure)?;
    let windows = Windows::new(world.identity.groups, metrics.clone());
    let groups = Groups::start(raft::groups::Parts {
        node: world.identity.node,
        wal,
        kv: world.kv.clone(),
        count: world.identity.groups,
        hook: Arc::new(windows.clone()),
        failure: failure.clone(),
        metrics: metrics.clone(),
    })
    .await?;
    let dispatcher = start_firing(&config, &world, &groups, &windows, &metrics, &failure);
    let (stop_api, api_stopped) = watch::channel(false);
    let api = tokio::spawn(serve_api(&config, &world, &groups, (dispatcher, windows), &metrics, readiness_seen, listener, api_stopped));
    let result = tokio::select! {
        biased;
        fault = failure.wait() => Err(NodeError::Fault(fault)),
        result = async {
            groups.all_led().await;
            readiness.send_replace(Readiness::Ready);
            ready();
            shutdown.await;
            Ok(())
        } => result,
    };
    let why = result.as_ref().err().map_or("the node is stopping".to_owned(), ToString::to_string);
    readiness.send_replace(Readiness::NotReady(why));
    stop_api.send_replace(true);
    if result.is_ok() {
        drop(tokio::time::timeout(DRAIN, api).await);
        groups.shutdown().await;
    }
    result
}

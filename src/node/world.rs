//! Everything outside a node, as one value: this machine's clock, disk and network for `serve`, a simulation's own elsewhere.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

use crate::blocking::{Blocking, Threads};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::entropy::{Entropy, SystemEntropy};
use crate::fire::deliver::{Deliver, DeliverOptions, HttpDeliver};
use crate::identity::{DataDirectory, Home, Identity};
use crate::limits::{ACCEPT_BACKLOG, IDLE_PER_TARGET_MAX};
use crate::membership::{ClusterView, Membership, UdpNetwork};
use crate::metrics::Metrics;
use crate::net::{Dial, Greeter, TcpDial};
use crate::node::NodeError;
use crate::node::enter::{self, Doorway, EnterError, Entered, Entrance};
use crate::node::front::Waiting;
use crate::node::memory::Memory;
use crate::node::observers::GossipMetrics;
use crate::node::trusted_time::{TRUSTED_TIME_FILE, TrustedTimeFile};
use crate::raft;
use crate::secret::ClusterSecret;
use crate::space::{Disk, DiskOf};
use crate::steady::TrustedTime;
use crate::store::fjall_kv::FjallKv;
use crate::store::{Kv, Spools};
use crate::wal;

/// What every text names that says that data on this disk is damaged.
const REJOIN: &str = "--rejoin";

/// What a node has before it knows who it is.
#[derive(Clone)]
pub struct Basics {
    /// Wall and monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Random numbers.
    pub entropy: Arc<dyn Entropy>,
    /// Where everything is counted.
    pub metrics: Arc<Metrics>,
}

impl Basics {
    /// This machine's.
    pub fn of_this_machine() -> Self {
        Self {
            clock: Arc::new(SystemClock::default()),
            entropy: Arc::new(SystemEntropy::default()),
            metrics: Arc::default(),
        }
    }
}

/// Everything outside the node. `P` is where its peers' connections come from.
pub struct World<P> {
    /// Wall and monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Random numbers.
    pub entropy: Arc<dyn Entropy>,
    /// Where everything is counted.
    pub metrics: Arc<Metrics>,
    /// The way to the callbacks' targets.
    pub deliver: Arc<dyn Deliver>,
    /// Who this node is.
    pub identity: Identity,
    /// Where the log stream lives, and who runs it.
    pub log: LogWorld,
    /// Where the state lives.
    pub kv: Arc<dyn Kv>,
    /// Where snapshots are kept that other nodes send.
    pub spools: Arc<dyn Spools>,
    /// Does work that blocks for long.
    pub blocking: Arc<dyn Blocking>,
    /// How much room is left for log and state.
    pub disk: Arc<dyn Disk>,
    /// The nodes that gossip shows; this one alone where there is no gossip.
    pub view: watch::Receiver<Arc<ClusterView>>,
    /// The way to the other nodes; none for a node alone.
    pub peers: Option<PeerWorld<P>>,
    /// Where the highest trusted wall time is kept.
    pub trusted_time: Arc<dyn TrustedTime>,
    /// What keeps the identity: the data directory, locked while the node runs.
    pub home: Arc<dyn Home>,
}

/// The log stream's surroundings.
#[derive(Clone, Debug)]
pub struct LogWorld {
    /// Its files.
    pub files: Arc<dyn wal::Files>,
    /// Size of new segments, in bytes; see [`wal::Options`].
    pub segment_bytes: u64,
    /// Entries of a group between two snapshots; see [`raft::SNAPSHOT_ENTRIES`].
    pub snapshot_entries: u64,
    /// Runs its writer.
    pub runner: Arc<dyn wal::Run>,
}

impl LogWorld {
    /// The log of a data directory, run by a thread of its own.
    fn of(data: &DataDirectory) -> Result<Self, NodeError> {
        Ok(Self {
            files: Arc::new(data.open_log()?),
            segment_bytes: wal::Options::default().segment_bytes,
            snapshot_entries: raft::SNAPSHOT_ENTRIES,
            runner: Arc::new(wal::OwnThread),
        })
    }
}

/// The way to the other nodes.
pub struct PeerWorld<P> {
    /// Gossip, begun.
    pub membership: Membership,
    /// What all nodes of the cluster know.
    pub secret: ClusterSecret,
    /// Makes connections to peers.
    pub dialer: Arc<dyn Dial>,
    /// Remembers how far nodes have come.
    pub memory: Memory,
    /// Answers at the peer port until the node serves.
    pub listener: Greeter<P>,
}

impl World<TcpListener> {
    /// The real world: this machine's clock, network and the configured data directory. A node without data waits here until
    /// it is in a cluster.
    pub async fn open(config: &Config, basics: &Basics, waiting: Waiting, api: SocketAddr) -> Result<Self, NodeError> {
        let Basics {
            clock,
            entropy,
            metrics,
        } = basics.clone();
        let deliver = HttpDeliver::new(&deliver_options(config), clock.clone(), entropy.clone())?;
        let data = Arc::new(DataDirectory::open(&config.data)?);
        if config.rejoin {
            if !data.may_be_set_aside() {
                return Err(data.healthy().into());
            }
            if let Some(aside) = data.set_aside(clock.wall_ms() / 1_000)? {
                tracing::warn!(directory = %aside.display(), "the old data was set aside; this node starts as a new one");
            }
        }
        let doorway = match config.peer_listen.0 {
            None => None,
            Some(address) => Some(Doorway {
                listener: listen(address).map_err(|error| NodeError::PeerListen { address, error })?,
                secret: enter::secret(config, &data, entropy.as_ref())?,
                dialer: Arc::new(TcpDial),
            }),
        };
        let Entered { identity, view, peers } = enter::enter(Entrance {
            config,
            home: data.clone(),
            doorway,
            waiting,
            api,
            clock: clock.clone(),
            entropy: entropy.clone(),
            network: Arc::new(UdpNetwork),
            observer: Arc::new(GossipMetrics(metrics.clone())),
        })
        .await?;
        let log = LogWorld::of(&data)?;
        let kv = Arc::new(FjallKv::open(
            &data.state(),
            config.store.cache_bytes,
            config.files.tables,
        )?);
        let spools = Arc::new(data.open_spools()?);
        let trusted_time = Arc::new(TrustedTimeFile::new(config.data.join(TRUSTED_TIME_FILE)));
        Ok(Self {
            clock,
            entropy,
            metrics,
            deliver: Arc::new(deliver),
            identity,
            log,
            kv,
            spools,
            blocking: Arc::new(Threads::start().map_err(NodeError::Thread)?),
            disk: Arc::new(DiskOf(config.data.clone())),
            view,
            peers,
            trusted_time,
            home: data,
        })
    }
}

fn deliver_options(config: &Config) -> DeliverOptions {
    DeliverOptions {
        timeout_ms: config.fire.timeout_ms,
        connect_timeout_ms: config.fire.connect_timeout_ms,
        idle_per_target: (config.fire.in_flight_per_target_max as usize).min(IDLE_PER_TARGET_MAX),
        idle_total: config.files.idle as usize,
        lookups_max: config.fire.in_flight_max.min(config.files.in_flight) as usize,
        extra_roots_pem: None,
    }
}

/// Notes in the data directory why the node has ended, where the advice is `--rejoin`: it is accepted from then on.
pub fn note_damage(config: &Config, error: &NodeError) {
    let text = error.to_string();
    let is_advice = !matches!(
        error,
        NodeError::Identity(_) | NodeError::Enter(EnterError::Identity(_))
    );
    if is_advice
        && text.contains(REJOIN)
        && let Err(error) = DataDirectory::note_damage(&config.data, &text)
    {
        tracing::warn!(%error, "what is damaged cannot be noted: --rejoin will be refused until it is");
    }
}

/// Listens with a queue that is long enough for a burst of clients.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(ACCEPT_BACKLOG)
}

//! How a node gets to know who it is: from its data directory, by giving birth to a cluster, or by joining one.
//!
//! Joining waits for gossip to show the cluster; the identity is kept before anything else is written.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::Config;
use crate::core::command::COMMANDS;
use crate::entropy::Entropy;
use crate::id::{GroupCount, NodeId};
use crate::identity::{DataDirectory, Home, Identity, IdentityError, fresh_node_id};
use crate::membership::{self, ClusterView, Facts, Membership, MembershipError, Network, Observer, Twin};
use crate::secret::{ClusterSecret, SecretError};

/// How long a node that comes back waits to hear from others, in milliseconds: they may all be starting.
const HEARD_MS: u64 = 1_500;
/// How long a process with this node's id must not have been heard of to be gone, in milliseconds.
const TWIN_SILENT_MS: u64 = 3_000;
/// How often a node that comes back looks.
const HEARD_LOOK: Duration = Duration::from_millis(100);
/// How often a node that waits for its cluster says so.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Why a node is not part of a cluster.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// The identity cannot be read or kept.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Gossip does not start.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The secret's file cannot be read or written.
    #[error("cluster secret {}: {what}: {error}", path.display())]
    SecretFile {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        error: io::Error,
    },
    /// The secret's file holds no secret.
    #[error("cluster secret {}: {error}", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: SecretError,
    },
    /// A node that joins must be told the secret.
    #[error(
        "to join a cluster this node needs its secret: copy the file {} of the first node's data directory (or the file its \
         --secret-file names) and start with --secret-file FILE", path.display()
    )]
    NoSecret {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Its data directory was copied, or restored, and the original still runs.
    #[error(
        "node {node:016x} is alive already, at {peer}: this data directory is a copy of that node's. To add a new node, start \
         with an empty --data"
    )]
    Twin {
        /// Their common id.
        node: NodeId,
        /// Where the other is.
        peer: SocketAddr,
    },
    /// The seeds are of different clusters.
    #[error("the addresses of --join belong to {0} different clusters; name nodes of one")]
    TwoClusters(usize),
}

impl EnterError {
    /// That this node's id is alive elsewhere.
    pub(super) fn twin(node: NodeId, twin: &Twin) -> Self {
        Self::Twin { node, peer: twin.peer }
    }
}

/// Who the node is, and what gossip shows it.
pub struct Entered {
    /// Its identity, kept.
    pub identity: Identity,
    /// The nodes.
    pub view: watch::Receiver<Arc<ClusterView>>,
    /// Gossip and the secret, unless the node is alone.
    pub gossip: Option<(Membership, ClusterSecret)>,
}

/// What a node is given to find out who it is.
pub struct Entrance<'a> {
    /// Its settings.
    pub config: &'a Config,
    /// What keeps its identity.
    pub home: &'a dyn Home,
    /// What all nodes of the cluster know; needed with `config.peer_listen`.
    pub secret: Option<ClusterSecret>,
    /// Where its API is.
    pub api: SocketAddr,
    /// Wall and monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Random numbers.
    pub entropy: Arc<dyn Entropy>,
    /// Where gossip's sockets come from.
    pub network: Arc<dyn Network>,
    /// Counts gossip.
    pub observer: Arc<dyn Observer>,
}

/// Finds out who the node is.
pub async fn enter(entrance: Entrance<'_>) -> Result<Entered, EnterError> {
    let Entrance {
        config, home, entropy, ..
    } = entrance;
    let is_joining = !config.join.0.is_empty();
    let known = match home.identity()? {
        Some(identity) => Some(identity),
        None if is_joining => None,
        None => {
            let identity = Identity::founding(config.groups, entropy.as_ref());
            home.keep(&identity)?;
            Some(identity)
        }
    };
    let node = known
        .as_ref()
        .map_or_else(|| fresh_node_id(entropy.as_ref()), |known| known.node);
    let facts = own_facts(config, node, known.as_ref(), entrance.api);
    let Some((peer, secret)) = config.peer_listen.0.zip(entrance.secret) else {
        let identity = known.expect("settings that join without peer_listen are refused");
        return Ok(Entered {
            view: alone(facts),
            identity,
            gossip: None,
        });
    };
    let clock = entrance.clock;
    let membership = Membership::start(membership::Parts {
        facts,
        listen: peer,
        seeds: config.join.0.clone(),
        keys: secret.gossip_keys().to_vec(),
        incarnation: clock.wall_ms(),
        interval: membership::GOSSIP_INTERVAL,
        clock: clock.clone(),
        entropy,
        network: entrance.network,
        observer: entrance.observer,
    })
    .await?;
    let identity = if let Some(identity) = known {
        expect_no_twin(&mut membership.view(), clock.as_ref()).await?;
        identity
    } else {
        let (cluster, groups) = find_cluster(&membership, &config.join.0).await?;
        let identity = Identity::joining(node, cluster, groups);
        home.keep(&identity)?;
        membership.adopt(cluster, groups)?;
        identity
    };
    Ok(Entered {
        identity,
        view: membership.view(),
        gossip: Some((membership, secret)),
    })
}

/// Waits until the others have told whether this node's id is alive elsewhere; two processes with one id would count twice. A
/// node that has moved looks like that until its silence is noticed.
async fn expect_no_twin(view: &mut watch::Receiver<Arc<ClusterView>>, clock: &dyn Clock) -> Result<(), EnterError> {
    let began_ms = clock.monotonic_ms();
    loop {
        let now = view.borrow_and_update().clone();
        let now_ms = clock.monotonic_ms();
        let waited_ms = now_ms.saturating_sub(began_ms);
        match now.twin.filter(|twin| !twin.is_newer) {
            Some(twin) if twin.was_first(now_ms) => return Err(EnterError::twin(now.me, &twin)),
            Some(twin) if twin.is_alive || now_ms.saturating_sub(twin.since_ms) < TWIN_SILENT_MS => {}
            _ if now.live().count() > 1 || waited_ms >= HEARD_MS => return Ok(()),
            _ => {}
        }
        drop(tokio::time::timeout(HEARD_LOOK, view.changed()).await);
    }
}

fn own_facts(config: &Config, node: NodeId, known: Option<&Identity>, api: SocketAddr) -> Facts {
    let peer = config.peer_listen.0.unwrap_or(api);
    // Others cannot call 0.0.0.0: the machine is the one that its peer address names.
    let api = if api.ip().is_unspecified() {
        SocketAddr::new(peer.ip(), api.port())
    } else {
        api
    };
    Facts {
        node,
        peer,
        api,
        zone: config.zone.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commands: COMMANDS,
        cluster: known.map(|known| known.cluster),
        groups: known.map(|known| known.groups),
        draining: false,
        led: Vec::new(),
        ready: false,
        clock_offset_ms: 0,
    }
}

/// The view of a node that has no peers: itself.
fn alone(facts: Facts) -> watch::Receiver<Arc<ClusterView>> {
    watch::channel(Arc::new(ClusterView::alone(facts))).1
}

async fn find_cluster(membership: &Membership, seeds: &[String]) -> Result<(u128, GroupCount), EnterError> {
    let mut view = membership.view();
    loop {
        let clusters = view.borrow_and_update().clusters();
        match clusters.first() {
            Some(found) if clusters.len() == 1 => return Ok(*found),
            Some(_) => return Err(EnterError::TwoClusters(clusters.len())),
            None => {}
        }
        if tokio::time::timeout(SAY_AGAIN, view.changed()).await.is_err() {
            tracing::warn!(
                seeds = seeds.join(","),
                "no cluster has answered yet: are these the --peer-listen addresses of its nodes, and is the secret the same?"
            );
        }
    }
}

/// Reads the secret from its file; a node that founds a cluster makes one if there is none.
pub(super) fn secret(
    config: &Config,
    data: &DataDirectory,
    entropy: &dyn Entropy,
) -> Result<ClusterSecret, EnterError> {
    let is_joining = !config.join.0.is_empty();
    let is_named = config.secret_file != Path::new("");
    let path = if is_named {
        config.secret_file.clone()
    } else {
        data.secret()
    };
    match fs::read_to_string(&path) {
        Ok(text) => ClusterSecret::parse(&text).map_err(|error| EnterError::Secret { path, error }),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_named => {
            if is_joining {
                return Err(EnterError::NoSecret { path });
            }
            let (text, secret) = ClusterSecret::generate(entropy);
            write_private(&path, &text).map_err(|error| EnterError::SecretFile {
                path,
                what: "cannot be written",
                error,
            })?;
            Ok(secret)
        }
        Err(error) => Err(EnterError::SecretFile {
            path,
            what: "cannot be read",
            error,
        }),
    }
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

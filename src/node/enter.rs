//! How a node gets to know who it is: from its data directory, by joining a cluster, or by founding one.
//!
//! A node without data that others could reach waits: for gossip to show a cluster, which it joins, or for `xcron cluster
//! init`, by which it founds one (`found.rs`). No setting founds a cluster; only a node that nobody else can reach is one by
//! itself. The identity is kept before anything else is written.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::found::{Asking, may_found};
use super::front::Waiting;
use super::memory::Memory;
use super::world::PeerWorld;
use crate::clock::Clock;
use crate::cluster::init::{Founded, InitError, Wish};
use crate::config::Config;
use crate::core::command::COMMANDS;
use crate::entropy::Entropy;
use crate::id::{GroupCount, NodeHex, NodeId};
use crate::identity::{DataDirectory, Home, Identity, IdentityError, Stage, fresh_node_id};
use crate::membership::{self, ClusterView, Facts, Membership, MembershipError, Network, Observer, Twin};
use crate::net::{self, Dial, Greeter, Greeting};
use crate::readiness::Readiness;
use crate::secret::{ClusterSecret, SecretError};

/// How long a node that comes back waits to hear from others, in milliseconds: they may all be starting.
const HEARD_MS: u64 = 1_500;
/// How long a process with this node's id must not have been heard of to be gone, in milliseconds.
const TWIN_SILENT_MS: u64 = 3_000;
/// How often a node that comes back looks.
const HEARD_LOOK: Duration = Duration::from_millis(100);
/// How long a node without data listens at its peer port before it may found a cluster.
const LISTEN: Duration = Duration::from_secs(3);
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
pub struct Entered<P> {
    /// Its identity, kept.
    pub identity: Identity,
    /// The nodes.
    pub view: watch::Receiver<Arc<ClusterView>>,
    /// The way to the other nodes, unless the node is alone.
    pub peers: Option<PeerWorld<P>>,
}

/// How a node reaches others before it knows who they are.
pub struct Doorway<P> {
    /// What all nodes of the cluster know.
    pub secret: ClusterSecret,
    /// Makes connections to peers.
    pub dialer: Arc<dyn Dial>,
    /// Takes connections of peers.
    pub listener: P,
}

/// What a node is given to find out who it is.
pub struct Entrance<'a, P> {
    /// Its settings.
    pub config: &'a Config,
    /// What keeps its identity.
    pub home: Arc<dyn Home>,
    /// The way to others; there is one exactly with `config.peer_listen`.
    pub doorway: Option<Doorway<P>>,
    /// Where it says that it waits, and is told to found a cluster.
    pub waiting: Waiting,
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
pub async fn enter<P: net::Listen>(entrance: Entrance<'_, P>) -> Result<Entered<P>, EnterError> {
    let Entrance {
        config, home, entropy, ..
    } = &entrance;
    let known = match home.identity()? {
        None if founds_by_itself(config) => Some(Identity::founding(config.groups, entropy.as_ref())),
        known => known,
    };
    // On disk before anybody can hear of this start.
    let known = known.map(|identity| identity.started(entropy.as_ref()));
    if let Some(identity) = &known {
        home.keep(identity)?;
    }
    let node = known
        .as_ref()
        .map_or_else(|| fresh_node_id(entropy.as_ref()), |known| known.node);
    let facts = own_facts(config, node, known.as_ref(), entrance.api);
    if config.peer_listen.0.is_some() {
        among_others(entrance, known, facts).await
    } else {
        without_others(entrance, known, facts).await
    }
}

/// Whether a node without data is a cluster by itself: only one that no setting means to have others beside it, and whose API
/// is for this machine alone. Any other may be one of a cluster that has lost its disk, and waits to be told.
fn founds_by_itself(config: &Config) -> bool {
    config.peer_listen.0.is_none()
        && config.join.0.is_empty()
        && config.secret_file == Path::new("")
        && config.listen.ip().to_canonical().is_loopback()
}

/// A node that has no peer port.
async fn without_others<P>(
    entrance: Entrance<'_, P>,
    known: Option<Identity>,
    facts: Facts,
) -> Result<Entered<P>, EnterError> {
    let Entrance {
        config,
        home,
        mut waiting,
        entropy,
        api,
        ..
    } = entrance;
    let identity = match known {
        Some(identity) => identity,
        None => loop {
            waiting.readiness.send_replace(waits(api));
            let wish = waiting.wishes.next().await;
            let identity = Identity {
                node: facts.node,
                ..Identity::founding(config.groups, entropy.as_ref()).started(entropy.as_ref())
            };
            if answer_wish(wish, home.as_ref(), &identity, Ok(Vec::new())) {
                break identity;
            }
        },
    };
    entered(waiting, &identity);
    let facts = Facts {
        cluster: Some(identity.cluster),
        groups: Some(identity.groups),
        ..facts
    };
    Ok(Entered {
        view: alone(facts),
        identity,
        peers: None,
    })
}

/// A node that others can reach.
async fn among_others<P: net::Listen>(
    entrance: Entrance<'_, P>,
    known: Option<Identity>,
    facts: Facts,
) -> Result<Entered<P>, EnterError> {
    let Entrance { config, clock, .. } = entrance;
    let doorway = config.peer_listen.0.zip(entrance.doorway);
    let (peer, doorway) = doorway.expect("there is a doorway with peer_listen");
    let (secret, dialer) = (doorway.secret, doorway.dialer);
    let node = facts.node;
    let cluster = known.as_ref().map(|known| known.cluster);
    let memory = Memory::load(entrance.home.clone(), clock.clone())?;
    memory.set_start(known.as_ref().map(|known| known.start).unwrap_or_default());
    let (remember, entropy) = (Arc::new(memory.clone()), entrance.entropy.clone());
    let greeting = Greeting::new(node, cluster, secret.clone(), entropy, remember);
    let greeter = Greeter::start(doorway.listener, greeting.clone());
    let parts = membership::Parts {
        facts,
        listen: peer,
        seeds: config.join.0.clone(),
        known: memory.addresses(),
        keys: secret.gossip_keys().to_vec(),
        incarnation: clock.wall_ms(),
        interval: membership::GOSSIP_INTERVAL,
        clock: clock.clone(),
        entropy: entrance.entropy.clone(),
        network: entrance.network.clone(),
        observer: entrance.observer,
    };
    let membership = Membership::start(parts).await?;
    let mut waiting = entrance.waiting;
    let home = entrance.home.as_ref();
    let identity = if let Some(identity) = known {
        let asked = memory.ask_the_others(&greeting, dialer.as_ref(), &entrance.network, (peer, &config.join.0));
        let mut view = membership.view();
        let (twin, ()) = tokio::join!(expect_no_twin(&mut view, clock.as_ref()), asked);
        twin?;
        if memory.is_superseded() {
            return Err(mark_superseded(home).into());
        }
        identity
    } else {
        let wait = Wait {
            config,
            home,
            node,
            api: entrance.api,
            entropy: entrance.entropy.as_ref(),
            network: &entrance.network,
            membership: &membership,
            greeting: &greeting,
            dialer: dialer.as_ref(),
            clock: clock.as_ref(),
        };
        let identity = wait.run(&mut waiting).await?;
        memory.set_start(identity.start);
        membership.adopt(identity.cluster, identity.groups)?;
        greeting.set_cluster(identity.cluster);
        identity
    };
    entered(waiting, &identity);
    Ok(Entered {
        identity,
        view: membership.view(),
        peers: Some(PeerWorld {
            membership,
            secret,
            dialer,
            memory,
            listener: greeter,
        }),
    })
}

/// From now on the node is reading its disk, and a member.
fn entered(waiting: Waiting, identity: &Identity) {
    waiting.readiness.send_replace(Readiness::Starting);
    waiting.wishes.entered(identity.cluster);
}

/// What a node tells that waits for its cluster.
fn waits(api: SocketAddr) -> Readiness {
    Readiness::NotReady(format!(
        "waiting for a cluster: no node of --join that is in one has answered. If this is the first start of a new cluster, \
         tell one of its nodes, once: xcron cluster init --api http://{api}"
    ))
}

/// Keeps the identity of a cluster that may be founded, and tells whoever wished for it. True if it is founded.
fn answer_wish(wish: Wish, home: &dyn Home, identity: &Identity, may: Result<Vec<String>, InitError>) -> bool {
    let founded = may.and_then(|silent| {
        let kept = home.keep(identity);
        kept.map_err(|error| InitError::Failed(error.to_string()))?;
        Ok(Founded {
            cluster: identity.cluster,
            node: identity.node,
            silent,
        })
    });
    let is_founded = founded.is_ok();
    match &founded {
        Ok(founded) => tracing::info!(
            cluster = format!("{:032x}", founded.cluster),
            silent = founded.silent.join(","),
            "a cluster is founded, by the wish of `xcron cluster init`"
        ),
        Err(error) => tracing::warn!(%error, "no cluster is founded"),
    }
    // Whoever wished may be gone: asked again, the node says that it is a member.
    let _ = wish.send(founded);
    is_founded
}

/// A node without data, among others.
struct Wait<'a> {
    config: &'a Config,
    home: &'a dyn Home,
    node: NodeId,
    api: SocketAddr,
    entropy: &'a dyn Entropy,
    network: &'a Arc<dyn Network>,
    membership: &'a Membership,
    greeting: &'a Greeting,
    dialer: &'a dyn Dial,
    clock: &'a dyn Clock,
}

impl Wait<'_> {
    /// Waits for a cluster to join, or for the wish to found one, whichever comes first.
    async fn run(&self, waiting: &mut Waiting) -> Result<Identity, EnterError> {
        let began = self.clock.monotonic();
        loop {
            let wish = tokio::select! {
                biased;
                found = self.find_cluster(&waiting.readiness) => {
                    let (cluster, groups) = found?;
                    let identity = Identity::joining(self.node, cluster, groups).started(self.entropy);
                    self.home.keep(&identity)?;
                    return Ok(identity);
                }
                wish = waiting.wishes.next() => wish,
            };
            // Who calls a member that is gone does so about once a second.
            let listened = self.clock.monotonic().saturating_sub(began);
            tokio::time::sleep(LISTEN.saturating_sub(listened)).await;
            let heard = self
                .membership
                .view()
                .borrow()
                .live()
                .map(|member| member.facts.peer)
                .collect();
            let may = may_found(&Asking {
                node: self.node,
                greeting: self.greeting,
                dialer: self.dialer,
                network: self.network,
                join: &self.config.join.0,
                heard,
            })
            .await;
            let identity = Identity {
                node: self.node,
                ..Identity::founding(self.config.groups, self.entropy).started(self.entropy)
            };
            if answer_wish(wish, self.home, &identity, may) {
                return Ok(identity);
            }
            self.greeting.set_founding(false);
        }
    }

    async fn find_cluster(&self, readiness: &watch::Sender<Readiness>) -> Result<(u128, GroupCount), EnterError> {
        let mut view = self.membership.view();
        readiness.send_replace(waits(self.api));
        tracing::info!(
            node = %NodeHex(self.node),
            api = %self.api,
            join = %self.config.join,
            "this node waits for its cluster: it joins the one that these addresses are of. The first start of a new cluster: \
             xcron cluster init --api http://{}",
            self.api
        );
        loop {
            let clusters = view.borrow_and_update().clusters();
            match clusters.first() {
                Some(found) if clusters.len() == 1 => return Ok(*found),
                Some(_) => return Err(EnterError::TwoClusters(clusters.len())),
                None => {}
            }
            if tokio::time::timeout(SAY_AGAIN, view.changed()).await.is_err() {
                tracing::warn!(
                    join = self.config.join.to_string(),
                    "no cluster has answered yet: are these the --peer-listen addresses of its nodes, and is the secret the \
                     same? If this is the first start of a new cluster: xcron cluster init --api http://{}",
                    self.api
                );
            }
        }
    }
}

/// Notes in the directory that it is an older copy of itself, and says so. Should that not be possible, the next start finds out
/// anew.
pub(super) fn mark_superseded(home: &dyn Home) -> IdentityError {
    let marked = home.identity().and_then(|identity| match identity {
        Some(identity) => home.keep(&Identity {
            stage: Stage::Superseded,
            ..identity
        }),
        None => Ok(()),
    });
    if let Err(error) = marked {
        tracing::warn!(%error, "that this directory is superseded cannot be noted in it");
    }
    home.superseded()
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
    let peer = config.peer_advertise.0.or(config.peer_listen.0).unwrap_or(api);
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
        replicas: config.replicas,
    }
}

/// The view of a node that has no peers: itself.
fn alone(facts: Facts) -> watch::Receiver<Arc<ClusterView>> {
    watch::channel(Arc::new(ClusterView::alone(facts))).1
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

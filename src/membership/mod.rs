//! Who is there: gossip over sealed datagrams. The only user of chitchat.
//!
//! [`Membership`] tells the others this node's [`Facts`] and shows what it hears as a [`ClusterView`]. Discovery and hints
//! only: nothing here decides who owns what, so a wrong or lost message can cost time, never safety. What travels and why is
//! doc/decisions/006-gossip.md. Started by the node; read by placement, router and the address book of the peers.
mod contacts;
mod facts;
mod gossip;
mod observe;
mod readings;
mod replay;
mod seal;
mod seeds;
#[cfg(test)]
mod tests;
mod transport;
mod view;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

pub use contacts::{CONTACTS_PER_ROUND, REMEMBERED_ADDRESSES_MAX, ROUNDS_PER_CONTACT};
pub use facts::{Facts, FactsError, LED_MAX, VERSION_BYTES_MAX};
pub use observe::{Dropped, Observer};
pub use replay::{AGE_MS_MAX, REMEMBERED_MAX};
pub use seal::{DATAGRAM_BYTES_MAX, KeysError, SEAL_BYTES, Sealer};
pub use transport::{Datagrams, Network, UdpNetwork};
pub use view::{ClusterView, Member, TWIN_OLDER_MS, Twin};

use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::id::GroupCount;
use contacts::Contacts;
use gossip::{Gossip, Shared, Stop};
use observe::Reporter;
use readings::Readings;
use seeds::Seeds;
use transport::SealedTransport;
use view::Book;

/// Time between two rounds of gossip. A change is everywhere in two or three of them; four rounds a second of a few
/// datagrams each cost an idle node next to nothing.
pub const GOSSIP_INTERVAL: Duration = Duration::from_millis(250);

// When is a member dead? chitchat says so when its silence lasts longer than PHI times the mean time between its last
// heartbeats, and counts five heartbeats of HEARTBEAT_PRIOR into that mean. With few SAMPLES those five always weigh a third,
// so the limit is 3.5 s plus twice the true mean (0.1 s among a few nodes, up to 1 s among a hundred): a killed node is
// seen dead after 3.7 to 5.5 s, and a pause of 3 s is not a death, also where heartbeats come so often that a mean of them
// alone would make a pause of half a second one.
/// Silence, in mean times between heartbeats, that makes a member dead.
const PHI: f64 = 3.0;
/// Last times between heartbeats that make the mean.
const SAMPLES: usize = 10;
/// The time between heartbeats that is assumed, with the weight of five, before any is known.
const HEARTBEAT_PRIOR: Duration = Duration::from_millis(3_500);
/// A longer time between heartbeats was a pause: it does not make the next death be seen later.
const HEARTBEAT_IGNORED: Duration = Duration::from_secs(3);
/// How long a dead member is remembered. Each start of a node is one more name to remember, in every message for half of
/// this time: at most about 1,100 fit into a datagram, so a node that crashes every second must be forgotten soon enough.
pub const DEAD_GRACE: Duration = Duration::from_mins(10);

/// What gossip is made of.
#[derive(Debug)]
pub struct Parts {
    /// What this node tells first. Its `peer` is the address at which others reach the socket.
    pub facts: Facts,
    /// Where the socket is opened.
    pub listen: SocketAddr,
    /// `host:port` of nodes to speak to first; names are resolved again and again.
    pub seeds: Vec<String>,
    /// Where members were when this node last ran: spoken to as the seeds are.
    pub known: Vec<SocketAddr>,
    /// The first seals, every one opens.
    pub keys: Vec<[u8; 32]>,
    /// Which run of this node it is: the wall clock in milliseconds now, or more than at the last start.
    pub incarnation: u64,
    /// Time between two rounds, usually [`GOSSIP_INTERVAL`].
    pub interval: Duration,
    /// Seals carry its wall time.
    pub clock: Arc<dyn Clock>,
    /// Makes nonces.
    pub entropy: Arc<dyn Entropy>,
    /// Where sockets come from.
    pub network: Arc<dyn Network>,
    /// Who counts.
    pub observer: Arc<dyn Observer>,
}

/// Why this node cannot gossip.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// The keys are of no use.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The facts would not be understood.
    #[error("this node's facts: {0}")]
    Facts(#[from] FactsError),
    /// Nobody could answer.
    #[error("{0} is not an address at which other nodes reach this one: name one, of the same kind as it listens on")]
    Peer(SocketAddr),
    /// A seed is no address.
    #[error("{0:?} among the peer addresses to join (--join) must be host:port, such as 10.0.0.2:8100")]
    Seed(String),
    /// The socket cannot be opened.
    #[error("gossip cannot listen on {address} (UDP): {error}")]
    Open {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: String,
    },
    /// A node changes its cluster only by becoming a new node.
    #[error("this node belongs to cluster {own:032x} and cannot adopt {other:032x}")]
    AlreadyMember {
        /// Where it belongs.
        own: u128,
        /// What it was to adopt.
        other: u128,
    },
}

/// Handle on the gossip, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct Membership {
    shared: Arc<Shared>,
    sealer: Arc<Sealer>,
    tasks: Arc<Tasks>,
}

#[derive(Debug)]
struct Tasks {
    gossip: Mutex<Option<JoinHandle<()>>>,
    resolver: JoinHandle<()>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.resolver.abort();
        if let Some(gossip) = self.gossip.get_mut() {
            gossip.abort();
        }
    }
}

impl Membership {
    /// Opens the socket and begins to gossip.
    pub async fn start(parts: Parts) -> Result<Self, MembershipError> {
        let mut facts = parts.facts;
        facts.check()?;
        facts.sort_led();
        if facts.peer.ip().is_unspecified() || facts.peer.port() == 0 || facts.peer.is_ipv4() != parts.listen.is_ipv4()
        {
            return Err(MembershipError::Peer(facts.peer));
        }
        let seeds = Seeds::parse(&parts.seeds).map_err(MembershipError::Seed)?;
        let clock = parts.clock;
        let sealer = Arc::new(Sealer::new(&parts.keys, facts.cluster, clock.clone(), parts.entropy)?);
        let mut book = Book::default();
        let view = book.view(&facts, parts.incarnation, Vec::new(), clock.monotonic_ms());
        let (found, resolved) = watch::channel(seeds.addresses().clone());
        let mut contacts = Contacts::new(facts.peer);
        for address in parts.known {
            contacts.remember(address);
        }
        let shared = Arc::new(Shared {
            facts: Mutex::new(facts),
            changed: Notify::new(),
            stop: watch::Sender::new(Stop::No),
            view: watch::Sender::new(Arc::new(view)),
        });
        let gossip = Gossip {
            shared: shared.clone(),
            transport: SealedTransport {
                network: parts.network.clone(),
                sealer: sealer.clone(),
                reporter: Arc::new(Reporter::new(parts.observer, clock.clone())),
            },
            clock,
            listen: parts.listen,
            interval: parts.interval,
            incarnation: parts.incarnation,
            seeds: resolved,
            contacts,
            book,
            readings: Readings::default(),
        };
        let address = parts.listen;
        let opened = gossip.open().await;
        let handle = opened.map_err(|error| MembershipError::Open { address, error })?;
        let tasks = Tasks {
            gossip: Mutex::new(Some(tokio::spawn(gossip.run(handle)))),
            resolver: tokio::spawn(seeds.keep_resolved(parts.network, found)),
        };
        Ok(Self {
            shared,
            sealer,
            tasks: Arc::new(tasks),
        })
    }

    /// The cluster as seen from here, now and whenever it changes.
    pub fn view(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.shared.view.subscribe()
    }

    /// Changes what this node tells. Cheap: many changes before the next round are told as one. Who and where it is, zone
    /// and version stay as at the start, the cluster until [`Membership::adopt`].
    pub fn publish(&self, change: impl FnOnce(&mut Facts)) {
        let mut facts = self.shared.facts.lock();
        let mut changed = facts.clone();
        change(&mut changed);
        changed.sort_led();
        *facts = Facts {
            node: facts.node,
            peer: facts.peer,
            zone: std::mem::take(&mut facts.zone),
            version: std::mem::take(&mut facts.version),
            commands: facts.commands,
            cluster: facts.cluster,
            groups: facts.groups,
            ..changed
        };
        drop(facts);
        self.shared.changed.notify_one();
    }

    /// A joining node becomes a member of `cluster`: it tells so, and no longer hears other clusters.
    pub fn adopt(&self, cluster: u128, groups: GroupCount) -> Result<(), MembershipError> {
        let mut facts = self.shared.facts.lock();
        let adopted = Facts {
            cluster: Some(cluster),
            groups: Some(groups),
            ..facts.clone()
        };
        adopted.check()?;
        if let Some(own) = facts.cluster.filter(|own| *own != cluster) {
            return Err(MembershipError::AlreadyMember { own, other: cluster });
        }
        *facts = adopted;
        self.sealer.adopt(cluster);
        drop(facts);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Tells the others that this node is going, so that they need not wait for its silence; then ends.
    pub async fn leave(self) {
        self.end(Stop::Politely).await;
    }

    /// Ends without a word: to the others it looks like a crash.
    pub async fn shutdown(self) {
        self.end(Stop::Silently).await;
    }

    async fn end(&self, stop: Stop) {
        self.shared.stop.send_replace(stop);
        let gossip = self.tasks.gossip.lock().take();
        if let Some(gossip) = gossip {
            // An error says that it was aborted or panicked: it has ended.
            let _ = gossip.await;
        }
    }
}

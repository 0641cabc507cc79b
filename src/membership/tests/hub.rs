//! A network of datagrams in memory, and nodes on it whose time is tokio's paused one. Used by the tests of gossip alone.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};
use tokio::time::{Instant, timeout};

use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::id::GroupCount;
use crate::membership::{
    ClusterView, Datagrams, Dropped, Facts, GOSSIP_INTERVAL, Membership, Network, Observer, Parts,
};

/// Datagrams that may wait at a socket; more are lost, as in a kernel.
const QUEUE_MAX: usize = 1_024;
/// In virtual time: what has not come by then does not come.
const PATIENCE: Duration = Duration::from_mins(30);

pub const KEY: [u8; 32] = [7; 32];
pub const CLUSTER: u128 = 0xC1;
const START_MS: u64 = 1_772_323_200_000;

#[derive(Clone, Debug, Default)]
pub struct Hub(Arc<Mutex<Wires>>);

#[derive(Debug, Default)]
struct Wires {
    sockets: BTreeMap<SocketAddr, mpsc::Sender<(SocketAddr, Vec<u8>)>>,
    /// Nothing goes from the first to the second.
    cut: BTreeSet<(SocketAddr, SocketAddr)>,
    names: BTreeMap<String, SocketAddr>,
    /// The last datagram on each way.
    last: BTreeMap<(SocketAddr, SocketAddr), Vec<u8>>,
}

impl Hub {
    /// Puts a datagram before the socket at `to`.
    pub fn inject(&self, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        if let Some(socket) = self.0.lock().sockets.get(&to) {
            // Full: lost.
            let _ = socket.try_send((from, datagram.to_vec()));
        }
    }

    /// Separates every node of `one` from every node of `other`, both ways.
    pub fn cut(&self, one: &[u16], other: &[u16]) {
        let mut wires = self.0.lock();
        for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b))) {
            wires.cut.insert((address(a), address(b)));
            wires.cut.insert((address(b), address(a)));
        }
    }

    pub fn heal(&self) {
        self.0.lock().cut.clear();
    }

    pub fn name(&self, name: &str, node: u16) {
        self.0.lock().names.insert(name.to_owned(), address(node));
    }

    /// The socket of `node` gives errors until another one is opened.
    pub fn break_socket(&self, node: u16) {
        self.0.lock().sockets.remove(&address(node));
    }

    /// The last datagram sent from one to the other.
    pub fn last(&self, from: u16, to: u16) -> Vec<u8> {
        self.0.lock().last[&(address(from), address(to))].clone()
    }
}

impl Network for Hub {
    fn bind(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Datagrams>>> {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let mut wires = self.0.lock();
        let is_taken = wires.sockets.get(&address).is_some_and(|old| !old.is_closed());
        let bound = if is_taken {
            Err(io::Error::from(io::ErrorKind::AddrInUse))
        } else {
            wires.sockets.insert(address, sender);
            Ok(Box::new(MemorySocket {
                hub: self.clone(),
                own: address,
                receiver: AsyncMutex::new(receiver),
            }) as Box<dyn Datagrams>)
        };
        Box::pin(std::future::ready(bound))
    }

    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        let found = self.0.lock().names.get(host).copied();
        let found = found.map(|address| vec![address]);
        Box::pin(std::future::ready(found.ok_or_else(|| io::ErrorKind::NotFound.into())))
    }
}

#[derive(Debug)]
struct MemorySocket {
    hub: Hub,
    own: SocketAddr,
    receiver: AsyncMutex<mpsc::Receiver<(SocketAddr, Vec<u8>)>>,
}

impl Datagrams for MemorySocket {
    fn send<'a>(&'a self, datagram: &'a [u8], to: SocketAddr) -> BoxFuture<'a, io::Result<()>> {
        let is_cut = {
            let mut wires = self.hub.0.lock();
            wires.last.insert((self.own, to), datagram.to_vec());
            wires.cut.contains(&(self.own, to))
        };
        if !is_cut {
            self.hub.inject(self.own, to, datagram);
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn receive<'a>(&'a self, buffer: &'a mut [u8]) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>> {
        Box::pin(async move {
            let received = self.receiver.lock().await.recv().await;
            let (from, datagram) = received.ok_or(io::ErrorKind::BrokenPipe)?;
            let bytes = datagram.len().min(buffer.len());
            buffer[..bytes].copy_from_slice(&datagram[..bytes]);
            Ok((bytes, from))
        })
    }
}

/// Follows tokio's time; its wall clock may be set wrong.
#[derive(Debug)]
pub struct VirtualClock {
    start: Instant,
    pub wrong_ms: AtomicI64,
}

impl VirtualClock {
    #[expect(clippy::disallowed_methods, reason = "tokio's paused time is what this clock shows")]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            wrong_ms: AtomicI64::new(0),
        })
    }
}

impl Clock for VirtualClock {
    fn wall_ms(&self) -> u64 {
        let elapsed = u64::try_from(self.monotonic().as_millis()).expect("a test is short");
        (START_MS + elapsed).saturating_add_signed(self.wrong_ms.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// Counts up: no two fills are the same.
#[derive(Debug, Default)]
pub struct CountingEntropy(AtomicU64);

impl CountingEntropy {
    pub fn from(start: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(start)))
    }
}

impl Entropy for CountingEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        let count = self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        for (byte, count) in bytes
            .iter_mut()
            .rev()
            .zip(count.iter().rev().chain(std::iter::repeat(&0)))
        {
            *byte = *count;
        }
    }
}

#[derive(Debug, Default)]
pub struct Counts {
    pub dropped: Mutex<BTreeMap<Dropped, u64>>,
    pub sent_bytes: AtomicU64,
    pub received_bytes: AtomicU64,
    pub unreadable: AtomicU64,
    pub reopened: AtomicU64,
}

impl Counts {
    pub fn of(&self, why: Dropped) -> u64 {
        self.dropped.lock().get(&why).copied().unwrap_or_default()
    }
}

impl Observer for Counts {
    fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn dropped(&self, why: Dropped) {
        *self.dropped.lock().entry(why).or_default() += 1;
    }

    fn unreadable(&self) {
        self.unreadable.fetch_add(1, Ordering::Relaxed);
    }

    fn reopened(&self) {
        self.reopened.fetch_add(1, Ordering::Relaxed);
    }
}

/// Where node `n` is.
pub fn address(node: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, (node >> 8) as u8, (node & 0xff) as u8], 7_000))
}

pub fn groups() -> GroupCount {
    GroupCount::new(32).expect("a divisor")
}

pub fn facts(node: u16, cluster: Option<u128>) -> Facts {
    Facts {
        node: u64::from(node),
        peer: address(node),
        api: SocketAddr::new(address(node).ip(), 8_000),
        zone: "a".into(),
        version: "0.1.0".into(),
        commands: 2,
        cluster,
        groups: cluster.map(|_| groups()),
        draining: false,
        ready: false,
        led: Vec::new(),
        clock_offset_ms: 0,
        replicas: 3,
    }
}

/// A world of nodes that share network and time.
#[derive(Clone)]
pub struct World {
    pub hub: Hub,
    pub clock: Arc<VirtualClock>,
}

/// A node and what is counted there.
pub struct Node {
    pub membership: Membership,
    pub counts: Arc<Counts>,
    pub view: watch::Receiver<Arc<ClusterView>>,
}

impl World {
    pub fn new() -> Self {
        Self {
            hub: Hub::default(),
            clock: VirtualClock::new(),
        }
    }

    /// What node `n` of [`CLUSTER`] is made of; its seed is node 1.
    pub fn parts(&self, node: u16) -> Parts {
        Parts {
            facts: facts(node, Some(CLUSTER)),
            listen: address(node),
            seeds: vec![address(1).to_string()],
            known: Vec::new(),
            keys: vec![KEY],
            incarnation: self.clock.wall_ms(),
            interval: GOSSIP_INTERVAL,
            clock: self.clock.clone(),
            entropy: CountingEntropy::from(u64::from(node) << 32 | self.clock.wall_ms() << 48),
            network: Arc::new(self.hub.clone()),
            observer: Arc::new(Counts::default()),
        }
    }

    pub async fn start(&self, node: u16) -> Node {
        self.start_with(self.parts(node)).await
    }

    pub async fn start_with(&self, parts: Parts) -> Node {
        let counts = Arc::new(Counts::default());
        let parts = Parts {
            observer: counts.clone(),
            ..parts
        };
        let membership = Membership::start(parts).await.expect("it starts");
        let view = membership.view();
        Node {
            membership,
            counts,
            view,
        }
    }

    /// Nodes 1 to `count`, all of which see each other alive.
    pub async fn cluster(&self, count: u16) -> Vec<Node> {
        let mut nodes = Vec::new();
        for node in 1..=count {
            nodes.push(self.start(node).await);
        }
        let all: Vec<u16> = (1..=count).collect();
        for node in &mut nodes {
            node.until_live(&all).await;
        }
        nodes
    }
}

impl Node {
    /// Waits until the view is as wanted.
    pub async fn until(&mut self, what: &str, is_so: impl Fn(&ClusterView) -> bool) -> Arc<ClusterView> {
        let wanted = timeout(PATIENCE, self.view.wait_for(|view| is_so(view))).await;
        let wanted = wanted.unwrap_or_else(|_| panic!("never came: {what}"));
        wanted.expect("the sender lives with the handle").clone()
    }

    /// Waits until exactly `nodes` are alive.
    pub async fn until_live(&mut self, nodes: &[u16]) -> Arc<ClusterView> {
        let wanted: Vec<u64> = nodes.iter().map(|node| u64::from(*node)).collect();
        self.until("the live nodes", |view| live(view) == wanted).await
    }

    /// Waits until more than `before` datagrams were dropped for this reason.
    pub async fn until_dropped(&self, why: Dropped, before: u64) {
        let look = async {
            while self.counts.of(why) <= before {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let dropped = timeout(PATIENCE, look).await;
        dropped.unwrap_or_else(|_| panic!("never dropped: {why}; dropped: {:?}", self.counts.dropped.lock()));
    }

    /// Waits until a member's facts could not be read.
    pub async fn until_unreadable(&self) {
        let look = async {
            while self.counts.unreadable.load(Ordering::Relaxed) == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, look).await.expect("never counted as unreadable");
    }

    /// The incarnation of `node` as seen here.
    pub fn incarnation_of(&self, node: u16) -> u64 {
        self.view.borrow().members[&u64::from(node)].incarnation
    }
}

pub fn live(view: &ClusterView) -> Vec<u64> {
    view.live().map(|member| member.facts.node).collect()
}

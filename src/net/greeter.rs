//! The peer port of a node that does not serve yet: says who is here, and asks others the same.
//!
//! A node that waits for its cluster, or is still reading its disk, takes no requests, but it answers the handshake: `xcron
//! cluster init` asks every address that it knows whether a cluster is there, and must hear of one that was founded a moment
//! ago. Started by `node/enter.rs`, ended by `node.rs` when the server takes the port over.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::door::{Door, DoorLimits, Guest};
use super::hello::{HANDSHAKE, Hello, NO_CLUSTER, PHASE_FOUNDS, PHASE_STARTS, Refusal, VERSION_MAX, VERSION_MIN};
use super::session::{ask, tell};
use super::{Dial, Listen, Remember, Stream};
use crate::entropy::Entropy;
use crate::id::{NodeId, Progress};
use crate::secret::ClusterSecret;

/// Longest time that asking one address may take, dialing included.
const ASK: Duration = Duration::from_secs(2);
/// Connections of a node that does not serve yet: each is a handshake and over, and few files may be all there are.
const CONNECTIONS_MAX: u32 = 64;
/// Pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a node says of itself before it serves.
#[derive(Clone, Debug)]
pub struct Greeting {
    node: NodeId,
    secret: ClusterSecret,
    entropy: Arc<dyn Entropy>,
    memory: Arc<dyn Remember>,
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    cluster: u128,
    is_founding: bool,
    /// A member of this cluster has called from there.
    called: Option<(u128, SocketAddr)>,
}

/// A node that was asked who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub node: NodeId,
    /// Its cluster, if it has one.
    pub cluster: Option<u128>,
    /// It was told to found one, and finds out whether it may.
    pub is_founding: bool,
    /// How far it has last known this node to be.
    pub seen: Progress,
}

impl Greeting {
    /// What `node` says, a member of `cluster` if that is not `None`.
    pub fn new(
        node: NodeId,
        cluster: Option<u128>,
        secret: ClusterSecret,
        entropy: Arc<dyn Entropy>,
        memory: Arc<dyn Remember>,
    ) -> Self {
        let cluster = cluster.unwrap_or(NO_CLUSTER);
        let state = State {
            cluster,
            is_founding: false,
            called: None,
        };
        Self {
            node,
            secret,
            entropy,
            memory,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Whether this node finds out if it may found a cluster.
    pub fn set_founding(&self, is_founding: bool) {
        self.state.lock().is_founding = is_founding;
    }

    /// From now on the node belongs to `cluster`.
    pub fn set_cluster(&self, cluster: u128) {
        self.state.lock().cluster = cluster;
    }

    /// The cluster that the node belongs to.
    pub fn cluster(&self) -> Option<u128> {
        let cluster = self.state.lock().cluster;
        (cluster != NO_CLUSTER).then_some(cluster)
    }

    /// A cluster whose member has called here, and from where: it takes this node for one that it knows.
    pub fn called(&self) -> Option<(u128, SocketAddr)> {
        self.state.lock().called
    }

    /// Asks who is at `address`.
    pub async fn ask(&self, dialer: &dyn Dial, address: SocketAddr) -> Result<Peer, Refusal> {
        let asked = timeout(ASK, async {
            let dialed = dialer.dial(address).await;
            let mut stream = dialed.map_err(|error| Refusal::Unreachable(error.to_string()))?;
            let key = &self.secret.peer_keys()[0];
            ask(&mut stream, &self.hello(0), key, self.entropy.clone()).await
        });
        let hello = asked.await.unwrap_or(Err(Refusal::Deadline))?;
        Ok(Peer {
            node: hello.node,
            cluster: (hello.cluster != NO_CLUSTER).then_some(hello.cluster),
            is_founding: hello.phase == PHASE_FOUNDS,
            seen: hello.seen,
        })
    }

    /// To nobody (0) it goes where nobody is known to be called yet.
    fn hello(&self, to: NodeId) -> Hello {
        let State {
            cluster, is_founding, ..
        } = *self.state.lock();
        Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            cluster,
            node: self.node,
            to,
            phase: if is_founding { PHASE_FOUNDS } else { PHASE_STARTS },
            progress: self.memory.own(),
            seen: self.memory.seen(to),
        }
    }

    /// Answers one handshake.
    async fn answer(self, mut stream: impl Stream, from: SocketAddr, guest: Guest) {
        let told = tell(&mut stream, self.secret.peer_keys(), &self.entropy, |node| {
            self.hello(node)
        });
        let caller = tokio::select! {
            biased;
            () = guest.sent_away() => return,
            told = timeout(HANDSHAKE, told) => told,
        };
        // The connection ends: nothing is served here.
        let Ok(Ok(caller)) = caller else { return };
        let cluster = self.state.lock().cluster;
        if caller.cluster == cluster && caller.to == self.node && self.memory.own().is_behind(caller.seen) {
            self.memory.superseded();
        }
        if caller.cluster != NO_CLUSTER {
            self.state.lock().called = Some((caller.cluster, from));
        }
    }
}

/// Answers at the peer port until the node serves.
#[derive(Debug)]
pub struct Greeter<L> {
    end: oneshot::Sender<()>,
    task: JoinHandle<L>,
}

impl<L: Listen> Greeter<L> {
    /// Begins to answer.
    pub fn start(listener: L, greeting: Greeting) -> Self {
        let (end, ended) = oneshot::channel();
        Self {
            end,
            task: tokio::spawn(greet(listener, greeting, ended)),
        }
    }

    /// Gives the port back, for the server. `None`: the runtime is stopping.
    pub async fn end(self) -> Option<L> {
        drop(self.end);
        self.task.await.ok()
    }
}

async fn greet<L: Listen>(mut listener: L, greeting: Greeting, ended: oneshot::Receiver<()>) -> L {
    let door = Door::new(DoorLimits::of_files(CONNECTIONS_MAX));
    let mut answers = JoinSet::new();
    let mut ended = pin!(ended);
    loop {
        let accepted = tokio::select! {
            biased;
            _ = &mut ended => break,
            Some(_) = answers.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                answers.spawn(greeting.clone().answer(stream, from, door.enter()));
            }
            // The server tells of it: here nobody waits for long.
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
    answers.shutdown().await;
    listener
}

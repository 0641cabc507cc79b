//! Nodes that call each other over a network in memory, on virtual time.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::DuplexStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::frame::{Frame, Kind};
use super::hello::Hello;
use super::memory::MemoryNet;
use super::session::{Session, initiate, respond};
use super::wire::{End, FrameReader, FrameWriter};
use super::*;
use crate::entropy::SystemEntropy;
use crate::id::Progress;
use crate::limits::PEER_MESSAGE_BYTES_MAX;

mod calling;
mod failing;
mod greeting;
mod handshake;
mod hostile;
mod remembering;

const CLUSTER: u128 = 0x00c0_ffee;
const SECRET: &str = "the first secret of this test";
const DEADLINE: Duration = Duration::from_secs(1);
const WALL_MS: u64 = 1_772_323_200_000;

/// Virtual time, with the wall clock off by so much.
#[derive(Debug)]
struct SkewedClock {
    start: Instant,
    skew_ms: u64,
}

impl SkewedClock {
    #[expect(clippy::disallowed_methods, reason = "virtual time is tokio's")]
    fn new(skew_ms: u64) -> Self {
        Self {
            start: Instant::now(),
            skew_ms,
        }
    }
}

impl Clock for SkewedClock {
    fn wall_ms(&self) -> u64 {
        let passed_ms = u64::try_from(self.monotonic().as_millis()).expect("tests are short");
        WALL_MS + self.skew_ms + passed_ms
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// How often each thing happened.
#[derive(Debug, Default)]
struct Counters(Mutex<BTreeMap<String, u32>>);

impl Counters {
    fn add(&self, what: String) {
        *self.0.lock().entry(what).or_default() += 1;
    }

    fn get(&self, what: &str) -> u32 {
        self.0.lock().get(what).copied().unwrap_or_default()
    }

    /// Waits until it has happened so often.
    async fn wait(&self, what: &str, count: u32) {
        for _ in 0..100_000 {
            if self.get(what) >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("{what} did not happen {count} times: {self:?}");
    }
}

impl NetObserve for Counters {
    fn connection(&self, side: Side, is_open: bool) {
        self.add(format!("{side:?} {}", if is_open { "open" } else { "closed" }));
    }

    fn refused(&self, side: Side, refusal: &Refusal) {
        self.add(format!("{side:?} refused {}", refusal.name()));
    }

    fn broken(&self, side: Side, breach: Breach) {
        self.add(format!("{side:?} broken {}", breach.name()));
    }

    fn late(&self) {
        self.add("late".into());
    }

    fn busy(&self) {
        self.add("busy".into());
    }
}

/// Everybody is at their own address, but for those who moved.
#[derive(Debug, Default)]
struct Book(Mutex<BTreeMap<NodeId, SocketAddr>>);

impl AddressBook for Book {
    fn address(&self, node: NodeId) -> Option<SocketAddr> {
        (node < 100).then(|| self.0.lock().get(&node).copied().unwrap_or_else(|| address(node)))
    }
}

fn address(node: NodeId) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(node).expect("a small id")], 7_000))
}

/// Does what the request says.
struct Obedient;

impl Handle for Obedient {
    fn handle(&self, from: NodeId, service: Service, request: Bytes) -> BoxFuture<'_, Bytes> {
        Box::pin(async move {
            match &request[..] {
                b"never" => pending().await,
                b"panic" => panic!("as asked"),
                b"who" => Bytes::from(format!("{service:?} from {from}")),
                b"too much" => Bytes::from(vec![0; PEER_MESSAGE_BYTES_MAX + 1]),
                _ => request,
            }
        })
    }
}

/// A node's side of a connection, to be changed before it starts.
struct Node {
    id: NodeId,
    net: MemoryNet,
    cluster: u128,
    secret: String,
    skew_ms: u64,
    memory: Arc<Memory>,
}

struct Running {
    peers: Peers,
    counters: Arc<Counters>,
    book: Arc<Book>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Node {
    fn new(net: &MemoryNet, id: NodeId) -> Self {
        Self {
            id,
            net: net.clone(),
            cluster: CLUSTER,
            secret: SECRET.into(),
            skew_ms: 0,
            memory: Arc::default(),
        }
    }

    fn start(self) -> Running {
        let counters = Arc::new(Counters::default());
        let book = Arc::new(Book::default());
        let local = Arc::new(Local {
            node: self.id,
            cluster: self.cluster,
            secret: secret(&self.secret),
            clock: Arc::new(SkewedClock::new(self.skew_ms)),
            entropy: Arc::new(SystemEntropy::default()),
            observe: counters.clone(),
            memory: self.memory,
        });
        let listener = self.net.listen(address(self.id));
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move { drop(stopped.await) };
        let serving = tokio::spawn(serve(
            listener,
            local.clone(),
            Arc::new(Obedient),
            DoorLimits::of_files(u32::MAX),
            shutdown,
        ));
        let peers = Peers::new(Parts {
            local,
            addresses: book.clone(),
            dialer: Arc::new(self.net),
        });
        Running {
            peers,
            counters,
            book,
            stop,
            serving,
        }
    }
}

impl Running {
    async fn call(&self, to: NodeId, request: &'static str) -> Result<Bytes, CallError> {
        let request = Bytes::from_static(request.as_bytes());
        self.peers.call(to, Service::Router, request, DEADLINE).await
    }

    /// Stops the node and waits until it has.
    async fn stop(self) {
        drop(self.stop);
        self.serving.await.expect("no panic");
    }
}

fn secret(text: &str) -> ClusterSecret {
    ClusterSecret::parse(text).expect("valid")
}

fn hello(from: NodeId, to: NodeId) -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        cluster: CLUSTER,
        node: from,
        to,
        phase: 0,
        progress: Progress::default(),
        seen: Progress::default(),
    }
}

/// Answers a handshake with `own`, whoever calls.
async fn respond_as(stream: &mut DuplexStream, own: Hello, secret: &ClusterSecret) -> Result<Session, Refusal> {
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::default());
    let own = |node| Hello { to: node, ..own };
    respond(stream, secret.peer_keys(), &entropy, own, async |_| {
        Ok(LogMark::default())
    })
    .await
}

/// Remembers, in memory, how far nodes have come.
#[derive(Debug, Default)]
struct Memory {
    own: Mutex<Progress>,
    seen: Mutex<BTreeMap<NodeId, (Progress, LogMark)>>,
    is_superseded: AtomicBool,
    is_full: AtomicBool,
}

impl Remember for Memory {
    fn own(&self) -> Progress {
        *self.own.lock()
    }

    fn seen(&self, node: NodeId) -> Progress {
        let seen = self.seen.lock();
        seen.get(&node)
            .map_or_else(Progress::default, |(progress, mark)| Progress {
                log: mark.get(),
                ..*progress
            })
    }

    fn met(&self, node: NodeId, progress: Progress) -> BoxFuture<'_, Result<LogMark, String>> {
        Box::pin(async move {
            if self.is_full.load(Ordering::SeqCst) {
                return Err("the disk is full".to_owned());
            }
            let mut seen = self.seen.lock();
            let (known, mark) = seen.entry(node).or_default();
            *known = progress;
            mark.raise(progress.log);
            Ok(mark.clone())
        })
    }

    fn superseded(&self) {
        self.is_superseded.store(true, Ordering::SeqCst);
    }
}

/// A peer that does not keep to the rules.
struct Rogue {
    stream: DuplexStream,
    session: Session,
}

impl Rogue {
    /// Connects to `to` as node 66.
    async fn connect(net: &MemoryNet, to: NodeId) -> Self {
        Self::present(net, hello(66, to)).await.expect("welcome")
    }

    /// Connects with any hello.
    async fn present(net: &MemoryNet, own: Hello) -> Result<Self, Refusal> {
        let mut stream = net.connect(address(own.to)).expect("it listens");
        let entropy = Arc::new(SystemEntropy::default());
        let session = initiate(&mut stream, &own, &secret(SECRET).peer_keys()[0], entropy).await?;
        Ok(Self { stream, session })
    }

    fn frames(
        self,
    ) -> (
        FrameReader<impl tokio::io::AsyncRead>,
        FrameWriter<impl tokio::io::AsyncWrite>,
    ) {
        let (reading, writing) = tokio::io::split(self.stream);
        let reader = FrameReader::new(reading, self.session.opener);
        (reader, FrameWriter::new(writing, self.session.sealer))
    }
}

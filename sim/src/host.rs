//! One node: its machine (disk, clocks, network address), and the runs of its process, each in a runtime of its own.
//!
//! What runs is the product's own `node::run` behind its own way in, `node::enter`. A crash drops the runtime and all that is
//! in it; the disk decides what is left.

mod blocking;
mod log_runner;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::time::{Instant, advance, sleep_until};
use xcron::config::{Config, PeerListen, Seeds};
use xcron::membership::{Dropped, Observer};
use xcron::node::{self, Basics, Doorway, Entrance, LogWorld, NodeError, World, enter};
use xcron::secret::ClusterSecret;
use xcron::store::kv::{ReadKv, Write};

use crate::clock::{NodeClock, Skew, Timeline};
use crate::dice::{Dice, SeededEntropy};
use crate::disk::{Disk, Faults, Mount, SimKv, Workshop};
use crate::history::Violation;
use crate::net::{self, Net};
use crate::targets::Targets;
use crate::world::STEP_US;
use blocking::{Jobs, Roomy};
use log_runner::Turns;

/// Port of the API on every node.
pub const API_PORT: u16 = 80;
/// Port for the other nodes.
pub const PEER_PORT: u16 = 81;
/// Segments of the log: small, so that there are many.
const SEGMENT_BYTES: u64 = 1 << 20;

/// Longest time that a runtime may block on a usual disk, in microseconds: a lease is six times as long.
const BLOCKED_US_MAX: u64 = 100_000;

/// How a process ended by itself: in order, or with what it said.
pub type Ended = Result<(), String>;

/// Looks on at every commit: node, what was written, and the rows after it.
pub type LookOn = Arc<dyn Fn(usize, &[Write], &dyn ReadKv) + Send + Sync>;

/// What all nodes of a run have in common.
#[derive(Clone)]
pub struct Common {
    /// The seed.
    pub seed: u64,
    /// The network.
    pub net: Net,
    /// The targets.
    pub targets: Targets,
    /// Settings, but for addresses.
    pub config: Config,
    /// Entries of a group between two snapshots.
    pub snapshot_entries: u64,
    /// What nodes know: in each step of a change of the secret.
    pub secrets: [ClusterSecret; 4],
    /// Looks on at every commit.
    pub on_commit: LookOn,
    /// The beginning of the run on the monotonic clock.
    pub origin: Instant,
}

/// A node's machine.
pub struct Host {
    /// Its number.
    pub index: usize,
    /// Its disk.
    pub disk: Disk,
    /// How far its wall clock is off.
    pub skew_ms: Skew,
    /// How fast its clocks run, in millionths: 1,000,000 is true.
    pub rate_ppm: u64,
    /// Which step of a change of the secret its file has.
    pub secret_step: usize,
    /// Its process stands still.
    pub is_paused: bool,
    /// Its disk was bad, and what that has held up is not over; or it was told already.
    is_excused: bool,
    /// Copies of every group that it is told to want.
    pub replicas: u8,
    common: Common,
    /// Runs of its process so far.
    runs: u64,
    process: Option<Process>,
    /// How the last run ended, if it did so by itself.
    ended: Arc<Mutex<Option<Ended>>>,
    is_ready: Arc<AtomicBool>,
}

struct Process {
    runtime: Runtime,
    /// When it began, on its own clock.
    began: Instant,
    timeline: Arc<Timeline>,
    /// Microseconds of its own time, and the true time at which they were that.
    own_us: u64,
    true_us: u64,
    shutdown: Option<oneshot::Sender<()>>,
    work: Arc<Workshop>,
    /// How long it still stands still, since its runtime has blocked, in microseconds.
    blocked_us: u64,
}

impl Drop for Process {
    fn drop(&mut self) {
        // What is still at work on the disk finds it gone, and ends before the runtime does.
        let _here = self.work.strands.driven_here();
        self.work.strands.end_all();
    }
}

impl Host {
    /// A machine with an empty disk, switched off.
    pub fn new(index: usize, common: Common) -> Self {
        Self {
            index,
            disk: Disk::new(Dice::new(common.seed, &format!("disk {index}"))),
            skew_ms: Arc::new(AtomicI64::new(0)),
            rate_ppm: 1_000_000,
            secret_step: 0,
            is_paused: false,
            is_excused: false,
            replicas: common.config.replicas,
            common,
            runs: 0,
            process: None,
            ended: Arc::default(),
            is_ready: Arc::default(),
        }
    }

    /// Whether its process runs.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Whether its process has said that it serves.
    pub fn is_ready(&self) -> bool {
        self.is_running() && self.is_ready.load(Ordering::SeqCst)
    }

    /// How the last run of its process ended, if it did so by itself.
    pub fn ended(&self) -> Option<Ended> {
        self.ended.lock().clone()
    }

    /// Starts its process, which is to find others through `join`.
    #[expect(clippy::disallowed_methods, reason = "the beginning of a runtime's own virtual time")]
    pub fn start(&mut self, join: &[usize], now_us: u64) {
        assert!(self.process.is_none(), "node {} runs already", self.index);
        self.runs += 1;
        *self.ended.lock() = None;
        self.is_ready.store(false, Ordering::SeqCst);
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without a driver for sockets asks nothing of the machine");
        let (shutdown, stopped) = oneshot::channel();
        let began = Instant::now();
        let timeline = Arc::<Timeline>::default();
        timeline.step(now_us, now_us, 0);
        let parts = self.parts(join, began, timeline.clone());
        let work = parts.mount.workshop();
        let (ended, is_ready) = (self.ended.clone(), self.is_ready.clone());
        runtime.spawn(async move {
            let result = life(parts, is_ready, stopped).await;
            *ended.lock() = Some(result.map_err(|error| error.to_string()));
        });
        self.is_paused = false;
        self.process = Some(Process {
            runtime,
            began,
            timeline,
            own_us: 0,
            true_us: now_us,
            shutdown: Some(shutdown),
            work,
            blocked_us: 0,
        });
    }

    fn parts(&self, join: &[usize], began: Instant, timeline: Arc<Timeline>) -> Parts {
        let common = &self.common;
        let mount = self.disk.mount();
        let clock = Arc::new(NodeClock::new(common.origin, began, timeline, self.skew_ms.clone()));
        let mut config = common.config.clone();
        config.replicas = self.replicas;
        config.listen = net::address(self.index, API_PORT);
        config.peer_listen = PeerListen(Some(net::address(self.index, PEER_PORT)));
        let seeds = join.iter().map(|other| net::address(*other, PEER_PORT).to_string());
        config.join = Seeds(seeds.collect());
        let what = format!("entropy of node {} run {}", self.index, self.runs);
        let on_commit = common.on_commit.clone();
        let index = self.index;
        Parts {
            deliver: common.targets.reached_from(index, self.runs, clock.clone()),
            kv: SimKv::new(
                mount.clone(),
                Arc::new(move |writes: &[Write], rows: &dyn ReadKv| on_commit(index, writes, rows)),
            ),
            net: common.net.join(index),
            secret: common.secrets[self.secret_step].clone(),
            entropy: Arc::new(SeededEntropy::new(Dice::new(common.seed, &what))),
            mount,
            clock,
            config,
            snapshot_entries: self.common.snapshot_entries,
        }
    }

    /// Asks its process to stop in order.
    pub fn stop(&mut self) {
        let shutdown = self.process.as_mut().and_then(|process| process.shutdown.take());
        if let Some(shutdown) = shutdown {
            // It may have ended by itself.
            let _ = shutdown.send(());
        }
    }

    /// Its process is killed; the machine goes on.
    pub fn kill(&mut self) {
        self.common.net.leave(self.index, false);
        self.disk.unmount();
        self.process = None;
    }

    /// Its power is cut.
    pub fn lose_power(&mut self) {
        self.common.net.leave(self.index, true);
        self.disk.lose_power();
        self.process = None;
    }

    /// Lets its process live until the true time `until_us`. Returns how it ended, if it did now.
    pub fn step(&mut self, until_us: u64) -> Option<Ended> {
        if self.is_paused {
            return None;
        }
        let process = self.process.as_mut()?;
        if process.blocked_us >= STEP_US {
            process.blocked_us -= STEP_US;
            return None;
        }
        // After a standstill its clocks jump, before anything else happens.
        let stood_us = until_us - STEP_US - process.true_us;
        process.own_us += own_us(stood_us, self.rate_ppm);
        let jump = Duration::from_micros(own_us(stood_us, self.rate_ppm));
        process.timeline.step(until_us - STEP_US, until_us, process.own_us);
        process.own_us += own_us(STEP_US, self.rate_ppm);
        process.true_us = until_us;
        let until = process.began + Duration::from_micros(process.own_us);
        {
            let _here = process.work.strands.driven_here();
            process.runtime.block_on(async move {
                if !jump.is_zero() {
                    advance(jump).await;
                }
                sleep_until(until).await;
            });
        }
        assert!(
            !process.work.strands.has_panicked(),
            "a job of node {} has panicked",
            self.index
        );
        process.blocked_us += process.work.take_blocked_us();
        if self.disk.is_cut() {
            self.lose_power();
            return Some(Err("the power was cut in the middle of a write".into()));
        }
        let ended = self.ended.lock().clone()?;
        self.kill();
        Some(ended)
    }
}

impl Host {
    /// Whether its runtime has blocked for too long on a disk that works as usual. Told once for each time.
    pub fn stands_still(&mut self, usual: Faults, now_us: u64) -> Option<Violation> {
        let has_faults = self.disk.faults() != usual;
        let blocked_us = self.process.as_ref().map_or(0, |process| process.blocked_us);
        let is_long = blocked_us > BLOCKED_US_MAX;
        let is_new = is_long && !self.is_excused && !has_faults;
        // What a bad disk has held up is not over at once.
        self.is_excused = has_faults || is_long || self.is_excused && blocked_us > STEP_US;
        is_new.then(|| Violation {
            invariant: "I28 no standstill",
            task: None,
            what: format!(
                "{:.3} s: node {} blocks its runtime for {} ms: what takes so long must leave it",
                crate::world::seconds(now_us),
                self.index,
                blocked_us / 1_000
            ),
        })
    }
}

/// So much true time on a clock of this rate.
fn own_us(true_us: u64, rate_ppm: u64) -> u64 {
    true_us * rate_ppm / 1_000_000
}

/// What one run of a process is given.
struct Parts {
    deliver: Arc<dyn xcron::fire::deliver::Deliver>,
    kv: SimKv,
    net: Net,
    secret: ClusterSecret,
    entropy: Arc<SeededEntropy>,
    mount: Mount,
    clock: Arc<NodeClock>,
    config: Config,
    snapshot_entries: u64,
}

/// One run of a process, from its start to its end.
async fn life(parts: Parts, is_ready: Arc<AtomicBool>, stopped: oneshot::Receiver<()>) -> Result<(), NodeError> {
    let Parts {
        deliver,
        kv,
        net,
        secret,
        entropy,
        mount,
        clock,
        config,
        snapshot_entries,
    } = parts;
    let peer = config.peer_listen.0.expect("set by the host");
    let listener = net.listen(peer);
    let api = net.listen(config.listen);
    let basics = Basics {
        clock,
        entropy,
        metrics: Arc::default(),
    };
    let (waiting, shown) = node::waiting();
    let entrance_config = config.clone();
    let from = basics.clone();
    let open = async move {
        let entered = enter(Entrance {
            config: &entrance_config,
            home: Arc::new(mount.clone()),
            doorway: Some(Doorway {
                secret,
                dialer: Arc::new(net.clone()),
                listener,
            }),
            waiting,
            api: entrance_config.listen,
            clock: from.clock.clone(),
            entropy: from.entropy.clone(),
            network: Arc::new(net.clone()),
            observer: Arc::new(Unobserved),
        })
        .await?;
        Ok(World {
            clock: from.clock,
            entropy: from.entropy,
            metrics: from.metrics,
            deliver,
            identity: entered.identity,
            log: LogWorld {
                files: Arc::new(mount.clone()),
                segment_bytes: SEGMENT_BYTES,
                snapshot_entries,
                runner: Arc::new(Turns(mount.clone())),
            },
            kv: Arc::new(kv),
            spools: Arc::new(mount.clone()),
            blocking: Arc::new(Jobs(mount.clone())),
            disk: Arc::new(Roomy),
            view: entered.view,
            peers: entered.peers,
            trusted_time: Arc::new(mount.clone()),
            home: Arc::new(mount),
        })
    };
    let ready = move || is_ready.store(true, Ordering::SeqCst);
    // A sender that is gone never asks.
    let shutdown = async move {
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    node::run(config, basics, shown, open, api, ready, shutdown).await
}

/// Nobody reads these figures here.
#[derive(Debug)]
struct Unobserved;

impl Observer for Unobserved {
    fn sent(&self, _bytes: usize) {}
    fn received(&self, _bytes: usize) {}
    fn dropped(&self, _why: Dropped) {}
    fn unreadable(&self) {}
    fn reopened(&self) {}
}

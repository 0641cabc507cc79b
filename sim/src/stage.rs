//! What a scenario can do: act on nodes, links, disks, clocks and targets, wait, and call the API as clients do.
//!
//! Acts on nodes are done by the world between two steps; everything else at once.

mod client;
mod look;

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

use crate::dice::Dice;
use crate::disk::{Disk, Faults};
use crate::history::{Answered, Fault, History, Recorder};
use crate::host::Ended;
use crate::net::{Link, Net, Weather};
use crate::targets::Targets;
use crate::world::Options;
pub use client::Client;
pub use look::{cron, once};

/// Number of the client that tells node 0 to found the cluster.
const FOUNDER: usize = 98;
/// How long it waits for an answer.
const FOUND_PATIENCE: Duration = Duration::from_secs(10);
/// How often it does, at most: the network may be bad from the beginning.
const FOUND_TRIES: usize = 60;

/// Something done to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Starts its process.
    Start {
        /// The node.
        node: usize,
        /// Nodes through which it finds the cluster.
        join: Vec<usize>,
    },
    /// Asks its process to stop in order.
    Stop(usize),
    /// Kills its process.
    Kill(usize),
    /// Cuts its power.
    LosePower(usize),
    /// Lets its process stand still.
    Pause(usize),
    /// Lets it go on.
    Resume(usize),
    /// Takes its power and its disk.
    Wipe(usize),
    /// Sets what its disk does wrong.
    Disk(usize, Faults),
    /// Cuts its power in the middle of the so-many-th of its next writes.
    CutAfter(usize, u64),
    /// Damages its log at rest.
    Rot(usize),
    /// Sets its wall clock so many milliseconds off.
    Skew(usize, i64),
    /// Gives it the secret's file of this step of a change: 0 is before it, 3 after it.
    Secret(usize, usize),
    /// Copies its directory, as it is.
    Copy(usize),
    /// Puts the copy in the place of its directory.
    PutBack(usize),
    /// From its next start on it wants so many copies of every group.
    Replicas(usize, u8),
}

/// What can be seen of a node from outside.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its process runs.
    pub is_running: bool,
    /// It has said that it serves.
    pub is_ready: bool,
    /// How it ended by itself.
    pub ended: Option<Ended>,
    /// Its id.
    pub node_id: Option<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    acts: Vec<Act>,
    now_us: u64,
    shown: Vec<Shown>,
    waits_for: String,
    reached: Vec<&'static str>,
    described: Vec<String>,
    /// What a scenario saw that should not be, each with the promise that it breaks.
    complaints: Vec<(&'static str, String)>,
    /// Links, disks, clocks and nodes that are not as they should be, since when.
    broken: Vec<(u64, Option<usize>, String)>,
}

/// A cheap handle on the world, for scenarios.
#[derive(Clone)]
pub struct Stage {
    /// What the run is made of.
    pub options: Arc<Options>,
    /// The network.
    pub net: Net,
    /// The targets.
    pub targets: Targets,
    /// What happens is written there.
    pub recorder: Recorder,
    /// Every node's disk, to be looked at.
    pub disks: Arc<[Disk]>,
    inner: Arc<Mutex<Inner>>,
}

impl Stage {
    pub(crate) fn new(options: &Options, net: Net, targets: Targets, recorder: Recorder, disks: Arc<[Disk]>) -> Self {
        Self {
            options: Arc::new(options.clone()),
            net,
            targets,
            recorder,
            disks,
            inner: Arc::default(),
        }
    }

    pub(crate) fn take_acts(&self) -> Vec<Act> {
        std::mem::take(&mut self.inner.lock().acts)
    }

    pub(crate) fn show(&self, now_us: u64, shown: Vec<Shown>) {
        let mut inner = self.inner.lock();
        inner.now_us = now_us;
        inner.shown = shown;
    }

    pub(crate) fn waits_for(&self) -> String {
        self.inner.lock().waits_for.clone()
    }

    /// True time, in microseconds.
    pub fn now_us(&self) -> u64 {
        self.inner.lock().now_us
    }

    /// True time as unix seconds.
    pub fn now_secs(&self) -> u64 {
        (crate::history::START_WALL_MS + self.now_us() / 1_000) / 1_000
    }

    /// Dice for `what`.
    pub fn dice(&self, what: &str) -> Dice {
        Dice::new(self.options.seed, what)
    }

    /// Waits.
    pub async fn sleep_ms(&self, ms: u64) {
        sleep(Duration::from_millis(ms)).await;
    }

    /// Notes that an interesting state was reached.
    pub fn reach(&self, what: &'static str) {
        let mut inner = self.inner.lock();
        if !inner.reached.contains(&what) {
            inner.reached.push(what);
        }
    }

    /// Does something to a node at the next step, and waits for that.
    pub async fn act(&self, act: Act) {
        self.act_at_once([act]).await;
    }

    /// Does several things at the same step, and waits for that.
    pub async fn act_at_once(&self, acts: impl IntoIterator<Item = Act>) {
        self.inner.lock().acts.extend(acts);
        self.sleep_ms(2 * crate::world::STEP_US / 1_000).await;
    }

    /// The nodes, as seen from outside.
    pub fn nodes(&self) -> Vec<Shown> {
        self.inner.lock().shown.clone()
    }

    /// Starts node 0 and tells it to found a cluster, starts the others so that they join it, and waits until they serve.
    pub async fn found(&self, nodes: usize) {
        self.act(Act::Start {
            node: 0,
            join: self.others(0),
        })
        .await;
        let mut client = self.client(FOUNDER, 0);
        for _ in 0..FOUND_TRIES {
            let told = client.send(Method::POST, "/v1/cluster/init", String::new());
            drop(timeout(FOUND_PATIENCE, told).await);
            if self.nodes()[0].node_id.is_some() {
                break;
            }
            self.sleep_ms(500).await;
        }
        self.ready(0).await;
        for node in 1..nodes {
            self.act(Act::Start { node, join: vec![0] }).await;
        }
        for node in 1..nodes {
            self.ready(node).await;
        }
    }

    /// Starts a node again, if it does not run.
    pub async fn restart(&self, node: usize) {
        self.act(Act::Start {
            node,
            join: self.others(node),
        })
        .await;
    }

    /// Waits until a node says that it serves.
    pub async fn ready(&self, node: usize) {
        self.until(&format!("node {node} to serve"), |shown| shown[node].is_ready)
            .await;
    }

    /// Starts a node whose disk is empty as a new one of the cluster.
    pub async fn restart_as_new(&self, node: usize) {
        self.act(Act::Start {
            node,
            join: self.others(node),
        })
        .await;
    }

    /// Sets a node's wall clock off.
    pub async fn skew(&self, node: usize, skew_ms: i64) {
        {
            let mut history = self.recorder.lock();
            history.skew_ms_max = history.skew_ms_max.max(skew_ms.unsigned_abs());
        }
        self.act(Act::Skew(node, skew_ms)).await;
    }

    /// Waits until every node serves; whether they did in time is judged by what clients are told afterwards.
    pub async fn rest(&self, within_ms: u64) {
        let all_ready = |shown: &[Shown]| shown.iter().all(|shown| shown.is_ready);
        if !self.until_or("every node to serve", within_ms, all_ready).await {
            let what = format!(
                "{:.3} s: not every node serves {within_ms} ms after everything was healed: {:?}",
                crate::world::seconds(self.now_us()),
                self.nodes()
            );
            self.inner.lock().complaints.push(("I19 healed", what));
        }
    }

    /// Asks every node for every task that was acknowledged.
    pub async fn look_at_all(&self) {
        let all: Vec<usize> = (0..self.options.nodes).collect();
        self.look_at(&all).await;
    }

    /// Asks these nodes for every task that was acknowledged.
    pub async fn look_at(&self, nodes: &[usize]) {
        let mut tasks: Vec<String> = {
            let history = self.recorder.lock();
            let created = history.ops.iter().filter(|op| op.told == crate::history::Told::Done);
            created.map(|op| op.call.task().to_owned()).collect()
        };
        tasks.sort_unstable();
        tasks.dedup();
        // The shared ones have been asked for often enough.
        tasks.retain(|task| !task.starts_with("shared"));
        for node in nodes.iter().copied() {
            let mut client = self.client(80 + node, node);
            for task in &tasks {
                client.query(task).await;
            }
        }
    }

    /// What was drawn for this run, for whoever has to understand it.
    pub fn describe(&self, what: String) {
        self.inner.lock().described.push(what);
    }

    pub(crate) fn described(&self) -> Vec<String> {
        self.inner.lock().described.clone()
    }

    pub(crate) fn complaints(&self) -> Vec<(&'static str, String)> {
        self.inner.lock().complaints.clone()
    }

    /// Waits until the nodes look so, but not longer than that; whether they do.
    pub async fn until_or(&self, what: &str, within_ms: u64, holds: impl Fn(&[Shown]) -> bool) -> bool {
        tokio::time::timeout(Duration::from_millis(within_ms), self.until(what, holds))
            .await
            .is_ok()
    }

    /// Waits until the nodes look so.
    pub async fn until(&self, what: &str, holds: impl Fn(&[Shown]) -> bool) {
        what.clone_into(&mut self.inner.lock().waits_for);
        loop {
            let holds = {
                let inner = self.inner.lock();
                !inner.shown.is_empty() && holds(&inner.shown)
            };
            if holds {
                break;
            }
            self.sleep_ms(20).await;
        }
        self.inner.lock().waits_for.clear();
    }

    /// A fault begins; it is over at [`Self::fixed`].
    pub fn breaks(&self, node: Option<usize>, what: impl Into<String>) {
        let mut inner = self.inner.lock();
        let now_us = inner.now_us;
        inner.broken.push((now_us, node, what.into()));
    }

    /// All faults that began are over, or will be within `after_ms`: what they did has settled by then.
    pub fn fixed(&self, after_ms: u64) {
        let mut inner = self.inner.lock();
        let to_us = inner.now_us + after_ms * 1_000;
        let mut history = self.recorder.lock();
        let over = inner.broken.drain(..).map(|(from_us, node, what)| Fault {
            from_us,
            to_us,
            what,
            node,
        });
        history.faults.extend(over);
        history.healed_us = to_us;
    }

    /// Nothing goes from each of `from` to each of `to`.
    pub fn cut(&self, from: &[usize], to: &[usize]) {
        for (one, other) in from.iter().flat_map(|one| to.iter().map(move |other| (*one, *other))) {
            self.net.set_link(one, other, Link::CUT);
        }
    }

    /// Cuts `some` off from all others, both ways.
    pub fn isolate(&self, some: &[usize]) {
        let others: Vec<usize> = (0..self.options.nodes).filter(|node| !some.contains(node)).collect();
        self.cut(some, &others);
        self.cut(&others, some);
    }

    /// Everything that can be repaired is: links, weather, disks, clocks, targets; every process runs.
    pub async fn heal(&self) {
        self.net.heal();
        self.net.set_weather(Weather {
            loss_permille: 0,
            twice_permille: 0,
            ..self.options.weather
        });
        for (name, _) in crate::targets::Behaviour::ALL {
            self.targets.set_outage(name, false);
        }
        for node in 0..self.options.nodes {
            self.act(Act::Disk(node, self.options.disk)).await;
            self.act(Act::Skew(node, 0)).await;
            self.act(Act::Resume(node)).await;
        }
    }

    pub(crate) fn reached(&self, history: &History) -> Vec<&'static str> {
        let mut reached = self.inner.lock().reached.clone();
        let mut note = |what: &'static str, is_so: bool| {
            if is_so {
                reached.push(what);
            }
        };
        let attempts = &history.attempts;
        note("an attempt withdrawn once it had connected", history.withdrawn > 0);
        note("a retry", attempts.iter().any(|attempt| attempt.attempt > 1));
        note(
            "an answer that nobody heard",
            attempts
                .iter()
                .any(|attempt| matches!(attempt.answered, Answered::Unheard(_))),
        );
        let generations = |attempt: &crate::history::Attempt| (attempt.group, attempt.generation);
        let mut firsts: Vec<_> = attempts.iter().map(generations).collect();
        firsts.sort_unstable();
        firsts.dedup();
        let groups: std::collections::BTreeSet<_> = firsts.iter().map(|(group, _)| group).collect();
        note("a group fired by a second leader", groups.len() < firsts.len());
        note("a fire repeated by another leader", {
            let mut first = std::collections::BTreeMap::new();
            attempts
                .iter()
                .any(|one| *first.entry(&one.fire_id).or_insert(one.generation) != one.generation)
        });
        let ends = history.ended_us;
        note(
            "an attempt in flight when its node died",
            attempts
                .iter()
                .any(|attempt| attempt.ended_us.is_none() && attempt.at_us + 15_000_000 < ends),
        );
        let off = |attempt: &crate::history::Attempt| {
            let due_us = crate::history::true_us(attempt.due_ms);
            let jumps = history.faults.iter().filter(|fault| fault.what == "ClockJump");
            jumps
                .clone()
                .any(|fault| (fault.from_us..fault.to_us).contains(&due_us))
        };
        note("a due while a clock was off", attempts.iter().any(off));
        let unknown = |op: &crate::history::Op| op.told == crate::history::Told::Unknown;
        note("a call of unknown outcome", history.ops.iter().any(unknown));
        reached
    }
}

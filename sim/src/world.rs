//! The world of one run: all nodes, the network, the targets and the clients, moved on step by step in one thread.
//!
//! A step lets every process live for [`STEP_US`] of true time, one after the other; what they send to each other arrives between
//! steps. So nothing depends on the order within a step, and everything on the seed. A scenario runs among the clients and
//! acts on the world through its [`Stage`](crate::stage::Stage).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep_until};
use xcron::config::Config;
use xcron::core::reason::Reason;
use xcron::id::GroupCount;
use xcron::secret::ClusterSecret;
use xcron::store::key::{self, Fact, Table};

use crate::dice::{Dice, SeededEntropy};
use crate::disk::{Faults, OFF_CPU_US_MAX};
use crate::history::{History, Recorder, Violation};
use crate::host::{Common, Ended, Host, LookOn};
use crate::invariants::{self, Commits, NodeState, Voters, low_water};
use crate::net::{Net, Weather};
use crate::os;
use crate::stage::{Act, Shown, Stage};
use crate::targets::Targets;

/// True time of one step: nothing reaches another host sooner.
pub const STEP_US: u64 = 2_000;
/// A run that takes longer, in true time, is itself a violation.
const RUN_US_MAX: u64 = 1_800_000_000;

/// Until then the others have heard that a node that was started again is not leaving.
const HEARD_US: u64 = 30_000_000;

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything follows from it.
    pub seed: u64,
    /// Machines; the scenario starts them.
    pub nodes: usize,
    /// Raft groups.
    pub groups: u16,
    /// Copies of a task.
    pub replicas: u8,
    /// The network on a usual day.
    pub weather: Weather,
    /// How fast each node's clocks run, in millionths.
    pub rates_ppm: Vec<u64>,
    /// The disks on a usual day.
    pub disk: Faults,
    /// Settings of all nodes.
    pub config: Config,
    /// Entries of a group between two snapshots: few, so that many are sent.
    pub snapshot_entries: u64,
}

impl Options {
    /// A calm world.
    pub fn calm(seed: u64, nodes: usize) -> Self {
        Self {
            seed,
            nodes,
            groups: 4,
            replicas: 3,
            weather: Weather {
                latency_us_min: STEP_US,
                latency_us_max: 2 * STEP_US,
                loss_permille: 0,
                twice_permille: 0,
            },
            rates_ppm: vec![1_000_000; nodes],
            disk: Faults {
                sync_us_min: 50,
                sync_us_max: 500,
                off_cpu_us_max: OFF_CPU_US_MAX,
                ..Faults::default()
            },
            config: Config::default(),
            snapshot_entries: 60,
        }
    }
}

/// What a run came to.
pub struct Outcome {
    /// Promises that were broken.
    pub violations: Vec<Violation>,
    /// What happened.
    pub history: History,
    /// Hash of everything that happened.
    pub trace: u64,
    /// True time that passed, in microseconds.
    pub simulated_us: u64,
    /// What was drawn for the run.
    pub described: Vec<String>,
    /// What was done to the world.
    pub acts: Vec<String>,
    /// Interesting states that were reached.
    pub reached: Vec<&'static str>,
}

/// A story that is played in the world.
pub type Scenario = fn(Stage) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// The world.
pub struct World {
    hosts: Vec<Host>,
    outside: Runtime,
    began: Instant,
    now_us: u64,
    net: Net,
    recorder: Recorder,
    stage: Stage,
    commits: Arc<Mutex<(Commits, Vec<Violation>)>>,
    acts: Vec<String>,
    groups: GroupCount,
    /// The disks on a usual day.
    usual: Faults,
    standstills: Vec<Violation>,
    /// Copies that each node's last process wants.
    wants: Vec<u8>,
}

impl World {
    /// A world in which nothing runs yet. Once per process: see `os.rs`.
    #[expect(clippy::disallowed_methods, reason = "the beginning of virtual time")]
    pub fn new(options: &Options) -> Self {
        os::enter(options.seed);
        let groups = GroupCount::new(options.groups).expect("a divisor of the number of shards");
        let net = Net::new(Dice::new(options.seed, "network"), options.weather);
        let recorder = Recorder::default();
        {
            let mut history = recorder.lock();
            history.attempts_max = options.config.retry.attempts_max;
        }
        let targets = Targets::new(Dice::new(options.seed, "targets"), recorder.clone(), groups);
        let secrets = secrets(options.seed);
        let commits: Arc<Mutex<(Commits, Vec<Violation>)>> = Arc::default();
        let config = Config {
            groups,
            replicas: options.replicas,
            ..options.config.clone()
        };
        let common = Common {
            seed: options.seed,
            net: net.clone(),
            targets: targets.clone(),
            config,
            snapshot_entries: options.snapshot_entries,
            secrets,
            on_commit: look_on(commits.clone(), recorder.clone()),
            origin: Instant::now(),
        };
        let hosts = (0..options.nodes).map(|index| {
            let mut host = Host::new(index, common.clone());
            host.disk.set_faults(options.disk);
            host.rate_ppm = options.rates_ppm.get(index).copied().unwrap_or(1_000_000);
            host
        });
        let outside = Builder::new_current_thread().enable_time().start_paused(true).build();
        let hosts: Vec<Host> = hosts.collect();
        let disks = hosts.iter().map(|host| host.disk.clone()).collect();
        let stage = Stage::new(options, net.clone(), targets.clone(), recorder.clone(), disks);
        Self {
            hosts,
            outside: outside.expect("a runtime without a driver for sockets asks nothing of the machine"),
            began: Instant::now(),
            now_us: 0,
            net,
            recorder,
            stage,
            commits,
            acts: Vec::new(),
            groups,
            usual: options.disk,
            standstills: Vec::new(),
            wants: vec![0; options.nodes],
        }
    }

    /// Plays the scenario to its end, and judges what happened.
    pub fn play(mut self, scenario: Scenario) -> Outcome {
        let story = self.outside.spawn(scenario(self.stage.clone()));
        let mut violations = Vec::new();
        while !story.is_finished() {
            if self.now_us > RUN_US_MAX {
                violations.push(Violation {
                    invariant: "I19 healed",
                    task: None,
                    what: format!("the scenario did not end: {}", self.stage.waits_for()),
                });
                break;
            }
            self.step();
        }
        if story.is_finished()
            && let Err(error) = self.outside.block_on(story)
        {
            violations.push(Violation {
                invariant: "scenario",
                task: None,
                what: error.to_string(),
            });
        }
        self.end(violations)
    }

    fn step(&mut self) {
        let until_us = self.now_us + STEP_US;
        self.note_roster();
        for act in self.stage.take_acts() {
            self.act(act);
        }
        for host in &mut self.hosts {
            if let Some(ended) = host.step(until_us) {
                let what = format!("{:.3} s: node {} ended: {ended:?}", seconds(self.now_us), host.index);
                tracing::info!("{what}");
                note_end(&self.stage, &ended);
                self.acts.push(what);
            }
            self.standstills.extend(host.stands_still(self.usual, self.now_us));
            if host.disk.received() > 0 {
                self.stage.reach("a snapshot was received");
            }
        }
        for node in self.stage.targets.take_sprung() {
            self.act(Act::Kill(node));
        }
        let until = self.began + Duration::from_micros(until_us);
        self.outside.block_on(async move { sleep_until(until).await });
        self.now_us = until_us;
        os::set_now_us(until_us);
        self.net.deliver(until_us);
        let shown = self.hosts.iter().map(|host| Shown {
            is_running: host.is_running(),
            is_ready: host.is_ready(),
            ended: host.ended(),
            node_id: host.disk.identity().map(|identity| identity.node),
        });
        self.stage.show(until_us, shown.collect());
    }

    /// How the nodes stand, for whoever judges what they do now.
    fn note_roster(&mut self) {
        let roster = &mut self.recorder.lock().roster;
        roster.now_us = self.now_us;
        for host in &self.hosts {
            let Some(identity) = host.disk.identity() else { continue };
            if host.is_running() {
                roster.down_since_us.remove(&identity.node);
            } else {
                roster.down_since_us.entry(identity.node).or_insert(self.now_us);
            }
        }
    }

    /// A process starts: what it wants counts, and it is not asked to leave any more, which the others hear soon.
    fn start(&mut self, node: usize, join: &[usize]) {
        let now_us = self.now_us;
        self.wants[node] = self.hosts[node].replicas;
        let id = self.hosts[node].disk.identity().map(|identity| identity.node);
        {
            let roster = &mut self.recorder.lock().roster;
            roster.replicas = self.wants.iter().copied().max().unwrap_or(1);
            if let Some(draining) = id.and_then(|id| roster.draining.get_mut(&id)) {
                draining.until_us = now_us + HEARD_US;
            }
        }
        self.hosts[node].start(join, now_us);
    }

    fn act(&mut self, act: Act) {
        let what = format!("{:.3} s: {act:?}", seconds(self.now_us));
        tracing::info!("{what}");
        self.acts.push(what);
        match act {
            Act::Start { node, join } => {
                if !self.hosts[node].is_running() {
                    self.start(node, &join);
                }
            }
            Act::Replicas(node, replicas) => self.hosts[node].replicas = replicas,
            Act::Stop(node) => self.hosts[node].stop(),
            Act::Kill(node) => self.hosts[node].kill(),
            Act::LosePower(node) => self.hosts[node].lose_power(),
            Act::Pause(node) => self.hosts[node].is_paused = true,
            Act::Resume(node) => self.hosts[node].is_paused = false,
            Act::Wipe(node) => {
                self.hosts[node].lose_power();
                self.note_roster();
                self.hosts[node].disk.wipe();
            }
            Act::Disk(node, faults) => self.hosts[node].disk.set_faults(faults),
            Act::CutAfter(node, operations) => self.hosts[node].disk.cut_after(operations),
            Act::Rot(node) => {
                let rotten = self.hosts[node].disk.rot();
                self.acts.push(format!("rotten: {rotten:?}"));
            }
            Act::Secret(node, step) => self.hosts[node].secret_step = step,
            Act::Copy(node) => self.hosts[node].disk.copy(),
            Act::PutBack(node) => {
                self.hosts[node].kill();
                self.hosts[node].disk.put_back();
            }
            Act::Skew(node, skew_ms) => self.hosts[node]
                .skew_ms
                .store(skew_ms, std::sync::atomic::Ordering::SeqCst),
        }
    }

    fn end(self, mut violations: Vec<Violation>) -> Outcome {
        let history = {
            let mut history = self.recorder.lock();
            history.ended_us = self.now_us;
            history.clone()
        };
        violations.extend(self.stage.complaints().into_iter().map(|(invariant, what)| Violation {
            invariant,
            task: None,
            what,
        }));
        let (_, seen) = &mut *self.commits.lock();
        violations.append(seen);
        violations.extend(self.standstills);
        let running = self.hosts.iter().filter(|host| host.is_running());
        let states = running.filter_map(|host| {
            let node_id = host.disk.identity()?.node;
            let groups = invariants::read(host.disk.rows().as_ref(), self.groups);
            Some(NodeState {
                node: host.index,
                node_id,
                groups,
            })
        });
        let states: Vec<_> = states.collect();
        violations.extend(invariants::judge(&history, &states));
        let tasks = states
            .iter()
            .flat_map(|state| &state.groups)
            .flat_map(|group| group.tasks.values());
        let reasons = tasks.flat_map(|(_, task)| task.outcomes.iter().map(|outcome| outcome.reason));
        let reasons: Vec<Reason> = reasons.collect();
        if reasons.contains(&Reason::Misfire) {
            self.stage.reach("a misfire was skipped");
        }
        if reasons.contains(&Reason::Overlap) {
            self.stage.reach("a due was skipped beside an earlier one");
        }
        if reasons.contains(&Reason::Unknown) {
            self.stage
                .reach("an attempt that was not repeated since nobody knows of it");
        }
        Outcome {
            violations,
            trace: self.net.trace(),
            simulated_us: self.now_us,
            described: self.stage.described(),
            acts: self.acts,
            reached: self.stage.reached(&history),
            history,
        }
    }
}

/// The secret's file in each step of its change, as `doc/deployment.md` says.
fn secrets(seed: u64) -> [ClusterSecret; 4] {
    let entropy = SeededEntropy::new(Dice::new(seed, "secret"));
    let (old, _) = ClusterSecret::generate(&entropy);
    let (new, _) = ClusterSecret::generate(&entropy);
    [&[&old][..], &[&old, &new], &[&new, &old], &[&new]].map(|lines| {
        let text: String = lines.iter().map(|line| line.as_str()).collect();
        ClusterSecret::parse(&text).expect("generated keys")
    })
}

/// What makes an end interesting.
fn note_end(stage: &Stage, ended: &Ended) {
    let Err(why) = ended else { return };
    if why.contains("middle of a write") {
        stage.reach("a power cut in the middle of a write");
    } else if why.contains("injected") || why.contains("no storage space") {
        stage.reach("a node that its disk ended");
    }
}

/// True time as people read it.
#[expect(clippy::cast_precision_loss, reason = "for people")]
pub fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// Checks every commit of every node.
fn look_on(commits: Arc<Mutex<(Commits, Vec<Violation>)>>, recorder: Recorder) -> LookOn {
    Arc::new(move |node, writes, rows| {
        let hidden = low_water::look(node, writes, rows);
        commits.lock().1.extend(hidden);
        let groups = writes.iter().filter(|write| {
            let prefix = key::fact(Fact::Applied, xcron::id::GroupId(0));
            write.table == Table::State && write.key.len() == prefix.len() && write.key[..3] == prefix[..3]
        });
        for write in groups {
            let group = u16::from_be_bytes([write.key[3], write.key[4]]);
            let Some(meta) = write.value.as_deref().and_then(invariants::meta) else {
                continue;
            };
            if let Some(voters) = Voters::decode(&meta.applied) {
                recorder.lock().vote_in(group, voters);
            }
            let mut commits = commits.lock();
            let (checker, found) = &mut *commits;
            let state = &meta.state;
            let digest = state.digest;
            found.extend(checker.committed(node, group, &meta.applied, state.generation, state.leader, digest));
        }
    })
}

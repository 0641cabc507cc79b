//! Faults, as the dice fall: which kinds there are in a run follows from the seed, so that runs differ in kind and not only in time.

mod operations;

use crate::dice::Dice;
use crate::disk::Faults;
use crate::net::{Link, Weather};
use crate::stage::{Act, Shown, Stage};
use crate::targets::Behaviour;

/// How long nodes may take to serve before a disk is lost; then none is.
const READY_MS: u64 = 30_000;
/// How long copies take to be filled once all nodes serve.
const COPIES_MS: u64 = 25_000;

/// Two minutes and a little: a task that is due each minute misses two dues.
const LONG_MS: u64 = 130_000;

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A process is killed, and started again after a while.
    Kill,
    /// A machine loses its power.
    Power,
    /// The same in the middle of a write.
    CutInWrite,
    /// All machines lose their power at once.
    PowerOfAll,
    /// A process stands still for a while.
    Pause,
    /// Some nodes are cut off from the others.
    Split,
    /// One direction of some links is cut.
    OneWay,
    /// Every node reaches only two others.
    Ring,
    /// Connections are reset.
    Reset,
    /// Datagrams are lost and doubled, segments come late.
    Storm,
    /// One node's links are slow.
    SlowLinks,
    /// One disk is slow.
    SlowDisk,
    /// A sync fails.
    SyncFails,
    /// A disk is full.
    DiskFull,
    /// A wall clock jumps.
    ClockJump,
    /// Targets cannot be reached.
    Outage,
    /// A process is stopped in order, and started again.
    Restart,
    /// A disk is lost: its node comes back as a new one. Once a run at most.
    Wipe,
    /// A log is damaged at rest: its node refuses to start, and comes back as a new one. Once a run at most.
    Rot,
    /// All wall clocks jump together, and stay so until the end of the faults.
    ClockJumpOfAll,
    /// Every node is restarted, one after the other.
    Rolling,
    /// The same while one is away.
    Away,
    /// A node is asked to leave.
    Drain,
    /// The secret is changed. Once a run at most.
    Secret,
    /// A directory is put back as it was before. Once a run at most, as a disk that is lost.
    PutBack,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 25] = [
        Self::Kill,
        Self::Power,
        Self::CutInWrite,
        Self::PowerOfAll,
        Self::Pause,
        Self::Split,
        Self::OneWay,
        Self::Ring,
        Self::Reset,
        Self::Storm,
        Self::SlowLinks,
        Self::SlowDisk,
        Self::SyncFails,
        Self::DiskFull,
        Self::ClockJump,
        Self::Outage,
        Self::Restart,
        Self::Wipe,
        Self::Rot,
        Self::ClockJumpOfAll,
        Self::Rolling,
        Self::Away,
        Self::Drain,
        Self::Secret,
        Self::PutBack,
    ];
}

/// What a seed has in store.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The kinds of this run.
    pub kinds: Vec<Kind>,
    /// How many faults, one after the other or overlapping.
    pub faults: usize,
    /// Longest pause between two, in milliseconds.
    pub pause_ms_max: u64,
    /// Longest fault, in milliseconds.
    pub lasts_ms_max: u64,
}

impl Plan {
    /// The plan of a seed.
    pub fn draw(dice: &mut Dice) -> Self {
        let mut kinds = Kind::ALL.to_vec();
        dice.shuffle(&mut kinds);
        kinds.truncate(1 + dice.index(7));
        kinds.sort_unstable();
        Self {
            kinds,
            faults: 2 + dice.index(7),
            pause_ms_max: dice.pick(&[500, 3_000, 8_000]),
            lasts_ms_max: dice.pick(&[1_500, 5_000, 20_000]),
        }
    }
}

/// Does the plan's faults, each for a while. Afterwards everything is as it was, but that processes may not run.
pub async fn run(stage: &Stage, plan: &Plan) {
    let mut dice = stage.dice("nemesis");
    let mut has_lost_a_disk = false;
    let mut has_another_secret = false;
    for _ in 0..plan.faults {
        let pause_ms = dice.within(0..plan.pause_ms_max + 1);
        stage.sleep_ms(pause_ms).await;
        let kind = dice.pick(&plan.kinds);
        let is_lossy = matches!(kind, Kind::Wipe | Kind::Rot | Kind::PutBack);
        // What is lost with one disk must be on the others: there is one such fault in a run.
        if is_lossy && (has_lost_a_disk || stage.options.nodes < 3 || !has_copies(stage).await) {
            continue;
        }
        has_lost_a_disk |= is_lossy;
        if kind == Kind::Secret && std::mem::replace(&mut has_another_secret, true) {
            continue;
        }
        let node = dice.index(stage.options.nodes);
        let lasts_ms = dice.within(20..plan.lasts_ms_max + 21);
        tracing::info!(?kind, node, lasts_ms, "fault");
        stage.breaks(Some(node), format!("{kind:?}"));
        fault(stage, &mut dice, kind, node, lasts_ms).await;
    }
}

/// Waits until every task has its copies: all nodes serve, and have done so for long enough to fill them. Faults come one after
/// the other, so nothing else is broken now.
async fn has_copies(stage: &Stage) -> bool {
    let all_ready = |shown: &[Shown]| shown.iter().all(|shown| shown.is_ready);
    if !stage.until_or("every node to serve", READY_MS, all_ready).await {
        return false;
    }
    stage.sleep_ms(COPIES_MS).await;
    all_ready(&stage.nodes())
}

async fn fault(stage: &Stage, dice: &mut Dice, kind: Kind, node: usize, lasts_ms: u64) {
    match kind {
        Kind::Kill => down(stage, Act::Kill(node), node, lasts_ms).await,
        Kind::Power => down(stage, Act::LosePower(node), node, lasts_ms).await,
        Kind::CutInWrite => {
            stage.act(Act::CutAfter(node, dice.within(1..200))).await;
            stage.sleep_ms(lasts_ms).await;
            // Should it not have written so often.
            stage.act(Act::CutAfter(node, 0)).await;
            stage.restart(node).await;
        }
        Kind::PowerOfAll => {
            for one in 0..stage.options.nodes {
                stage.act(Act::LosePower(one)).await;
            }
            // Sometimes so long that crontab tasks miss dues.
            let longer_ms = if dice.chance(400) { LONG_MS } else { 0 };
            stage.sleep_ms(lasts_ms + longer_ms).await;
            for one in 0..stage.options.nodes {
                stage.restart(one).await;
            }
        }
        Kind::Pause => {
            stage.act(Act::Pause(node)).await;
            stage.sleep_ms(lasts_ms).await;
            stage.act(Act::Resume(node)).await;
        }
        Kind::Restart => {
            stage.act(Act::Stop(node)).await;
            stage
                .until_or("node to stop", 40_000, |shown| !shown[node].is_running)
                .await;
            stage.restart(node).await;
        }
        Kind::Wipe => {
            stage.act(Act::Wipe(node)).await;
            stage.sleep_ms(lasts_ms).await;
            stage.restart_as_new(node).await;
        }
        Kind::Rot => rot(stage, node, lasts_ms).await,
        Kind::Split | Kind::OneWay | Kind::Ring | Kind::Reset | Kind::Storm | Kind::SlowLinks => {
            network(stage, dice, kind, node, lasts_ms).await;
        }
        Kind::SlowDisk | Kind::SyncFails | Kind::DiskFull => disk(stage, dice, kind, node, lasts_ms).await,
        Kind::ClockJump => {
            let sign = if dice.chance(500) { 1 } else { -1 };
            let skew_ms = sign * i64::try_from(dice.within(50..4_000)).expect("small");
            stage.skew(node, skew_ms).await;
            stage.sleep_ms(lasts_ms).await;
            stage.skew(node, 0).await;
        }
        Kind::ClockJumpOfAll => {
            let sign = if dice.chance(500) { 1 } else { -1 };
            let skew_ms = sign * i64::try_from(dice.within(50..4_000)).expect("small");
            for one in 0..stage.options.nodes {
                stage.skew(one, skew_ms).await;
            }
            stage.sleep_ms(lasts_ms).await;
        }
        Kind::Rolling | Kind::Away | Kind::Drain | Kind::Secret | Kind::PutBack => {
            operations::run(stage, dice, kind, node).await;
        }
        Kind::Outage => {
            let name = Behaviour::ALL[dice.index(Behaviour::ALL.len())].0;
            stage.targets.set_outage(name, true);
            stage.sleep_ms(lasts_ms).await;
            stage.targets.set_outage(name, false);
        }
    }
}

async fn down(stage: &Stage, act: Act, node: usize, lasts_ms: u64) {
    stage.act(act).await;
    stage.sleep_ms(lasts_ms).await;
    stage.restart(node).await;
}

/// Damage that is noticed ends in a node that refuses to start; damage where nothing lies ends in nothing.
async fn rot(stage: &Stage, node: usize, lasts_ms: u64) {
    stage.act(Act::Kill(node)).await;
    stage.act(Act::Rot(node)).await;
    stage.sleep_ms(lasts_ms).await;
    stage.restart(node).await;
    stage.sleep_ms(4_000).await;
    let shown = stage.nodes()[node].clone();
    if shown.is_running {
        stage.reach("damage where nothing lay");
        return;
    }
    stage.reach("damage that was refused");
    stage.act(Act::Wipe(node)).await;
    stage.restart_as_new(node).await;
}

async fn network(stage: &Stage, dice: &mut Dice, kind: Kind, node: usize, lasts_ms: u64) {
    let nodes = stage.options.nodes;
    match kind {
        Kind::Split => {
            let mut all: Vec<usize> = (0..nodes).collect();
            dice.shuffle(&mut all);
            all.truncate(1 + dice.index(nodes));
            stage.isolate(&all);
        }
        Kind::OneWay => {
            for other in 0..nodes {
                if other != node && dice.chance(700) {
                    let is_forth = dice.chance(500);
                    let (from, to) = if is_forth { (node, other) } else { (other, node) };
                    stage.net.set_link(from, to, Link::CUT);
                }
            }
        }
        Kind::Ring => {
            for (one, other) in (0..nodes).flat_map(|one| (0..nodes).map(move |other| (one, other))) {
                let distance = (nodes + one - other) % nodes;
                if distance > 1 && distance < nodes - 1 {
                    stage.net.set_link(one, other, Link::CUT);
                }
            }
        }
        Kind::Reset => {
            for _ in 0..5 {
                let (one, other) = (dice.index(nodes), dice.index(nodes));
                stage.net.reset(one, other);
                stage.sleep_ms(lasts_ms / 5).await;
            }
            return;
        }
        Kind::Storm => stage.net.set_weather(Weather {
            loss_permille: dice.within(20..250),
            twice_permille: dice.within(0..100),
            ..stage.options.weather
        }),
        _ => {
            let extra_us = dice.within(20_000..600_000);
            for other in 0..nodes {
                let link = Link {
                    extra_us,
                    ..Link::default()
                };
                stage.net.set_link(node, other, link);
                stage.net.set_link(other, node, link);
            }
        }
    }
    stage.sleep_ms(lasts_ms).await;
    stage.net.heal();
    stage.net.set_weather(stage.options.weather);
}

async fn disk(stage: &Stage, dice: &mut Dice, kind: Kind, node: usize, lasts_ms: u64) {
    let usual = stage.options.disk;
    let faults = match kind {
        Kind::SlowDisk => {
            let us = dice.within(5_000..400_000);
            Faults {
                sync_us_min: us / 4,
                sync_us_max: us,
                ..usual
            }
        }
        Kind::SyncFails => Faults {
            syncs_fail: dice.chance(500),
            writes_fail: true,
            ..usual
        },
        _ => Faults { is_full: true, ..usual },
    };
    stage.act(Act::Disk(node, faults)).await;
    stage.sleep_ms(lasts_ms).await;
    stage.act(Act::Disk(node, usual)).await;
    // A node whose disk has failed ends itself.
    stage.restart(node).await;
}

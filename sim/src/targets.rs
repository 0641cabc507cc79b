//! The callbacks' targets: an attempt connects, is recorded when its first byte leaves, and answered as the host of its URL is said
//! to behave. Connections are kept for a while, as the product's client does, unless an attempt wants one of its own.
//!
//! `http://NAME.test/...`, where NAME begins with one of the behaviours of [`Behaviour`]; anything else is `ok`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::sleep;
use xcron::clock::Clock;
use xcron::core::reason::NoAnswer;
use xcron::core::retry::Answer;
use xcron::fire::deliver::{Attempt, Deliver, Delivered, Delivery, MaySend};
use xcron::id::GroupCount;

use crate::clock::NodeClock;
use crate::dice::Dice;
use crate::history::{self, Answered, Recorder};

/// Longest time an attempt may take, as `fire.timeout_ms` of the product.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time to connect, as `fire.connect_timeout_ms` of the product.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the product's client keeps a connection that nobody uses, in microseconds.
const KEPT_US: u64 = 2_000_000;
/// How long a target keeps a connection that nobody uses: at least and at most, in microseconds.
const CLOSES_US: (u64, u64) = (1_000_000, 5_000_000);
/// What a busy target asks for.
const RETRY_AFTER_MS: u64 = 2_000;

/// How a target behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// 200 within milliseconds.
    Ok,
    /// 200 within a second.
    Late,
    /// 200 after some seconds, sometimes too late.
    Slow,
    /// Does not answer at all.
    Hang,
    /// 200, 500, a reset before or after the work, or no answer, as it happens.
    Flaky,
    /// 503 with `Retry-After` at first, then 200.
    Busy,
    /// 410: it wants nothing more.
    Gone,
    /// 500 always.
    Broken,
    /// Accepts late, or not at all, as it happens.
    Accept,
    /// Nobody listens, now and then.
    Refuse,
    /// Closes connections that are not used for a while: what is sent over one then is lost.
    Closes,
    /// Resets the second request on a connection.
    Single,
}

impl Behaviour {
    /// Every behaviour, with the name that URLs give it; the first ones are what loads draw from.
    const NAMES: [(&'static str, Self); 12] = [
        ("ok", Self::Ok),
        ("slow", Self::Slow),
        ("hang", Self::Hang),
        ("flaky", Self::Flaky),
        ("busy", Self::Busy),
        ("gone", Self::Gone),
        ("broken", Self::Broken),
        ("accept", Self::Accept),
        ("refuse", Self::Refuse),
        ("closes", Self::Closes),
        ("single", Self::Single),
        ("late", Self::Late),
    ];
    /// Behaviours to draw from.
    pub const ALL: &'static [(&'static str, Self)] = Self::NAMES.split_at(11).0;

    /// The behaviour of a URL's host.
    pub fn of(url: &str) -> Self {
        let host = url.trim_start_matches("http://");
        let found = Self::NAMES.iter().find(|(name, _)| host.starts_with(name));
        found.map_or(Self::Ok, |(_, behaviour)| *behaviour)
    }
}

/// What a target will do with one attempt.
#[derive(Clone, Copy)]
struct Plan {
    after: Duration,
    /// What the target does.
    answered: Answered,
    /// What the node hears of it.
    answer: Answer,
}

/// How an attempt gets its connection.
#[derive(Clone, Copy)]
struct Connecting {
    /// After this time.
    after: Duration,
    /// It fails with this.
    failed: Option<NoAnswer>,
}

/// A connection that is kept.
#[derive(Clone, Copy, Debug)]
struct Kept {
    /// Since when nobody uses it.
    since_us: u64,
    /// When the target closes it.
    closes_us: u64,
}

/// Where on its way an attempt is when its node dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// Decided on, and not sent: no target ever sees it.
    BeforeRequest,
    /// The target has done its work, and its answer does not come any more.
    BeforeAnswer,
}

/// All targets.
#[derive(Clone, Debug)]
pub struct Targets {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    dice: Dice,
    recorder: Recorder,
    /// Names of targets that cannot be reached at the moment.
    outages: BTreeSet<String>,
    /// Names of targets whose next attempt is the end of the node that makes it.
    traps: BTreeMap<String, Trap>,
    /// Nodes that walked into one.
    sprung: Vec<usize>,
    groups: GroupCount,
}

impl Targets {
    /// Targets that write into `recorder`.
    pub fn new(dice: Dice, recorder: Recorder, groups: GroupCount) -> Self {
        let inner = Inner {
            dice,
            recorder,
            outages: BTreeSet::new(),
            traps: BTreeMap::new(),
            sprung: Vec::new(),
            groups,
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// From now on no target whose name begins like this can be reached, or all again.
    pub fn set_outage(&self, name: &str, is_out: bool) {
        let mut inner = self.inner.lock();
        if is_out {
            inner.outages.insert(name.to_owned());
        } else {
            inner.outages.remove(name);
        }
    }

    /// The next attempt at a target whose name begins like this ends the process that makes it.
    pub fn set_trap(&self, name: &str, trap: Trap) {
        self.inner.lock().traps.insert(name.to_owned(), trap);
    }

    /// Nodes that walked into a trap since the last time.
    pub(crate) fn take_sprung(&self) -> Vec<usize> {
        std::mem::take(&mut self.inner.lock().sprung)
    }

    /// How node `node` reaches them in its run `run`.
    pub fn reached_from(&self, node: usize, run: u64, clock: Arc<NodeClock>) -> Arc<dyn Deliver> {
        Arc::new(Way {
            targets: self.clone(),
            node,
            run,
            clock,
            kept: Arc::default(),
        })
    }
}

#[derive(Clone)]
struct Way {
    targets: Targets,
    node: usize,
    run: u64,
    clock: Arc<NodeClock>,
    /// Connections that are kept, by the target's name.
    kept: Arc<Mutex<BTreeMap<String, Kept>>>,
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Way").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Deliver for Way {
    fn deliver(&self, attempt: Attempt, may_send: MaySend) -> Delivery {
        let trap = self.targets.inner.lock().spring(self.node, &attempt.url);
        if trap == Some(Trap::BeforeRequest) {
            return Box::pin(std::future::pending());
        }
        let way = self.clone();
        Box::pin(async move {
            let decided_us = way.clock.true_us();
            let kept = way.kept_for(&attempt);
            // Who walks into a trap is at its target at once.
            let is_there = kept.is_some() || trap.is_some();
            let connecting = way.targets.inner.lock().connecting(&attempt, is_there);
            if !connecting.after.is_zero() {
                sleep(connecting.after).await;
            }
            if let Some(kind) = connecting.failed {
                way.begin(&attempt, decided_us, none(Duration::ZERO, Answered::Lost, kind));
                return Delivered::Ended {
                    answer: Answer::None { kind },
                    is_sent: false,
                };
            }
            if !may_send() {
                way.targets.inner.lock().recorder.lock().withdrawn += 1;
                return Delivered::Withdrawn;
            }
            let mut plan = way.targets.inner.lock().plan(&attempt, kept, way.clock.true_us());
            if trap.is_some() {
                plan.after = TIMEOUT;
            }
            let place = way.begin(&attempt, decided_us, plan);
            sleep(plan.after).await;
            way.end(&attempt, place, plan);
            Delivered::Ended {
                answer: plan.answer,
                is_sent: true,
            }
        })
    }
}

impl Way {
    /// Takes the kept connection to the attempt's target, if there is one that it may use.
    fn kept_for(&self, attempt: &Attempt) -> Option<Kept> {
        if attempt.needs_own_connection {
            return None;
        }
        let kept = self.kept.lock().remove(host(&attempt.url))?;
        (kept.since_us + KEPT_US > self.clock.true_us()).then_some(kept)
    }

    /// Records the attempt at the moment at which its first byte leaves. One of which none does has begun when it was decided on.
    fn begin(&self, attempt: &Attempt, decided_us: u64, plan: Plan) -> usize {
        let inner = self.targets.inner.lock();
        // Should the node end before the answer is there, nobody heard it.
        let unheard = match plan.answered {
            Answered::Status(code) | Answered::Unheard(code) => Answered::Unheard(code),
            Answered::Lost | Answered::Nothing => plan.answered,
        };
        let group = inner.groups.group_of(attempt.task_id.key().shard());
        let now_us = self.clock.true_us();
        let is_sent = !plan.after.is_zero();
        let record = history::Attempt {
            decided_us,
            at_us: if is_sent { now_us } else { decided_us },
            ended_us: (!is_sent).then_some(now_us),
            node: self.node,
            run_of_node: self.run,
            node_wall_ms: self.clock.wall_ms(),
            group: group.0,
            task: attempt.task_id.to_string(),
            fire_id: attempt.fire_id.to_string(),
            due_ms: attempt.due_ms,
            attempt: attempt.attempt,
            run: attempt.run,
            generation: attempt.generation,
            url: attempt.url.to_string(),
            body: String::from_utf8_lossy(&attempt.body).into_owned(),
            is_sent,
            answered: unheard,
        };
        tracing::info!(node = self.node, task = %record.task, due_ms = record.due_ms, attempt = record.attempt,
            generation = record.generation, "POST");
        let mut history = inner.recorder.lock();
        history.attempts.push(record);
        history.attempts.len() - 1
    }

    /// Records the end of an attempt; its connection may be kept.
    fn end(&self, attempt: &Attempt, place: usize, plan: Plan) {
        let now_us = self.clock.true_us();
        let mut inner = self.targets.inner.lock();
        {
            let mut history = inner.recorder.lock();
            history.attempts[place].answered = plan.answered;
            history.attempts[place].ended_us = Some(now_us);
        }
        if matches!(plan.answered, Answered::Status(_)) && !attempt.needs_own_connection {
            let kept = Kept {
                since_us: now_us,
                closes_us: now_us + inner.dice.within(CLOSES_US.0..CLOSES_US.1),
            };
            self.kept.lock().insert(host(&attempt.url).to_owned(), kept);
        }
    }
}

/// The name in a URL.
fn host(url: &str) -> &str {
    let rest = url.trim_start_matches("http://");
    rest.split('/').next().unwrap_or(rest)
}

impl Inner {
    /// The trap that an attempt of this node walks into.
    fn spring(&mut self, node: usize, url: &str) -> Option<Trap> {
        let host = url.trim_start_matches("http://");
        let name = self.traps.keys().find(|name| host.starts_with(*name))?.clone();
        self.sprung.push(node);
        self.traps.remove(&name)
    }

    /// How the attempt gets its connection: at once, if it has one.
    fn connecting(&mut self, attempt: &Attempt, is_there: bool) -> Connecting {
        let ms = Duration::from_millis;
        let quick = ms(self.dice.within(0..4));
        let (after, failed) = if self.outages.iter().any(|name| host(&attempt.url).starts_with(name)) {
            (quick, Some(NoAnswer::Refused))
        } else if is_there {
            (Duration::ZERO, None)
        } else {
            match Behaviour::of(&attempt.url) {
                Behaviour::Accept if self.dice.chance(200) => (CONNECT_TIMEOUT, Some(NoAnswer::ConnectTimeout)),
                Behaviour::Accept => (ms(self.dice.within(50..4_000)), None),
                Behaviour::Flaky if self.dice.chance(160) => (quick, Some(NoAnswer::Refused)),
                Behaviour::Refuse if self.dice.chance(400) => (quick, Some(NoAnswer::Refused)),
                _ => (quick, None),
            }
        };
        Connecting { after, failed }
    }

    fn plan(&mut self, attempt: &Attempt, kept: Option<Kept>, now_us: u64) -> Plan {
        let ms = Duration::from_millis;
        let quick = ms(self.dice.within(1..20));
        match Behaviour::of(&attempt.url) {
            Behaviour::Closes if kept.is_some_and(|kept| kept.closes_us < now_us) => {
                none(quick, Answered::Lost, NoAnswer::Reset)
            }
            Behaviour::Single if kept.is_some() => none(quick, Answered::Unheard(200), NoAnswer::Reset),
            Behaviour::Late => status(ms(self.dice.within(100..700)), 200),
            Behaviour::Slow if self.dice.chance(150) => none(TIMEOUT, Answered::Unheard(200), NoAnswer::Timeout),
            Behaviour::Slow => status(ms(self.dice.within(500..4_000)), 200),
            Behaviour::Hang => none(TIMEOUT, Answered::Nothing, NoAnswer::Timeout),
            Behaviour::Gone => status(quick, 410),
            Behaviour::Broken => status(quick, 500),
            Behaviour::Busy if attempt.attempt == 1 => Plan {
                answer: Answer::Status {
                    code: 503,
                    retry_after_ms: Some(RETRY_AFTER_MS),
                },
                ..status(quick, 503)
            },
            Behaviour::Busy
            | Behaviour::Ok
            | Behaviour::Accept
            | Behaviour::Refuse
            | Behaviour::Closes
            | Behaviour::Single => status(quick, 200),
            Behaviour::Flaky => match self.dice.within(0..5) {
                0 | 1 => status(quick, 200),
                2 => status(quick, 500),
                3 => none(quick, Answered::Unheard(200), NoAnswer::Reset),
                _ => none(TIMEOUT, Answered::Unheard(200), NoAnswer::Timeout),
            },
        }
    }
}

fn status(after: Duration, code: u16) -> Plan {
    Plan {
        after,
        answered: Answered::Status(code),
        answer: Answer::Status {
            code,
            retry_after_ms: None,
        },
    }
}

fn none(after: Duration, answered: Answered, kind: NoAnswer) -> Plan {
    Plan {
        after,
        answered,
        answer: Answer::None { kind },
    }
}

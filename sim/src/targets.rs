//! The callbacks' targets: each attempt is recorded when it begins, and answered as the host of its URL is said to behave.
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
}

impl Behaviour {
    /// Every behaviour, with the name that URLs give it; the first ones are what loads draw from.
    const NAMES: [(&'static str, Self); 8] = [
        ("ok", Self::Ok),
        ("slow", Self::Slow),
        ("hang", Self::Hang),
        ("flaky", Self::Flaky),
        ("busy", Self::Busy),
        ("gone", Self::Gone),
        ("broken", Self::Broken),
        ("late", Self::Late),
    ];
    /// Behaviours to draw from.
    pub const ALL: &'static [(&'static str, Self)] = Self::NAMES.split_at(7).0;

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
        })
    }
}

struct Way {
    targets: Targets,
    node: usize,
    run: u64,
    clock: Arc<NodeClock>,
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
        if !may_send() {
            return Box::pin(std::future::ready(Delivered::Withdrawn));
        }
        let (mut plan, place) = self.begin(&attempt);
        if trap.is_some() {
            plan.after = TIMEOUT;
        }
        let (targets, clock) = (self.targets.clone(), self.clock.clone());
        Box::pin(async move {
            sleep(plan.after).await;
            let inner = targets.inner.lock();
            let mut history = inner.recorder.lock();
            history.attempts[place].answered = plan.answered;
            history.attempts[place].ended_us = Some(clock.true_us());
            Delivered::Ended {
                answer: plan.answer,
                is_sent: plan.answered != Answered::Lost,
            }
        })
    }
}

impl Way {
    /// Records the attempt at the moment at which it begins, and decides what will become of it.
    fn begin(&self, attempt: &Attempt) -> (Plan, usize) {
        let mut inner = self.targets.inner.lock();
        let plan = inner.plan(attempt);
        // Should the node end before the answer is there, nobody heard it.
        let unheard = match plan.answered {
            Answered::Status(code) | Answered::Unheard(code) => Answered::Unheard(code),
            Answered::Lost | Answered::Nothing => plan.answered,
        };
        let group = inner.groups.group_of(attempt.task_id.key().shard());
        let record = history::Attempt {
            at_us: self.clock.true_us(),
            ended_us: None,
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
            answered: unheard,
        };
        tracing::info!(node = self.node, task = %record.task, due_ms = record.due_ms, attempt = record.attempt,
            generation = record.generation, "POST");
        let mut history = inner.recorder.lock();
        history.attempts.push(record);
        (plan, history.attempts.len() - 1)
    }
}

impl Inner {
    /// The trap that an attempt of this node walks into.
    fn spring(&mut self, node: usize, url: &str) -> Option<Trap> {
        let host = url.trim_start_matches("http://");
        let name = self.traps.keys().find(|name| host.starts_with(*name))?.clone();
        self.sprung.push(node);
        self.traps.remove(&name)
    }

    fn plan(&mut self, attempt: &Attempt) -> Plan {
        let ms = Duration::from_millis;
        let quick = ms(self.dice.within(1..20));
        let host = attempt.url.trim_start_matches("http://").to_owned();
        if self.outages.iter().any(|name| host.starts_with(name)) {
            return none(quick, Answered::Lost, NoAnswer::Refused);
        }
        match Behaviour::of(&attempt.url) {
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
            Behaviour::Busy | Behaviour::Ok => status(quick, 200),
            Behaviour::Flaky => match self.dice.within(0..6) {
                0 | 1 => status(quick, 200),
                2 => status(quick, 500),
                3 => none(quick, Answered::Lost, NoAnswer::Refused),
                4 => none(quick, Answered::Unheard(200), NoAnswer::Reset),
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

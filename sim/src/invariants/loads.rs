//! How busy each target was: what a fire may have to wait for.

use std::collections::BTreeMap;

use super::facts::Run;
use crate::history::Answered;

/// Attempts in flight to one target from which on others wait for their turn: the product's `fire.in_flight_per_target_max`.
const IN_FLIGHT_MAX: usize = 256;
/// How long a target that is that busy may keep a fire waiting at most.
const BUSY_US: u64 = 60_000_000;
/// The same from which on others wait at a target that did not answer lately: the product's `queues::PROBES`.
const PROBES: usize = 4;
/// How long ago that may be.
const LATELY_US: u64 = 60_000_000;
/// A target with dues that wait is tried all the time: how long at most nobody outside sees an attempt, which connects
/// (`fire.connect_timeout_ms`) or is followed by the next.
const UNTRIED_US: u64 = 6_000_000;

/// Beginnings and ends of the attempts to each target, in order, and the ends of those that it did not answer.
#[derive(Default)]
struct Load {
    begins: Vec<u64>,
    ends: Vec<u64>,
    silences: Vec<u64>,
    answers: Vec<u64>,
}

/// By host.
pub struct Loads<'a>(BTreeMap<&'a str, Load>);

impl<'a> Loads<'a> {
    /// Of all attempts of the run.
    pub fn new(run: &Run<'a>) -> Self {
        let mut loads: BTreeMap<&str, Load> = BTreeMap::new();
        for attempt in &run.history.attempts {
            let load = loads.entry(host(&attempt.url)).or_default();
            let end = run.end_of(attempt);
            // A place is taken from the decision on, while it connects too.
            load.begins.push(attempt.decided_us);
            load.ends.push(end);
            match attempt.answered {
                Answered::Status(_) => load.answers.push(end),
                Answered::Unheard(_) | Answered::Lost | Answered::Nothing => load.silences.push(end),
            }
        }
        for load in loads.values_mut() {
            for times in [&mut load.begins, &mut load.ends, &mut load.silences, &mut load.answers] {
                times.sort_unstable();
            }
        }
        Self(loads)
    }

    /// Whether so many attempts to the target were on their way that a fire of `due_us` may still have waited for its turn at
    /// `promised_us`.
    pub fn keep_waiting(&self, url: &str, due_us: u64, promised_us: u64, ended_us: u64) -> bool {
        let Some(load) = self.0.get(host(url)) else {
            return false;
        };
        let until = |times: &[u64]| times.partition_point(|at| *at <= promised_us);
        let in_flight = until(&load.begins) - load.ends.partition_point(|at| *at < promised_us);
        let is_within = |times: &[u64], from_us| times[..until(times)].last().is_some_and(|at| *at >= from_us);
        // One that has not answered since the due may keep it waiting as long as it does not, and is tried meanwhile: else the due
        // waits for nothing.
        let is_silent = is_within(&load.silences, promised_us.saturating_sub(LATELY_US));
        let is_tried = load.is_tried_at(promised_us) && load.is_tried_at(ended_us);
        let is_quiet = is_silent && is_tried && !is_within(&load.answers, due_us);
        let is_recent = ended_us.saturating_sub(due_us) < BUSY_US;
        let is_busy = in_flight >= IN_FLIGHT_MAX || is_silent && in_flight >= PROBES;
        is_quiet || is_busy && is_recent
    }
}

impl Load {
    /// Whether an attempt was on its way at `at_us`, or had just ended.
    fn is_tried_at(&self, at_us: u64) -> bool {
        let begun = self.begins.partition_point(|begin| *begin <= at_us);
        let over = self.ends.partition_point(|end| *end + UNTRIED_US < at_us);
        begun > over
    }
}

fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

//! I9: `run_count` never falls, never counts what no target has taken, and counts what was taken in quiet times.
//!
//! A 2xx whose report was lost with its leader may be repeated, or for a cron task be skipped: so only fires without a fault
//! around them must be counted.

use std::collections::BTreeSet;

use xcron::core::task::{Outcome, TaskState, Verdict};

use super::facts::{Facts, Run, broken, is_heard_2xx, ms};
use crate::history::{Op, Told, Violation};

/// The invariant.
pub const NAME: &str = "I9 run count";

/// Until an outcome is certainly recorded, or a fault no more felt.
const SETTLE_US: u64 = 5_000_000;

/// Judges every task.
pub fn check(run: &Run<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for facts in run.tasks.values() {
        let queries = queries(facts);
        let shown = queries.iter().find_map(|(op, count)| {
            let what = falls(op, *count, &queries).or_else(|| bounds(run, facts, *count, op.from_us, op.to_us));
            Some(format!(
                "a query at {}..{} showed {count}: {}",
                ms(op.from_us),
                ms(op.to_us),
                what?
            ))
        });
        let stored = facts.stored.and_then(|(_, state)| {
            let ended_us = run.history.ended_us;
            let kept = Some(state).filter(|_| !facts.is_updated()).and_then(outcomes);
            let what = kept.or_else(|| bounds(run, facts, state.delivered, ended_us, ended_us));
            Some(format!("at the end {} are stored: {}", state.delivered, what?))
        });
        found.extend(shown.into_iter().chain(stored).map(|what| broken(NAME, facts.id, what)));
    }
    found
}

fn queries<'a>(facts: &Facts<'a>) -> Vec<(&'a Op, u64)> {
    let shown = facts.ops.iter().filter_map(|op| match &op.told {
        Told::Shown(shown) => Some((*op, shown.run_count)),
        Told::Done | Told::Refused(_) | Told::Unknown => None,
    });
    shown.collect()
}

/// A query that was over before this one began showed more.
fn falls(op: &Op, count: u64, queries: &[(&Op, u64)]) -> Option<String> {
    let mut earlier = queries.iter().filter(|(earlier, _)| earlier.to_us <= op.from_us);
    let (earlier, more) = earlier.find(|(_, earlier)| *earlier > count)?;
    Some(format!(
        "one at {}..{} had shown {more}",
        ms(earlier.from_us),
        ms(earlier.to_us)
    ))
}

/// What the targets took bounds the count that somebody saw between two times.
fn bounds(run: &Run<'_>, facts: &Facts<'_>, count: u64, from_us: u64, to_us: u64) -> Option<String> {
    let mut taken = BTreeSet::new();
    let mut certain = BTreeSet::new();
    for attempt in facts.attempts.iter().filter(|attempt| is_heard_2xx(attempt)) {
        let end_us = run.end_of(attempt);
        if end_us <= to_us {
            taken.insert((attempt.due_ms, &attempt.body));
        }
        let settled_us = end_us.saturating_add(SETTLE_US);
        let is_certain = settled_us <= from_us
            && run.is_calm(attempt.at_us.saturating_sub(SETTLE_US), settled_us)
            && !facts.is_deleted_by(settled_us)
            && !facts.is_stopped_by(settled_us)
            && !facts.is_replaced(attempt.at_us, settled_us);
        if is_certain {
            certain.insert((attempt.due_ms, &attempt.body));
        }
    }
    if count > taken.len() as u64 {
        return Some(format!("nodes had heard 2xx for the dues {taken:?} only"));
    }
    if count < certain.len() as u64 {
        return Some(format!("nodes had heard 2xx, in quiet times, for the dues {certain:?}"));
    }
    None
}

/// The outcomes that are kept agree with the count: all of them are, as long as they are few.
fn outcomes(state: &TaskState) -> Option<String> {
    let is_delivered = |outcome: &&Outcome| outcome.verdict == Verdict::Delivered;
    let kept = state.outcomes.iter().filter(is_delivered).count() as u64;
    let dues: BTreeSet<u64> = state.outcomes.iter().map(|outcome| outcome.due_ms).collect();
    let all: u64 = state.outcomes.iter().map(|outcome| outcome.count).sum();
    let is_whole = all == state.delivered + state.failed + state.skipped + state.cancelled;
    let is_right =
        kept <= state.delivered && (!is_whole || kept == state.delivered) && dues.len() == state.outcomes.len();
    (!is_right).then(|| format!("which disagrees with the outcomes kept: {:?}", state.outcomes))
}

//! I19: once every fault is over, the cluster serves again, on every node.

use std::collections::BTreeMap;

use super::facts::{Run, broken, ms};
use crate::history::{Op, Told, Violation};

/// The invariant.
pub const NAME: &str = "I19 healed";

/// Since when after the last fault calls are answered again.
const SERVES_AFTER_US: u64 = 10_000_000;
/// Since when after the last fault no call stays without an answer.
const ANSWERS_AFTER_US: u64 = 15_000_000;
/// Could not be stored or read, or not known whether.
const UNAVAILABLE: u64 = 1004;

/// Judges the calls after the healing.
pub fn check(run: &Run<'_>) -> Vec<Violation> {
    let healed_us = run.history.healed_us;
    let since = |us: u64| run.history.ops.iter().filter(move |op| op.from_us >= healed_us + us);
    let mut served: BTreeMap<usize, (usize, &Op)> = BTreeMap::new();
    for op in since(SERVES_AFTER_US) {
        let (count, last) = served.entry(op.node).or_insert((0, op));
        *count += usize::from(is_answered(op));
        *last = op;
    }
    let silent = served.into_iter().filter(|(_, (count, _))| *count == 0);
    let silent = silent.map(|(node, (_, last))| {
        let what = format!(
            "node {node} answers no call though all is healed since {}; the last was sent at {}: {:?} -> {:?}",
            ms(healed_us),
            ms(last.from_us),
            last.call,
            last.told
        );
        broken(NAME, last.call.task(), what)
    });
    let open = since(ANSWERS_AFTER_US).filter(|op| !is_answered(op)).map(|op| {
        let what = format!(
            "all is healed since {}, and a call at {}..{} to node {} came to {:?}: {:?}",
            ms(healed_us),
            ms(op.from_us),
            ms(op.to_us),
            op.node,
            op.told,
            op.call
        );
        broken(NAME, op.call.task(), what)
    });
    silent.chain(open).collect()
}

fn is_answered(op: &Op) -> bool {
    !matches!(op.told, Told::Unknown | Told::Refused(UNAVAILABLE))
}

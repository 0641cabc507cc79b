//! Compares this node's wall clock with its peers', and decides what that says of it; the operator's word on it.
//!
//! What is trusted is `steady.rs`; how far a peer's clock is off was measured by `net/offset.rs`.

use std::time::Duration;

use futures_util::future::join_all;

use super::Cluster;
use crate::id::NodeId;
use crate::limits::CLOCK_OFFSET_MS_MAX;
use crate::log_limit::LogLimit;
use crate::net::Offset;
use crate::steady::{By, Doubt};

/// How often the clocks are compared.
const LOOK: Duration = Duration::from_secs(1);
/// How long a peer may take to tell its time.
const PING_DEADLINE: Duration = Duration::from_millis(500);

impl Cluster {
    /// Compares this node's wall clock with its peers' and tells the others. Runs until it is dropped.
    pub async fn watch_clock(self) {
        let log = LogLimit::default();
        loop {
            self.compare_clocks(&log).await;
            tokio::select! {
                biased;
                () = self.0.steady.jumped() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn compare_clocks(&self, log: &LogLimit<()>) {
        let steady = &self.0.steady;
        let doubt = steady.doubt();
        let since = doubt.map(|(since, _)| since);
        self.0.metrics.set_clock_held(steady.hold().is_some());
        let Some(peers) = &self.0.peers else {
            if steady.has_lasted() {
                steady.compared(since, 0, By::Time);
            }
            return;
        };
        let view = self.0.view.borrow().clone();
        let alive: Vec<NodeId> = view.live().map(|member| member.facts.node).collect();
        self.0.metrics.set_nodes_alive(alive.len());
        let live = alive.into_iter().filter(|node| *node != self.0.node).count();
        // Also those that gossip believes dead: after a jump it hears of nobody. A peer that does not answer has no say.
        let others: Vec<&NodeId> = view.members.keys().filter(|node| **node != self.0.node).collect();
        join_all(others.iter().map(|node| peers.ping(**node, PING_DEADLINE))).await;
        let offsets = peers.offsets();
        // What was measured before a jump says nothing about the clock as it is now.
        let is_fresh = |offset: &&Offset| since.is_none_or(|since| offset.measured >= since);
        let heard: Vec<i64> = offsets.values().filter(is_fresh).map(certain_ms).collect();
        let is_held = steady.hold().is_some();
        // A large jump is confirmed by a majority of all that are known, not of those that happen to be there.
        let asked = if is_held { others.len() } else { live };
        let is_confirmed = !heard.is_empty() && heard.len() >= asked.div_ceil(2);
        let has_lasted = (live == 0 || is_held) && steady.has_lasted();
        let offset_ms = match doubt {
            // The one who has jumped has no say.
            Some((_, Doubt::Jumped)) if is_confirmed || has_lasted => -middle(heard),
            Some((_, Doubt::Jumped)) => view.own().facts.clock_offset_ms,
            _ => own_offset_ms(heard),
        };
        if is_confirmed {
            steady.compared(since, offset_ms, By::Peers);
        } else if has_lasted || doubt.is_none() {
            steady.compared(since, offset_ms, By::Time);
        }
        let is_right = offset_ms.unsigned_abs() <= CLOCK_OFFSET_MS_MAX;
        let is_wrong = |offset: &Offset| is_right && certain_ms(offset).unsigned_abs() > CLOCK_OFFSET_MS_MAX;
        let wrong = offsets.iter().filter(|(_, offset)| is_wrong(offset));
        steady.found_wrong(wrong.map(|(node, _)| *node).collect());
        self.0.metrics.set_clock_offset_ms(offset_ms);
        if view.own().facts.clock_offset_ms != offset_ms {
            self.tell(|facts| facts.clock_offset_ms = offset_ms);
        }
        if !is_right && let Some(unlogged) = log.line((), self.0.clock.monotonic()) {
            tracing::error!(
                offset_ms,
                unlogged,
                "this node's clock is too far from its peers': it fires nothing, and its leaderships go to others until it is set right"
            );
        }
    }
}

/// As much of an offset as is certain: a slow answer proves little.
fn certain_ms(offset: &Offset) -> i64 {
    let uncertainty = i64::try_from(offset.uncertainty_ms).unwrap_or(i64::MAX);
    match offset.offset_ms {
        ms if ms > uncertainty => ms - uncertainty,
        ms if ms < -uncertainty => ms + uncertainty,
        _ => 0,
    }
}

/// This node's clock against the median of all clocks, its own included; `peers` are theirs minus its own.
fn own_offset_ms(mut peers: Vec<i64>) -> i64 {
    peers.push(0);
    -middle(peers)
}

/// The median. Of an even number the one that is nearer to this node's clock: two nodes cannot tell who of them is wrong.
fn middle(mut offsets_ms: Vec<i64>) -> i64 {
    offsets_ms.sort_unstable();
    let count = offsets_ms.len();
    let (low, high) = match offsets_ms.get(count.saturating_sub(1) / 2..=count / 2) {
        Some([low, high]) => (*low, *high),
        Some([only]) => (*only, *only),
        _ => (0, 0),
    };
    if low.abs() < high.abs() { low } else { high }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_compared_with_the_median() {
        assert_eq!(own_offset_ms(vec![]), 0);
        assert_eq!(own_offset_ms(vec![900]), 0, "two nodes cannot tell who is wrong");
        assert_eq!(own_offset_ms(vec![900, 1_000]), -900, "both others are ahead");
        assert_eq!(own_offset_ms(vec![900, 5]), -5, "one other is ahead");
        assert_eq!(own_offset_ms(vec![-700, -800, -900, 3]), 700);
    }

    #[test]
    fn only_the_certain_part_of_an_offset_counts() {
        let offset = |offset_ms, uncertainty_ms| Offset {
            offset_ms,
            uncertainty_ms,
            measured: Duration::ZERO,
        };
        assert_eq!(certain_ms(&offset(700, 100)), 600);
        assert_eq!(certain_ms(&offset(-700, 100)), -600);
        assert_eq!(certain_ms(&offset(70, 100)), 0);
    }
}

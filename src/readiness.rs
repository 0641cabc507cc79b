//! Whether a node takes requests now: judged again and again by `node/judge.rs`, told by `GET /readyz`.
//!
//! Pure: what was seen, and when, is handed in.

use std::time::Duration;

/// A node that serves stays ready for so long although a group has no leader: an election is no reason to take it out.
pub const UNLED_GRACE: Duration = Duration::from_secs(5);

/// The answer to "may this node be sent requests?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Not every group has a leader yet.
    Starting,
    /// Requests are welcome.
    Ready,
    /// Not now, and why, for the operator.
    NotReady(String),
}

impl Readiness {
    /// Why the node is not ready; `None` when it is.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Starting => Some("the node is starting"),
            Self::Ready => None,
            Self::NotReady(reason) => Some(reason),
        }
    }
}

/// What a look at the node has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Groups of the cluster.
    pub groups: usize,
    /// Those of which no leader is known here that could act.
    pub unled: usize,
    /// Nodes of the cluster that are known here, this one included; those that have left in order do not count.
    pub nodes: usize,
    /// Those of them that are not heard of.
    pub silent: usize,
    /// Why the clock is not trusted, when that lasts.
    pub clock: Option<String>,
}

/// Judges one look after the other.
#[derive(Debug, Default)]
pub struct Judge {
    unled_since: Option<Duration>,
    has_served: bool,
}

impl Judge {
    /// What follows from a look at `now` (monotonic).
    pub fn judge(&mut self, seen: &Seen, now: Duration) -> Readiness {
        self.unled_since = (seen.unled > 0).then(|| self.unled_since.unwrap_or(now));
        if let Some(why) = &seen.clock {
            return Readiness::NotReady(why.clone());
        }
        let grace = if self.has_served { UNLED_GRACE } else { Duration::ZERO };
        if self.unled_since.is_some_and(|since| now >= since + grace) {
            return Readiness::NotReady(self.without_leaders(seen));
        }
        self.has_served = true;
        Readiness::Ready
    }

    fn without_leaders(&self, seen: &Seen) -> String {
        let Seen {
            groups,
            unled,
            nodes,
            silent,
            ..
        } = seen;
        let begin = if self.has_served { "" } else { "the node is starting: " };
        let reason = format!("{begin}no leader for {unled} of {groups} groups");
        if *silent == 0 {
            return reason;
        }
        format!("{reason}; {silent} of {nodes} nodes are not heard of")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(unled: usize) -> Seen {
        Seen {
            groups: 32,
            unled,
            nodes: 3,
            silent: 0,
            clock: None,
        }
    }

    fn told(readiness: &Readiness) -> &str {
        readiness.reason().unwrap_or("ready")
    }

    #[test]
    fn a_starting_node_is_ready_with_the_last_group_and_not_before() {
        let mut judge = Judge::default();
        let first = judge.judge(&seen(20), Duration::ZERO);
        assert_eq!(told(&first), "the node is starting: no leader for 20 of 32 groups");
        assert_ne!(judge.judge(&seen(1), Duration::from_mins(1)), Readiness::Ready);
        assert_eq!(judge.judge(&seen(0), Duration::from_mins(1)), Readiness::Ready);
    }

    #[test]
    fn an_election_is_no_reason_and_a_lost_majority_is() {
        let mut judge = Judge::default();
        let at = Duration::from_secs;
        assert_eq!(judge.judge(&seen(0), at(0)), Readiness::Ready);
        assert_eq!(judge.judge(&seen(32), at(1)), Readiness::Ready);
        assert_eq!(judge.judge(&seen(0), at(4)), Readiness::Ready);
        let lost = Seen { silent: 2, ..seen(20) };
        assert_eq!(judge.judge(&lost, at(5)), Readiness::Ready);
        assert_eq!(judge.judge(&lost, at(9)), Readiness::Ready);
        let reason = judge.judge(&lost, at(10));
        assert_eq!(
            told(&reason),
            "no leader for 20 of 32 groups; 2 of 3 nodes are not heard of"
        );
        assert_eq!(
            judge.judge(&seen(0), at(11)),
            Readiness::Ready,
            "it comes back by itself"
        );
    }

    #[test]
    fn a_clock_that_is_held_counts_at_once() {
        let mut judge = Judge::default();
        let held = Seen {
            clock: Some("the clock".into()),
            ..seen(0)
        };
        assert_eq!(told(&judge.judge(&held, Duration::ZERO)), "the clock");
        assert_eq!(judge.judge(&seen(0), Duration::ZERO), Readiness::Ready);
    }
}

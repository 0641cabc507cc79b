//! The law of a change of voters: it never lowers safety. Pure.
//!
//! The steps in `walk.rs` are chosen so that they keep it; `raft/group.rs` asks it again, with what is known at that moment, before
//! a change is proposed. A change that breaks it is refused there, counted and logged, whoever asked for it.
//!
//! Of a group that has `n` voters and should have `R` copies:
//! - it never has fewer than `n` voters afterwards, but for those of them that drain and go. What is left is rounded down to an odd
//!   number: an even one survives no more failures than the odd one below it;
//! - if `R` itself is smaller it may have that many, once all that stay are alive and caught up;
//! - a voter that goes without draining is replaced by an alive, caught-up node, or is itself alive, caught up, and too many. A dead
//!   one is never just left out, unless `R` others stay that are all alive and caught up;
//! - a node that comes in is alive, caught up, and does not drain;
//! - a majority of the voters is alive and caught up afterwards.

use std::collections::BTreeSet;

use crate::core::plan::odd;
use crate::id::NodeId;

/// A change of voters that somebody wants to make.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// The voters now.
    pub before: &'a BTreeSet<NodeId>,
    /// The voters afterwards.
    pub after: &'a BTreeSet<NodeId>,
    /// The members that are alive and caught up, the leader among them.
    pub ready: &'a BTreeSet<NodeId>,
    /// The nodes that were asked to leave.
    pub draining: &'a BTreeSet<NodeId>,
    /// Copies that every group should have.
    pub replicas: u8,
}

/// Why a change of voters would lower safety.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsafe {
    /// Fewer voters.
    #[error("the group would have {after} voters, and must keep at least {least}: no node leaves that accounts for it")]
    Fewer {
        /// Voters afterwards.
        after: usize,
        /// The least number.
        least: usize,
    },
    /// A voter that is dead or lags would be left out.
    #[error("node {0:016x} is dead or lags: it stays a voter until another node has caught up in its place")]
    Unreplaced(NodeId),
    /// Fewer copies are asked for, and one of those that would stay is not well.
    #[error(
        "node {0:016x} is dead or lags: the others stay voters until it has caught up, although fewer are asked for"
    )]
    NotWell(NodeId),
    /// A node would vote that cannot be counted on.
    #[error("node {0:016x} cannot become a voter: it is dead, lags, or is to leave")]
    NotReady(NodeId),
    /// Nobody could vote for anything.
    #[error("of the {0} voters afterwards no majority is alive and caught up")]
    NoMajority(usize),
}

/// The least number of voters that a group may have after `draining` have left the `before`.
pub fn least(before: usize, draining: usize, replicas: u8) -> usize {
    odd(before - draining).min(odd(usize::from(replicas.max(1))))
}

impl Change<'_> {
    /// Whether the change may be made.
    pub fn check(&self) -> Result<(), Unsafe> {
        let joining: BTreeSet<NodeId> = self.after.difference(self.before).copied().collect();
        let is_bad = |node: &&NodeId| !self.ready.contains(node) || self.draining.contains(node);
        if let Some(node) = joining.iter().find(is_bad) {
            return Err(Unsafe::NotReady(*node));
        }
        let ready = self.after.intersection(self.ready).count();
        if 2 * ready <= self.after.len() {
            return Err(Unsafe::NoMajority(self.after.len()));
        }
        let leaving = self.before.difference(self.after);
        let (draining, others): (Vec<NodeId>, Vec<NodeId>) = leaving.partition(|node| self.draining.contains(node));
        let least = least(self.before.len(), draining.len(), self.replicas);
        if self.after.len() < least {
            let after = self.after.len();
            return Err(Unsafe::Fewer { after, least });
        }
        let enough = odd(usize::from(self.replicas.max(1)));
        let ill = self.after.difference(self.ready).next();
        if let Some(node) = ill.filter(|_| self.after.len() < odd(self.before.len() - draining.len())) {
            return Err(Unsafe::NotWell(*node));
        }
        let are_all_well = ill.is_none() && self.after.len() >= enough;
        let lost: Vec<NodeId> = others.into_iter().filter(|node| !self.ready.contains(node)).collect();
        // One of an even number is no loss: as many failures are survived without it.
        let replaced = joining.len() + usize::from(self.before.len().is_multiple_of(2));
        match lost.get(replaced) {
            Some(node) if !are_all_well => Err(Unsafe::Unreplaced(*node)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change as four lists of one-digit nodes: before, after, dead or lagging, draining.
    fn check(lists: &str, replicas: u8) -> Result<(), Unsafe> {
        let digit = |digit: char| digit.to_digit(10).map(NodeId::from);
        let mut lists = lists
            .split('|')
            .map(|list| list.chars().filter_map(digit).collect::<BTreeSet<NodeId>>());
        let mut next = || lists.next().unwrap_or_default();
        let (before, after, bad, draining) = (next(), next(), next(), next());
        Change {
            before: &before,
            after: &after,
            ready: &(1..10).filter(|node| !bad.contains(node)).collect(),
            draining: &draining,
            replicas,
        }
        .check()
    }

    #[test]
    fn a_change_never_lowers_safety() {
        let fewer = |after, least| Err(Unsafe::Fewer { after, least });
        for (what, lists, replicas, verdict) in [
            ("growth", "1|123||", 3, Ok(())),
            ("a returning node is not counted", "123|1||", 3, fewer(1, 3)),
            ("one drains", "123|1||3", 3, Ok(())),
            (
                "one drains and another is dead",
                "123|1|2|3",
                3,
                Err(Unsafe::Unreplaced(2)),
            ),
            ("all others drain", "123|1|23|23", 3, Ok(())),
            ("a dead one is replaced", "123|124|3|", 3, Ok(())),
            ("by one that lags", "123|124|4|", 3, Err(Unsafe::NotReady(4))),
            ("by one that leaves", "123|124||4", 3, Err(Unsafe::NotReady(4))),
            ("five to three as asked for", "12345|123||", 3, Ok(())),
            ("not as asked for", "12345|123||", 5, fewer(3, 5)),
            ("one that stays is not well", "12345|123|3|", 3, Err(Unsafe::NotWell(3))),
            ("the dead go, and all others are well", "12345|123|45|", 3, Ok(())),
            (
                "a dead one goes, and one that stays is not well",
                "12345|123|34|",
                3,
                Err(Unsafe::NotWell(3)),
            ),
            ("an even number of copies", "12345|123||", 4, Ok(())),
            ("one of five drains", "12345|123||5", 5, Ok(())),
            ("and another is dead", "12345|123|4|5", 5, Err(Unsafe::Unreplaced(4))),
            ("two in place of one", "1|12||", 3, Ok(())),
            ("and out of two", "12|2||", 3, Ok(())),
            ("out of two, one lags", "12|2|1|", 3, Ok(())),
            ("nobody is left", "1|||1", 3, Err(Unsafe::NoMajority(0))),
            ("only the lagging one is left", "12|2|2|", 3, Err(Unsafe::NoMajority(1))),
        ] {
            assert_eq!(check(lists, replicas), verdict, "{what}");
        }
    }
}

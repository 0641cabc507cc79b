//! The members of a group as its leader sees them, and what a change of them is judged by. Made in `group.rs`, read by placement.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::NodeId;

/// A replica that lacks at most so many entries is caught up: it needs no snapshot, and a moment.
const CAUGHT_UP_ENTRIES: u64 = 64;

/// One member of a group as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberState {
    /// Votes; a learner only holds a copy.
    pub is_voter: bool,
    /// Entries it lacks; `None` while nothing was heard of it.
    pub lag: Option<u64>,
}

/// What a change of voters is judged by, beside what the group's leader sees itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The nodes that are heard of.
    pub alive: BTreeSet<NodeId>,
    /// Those that were asked to leave.
    pub draining: BTreeSet<NodeId>,
    /// Copies that every group should have.
    pub replicas: u8,
}

impl MemberState {
    /// Whether it could take over at once.
    pub fn is_caught_up(self) -> bool {
        self.lag.is_some_and(|lag| lag <= CAUGHT_UP_ENTRIES)
    }
}

/// A group's members as seen from here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Every voter and learner.
    pub members: BTreeMap<NodeId, MemberState>,
    /// The voters that a change is to end with that has begun and is not finished.
    pub changing_to: Option<BTreeSet<NodeId>>,
}

impl Members {
    /// Those that vote, also until an unfinished change is finished.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        let voters = self.members.iter().filter(|(_, member)| member.is_voter);
        voters.map(|(node, _)| *node).collect()
    }

    /// Whether a change of voters has begun and is not finished: the group needs more of its voters than before or after it. An even
    /// number is such a state as well: a single voter is replaced by way of two.
    pub fn is_half_way(&self) -> bool {
        self.changing_to.is_some() || self.voters().len().is_multiple_of(2)
    }

    /// Whether `node` is the only voter although two other copies could vote as well: should it end now, nobody could lead the group.
    /// One other could not: two voters survive no more than one.
    pub fn hangs_on(&self, node: NodeId) -> bool {
        let could_vote = |(other, member): &(&NodeId, &MemberState)| **other != node && member.is_caught_up();
        self.voters() == BTreeSet::from([node]) && self.members.iter().filter(could_vote).count() >= 2
    }

    /// Those of `alive` that are caught up, and `leader`.
    pub(super) fn ready(&self, alive: &BTreeSet<NodeId>, leader: NodeId) -> BTreeSet<NodeId> {
        let is_ready =
            |node: &NodeId, member: &MemberState| *node == leader || alive.contains(node) && member.is_caught_up();
        let ready = self.members.iter().filter(|(node, member)| is_ready(node, member));
        ready.map(|(node, _)| *node).collect()
    }
}

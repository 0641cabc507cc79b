//! Which nodes a plan counts on. Pure; called by the leaders' loop, and by whoever shows the plan.

use super::Candidate;
use crate::id::NodeId;

/// A node gets copies once it has been known for so long, in milliseconds. One that only restarts is known already, and so is
/// one that comes back after whatever time to the groups that still count it as their member.
pub const SETTLED_MS: u64 = 3_000;

/// A node as it is known when a plan is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The node.
    pub node: NodeId,
    /// What fails together with it; empty if nobody said.
    pub zone: String,
    /// It is heard of.
    pub is_alive: bool,
    /// It is to end.
    pub is_leaving: bool,
    /// For how long it has been alive, or dead, in milliseconds.
    pub unchanged_ms: u64,
    /// How long ago it was first known alive, in milliseconds.
    pub known_ms: u64,
    /// It is a member of a group that is led from here.
    pub is_member: bool,
}

/// The nodes to plan with, by rising id: those that live and those that have been dead for less than `replace_after_ms`.
///
/// Where these are fewer than `replicas`, dead ones fill up: a copy is taken from a dead node for one that takes its place, never
/// to have fewer. Two survivors of three stay voters of three, and go on acknowledging what is on two disks.
pub fn candidates(known: &[Known], replicas: u8, replace_after_ms: u64) -> Vec<Candidate> {
    let (counted, others): (Vec<&Known>, Vec<&Known>) =
        known.iter().filter(|known| !known.is_leaving).partition(|known| {
            if known.is_alive {
                known.known_ms >= SETTLED_MS || known.is_member
            } else {
                known.unchanged_ms < replace_after_ms
            }
        });
    let mut dead: Vec<&Known> = others.into_iter().filter(|known| !known.is_alive).collect();
    dead.sort_unstable_by_key(|known| known.node);
    dead.truncate(usize::from(replicas).saturating_sub(counted.len()));
    let candidate = |known: &Known, is_lost| Candidate {
        node: known.node,
        zone: known.zone.clone(),
        is_lost,
    };
    let counted = counted.into_iter().map(|known| candidate(known, false));
    let dead = dead.into_iter().map(|known| candidate(known, true));
    let mut candidates: Vec<Candidate> = counted.chain(dead).collect();
    candidates.sort_unstable_by_key(|candidate| candidate.node);
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG_MS: u64 = 1_000_000;
    const REPLACE_MS: u64 = 180_000;

    fn alive(node: NodeId) -> Known {
        Known {
            node,
            zone: String::new(),
            is_alive: true,
            is_leaving: false,
            unchanged_ms: LONG_MS,
            known_ms: LONG_MS,
            is_member: false,
        }
    }

    fn dead(node: NodeId, unchanged_ms: u64) -> Known {
        Known {
            is_alive: false,
            unchanged_ms,
            ..alive(node)
        }
    }

    fn chosen(known: &[Known]) -> Vec<NodeId> {
        let candidates = candidates(known, 3, REPLACE_MS);
        candidates.iter().map(|candidate| candidate.node).collect()
    }

    #[test]
    fn a_dead_node_counts_until_it_is_replaced() {
        let others = [alive(1), alive(2), alive(3)];
        let with = |fourth: Known| chosen(&[&[fourth][..], &others].concat());
        assert_eq!(with(dead(4, REPLACE_MS - 1)), [1, 2, 3, 4]);
        assert_eq!(with(dead(4, REPLACE_MS)), [1, 2, 3]);
    }

    #[test]
    fn nobody_is_dropped_without_somebody_in_its_place() {
        assert_eq!(chosen(&[alive(1), alive(2), dead(3, LONG_MS)]), [1, 2, 3]);
        assert_eq!(chosen(&[dead(5, LONG_MS), dead(4, LONG_MS), alive(1)]), [1, 4, 5]);
        assert_eq!(
            chosen(&[dead(5, LONG_MS), dead(4, LONG_MS), alive(1), alive(9)]),
            [1, 4, 9]
        );
    }

    #[test]
    fn a_restarted_node_counts_at_once_and_a_new_one_after_a_while() {
        let back = |known_ms| Known {
            unchanged_ms: 0,
            known_ms,
            ..alive(3)
        };
        let with = |third: Known| chosen(&[alive(1), alive(2), third]);
        assert_eq!(with(back(LONG_MS)), [1, 2, 3]);
        assert_eq!(with(back(SETTLED_MS)), [1, 2, 3]);
        assert_eq!(with(back(SETTLED_MS - 1)), [1, 2]);
    }

    #[test]
    fn a_member_counts_at_once_however_long_it_was_away() {
        let back = Known {
            unchanged_ms: 0,
            known_ms: 0,
            is_member: true,
            ..alive(3)
        };
        assert_eq!(chosen(&[alive(1), alive(2), back.clone()]), [1, 2, 3]);
        let leaving = Known {
            is_leaving: true,
            ..back
        };
        assert_eq!(chosen(&[alive(1), alive(2), leaving]), [1, 2]);
    }

    #[test]
    fn who_only_fills_up_is_lost() {
        let known = [alive(1), dead(2, LONG_MS), dead(3, REPLACE_MS - 1)];
        let lost = candidates(&known, 3, REPLACE_MS).into_iter().map(|one| one.is_lost);
        assert_eq!(lost.collect::<Vec<_>>(), [false, true, false]);
    }

    #[test]
    fn who_leaves_does_not_count() {
        let leaving = |known: Known| Known {
            is_leaving: true,
            ..known
        };
        assert_eq!(chosen(&[alive(1), leaving(alive(2)), leaving(dead(3, 0))]), [1]);
    }
}

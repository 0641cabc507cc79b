//! I13 and I17 while the run goes on: every commit of every node is compared with all others of its group.
//!
//! Judged by the position in the log, not by the order in which nodes commit: after a power cut a node goes through old
//! positions again, and must come to the same states.

use std::collections::BTreeMap;

use super::position::Position;
use crate::history::Violation;

/// The state after an entry, as the first node that had it showed it.
#[derive(Clone, Copy, Debug)]
struct After {
    position: Position,
    generation: u64,
    leader: Option<u64>,
    digest: u64,
    /// That node.
    node: usize,
}

/// Watches commits.
#[derive(Debug, Default)]
pub struct Commits {
    /// By group and index.
    seen: BTreeMap<(u16, u64), After>,
    /// By group and generation: the leader, and the node that showed it.
    leaders: BTreeMap<(u16, u64), (u64, usize)>,
}

impl Commits {
    /// A node has committed the state of a group up to a position.
    pub fn committed(
        &mut self,
        node: usize,
        group: u16,
        applied: &[u8],
        generation: u64,
        leader: Option<u64>,
        digest: u64,
    ) -> Option<Violation> {
        let position = match Position::decode(applied) {
            Ok(position) => position?,
            Err(what) => return Some(violation("I17 replicas agree", format!("group {group}: {what}"))),
        };
        let after = After {
            position,
            generation,
            leader,
            digest,
            node,
        };
        self.same_state(group, after)
            .or_else(|| self.in_order(group, after))
            .or_else(|| self.one_leader(group, after))
    }

    fn same_state(&mut self, group: u16, after: After) -> Option<Violation> {
        let first = *self.seen.entry((group, after.position.index)).or_insert(after);
        let facts = |after: &After| (after.position, after.generation, after.leader, after.digest);
        (facts(&first) != facts(&after)).then(|| {
            let what = format!("group {group}: two states after one entry: {first:?} and {after:?}");
            violation("I17 replicas agree", what)
        })
    }

    /// Terms and generations rise with the index, whichever node showed them.
    fn in_order(&self, group: u16, after: After) -> Option<Violation> {
        let key = (group, after.position.index);
        let before = self.seen.range((group, 0)..key).next_back();
        let next = self.seen.range((group, key.1 + 1)..=(group, u64::MAX)).next();
        let rank = |after: &After| (after.position.term, after.generation);
        let pairs = [before.map(|(_, one)| (*one, after)), next.map(|(_, one)| (after, *one))];
        let wrong = pairs.into_iter().flatten().find(|(lower, higher)| {
            let ((term, generation), (later_term, later_generation)) = (rank(lower), rank(higher));
            later_term < term || later_generation < generation
        });
        wrong.map(|(lower, higher)| {
            let what = format!("group {group}: a term or generation goes back: {lower:?}, then {higher:?}");
            violation("I13 one owner", what)
        })
    }

    fn one_leader(&mut self, group: u16, after: After) -> Option<Violation> {
        let key = (group, after.generation);
        let (leader, shown_by) = *self.leaders.entry(key).or_insert((after.leader?, after.node));
        (after.leader != Some(leader)).then(|| {
            let (generation, node) = (after.generation, after.node);
            let other = after.leader;
            let what = format!(
                "group {group}, generation {generation}: led by {leader} as node {shown_by} has it, by {other:?} as node {node} has it"
            );
            violation("I13 one owner", what)
        })
    }
}

fn violation(invariant: &'static str, what: String) -> Violation {
    Violation {
        invariant,
        task: None,
        what,
    }
}

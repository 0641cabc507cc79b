//! Which nodes should hold a copy of each group, which of them vote, and who should lead: a pure function of the nodes.
//!
//! `candidates.rs` says which nodes count, the rest what each gets.
//! Owns the wish alone. `core/walk.rs` says how a group gets there, one step at a time; the leaders' loop calls both.
//! Every node computes the same plan from the same nodes, in whatever order it knows them, so nobody has to be asked.
//!
//! What a plan holds, the first before the second:
//! 1. a group's replicas are `min(replicas, nodes)` different nodes;
//! 2. no node holds more than [`MOST_PERCENT`] of the mean share of replicas, rounded up, nor of leaderships (its own cap);
//! 3. the replicas of a group lie in as many zones as the two allow, as evenly as possible (nodes without a label are one zone);
//! 4. no node holds less than [`LEAST_PERCENT`] of the mean share of replicas, rounded down, nor of leaderships: always with
//!    one zone, and else unless the zones are too uneven;
//! 5. replicas stay where they were when a node comes or goes.
//!
//! Each group first takes the nodes that follow its point on the ring (`ring.rs`), zone by zone. Then what lies above a cap
//! moves along the shortest way to a node with room, and nodes with too little are lifted (`settle.rs`). Taking the nodes group by group and
//! skipping full ones would hold the caps too, but then zones depend on which group comes first. Figures:
//! doc/decisions/007-placement.md.

mod candidates;
mod ring;
mod settle;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{GroupCount, GroupId, NodeId};
pub use candidates::{Known, SETTLED_MS, candidates};
use settle::{Bounds, Price, settle};

/// Largest share of one node, in percent of the mean.
pub const MOST_PERCENT: usize = 105;
/// Smallest share of one node, in percent of the mean.
pub const LEAST_PERCENT: usize = 95;
/// What nodes are given in percent of the mean while the cap allows more. The cap falls in steps as nodes come (with 96
/// replicas, from three to two at the 51st node), and without this all nodes would shed replicas at the same step.
const ROOM_PERCENT: usize = 110;

/// A node that may be given replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: NodeId,
    /// What fails together with it: its rack, room or site; empty if nobody said.
    pub zone: String,
    /// It has been dead for so long that it would be replaced if there were others: it only keeps its place.
    pub is_lost: bool,
}

/// The wanted replicas of every group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    replicas: Vec<Vec<NodeId>>,
    voters: usize,
    /// How many nodes there are to plan with.
    nodes: usize,
    /// Those of them that only keep their place.
    lost: BTreeSet<NodeId>,
}

impl Plan {
    /// The nodes that should hold `group`: the first leads, the first [`Plan::voters`] vote, the others are learners.
    /// Empty if there are no nodes.
    pub fn replicas(&self, group: GroupId) -> &[NodeId] {
        self.replicas.get(usize::from(group.0)).map_or(&[], Vec::as_slice)
    }

    /// [`Plan::replicas`] in the order that suits a group with these voters. Of two nodes one votes in all groups, and it is the
    /// one that does so already: the second only holds copies, so nothing depends on it. A lost node comes last.
    pub fn places(&self, group: GroupId, voters: &BTreeSet<NodeId>) -> Vec<NodeId> {
        let mut places = self.replicas(group).to_vec();
        if self.nodes == 2 && places.len() == 2 {
            let mut voting = places.iter().filter(|node| voters.contains(node));
            let stays = match (voting.next(), voting.next()) {
                (Some(only), None) => Some(only),
                _ => places.iter().min(),
            };
            let stays = stays.copied();
            places.sort_by_key(|node| Some(*node) != stays);
        }
        places.sort_by_key(|node| self.lost.contains(node));
        places
    }

    /// How many of the group's list vote: the largest odd number that is not above its length.
    pub fn voters(&self, group: GroupId) -> usize {
        self.voters.min(self.replicas(group).len())
    }
}

/// Places `groups` on the candidates, each on `replicas` of them if there are as many (at least one). A node that is named
/// twice counts once.
pub fn plan(candidates: &[Candidate], groups: GroupCount, replicas: u8) -> Plan {
    let nodes = Nodes::new(candidates);
    let width = usize::from(replicas.max(1)).min(nodes.ids.len());
    if width == 0 {
        return Plan {
            replicas: vec![Vec::new(); usize::from(groups.get())],
            voters: 0,
            nodes: 0,
            lost: BTreeSet::new(),
        };
    }
    let distances = ring::distances(&nodes.ids, groups);
    let held = nodes.place(&distances, width);
    let leaders = nodes.lead(&distances, &held);
    let lists = held.iter().zip(&leaders).zip(&distances);
    Plan {
        replicas: lists
            .map(|((held, leader), distance)| nodes.list(held, *leader, distance))
            .collect(),
        voters: odd(width),
        nodes: nodes.ids.len(),
        lost: candidates
            .iter()
            .filter(|one| one.is_lost)
            .map(|one| one.node)
            .collect(),
    }
}

/// The largest odd number that is not above `count`: voters that survive as many failures as `count` of them would.
pub fn odd(count: usize) -> usize {
    if count.is_multiple_of(2) {
        count.saturating_sub(1)
    } else {
        count
    }
}

/// Most of `parts` that one of `nodes` may have.
fn most(parts: usize, nodes: usize) -> usize {
    (parts * MOST_PERCENT).div_ceil(100 * nodes)
}

/// Least of `parts` that one of `nodes` should have.
fn least(parts: usize, nodes: usize) -> usize {
    parts * LEAST_PERCENT / (100 * nodes)
}

/// The candidates by rising id; elsewhere in this module a node is its index here.
struct Nodes {
    ids: Vec<NodeId>,
    /// Zone of each node, as a number.
    zones: Vec<usize>,
    zone_count: usize,
}

impl Nodes {
    fn new(candidates: &[Candidate]) -> Self {
        let by_id: BTreeMap<NodeId, &str> = candidates
            .iter()
            .map(|candidate| (candidate.node, candidate.zone.as_str()))
            .collect();
        let mut numbers = BTreeMap::new();
        let zones = by_id
            .values()
            .map(|zone| {
                let next = numbers.len();
                *numbers.entry(*zone).or_insert(next)
            })
            .collect();
        Self {
            ids: by_id.into_keys().collect(),
            zones,
            zone_count: numbers.len(),
        }
    }

    /// How many of `held` are in the zone of `node`.
    fn in_zone_of(&self, node: usize, held: &[usize]) -> i64 {
        held.iter()
            .filter(|other| self.zones[**other] == self.zones[node])
            .map(|_| 1)
            .sum()
    }

    /// The nodes that hold each group.
    fn place(&self, distances: &[Vec<u32>], width: usize) -> Vec<Vec<usize>> {
        let mut held: Vec<Vec<usize>> = distances
            .iter()
            .map(|distance| self.spread(Vec::new(), (0..self.ids.len()).collect(), distance, width))
            .collect();
        let bounds = Bounds {
            most: self.room(distances.len(), width),
            least: least(distances.len() * width, self.ids.len()),
        };
        settle(&mut held, &bounds, |group, held, from, to| {
            let crowding = if self.zones[from] == self.zones[to] {
                0
            } else {
                // The replica joins those in its new zone, and no longer crowds those it leaves.
                self.in_zone_of(to, held) - (self.in_zone_of(from, held) - 1)
            };
            Some(Price {
                crowding,
                loss: i64::from(distances[group][to]) - i64::from(distances[group][from]),
            })
        });
        held
    }

    /// The leader of each group, one of those that hold it.
    fn lead(&self, distances: &[Vec<u32>], held: &[Vec<usize>]) -> Vec<usize> {
        let nearest = |(held, distance): (&Vec<usize>, &Vec<u32>)| {
            let nearest = held.iter().min_by_key(|node| distance[**node]);
            vec![*nearest.expect("every group has a replica")]
        };
        let mut leaders: Vec<Vec<usize>> = held.iter().zip(distances).map(nearest).collect();
        // If each group gave an equal part of its leadership to each of its nodes, every node would have its replicas divided
        // by the width; so nobody needs more than that, rounded up, and where parts are enough, so are wholes.
        let (groups, nodes, width) = (held.len(), self.ids.len(), held[0].len());
        let held_most = (0..nodes)
            .map(|node| held.iter().filter(|held| held.contains(&node)).count())
            .max()
            .unwrap_or(0);
        let bounds = Bounds {
            most: vec![groups.div_ceil(nodes).max(held_most.div_ceil(width)); nodes],
            // Leadership moves without data: nobody is left with less than the whole part of an even share, if possible.
            least: groups / nodes,
        };
        settle(&mut leaders, &bounds, |group, _, from, to| {
            held[group].contains(&to).then(|| Price {
                crowding: 0,
                loss: i64::from(distances[group][to]) - i64::from(distances[group][from]),
            })
        });
        leaders.concat()
    }

    /// The ids in their order: the leader, then the nearest of the zones that have the fewest so far. So those that vote are
    /// spread over zones, too.
    fn list(&self, held: &[usize], leader: usize, distance: &[u32]) -> Vec<NodeId> {
        let rest = held.iter().copied().filter(|node| *node != leader).collect();
        let list = self.spread(vec![leader], rest, distance, held.len());
        list.into_iter().map(|node| self.ids[node]).collect()
    }

    /// Adds nodes of `rest` until there are `width`: always the nearest of the zones that have the fewest so far.
    fn spread(&self, mut taken: Vec<usize>, mut rest: Vec<usize>, distance: &[u32], width: usize) -> Vec<usize> {
        while taken.len() < width {
            let next = (0..rest.len()).min_by_key(|i| (self.in_zone_of(rest[*i], &taken), distance[rest[*i]]));
            taken.push(rest.swap_remove(next.expect("there are at least `width` nodes")));
        }
        taken
    }

    /// How many replicas each node may get: the cap, or less (see [`ROOM_PERCENT`]) if that leaves the zones as good.
    fn room(&self, groups: usize, width: usize) -> Vec<usize> {
        let count = self.ids.len();
        let caps = vec![most(groups * width, count); count];
        let total = groups * width * ROOM_PERCENT / 100;
        let smooth: Vec<usize> = ring::shuffled(&self.ids)
            .into_iter()
            .map(|position| caps[0].min(total / count + usize::from(position < total % count)))
            .collect();
        if self.least_crowding(&smooth, groups, width) > self.least_crowding(&caps, groups, width) {
            return caps;
        }
        smooth
    }

    /// The least sum over groups and zones of 0 + 1 + 2 + ... for the replicas of a group in one zone, that any placement
    /// within `room` can have. A zone's first replica of each group costs nothing, the second 1, and so on; whatever totals
    /// the zones have, they can be spread evenly over the groups.
    fn least_crowding(&self, room: &[usize], groups: usize, width: usize) -> usize {
        let mut zones = vec![0; self.zone_count];
        for (node, room) in room.iter().enumerate() {
            zones[self.zones[node]] += room.min(&groups);
        }
        let mut left = groups * width;
        let mut sum = 0;
        for layer in 0.. {
            if left == 0 {
                break;
            }
            let layer_room: usize = zones
                .iter()
                .map(|zone| zone.saturating_sub(layer * groups).min(groups))
                .sum();
            let used = layer_room.min(left);
            assert!(used > 0, "the room of all nodes is enough for all replicas");
            left -= used;
            sum += layer * used;
        }
        sum
    }
}

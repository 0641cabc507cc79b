//! The consistent-hash ring: how far each node lies from each group. The only user of `hashring`.
//!
//! Nodes (with virtual nodes) and groups are points on one ring. A group prefers the nodes in the order in which a walk from
//! its point meets them, so a node that comes takes a little from everyone, and one that goes gives a little to everyone.
//! Nodes of different releases must agree, so only fixed-width bytes are hashed, and a golden test holds the result.

use std::hash::{BuildHasher, Hash, Hasher};

use hashring::{DefaultHashBuilder, HashRing};

use crate::id::{GroupCount, NodeId};

/// Points of one node. More of them make the ring more even, but with at most a few hundred groups it is the groups' own
/// points that are uneven.
const POINTS_PER_NODE: u32 = 128;

/// A point on the ring, with the index of what it belongs to.
struct Point {
    bytes: [u8; 13],
    owner: Owner,
}

#[derive(Clone, Copy)]
enum Owner {
    Node(usize),
    Group(usize),
}

impl Hash for Point {
    /// One write of fixed bytes: derived hashing writes lengths and numbers as the machine has them.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.bytes);
    }
}

fn bytes(kind: u8, id: u64, number: u32) -> [u8; 13] {
    let mut bytes = [kind; 13];
    bytes[1..9].copy_from_slice(&id.to_be_bytes());
    bytes[9..].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// For each group and each of `nodes` (different ids in rising order): how many points a walk from the group passes before it
/// meets the node. Different for the nodes of one group.
pub(super) fn distances(nodes: &[NodeId], groups: GroupCount) -> Vec<Vec<u32>> {
    let mut points = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        points.extend((0..POINTS_PER_NODE).map(|number| Point {
            bytes: bytes(b'n', *node, number),
            owner: Owner::Node(index),
        }));
    }
    points.extend(groups.iter().map(|group| Point {
        bytes: bytes(b'g', u64::from(group.0), 0),
        owner: Owner::Group(usize::from(group.0)),
    }));
    let mut ring = HashRing::new();
    ring.batch_add(points);
    // The crate's own walk (`get_with_replicas`) copies the ring for each call and may name a node twice.
    let owners: Vec<Owner> = ring.into_iter().map(|point| point.owner).collect();
    let mut distances = vec![Vec::new(); usize::from(groups.get())];
    for (start, owner) in owners.iter().enumerate() {
        if let Owner::Group(group) = owner {
            distances[*group] = walk(&owners, start, nodes.len());
        }
    }
    distances
}

fn walk(owners: &[Owner], start: usize, nodes: usize) -> Vec<u32> {
    let mut distances = vec![u32::MAX; nodes];
    let mut missing = nodes;
    let once_around = owners[start..].iter().chain(&owners[..start]);
    for (owner, passed) in once_around.zip(0..) {
        if let Owner::Node(node) = *owner
            && distances[node] == u32::MAX
        {
            distances[node] = passed;
            missing -= 1;
            if missing == 0 {
                break;
            }
        }
    }
    distances
}

/// The position of each of `nodes` in an order that has nothing to do with their ids.
pub(super) fn shuffled(nodes: &[NodeId]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    order.sort_by_key(|index| {
        let mut hasher = DefaultHashBuilder.build_hasher();
        hasher.write(&bytes(b'o', nodes[*index], 0));
        (hasher.finish(), nodes[*index])
    });
    let mut positions = vec![0; nodes.len()];
    for (position, index) in order.into_iter().enumerate() {
        positions[index] = position;
    }
    positions
}

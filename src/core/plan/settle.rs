//! Moves what lies on nodes above their most to nodes with room, then lifts nodes below the least, changing as little as possible.
//!
//! A bipartite flow: as long as a node holds too much, the cheapest route from any such node to any node with room is taken. A
//! route is a chain of moves, each of another group's replica, and is cheapest by the crowding of zones it adds, then by its
//! length, then by how much further from their groups the replicas lie. Because every group begins with its own best choice and
//! every route is the cheapest, the sum of crowding stays the least possible. Routes that lift a node add no crowding at all.
//! Knows neither zones nor the ring; `plan` prices the moves.

/// What one move costs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Price {
    /// How much worse the group is spread over zones.
    pub(super) crowding: i64,
    /// How much further the replica lies from its group.
    pub(super) loss: i64,
}

/// What a node may hold.
pub(super) struct Bounds {
    /// Most for each node; in sum enough for everything.
    pub(super) most: Vec<usize>,
    /// Least for all nodes, where it is possible without crowding zones.
    pub(super) least: usize,
}

/// Crowding, moves, loss: smaller is better, the first before the second.
type Cost = (i64, i64, i64);
/// Moves that a route counts in addition if it takes from a node that has little itself: more than any route has.
const LAST_RESORT: i64 = 1 << 32;

#[derive(Clone, Copy)]
struct Reached {
    cost: Cost,
    /// The last move of the route: which group, from which node. `None` where a route begins.
    by: Option<(usize, usize)>,
}

/// Changes `held` (the nodes of each group) to lie within `bounds`. `price(group, its nodes, from, to)` is `None` where the group
/// may not go.
pub(super) fn settle(
    held: &mut [Vec<usize>],
    bounds: &Bounds,
    price: impl Fn(usize, &[usize], usize, usize) -> Option<Price>,
) {
    let mut load = vec![0; bounds.most.len()];
    for node in held.iter().flatten() {
        load[*node] += 1;
    }
    lower(held, &mut load, &bounds.most, &price);
    lift(held, &mut load, bounds.least, &price);
}

/// Until no node holds more than its most.
fn lower(
    held: &mut [Vec<usize>],
    load: &mut [usize],
    most: &[usize],
    price: &impl Fn(usize, &[usize], usize, usize) -> Option<Price>,
) {
    let nodes = 0..most.len();
    let mut crowding = 0;
    while nodes.clone().any(|node| load[node] > most[node]) {
        let search = Search {
            starts: nodes
                .clone()
                .map(|node| (load[node] > most[node]).then_some((0, 0, 0)))
                .collect(),
            is_target: nodes.clone().map(|node| load[node] < most[node]).collect(),
            // Routes only become dearer: one as cheap as the last is the cheapest.
            crowding,
            price,
        };
        let (reached, target) = search
            .cheapest(held)
            .expect("the most of all nodes is enough, and a route leads to it");
        crowding = reached[target].map_or(crowding, |reached| reached.cost.0);
        take(held, load, &reached, target);
    }
}

/// Lifts the node with the least to `least`, then the next, as far as that adds no crowding.
fn lift(
    held: &mut [Vec<usize>],
    load: &mut [usize],
    least: usize,
    price: &impl Fn(usize, &[usize], usize, usize) -> Option<Price>,
) {
    let nodes = 0..load.len();
    let mut is_given_up = vec![false; load.len()];
    let poorest = |load: &[usize], is_given_up: &[bool]| {
        let poor = (0..load.len()).filter(|node| load[*node] < least && !is_given_up[*node]);
        poor.min_by_key(|node| load[*node])
    };
    while let Some(target) = poorest(load, &is_given_up) {
        // Better from a node that keeps its least; each such move makes the loads more even, so this comes to an end.
        let start = |node: usize| {
            let moves = if load[node] > least { 0 } else { LAST_RESORT };
            (load[node] >= load[target] + 2).then_some((0, moves, 0))
        };
        let search = Search {
            starts: nodes.clone().map(start).collect(),
            is_target: nodes.clone().map(|node| node == target).collect(),
            crowding: 0,
            price,
        };
        match search.cheapest(held) {
            Some((reached, _)) if reached[target].is_some_and(|reached| reached.cost.0 <= 0) => {
                take(held, load, &reached, target);
            }
            _ => is_given_up[target] = true,
        }
    }
}

/// Moves the replicas along the route to `target`.
fn take(held: &mut [Vec<usize>], load: &mut [usize], reached: &[Option<Reached>], target: usize) {
    let mut node = target;
    load[node] += 1;
    while let Some((group, from)) = reached[node].and_then(|reached| reached.by) {
        let place = held[group].iter().position(|holder| *holder == from);
        held[group][place.expect("a route moves each replica once")] = node;
        node = from;
    }
    load[node] -= 1;
}

struct Search<'a, P> {
    /// Where routes begin, and what they cost from there; no route goes through another start.
    starts: Vec<Option<Cost>>,
    is_target: Vec<bool>,
    /// A route that adds no more crowding need not be compared with longer ones.
    crowding: i64,
    price: &'a P,
}

/// How each node was reached, and the target that was reached the cheapest.
type Found = (Vec<Option<Reached>>, usize);

impl<P: Fn(usize, &[usize], usize, usize) -> Option<Price>> Search<'_, P> {
    /// Most routes are a single move, which is quickly found.
    fn cheapest(&self, held: &[Vec<usize>]) -> Option<Found> {
        let direct = self.routes(held, 1, |node| self.is_target[node]);
        let is_cheap = |(reached, target): &Found| reached[*target].is_some_and(|reached| self.is_cheap(reached.cost));
        direct
            .filter(is_cheap)
            .or_else(|| self.routes(held, self.starts.len(), |_| true))
    }

    fn is_cheap(&self, cost: Cost) -> bool {
        cost.0 <= self.crowding && cost.1 < LAST_RESORT
    }

    /// Routes of up to `moves_max` moves over nodes that are open, or of fewer if one is found that is cheap. After the k-th round
    /// the best routes of up to k moves are known.
    fn routes(&self, held: &[Vec<usize>], moves_max: usize, is_open: impl Fn(usize) -> bool) -> Option<Found> {
        let nodes = self.starts.len();
        let mut best: Vec<Option<Reached>> = (self.starts.iter())
            .map(|cost| cost.map(|cost| Reached { cost, by: None }))
            .collect();
        let mut changed: Vec<bool> = best.iter().map(Option::is_some).collect();
        let ways: Vec<usize> = (0..nodes)
            .filter(|node| self.starts[*node].is_none() && is_open(*node))
            .collect();
        let mut target = None;
        for _ in 0..moves_max {
            changed = self.round(held, &ways, &changed, &mut best);
            target = (0..nodes)
                .filter(|node| self.is_target[*node])
                .filter_map(|node| best[node].map(|reached| (reached.cost, node)))
                .min();
            if target.is_some_and(|(cost, _)| self.is_cheap(cost)) || !changed.contains(&true) {
                break;
            }
        }
        target.map(|(_, node)| (best, node))
    }

    /// Adds one move to the routes to the nodes that have `changed`; gives those that change by it.
    fn round(&self, held: &[Vec<usize>], ways: &[usize], changed: &[bool], best: &mut [Option<Reached>]) -> Vec<bool> {
        let before = best.to_vec();
        let mut changes = vec![false; before.len()];
        for (group, holders) in held.iter().enumerate() {
            for from in holders.iter().copied().filter(|from| changed[*from]) {
                let Some(reached) = before[from] else { continue };
                for to in ways.iter().copied().filter(|to| !holders.contains(to)) {
                    let Some(price) = (self.price)(group, holders, from, to) else {
                        continue;
                    };
                    let (crowding, moves, loss) = reached.cost;
                    let cost = (crowding + price.crowding, moves + 1, loss + price.loss);
                    if best[to].is_none_or(|best| cost < best.cost) {
                        let by = Some((group, from));
                        best[to] = Some(Reached { cost, by });
                        changes[to] = true;
                    }
                }
            }
        }
        changes
    }
}

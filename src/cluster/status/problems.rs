//! What is wrong with a cluster, in words: what an operator has to know before any table.

use super::{ClusterStatus, GroupStatus, NodeStatus};
use crate::core::plan::odd;
use crate::limits::CLOCK_OFFSET_MS_MAX;

/// What is wrong, the worst first.
pub(super) fn of(status: &ClusterStatus) -> Vec<String> {
    let groups = status.groups.len();
    let mut problems = Vec::new();
    let unled = status.groups.iter().filter(|group| group.leader.is_none()).count();
    if unled > 0 {
        problems.push(format!(
            "no leader for {unled} of {groups} groups: their tasks do not fire"
        ));
    }
    let dead = || status.nodes.iter().filter(|node| !node.alive && !node.left);
    problems.extend(dead().map(|node| format!("node {} is dead, for {} by now", node.id, time(node.since_secs))));
    if dead().next().is_some() {
        let leaves = |node: &&NodeStatus| node.alive && node.draining && node.replicas != Some(0);
        problems.extend(status.nodes.iter().filter(leaves).map(|node| {
            format!(
                "node {} drains, and may have to wait: its groups keep as many voters as they have, until the dead node is back or its \
                 place is given away",
                node.id
            )
        }));
    }
    let under = status.groups.iter().filter_map(|group| group.copies);
    let (under, least) = under
        .filter(|copies| *copies < status.copies_wanted)
        .fold((0, usize::MAX), |(count, least), copies| (count + 1, least.min(copies)));
    if under > 0 {
        let few = if able(status) < status.copies_wanted {
            match able(status) {
                1 => "; one node can hold them: add nodes".to_owned(),
                able => format!("; {able} nodes can hold them: add nodes"),
            }
        } else {
            String::new()
        };
        problems.push(format!(
            "{under} groups have fewer than {} copies, the least {least}{few}",
            status.copies_wanted
        ));
    }
    let wanted = odd(able(status).min(status.copies_wanted));
    let is_whole = |group: &&GroupStatus| group.copies.is_some_and(|copies| copies >= wanted);
    let few = status.groups.iter().filter(is_whole).map(|group| group.voters.len());
    let (few, least) = few
        .filter(|voters| *voters < wanted)
        .fold((0, usize::MAX), |(count, least), voters| (count + 1, least.min(voters)));
    if few > 0 {
        problems.push(format!(
            "{few} groups have fewer than {wanted} voters, the least {least}: their other copies become voters as soon as they are caught \
             up. End no node before"
        ));
    }
    let off = |node: &&NodeStatus| node.alive && node.clock_offset_ms.unsigned_abs() > CLOCK_OFFSET_MS_MAX;
    problems.extend(status.nodes.iter().filter(off).map(|node| {
        format!(
            "the clock of node {} is off by {} ms: it leads nothing until that is set right",
            node.id, node.clock_offset_ms
        )
    }));
    problems
}

/// Nodes that may hold copies.
fn able(status: &ClusterStatus) -> usize {
    status.nodes.iter().filter(|node| node.alive && !node.draining).count()
}

fn time(secs: u64) -> String {
    match secs {
        0..120 => format!("{secs} s"),
        120..7_200 => format!("{} min", secs / 60),
        _ => format!("{} h", secs / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(copies: &[Option<usize>]) -> ClusterStatus {
        let node = |id: &str| NodeStatus {
            id: id.repeat(16),
            api: String::new(),
            peer: String::new(),
            zone: String::new(),
            version: String::new(),
            alive: true,
            draining: false,
            left: false,
            since_secs: 600,
            led: 0,
            replicas: None,
            clock_offset_ms: 0,
        };
        let groups = copies.iter().enumerate().map(|(number, copies)| GroupStatus {
            group: u16::try_from(number).expect("few"),
            leader: copies.map(|_| "a".repeat(16)),
            generation: 1,
            voters: ["a", "b", "c"].map(str::to_owned).into(),
            learners: Vec::new(),
            planned: Vec::new(),
            lag: 0,
            copies: *copies,
        });
        ClusterStatus {
            cluster: String::new(),
            problems: Vec::new(),
            copies_wanted: 3,
            nodes: ["a", "b", "c"].map(node).into(),
            groups: groups.collect(),
        }
    }

    #[test]
    fn nothing_is_wrong_with_a_whole_cluster_nor_with_a_node_that_has_left() {
        let mut status = status(&[Some(3), Some(4)]);
        let gone = NodeStatus {
            alive: false,
            left: true,
            ..status.nodes[0].clone()
        };
        status.nodes.push(gone);
        assert_eq!(of(&status), Vec::<String>::new());
    }

    #[test]
    fn the_worst_comes_first() {
        let mut status = status(&[Some(1), None, Some(2), Some(3)]);
        status.nodes[1].alive = false;
        status.nodes[2].clock_offset_ms = -900;
        let told = of(&status);
        assert_eq!(told.len(), 4, "{told:?}");
        assert_eq!(told[0], "no leader for 1 of 4 groups: their tasks do not fire");
        assert_eq!(told[1], "node bbbbbbbbbbbbbbbb is dead, for 10 min by now");
        assert_eq!(
            told[2],
            "2 groups have fewer than 3 copies, the least 1; 2 nodes can hold them: add nodes"
        );
        assert!(told[3].contains("cccccccccccccccc is off by -900 ms"), "{told:?}");
    }

    #[test]
    fn groups_whose_copies_do_not_vote_yet_are_told() {
        let mut status = status(&[Some(3), Some(3)]);
        status.groups[1].voters.truncate(1);
        let told = of(&status);
        assert!(
            told.len() == 1 && told[0].starts_with("1 groups have fewer than 3 voters, the least 1"),
            "{told:?}"
        );
    }

    #[test]
    fn a_drain_that_waits_for_a_dead_node_says_so() {
        let mut status = status(&[Some(2)]);
        status.nodes[0].draining = true;
        assert!(!of(&status).iter().any(|problem| problem.contains("drains")));
        status.nodes[1].alive = false;
        let told = of(&status);
        assert!(
            told[1].starts_with("node aaaaaaaaaaaaaaaa drains, and may have to wait"),
            "{told:?}"
        );
        status.nodes[0].replicas = Some(0);
        assert!(!of(&status).iter().any(|problem| problem.contains("drains")));
    }
}

//! Ends the term of a leader whom a majority does not answer.
//!
//! openraft's leader leads until it hears of a higher vote. One that is heard and hears nobody, over links that work one way
//! only, would keep its followers from electing another for as long as that lasts (etcd's answer to it is `CheckQuorum`).

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::id::GroupId;
use crate::raft::group::Group;
use crate::raft::groups::Groups;

/// How often leaders are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Looks in a row that find a leader unanswered before its term ends. Counted in looks, not in time: a process that stood still
/// must first have had the chance to be answered.
const LOOKS_MAX: u32 = 4;

/// Watches all groups of this node. Runs until it is dropped.
pub async fn end_deaf_terms(groups: Groups) {
    let mut looks: BTreeMap<GroupId, (u64, u32)> = BTreeMap::new();
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let unanswered = groups
            .iter()
            .filter_map(|group| Some((group.unanswered_term()?, group)));
        let mut now = BTreeMap::new();
        let mut deaf: Vec<(u64, Group)> = Vec::new();
        for (term, group) in unanswered {
            let before = looks.get(&group.id()).filter(|(of, _)| *of == term);
            let count = before.map_or(0, |(_, count)| *count) + 1;
            now.insert(group.id(), (term, count));
            if count >= LOOKS_MAX {
                deaf.push((term, group));
            }
        }
        looks = now;
        for (term, group) in deaf {
            match group.end_term(term).await {
                Ok(()) => tracing::warn!(group = group.id().0, term, "a majority does not answer: leads no more"),
                Err(error) => tracing::warn!(group = group.id().0, term, %error, "a term cannot be ended"),
            }
        }
    }
}

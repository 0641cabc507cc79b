//! Ends the term of a leader that leads to no purpose: nobody answers it any more, or it has asked another replica to lead and
//! that has come to nothing.
//!
//! openraft's leader leads until it hears of a higher vote. One that is heard and hears nobody, over links that work one way
//! only, would keep its followers from electing another for as long as that lasts. Why openraft's own remedy is not taken:
//! `doc/decisions/008-failover.md`.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use openraft::type_config::alias::InstantOf;
use tokio::time::MissedTickBehavior;

use crate::id::GroupId;
use crate::raft::group::{ChangeError, Group};
use crate::raft::groups::Groups;
use crate::raft::types::TypeConfig;

/// How often leaders are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Looks in a row that find a leader without any new confirmation before its term ends. Counted in looks, not in time: a process
/// that stood still must first have had the chance to be answered. Many: an answer waits for the other's disk.
const LOOKS_MAX: u32 = 8;

/// What a look found: the term, and when that was sent which a majority has confirmed last.
type Found = (u64, Option<InstantOf<TypeConfig>>);

/// Watches all groups of this node. Runs until it is dropped.
pub async fn end_deaf_terms(groups: Groups) {
    let mut before: BTreeMap<GroupId, (Found, u32)> = BTreeMap::new();
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut now = BTreeMap::new();
        let (mut deaf, mut abandoned) = (Vec::new(), Vec::new());
        for group in groups.iter() {
            if let Some(term) = group.abandoned() {
                abandoned.push(end_abandoned(group, term));
                continue;
            }
            let Some(found) = group.unanswered() else { continue };
            let last = before.get(&group.id()).filter(|(last, _)| *last == found);
            let looks = last.map_or(0, |(_, looks)| *looks) + 1;
            now.insert(group.id(), (found, looks));
            if looks >= LOOKS_MAX {
                deaf.push(async move { (group.id(), group.end_term(found.0).await) });
            }
        }
        before = now;
        let (ended, _) = tokio::join!(join_all(deaf), join_all(abandoned));
        tell(&ended);
    }
}

/// A hand-over that was dropped half way, or failed: this leader may not act in its term, so another begins.
async fn end_abandoned(group: Group, term: u64) {
    let id = group.id().0;
    match group.give_up(term).await {
        Ok(true) => tracing::info!(group = id, term, "a hand-over came to nothing: a leader is elected"),
        // Its log has just grown: the next look ends it.
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(group = id, term, %error, "the term of a hand-over that came to nothing cannot be ended");
        }
    }
}

/// One line for all of them: where a majority is lost, every group that was led here is.
fn tell(looked: &[(GroupId, Result<bool, ChangeError>)]) {
    let of = |wanted: fn(&Result<bool, ChangeError>) -> bool| {
        let found = looked.iter().filter(|(_, ended)| wanted(ended));
        found.map(|(id, _)| id.0).collect::<Vec<u16>>()
    };
    let (ended, failed) = (of(|ended| *ended == Ok(true)), of(Result::is_err));
    if !ended.is_empty() {
        tracing::warn!(
            groups = ended.len(),
            numbers = ?ended,
            "no majority answers the leader of these groups: this node leads them no more"
        );
    }
    if let Some(error) = looked.iter().find_map(|(_, ended)| ended.as_ref().err()) {
        tracing::warn!(
            groups = failed.len(),
            numbers = ?failed,
            %error,
            "the term of a leader that nobody answers cannot be ended; trying again"
        );
    }
}

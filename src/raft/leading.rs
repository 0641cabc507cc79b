//! Follows whether this node leads a group, and claims every new term before anything is done under it.
//!
//! openraft may report a restarted leader as leading before its own first entry is applied: the claim is that entry.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio::sync::watch;

use crate::core::command::{Op, Reply};
use crate::failure::Failure;
use crate::metrics::Metrics;
use crate::raft::group::{Leadership, RaftGroup};
use crate::raft::proposer::{ProposeError, Proposer};

/// How long a claim of leadership is retried before the next look.
const CLAIM_RETRY: Duration = Duration::from_millis(50);

/// A group that has stopped waits so long for the cause to be reported by the one that met it.
const CAUSE_WAIT: Duration = Duration::from_secs(1);

/// Claims every new term with a `Lead` operation, and publishes the generation once it is applied.
pub(super) async fn follow_leadership(
    raft: RaftGroup,
    proposer: Proposer,
    claims: watch::Sender<Option<Leadership>>,
    failure: Failure,
    counted: Arc<Metrics>,
    is_ending: Arc<AtomicBool>,
) {
    let node = *raft.node_id();
    let mut metrics = raft.server_metrics();
    let mut claimed_term = None;
    let mut last_term = None;
    loop {
        let (leads, term, is_alone) = {
            let now = metrics.borrow_watched();
            let is_alone = now.membership_config.nodes().count() == 1;
            (now.state.is_leader(), now.vote.leader_id.term, is_alone)
        };
        // The first is what the process before this one has seen.
        counted.add_elections(last_term.map_or(0, |last| term.saturating_sub(last)));
        last_term = Some(term);
        // Nobody waits for the heartbeats of a leader without followers: its timer would be most of an idle node's work.
        raft.runtime_config().tick(!(leads && is_alone));
        if !leads {
            claims.send_if_modified(|claim| claim.take().is_some());
            claimed_term = None;
        } else if claimed_term != Some(term) {
            claims.send_if_modified(|claim| claim.take().is_some());
            match proposer.propose_waiting(&Op::Lead { node }).await {
                Ok(Reply::Generation(generation)) => {
                    claims.send_replace(Some(Leadership { generation, term }));
                    counted.inc_leaderships();
                    claimed_term = Some(term);
                }
                Ok(reply) => unreachable!("a Lead is answered by its generation, not by {reply:?}"),
                Err(ProposeError::NotLeader | ProposeError::Unknown | ProposeError::Overloaded) => {
                    tokio::time::sleep(CLAIM_RETRY).await;
                    if failure.get().is_some() {
                        return;
                    }
                    continue;
                }
            }
        }
        if metrics.changed().await.is_err() {
            claims.send_replace(None);
            if !is_ending.load(Ordering::SeqCst) {
                // A node that lives on without one of its groups would look well and never fire its tasks. Mostly its log or
                // its store has failed, which is told in a moment by the one that met it, with the file's name.
                drop(tokio::time::timeout(CAUSE_WAIT, failure.wait()).await);
                failure.report("a Raft group has stopped by itself; the log tells why");
            }
            return;
        }
    }
}

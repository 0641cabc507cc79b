//! Gives the leadership of a group away on purpose.

use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::alias::LeaderIdOf;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::Fatal;
use openraft::raft::VoteRequest;
use openraft::type_config::alias::VoteOf;
use openraft::vote::{RaftLeaderId, RaftVote};

use crate::id::NodeId;
use crate::raft::group::{ChangeError, Group};
use crate::raft::types::TypeConfig;

/// How long another replica may take to lead after it was asked to.
const HAND_OVER: Duration = Duration::from_millis(1_500);

/// What is done when callbacks in flight do not end in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Leadership stays: it would only be better elsewhere.
    Convenient,
    /// It goes all the same; the new leader repeats what was in flight.
    Ordered,
}

/// Keeps attempts from starting until it is dropped, also with the future that holds it.
struct Quiet<'a>(&'a Group);

impl<'a> Quiet<'a> {
    fn begin(group: &'a Group) -> Self {
        group.0.quiet.fetch_add(1, Ordering::SeqCst);
        Self(group)
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        self.0.0.quiet.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Group {
    /// Hands leadership to a caught-up voter. This node stops starting attempts first and waits, at most for `quiet`, for the
    /// outcomes of those in flight, so that the new leader repeats none. Then it stops acting for the group: the other's
    /// election waits for no lease. Should that not come about, this node gives up its term as well, since the wish may
    /// still be on its way.
    pub async fn hand_over(&self, to: NodeId, quiet: Duration, urgency: Urgency) -> Result<(), ChangeError> {
        let _quiet = Quiet::begin(self);
        let mut fires = self.0.fires.subscribe();
        let settled = fires.wait_for(|fires| *fires == 0);
        if tokio::time::timeout(quiet, settled).await.is_err() && urgency == Urgency::Convenient {
            return Err(ChangeError(
                "callbacks in flight take long: leadership stays for now".into(),
            ));
        }
        let Some(term) = self.led_term() else {
            return Err(ChangeError("this node does not lead the group any more".into()));
        };
        self.0.handed_over_term.store(term, Ordering::SeqCst);
        self.raft()
            .trigger()
            .transfer_leader(to)
            .await
            .map_err(|error| failed(&error))?;
        let mut metrics = self.raft().server_metrics();
        let is_over = metrics.wait_until(|now| now.vote.leader_id.term != term || !now.state.is_leader());
        if tokio::time::timeout(HAND_OVER, is_over).await.is_ok() {
            return Ok(());
        }
        self.give_up(term, to).await?;
        Err(ChangeError(format!("node {to:016x} did not take over in time")))
    }

    /// Ends this leader's term. openraft's leader steps down for a higher vote alone, so it is shown the very vote that `to`
    /// was to ask for, as if that request had come and its answer had been lost. Then a leader is elected as usual.
    async fn give_up(&self, term: u64, to: NodeId) -> Result<(), ChangeError> {
        let last_log_id = self.raft().data_metrics().borrow_watched().last_log;
        let request = VoteRequest::<TypeConfig> {
            vote: VoteOf::<TypeConfig>::from_leader_id(LeaderIdOf::<TypeConfig>::new(term + 1, to), false),
            last_log_id,
            leadership_transfer: true,
        };
        let asked = self.raft().vote(request).await;
        asked.map_err(|error| ChangeError(error.to_string()))?;
        self.raft().trigger().elect(true).await.map_err(|error| failed(&error))
    }
}

fn failed(error: &Fatal<TypeConfig>) -> ChangeError {
    ChangeError(error.to_string())
}

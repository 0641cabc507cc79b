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
/// How long one try of a planned hand-over waits for a moment without callbacks in flight. Short: by the next try another node may
/// be the one to lead.
pub const MOMENT: Duration = Duration::from_secs(2);

/// What is done when callbacks in flight do not end in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Leadership stays: it would only be better elsewhere.
    Convenient,
    /// The plan has no place for this leader. It goes on firing until a moment without a callback in flight comes; if none does,
    /// leadership stays, and whoever plans tries again. Of a node that was asked to leave it is ordered in the end.
    Planned,
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

/// Says that a hand-over is under way, until it is dropped, also with the future that holds it. Then `deaf.rs` looks after a term
/// that is left over.
struct HandingOver<'a>(&'a Group);

impl<'a> HandingOver<'a> {
    /// From here on the group is not acted for in this term, whatever becomes of the hand-over: the wish may be on its way, and the
    /// election that follows from it waits for no lease. So the right to act never comes back within the term, only with the next.
    fn begin(group: &'a Group, term: u64) -> Self {
        group.0.handing_over.fetch_add(1, Ordering::SeqCst);
        group.0.handed_over_term.store(term, Ordering::SeqCst);
        Self(group)
    }
}

impl Drop for HandingOver<'_> {
    fn drop(&mut self) {
        self.0.0.handing_over.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Group {
    /// Hands leadership to a caught-up voter. This node stops starting attempts first and waits, at most for `quiet`, for the
    /// outcomes of those in flight, so that the new leader repeats none. Then it stops acting for the group: the other's
    /// election waits for no lease. Should that not come about, this node gives up its term as well, since the wish may
    /// still be on its way. May be dropped at any point: a term in which nobody acts is ended by [`super::end_deaf_terms`].
    pub async fn hand_over(&self, to: NodeId, quiet: Duration, urgency: Urgency) -> Result<(), ChangeError> {
        let mut fires = self.0.fires.subscribe();
        if urgency == Urgency::Planned {
            let moment = tokio::time::timeout(MOMENT, fires.wait_for(|fires| *fires == 0)).await;
            drop(moment.map_err(|_| in_flight())?);
        }
        let _quiet = Quiet::begin(self);
        let settled = fires.wait_for(|fires| *fires == 0);
        if tokio::time::timeout(quiet, settled).await.is_err() && urgency != Urgency::Ordered {
            return Err(in_flight());
        }
        let Some(term) = self.led_term() else {
            return Err(ChangeError("this node does not lead the group any more".into()));
        };
        let _handing_over = HandingOver::begin(self, term);
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
        let is_over = self.give_up(term).await?;
        let then = if is_over {
            ""
        } else {
            ", and the term has not ended yet"
        };
        Err(ChangeError(format!("node {to:016x} did not take over in time{then}")))
    }

    /// Ends the term of a leader whom a majority does not answer; whether it has. openraft says no if one has just answered.
    pub(super) async fn end_term(&self, term: u64) -> Result<bool, ChangeError> {
        self.show_higher_vote(term, false).await
    }

    /// Ends the term of a leader that has asked another replica to lead, as if that one's request had come and its answer had been
    /// lost. Then a leader is elected as usual. Whether it has: openraft says no if its log has just grown.
    pub(super) async fn give_up(&self, term: u64) -> Result<bool, ChangeError> {
        let is_over = self.show_higher_vote(term, true).await?;
        if is_over {
            self.raft()
                .trigger()
                .elect(true)
                .await
                .map_err(|error| failed(&error))?;
        }
        Ok(is_over)
    }

    /// openraft's leader steps down for a higher vote alone: it is shown one that another voter could ask for. Whether it was
    /// granted.
    async fn show_higher_vote(&self, term: u64, leadership_transfer: bool) -> Result<bool, ChangeError> {
        let own = *self.raft().node_id();
        // Votes are ordered by term and node: whoever is elected in the next term must not have a lower one than this node was
        // shown, or it would be deposed as soon as the two hear each other.
        let Some(lowest) = self.raft().voter_ids().filter(|node| *node != own).min() else {
            return Err(ChangeError("nobody else votes in the group".into()));
        };
        let last_log_id = self.raft().data_metrics().borrow_watched().last_log;
        let request = VoteRequest::<TypeConfig> {
            vote: VoteOf::<TypeConfig>::from_leader_id(LeaderIdOf::<TypeConfig>::new(term + 1, lowest), false),
            last_log_id,
            leadership_transfer,
        };
        let asked = self.raft().vote(request).await;
        asked
            .map(|answer| answer.vote_granted)
            .map_err(|error| ChangeError(error.to_string()))
    }
}

fn in_flight() -> ChangeError {
    ChangeError("callbacks in flight take long: leadership stays for now".into())
}

fn failed(error: &Fatal<TypeConfig>) -> ChangeError {
    ChangeError(error.to_string())
}

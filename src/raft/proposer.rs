//! Collects the operations of one group into log entries: what arrives while rounds are in flight makes up the next.
//!
//! No artificial delay: alone, an operation leaves at once. Bounded: past `PROPOSALS_PER_GROUP_MAX` waiting operations a
//! client's request is refused, while the firing's own reports wait for room.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};

use crate::core::command::{self, Op, Reply};
use crate::limits::{ENTRY_BYTES_MAX, ENTRY_OPS_MAX, PROPOSALS_PER_GROUP_MAX};
use crate::metrics::Metrics;
use crate::raft::group::RaftGroup;
use crate::raft::types::Payload;

/// Why an operation has no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Not done: too many operations are waiting already.
    #[error("too many requests are waiting for group leader; limit proposals_per_group ({PROPOSALS_PER_GROUP_MAX})")]
    Overloaded,
    /// Not done: this node does not lead the group.
    #[error("this node does not lead the task's group")]
    NotLeader,
    /// It may or may not have happened.
    #[error("the outcome is unknown")]
    Unknown,
}

/// Entries of one group that may be on their way at the same time. More than one, so that an operation need not wait for
/// the fsync of the round before it to end before its own can begin; see doc/decisions/003-groups.md.
const ROUNDS_IN_FLIGHT_MAX: usize = 4;

struct Proposal {
    op: Vec<u8>,
    reply: oneshot::Sender<Result<Reply, ProposeError>>,
}

/// Cheap handle: puts operations into a group's log.
#[derive(Clone, Debug)]
pub struct Proposer(mpsc::Sender<Proposal>);

impl Proposer {
    /// Starts the collecting task of a group; it ends when every handle is gone.
    pub(super) fn spawn(raft: RaftGroup, metrics: Arc<Metrics>) -> Self {
        let (sender, receiver) = mpsc::channel(PROPOSALS_PER_GROUP_MAX);
        tokio::spawn(run(raft, receiver, metrics));
        Self(sender)
    }

    /// Proposes for a client: refused at once when there is no room.
    pub async fn propose(&self, op: &Op<'_>) -> Result<Reply, ProposeError> {
        self.propose_encoded(command::encode_op(op)).await
    }

    /// [`Self::propose`] of an operation that is encoded already, and known to be readable.
    pub async fn propose_encoded(&self, op: Vec<u8>) -> Result<Reply, ProposeError> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(Proposal { op, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposeError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => ProposeError::NotLeader,
        })?;
        answer.await.unwrap_or(Err(ProposeError::Unknown))
    }

    /// Proposes for the node itself: waits for room, since an outcome must not be lost to a burst of creates.
    pub async fn propose_waiting(&self, op: &Op<'_>) -> Result<Reply, ProposeError> {
        let (reply, answer) = oneshot::channel();
        let proposal = Proposal {
            op: command::encode_op(op),
            reply,
        };
        self.0.send(proposal).await.map_err(|_| ProposeError::NotLeader)?;
        answer.await.unwrap_or(Err(ProposeError::Unknown))
    }
}

async fn run(raft: RaftGroup, mut waiting: mpsc::Receiver<Proposal>, metrics: Arc<Metrics>) {
    let mut held = None;
    let mut rounds = FuturesUnordered::new();
    loop {
        while rounds.len() >= ROUNDS_IN_FLIGHT_MAX {
            rounds.next().await;
        }
        let first = if let Some(proposal) = held.take() {
            proposal
        } else {
            tokio::select! {
                biased;
                Some(()) = rounds.next(), if !rounds.is_empty() => continue,
                first = waiting.recv() => match first {
                    Some(proposal) => proposal,
                    None => break,
                },
            }
        };
        let (batch, bytes) = collect(first, &mut waiting, &mut held);
        metrics.observe_proposal_batch(batch.len());
        let entry = command::join(batch.iter().map(|proposal| proposal.op.as_slice()), bytes);
        let raft = &raft;
        rounds.push(async move { answer(batch, round(raft, entry).await) });
    }
    while rounds.next().await.is_some() {}
}

/// Takes what is waiting, up to the bounds of an entry. One operation over the bound is held for the next entry.
fn collect(
    first: Proposal,
    waiting: &mut mpsc::Receiver<Proposal>,
    held: &mut Option<Proposal>,
) -> (Vec<Proposal>, usize) {
    let mut bytes = first.op.len();
    let mut batch = vec![first];
    while batch.len() < ENTRY_OPS_MAX {
        let Ok(proposal) = waiting.try_recv() else { break };
        if bytes + proposal.op.len() > ENTRY_BYTES_MAX {
            *held = Some(proposal);
            break;
        }
        bytes += proposal.op.len();
        batch.push(proposal);
    }
    (batch, bytes)
}

/// Commits and applies one entry.
async fn round(raft: &RaftGroup, entry: Vec<u8>) -> Result<Vec<Reply>, ProposeError> {
    if !raft.is_leader() {
        return Err(ProposeError::NotLeader);
    }
    // Past this point an error does not say whether the entry will be committed: also a lost leadership may be reported
    // for an entry that reached a majority.
    let response = raft.client_write(Payload(Bytes::from(entry))).await.map_err(|error| {
        tracing::debug!(%error, "an entry's outcome is unknown");
        ProposeError::Unknown
    })?;
    Ok(response.data.0)
}

fn answer(batch: Vec<Proposal>, result: Result<Vec<Reply>, ProposeError>) {
    match result {
        Ok(replies) => {
            assert_eq!(replies.len(), batch.len(), "apply answers every operation of an entry");
            for (proposal, reply) in batch.into_iter().zip(replies) {
                // A caller that gave up waiting does not need its reply.
                let _ = proposal.reply.send(Ok(reply));
            }
        }
        Err(error) => {
            for proposal in batch {
                let _ = proposal.reply.send(Err(error));
            }
        }
    }
}

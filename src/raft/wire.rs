//! The messages between the replicas of a group, and their bytes.
//!
//! Owns the encoding alone; `network.rs` sends, `serve.rs` answers. Variants are append-only: another release may be at the
//! other end.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::type_config::alias::{LogIdOf, StoredMembershipOf, VoteOf};
use serde::{Deserialize, Serialize};

use crate::core::record::{self, RecordError};
use crate::id::GroupId;
use crate::raft::types::{Payload, TypeConfig};

const MESSAGE_V1: u8 = 1;

/// What one replica asks of another.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Entries, or none as a heartbeat.
    Append(AppendEntriesRequest<TypeConfig>),
    /// A candidate asks for a vote.
    Vote(VoteRequest<TypeConfig>),
    /// A replica asks whether it would get the vote.
    PreVote(VoteRequest<TypeConfig>),
    /// The leader wants the receiver to lead.
    Transfer(TransferLeaderRequest<TypeConfig>),
    /// The next chunk of a snapshot, in order.
    Chunk(Payload),
    /// The snapshot is complete: install it.
    Install {
        /// The sender's vote.
        vote: VoteOf<TypeConfig>,
        /// Last entry in the snapshot.
        last: Option<LogIdOf<TypeConfig>>,
        /// Membership at that entry.
        membership: StoredMembershipOf<TypeConfig>,
    },
    /// A node with a copy asks the leader whether it is needed no more.
    Dismissed,
}

/// What it is told.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Request::Append`].
    Append(AppendEntriesResponse<TypeConfig>),
    /// To [`Request::Vote`] and [`Request::PreVote`].
    Vote(VoteResponse<TypeConfig>),
    /// To [`Request::Transfer`].
    Transfer(TransferLeaderResponse<TypeConfig>),
    /// To [`Request::Chunk`]: it is stored.
    Stored,
    /// To [`Request::Install`].
    Installed(SnapshotResponse<TypeConfig>),
    /// The receiver could not do it; nothing was done.
    Failed(String),
    /// To [`Request::Dismissed`]: whether the receiver leads the group, and its members are, for good, without the sender.
    Dismissed(bool),
    /// To [`Request::Install`]: it goes on, and so many pieces of it are done. To be asked again.
    Installing(u64),
}

/// The bytes of a request to a group.
pub fn encode_request(group: GroupId, request: &Request) -> Bytes {
    record::versioned(MESSAGE_V1, &(group, request)).into()
}

/// Reads a request.
pub fn decode_request(bytes: &[u8]) -> Result<(GroupId, Request), RecordError> {
    record::decode("raft request", MESSAGE_V1, bytes)
}

/// The bytes of an answer.
pub fn encode_answer(answer: &Answer) -> Bytes {
    record::versioned(MESSAGE_V1, answer).into()
}

/// Reads an answer.
pub fn decode_answer(bytes: &[u8]) -> Result<Answer, RecordError> {
    record::decode("raft answer", MESSAGE_V1, bytes)
}

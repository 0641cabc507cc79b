//! openraft's errors in this product's words: node ids as they are shown everywhere, and nothing that only its authors can read.

use openraft::errors::{ChangeMembershipError, ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError};

use crate::id::{NodeHex, nodes_text};
use crate::raft::types::TypeConfig;

/// Why a change of members was not made.
pub(super) fn change(error: &RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> String {
    match error.api_error() {
        None => stopped(error),
        Some(ClientWriteError::ForwardToLeader(other)) => elsewhere(other),
        Some(ClientWriteError::LogEntryDiscarded(other)) => {
            format!("whether it was made is not known: {}", elsewhere(other))
        }
        Some(ClientWriteError::ChangeMembershipError(error)) => match error {
            ChangeMembershipError::InProgress(_) => "another change of members is not finished".to_owned(),
            ChangeMembershipError::LearnerNotFound(missing) => {
                format!("node {} holds no copy yet", NodeHex(missing.node_id))
            }
            error => error.to_string(),
        },
        Some(error) => error.to_string(),
    }
}

/// Why this node cannot prove that it leads.
pub(super) fn read(error: &RaftError<TypeConfig, LinearizableReadError<TypeConfig>>) -> String {
    match error.api_error() {
        None => stopped(error),
        Some(LinearizableReadError::ForwardToLeader(other)) => elsewhere(other),
        Some(LinearizableReadError::QuorumNotEnough(few)) => {
            format!("no majority answers; those that do: {}", nodes_text(&few.got))
        }
    }
}

fn elsewhere(other: &ForwardToLeader<TypeConfig>) -> String {
    match other.leader_id {
        Some(node) => format!("this node does not lead the group: {} does", NodeHex(node)),
        None => "this node does not lead the group, and no leader is known".to_owned(),
    }
}

fn stopped<E: std::fmt::Display>(error: &RaftError<TypeConfig, E>) -> String {
    format!("the group has stopped on this node: {error}")
}

#[cfg(test)]
mod tests {
    use openraft::errors::{ForwardReason, QuorumNotEnough};

    use super::*;

    fn forward(leader_id: Option<u64>) -> ForwardToLeader<TypeConfig> {
        ForwardToLeader {
            leader_id,
            leader_node: None,
            reason: ForwardReason::NotLeader,
        }
    }

    #[test]
    fn nodes_are_shown_in_hexadecimal() {
        let told = change(&RaftError::APIError(forward(Some(0xbeef)).into()));
        assert!(told.contains("000000000000beef does"), "{told}");
        let told = read(&RaftError::APIError(forward(None).into()));
        assert!(told.contains("no leader is known"), "{told}");
        let few = QuorumNotEnough {
            cluster: String::new(),
            got: [10].into(),
        };
        let told = read(&RaftError::APIError(few.into()));
        assert!(told.contains("000000000000000a"), "{told}");
    }
}

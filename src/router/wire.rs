//! The messages by which a node hands a client's call to the node that leads the task's group, and their bytes.
//!
//! Variants are append-only: another release may be at the other end.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::core::command::Reply;
use crate::core::record::{self, RecordError, raw_bytes};
use crate::id::{GroupId, NodeId, TaskId};

const MESSAGE_V1: u8 = 1;

/// What the accepting node asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request<'a> {
    /// Put this operation into the group's log.
    Propose {
        /// The group.
        group: GroupId,
        /// The encoded operation.
        #[serde(borrow, serialize_with = "raw_bytes")]
        op: &'a [u8],
    },
    /// Read a task, linearizably.
    Read {
        /// The task.
        id: TaskId,
    },
    /// Read a task as the receiver's copy has it.
    ReadStale {
        /// The task.
        id: TaskId,
    },
    /// Read tasks of a group, linearizably.
    Page {
        /// The group.
        group: GroupId,
        /// The row to begin at; empty for the first.
        #[serde(borrow, serialize_with = "raw_bytes")]
        from: &'a [u8],
    },
}

/// What the leading node answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer<'a> {
    /// The operation is applied.
    Reply(Reply),
    /// The task, as encoded spec and state; `None` if there is none.
    #[serde(borrow)]
    Task(Option<(&'a [u8], &'a [u8])>),
    /// Not done: another node leads.
    NotLeader {
        /// Which one, as far as is known there.
        leader: Option<NodeId>,
    },
    /// Not done: too many operations are waiting there.
    Overloaded,
    /// It may have been done.
    Unknown,
    /// Not done, for the reason told.
    Failed(&'a str),
    /// Not done: what room the disk has there is kept for what must go on.
    DiskReserve,
    /// Tasks, each as encoded spec and state, and the row to go on at, if there are more.
    Page {
        /// The tasks.
        #[serde(borrow)]
        tasks: Vec<(&'a [u8], &'a [u8])>,
        /// The next row.
        next: Option<&'a [u8]>,
    },
}

/// The bytes of a message.
pub(super) fn encode<T: Serialize>(message: &T) -> Bytes {
    record::versioned(MESSAGE_V1, message).into()
}

/// Reads a message.
pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, RecordError> {
    record::decode("router message", MESSAGE_V1, bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes
            .iter()
            .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }

    #[test]
    fn bytes_are_frozen() {
        let propose = Request::Propose {
            group: GroupId(300),
            op: b"op",
        };
        assert_eq!(hex(&encode(&propose)), "0100ac02026f70");
        let id = TaskId::parse("a-1").expect("valid");
        assert_eq!(hex(&encode(&Request::Read { id: id.clone() })), "010103612d31");
        assert_eq!(hex(&encode(&Request::ReadStale { id })), "010203612d31");
        let page = Request::Page {
            group: GroupId(3),
            from: b"r",
        };
        assert_eq!(hex(&encode(&page)), "0103030172");
        let answers = [
            (Answer::Reply(Reply::Done), "010000"),
            (Answer::Task(Some((b"s", b"t"))), "01010101730174"),
            (Answer::NotLeader { leader: Some(9) }, "01020109"),
            (Answer::Overloaded, "0103"),
            (Answer::Unknown, "0104"),
            (Answer::Failed("no"), "0105026e6f"),
            (Answer::DiskReserve, "0106"),
            (
                Answer::Page {
                    tasks: vec![(b"s", b"t")],
                    next: Some(b"n"),
                },
                "0107010173017401016e",
            ),
        ];
        for (answer, bytes) in answers {
            assert_eq!(hex(&encode(&answer)), bytes);
            assert_eq!(decode::<Answer<'_>>(&encode(&answer)), Ok(answer));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<Request<'_>>(&bytes);
            let _ = decode::<Answer<'_>>(&bytes);
        }
    }
}

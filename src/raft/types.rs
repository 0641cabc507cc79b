//! The types that openraft is told to work with, and the bytes of an entry in the log.

use std::fmt;

use bytes::Bytes;
use openraft::type_config::alias::EntryOf;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::core::command::Reply;
use crate::core::record::{self, RecordError};
use crate::raft::runtime::GridRuntime;

openraft::declare_raft_types!(
    /// Membership stores node ids only: addresses come from gossip.
    pub TypeConfig: D = Payload, R = Replies, Node = openraft::EmptyNode, AsyncRuntime = GridRuntime,
);

/// An entry as openraft hands it around.
pub type Entry = EntryOf<TypeConfig>;

const ENTRY_V1: u8 = 1;

/// The encoded operations of one entry (`core::command`): encoded once, by whoever proposed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload(pub Bytes);

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BytesVisitor;
        impl Visitor<'_> for BytesVisitor {
            type Value = Payload;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Payload, E> {
                Ok(Payload(Bytes::copy_from_slice(bytes)))
            }
        }
        deserializer.deserialize_bytes(BytesVisitor)
    }
}

/// One reply per operation of the entry, in order; empty for entries without operations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replies(pub Vec<Reply>);

/// Encodes an entry for the log.
pub fn encode_entry(entry: &Entry) -> Bytes {
    Bytes::from(record::versioned(ENTRY_V1, entry))
}

/// Decodes an entry of the log.
pub fn decode_entry(bytes: &[u8]) -> Result<Entry, RecordError> {
    record::decode("log entry", ENTRY_V1, bytes)
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use openraft::entry::RaftEntry;
    use openraft::type_config::alias::LogIdOf;
    use openraft::vote::RaftLeaderIdExt;

    use super::*;

    #[test]
    fn entry_bytes_are_frozen() {
        let leader = openraft::alias::LeaderIdOf::<TypeConfig>::new_committed(3, 7);
        let id = LogIdOf::<TypeConfig>::new(leader, 9);
        let entry = Entry::new(id, EntryPayload::Normal(Payload(Bytes::from_static(b"ops"))));
        let bytes = encode_entry(&entry);
        assert_eq!(bytes.as_ref(), [1, 3, 7, 9, 1, 3, b'o', b'p', b's']);
        assert_eq!(decode_entry(&bytes).expect("just encoded"), entry);
    }
}

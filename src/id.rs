//! Identities: task ids and their keys, shards, groups, nodes, fires. Pure values and the stable hashes between them.
//!
//! The hashes here decide where every stored byte lives: they are frozen, and golden tests hold them.
//! They are SHA-256 cut to 128 bits, so that nobody can make two ids share a key on purpose.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::limits::{SHARDS, TASK_ID_BYTES_MAX};

/// A task's name: 1 to 64 of `[A-Za-z0-9._:-]`, made by the accepting node or given by the client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId(Box<str>);

/// Why a text is not a task id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskIdError {
    /// Empty, or longer than [`TASK_ID_BYTES_MAX`].
    #[error("task_id must have 1 to {TASK_ID_BYTES_MAX} characters")]
    Length,
    /// A character outside `[A-Za-z0-9._:-]`.
    #[error("task_id may hold only letters, digits and . _ : -")]
    Character,
}

impl TaskId {
    /// Checks a client's text.
    pub fn parse(text: &str) -> Result<Self, TaskIdError> {
        if text.is_empty() || text.len() > TASK_ID_BYTES_MAX {
            return Err(TaskIdError::Length);
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        if !text.bytes().all(allowed) {
            return Err(TaskIdError::Character);
        }
        Ok(Self(text.into()))
    }

    /// Makes a fresh id (UUIDv7) from the caller's clock and entropy: this module reads neither.
    pub fn generate(wall_ms: u64, random: [u8; 10]) -> Self {
        let id = uuid::Builder::from_unix_timestamp_millis(wall_ms, &random).into_uuid();
        Self(id.to_string().into())
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 128-bit key under which everything about the task is stored.
    pub fn key(&self) -> TaskKey {
        let digest = Sha256::digest(self.0.as_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        TaskKey(key)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The 128-bit hash of a task id's text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskKey(pub [u8; 16]);

impl TaskKey {
    /// The shard that owns this key.
    pub fn shard(self) -> Shard {
        let shard = u128::from_be_bytes(self.0) % u128::from(SHARDS);
        Shard(u16::try_from(shard).expect("a remainder of SHARDS fits u16"))
    }
}

impl fmt::Debug for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// One of [`SHARDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub u16);

/// A Raft group's number, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId(pub u16);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The number of groups of a cluster, fixed at its birth: a divisor of [`SHARDS`], so every group owns equally many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupCount(u16);

impl GroupCount {
    /// `None` unless `count` divides [`SHARDS`].
    pub fn new(count: u16) -> Option<Self> {
        (count != 0 && SHARDS.is_multiple_of(count)).then_some(Self(count))
    }

    /// How many groups there are.
    pub fn get(self) -> u16 {
        self.0
    }

    /// The group whose contiguous range of shards holds `shard`.
    pub fn group_of(self, shard: Shard) -> GroupId {
        GroupId(shard.0 / (SHARDS / self.0))
    }

    /// Every group, in order.
    pub fn iter(self) -> impl Iterator<Item = GroupId> {
        (0..self.0).map(GroupId)
    }

    /// The shards of `group`: first, and first beyond.
    pub fn shards_of(self, group: GroupId) -> std::ops::Range<u16> {
        let width = SHARDS / self.0;
        group.0 * width..(group.0 + 1) * width
    }
}

/// A node's id: made once, kept in its data directory, never used again after that directory is gone.
pub type NodeId = u64;

/// A node's id as it is shown everywhere: 16 hexadecimal digits, in log lines as in tables, metrics and errors.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NodeHex(pub NodeId);

impl fmt::Display for NodeHex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeHex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Several nodes' ids, as they are shown.
pub fn nodes_text<'a>(nodes: impl IntoIterator<Item = &'a NodeId>) -> String {
    let texts: Vec<String> = nodes.into_iter().map(|node| NodeHex(*node).to_string()).collect();
    texts.join(" ")
}

/// The name of one fire (task, revision, due): the same for each of its attempts, sent as `webhook-id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FireId([u8; 16]);

impl FireId {
    /// Derives the id; two fires share one only if all three parts are equal.
    pub fn new(key: TaskKey, revision: u32, due_ms: u64) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(key.0);
        hasher.update(revision.to_be_bytes());
        hasher.update(due_ms.to_be_bytes());
        let digest = hasher.finalize();
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        Self(id)
    }
}

impl fmt::Display for FireId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Which start of a node's process this is: counted in its directory, with a random number that tells two starts of one count
/// apart, of which one began from an older copy of the directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// 1 for the first; 0: nothing is known.
    pub counter: u64,
    /// Drawn anew at each start.
    pub nonce: u64,
}

/// How far a node has come: in its own directory, or as another node has last heard of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Its newest start.
    pub start: Start,
    /// Number of the last frame of its log that is on its disk; 0: not known.
    pub log: u64,
}

impl Progress {
    /// Whether a node that is here has been seen further on: it runs on an older copy of its directory.
    ///
    /// Within one start the log is not compared: what was seen on one connection may overtake what is said on another.
    pub fn is_behind(self, seen: Self) -> bool {
        let is_same = seen.start == self.start;
        let is_forgotten = seen.start.counter >= self.start.counter && !is_same;
        is_forgotten || (!is_same && self.log != 0 && seen.log > self.log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_frozen() {
        let key = TaskId::parse("order-1").expect("valid").key();
        assert_eq!(format!("{key:?}"), "0bafe22156d2698c143b86040446d366");
        assert_eq!(key.shard(), Shard(870));
        assert_eq!(
            FireId::new(key, 1, 1_772_323_200_000).to_string(),
            "a037969387e65d81c692da75d980e3b0"
        );
    }

    #[test]
    fn every_shard_belongs_to_exactly_one_group() {
        for count in [1, 32, 64, 10_240] {
            let groups = GroupCount::new(count).expect("a divisor");
            let mut owned = 0;
            for group in groups.iter() {
                for shard in groups.shards_of(group) {
                    assert_eq!(groups.group_of(Shard(shard)), group);
                    owned += 1;
                }
            }
            assert_eq!(owned, SHARDS);
        }
        assert_eq!(GroupCount::new(33), None);
        assert_eq!(GroupCount::new(0), None);
    }

    #[test]
    fn a_node_is_shown_by_all_its_digits() {
        assert_eq!(NodeHex(0x2a).to_string(), "000000000000002a");
        assert_eq!(format!("{:?}", NodeHex(u64::MAX)), "ffffffffffffffff");
        assert_eq!(nodes_text(&[1, 0xabc]), "0000000000000001 0000000000000abc");
    }

    #[test]
    fn task_ids_are_checked() {
        assert!(TaskId::parse("a.b_c:d-9").is_ok());
        assert_eq!(TaskId::parse(""), Err(TaskIdError::Length));
        assert_eq!(TaskId::parse(&"x".repeat(65)), Err(TaskIdError::Length));
        assert_eq!(TaskId::parse("a b"), Err(TaskIdError::Character));
        assert_eq!(TaskId::parse("ü"), Err(TaskIdError::Character));
    }

    #[test]
    fn a_generated_id_is_a_uuid_v7_and_valid() {
        let id = TaskId::generate(1_772_323_200_000, [7; 10]);
        assert_eq!(TaskId::parse(id.as_str()), Ok(id.clone()));
        assert_eq!(id.as_str().as_bytes()[14], b'7');
    }

    #[test]
    fn an_older_copy_of_a_node_is_behind_what_was_seen_of_it() {
        let at = |counter, nonce, log| Progress {
            start: Start { counter, nonce },
            log,
        };
        let seen = at(7, 70, 1_000);
        for (own, is_behind, why) in [
            (at(8, 80, 1_000), false, "the next start"),
            (at(7, 70, 1_000), false, "the same start"),
            (at(7, 70, 999), false, "the same start, whose words were overtaken"),
            (at(9, 90, 2_000), false, "later ones were not seen"),
            (at(6, 60, 1_000), true, "an earlier start"),
            (at(7, 71, 1_000), true, "another start of the same count"),
            (at(8, 80, 999), true, "its log ends before what it has confirmed"),
            (at(8, 80, 0), false, "how far its log goes is not known yet"),
        ] {
            assert_eq!(own.is_behind(seen), is_behind, "{why}");
        }
        assert!(!at(1, 5, 3).is_behind(Progress::default()), "nothing was seen");
    }
}

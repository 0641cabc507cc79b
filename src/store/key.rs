//! Every key layout of the state: the one place that knows how a key's bytes are put together.
//!
//! All numbers are big-endian, so that byte order is number order. The layouts are stored: they never change, and golden
//! tests hold them. Values are `core/record.rs`.

use crate::core::machine::{DueEntry, Wake};
use crate::core::target::Target;
use crate::id::{GroupId, TaskKey};

/// A table of the state. The ordinals and names are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// `shard u16 | key 16` -> spec record.
    Spec = 0,
    /// `shard u16 | key 16` -> state record.
    State = 1,
    /// `group u16 | at_ms u64 | key 16` -> `wake u8 | target 16`.
    Due = 2,
}

impl Table {
    /// Every table, in order.
    pub const ALL: [Self; 3] = [Self::Spec, Self::State, Self::Due];

    /// The name it is stored under.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spec => "spec",
            Self::State => "state",
            Self::Due => "due",
        }
    }
}

/// Above every shard and group number, so that no task's key begins like this.
const RESERVED: u16 = 0xffff;

/// A fact about a group that is kept beside its rows. The ordinals are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fact {
    /// The position in the group's log up to which a table holds every change; in every table.
    Applied = 1,
    /// Below this instant the group has no due-index entry; in the due table.
    LowWater = 2,
    /// A snapshot is being installed: the group's rows are not whole; in the state table.
    Installing = 3,
    /// A copy of the group was let go, or is being removed, and what it had promised; in the state table.
    Departed = 4,
}

/// Key of a spec or a state.
pub fn task(key: TaskKey) -> [u8; 18] {
    let mut bytes = [0; 18];
    bytes[..2].copy_from_slice(&key.shard().0.to_be_bytes());
    bytes[2..].copy_from_slice(&key.0);
    bytes
}

/// Undoes [`task`]; `None` if these are not the bytes of a task's key.
pub fn parse_task(bytes: &[u8]) -> Option<TaskKey> {
    Some(TaskKey(bytes.get(2..)?.try_into().ok()?))
}

/// First possible key of a shard.
pub fn shard(shard: u16) -> [u8; 2] {
    shard.to_be_bytes()
}

/// Key of a due-index entry.
pub fn due(group: GroupId, at_ms: u64, key: TaskKey) -> [u8; 26] {
    let mut bytes = [0; 26];
    bytes[..2].copy_from_slice(&group.0.to_be_bytes());
    bytes[2..10].copy_from_slice(&at_ms.to_be_bytes());
    bytes[10..].copy_from_slice(&key.0);
    bytes
}

/// First possible due-index key of a group at an instant.
pub fn due_from(group: GroupId, at_ms: u64) -> [u8; 26] {
    due(group, at_ms, TaskKey([0; 16]))
}

/// Key of a fact about a group.
pub fn fact(fact: Fact, group: GroupId) -> [u8; 5] {
    let mut bytes = [0; 5];
    bytes[..2].copy_from_slice(&RESERVED.to_be_bytes());
    bytes[2] = fact as u8;
    bytes[3..].copy_from_slice(&group.0.to_be_bytes());
    bytes
}

/// Undoes [`due`]; `None` if these are not the bytes of a due-index key.
pub fn parse_due(bytes: &[u8]) -> Option<(GroupId, u64, TaskKey)> {
    let group = u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?);
    let at_ms = u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?);
    let key = bytes.get(10..)?.try_into().ok()?;
    Some((GroupId(group), at_ms, TaskKey(key)))
}

/// The stored value of a due-index entry.
pub fn due_entry(entry: DueEntry) -> [u8; 17] {
    let mut bytes = [entry.wake as u8; 17];
    bytes[1..].copy_from_slice(&entry.target.0);
    bytes
}

/// Undoes [`due_entry`].
pub fn parse_due_entry(bytes: &[u8]) -> Option<DueEntry> {
    let (kind, target) = bytes.split_first()?;
    let wake = [Wake::Fire, Wake::Retry, Wake::Expire]
        .into_iter()
        .find(|wake| *wake as u8 == *kind)?;
    Some(DueEntry {
        wake,
        target: Target(target.try_into().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::SHARDS;

    #[test]
    fn layouts_are_frozen() {
        let key = TaskKey([0xab; 16]);
        assert_eq!(task(key)[..2], key.shard().0.to_be_bytes());
        assert_eq!(task(key)[2..], [0xab; 16]);
        assert_eq!(parse_task(&task(key)), Some(key));
        assert_eq!(parse_task(&task(key)[..17]), None);
        assert_eq!(due(GroupId(258), 3, key)[..10], [1, 2, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(fact(Fact::LowWater, GroupId(7)), [0xff, 0xff, 2, 0, 7]);
        for (wake, ordinal) in [(Wake::Fire, 1), (Wake::Retry, 2), (Wake::Expire, 3)] {
            let entry = DueEntry {
                wake,
                target: Target([0xb0; 16]),
            };
            assert_eq!(due_entry(entry)[0], ordinal);
            assert_eq!(due_entry(entry)[1..], [0xb0; 16]);
            assert_eq!(parse_due_entry(&due_entry(entry)), Some(entry));
        }
        assert_eq!(parse_due_entry(&[9; 17]), None);
        const { assert!(SHARDS < RESERVED) };
    }

    proptest! {
        #[test]
        fn due_keys_come_back_and_sort_by_time(
            group in 0..SHARDS, a in any::<(u64, [u8; 16])>(), b in any::<(u64, [u8; 16])>(),
        ) {
            let group = GroupId(group);
            let (one, two) = (due(group, a.0, TaskKey(a.1)), due(group, b.0, TaskKey(b.1)));
            prop_assert_eq!(parse_due(&one), Some((group, a.0, TaskKey(a.1))));
            prop_assert_eq!(one.cmp(&two), a.cmp(&b));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(parse_due(&bytes).is_some(), bytes.len() == 26);
        }
    }
}

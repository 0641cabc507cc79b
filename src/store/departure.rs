//! Removes the rows of a group whose copy on this node is let go, so that a node that dies half way finishes it at its next
//! start, and keeps what that copy had promised for the time when the group comes back.
//!
//! The promise is opaque: `raft/leave.rs` knows what is in it, and removes the log.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::blocking::Blocking;
use crate::core::record;
use crate::id::{GroupCount, GroupId};
use crate::store::group::{GroupStore, StoreError};
use crate::store::key::{self, Fact, Table};
use crate::store::kv::{Kv, Write};

const DEPARTURE_V1: u8 = 1;

/// A copy that was let go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    /// Nothing is left of it.
    pub is_done: bool,
    /// What it had promised.
    pub promised: Vec<u8>,
}

/// The group's last departure from this node, if there was one.
pub fn load(kv: &dyn Kv, group: GroupId) -> Result<Option<Departure>, StoreError> {
    let row = kv.get(Table::State, &key::fact(Fact::Departed, group))?;
    let decode = |bytes: &[u8]| {
        record::decode("departure", DEPARTURE_V1, bytes).map_err(|error| StoreError::Record { group, error })
    };
    row.map(|bytes| decode(&bytes)).transpose()
}

/// Keeps the departure, on disk when this completes.
pub async fn keep(kv: &dyn Kv, group: GroupId, departure: &Departure) -> Result<(), StoreError> {
    kv.commit(vec![Write {
        table: Table::State,
        key: key::fact(Fact::Departed, group).to_vec(),
        value: Some(record::versioned(DEPARTURE_V1, departure)),
    }])?;
    Ok(kv.persist().await?)
}

/// Removes every row and fact of the group but its departure, on disk when this completes. Nobody else may write them. In short
/// pieces of work: others want the disk as well, nobody waits for this.
pub async fn remove(
    kv: &Arc<dyn Kv>,
    groups: GroupCount,
    group: GroupId,
    blocking: &Arc<dyn Blocking>,
) -> Result<(), StoreError> {
    let store = Arc::new(GroupStore::unchecked(kv.clone(), groups, group));
    for table in Table::ALL {
        let mut from = Some(Vec::new());
        while let Some(next) = from {
            let store = store.clone();
            from = blocking.run(move || store.remove_rows(table, next)).await?;
        }
    }
    blocking.run(move || remove_facts(&store)).await?;
    Ok(kv.persist().await?)
}

fn remove_facts(store: &GroupStore) -> Result<(), StoreError> {
    let facts = [Fact::Applied, Fact::LowWater, Fact::Installing];
    let facts = facts
        .into_iter()
        .flat_map(|fact| Table::ALL.map(|table| (table, key::fact(fact, store.group()))));
    let remove = |(table, key): (Table, [u8; 5])| Write {
        table,
        key: key.to_vec(),
        value: None,
    };
    Ok(store.kv().commit(facts.map(remove).collect())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocking::Threads;
    use crate::core::machine::GroupState;
    use crate::store::GroupMeta;
    use crate::store::fjall_kv::FjallKv;

    /// Rows of tasks; facts stand above them.
    fn rows(kv: &dyn Kv) -> usize {
        let all = |table| kv.scan(table, &[0], &[0xff], 1_000_000).expect("readable").len();
        Table::ALL.into_iter().map(all).sum()
    }

    #[tokio::test]
    async fn everything_of_the_group_goes_and_nothing_of_its_neighbours() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let kv: Arc<dyn Kv> = Arc::new(FjallKv::open(directory.path(), 8 << 20, 900).expect("an empty store"));
        let groups = GroupCount::new(32).expect("a divisor");
        let meta = GroupMeta {
            applied: vec![7],
            state: GroupState::default(),
        };
        for group in [GroupId(2), GroupId(3), GroupId(4)] {
            let store = GroupStore::unchecked(kv.clone(), groups, group);
            kv.commit(store.meta_writes(&meta).to_vec()).expect("there is room");
            for shard in groups.shards_of(group) {
                let key = [&key::shard(shard)[..], &[9; 16]].concat();
                let put = |table, key| Write {
                    table,
                    key,
                    value: Some(vec![1]),
                };
                let due = key::due(group, u64::from(shard), crate::id::TaskKey([9; 16])).to_vec();
                let writes = vec![
                    put(Table::Spec, key.clone()),
                    put(Table::State, key),
                    put(Table::Due, due),
                ];
                kv.commit(writes).expect("there is room");
            }
        }
        let before = rows(kv.as_ref());
        let blocking: Arc<dyn Blocking> = Arc::new(Threads::start().expect("threads"));
        let departure = Departure {
            is_done: false,
            promised: vec![1, 2],
        };
        keep(kv.as_ref(), GroupId(3), &departure).await.expect("there is room");
        remove(&kv, groups, GroupId(3), &blocking).await.expect("there is room");
        assert_eq!(before - rows(kv.as_ref()), 3 * groups.shards_of(GroupId(3)).len());
        assert_eq!(load(kv.as_ref(), GroupId(3)).expect("readable"), Some(departure));
        let (_, empty) = GroupStore::open(kv.clone(), groups, GroupId(3)).expect("undamaged");
        assert_eq!(empty, GroupMeta::default());
        let (_, kept) = GroupStore::open(kv.clone(), groups, GroupId(4)).expect("undamaged");
        assert_eq!(kept, meta);
    }
}

//! The state of a node as its store holds it, read without the product's own readers: they would skip what they do not expect.

use std::collections::BTreeMap;

use xcron::core::record;
use xcron::core::task::{TaskSpec, TaskState};
use xcron::id::{GroupCount, GroupId};
use xcron::store::GroupMeta;
use xcron::store::key::{self, Fact, Table};
use xcron::store::kv::{ReadKv, Row};

use super::position::Position;

/// Rows of one scan.
const PAGE: usize = 1_024;

/// A running node at the end of a run.
#[derive(Clone, Debug)]
pub struct NodeState {
    /// Which machine.
    pub node: usize,
    /// The node's id.
    pub node_id: u64,
    /// The groups it holds.
    pub groups: Vec<GroupView>,
}

/// A group as one node holds it.
#[derive(Clone, Debug, Default)]
pub struct GroupView {
    /// The group.
    pub group: u16,
    /// The position in its log, encoded by the product.
    pub applied: Vec<u8>,
    /// The fencing token.
    pub generation: u64,
    /// Who leads in this generation.
    pub leader: Option<u64>,
    /// The digest of the state.
    pub digest: u64,
    /// Tasks by key.
    pub tasks: BTreeMap<[u8; 16], (Option<TaskSpec>, TaskState)>,
    /// The due index: instant, key, ordinal of the wake; in order.
    pub dues: Vec<(u64, [u8; 16], u8)>,
    /// Below this instant the index is said to be empty.
    pub low_water_ms: u64,
}

impl GroupView {
    /// The position in the log.
    pub fn position(&self) -> Option<Position> {
        Position::decode(&self.applied).ok().flatten()
    }
}

/// Decodes what is stored about a group as a whole.
pub fn meta(bytes: &[u8]) -> Option<GroupMeta> {
    record::decode("group meta", *bytes.first()?, bytes).ok()
}

/// Every group that a node's store holds.
///
/// Panics on a row that cannot be read: no fault of a run may leave one in the store of a node that serves.
pub fn read(kv: &dyn ReadKv, groups: GroupCount) -> Vec<GroupView> {
    groups
        .iter()
        .filter_map(|group| read_group(kv, groups, group))
        .collect()
}

fn read_group(kv: &dyn ReadKv, groups: GroupCount, group: GroupId) -> Option<GroupView> {
    let get = |table, fact| {
        kv.get(table, &key::fact(fact, group))
            .expect("a serving node's store can be read")
    };
    let is_leaving = get(Table::State, Fact::Departed).is_some_and(|bytes| bytes.get(1) == Some(&0));
    if is_leaving || get(Table::State, Fact::Installing).is_some() {
        // Half removed, or half there: not a copy that anybody uses.
        return None;
    }
    let meta = meta(&get(Table::State, Fact::Applied)?).expect("the store's facts of a group decode");
    let low_water = get(Table::Due, Fact::LowWater);
    let low_water = low_water.and_then(|bytes| bytes.as_ref().try_into().ok().map(u64::from_be_bytes));
    let shards = groups.shards_of(group);
    let (from, to) = (key::shard(shards.start), key::shard(shards.end));
    let mut specs = BTreeMap::new();
    for (row, value) in rows(kv, Table::Spec, &from, &to) {
        let spec = record::decode_spec(&value).expect("a stored spec decodes");
        specs.insert(task_key(&row), spec);
    }
    let mut tasks = BTreeMap::new();
    for (row, value) in rows(kv, Table::State, &from, &to) {
        let key = task_key(&row);
        let state = record::decode_state(&value).expect("a stored state decodes");
        tasks.insert(key, (specs.remove(&key), state));
    }
    assert!(specs.is_empty(), "group {group}: specs without a state: {specs:?}");
    let (from, to) = (key::due_from(group, 0), key::due_from(GroupId(group.0 + 1), 0));
    let dues = rows(kv, Table::Due, &from, &to).into_iter().map(|(row, value)| {
        let (_, at_ms, key) = key::parse_due(&row).expect("keys of the due index have one layout");
        let entry = key::parse_due_entry(&value).expect("entries of the due index decode");
        (at_ms, key.0, entry.wake as u8)
    });
    Some(GroupView {
        group: group.0,
        applied: meta.applied,
        generation: meta.state.generation,
        leader: meta.state.leader,
        digest: meta.state.digest,
        tasks,
        dues: dues.collect(),
        low_water_ms: low_water.unwrap_or(0),
    })
}

fn task_key(row: &[u8]) -> [u8; 16] {
    row[2..].try_into().expect("a shard and 16 bytes of a key")
}

/// Every row from `from` on and before `to`.
fn rows(kv: &dyn ReadKv, table: Table, from: &[u8], to: &[u8]) -> Vec<Row> {
    let mut all = Vec::new();
    let mut from = from.to_vec();
    loop {
        let page = kv
            .scan(table, &from, to, PAGE)
            .expect("a serving node's store can be read");
        let is_last = page.len() < PAGE;
        all.extend(page);
        let Some((last, _)) = all.last().filter(|_| !is_last) else {
            return all;
        };
        from = [last.as_ref(), &[0]].concat();
    }
}

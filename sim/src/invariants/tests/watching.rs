//! The checker of commits, the reader of stores, the story, and the list of all invariants.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use xcron::core::machine::{DueEntry, GroupState, Wake};
use xcron::core::record;
use xcron::core::target::Target;
use xcron::core::task::TaskState;
use xcron::id::{GroupCount, GroupId, TaskId};
use xcron::store::GroupMeta;
use xcron::store::key::{self, Fact, Table};
use xcron::store::kv::{KvError, ReadKv, Row, Write};

use super::{cron, good, spec, wall};
use crate::invariants::{ALL, Commits, Position, low_water, read, story};

/// A stored position: term, node and index as varints, and some membership.
fn at(term: u8, index: u8) -> Vec<u8> {
    vec![1, 1, term, 9, index, 0, 0, 7]
}

#[test]
fn positions_are_read() {
    let long = [&[1, 1, 2, 0xac, 0x02][..], &[0xff; 9], &[1, 0]].concat();
    let position = |index, term, node| Ok(Some(Position { index, term, node }));
    assert_eq!(Position::decode(&long), position(u64::MAX, 2, 300));
    assert_eq!(Position::decode(&at(3, 5)), position(5, 3, 9));
    assert_eq!(Position::decode(&[]), Ok(None));
    assert_eq!(Position::decode(&[1, 0, 5]), Ok(None));
    assert!(Position::decode(&[2, 1, 1, 1, 1]).is_err(), "another version");
    assert!(Position::decode(&[1, 1, 1, 0x80]).is_err(), "cut");
}

#[test]
fn commits_that_disagree_are_found() {
    let commit = |commits: &mut Commits, node, applied: &[u8], generation, leader, digest| {
        let found = commits.committed(node, 0, applied, generation, Some(leader), digest);
        found.map(|violation| violation.invariant)
    };
    let (owner, state) = (Some("I13 one owner"), Some("I17 replicas agree"));
    for (what, node, applied, generation, leader, digest, verdict) in [
        ("the same on another node", 1, at(1, 5), 1, 9, 50, None),
        ("back after a power cut", 0, at(1, 3), 1, 9, 30, None),
        ("a batch that ends elsewhere", 1, at(1, 4), 1, 9, 40, None),
        ("a new leader", 1, at(2, 6), 2, 8, 60, None),
        ("another digest", 1, at(1, 5), 1, 9, 51, state),
        ("another entry", 1, at(2, 5), 1, 9, 50, state),
        ("another generation", 1, at(1, 5), 2, 9, 50, state),
        ("a generation that goes back", 1, at(1, 6), 0, 9, 60, owner),
        ("a generation ahead of a later entry", 1, at(1, 4), 2, 8, 40, owner),
        ("a term that goes back", 1, at(0, 6), 1, 9, 60, owner),
        ("two leaders", 1, at(1, 6), 1, 8, 60, owner),
    ] {
        let mut commits = Commits::default();
        for index in [3, 5] {
            let digest = u64::from(index) * 10;
            assert_eq!(commit(&mut commits, 0, &at(1, index), 1, 9, digest), None);
        }
        assert_eq!(
            commit(&mut commits, node, &applied, generation, leader, digest),
            verdict,
            "{what}"
        );
    }
    let mut commits = Commits::default();
    assert!(
        commits.committed(0, 0, &[7], 1, None, 0).is_some(),
        "what cannot be read is not passed over"
    );
    assert!(commits.committed(0, 0, &[], 0, None, 0).is_none());
}

/// A store of rows.
struct Rows(BTreeMap<(Table, Vec<u8>), Bytes>);

impl ReadKv for Rows {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(self.0.get(&(table, key.to_vec())).cloned())
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, KvError> {
        let range = (
            Bound::Included((table, from.to_vec())),
            Bound::Excluded((table, to.to_vec())),
        );
        let rows = self.0.range(range).take(limit);
        Ok(rows
            .map(|((_, key), value)| (Bytes::from(key.clone()), value.clone()))
            .collect())
    }
}

#[test]
fn a_store_is_read_whole() {
    let groups = GroupCount::new(2).expect("a divisor");
    let mut rows = Rows(BTreeMap::new());
    let mut put = |table, key: &[u8], value: Vec<u8>| rows.0.insert((table, key.to_vec()), value.into());
    for group in groups.iter() {
        let meta = GroupMeta {
            applied: at(1, 5),
            state: GroupState {
                generation: 4,
                leader: Some(9),
                ..GroupState::default()
            },
        };
        put(
            Table::State,
            &key::fact(Fact::Applied, group),
            record::versioned(1, &meta),
        );
        put(
            Table::Due,
            &key::fact(Fact::LowWater, group),
            77_u64.to_be_bytes().to_vec(),
        );
    }
    let count: u64 = 3_000;
    let entry = DueEntry {
        wake: Wake::Fire,
        target: Target([7; 16]),
    };
    for number in 0..count {
        let task = cron(&format!("task-{number}"));
        let key = TaskId::parse(&task.id).expect("a good id").key();
        let group = groups.group_of(key.shard());
        put(Table::Spec, &key::task(key), record::encode_spec(&spec(&task, 0)));
        put(
            Table::State,
            &key::task(key),
            record::encode_state(&TaskState::new(wall(number), Target([7; 16]))),
        );
        put(
            Table::Due,
            &key::due(group, wall(number), key),
            key::due_entry(entry).to_vec(),
        );
    }
    let views = read(&rows, groups);
    assert_eq!(views.len(), 2);
    assert_eq!(views.iter().map(|view| view.tasks.len() as u64).sum::<u64>(), count);
    assert_eq!(views.iter().map(|view| view.dues.len() as u64).sum::<u64>(), count);
    assert!(
        views
            .iter()
            .all(|view| view.tasks.values().all(|(spec, _)| spec.is_some()))
    );
    assert_eq!(
        (views[1].generation, views[1].leader, views[1].low_water_ms),
        (4, Some(9), 77)
    );
    assert_eq!(views[1].position().map(|position| position.index), Some(5));
    assert_eq!(GroupId(views[1].group), GroupId(1));
}

#[test]
fn a_commit_that_hides_a_due_is_found() {
    let key = TaskId::parse("a").expect("a good id").key();
    let put = |table, key: Vec<u8>, value: Vec<u8>| Write {
        table,
        key,
        value: Some(value),
    };
    let due = put(Table::Due, key::due(GroupId(1), 50, key).to_vec(), vec![1, 0, 0, 0, 7]);
    let mark = |at_ms: u64| {
        let key = key::fact(Fact::LowWater, GroupId(1)).to_vec();
        put(Table::Due, key, at_ms.to_be_bytes().to_vec())
    };
    let looked = |writes: &[Write], low_water_ms: u64| {
        let rows = [due.clone(), mark(low_water_ms)];
        let rows = rows.map(|row| ((row.table, row.key), Bytes::from(row.value.expect("put"))));
        low_water::look(0, writes, &Rows(rows.into_iter().collect())).len()
    };
    for (what, writes, low_water_ms, found) in [
        ("the mark is raised to the due", vec![mark(50)], 50, 0),
        ("the mark is raised over the due", vec![mark(51)], 51, 1),
        ("a due is put at the mark", vec![due.clone()], 50, 0),
        ("a due is put below the mark", vec![due.clone()], 60, 1),
        (
            "something else is put",
            vec![put(Table::State, vec![1], vec![1])],
            60,
            0,
        ),
    ] {
        assert_eq!(looked(&writes, low_water_ms), found, "{what}");
    }
}

#[test]
fn the_story_is_in_order() {
    let mut sample = good();
    sample.fault(41_000, 44_000);
    let text = story(&sample.history, "flaky");
    let places = ["Create(", "attempt 1", "FAULT on all", "attempt 2", "Query(", "the end"].map(|part| text.find(part));
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{text}");
    assert!(story(&sample.history, "nothing").contains("nothing happened"));
}

#[test]
fn every_invariant_has_a_name_of_its_own() {
    let mut names: Vec<_> = ALL.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ALL.len());
}

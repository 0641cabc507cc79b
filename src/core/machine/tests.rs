//! The machine against a plain map: what each operation means, and the laws that hold after any sequence of them.

mod retries;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;

use proptest::prelude::*;

use super::*;
use crate::core::command::Skipped;
use crate::core::task::{Delivery, Schedule};
use crate::id::TaskId;
use crate::limits::{OPEN_FIRES_MAX, OUTCOMES_KEPT};

const TARGET: Target = Target([9; 16]);
const OTHER_TARGET: Target = Target([10; 16]);

/// State, specs and index as the store would hold them after each batch.
#[derive(Default)]
struct Model {
    states: RefCell<BTreeMap<TaskKey, TaskState>>,
    specs: RefCell<BTreeMap<TaskKey, TaskSpec>>,
    dues: RefCell<BTreeMap<(u64, TaskKey), Wake>>,
    group: RefCell<GroupState>,
}

impl View for Model {
    type Error = Infallible;
    fn state(&self, key: TaskKey) -> Result<Option<TaskState>, Infallible> {
        Ok(self.states.borrow().get(&key).cloned())
    }
    fn spec(&self, key: TaskKey) -> Result<Option<TaskSpec>, Infallible> {
        Ok(self.specs.borrow().get(&key).cloned())
    }
}

impl Model {
    fn apply(&self, ops: &[Op<'_>]) -> (Vec<Reply>, Changes) {
        let mut batch = Batch::new(self, *self.group.borrow());
        let replies = ops.iter().map(|op| batch.apply(op).expect("infallible")).collect();
        let (group, changes) = batch.finish();
        *self.group.borrow_mut() = group;
        for (key, value) in &changes.specs {
            let spec = value
                .as_ref()
                .map(|bytes| record::decode_spec(bytes).expect("just encoded"));
            put(&mut self.specs.borrow_mut(), *key, spec);
        }
        for (key, value) in &changes.states {
            let state = value
                .as_ref()
                .map(|bytes| record::decode_state(bytes).expect("just encoded"));
            put(&mut self.states.borrow_mut(), *key, state);
        }
        for due in &changes.dues {
            let at = (due.at_ms, due.key);
            let before = self.dues.borrow().get(&at).copied();
            assert_eq!(before, due.before.map(|entry| entry.wake), "what the index held");
            put(&mut self.dues.borrow_mut(), at, due.after.map(|entry| entry.wake));
        }
        (replies, changes)
    }

    fn one(&self, op: Op<'_>) -> Reply {
        self.apply(&[op]).0[0]
    }

    fn task(&self, id: &str) -> TaskState {
        self.states.borrow()[&key(id)].clone()
    }

    /// Index conservation (I18): the index holds exactly the wakes of all tasks.
    fn check(&self) {
        let mut wanted = BTreeMap::new();
        for (key, state) in self.states.borrow().iter() {
            for (at, wake) in wakes(state) {
                wanted.insert((at, *key), wake);
            }
            let ended = state.delivered + state.failed + state.skipped + state.cancelled;
            assert_eq!(
                state.dues_past,
                ended + state.open.len() as u64 + u64::from(state.claim.is_some()),
                "every due is accounted for: {state:?}"
            );
            assert_eq!(state.life == Life::Pending, state.expire_ms.is_none());
            assert!(state.open.len() <= OPEN_FIRES_MAX && state.outcomes.len() <= OUTCOMES_KEPT);
            assert_eq!(state.life == Life::Deleted, !self.specs.borrow().contains_key(key));
        }
        assert_eq!(*self.dues.borrow(), wanted);
        let rows = self.states.borrow();
        let parts = rows
            .iter()
            .map(|(key, state)| digest_of_row(*key, &record::encode_state(state)));
        let scanned = parts.fold(0, u64::wrapping_add);
        assert_eq!(
            self.group.borrow().digest,
            scanned,
            "the digest is that of a scan (I17)"
        );
        let pending = self
            .states
            .borrow()
            .values()
            .filter(|state| state.life == Life::Pending)
            .count();
        assert_eq!(self.group.borrow().pending, pending as u64);
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

fn key(id: &str) -> TaskKey {
    TaskId::parse(id).expect("valid").key()
}

fn spec(id: &str, url: &str) -> Vec<u8> {
    record::encode_spec(&TaskSpec {
        id: TaskId::parse(id).expect("valid"),
        schedule: Schedule::Once { at_ms: 100 },
        url: url.into(),
        body: b"{}".to_vec(),
        created_ms: 1,
        delivery: Delivery::AtLeastOnce,
        revision: 1,
    })
}

/// An update of the task to this URL, from the revision before `revision`.
fn update<'a>(id: &str, spec: &'a [u8], due_ms: u64, revision: u32) -> Op<'a> {
    Op::Update {
        key: key(id),
        spec,
        due_ms,
        target: OTHER_TARGET,
        revision,
        at_ms: 60,
    }
}

fn claim(id: &str, generation: u64) -> ClaimFire {
    ClaimFire {
        key: key(id),
        generation,
        revision: 1,
        due_ms: 100,
        expected_ms: 100,
        skipped: Skipped::default(),
        attempt: 1,
        at_ms: 101,
        next_due_ms: None,
    }
}

fn settle(id: &str, attempt: u16, result: AttemptResult) -> Settle {
    Settle {
        key: key(id),
        generation: 1,
        revision: 1,
        due_ms: 100,
        expected_ms: 100,
        skipped: Skipped::default(),
        attempt,
        result,
        reason: Reason::Http(200),
        is_sent: true,
        at_ms: 101,
        next_due_ms: None,
        expire_ms: 1_000,
    }
}

fn led_with_task() -> Model {
    let model = Model::default();
    let spec = spec("a", "http://x/");
    assert_eq!(model.one(Op::Lead { node: 1 }), Reply::Generation(1));
    assert_eq!(
        model.one(Op::Create {
            key: key("a"),
            spec: &spec,
            due_ms: 100,
            target: TARGET
        }),
        Reply::Done
    );
    model
}

#[test]
fn a_one_shot_is_delivered_kept_and_expires() {
    let model = led_with_task();
    assert_eq!(
        model.one(Op::Settle(settle("a", 1, AttemptResult::Delivered))),
        Reply::Done
    );
    let task = model.task("a");
    assert_eq!(
        (task.delivered, task.life, task.expire_ms),
        (1, Life::Finished, Some(1_000))
    );
    assert_eq!(
        model.one(Op::Settle(settle("a", 1, AttemptResult::Failed))),
        Reply::Repeat
    );
    assert_eq!(model.task("a").delivered, 1, "the first final outcome wins");
    assert_eq!(
        model.one(Op::Expire {
            key: key("a"),
            at_ms: 999
        }),
        Reply::NotFound
    );
    assert_eq!(
        model.one(Op::Expire {
            key: key("a"),
            at_ms: 1_000
        }),
        Reply::Done
    );
    model.check();
    assert!(model.states.borrow().is_empty() && model.specs.borrow().is_empty());
}

#[test]
fn a_repeated_create_is_idempotent_and_a_different_one_conflicts() {
    let model = led_with_task();
    let (same, other) = (spec("a", "http://x/"), spec("a", "http://y/"));
    assert_eq!(
        model.one(Op::Create {
            key: key("a"),
            spec: &same,
            due_ms: 100,
            target: TARGET
        }),
        Reply::Existed
    );
    assert_eq!(
        model.one(Op::Create {
            key: key("a"),
            spec: &other,
            due_ms: 100,
            target: TARGET
        }),
        Reply::Conflict
    );
    let fresh = spec("b", "http://x/");
    let create = Op::Create {
        key: key("b"),
        spec: &fresh,
        due_ms: 5,
        target: TARGET,
    };
    assert_eq!(
        model.apply(&[create.clone(), create]).0,
        [Reply::Done, Reply::Existed],
        "also within one batch"
    );
    model.check();
}

#[test]
fn a_deleted_id_stays_taken_until_it_expires() {
    let model = led_with_task();
    let delete = Op::Delete {
        key: key("a"),
        at_ms: 50,
        expire_ms: 500,
    };
    let (replies, changes) = model.apply(std::slice::from_ref(&delete));
    assert_eq!(replies, [Reply::Done]);
    assert_eq!(changes.cancelled, [key("a")]);
    assert_eq!(model.task("a").cancelled, 1);
    let same = spec("a", "http://x/");
    assert_eq!(
        model.one(Op::Create {
            key: key("a"),
            spec: &same,
            due_ms: 100,
            target: TARGET
        }),
        Reply::Conflict
    );
    assert_eq!(model.one(delete), Reply::Done);
    assert_eq!(
        model.one(Op::Settle(settle("a", 1, AttemptResult::Delivered))),
        Reply::Repeat
    );
    assert_eq!(
        model.one(Op::Delete {
            key: key("b"),
            at_ms: 50,
            expire_ms: 500
        }),
        Reply::NotFound
    );
    assert_eq!(
        model.one(Op::Expire {
            key: key("a"),
            at_ms: 500
        }),
        Reply::Done
    );
    assert_eq!(
        model.one(Op::Create {
            key: key("a"),
            spec: &same,
            due_ms: 100,
            target: TARGET
        }),
        Reply::Done
    );
    model.check();
}

#[test]
fn an_older_generation_is_refused() {
    let model = led_with_task();
    model.one(Op::Lead { node: 2 });
    assert_eq!(
        model.one(Op::Settle(settle("a", 1, AttemptResult::Delivered))),
        Reply::Stale
    );
    assert_eq!(model.task("a").delivered, 0);
}

#[test]
fn a_retry_waits_in_the_index_while_the_next_due_moves_on() {
    let model = led_with_task();
    let first = Settle {
        next_due_ms: Some(200),
        ..settle("a", 1, AttemptResult::Retry { at_ms: 150 })
    };
    assert_eq!(model.one(Op::Settle(first)), Reply::Done);
    let due: Vec<_> = model.dues.borrow().iter().map(|((at, _), wake)| (*at, *wake)).collect();
    assert_eq!(due, [(150, Wake::Retry), (200, Wake::Fire)]);
    assert_eq!(
        model.one(Op::Settle(settle("a", 1, AttemptResult::Delivered))),
        Reply::Repeat,
        "an old report"
    );
    assert_eq!(
        model.one(Op::Settle(settle("a", 2, AttemptResult::Delivered))),
        Reply::Done
    );
    let task = model.task("a");
    assert_eq!(
        (task.delivered, task.next_due_ms, task.life),
        (1, Some(200), Life::Pending)
    );
    assert_eq!(task.outcomes[0].attempts, 2);
    model.check();
}

#[test]
fn missed_dues_are_recorded_as_skipped() {
    let model = led_with_task();
    let late = Settle {
        due_ms: 400,
        skipped: Skipped {
            misfires: 2,
            overlaps: 1,
            overlaps_from_ms: 300,
        },
        next_due_ms: Some(500),
        ..settle("a", 1, AttemptResult::Delivered)
    };
    let (replies, changes) = model.apply(&[Op::Settle(late)]);
    assert_eq!(replies, [Reply::Done]);
    assert_eq!((changes.tally.skipped_misfire, changes.tally.skipped_overlap), (2, 1));
    let task = model.task("a");
    assert_eq!(
        (task.skipped, task.delivered, task.dues_past, task.next_due_ms),
        (3, 1, 4, Some(500))
    );
    let ended: Vec<_> = task.outcomes.iter().map(|o| (o.due_ms, o.count, o.reason)).collect();
    assert_eq!(
        ended,
        [
            (100, 2, Reason::Misfire),
            (300, 1, Reason::Overlap),
            (400, 1, Reason::Http(200))
        ]
    );
    model.check();
}

#[test]
fn stop_ends_the_task_and_cancels_what_is_open() {
    let model = led_with_task();
    model.one(Op::Settle(Settle {
        next_due_ms: Some(200),
        ..settle("a", 1, AttemptResult::Retry { at_ms: 300 })
    }));
    let stop = Settle {
        due_ms: 200,
        expected_ms: 200,
        next_due_ms: Some(300),
        ..settle("a", 1, AttemptResult::Stop)
    };
    assert_eq!(model.one(Op::Settle(stop)), Reply::Done);
    let task = model.task("a");
    assert_eq!((task.failed, task.cancelled, task.life), (1, 2, Life::Finished));
    model.check();
}

#[test]
fn an_update_ends_what_the_old_revision_owes() {
    let model = led_with_task();
    model.one(Op::Settle(Settle {
        next_due_ms: Some(200),
        ..settle("a", 1, AttemptResult::Retry { at_ms: 300 })
    }));
    let new = spec("a", "http://y/");
    let (replies, changes) = model.apply(&[update("a", &new, 300, 2)]);
    assert_eq!(
        (&replies[..], &changes.cancelled[..]),
        (&[Reply::Done][..], &[key("a")][..])
    );
    let told = changes.dues.iter().find(|due| due.at_ms == 300).expect("told again");
    let entry = |wake, target| Some(DueEntry { wake, target });
    assert_eq!(told.before, entry(Wake::Retry, TARGET), "where it is to be taken back");
    assert_eq!(told.after, entry(Wake::Fire, OTHER_TARGET));
    let task = model.task("a");
    assert_eq!(
        (task.revision, task.cancelled, task.dues_past, task.next_due_ms),
        (2, 2, 2, Some(300))
    );
    assert_eq!(model.specs.borrow()[&key("a")].url, "http://y/");
    let old = settle("a", 2, AttemptResult::Delivered);
    assert_eq!(
        model.one(Op::Settle(old)),
        Reply::Repeat,
        "a report of the old revision"
    );
    model.check();
}

#[test]
fn an_update_is_done_once_and_only_on_the_revision_it_was_meant_for() {
    let model = led_with_task();
    let (y, z) = (spec("a", "http://y/"), spec("a", "http://z/"));
    assert_eq!(model.one(update("a", &y, 300, 3)), Reply::Outdated);
    assert_eq!(model.one(update("a", &y, 300, 1)), Reply::Outdated);
    assert_eq!(
        model.apply(&[update("a", &y, 300, 2), update("a", &y, 300, 2)]).0,
        [Reply::Done, Reply::Existed],
        "also within one batch"
    );
    assert_eq!(model.one(update("a", &y, 300, 2)), Reply::Existed);
    assert_eq!(model.one(update("a", &z, 300, 2)), Reply::Outdated);
    assert_eq!(model.one(update("a", &z, 300, 3)), Reply::Done);
    assert_eq!(model.one(update("a", &y, 300, 2)), Reply::Outdated, "it is late");
    assert_eq!(model.one(update("b", &z, 300, 2)), Reply::NotFound);
    model.one(Op::Delete {
        key: key("a"),
        at_ms: 50,
        expire_ms: 500,
    });
    assert_eq!(model.one(update("a", &y, 300, 4)), Reply::NotFound);
    model.check();
}

#[test]
fn a_finished_task_is_begun_again_by_an_update() {
    let model = led_with_task();
    model.one(Op::Settle(settle("a", 1, AttemptResult::Delivered)));
    let new = spec("a", "http://y/");
    assert_eq!(model.one(update("a", &new, 700, 2)), Reply::Done);
    let task = model.task("a");
    assert_eq!((task.life, task.expire_ms, task.delivered), (Life::Pending, None, 1));
    model.check();
}

#[test]
fn a_claimed_fire_is_one_leadership_s_and_has_one_report() {
    let model = led_with_task();
    assert_eq!(model.one(Op::Claim(claim("a", 0))), Reply::Stale);
    assert_eq!(model.one(Op::Claim(claim("a", 1))), Reply::Done);
    model.check();
    assert_eq!(model.one(Op::Claim(claim("a", 1))), Reply::Existed, "asked for again");
    let entries: Vec<_> = model.dues.borrow().iter().map(|((at, _), wake)| (*at, *wake)).collect();
    assert_eq!(entries, [(101, Wake::Retry)], "a leader that finds it ends it");
    model.one(Op::Lead { node: 2 });
    assert_eq!(model.one(Op::Claim(claim("a", 2))), Reply::Repeat, "it is another's");
    let late = settle("a", 1, AttemptResult::Delivered);
    assert_eq!(model.one(Op::Settle(late.clone())), Reply::Stale);
    let unknown = Settle {
        generation: 2,
        result: AttemptResult::Unknown,
        reason: Reason::Unknown,
        ..late
    };
    assert_eq!(model.one(Op::Settle(unknown.clone())), Reply::Done);
    assert_eq!(model.one(Op::Settle(unknown)), Reply::Repeat);
    let task = model.task("a");
    assert_eq!((task.skipped, task.life, task.claim), (1, Life::Finished, None));
    assert_eq!(
        (task.outcomes[0].verdict, task.outcomes[0].reason),
        (Verdict::Skipped, Reason::Unknown)
    );
    model.check();
}

#[test]
fn a_delete_ends_a_claimed_fire() {
    let model = led_with_task();
    let next = ClaimFire {
        next_due_ms: Some(200),
        ..claim("a", 1)
    };
    model.one(Op::Claim(next));
    model.one(Op::Delete {
        key: key("a"),
        at_ms: 150,
        expire_ms: 500,
    });
    assert_eq!(model.task("a").cancelled, 2);
    model.check();
}

#[test]
fn the_digest_follows_every_change() {
    let (one, two) = (led_with_task(), led_with_task());
    assert_eq!(one.group.borrow().digest, two.group.borrow().digest);
    one.one(Op::Delete {
        key: key("a"),
        at_ms: 1,
        expire_ms: 9,
    });
    two.one(Op::Delete {
        key: key("a"),
        at_ms: 2,
        expire_ms: 9,
    });
    assert_ne!(one.group.borrow().digest, two.group.borrow().digest);
}

fn any_result() -> impl Strategy<Value = AttemptResult> {
    prop_oneof![
        Just(AttemptResult::Delivered),
        (0..60_u64).prop_map(|at_ms| AttemptResult::Retry { at_ms }),
        Just(AttemptResult::Failed),
        Just(AttemptResult::Stop),
        Just(AttemptResult::Unknown),
        Just(AttemptResult::Overlap),
    ]
}

proptest! {
    /// After any sequence of operations, in any batching, the index matches the states and every due is accounted for;
    /// and the batching makes no difference to what is stored, nor to its digest, which is that of a scan.
    #[test]
    fn laws_hold_after_any_operations(
        steps in proptest::collection::vec(
            (0..8_u8, 0..3_usize, 0..60_u64, 0..60_u64, 1..4_u16, any_result(), 0..3_u64), 1..60),
        cut in 1..7_usize,
    ) {
        let ids = ["a", "b", "c"];
        let specs: Vec<_> = ids.iter().map(|id| spec(id, "http://x/")).collect();
        let ops: Vec<Op<'_>> = steps.iter().map(|(kind, id, x, y, attempt, result, generation)| {
            let key = key(ids[*id]);
            match kind {
                0 => Op::Create { key, spec: &specs[*id], due_ms: *x, target: TARGET },
                1 => Op::Delete { key, at_ms: *x, expire_ms: x + y },
                2 => Op::Expire { key, at_ms: *x },
                3 if *generation == 0 => Op::Lead { node: 1 },
                4 => Op::Update {
                    key, spec: &specs[*id], due_ms: *x, target: TARGET, revision: u32::from(*attempt), at_ms: *y,
                },
                5 => Op::Claim(ClaimFire {
                    key, generation: *generation, revision: u32::from(*attempt), due_ms: *x, expected_ms: *x,
                    skipped: Skipped::default(), attempt: *attempt, at_ms: *y, next_due_ms: (x % 2 == 0).then_some(*y + 1),
                }),
                _ => Op::Settle(Settle {
                    key, generation: *generation, revision: u32::from(x % 2 == 0) + 1, due_ms: *x, expected_ms: *y,
                    skipped: Skipped { misfires: u64::from(x > y), overlaps: x % 3, overlaps_from_ms: *x },
                    attempt: *attempt, result: *result, reason: Reason::Http(500), is_sent: x % 2 == 0, at_ms: 7,
                    next_due_ms: (x % 2 == 0).then_some(*y + 1), expire_ms: *y,
                }),
            }
        }).collect();
        let (batched, single) = (Model::default(), Model::default());
        for chunk in ops.chunks(cut) {
            batched.apply(chunk);
            batched.check();
        }
        for op in ops {
            single.apply(std::slice::from_ref(&op));
        }
        prop_assert_eq!(&*batched.states.borrow(), &*single.states.borrow());
        prop_assert_eq!(&*batched.dues.borrow(), &*single.dues.borrow());
        prop_assert_eq!(&*batched.group.borrow(), &*single.group.borrow());
    }
}

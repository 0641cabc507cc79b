//! Every invariant is shown to hold for a good run, and to fail for that run with one thing wrong.

use std::collections::{BTreeMap, BTreeSet};

use xcron::core::machine::{digest_of_row, wakes};
use xcron::core::reason::Reason;
use xcron::core::record::encode_state;
use xcron::core::target::Target;
use xcron::core::task::{Delivery, Life, OpenFire, Outcome, Schedule, TaskSpec, TaskState, Verdict};
use xcron::id::{TaskId, TaskKey};

use super::position::Voters;
use super::{GroupView, NodeState, judge};
use crate::history::{Answered, Attempt, Call, Fault, History, Membership, Op, START_WALL_MS, Shown, Task, Told, When};

mod outside;
mod state;
mod updated;
mod watching;

/// A run that ends 150 s after it began. Of four tasks: fired once, fired twice by a crontab line, deleted, and fired by a retry.
#[derive(Clone)]
pub(super) struct Sample {
    pub(super) history: History,
    pub(super) nodes: Vec<NodeState>,
}

pub(super) fn wall(ms: u64) -> u64 {
    START_WALL_MS + ms
}

pub(super) fn once(id: &str, at_ms: u64) -> Task {
    Task {
        id: id.into(),
        when: When::Once(wall(at_ms) / 1_000),
        url: format!("http://ok.test/{id}"),
        body: format!("{{\"id\":\"{id}\"}}"),
        at_most_once: false,
    }
}

pub(super) fn cron(id: &str) -> Task {
    Task {
        when: When::Cron {
            line: "* * * * *".into(),
            zone: "UTC".into(),
        },
        ..once(id, 0)
    }
}

pub(super) fn op(from_ms: u64, to_ms: u64, call: Call, told: Told) -> Op {
    Op {
        client: 0,
        node: 0,
        call,
        from_us: from_ms * 1_000,
        to_us: to_ms * 1_000,
        told,
    }
}

pub(super) fn query(from_ms: u64, task: &Task, run_count: u64) -> Op {
    let format = match &task.when {
        When::Once(second) => second.to_string(),
        When::Cron { line, .. } => line.clone(),
    };
    let shown = Shown {
        format,
        url: task.url.clone(),
        body: task.body.clone(),
        run_count,
        revision: None,
    };
    op(from_ms, from_ms + 100, Call::Query(task.id.clone()), Told::Shown(shown))
}

pub(super) fn attempt(at_ms: u64, task: &Task, due_ms: u64, number: u16, run: u64, status: u16) -> Attempt {
    Attempt {
        decided_us: at_ms * 1_000,
        at_us: at_ms * 1_000,
        ended_us: Some(at_ms * 1_000 + 20_000),
        node: 0,
        run_of_node: 1,
        node_wall_ms: wall(at_ms),
        group: 0,
        task: task.id.clone(),
        fire_id: format!("{}-{due_ms}", task.id),
        due_ms: wall(due_ms),
        attempt: number,
        run,
        generation: 1,
        url: task.url.clone(),
        body: task.body.clone(),
        is_sent: true,
        answered: Answered::Status(status),
    }
}

pub(super) fn outcome(due_ms: u64, attempts: u16, verdict: Verdict) -> Outcome {
    Outcome {
        due_ms: wall(due_ms),
        count: 1,
        attempts,
        verdict,
        reason: Reason::Http(200),
        is_sent: true,
        at_ms: wall(due_ms + 100),
    }
}

/// A task that is over, with one outcome.
fn over(life: Life, outcome: Outcome) -> TaskState {
    TaskState {
        life,
        next_due_ms: None,
        dues_past: 1,
        delivered: u64::from(outcome.verdict == Verdict::Delivered),
        cancelled: u64::from(outcome.verdict == Verdict::Cancelled),
        outcomes: vec![outcome],
        expire_ms: Some(wall(90_000_000)),
        ..TaskState::new(0, Target([7; 16]))
    }
}

pub(super) fn key(id: &str) -> [u8; 16] {
    TaskId::parse(id).expect("a good id").key().0
}

pub(super) fn spec(task: &Task, created_ms: u64) -> TaskSpec {
    let schedule = match &task.when {
        When::Once(second) => Schedule::Once { at_ms: second * 1_000 },
        When::Cron { line, zone } => Schedule::Cron {
            expression: line.clone(),
            timezone: zone.clone(),
        },
    };
    TaskSpec {
        id: TaskId::parse(&task.id).expect("a good id"),
        schedule,
        url: task.url.clone(),
        body: task.body.clone().into_bytes(),
        created_ms: wall(created_ms),
        delivery: if task.at_most_once {
            Delivery::AtMostOnce
        } else {
            Delivery::AtLeastOnce
        },
        revision: 1,
    }
}

fn view() -> GroupView {
    let cron_state = TaskState {
        dues_past: 2,
        delivered: 2,
        outcomes: vec![
            outcome(60_000, 1, Verdict::Delivered),
            outcome(120_000, 1, Verdict::Delivered),
        ],
        ..TaskState::new(wall(180_000), Target([7; 16]))
    };
    let delivered = |due_ms, attempts| over(Life::Finished, outcome(due_ms, attempts, Verdict::Delivered));
    let deleted = over(Life::Deleted, outcome(30_000, 0, Verdict::Cancelled));
    let mut view = GroupView {
        applied: vec![1, 1, 1, 9, 30],
        generation: 1,
        leader: Some(9),
        tasks: BTreeMap::from([
            (
                key("once"),
                (Some(spec(&once("once", 10_000), 1_050)), delivered(10_000, 1)),
            ),
            (key("cron"), (Some(spec(&cron("cron"), 2_050)), cron_state)),
            (key("gone"), (None, deleted)),
            (
                key("flaky"),
                (Some(spec(&once("flaky", 40_000), 4_050)), delivered(40_000, 2)),
            ),
        ]),
        low_water_ms: wall(140_000),
        ..GroupView::default()
    };
    reindex(&mut view);
    view
}

/// Makes index and digest what the product would have them.
pub(super) fn reindex(view: &mut GroupView) {
    let entries = view.tasks.iter().flat_map(|(key, (_, state))| {
        let wakes = wakes(state).into_iter();
        wakes.map(|(at_ms, wake)| (at_ms, *key, wake as u8))
    });
    view.dues = entries.collect();
    view.dues.sort_unstable();
    let rows = view
        .tasks
        .iter()
        .map(|(key, (_, state))| digest_of_row(TaskKey(*key), &encode_state(state)));
    view.digest = rows.fold(0, u64::wrapping_add);
}

pub(super) fn good() -> Sample {
    let (one, two, three, four) = (
        once("once", 10_000),
        cron("cron"),
        once("gone", 30_000),
        once("flaky", 40_000),
    );
    let create = |at_ms, task: &Task| op(at_ms, at_ms + 100, Call::Create(task.clone()), Told::Done);
    let history = History {
        ops: vec![
            create(1_000, &one),
            create(2_000, &two),
            create(3_000, &three),
            create(4_000, &four),
            op(5_000, 5_100, Call::Delete("gone".into()), Told::Done),
            query(20_000, &one, 1),
            query(50_000, &four, 1),
            query(140_000, &two, 2),
        ],
        attempts: vec![
            attempt(10_000, &one, 10_000, 1, 1, 200),
            attempt(40_000, &four, 40_000, 1, 1, 500),
            attempt(45_000, &four, 40_000, 2, 1, 200),
            attempt(60_001, &two, 60_000, 1, 1, 200),
            attempt(120_001, &two, 120_000, 1, 2, 200),
        ],
        ended_us: 150_000_000,
        attempts_max: 3,
        memberships: vec![Membership {
            voters: Voters {
                index: 1,
                sets: vec![BTreeSet::from([9, 10])],
            },
            replicas: 3,
            ..Membership::default()
        }],
        ..History::default()
    };
    let state = |node| NodeState {
        node,
        node_id: 9 + node as u64,
        groups: vec![view()],
    };
    Sample {
        history,
        nodes: vec![state(0), state(1)],
    }
}

impl Sample {
    /// The invariants that it breaks.
    pub(super) fn breaks(&self) -> Vec<&'static str> {
        let found = judge(&self.history, &self.nodes);
        let mut names: Vec<_> = found.iter().map(|violation| violation.invariant).collect();
        names.dedup();
        names
    }

    /// The good run with something wrong must break the invariant.
    pub(super) fn shows(what: &str, invariant: &str, spoil: impl FnOnce(&mut Self)) {
        let mut sample = good();
        spoil(&mut sample);
        let names = sample.breaks();
        assert!(names.contains(&invariant), "{what}: breaks {names:?}, not {invariant}");
    }

    /// The good run with something changed must stay good.
    pub(super) fn accepts(what: &str, change: impl FnOnce(&mut Self)) {
        let mut sample = good();
        change(&mut sample);
        assert_eq!(judge(&sample.history, &sample.nodes), [], "{what}");
    }

    pub(super) fn add(&mut self, attempt: Attempt) {
        self.history.attempts.push(attempt);
        self.history.attempts.sort_by_key(|attempt| attempt.at_us);
    }

    pub(super) fn fault(&mut self, from_ms: u64, to_ms: u64) {
        self.history.faults.push(Fault {
            from_us: from_ms * 1_000,
            to_us: to_ms * 1_000,
            what: "a partition".into(),
            node: None,
        });
        self.history.healed_us = self.history.healed_us.max(to_ms * 1_000);
    }

    /// Changes the state of a task on every node.
    pub(super) fn change(&mut self, id: &str, change: impl Fn(&mut (Option<TaskSpec>, TaskState))) {
        for node in &mut self.nodes {
            let view = &mut node.groups[0];
            change(view.tasks.get_mut(&key(id)).expect("one of the sample's tasks"));
            reindex(view);
        }
    }
}

/// A fire that waits for its second attempt.
pub(super) fn waiting(due_ms: u64, retry_ms: u64) -> OpenFire {
    OpenFire {
        due_ms: wall(due_ms),
        run: 1,
        attempts: 1,
        retry_ms: wall(retry_ms),
        reason: Reason::Http(500),
        is_sent: true,
    }
}

#[test]
fn a_good_run_is_good() {
    Sample::accepts("as it is", |_| {});
    Sample::accepts("without the states", |sample| sample.nodes.clear());
}

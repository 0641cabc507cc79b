//! A run, arranged by task: what every invariant asks of it.

use std::collections::BTreeMap;

use xcron::core::task::{TaskSpec, TaskState};
use xcron::id::TaskId;

use super::view::{GroupView, NodeState};
use crate::history::{Answered, Attempt, Call, Fault, History, Op, START_WALL_MS, Task, Told, Violation, true_us};

/// What is left of a task in the newest copy of its group.
pub type Stored<'a> = &'a (Option<TaskSpec>, TaskState);

/// One task's part of a run.
pub struct Facts<'a> {
    /// Its id.
    pub id: &'a str,
    /// Calls about it, in the order of their ends.
    pub ops: Vec<&'a Op>,
    /// Its attempts, in the order of their beginnings.
    pub attempts: Vec<&'a Attempt>,
    /// What is stored of it at the end.
    pub stored: Option<Stored<'a>>,
}

impl<'a> Facts<'a> {
    /// Creates that were done, or may have been.
    pub fn creates(&self) -> impl Iterator<Item = (&'a Op, &'a Task)> {
        self.possible().filter_map(|op| match &op.call {
            Call::Create(task) => Some((op, task)),
            Call::Update { .. } | Call::Delete(_) | Call::Query(_) | Call::Show(_) => None,
        })
    }

    /// Updates that were done, or may have been.
    pub fn updates(&self) -> impl Iterator<Item = (&'a Op, &'a Task)> {
        self.possible().filter_map(|op| match &op.call {
            Call::Update { task, .. } => Some((op, task)),
            Call::Create(_) | Call::Delete(_) | Call::Query(_) | Call::Show(_) => None,
        })
    }

    /// Whether it may have had more than one content.
    pub fn is_updated(&self) -> bool {
        self.updates().next().is_some()
    }

    /// Whether an update may have replaced what there was at `from_us`, by `to_us`.
    pub fn is_replaced(&self, from_us: u64, to_us: u64) -> bool {
        let is_over = |op: &Op| op.told == Told::Done && op.to_us < from_us;
        self.updates().any(|(op, _)| op.from_us <= to_us && !is_over(op))
    }

    /// What the task certainly is from an acknowledged call on; only a delete can have ended it.
    pub fn certain(&self) -> Option<(&'a Op, &'a Task)> {
        if !self.is_updated() {
            return self.acked();
        }
        let done = self.updates().filter(|(op, _)| op.told == Told::Done);
        let (last, task) = done.max_by_key(|(op, _)| op.from_us)?;
        let is_before = |op: &Op| op.told == Told::Done && op.to_us <= last.from_us;
        let mut others = self.updates().filter(|(op, _)| !std::ptr::eq(*op, last));
        others.all(|(op, _)| is_before(op)).then_some((last, task))
    }

    /// The contents that an attempt can be of, by what it carries and where it went.
    pub fn contents_of(&self, attempt: &Attempt) -> Vec<&'a Task> {
        let fits = |task: &&Task| attempt.url == task.url && attempt.body == task.body;
        let mut contents = self.contents();
        contents.retain(fits);
        contents
    }

    /// The acknowledged create that was answered first.
    pub fn acked(&self) -> Option<(&'a Op, &'a Task)> {
        let acked = self.creates().filter(|(op, _)| op.told == Told::Done);
        acked.min_by_key(|(op, _)| op.to_us)
    }

    /// What the task may have been: only one thing, once a create was acknowledged and as long as nobody updates it.
    pub fn contents(&self) -> Vec<&'a Task> {
        if let Some((_, task)) = self.acked().filter(|_| !self.is_updated()) {
            return vec![task];
        }
        let mut contents: Vec<&Task> = Vec::new();
        for (_, task) in self.creates().chain(self.updates()) {
            if !contents.contains(&task) {
                contents.push(task);
            }
        }
        contents
    }

    /// Deletes that were done, or may have been.
    pub fn deletes(&self) -> impl Iterator<Item = &'a Op> {
        self.possible().filter(|op| matches!(op.call, Call::Delete(_)))
    }

    /// Whether a delete may have taken effect by then.
    pub fn is_deleted_by(&self, us: u64) -> bool {
        self.deletes().any(|op| op.from_us <= us)
    }

    /// Whether a target may have ended the task by then, with status 410.
    pub fn is_stopped_by(&self, us: u64) -> bool {
        let gone = |attempt: &&&Attempt| attempt.answered == Answered::Status(410);
        self.attempts.iter().filter(gone).any(|attempt| attempt.at_us <= us)
    }

    /// The attempts of each due of each content.
    pub fn fires(&self) -> BTreeMap<(u64, &'a str), Vec<&'a Attempt>> {
        let mut fires: BTreeMap<(u64, &str), Vec<&Attempt>> = BTreeMap::new();
        for attempt in &self.attempts {
            fires.entry((attempt.due_ms, &attempt.body)).or_default().push(attempt);
        }
        fires
    }

    fn possible(&self) -> impl Iterator<Item = &'a Op> {
        let told = |op: &&Op| matches!(op.told, Told::Done | Told::Unknown);
        self.ops.clone().into_iter().filter(told)
    }
}

/// A run that is to be judged.
pub struct Run<'a> {
    /// What the outside saw.
    pub history: &'a History,
    /// The nodes that run at the end.
    pub nodes: &'a [NodeState],
    /// Every task that anybody named.
    pub tasks: BTreeMap<&'a str, Facts<'a>>,
    /// What is stored under each key, in the copy of its group that is the furthest.
    pub stored: BTreeMap<[u8; 16], Stored<'a>>,
}

impl<'a> Run<'a> {
    /// Arranges a run.
    pub fn new(history: &'a History, nodes: &'a [NodeState]) -> Self {
        let mut newest: BTreeMap<u16, &GroupView> = BTreeMap::new();
        for view in nodes.iter().flat_map(|node| &node.groups) {
            let known = newest.entry(view.group).or_insert(view);
            if view.position() > known.position() {
                *known = view;
            }
        }
        let rows = newest.values().flat_map(|view| &view.tasks);
        let mut run = Self {
            history,
            nodes,
            tasks: BTreeMap::new(),
            stored: rows.map(|(key, stored)| (*key, stored)).collect(),
        };
        for op in &history.ops {
            run.task(op.call.task()).ops.push(op);
        }
        for attempt in &history.attempts {
            run.task(&attempt.task).attempts.push(attempt);
        }
        run
    }

    fn task(&mut self, id: &'a str) -> &mut Facts<'a> {
        self.tasks.entry(id).or_insert_with(|| {
            let key = TaskId::parse(id).ok().map(|id| id.key().0);
            Facts {
                id,
                ops: Vec::new(),
                attempts: Vec::new(),
                stored: key.and_then(|key| self.stored.get(&key).copied()),
            }
        })
    }

    /// Every copy of every group, with the machine that holds it.
    pub fn copies(&self) -> impl Iterator<Item = (usize, &'a GroupView)> {
        let nodes = self.nodes.iter();
        nodes.flat_map(|node| node.groups.iter().map(|view| (node.node, view)))
    }

    /// The faults that touch this time.
    pub fn faults(&self, from_us: u64, to_us: u64) -> impl Iterator<Item = &'a Fault> {
        let touches = move |fault: &&Fault| fault.from_us <= to_us && fault.to_us >= from_us;
        self.history.faults.iter().filter(touches)
    }

    /// Whether nothing was made to go wrong in this time.
    pub fn is_calm(&self, from_us: u64, to_us: u64) -> bool {
        self.faults(from_us, to_us).next().is_none()
    }

    /// When an attempt was over; the end of the run while it is not.
    pub fn end_of(&self, attempt: &Attempt) -> u64 {
        attempt.ended_us.unwrap_or(self.history.ended_us)
    }
}

/// A broken promise about a task.
pub fn broken(invariant: &'static str, task: &str, what: String) -> Violation {
    Violation {
        invariant,
        task: Some(task.to_owned()),
        what,
    }
}

/// Whether the target answered that it has it, and the node heard that.
pub fn is_heard_2xx(attempt: &Attempt) -> bool {
    matches!(attempt.answered, Answered::Status(200..=299))
}

/// The wall instant that a clock without error shows at a true time.
pub fn wall_ms(us: u64) -> u64 {
    START_WALL_MS + us / 1_000
}

/// A due for the reader: on the wall, and in true time of the run.
pub fn due(due_ms: u64) -> String {
    format!("due {due_ms} (true {})", ms(true_us(due_ms)))
}

/// A true time for the reader.
pub fn ms(us: u64) -> String {
    format!("{}.{:03} ms", us / 1_000, us % 1_000)
}

/// An attempt for the reader.
pub fn tell(attempt: &Attempt) -> String {
    let Attempt {
        node,
        run_of_node,
        group,
        attempt: number,
        run,
        generation,
        answered,
        ..
    } = attempt;
    let end = attempt.ended_us.map_or("never".to_owned(), ms);
    format!(
        "attempt {number} of {} (run {run}) at {}..{end} by node {node} in its run {run_of_node}, group {group} generation \
         {generation}: {answered:?}",
        due(attempt.due_ms),
        ms(attempt.at_us),
    )
}

//! Whether what clients were told of one task could have happened one call at a time (I7).
//!
//! A task comes into being once and ends once: its id stays taken for longer than any run. So a history can be explained if
//! there are two instants, its creation and its deletion, that suit every answer; and of these instants only bounds matter.
//! That makes the judgement exact, and linear in the number of calls. A call of unknown outcome may have been done at any
//! time after it was sent, or never.
//!
//! A task that was updated has had many contents: then an order of the calls is searched for (`search.rs`).

use crate::history::{Call, Op, Shown, Task, Told, When};

mod search;
#[cfg(test)]
mod tests;

/// No such task.
pub const NOT_FOUND: u64 = 1008;
/// Its instant has passed, and the same task is not there.
pub const PAST: u64 = 1002;
/// Taken by another content, or by a deleted task.
pub const TAKEN: u64 = 1012;
/// The task has another revision.
pub const OUTDATED: u64 = 412;

/// When in the life of the task an answer can have been given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    /// At any time.
    Nothing,
    /// Before the creation.
    Absent,
    /// Between creation and deletion.
    Present,
    /// After the deletion.
    Deleted,
    /// After the creation.
    Created,
    /// Before the creation or after the deletion.
    Gone,
    /// Never.
    Impossible,
}

/// Judges the calls of one task; the error says what cannot be explained.
pub fn check(ops: &[&Op]) -> Result<(), String> {
    if ops
        .iter()
        .any(|op| matches!(op.call, Call::Update { .. } | Call::Show(_)))
    {
        return search::check(ops);
    }
    let mut contents: Vec<&Task> = Vec::new();
    for (_, task) in ops.iter().filter_map(|op| possible_create(op)) {
        if !contents.contains(&task) {
            contents.push(task);
        }
    }
    let mut complaints = vec![never_created(ops)];
    complaints.extend(contents.into_iter().map(|content| created_with(ops, content)));
    if complaints.contains(&None) {
        return Ok(());
    }
    let complaints: Vec<String> = complaints.into_iter().flatten().collect();
    Err(complaints.join("\n"))
}

fn possible_create(op: &Op) -> Option<(&Op, &Task)> {
    match (&op.call, &op.told) {
        (Call::Create(task), Told::Done | Told::Unknown) => Some((op, task)),
        _ => None,
    }
}

/// What speaks against it that the task has never been.
fn never_created(ops: &[&Op]) -> Option<String> {
    let allowed = [Needs::Nothing, Needs::Absent, Needs::Gone];
    let against = ops.iter().find(|op| !allowed.contains(&needs(op, None)));
    against.map(|op| format!("if it was never created: {}", tell(op)))
}

/// A bound of an instant, and the call that sets it.
type Bound<'a> = Option<(u64, &'a Op)>;

/// The bounds of creation and deletion.
#[derive(Default)]
struct Bounds<'a> {
    created_from: Bound<'a>,
    created_to: Bound<'a>,
    deleted_from: Bound<'a>,
    deleted_to: Bound<'a>,
}

/// An answer that was there at the moment at which a call was sent, was given before that call.
fn from(op: &Op) -> u64 {
    2 * op.from_us + 1
}

fn to(op: &Op) -> u64 {
    2 * op.to_us
}

fn raise<'a>(bound: &mut Bound<'a>, op: &'a Op) {
    if bound.is_none_or(|(at, _)| at < from(op)) {
        *bound = Some((from(op), op));
    }
}

fn lower<'a>(bound: &mut Bound<'a>, op: &'a Op) {
    if bound.is_none_or(|(at, _)| at > to(op)) {
        *bound = Some((to(op), op));
    }
}

/// What speaks against it that the task was created with this content.
fn created_with(ops: &[&Op], content: &Task) -> Option<String> {
    let about = |what: String| Some(format!("if it was created as {content:?}: {what}"));
    let creates = ops.iter().filter_map(|op| possible_create(op));
    let create = creates.filter(|(_, task)| *task == content).map(|(op, _)| op);
    let create = create
        .min_by_key(|op| op.from_us)
        .expect("contents are those of creates");
    let is_possible = |op: &&&Op| matches!(op.call, Call::Delete(_)) && matches!(op.told, Told::Done | Told::Unknown);
    let delete = ops.iter().filter(is_possible).min_by_key(|op| op.from_us).copied();
    let mut bounds = Bounds {
        created_from: Some((from(create), create)),
        deleted_from: delete.map(|delete| (from(delete), delete)),
        ..Bounds::default()
    };
    for op in ops {
        match needs(op, Some(content)) {
            Needs::Nothing | Needs::Gone => {}
            Needs::Impossible => return about(format!("impossible: {}", tell(op))),
            Needs::Deleted if delete.is_none() => return about(format!("nobody deletes it: {}", tell(op))),
            Needs::Absent => raise(&mut bounds.created_from, op),
            Needs::Created => lower(&mut bounds.created_to, op),
            Needs::Deleted => lower(&mut bounds.deleted_to, op),
            Needs::Present => {
                lower(&mut bounds.created_to, op);
                raise(&mut bounds.deleted_from, op);
            }
        }
    }
    bounds
        .contradiction(delete.is_some())
        .or_else(|| bounds.gone(ops, content, delete.is_some()))
        .and_then(about)
}

impl Bounds<'_> {
    /// Two calls that leave no instant for the creation or the deletion.
    fn contradiction(&self, is_deleted: bool) -> Option<String> {
        let pairs = [
            ("created", self.created_from, self.created_to, true),
            ("deleted", self.deleted_from, self.deleted_to, is_deleted),
            (
                "created before it was deleted",
                self.created_from,
                self.deleted_to,
                is_deleted,
            ),
        ];
        let meets = pairs.into_iter().filter(|(.., counts)| *counts);
        let wrong = meets.filter_map(|(what, from, to, _)| Some((what, from?, to?)));
        let (what, (_, later), (_, earlier)) = wrong.into_iter().find(|(_, from, to)| from.0 > to.0)?;
        Some(format!(
            "no instant at which it can have been {what}: {}, and {}",
            tell(earlier),
            tell(later)
        ))
    }

    /// A query that found nothing though the task must have been there for all of its time. The creation is taken as late
    /// and the deletion as early as can be, which leaves it the least time.
    fn gone(&self, ops: &[&Op], content: &Task, is_deleted: bool) -> Option<String> {
        let created_to = self.created_to.map_or(u64::MAX, |(at, _)| at);
        let deleted_from = self.deleted_from.filter(|_| is_deleted).map_or(u64::MAX, |(at, _)| at);
        if created_to > deleted_from {
            // Both can have happened at one instant.
            return None;
        }
        let is_gone = |op: &&&Op| needs(op, Some(content)) == Needs::Gone;
        let mut between = ops.iter().filter(is_gone);
        let op = between.find(|op| from(op) > created_to && to(op) < deleted_from)?;
        let (_, created) = self.created_to?;
        let deleted = self.deleted_from.filter(|_| is_deleted);
        let until = deleted.map_or("never deleted".to_owned(), |(_, op)| {
            format!("not deleted before {}", tell(op))
        });
        Some(format!(
            "it was there since {}, and {until}, but {}",
            tell(created),
            tell(op)
        ))
    }
}

fn needs(op: &Op, content: Option<&Task>) -> Needs {
    match (&op.call, &op.told) {
        (Call::Create(task), Told::Done) if Some(task) == content => Needs::Present,
        (Call::Create(task), Told::Refused(TAKEN)) => match content {
            None => Needs::Impossible,
            Some(content) if content == task => Needs::Deleted,
            Some(_) => Needs::Created,
        },
        (Call::Create(task), Told::Refused(PAST)) if Some(task) == content => Needs::Gone,
        (Call::Delete(_), Told::Done) if content.is_some() => Needs::Deleted,
        (Call::Delete(_), Told::Refused(NOT_FOUND)) => Needs::Absent,
        (Call::Query(_), Told::Refused(NOT_FOUND)) => Needs::Gone,
        (Call::Query(_), Told::Shown(shown)) if content.is_some_and(|content| shows(shown, content)) => Needs::Present,
        // Only of a task whose calls are searched.
        (Call::Update { .. } | Call::Show(_), _) | (_, Told::Unknown | Told::Refused(_)) => Needs::Nothing,
        (_, Told::Done | Told::Shown(_)) => Needs::Impossible,
    }
}

/// Whether a query shows this content; the zone is not shown, and bodies are compared as JSON.
fn shows(shown: &Shown, content: &Task) -> bool {
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    let format = match &content.when {
        When::Once(second) => second.to_string(),
        When::Cron { line, .. } => line.clone(),
    };
    shown.format == format && shown.url == content.url && json(&shown.body) == json(&content.body)
}

fn tell(op: &Op) -> String {
    let ms = |us: u64| format!("{}.{:03}", us / 1_000, us % 1_000);
    let (from, to) = (ms(op.from_us), ms(op.to_us));
    format!(
        "client {} at {from}..{to} ms of node {}: {:?} -> {:?}",
        op.client, op.node, op.call, op.told
    )
}

//! Tells what happened to one task, in the order of time: for whoever looks for the reason of a violation.

use std::fmt::Write;

use super::facts::{ms, tell};
use crate::history::{History, Op};

/// The calls, the attempts and the faults of a task's time, a line each; times are true.
pub fn story(history: &History, task: &str) -> String {
    let ops: Vec<&Op> = history.ops.iter().filter(|op| op.call.task() == task).collect();
    let attempts: Vec<_> = history.attempts.iter().filter(|attempt| attempt.task == task).collect();
    let begins = ops
        .iter()
        .map(|op| op.from_us)
        .chain(attempts.iter().map(|attempt| attempt.at_us));
    let ends = ops.iter().map(|op| op.to_us);
    let ends = ends.chain(
        attempts
            .iter()
            .map(|attempt| attempt.ended_us.unwrap_or(history.ended_us)),
    );
    let (Some(from_us), Some(to_us)) = (begins.min(), ends.max()) else {
        return format!("nothing happened to {task}\n");
    };
    let mut lines: Vec<(u64, String)> = Vec::new();
    for Op {
        client,
        node,
        call,
        from_us,
        to_us,
        told,
    } in ops
    {
        let what = format!(
            "client {client} asks node {node}: {call:?} -> {told:?} at {}",
            ms(*to_us)
        );
        lines.push((*from_us, what));
    }
    lines.extend(attempts.iter().map(|attempt| (attempt.at_us, tell(attempt))));
    for fault in &history.faults {
        if fault.from_us <= to_us && fault.to_us >= from_us {
            let node = fault.node.map_or("all".to_owned(), |node| format!("node {node}"));
            lines.push((
                fault.from_us,
                format!("FAULT on {node} until {}: {}", ms(fault.to_us), fault.what),
            ));
        }
    }
    lines.push((history.healed_us, "healed".to_owned()));
    lines.push((history.ended_us, "the end".to_owned()));
    lines.sort_by_key(|(at_us, _)| *at_us);
    let mut text = format!("the story of {task}:\n");
    for (at_us, line) in lines {
        writeln!(text, "{:>14}  {line}", ms(at_us)).expect("a text takes it");
    }
    text
}

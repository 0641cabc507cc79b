//! Reading all tasks, a page at a time: what a page is, how its rows are read in the group that this node leads, and how they travel.
//!
//! Owns the bounds of a page. The search for the leader is `cluster.rs`'s, the barrier before the read `replica.rs`'s.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use super::TaskView;
use super::replica::{Refusal, look_up};
use super::wire::{self, Answer};
use crate::core::machine::View;
use crate::core::record::{self, RecordError};
use crate::core::task::Life;
use crate::id::{GroupCount, GroupId};
use crate::limits::{BODY_BYTES_MAX, ENTRY_OVERHEAD_BYTES_MAX, PEER_MESSAGE_BYTES_MAX, URL_BYTES_MAX};
use crate::raft::Group;
use crate::store::StoreError;

/// Rows that are read for a page, at most: some milliseconds of work.
const PAGE_ROWS_MAX: usize = 256;
/// Once a page has so many bytes, it gets no further task.
const PAGE_BYTES: usize = 1 << 20;
/// Longest row key of a cursor, in bytes: a shard and the hash of an id, and what comes right behind.
const CURSOR_ROW_BYTES_MAX: usize = 64;

const _: () = assert!(
    PAGE_BYTES + BODY_BYTES_MAX + URL_BYTES_MAX + PAGE_ROWS_MAX * 1_024 + ENTRY_OVERHEAD_BYTES_MAX
        < PEER_MESSAGE_BYTES_MAX
);

/// Where a page begins. Its text, as in URLs: the group's number, a hyphen, and the row in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The group.
    pub group: GroupId,
    /// The first row; empty for the first of all.
    pub row: Vec<u8>,
}

/// Some tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The tasks; there may be none although there are more.
    pub tasks: Vec<TaskView>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<Cursor>,
}

/// A text is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such cursor: give one that the header Link of an answer names, or none")]
pub struct NoCursor;

impl Default for Cursor {
    /// The first of all.
    fn default() -> Self {
        Self {
            group: GroupId(0),
            row: Vec::new(),
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-", self.group.0)?;
        self.row.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Cursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let (group, digits) = text.split_once('-').ok_or(NoCursor)?;
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex || digits.len() % 2 != 0 || digits.len() > 2 * CURSOR_ROW_BYTES_MAX {
            return Err(NoCursor);
        }
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| NoCursor);
        Ok(Self {
            group: GroupId(group.parse().map_err(|_| NoCursor)?),
            row: (0..digits.len()).step_by(2).map(byte).collect::<Result<_, _>>()?,
        })
    }
}

/// Tasks of one group, and the row at which they go on.
pub(super) struct Rows {
    tasks: Vec<TaskView>,
    next: Option<Vec<u8>>,
}

impl Rows {
    /// Reads what the group's rows hold from `from` on.
    pub(super) fn read(group: &Group, from: &[u8]) -> Result<Self, Refusal> {
        let failed = |error: StoreError| Refusal::Failed(error.to_string());
        let states = group.store().states(from, PAGE_ROWS_MAX).map_err(failed)?;
        let is_last = states.len() < PAGE_ROWS_MAX;
        let (mut tasks, mut bytes, mut next) = (Vec::new(), 0, None);
        for (row, key, state) in states {
            if bytes >= PAGE_BYTES {
                return Ok(Self { tasks, next: Some(row) });
            }
            next = Some([&row[..], &[0]].concat());
            if state.life == Life::Deleted {
                continue;
            }
            let Some(spec) = group.store().spec(key).map_err(failed)? else {
                continue;
            };
            // Its rows are read again together: an update may have come in between.
            let task = if spec.revision == state.revision {
                Some(TaskView { spec, state })
            } else {
                look_up(group, &spec.id)?
            };
            let Some(task) = task else { continue };
            bytes += task.spec.body.len() + task.spec.url.len();
            tasks.push(task);
        }
        Ok(Self {
            tasks,
            next: next.filter(|_| !is_last),
        })
    }

    pub(super) fn encode(&self) -> Bytes {
        let encoded = |task: &TaskView| (record::encode_spec(&task.spec), record::encode_state(&task.state));
        let rows: Vec<_> = self.tasks.iter().map(encoded).collect();
        wire::encode(&Answer::Page {
            tasks: rows.iter().map(|(spec, state)| (&spec[..], &state[..])).collect(),
            next: self.next.as_deref(),
        })
    }

    pub(super) fn decode(tasks: &[(&[u8], &[u8])], next: Option<&[u8]>) -> Result<Self, RecordError> {
        let view = |(spec, state): &(&[u8], &[u8])| {
            Ok(TaskView {
                spec: record::decode_spec(spec)?,
                state: record::decode_state(state)?,
            })
        };
        Ok(Self {
            tasks: tasks.iter().map(view).collect::<Result<_, _>>()?,
            next: next.map(<[u8]>::to_vec),
        })
    }

    /// The page that these rows of `group` are.
    pub(super) fn page(self, group: GroupId, groups: GroupCount) -> Page {
        let following = GroupId(group.0 + 1);
        let next = match self.next {
            Some(row) => Some(Cursor { group, row }),
            None if following.0 < groups.get() => Some(Cursor {
                group: following,
                row: Vec::new(),
            }),
            None => None,
        };
        let tasks = self.tasks;
        Page { tasks, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_and_nothing_else_is_one() {
        for (group, row) in [(0, vec![]), (31, vec![0, 255, 16])] {
            let cursor = Cursor {
                group: GroupId(group),
                row,
            };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        assert_eq!(
            "31-00ff10".parse::<Cursor>().map(|cursor| cursor.row),
            Ok(vec![0, 255, 16])
        );
        let long = format!("1-{}", "00".repeat(65));
        for text in [
            "", "-", "1", "1-0", "1-0g", "x-00", "-1-00", "70000-", "1-00-00", "1-é", &long,
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(NoCursor), "{text}");
        }
    }
}

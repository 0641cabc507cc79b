//! What the leader alone can judge of an operation before it gets into the log: whether every replica will be able to read it,
//! whether the disk has room for it, and when an update's schedule begins.

use crate::clock::Clock;
use crate::core::command::{self, Op};
use crate::core::machine::View;
use crate::core::record;
use crate::core::schedule::Cron;
use crate::core::task::Schedule;
use crate::raft::Group;
use crate::router::cluster::LeaderHints;
use crate::router::replica::Refusal;
use crate::space::Space;

/// Why nothing new is done while an older node is there.
pub(super) const OLDER_RELEASE: &str =
    "a node of an older release, which cannot do this, is or was just in the cluster; upgrade every node first";

/// The operation as it is to be proposed; the error says why it is not.
pub(super) fn prepare(
    group: &Group,
    op: Vec<u8>,
    hints: &dyn LeaderHints,
    clock: &dyn Clock,
    space: &Space,
) -> Result<Vec<u8>, Refusal> {
    let asked = command::decode_op(&op).map_err(|error| Refusal::Failed(error.to_string()))?;
    if command::needs(&asked) > hints.commands() {
        return Err(Refusal::Failed(OLDER_RELEASE.to_owned()));
    }
    // What ends something goes on: it is what the reserve is for.
    if matches!(asked, Op::Create { .. } | Op::Update { .. }) && !space.takes_more() {
        return Err(Refusal::DiskReserve);
    }
    let later = begin(group, &asked, clock.wall_ms()).map_err(Refusal::Failed)?;
    Ok(later.unwrap_or(op))
}

/// The update with its first due moved, if that has passed here: the node that accepted it may have a clock that is behind, or
/// may have looked for a leader for long, and a due that was fired before the update must not be fired again by it.
fn begin(group: &Group, op: &Op<'_>, now_ms: u64) -> Result<Option<Vec<u8>>, String> {
    let Op::Update {
        key,
        spec: bytes,
        due_ms,
        target,
        revision,
        at_ms,
    } = *op
    else {
        return Ok(None);
    };
    let spec = record::decode_spec(bytes).map_err(|error| error.to_string())?;
    let Schedule::Cron { expression, timezone } = spec.schedule else {
        return Ok(None);
    };
    let state = group.store().state(key).map_err(|error| error.to_string())?;
    let fired_ms = state.and_then(|state| state.latest_due_ms()).unwrap_or(0);
    if due_ms > now_ms.max(fired_ms) {
        return Ok(None);
    }
    let cron = Cron::parse(&expression, &timezone).map_err(|error| error.to_string())?;
    let due_ms = cron.next_after(now_ms.max(fired_ms));
    let due_ms = due_ms.ok_or("the schedule never fires again")?;
    Ok(Some(command::encode_op(&Op::Update {
        key,
        spec: bytes,
        due_ms,
        target,
        revision,
        at_ms,
    })))
}

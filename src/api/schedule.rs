//! Judges the schedule of a request, whatever its fields are called. Pure: the time is given. Used by `request.rs` and `v1/`.

use serde::Serialize;

use super::envelope::{BAD_CRON, PAST, Refusal};
use crate::core::instant::rfc3339_ms;
use crate::core::schedule::{Cron, CronError};
use crate::core::task::Schedule;
use crate::limits::{CRON_BYTES_MAX, TIMEZONE_BYTES_MAX};

/// The zone of a crontab line that names none.
pub(super) const TIMEZONE_DEFAULT: &str = "UTC";

/// A schedule in an answer.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum ScheduleFields<'a> {
    Cron { cron: &'a str, timezone: &'a str },
    Once { at: String },
}

impl<'a> From<&'a Schedule> for ScheduleFields<'a> {
    fn from(schedule: &'a Schedule) -> Self {
        match schedule {
            Schedule::Cron { expression, timezone } => Self::Cron {
                cron: expression,
                timezone,
            },
            Schedule::Once { at_ms } => Self::Once { at: rfc3339_ms(*at_ms) },
        }
    }
}

/// What the fields of a periodic schedule are called.
pub(super) struct Names {
    /// That of the crontab line.
    pub(super) line: &'static str,
    /// That of the zone.
    pub(super) zone: &'static str,
}

/// The second that has begun is not past.
pub(super) fn not_past(at_ms: u64, now_ms: u64, name: &str) -> Result<(), Refusal> {
    let now = now_ms / 1_000;
    if at_ms / 1_000 < now {
        return Err(Refusal::new(PAST, format!("`{name}` is before now, which is {now}")));
    }
    Ok(())
}

/// A periodic schedule and its first due after `now_ms`.
pub(super) fn cron(
    expression: &str,
    timezone: Option<&str>,
    names: &Names,
    now_ms: u64,
) -> Result<(Schedule, u64), Refusal> {
    let Names { line, zone } = names;
    let refuse = |message: String| Refusal::new(BAD_CRON, message);
    if expression.len() > CRON_BYTES_MAX {
        return Err(refuse(format!("`{line}` must have at most {CRON_BYTES_MAX} bytes")));
    }
    let timezone = timezone.unwrap_or(TIMEZONE_DEFAULT);
    if timezone.is_empty() || timezone.len() > TIMEZONE_BYTES_MAX {
        return Err(refuse(format!("`{zone}` must have 1 to {TIMEZONE_BYTES_MAX} bytes")));
    }
    let cron = Cron::parse(expression, timezone).map_err(|error| {
        // A zone may also stand in the line itself, which then goes before the field.
        let field = match &error {
            CronError::UnknownTimezone { name } if name == timezone => zone,
            _ => line,
        };
        refuse(format!("`{field}`: {error}"))
    })?;
    let Some(first_due_ms) = cron.next_after(now_ms) else {
        return Err(refuse(format!("`{line}` never fires: no date has this day and month")));
    };
    let schedule = Schedule::Cron {
        expression: expression.to_owned(),
        timezone: timezone.to_owned(),
    };
    Ok((schedule, first_due_ms))
}

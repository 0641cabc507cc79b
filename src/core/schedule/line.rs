//! A whole crontab line: the zone in front, macros, and the split into five fields.

use super::error::{CronError, Field};
use super::field::Parsed;
use crate::limits::CRON_BYTES_MAX;

/// A crontab line, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'text> {
    /// The zone named in front by `TZ=` or `CRON_TZ=`.
    pub(super) timezone: Option<&'text str>,
    pub(super) fields: Fields,
}

/// The five fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    /// 0 to 59.
    pub(super) minute: Parsed,
    /// 0 to 23.
    pub(super) hour: Parsed,
    /// 1 to 31.
    pub(super) day_of_month: Parsed,
    /// 1 to 12.
    pub(super) month: Parsed,
    /// 0 to 6, Sunday is 0.
    pub(super) day_of_week: Parsed,
}

/// How the two day fields are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DayRule {
    /// A day must match both, because one of them begins with `*`.
    Both,
    /// A day must match one of them.
    Either,
}

impl Fields {
    pub(super) fn day_rule(&self) -> DayRule {
        if self.day_of_month.starred || self.day_of_week.starred {
            DayRule::Both
        } else {
            DayRule::Either
        }
    }

    /// Whether minute and hour both do not begin with `*`: the task means clock times and not a rhythm.
    pub(super) fn is_fixed_time(&self) -> bool {
        !self.minute.starred && !self.hour.starred
    }
}

/// crontab separates by spaces and tabs; a line end left over by a client is dropped at the ends alone.
const BLANKS: [char; 2] = [' ', '\t'];

/// Reads a crontab line.
pub(super) fn parse(expression: &str) -> Result<Line<'_>, CronError> {
    if expression.len() > CRON_BYTES_MAX {
        return Err(CronError::TooLong {
            bytes: expression.len(),
        });
    }
    let (timezone, fields) = split_timezone(expression.trim_ascii());
    let fields = if fields.starts_with('@') {
        expand(fields)?
    } else {
        fields
    };
    let texts: Vec<&str> = fields.split(BLANKS).filter(|text| !text.is_empty()).collect();
    let [minute, hour, day_of_month, month, day_of_week] = texts[..] else {
        return Err(if texts.is_empty() {
            CronError::Empty
        } else {
            CronError::FieldCount { found: texts.len() }
        });
    };
    let fields = Fields {
        minute: Field::Minute.parse(minute)?,
        hour: Field::Hour.parse(hour)?,
        day_of_month: Field::DayOfMonth.parse(day_of_month)?,
        month: Field::Month.parse(month)?,
        day_of_week: Field::DayOfWeek.parse(day_of_week)?,
    };
    Ok(Line { timezone, fields })
}

/// Takes a `TZ=zone` or `CRON_TZ=zone` off the front.
fn split_timezone(line: &str) -> (Option<&str>, &str) {
    let Some(rest) = line.strip_prefix("CRON_TZ=").or_else(|| line.strip_prefix("TZ=")) else {
        return (None, line);
    };
    match rest.split_once(BLANKS) {
        Some((timezone, fields)) => (Some(timezone), fields.trim_start_matches(BLANKS)),
        None => (Some(rest), ""),
    }
}

fn expand(text: &str) -> Result<&'static str, CronError> {
    match text.to_ascii_lowercase().as_str() {
        "@yearly" | "@annually" => Ok("0 0 1 1 *"),
        "@monthly" => Ok("0 0 1 * *"),
        "@weekly" => Ok("0 0 * * 0"),
        "@daily" | "@midnight" => Ok("0 0 * * *"),
        "@hourly" => Ok("0 * * * *"),
        "@reboot" => Err(CronError::Reboot),
        _ => Err(CronError::Macro { name: text.to_owned() }),
    }
}

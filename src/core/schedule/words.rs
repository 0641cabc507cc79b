//! A crontab line as one plain sentence.

use super::Cron;
use super::field::Parsed;
use super::line::Line;
use super::pattern::DayRule;

/// The fields as the sentence needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    minute: Parsed,
    hour: Parsed,
    day_of_month: Parsed,
    month: Parsed,
    day_of_week: Parsed,
    days: DayRule,
}

impl Fields {
    pub(super) fn new(line: &Line<'_>) -> Self {
        Self {
            minute: line.minute,
            hour: line.hour,
            day_of_month: line.day_of_month,
            month: line.month,
            day_of_week: line.day_of_week,
            days: line.days(),
        }
    }
}

impl Cron {
    /// The schedule in one English sentence.
    pub fn describe(&self) -> String {
        let fields = &self.words;
        format!("{fields:?}")
    }
}

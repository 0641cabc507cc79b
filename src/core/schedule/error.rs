//! Why a crontab line was refused, in words for the person who wrote it.
//!
//! Owns the error type and the names of the five fields. What is right or wrong is decided in `line.rs` and `field.rs`.

use std::fmt;

use crate::limits::CRON_BYTES_MAX;

/// One of the five fields of a crontab line, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// 0 to 59.
    Minute,
    /// 0 to 23.
    Hour,
    /// 1 to 31.
    DayOfMonth,
    /// 1 to 12.
    Month,
    /// 0 to 7, both ends Sunday.
    DayOfWeek,
}

impl Field {
    /// What may stand in the field, for error messages.
    pub fn allowed(self) -> &'static str {
        match self {
            Self::Minute => "numbers 0 to 59, *, ranges a-b, steps */n and a-b/n, and lists of these",
            Self::Hour => "numbers 0 to 23, *, ranges a-b, steps */n and a-b/n, and lists of these",
            Self::DayOfMonth => {
                "numbers 1 to 31, *, ranges a-b, steps */n and a-b/n, and lists of these; or one of L, L-3, LW, 15W alone"
            }
            Self::Month => "numbers 1 to 12, names JAN to DEC, *, ranges a-b, steps */n and a-b/n, and lists of these",
            Self::DayOfWeek => {
                "numbers 0 to 7 (0 and 7 are Sunday), names SUN to SAT, *, ranges a-b, steps */n and a-b/n, \
                 and lists of these; or one of 5#2, 5L alone"
            }
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::DayOfMonth => "day of month",
            Self::Month => "month",
            Self::DayOfWeek => "day of week",
        })
    }
}

/// What is wrong with one item of a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Two commas in a row, or one at an end.
    #[error("an item of the list is empty")]
    Empty,
    /// Neither a number nor a name of this field.
    #[error("is neither a number nor a name known here")]
    NotAValue,
    /// A number outside the field's bounds.
    #[error("is out of range")]
    OutOfRange,
    /// A range whose end comes before its start.
    #[error("runs backwards")]
    Backwards,
    /// A range that ends in `SUN`: as in crontab that name is 0.
    #[error("runs backwards, because SUN is 0: write 7 for a Sunday that ends a range")]
    BackwardsToSunday,
    /// `*/0`.
    #[error("has a step of 0; the smallest is 1")]
    StepZero,
    /// `5/15`.
    #[error("has a step on a single value; write a range, as in 5-59/15")]
    StepOnSingle,
    /// `*/x`, `*/`.
    #[error("has a step that is not a number")]
    StepNotANumber,
    /// `*5`, `*-5`.
    #[error("has something after the * that is not a step, as in */5")]
    AfterStar,
    /// `L,15` and the like.
    #[error("the signs L, W and # stand alone in their field")]
    SignInList,
    /// A sign with L, W or # that is not one of the supported forms.
    #[error("is not a supported form of the signs L, W and #")]
    BadSign,
    /// `29W` to `31W`.
    #[error("is refused because not every month has that day: use 1W to 28W, or LW for the month's last working day")]
    NearestTooLate,
    /// `?`, of other schedulers.
    #[error("is not a sign of crontab: write * instead")]
    QuestionMark,
}

/// A crontab line, or its time zone, that was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Nothing but blanks.
    #[error("the crontab line is empty: five fields are needed, as in 30 2 * * 1-5")]
    Empty,
    /// More than [`CRON_BYTES_MAX`] bytes.
    #[error("the crontab line has {bytes} bytes; at most {CRON_BYTES_MAX} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not five fields.
    #[error(
        "found {found} field{} where a crontab line has 5: minute, hour, day of month, month, day of week{}",
        if *found == 1 { "" } else { "s" },
        if *found == 6 { "; seconds are not supported yet: leave their field out" } else { "" }
    )]
    FieldCount {
        /// How many there were.
        found: usize,
    },
    /// `@reboot`.
    #[error("@reboot names no time: a timer service has no boot to wait for")]
    Reboot,
    /// An `@` word that is no macro.
    #[error(
        "{name:?} is not a known macro; allowed: @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly, \
         with nothing after them"
    )]
    Macro {
        /// The text from the `@` on.
        name: String,
    },
    /// A time zone that the bundled database does not have.
    #[error("the time zone {name:?} is not known; use an IANA name such as Europe/Berlin or UTC")]
    UnknownTimezone {
        /// The name asked for.
        name: String,
    },
    /// One item of one field.
    #[error("{field}: {item:?} {problem}; allowed: {}", field.allowed())]
    Field {
        /// The field it stands in.
        field: Field,
        /// The item as written.
        item: String,
        /// What is wrong with it.
        problem: Problem,
    },
    /// A line that passed every check here and that the evaluator still refused; a defect of xcron.
    #[error("the schedule cannot be evaluated (as {line:?}); please report this line")]
    Unsupported {
        /// The translated line.
        line: String,
    },
}

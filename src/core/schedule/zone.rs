//! A time zone: offsets from UTC and the instants at which they change. The only user of jiff.
//!
//! Reads the database compiled into the program and no other: two nodes of one release must agree on every instant,
//! whatever their machines have installed. All instants are seconds since the Unix epoch.

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use super::error::CronError;
use crate::limits::{INSTANT_MS_MAX, TIMEZONE_BYTES_MAX};

/// Last second that a schedule reaches, which is the last that jiff can hold: every zone's clocks still show 9999 then.
#[expect(clippy::cast_possible_wrap, reason = "the year 9999 is far below 2^63")]
pub(super) const LAST_SECOND: i64 = (INSTANT_MS_MAX / 1_000) as i64;

/// A zone of the IANA database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Zone(TimeZone);

/// A stretch of time with one offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Seconds to add to UTC for local time.
    pub(super) offset: i64,
    /// The first second after it, at most [`LAST_SECOND`] and one.
    pub(super) end: i64,
}

/// A change of offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// First second of the new offset.
    pub(super) at: i64,
    /// How far local clocks jumped: positive leaves out that many seconds, negative repeats them.
    pub(super) shift: i64,
}

impl Zone {
    /// Looks a zone up by its IANA name, whose letters may be of either case.
    pub(super) fn named(name: &str) -> Result<Self, CronError> {
        let unknown = || CronError::UnknownTimezone {
            name: name.chars().take(TIMEZONE_BYTES_MAX).collect(),
        };
        if name.len() > TIMEZONE_BYTES_MAX {
            return Err(unknown());
        }
        match TimeZoneDatabase::bundled().get(name) {
            Ok(zone) if !zone.is_unknown() => Ok(Self(zone)),
            _ => Err(unknown()),
        }
    }

    /// Its name as the database writes it.
    pub(super) fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// The stretch that holds the second `at`.
    pub(super) fn stretch(&self, at: i64) -> Stretch {
        let change = self.0.following(timestamp(at)).next();
        let end = change.map_or(LAST_SECOND + 1, |change| change.timestamp().as_second());
        Stretch {
            offset: self.offset(at),
            end,
        }
    }

    /// The change that began the stretch of the second `at`, if there was one.
    pub(super) fn change_before(&self, at: i64) -> Option<Change> {
        // The iterator is strict: asked from the next second it also tells of a change at this very one.
        let at = self.0.preceding(timestamp(at + 1)).next()?.timestamp().as_second();
        Some(Change {
            at,
            shift: self.offset(at) - self.offset(at - 1),
        })
    }

    fn offset(&self, at: i64) -> i64 {
        i64::from(self.0.to_offset(timestamp(at)).seconds())
    }

    /// Date, time, offset and weekday on the zone's clocks, as `2026-03-08 03:00:00 -04:00 Sun`.
    pub(super) fn text(&self, at: i64) -> String {
        timestamp(at)
            .to_zoned(self.0.clone())
            .strftime("%Y-%m-%d %H:%M:%S %:z %a")
            .to_string()
    }
}

/// Instants that jiff cannot hold become the nearest one that it can.
fn timestamp(at: i64) -> Timestamp {
    let bounded = at.clamp(Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
    Timestamp::from_second(bounded).unwrap_or(Timestamp::MAX)
}

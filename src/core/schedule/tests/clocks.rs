//! Changes of clocks one by one, and dues counted over downtimes.

use super::{START_MS, cron, local};
use crate::core::schedule::Missed;

#[test]
fn spring_in_new_york() {
    let after = "2026-03-07T12:00:00Z";
    let next = |expression: &str, count| local(expression, "America/New_York", after, count);
    assert_eq!(
        next("30 2 * * *", 3),
        [
            "2026-03-08 03:00:00 -04:00 Sun",
            "2026-03-09 02:30:00 -04:00 Mon",
            "2026-03-10 02:30:00 -04:00 Tue"
        ],
        "left out: once, when the gap ends"
    );
    assert_eq!(
        next("0,20,40 2 8 3 *", 2),
        ["2026-03-08 03:00:00 -04:00 Sun", "2027-03-08 02:00:00 -05:00 Mon"],
        "three left out: once"
    );
    assert_eq!(
        next("0 2,3 * * *", 2),
        ["2026-03-08 03:00:00 -04:00 Sun", "2026-03-09 02:00:00 -04:00 Mon"],
        "one left out and one at the gap's end: once"
    );
    assert_eq!(
        next("*/30 2 * * *", 2),
        ["2026-03-09 02:00:00 -04:00 Mon", "2026-03-09 02:30:00 -04:00 Mon"],
        "a wildcard follows the clock"
    );
    assert_eq!(
        local("*/20 * * * *", "America/New_York", "2026-03-08T06:39:00Z", 3),
        [
            "2026-03-08 01:40:00 -05:00 Sun",
            "2026-03-08 03:00:00 -04:00 Sun",
            "2026-03-08 03:20:00 -04:00 Sun"
        ]
    );
    assert_eq!(
        next("0 12 * * 6", 2),
        ["2026-03-07 12:00:00 -05:00 Sat", "2026-03-14 12:00:00 -04:00 Sat"]
    );
}

#[test]
fn autumn_in_new_york() {
    let next = |expression: &str, count| local(expression, "America/New_York", "2026-11-01T04:00:00Z", count);
    assert_eq!(
        next("30 1 * * *", 2),
        ["2026-11-01 01:30:00 -04:00 Sun", "2026-11-02 01:30:00 -05:00 Mon"]
    );
    assert_eq!(
        next("0 1 * * *", 2),
        ["2026-11-01 01:00:00 -04:00 Sun", "2026-11-02 01:00:00 -05:00 Mon"]
    );
    assert_eq!(
        next("0 2 * * *", 2),
        ["2026-11-01 02:00:00 -05:00 Sun", "2026-11-02 02:00:00 -05:00 Mon"]
    );
    assert_eq!(
        next("30 * * * *", 4),
        [
            "2026-11-01 00:30:00 -04:00 Sun",
            "2026-11-01 01:30:00 -04:00 Sun",
            "2026-11-01 01:30:00 -05:00 Sun",
            "2026-11-01 02:30:00 -05:00 Sun"
        ],
        "a wildcard follows the clock"
    );
    assert_eq!(
        local("0,30 1 * * *", "America/New_York", "2026-11-01T05:40:00Z", 1),
        ["2026-11-02 01:00:00 -05:00 Mon"],
        "asked within the second pass"
    );
    assert_eq!(
        next("*/30 1 1 11 *", 5)[1..],
        [
            "2026-11-01 01:30:00 -04:00 Sun",
            "2026-11-01 01:00:00 -05:00 Sun",
            "2026-11-01 01:30:00 -05:00 Sun",
            "2027-11-01 01:00:00 -04:00 Mon"
        ],
        "the second pass is not jumped over on the way to the next year"
    );
}

#[test]
fn half_hours_missing_days_and_odd_offsets() {
    assert_eq!(
        local("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", 2),
        ["2026-10-04 02:30:00 +11:00 Sun", "2026-10-05 02:15:00 +11:00 Mon"]
    );
    assert_eq!(
        local("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00:00Z", 2),
        ["2026-04-05 01:45:00 +11:00 Sun", "2026-04-06 01:45:00 +10:30 Mon"]
    );
    assert_eq!(
        local("0 12 * * *", "Pacific/Apia", "2011-12-29T00:00:00Z", 3),
        [
            "2011-12-29 12:00:00 -10:00 Thu",
            "2011-12-31 00:00:00 +14:00 Sat",
            "2011-12-31 12:00:00 +14:00 Sat"
        ],
        "the day that Samoa left out is made up for when it ends"
    );
    assert_eq!(
        local("0 */12 * * *", "Pacific/Apia", "2011-12-29T20:00:00Z", 3),
        [
            "2011-12-29 12:00:00 -10:00 Thu",
            "2011-12-31 00:00:00 +14:00 Sat",
            "2011-12-31 12:00:00 +14:00 Sat"
        ]
    );
    assert_eq!(
        local("0 0 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00Z", 1),
        ["2011-12-31 00:00:00 +14:00 Sat"]
    );
    assert_eq!(
        local("* * * * *", "Africa/Monrovia", "1972-01-07T00:43:00Z", 3),
        [
            "1972-01-06 23:59:00 -00:44:30 Thu",
            "1972-01-07 00:45:00 +00:00 Fri",
            "1972-01-07 00:46:00 +00:00 Fri"
        ]
    );
}

#[test]
fn missed_dues_are_counted() {
    let minutely = cron("* * * * *", "UTC");
    let missed = |due_ms, now_ms| minutely.missed(due_ms, now_ms);
    assert_eq!(
        missed(60_000, 60_000),
        Missed {
            latest_ms: 60_000,
            skipped: 0
        }
    );
    assert_eq!(
        missed(60_000, 119_999),
        Missed {
            latest_ms: 60_000,
            skipped: 0
        }
    );
    assert_eq!(
        missed(60_000, 120_000),
        Missed {
            latest_ms: 120_000,
            skipped: 1
        }
    );
    // Fifty years of minutes.
    assert_eq!(
        missed(0, 1_577_836_800_000),
        Missed {
            latest_ms: 1_577_836_800_000,
            skipped: 26_297_280
        }
    );
    assert_eq!(missed(0, u64::MAX).latest_ms, 253_402_207_200_000);
    assert_eq!(
        missed(u64::MAX, u64::MAX),
        Missed {
            latest_ms: u64::MAX,
            skipped: 0
        }
    );
    let yearly = cron("0 0 29 2 *", "Europe/Berlin");
    let due_ms = yearly.next_after(0).expect("1972 had one");
    let missed = yearly.missed(due_ms, START_MS);
    assert_eq!(
        (missed.skipped, yearly.local_text(missed.latest_ms)),
        (13, "2024-02-29 00:00:00 +01:00 Thu".to_owned())
    );
}

#[test]
fn a_gap_counts_once_among_the_missed() {
    let gap_end_ms = 1_772_953_200_000;
    for (expression, due_ms) in [
        ("30 2 * * *", gap_end_ms - 23 * 3_600_000 - 1_800_000),
        ("0 2,3 * * *", gap_end_ms - 23 * 3_600_000),
        ("0,30 2 * * *", gap_end_ms - 23 * 3_600_000 - 1_800_000),
    ] {
        let cron = cron(expression, "America/New_York");
        assert_eq!(cron.next_after(due_ms), Some(gap_end_ms), "{expression}");
        assert_eq!(
            cron.missed(due_ms, gap_end_ms - 1),
            Missed {
                latest_ms: due_ms,
                skipped: 0
            },
            "{expression}"
        );
        let all = Missed {
            latest_ms: gap_end_ms,
            skipped: 1,
        };
        assert_eq!(cron.missed(due_ms, gap_end_ms), all, "{expression}");
        assert_eq!(cron.missed(due_ms, gap_end_ms + 3_600_000), all, "{expression}");
    }
}

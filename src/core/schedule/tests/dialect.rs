//! Which lines mean what: rows computed elsewhere, macros, the day fields, the signs beyond crontab.

use super::{START_MS, cron, dues, local};
use crate::core::schedule::{Cron, CronError};

#[test]
fn four_hundred_lines_fire_when_linux_cron_would() {
    let mut rows = 0;
    for row in include_str!("../../../../tests/cron-linux.tsv").lines() {
        let mut columns = row.split('\t');
        let expression = columns.next().expect("a row has an expression");
        let expected: Vec<u64> = columns.map(|at| at.parse::<u64>().expect("seconds") * 1_000).collect();
        assert!(!expected.is_empty(), "{expression}");
        assert_eq!(
            dues(&cron(expression, "UTC"), START_MS, expected.len()),
            expected,
            "{expression}"
        );
        rows += 1;
    }
    assert_eq!(rows, 400);
}

#[test]
fn macros_are_the_lines_they_stand_for() {
    for (text, line) in [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
        (" @Daily\n", "0 0 * * *"),
        ("CRON_TZ=Asia/Tokyo @daily", "TZ=Asia/Tokyo 0 0 * * *"),
    ] {
        assert_eq!(cron(text, "UTC"), cron(line, "UTC"), "{text}");
    }
    assert_eq!(Cron::parse("@reboot", "UTC"), Err(CronError::Reboot));
    assert_eq!(
        Cron::parse("@every 5m", "UTC"),
        Err(CronError::Macro {
            name: "@every 5m".to_owned()
        })
    );
}

#[test]
fn blanks_and_letter_case_do_not_matter() {
    let plain = cron("0 5 * MAR MON", "UTC");
    for text in [
        " 0 5 * MAR MON ",
        "0\t5  *\tmar mon\r\n",
        "00 05 * Mar Mon",
        "TZ=utc\t0 5 * 3 1",
    ] {
        assert_eq!(cron(text, "UTC"), plain, "{text:?}");
    }
}

#[test]
fn a_zone_in_the_line_goes_before_the_one_beside_it() {
    let tokyo = cron("0 9 * * *", "Asia/Tokyo");
    for text in [
        "TZ=Asia/Tokyo 0 9 * * *",
        "CRON_TZ=Asia/Tokyo 0 9 * * *",
        "TZ=asia/tokyo  0 9 * * *",
    ] {
        assert_eq!(cron(text, "America/New_York"), tokyo, "{text}");
        assert_eq!(cron(text, "UTC").timezone(), "Asia/Tokyo");
    }
    // 09:00 in Tokyo is midnight in UTC.
    assert_eq!(tokyo.next_after(START_MS - 1), Some(START_MS));
    for name in [
        "Europe/Atlantis",
        "",
        "Etc/Unknown",
        "../../etc/passwd",
        &"x".repeat(65),
    ] {
        let error = Cron::parse("* * * * *", name).expect_err("there is no such zone");
        assert!(matches!(error, CronError::UnknownTimezone { .. }), "{name}: {error}");
        assert!(Cron::parse(&format!("TZ={name} * * * * *"), "UTC").is_err(), "{name}");
    }
}

#[test]
fn days_match_either_field_unless_one_begins_with_a_star() {
    let day = |expression: &str| {
        local(expression, "UTC", "2026-03-01T00:00:00Z", 4)
            .join(", ")
            .replace(" 00:00:00 +00:00", "")
    };
    assert_eq!(
        day("0 0 13 * 5"),
        "2026-03-06 Fri, 2026-03-13 Fri, 2026-03-20 Fri, 2026-03-27 Fri"
    );
    assert_eq!(
        day("0 0 14 * 5"),
        "2026-03-06 Fri, 2026-03-13 Fri, 2026-03-14 Sat, 2026-03-20 Fri"
    );
    assert_eq!(
        day("0 0 */2 * 5"),
        "2026-03-13 Fri, 2026-03-27 Fri, 2026-04-03 Fri, 2026-04-17 Fri"
    );
    assert_eq!(
        day("0 0 13 * */5"),
        "2026-03-13 Fri, 2026-09-13 Sun, 2026-11-13 Fri, 2026-12-13 Sun"
    );
    assert_eq!(
        day("0 0 1-31 * 5"),
        "2026-03-02 Mon, 2026-03-03 Tue, 2026-03-04 Wed, 2026-03-05 Thu"
    );
    assert_eq!(
        day("0 0 29 2 */7"),
        "2032-02-29 Sun, 2060-02-29 Sun, 2088-02-29 Sun, 2128-02-29 Sun"
    );
}

#[test]
fn signs_beyond_crontab_count_weekdays_as_crontab_does() {
    let day = |expression: &str| {
        local(expression, "UTC", "2026-01-31T12:00:00Z", 3)
            .join(", ")
            .replace(" 00:00:00 +00:00", "")
    };
    assert_eq!(day("0 0 L * *"), "2026-02-28 Sat, 2026-03-31 Tue, 2026-04-30 Thu");
    assert_eq!(day("0 0 l-1 * *"), "2026-02-27 Fri, 2026-03-30 Mon, 2026-04-29 Wed");
    assert_eq!(day("0 0 LW * *"), "2026-02-27 Fri, 2026-03-31 Tue, 2026-04-30 Thu");
    assert_eq!(day("0 0 1W * *"), "2026-02-02 Mon, 2026-03-02 Mon, 2026-04-01 Wed");
    assert_eq!(day("0 0 28w 2 *"), "2026-02-27 Fri, 2027-02-26 Fri, 2028-02-28 Mon");
    for (number, name) in ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"].iter().enumerate() {
        assert_eq!(
            cron(&format!("0 0 * * {number}#2"), "UTC"),
            cron(&format!("0 0 * * {name}#2"), "UTC")
        );
        assert_eq!(
            cron(&format!("0 0 * * {number}L"), "UTC"),
            cron(&format!("0 0 * * {name}L"), "UTC")
        );
    }
    assert_eq!(day("0 0 * * 7#1"), "2026-02-01 Sun, 2026-03-01 Sun, 2026-04-05 Sun");
    assert_eq!(day("0 0 * * 0#1"), "2026-02-01 Sun, 2026-03-01 Sun, 2026-04-05 Sun");
    assert_eq!(day("0 0 * * 5#2"), "2026-02-13 Fri, 2026-03-13 Fri, 2026-04-10 Fri");
    assert_eq!(day("0 0 * * 6L"), "2026-02-28 Sat, 2026-03-28 Sat, 2026-04-25 Sat");
    assert_eq!(day("0 0 15 * 1#1"), "2026-02-02 Mon, 2026-02-15 Sun, 2026-03-02 Mon");
    assert_eq!(day("0 0 */2 * 1#1"), "2026-06-01 Mon, 2026-08-03 Mon, 2026-09-07 Mon");
}

#[test]
fn some_lines_never_fire() {
    for expression in [
        "0 0 30 2 *",
        "0 0 31 11 *",
        "0 0 31 2,4,6,9,11 */1",
        "* * 30 2 */2",
        "0 0 L-30 4 *",
        "0 0 L-29 2 *",
        "* * */31 * 5#2",
    ] {
        for zone in ["UTC", "America/New_York"] {
            assert_eq!(cron(expression, zone).next_after(START_MS), None, "{expression}");
        }
    }
    assert_eq!(
        local("0 0 31 2 MON", "UTC", "2026-02-02T00:00:00Z", 1),
        ["2026-02-09 00:00:00 +00:00 Mon"]
    );
}

#[test]
fn time_ends_with_the_year_9999() {
    let last_new_year_ms = 253_370_764_800_000;
    let yearly = cron("0 0 1 1 *", "UTC");
    assert_eq!(yearly.next_after(last_new_year_ms - 1), Some(last_new_year_ms));
    assert_eq!(yearly.next_after(last_new_year_ms), None);
    let minutely = cron("* * * * *", "Asia/Tokyo");
    let end_ms = u64::try_from(jiff::Timestamp::MAX.as_second()).expect("after 1970") * 1_000;
    assert_eq!(minutely.next_after(end_ms - 1), Some(end_ms));
    assert_eq!(minutely.local_text(end_ms), "9999-12-31 07:00:00 +09:00 Fri");
    for after_ms in [end_ms, end_ms + 1, u64::MAX] {
        assert_eq!(minutely.next_after(after_ms), None);
    }
    assert_eq!(minutely.next_after(0), Some(60_000));
}

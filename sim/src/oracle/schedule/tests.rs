//! Known instants, and agreement with the product's own evaluator, with which it shares no code.

use proptest::prelude::*;
use xcron::core::schedule::Cron as Product;

use super::{Schedule, civil, days, weekday};
use crate::history::{START_WALL_MS, When};

const HOUR: u64 = 3_600_000;

fn cron(line: &str, zone: &str) -> Option<Schedule> {
    Schedule::of(&When::Cron {
        line: line.into(),
        zone: zone.into(),
    })
}

fn product(line: &str, zone: &str, after_ms: u64, until_ms: u64) -> Vec<u64> {
    let cron = Product::parse(line, zone).expect("a good line");
    let next = std::iter::successors(cron.next_after(after_ms), |due_ms| cron.next_after(*due_ms));
    next.take_while(|due_ms| *due_ms <= until_ms).collect()
}

#[test]
fn the_calendar_is_right() {
    assert_eq!(civil(0), (1970, 1, 1));
    assert_eq!(civil(20_513), (2026, 3, 1));
    assert_eq!(weekday(20_513), 0, "a Sunday");
    for day in -1_000..60_000 {
        let (year, month, date) = civil(day);
        assert_eq!(days(year, month, date), day);
    }
}

#[test]
fn known_dues() {
    let dues = |line, zone, hours| {
        cron(line, zone)
            .expect("known")
            .dues(START_WALL_MS, START_WALL_MS + hours * HOUR)
    };
    assert_eq!(
        dues("0 * * * *", "UTC", 2),
        [START_WALL_MS + HOUR, START_WALL_MS + 2 * HOUR],
        "after, and up to"
    );
    assert_eq!(
        dues("30 1 * * MON-FRI", "Asia/Shanghai", 24),
        [START_WALL_MS + 17 * HOUR + HOUR / 2]
    );
    assert_eq!(
        dues("0 0 */2 * MON", "UTC", 24 * 9),
        [START_WALL_MS + 24 * 8 * HOUR],
        "both must match"
    );
    assert_eq!(
        dues("30 2 8 3 *", "America/New_York", 24 * 8),
        [START_WALL_MS + (24 * 7 + 7) * HOUR],
        "the end of the gap"
    );
    assert!(
        cron("0 12 L * *", "UTC").is_none() && cron("* * * * *", "Asia/Tehran").is_none(),
        "not judged"
    );
    let once = Schedule::of(&When::Once(START_WALL_MS / 1_000)).expect("known");
    assert!(once.is_due(START_WALL_MS) && !once.is_due(START_WALL_MS + 1_000));
    let hourly = cron("@hourly", "UTC").expect("known");
    assert!(
        hourly.is_due(START_WALL_MS) && !hourly.is_due(START_WALL_MS + 60_000) && !hourly.is_due(START_WALL_MS + 1)
    );
}

#[test]
fn a_due_that_is_left_out_or_too_many_would_show() {
    // The test of agreement below can fail: a wrong zone or a wrong line disagrees.
    let until_ms = START_WALL_MS + 30 * 24 * HOUR;
    let dues = cron("0 5 * * *", "Europe/Berlin")
        .expect("known")
        .dues(START_WALL_MS, until_ms);
    assert_ne!(dues, product("0 5 * * *", "UTC", START_WALL_MS, until_ms));
    assert_ne!(dues, product("0 5 1-29 * *", "Europe/Berlin", START_WALL_MS, until_ms));
}

fn field(low: u8, high: u8) -> impl Strategy<Value = String> {
    let number = low..=high;
    let item = prop_oneof![
        3 => Just("*".to_owned()),
        2 => (2..=high.min(30)).prop_map(|step| format!("*/{step}")),
        3 => number.clone().prop_map(|number| number.to_string()),
        2 => (number.clone(), number, 1..5_u8).prop_map(|(one, other, step)| {
            format!("{}-{}/{step}", one.min(other), one.max(other))
        }),
    ];
    proptest::collection::vec(item, 1..3).prop_map(|items| {
        // A star within a list is no number among others.
        let star = items.iter().find(|item| item.starts_with('*')).cloned();
        star.unwrap_or_else(|| items.join(","))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_product(
        minute in field(0, 59), hour in field(0, 23), date in field(1, 31), month in field(1, 12), weekday in field(0, 7),
        zone in prop_oneof![
            3 => Just("UTC"), 1 => Just("Asia/Kolkata"), 1 => Just("America/Phoenix"), 1 => Just("Europe/Berlin"),
            1 => Just("Europe/London"), 1 => Just("America/New_York"), 1 => Just("America/Los_Angeles"),
        ],
        start_hours in 0..20_000_u64, offset_ms in 0..HOUR,
    ) {
        let line = format!("{minute} {hour} {date} {month} {weekday}");
        let after_ms = START_WALL_MS + start_hours * HOUR + offset_ms;
        let until_ms = after_ms + 20 * 24 * HOUR;
        let ours = cron(&line, zone).expect("known").dues(after_ms, until_ms);
        prop_assert_eq!(ours, product(&line, zone, after_ms, until_ms), "{} in {}", line, zone);
    }

    #[test]
    fn clocks_that_change_agree_too(minute in field(0, 59), hour in field(0, 4), zone in prop_oneof![
        Just("Europe/Berlin"), Just("Europe/London"), Just("America/New_York"), Just("America/Los_Angeles"),
    ], change in prop_oneof![Just("2026-03-08"), Just("2026-03-29"), Just("2026-10-25"), Just("2026-11-01")]) {
        let day = change.split('-').map(|part| part.parse().expect("a number")).collect::<Vec<i64>>();
        let day_ms = u64::try_from(days(day[0], day[1], day[2])).expect("after 1970") * 24 * HOUR;
        let line = format!("{minute} {hour} * * *");
        let (after_ms, until_ms) = (day_ms - 24 * HOUR, day_ms + 48 * HOUR);
        let ours = cron(&line, zone).expect("known").dues(after_ms, until_ms);
        prop_assert_eq!(ours, product(&line, zone, after_ms, until_ms), "{} in {}", line, zone);
    }
}

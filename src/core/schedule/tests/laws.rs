//! Laws on random lines, zones and instants, most of them near changes of clocks.

use proptest::prelude::*;

use super::oracle::Oracle;
use crate::core::schedule::{Cron, Missed};

/// Zones with the instant of a change of clocks each: whole and half hours, midnight, a day left out, a double one.
const CHANGES: [(&str, i64); 14] = [
    ("UTC", 1_772_323_200),
    ("Asia/Kathmandu", 504_901_800),
    ("America/New_York", 1_772_953_200),
    ("America/New_York", 1_793_512_800),
    ("Europe/Dublin", 1_774_746_000),
    ("Europe/Dublin", 1_792_890_000),
    ("Australia/Lord_Howe", 1_775_314_800),
    ("Australia/Lord_Howe", 1_791_041_400),
    ("Pacific/Apia", 1_325_239_200),
    ("America/Sao_Paulo", 1_508_036_400),
    ("America/Sao_Paulo", 1_518_919_200),
    ("Antarctica/Troll", 1_774_746_000),
    ("Antarctica/Troll", 1_792_890_000),
    ("Pacific/Chatham", 1_775_311_200),
];

/// One field: lists of `*`, values and ranges, with and without steps.
fn field(low: u8, high: u8, names: &'static [&'static str]) -> impl Strategy<Value = String> {
    let value = (low..=high).prop_map(move |value| match names.get(usize::from(value)) {
        Some(name) if !name.is_empty() && value % 3 == 0 => (*name).to_owned(),
        _ => value.to_string(),
    });
    let range = (low..=high, low..=high).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b)));
    let step = prop_oneof![1..8_u8, 1..=high.max(1)];
    let item = prop_oneof![
        4 => value,
        2 => range.clone(),
        2 => (range, step.clone()).prop_map(|(range, step)| format!("{range}/{step}")),
        1 => step.prop_map(|step| format!("*/{step}")),
    ];
    prop_oneof![
        3 => Just("*".to_owned()),
        7 => prop::collection::vec(item, 1..4).prop_map(|items| items.join(",")),
    ]
}

fn line() -> impl Strategy<Value = String> {
    const WEEKDAYS: &[&str] = &["SUN", "mon", "TUE", "Wed", "THU", "FRI", "sat"];
    const MONTHS: &[&str] = &[
        "", "JAN", "Feb", "MAR", "APR", "MAY", "jun", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
    ];
    let date = prop_oneof![
        8 => field(1, 31, &[]),
        1 => prop_oneof![Just("L".to_owned()), Just("LW".to_owned()), (1..=28_u8).prop_map(|day| format!("{day}W"))],
        1 => (1..=30_u8).prop_map(|before| format!("L-{before}")),
    ];
    let weekday = prop_oneof![
        8 => field(0, 7, WEEKDAYS),
        1 => (0..=7_u8, 1..=5_u8).prop_map(|(day, nth)| format!("{day}#{nth}")),
        1 => (0..=6_usize).prop_map(|day| format!("{}L", WEEKDAYS[day])),
    ];
    // Most lines fire in any month, so that there is something to compare.
    let month = prop_oneof![3 => Just("*".to_owned()), 1 => field(1, 12, MONTHS)];
    (field(0, 59, &[]), field(0, 23, &[]), date, month, weekday)
        .prop_map(|(minute, hour, date, month, weekday)| format!("{minute} {hour} {date} {month} {weekday}"))
        .prop_filter("too long", |line| line.len() <= 256)
}

/// A zone and a second, a whole minute in UTC.
fn place() -> impl Strategy<Value = (&'static str, i64)> {
    let near =
        (prop::sample::select(&CHANGES[..]), -2_880..2_880_i64).prop_map(|((zone, at), by)| (zone, at + by * 60));
    let any =
        (prop::sample::select(&CHANGES[..]), 5_000_000..34_000_000_i64).prop_map(|((zone, _), at)| (zone, at * 60));
    prop_oneof![3 => near, 1 => any]
}

fn ms(seconds: i64) -> u64 {
    u64::try_from(seconds).expect("after 1970") * 1_000
}

fn parse(line: &str, zone: &str) -> Cron {
    Cron::parse(line, zone).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// Every due in `from..end` by asking for the next one again and again.
fn stepped(cron: &Cron, from: u64, end: u64) -> Vec<u64> {
    let dues = std::iter::successors(cron.next_after(from - 1), |due| cron.next_after(*due));
    dues.take_while(|due| *due < end).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn dues_are_those_of_a_slow_second_reading(line in line(), (zone, from) in place()) {
        let end = from + 2 * 86_400;
        let expected: Vec<u64> = Oracle::new(&line, zone).dues(from, end).into_iter().map(ms).collect();
        prop_assert_eq!(stepped(&parse(&line, zone), ms(from), ms(end)), expected, "{} in {}", line, zone);
    }

    #[test]
    fn days_are_those_of_a_slow_second_reading(line in line(), year in 1971..2100_i64) {
        // One minute a day, so that a whole year can be looked at.
        let days = line.splitn(3, ' ').nth(2).expect("five fields");
        let line = format!("0 0 {days}");
        let oracle = Oracle::new(&line, "UTC");
        let from = (year - 1970) * 31_556_952 / 86_400 * 86_400;
        let expected: Vec<u64> =
            (0..400).map(|day| from + day * 86_400).filter(|at| oracle.matches(*at)).map(ms).collect();
        prop_assert_eq!(stepped(&parse(&line, "UTC"), ms(from), ms(from + 400 * 86_400)), expected, "{}", line);
    }

    #[test]
    fn the_next_due_is_later(line in line(), (zone, after) in place(), extra_ms in 0..60_000_u64) {
        let after_ms = ms(after) + extra_ms;
        if let Some(next) = parse(&line, zone).next_after(after_ms) {
            prop_assert!(next > after_ms);
            prop_assert_eq!(parse(&line, zone).next_after(next - 1), Some(next));
        }
    }

    #[test]
    fn missed_is_what_stepping_counts((line, (zone, from)) in (line(), place()), minutes in 0..4_320_u64, extra_ms in 0..60_000_u64) {
        let cron = parse(&line, zone);
        if let Some(due_ms) = cron.next_after(ms(from)) {
            let now_ms = due_ms + minutes * 60_000 + extra_ms;
            let dues = stepped(&cron, due_ms, now_ms + 1);
            let latest_ms = *dues.last().expect("the due itself");
            let skipped = u64::try_from(dues.len()).expect("small") - 1;
            prop_assert_eq!(cron.missed(due_ms, now_ms), Missed { latest_ms, skipped }, "{} in {}", line, zone);
        }
    }

    #[test]
    fn missed_over_years_is_what_stepping_counts(line in line(), (zone, from) in place(), days in 0..1_500_u64) {
        // Few dues a day, so that years can be stepped through.
        let days_fields = line.splitn(3, ' ').nth(2).expect("five fields");
        for clock in ["30 1,2", "30 */9"] {
            let cron = parse(&format!("{clock} {days_fields}"), zone);
            if let Some(due_ms) = cron.next_after(ms(from)) {
                let now_ms = due_ms + days * 86_400_000;
                let dues = stepped(&cron, due_ms, now_ms + 1);
                let latest_ms = *dues.last().expect("the due itself");
                let skipped = u64::try_from(dues.len()).expect("small") - 1;
                prop_assert_eq!(cron.missed(due_ms, now_ms), Missed { latest_ms, skipped }, "{} {} in {}", clock, days_fields, zone);
            }
        }
    }

    #[test]
    fn words_are_the_same_exactly_when_the_times_are(one in line(), other in line(), changed in 0..5_usize) {
        let mut fields: Vec<&str> = one.split(' ').collect();
        fields[changed] = other.split(' ').nth(changed).expect("five fields");
        let (one, other) = (parse(&one, "UTC"), parse(&fields.join(" "), "UTC"));
        prop_assert_eq!(one.describe() == other.describe(), one.pattern == other.pattern, "{}\n{}", one.describe(), other.describe());
    }

    #[test]
    fn any_text_is_read_or_refused_in_words(text in prop_oneof![
        ".*",
        "[-0-9*/,#LWSUNMOFRIJAN@=TZ? ]{0,40}",
        "([-0-9*/,#LW]{1,5} ){4}[-0-9*/,#LWSUN]{1,5}",
        "(CRON_)?TZ=[A-Za-z/_ ]{0,20} ([-0-9*/,]{1,4} ){5}",
    ]) {
        match Cron::parse(&text, "UTC") {
            Ok(cron) => {
                let next = cron.next_after(1_772_323_200_000);
                prop_assert!(next.is_none_or(|next| next > 1_772_323_200_000));
                let zone = format!("({}).", cron.timezone());
                prop_assert!(cron.describe().ends_with(&zone));
            }
            Err(error) => {
                let said = error.to_string();
                prop_assert!(said.len() > 20 && said.len() < 3_000 && !said.contains(['\n', '\0']), "{}", said);
            }
        }
    }
}

#[test]
fn the_changes_are_changes() {
    for (zone, at) in CHANGES.into_iter().skip(1) {
        let zone = jiff::tz::TimeZone::get(zone).expect("a zone");
        let offset = |at| zone.to_offset(jiff::Timestamp::from_second(at).expect("in range"));
        assert_ne!(offset(at - 1), offset(at), "{zone:?} {at}");
    }
}

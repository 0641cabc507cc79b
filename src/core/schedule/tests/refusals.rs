//! Every refusal and its words.

use super::cron;
use crate::core::schedule::{Cron, CronError, Field, Problem};
use crate::limits::CRON_BYTES_MAX;

fn refusal(expression: &str) -> String {
    match Cron::parse(expression, "UTC") {
        Ok(cron) => panic!("{expression:?} was accepted: {}", cron.describe()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn refusals_name_the_field_the_fault_and_what_is_allowed() {
    for (expression, field, fault) in [
        ("60 * * * *", Field::Minute, r#""60" is out of range"#),
        ("99999999999999999999999 * * * *", Field::Minute, "is out of range"),
        ("*/0 * * * *", Field::Minute, "step of 0"),
        ("5/15 * * * *", Field::Minute, "5-59/15"),
        ("1,,2 * * * *", Field::Minute, "empty"),
        (", * * * *", Field::Minute, "empty"),
        ("*5 * * * *", Field::Minute, "after the *"),
        ("*-5 * * * *", Field::Minute, "after the *"),
        ("-5 * * * *", Field::Minute, "neither a number nor a name"),
        ("1-2-3 * * * *", Field::Minute, "neither a number nor a name"),
        ("*/2/3 * * * *", Field::Minute, "not a number"),
        ("L * * * *", Field::Minute, "neither a number nor a name"),
        ("* 24 * * *", Field::Hour, "is out of range"),
        ("* 22-2 * * *", Field::Hour, r#""22-2" runs backwards"#),
        ("* 1-5/ * * *", Field::Hour, "not a number"),
        ("* * 0 * *", Field::DayOfMonth, "is out of range"),
        ("* * 32 * *", Field::DayOfMonth, "is out of range"),
        ("* * ? * *", Field::DayOfMonth, "write * instead"),
        ("* * L,15 * *", Field::DayOfMonth, "stand alone"),
        ("* * L-31 * *", Field::DayOfMonth, "is out of range"),
        ("* * L-0 * *", Field::DayOfMonth, "is out of range"),
        ("* * L-3W * *", Field::DayOfMonth, "not a supported form"),
        ("* * 31W * *", Field::DayOfMonth, "1W to 28W"),
        ("* * 32W * *", Field::DayOfMonth, "is out of range"),
        ("* * * 0 *", Field::Month, "is out of range"),
        ("* * * NOV-FEB *", Field::Month, "runs backwards"),
        ("* * * MON *", Field::Month, "neither a number nor a name"),
        ("* * * * 8", Field::DayOfWeek, "is out of range"),
        ("* * * * FRI-SUN", Field::DayOfWeek, "write 7 for a Sunday"),
        ("* * * * 7-1", Field::DayOfWeek, "runs backwards"),
        ("* * * * MONDAY", Field::DayOfWeek, "neither a number nor a name"),
        ("* * * * 5#6", Field::DayOfWeek, "is out of range"),
        ("* * * * 5#", Field::DayOfWeek, "not a supported form"),
        ("* * * * 8#1", Field::DayOfWeek, "is out of range"),
        ("* * * * 1#1,2#2", Field::DayOfWeek, "stand alone"),
        ("* * * * 1,5L", Field::DayOfWeek, "stand alone"),
        ("* * * * L", Field::DayOfWeek, "not a supported form"),
        ("* * * * 1-5L", Field::DayOfWeek, "not a supported form"),
        ("* * *\n* *", Field::DayOfWeek, ""),
    ] {
        if fault.is_empty() {
            assert!(
                Cron::parse(expression, "UTC").is_err(),
                "a line end is no blank within a line"
            );
            continue;
        }
        let said = refusal(expression);
        assert!(said.starts_with(&format!("{field}: ")), "{expression}: {said}");
        assert!(said.contains(fault), "{expression}: {said}");
        assert!(
            said.ends_with(&format!("; allowed: {}", field.allowed())),
            "{expression}: {said}"
        );
    }
    let problem = Problem::Backwards;
    let expected = CronError::Field {
        field: Field::Hour,
        item: "22-2".to_owned(),
        problem,
    };
    assert_eq!(Cron::parse("0 1,22-2 * * *", "UTC"), Err(expected));
}

#[test]
fn refusals_of_whole_lines() {
    assert_eq!(Cron::parse(" \t", "UTC"), Err(CronError::Empty));
    assert_eq!(Cron::parse("TZ=UTC", "UTC"), Err(CronError::Empty));
    assert!(refusal("* * * *").contains("found 4 fields where a crontab line has 5: minute, hour"));
    assert!(refusal("*").contains("found 1 field where"));
    assert!(
        refusal("0 * * * * *").contains("found 6 fields")
            && refusal("0 * * * * *").contains("seconds are not supported yet")
    );
    assert!(refusal("@reboot").contains("@reboot"));
    assert!(refusal("@every 5m").contains("@hourly"));
    let long = format!("{} * * * *", "0,".repeat(200));
    assert_eq!(Cron::parse(&long, "UTC"), Err(CronError::TooLong { bytes: long.len() }));
    let longest = format!("{}0 * * * *", "0,".repeat((CRON_BYTES_MAX - 9) / 2));
    assert_eq!(longest.len(), CRON_BYTES_MAX - 1);
    assert_eq!(cron(&longest, "UTC"), cron("0 * * * *", "UTC"));
}

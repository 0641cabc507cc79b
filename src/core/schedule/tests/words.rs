//! Lines in words.

use super::cron;

#[test]
fn lines_in_words() {
    for (expression, words) in [
        ("* * * * *", "Every minute, every day (UTC)."),
        ("*/15 * * * *", "Every 15 minutes, every day (UTC)."),
        ("0,30 * * * *", "Every 30 minutes, every day (UTC)."),
        ("5 * * * *", "At minute 5 of every hour, every day (UTC)."),
        ("30 2 * * 1-5", "At 02:30, on every Monday to Friday (UTC)."),
        (
            "0 9,17 * * SAT,SUN",
            "At 09:00 and 17:00, on every Saturday and Sunday (UTC).",
        ),
        (
            "*/20 8-18 * * *",
            "Every 20 minutes from 08:00 to 18:40, every day (UTC).",
        ),
        (
            "7 8-18 * * *",
            "At minute 7 of every hour from 08:07 to 18:07, every day (UTC).",
        ),
        ("* 3 * * *", "Every minute from 03:00 to 03:59, every day (UTC)."),
        (
            "1,3-5,9,10 1,3-5 * * *",
            "At minutes 1, 3 to 5, 9 and 10 of the hours 1 and 3 to 5, every day (UTC).",
        ),
        (
            "0 0 1,2,15 * *",
            "At 00:00, on the 1st, 2nd and 15th of the month (UTC).",
        ),
        (
            "0 0 1-7 3,5-12 *",
            "At 00:00, on the 1st to 7th of the month, in March and May to December (UTC).",
        ),
        (
            "0 0 13 * 5",
            "At 00:00, on the 13th of the month and also on every Friday (UTC).",
        ),
        (
            "0 0 */15 * 5,7",
            "At 00:00, on the 1st, 16th and 31st of the month, but only when that is a Friday or Sunday (UTC).",
        ),
        (
            "0 0 L 2 *",
            "At 00:00, on the last day of the month, in February (UTC).",
        ),
        (
            "0 0 L-3 * *",
            "At 00:00, 3 days before the last day of the month (UTC).",
        ),
        (
            "0 0 22W * *",
            "At 00:00, on the Monday-to-Friday day nearest to the 22nd of the month (UTC).",
        ),
        ("0 0 * * 7#3", "At 00:00, on the 3rd Sunday of the month (UTC)."),
        (
            "0 0 */2 * 1L",
            "At 00:00, on the 1st, 3rd, 5th, 7th, 9th, 11th, 13th, 15th, 17th, 19th, 21st, 23rd, 25th, 27th, 29th and \
            31st of the month, but only when that is the last Monday of the month (UTC).",
        ),
        ("TZ=Europe/Berlin @daily", "At 00:00, every day (Europe/Berlin)."),
    ] {
        assert_eq!(cron(expression, "UTC").describe(), words, "{expression}");
    }
}

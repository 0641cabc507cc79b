//! What every test of schedules shares.

mod clocks;
mod dialect;
mod laws;
mod oracle;
mod refusals;
mod words;

use super::Cron;

/// 2026-03-01T00:00:00Z.
const START_MS: u64 = 1_772_323_200_000;

fn cron(expression: &str, timezone: &str) -> Cron {
    Cron::parse(expression, timezone).unwrap_or_else(|error| panic!("{expression}: {error}"))
}

fn dues(cron: &Cron, after_ms: u64, count: usize) -> Vec<u64> {
    std::iter::successors(cron.next_after(after_ms), |due| cron.next_after(*due))
        .take(count)
        .collect()
}

/// The next dues as they read on the zone's clocks.
fn local(expression: &str, timezone: &str, after: &str, count: usize) -> Vec<String> {
    let after: jiff::Timestamp = after.parse().expect("an instant");
    let cron = cron(expression, timezone);
    let after_ms = u64::try_from(after.as_millisecond()).expect("after 1970");
    dues(&cron, after_ms, count)
        .into_iter()
        .map(|due| cron.local_text(due))
        .collect()
}

//! The dialect held against rows computed elsewhere.

use super::Cron;

/// 2026-03-01T00:00:00Z.
const START_MS: u64 = 1_772_323_200_000;

fn dues(cron: &Cron, after_ms: u64, count: usize) -> Vec<u64> {
    std::iter::successors(cron.next_after(after_ms), |due| cron.next_after(*due))
        .take(count)
        .collect()
}

#[test]
fn four_hundred_lines_fire_when_linux_cron_would() {
    let mut rows = 0;
    for row in include_str!("../../../tests/cron-linux.tsv").lines() {
        let mut columns = row.split('\t');
        let expression = columns.next().expect("a row has an expression");
        let expected: Vec<u64> = columns.map(|at| at.parse::<u64>().expect("seconds") * 1_000).collect();
        let cron = Cron::parse(expression, "UTC").unwrap_or_else(|error| panic!("{expression}: {error}"));
        assert_eq!(dues(&cron, START_MS, expected.len()), expected, "{expression}");
        rows += 1;
    }
    assert_eq!(rows, 400);
}

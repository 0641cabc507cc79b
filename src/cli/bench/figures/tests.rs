//! Checks of the arithmetic; `good_run` is a report's worth of figures for other tests too.

use std::time::Duration;

use super::*;

fn close(left: f64, right: f64) -> bool {
    (left - right).abs() < right.abs() * 1e-6 + 1e-9
}

/// A run of 1,000 creates in 2 s, all called, 500/s drained.
pub fn good_run() -> Figures {
    let percentiles = Percentiles {
        p50: 0.5,
        p99: 12.25,
        p999: 99.96,
        max: 1_234.5,
    };
    Figures {
        nodes: 1,
        tasks: 1_000,
        concurrency: 64,
        creates: Creates {
            acked: 1_000,
            refused: BTreeMap::new(),
            unknown: 0,
            unknown_example: None,
            not_tried: 0,
            gave_up: None,
            took_s: 2.0,
            per_s: 500.0,
            latency_ms: Some(percentiles),
        },
        queries: None,
        callbacks: Some(Callbacks {
            called: 1_000,
            missing: 0,
            early: 0,
            earliest_ms: 0.0,
            repeated: 0,
            refired: 0,
            retried: 0,
            unknown_called: 0,
            refused_called: 0,
            strange: 0,
            strange_example: None,
            lateness_ms: Some(percentiles),
            burst_tasks: 1_000,
            drained_per_s: Some(500.0),
        }),
        probes: None,
        interrupted: false,
    }
}

#[test]
fn percentiles_are_milliseconds_within_the_values_seen() {
    let mut histogram = new_histogram();
    assert_eq!(Percentiles::of(&histogram), None);
    for value_us in 1..=1_000 {
        histogram.saturating_record(value_us);
    }
    let percentiles = Percentiles::of(&histogram).expect("not empty");
    assert!(close(percentiles.p50, 0.5), "{percentiles:?}");
    assert!(close(percentiles.p99, 0.99), "{percentiles:?}");
    assert!(
        close(percentiles.p999, 0.999) && close(percentiles.max, 1.0),
        "{percentiles:?}"
    );
    histogram.saturating_record(123_456_789);
    let percentiles = Percentiles::of(&histogram).expect("not empty");
    assert!(percentiles.p999 <= percentiles.max, "{percentiles:?}");
}

#[test]
fn creates_count_what_was_not_tried() {
    let mut refused = BTreeMap::new();
    Refusal::count(&mut refused, 1002, "first");
    Refusal::count(&mut refused, 1002, "second");
    let tally = Tally {
        acked: 10,
        refused,
        unknown: 3,
        unknown_example: None,
        gave_up: None,
        latency_us: new_histogram(),
        took: Duration::from_secs(4),
        last_due_s: 0,
        ids: Vec::new(),
    };
    let creates = Creates::of(tally, 20);
    assert_eq!((creates.acked, creates.unknown, creates.not_tried), (10, 3, 5));
    assert!(close(creates.per_s, 2.5));
    let refusal = &creates.refused[&1002];
    assert_eq!((refusal.count, refusal.message.as_str()), (2, "first"));
}

#[test]
fn the_largest_burst_is_drained_from_its_first_to_its_last_arrival() {
    let burst = |tasks, last_us| Burst {
        tasks,
        first_us: 1_000,
        last_us,
    };
    assert_eq!(drained_per_s(burst(0, 1_000)), None);
    assert_eq!(drained_per_s(burst(1, 1_000)), None);
    assert_eq!(drained_per_s(burst(2, 1_000)), None);
    let drained = drained_per_s(burst(1_001, 501_000)).expect("a rate");
    assert!(close(drained, 2_000.0), "{drained}");
    let ledger = Ledger::new(0);
    let mut arrivals = ledger.arrivals();
    arrivals.bursts = BTreeMap::from([(1, burst(3, 2_000)), (2, burst(101, 101_000)), (3, burst(2, 2_000))]);
    let callbacks = Callbacks::from_sums(Counts::default(), arrivals);
    assert_eq!(callbacks.burst_tasks, 101);
    assert!(callbacks.drained_per_s.is_some_and(|drained| close(drained, 1_000.0)));
}

#[test]
fn ratios_are_to_the_mean_of_both_probes() {
    let probe = |fdatasyncs_per_s, sink_posts_per_s| Probe {
        fdatasyncs_per_s,
        sink_posts_per_s,
    };
    let figures = good_run().with_probes(probe(100.0, 900.0), Some(probe(300.0, 1_100.0)));
    let probes = figures.probes.expect("given");
    assert!(close(probes.mean.fdatasyncs_per_s, 200.0));
    assert!(close(probes.creates_per_fdatasync, 2.5));
    assert!(probes.drained_per_sink_post.is_some_and(|ratio| close(ratio, 0.5)));
    let cut_short = good_run().with_probes(probe(100.0, 900.0), None).probes.expect("given");
    assert!(close(cut_short.mean.sink_posts_per_s, 900.0));
}

#[test]
fn missing_early_and_nothing_created_fail_a_run() {
    let with = |change: &dyn Fn(&mut Figures, &mut Callbacks)| {
        let mut figures = good_run();
        let mut callbacks = figures.callbacks.take().expect("present");
        change(&mut figures, &mut callbacks);
        figures.callbacks = Some(callbacks);
        figures.failures()
    };
    assert!(with(&|_, _| {}).is_empty());
    assert!(with(&|_, callbacks| callbacks.repeated = 3).is_empty());
    assert_eq!(with(&|_, callbacks| callbacks.missing = 3), ["callbacks missing: 3"]);
    assert_eq!(with(&|_, callbacks| callbacks.early = 1), ["callbacks early: 1"]);
    assert_eq!(with(&|figures, _| figures.creates.acked = 0), ["no task was created"]);
    let interrupted = with(&|figures, callbacks| {
        figures.interrupted = true;
        callbacks.missing = 3;
    });
    assert!(interrupted.is_empty(), "{interrupted:?}");
}

//! Tests of the metrics: their names are an interface, and each function moves the numbers it says.

use super::*;

/// What dashboards and alerts rest on. The series of a counter have `_total` after the name.
const DESCRIBED: &str = "\
HELP process_start_time_seconds Start of the process since the Unix epoch.
TYPE process_start_time_seconds gauge
HELP process_virtual_memory_bytes Virtual memory.
TYPE process_virtual_memory_bytes gauge
HELP process_resident_memory_bytes Resident memory.
TYPE process_resident_memory_bytes gauge
HELP process_open_fds Open files.
TYPE process_open_fds gauge
HELP process_max_fds Most open files.
TYPE process_max_fds gauge
HELP process_cpu_seconds Processor time used.
TYPE process_cpu_seconds counter
HELP xcron_build The running program.
TYPE xcron_build info
HELP xcron_ready 1 while the node serves requests, else 0.
TYPE xcron_ready gauge
HELP xcron_fire_lateness_seconds Time from the due instant to the start of a fire's first attempt.
TYPE xcron_fire_lateness_seconds histogram
HELP xcron_attempts Callback requests started, retries included.
TYPE xcron_attempts counter
HELP xcron_attempt_answers Callback requests ended, by what came back.
TYPE xcron_attempt_answers counter
HELP xcron_callback_duration_seconds Time from the start of a callback request to its answer, or to the end of waiting for one.
TYPE xcron_callback_duration_seconds histogram
HELP xcron_fires_overdue Fires whose time has come and that wait to start, as far as they are in memory; all in groups without a leader.
TYPE xcron_fires_overdue gauge
HELP xcron_fires_behind_ms Age of the oldest due without an outcome in the groups led here or by nobody, in milliseconds.
TYPE xcron_fires_behind_ms gauge
HELP xcron_fires_in_flight Callback requests in progress.
TYPE xcron_fires_in_flight gauge
HELP xcron_fires_queued Fires held back by the limits per target or in all.
TYPE xcron_fires_queued gauge
HELP xcron_tasks_pending Tasks with a due or a retry ahead.
TYPE xcron_tasks_pending gauge
HELP xcron_creates Tasks created.
TYPE xcron_creates counter
HELP xcron_updates Tasks replaced by clients.
TYPE xcron_updates counter
HELP xcron_deletes Tasks deleted by clients.
TYPE xcron_deletes counter
HELP xcron_outcomes Due instants that reached their final outcome.
TYPE xcron_outcomes counter
HELP xcron_api_answers Requests answered, by call and code.
TYPE xcron_api_answers counter
HELP xcron_api_duration_seconds Time to answer a request, by call.
TYPE xcron_api_duration_seconds histogram
HELP xcron_api_connections Open connections to the API.
TYPE xcron_api_connections gauge
HELP xcron_log_batch_jobs Writes of all groups that shared one sync of the log.
TYPE xcron_log_batch_jobs histogram
HELP xcron_log_batch_bytes Bytes written for one sync of the log.
TYPE xcron_log_batch_bytes histogram
HELP xcron_log_sync_seconds Time of one sync of the log.
TYPE xcron_log_sync_seconds histogram
HELP xcron_proposal_batch_ops Operations in one log entry.
TYPE xcron_proposal_batch_ops histogram
HELP xcron_apply_seconds Time to apply one batch of entries to the state.
TYPE xcron_apply_seconds histogram
HELP xcron_peer_connections Open connections between nodes.
TYPE xcron_peer_connections gauge
HELP xcron_peer_refusals Peer connections and messages refused or dropped, by reason.
TYPE xcron_peer_refusals counter
HELP xcron_gossip_dropped Gossip datagrams dropped before they were read, by reason.
TYPE xcron_gossip_dropped counter
HELP xcron_snapshots_sent Snapshots of groups that another node has installed.
TYPE xcron_snapshots_sent counter
HELP xcron_snapshot_sent_bytes Bytes of snapshots sent to other nodes.
TYPE xcron_snapshot_sent_bytes counter
HELP xcron_nodes_alive Nodes that gossip hears of, this one included.
TYPE xcron_nodes_alive gauge
HELP xcron_groups Groups of the cluster.
TYPE xcron_groups gauge
HELP xcron_groups_led Groups that this node leads.
TYPE xcron_groups_led gauge
HELP xcron_groups_without_leader Groups of which this node knows no leader that could act: their tasks do not fire.
TYPE xcron_groups_without_leader gauge
HELP xcron_groups_under_replicated Groups led here of which fewer live and caught-up copies exist than wanted.
TYPE xcron_groups_under_replicated gauge
HELP xcron_replication_lag_entries Log entries that the slowest copy of a group led here lacks.
TYPE xcron_replication_lag_entries gauge
HELP xcron_elections Terms that have begun in the groups of which this node has a copy.
TYPE xcron_elections counter
HELP xcron_leaderships Leaderships that this node has begun.
TYPE xcron_leaderships counter
HELP xcron_clock_offset_ms This node's wall clock against the median of its peers, in milliseconds.
TYPE xcron_clock_offset_ms gauge
HELP xcron_unsafe_changes_refused Changes of voters that would have lowered a group's safety, and were refused.
TYPE xcron_unsafe_changes_refused counter
HELP xcron_clock_held 1 while a large jump of the wall clock is held that nobody has confirmed.
TYPE xcron_clock_held gauge
HELP xcron_clock_jumps_accepted Large jumps of the wall clock that were accepted, by who confirmed them.
TYPE xcron_clock_jumps_accepted counter
HELP xcron_dues_corrected Next dues that were not what their schedules say, and were moved there.
TYPE xcron_dues_corrected counter
HELP xcron_low_water_healed Copies whose low-water mark hid dues and was lowered when their leadership began; each is a bug.
TYPE xcron_low_water_healed counter
HELP xcron_disk_free_bytes Bytes free on the disk of the data directory.
TYPE xcron_disk_free_bytes gauge
HELP xcron_disk_used_bytes Bytes used on the disk of the data directory, by whomever.
TYPE xcron_disk_used_bytes gauge";

fn value_of(metrics: &Metrics, series: &str) -> String {
    let text = metrics.encode();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no series {series} in\n{text}"))
        .to_owned()
}

#[test]
fn names_types_and_help_are_stable() {
    let metrics = Metrics::default();
    // A family without a series is not written.
    metrics.observe_api_answer("createTask", 0, Duration::ZERO);
    metrics.inc_peer_refusal("secret");
    metrics.inc_gossip_dropped("magic");
    metrics.inc_clock_accepted("time");
    let text = metrics.encode();
    let described: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|line| *line != "EOF")
        .collect();
    assert_eq!(described.join("\n"), DESCRIBED);
}

#[test]
fn lateness_counts_first_attempts_and_attempts_count_all() {
    let metrics = Metrics::default();
    metrics.observe_attempt(3, 1);
    metrics.observe_attempt(70_000, 1);
    metrics.observe_attempt(5_000, 2);
    assert_eq!(value_of(&metrics, "xcron_attempts_total"), "3");
    assert_eq!(value_of(&metrics, "xcron_fire_lateness_seconds_count"), "2");
    assert_eq!(
        value_of(&metrics, "xcron_fire_lateness_seconds_bucket{le=\"0.002\"}"),
        "0"
    );
    assert_eq!(
        value_of(&metrics, "xcron_fire_lateness_seconds_bucket{le=\"0.005\"}"),
        "1"
    );
    assert_eq!(
        value_of(&metrics, "xcron_fire_lateness_seconds_bucket{le=\"60.0\"}"),
        "1"
    );
}

#[test]
fn a_tally_moves_creates_deletes_and_outcomes() {
    let metrics = Metrics::default();
    metrics.count(&Tally {
        created: 1,
        deleted: 2,
        delivered: 3,
        failed: 4,
        skipped_misfire: 5,
        skipped_overlap: 9,
        cancelled: 6,
        skipped_unknown: 7,
        updated: 8,
        rescheduled: 9,
    });
    metrics.count(&Tally {
        delivered: 10,
        ..Tally::default()
    });
    assert_eq!(value_of(&metrics, "xcron_creates_total"), "1");
    assert_eq!(value_of(&metrics, "xcron_deletes_total"), "2");
    assert_eq!(value_of(&metrics, "xcron_updates_total"), "8");
    assert_eq!(value_of(&metrics, "xcron_dues_corrected_total"), "9");
    for (verdict, count) in [
        ("delivered", "13"),
        ("failed", "4"),
        ("skipped_misfire", "5"),
        ("skipped_overlap", "9"),
        ("cancelled", "6"),
        ("skipped_unknown", "7"),
    ] {
        assert_eq!(
            value_of(&metrics, &format!("xcron_outcomes_total{{verdict=\"{verdict}\"}}")),
            count
        );
    }
}

#[test]
fn failures_are_counted_by_reason() {
    let metrics = Metrics::default();
    metrics.inc_attempt_failure("dns");
    metrics.inc_attempt_failure("dns");
    metrics.inc_attempt_not_tried("files");
    let failures = |reason| {
        value_of(
            &metrics,
            &format!("xcron_attempt_failures_total{{reason=\"{reason}\"}}"),
        )
    };
    assert_eq!(failures("dns"), "2");
    let not_tried = value_of(&metrics, "xcron_attempts_not_tried_total{lacks=\"files\"}");
    assert_eq!(not_tried, "1");
}

#[test]
fn answers_are_counted_by_class() {
    let metrics = Metrics::default();
    for status in [200, 204, 301, 404, 410, 503, 0, 101, 600] {
        metrics.inc_attempt_answer(AnswerClass::of_status(status));
    }
    metrics.inc_attempt_answer(AnswerClass::Timeout);
    let expected = [
        ("2xx", "2"),
        ("3xx", "1"),
        ("4xx", "2"),
        ("5xx", "1"),
        ("connect", "0"),
        ("timeout", "1"),
        ("reset", "0"),
        ("other", "3"),
    ];
    for (class, count) in expected {
        assert_eq!(
            value_of(&metrics, &format!("xcron_attempt_answers_total{{class=\"{class}\"}}")),
            count
        );
    }
}

#[test]
fn the_api_is_counted_by_call_and_code() {
    let metrics = Metrics::default();
    metrics.observe_api_answer("createTask", 0, Duration::from_micros(700));
    metrics.observe_api_answer("createTask", 1_003, Duration::from_secs(20));
    metrics.inc_api_connections();
    metrics.inc_api_connections();
    metrics.dec_api_connections();
    assert_eq!(
        value_of(&metrics, "xcron_api_answers_total{call=\"createTask\",code=\"1003\"}"),
        "1"
    );
    assert_eq!(
        value_of(&metrics, "xcron_api_duration_seconds_count{call=\"createTask\"}"),
        "2"
    );
    assert_eq!(
        value_of(
            &metrics,
            "xcron_api_duration_seconds_bucket{le=\"0.001\",call=\"createTask\"}"
        ),
        "1"
    );
    assert_eq!(value_of(&metrics, "xcron_api_connections"), "1");
}

#[test]
fn groups_and_elections_are_told() {
    let metrics = Metrics::default();
    metrics.set_groups(GroupFigures {
        groups: 32,
        led: 11,
        without_leader: 20,
        under_replicated: 7,
        lag_entries: 900,
    });
    metrics.add_elections(3);
    metrics.inc_leaderships();
    metrics.observe_callback(Duration::from_millis(300));
    for (series, value) in [
        ("xcron_groups", "32"),
        ("xcron_groups_led", "11"),
        ("xcron_groups_without_leader", "20"),
        ("xcron_groups_under_replicated", "7"),
        ("xcron_replication_lag_entries", "900"),
        ("xcron_elections_total", "3"),
        ("xcron_leaderships_total", "1"),
        ("xcron_callback_duration_seconds_bucket{le=\"0.5\"}", "1"),
        ("xcron_callback_duration_seconds_bucket{le=\"0.2\"}", "0"),
    ] {
        assert_eq!(value_of(&metrics, series), value, "{series}");
    }
}

#[test]
fn gauges_and_the_log_say_what_they_were_told() {
    let metrics = Metrics::default();
    assert_eq!(value_of(&metrics, "xcron_ready"), "0");
    metrics.set_ready(true);
    metrics.set_tasks_pending(u64::MAX);
    metrics.set_fires_overdue(2);
    metrics.set_fires_behind_ms(1_234);
    metrics.set_fires_in_flight(3);
    metrics.set_fires_queued(4);
    metrics.observe_log_sync(3, 5_000, Duration::from_millis(4));
    metrics.observe_proposal_batch(7);
    metrics.observe_apply(Duration::from_micros(300));
    for (series, value) in [
        ("xcron_ready", "1"),
        ("xcron_tasks_pending", "9223372036854775807"),
        ("xcron_fires_overdue", "2"),
        ("xcron_fires_behind_ms", "1234"),
        ("xcron_fires_in_flight", "3"),
        ("xcron_fires_queued", "4"),
        ("xcron_log_batch_jobs_sum", "3.0"),
        ("xcron_log_batch_bytes_sum", "5000.0"),
        ("xcron_log_sync_seconds_sum", "0.004"),
        ("xcron_proposal_batch_ops_sum", "7.0"),
        ("xcron_apply_seconds_sum", "0.0003"),
    ] {
        assert_eq!(value_of(&metrics, series), value, "{series}");
    }
    assert_eq!(
        value_of(
            &metrics,
            &format!("xcron_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))
        ),
        "1"
    );
}

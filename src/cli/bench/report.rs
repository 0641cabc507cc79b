//! Figures for people and for scripts: tables, the verdict line, one JSON object.
//!
//! Pure: text out of figures. Printing is the caller's.

use std::collections::BTreeMap;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;

use super::figures::{Callbacks, Creates, Figures, Percentiles, Probe, Probes, Queries, Refusal};

/// Code of a create whose due had passed when it arrived.
const CODE_PAST: i64 = 1002;

type Rows = Vec<(&'static str, String)>;

/// The JSON object of `--json`.
pub fn json(figures: &Figures) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Report<'a> {
        passed: bool,
        failures: Vec<String>,
        #[serde(flatten)]
        figures: &'a Figures,
    }
    let failures = figures.failures();
    serde_json::to_string(&Report {
        passed: failures.is_empty() && !figures.interrupted,
        failures,
        figures,
    })
}

/// The tables and the verdict.
pub fn text(figures: &Figures) -> String {
    let mut rows = creates(&figures.creates, figures.tasks);
    rows.extend(figures.queries.iter().flat_map(queries));
    rows.extend(
        figures
            .callbacks
            .iter()
            .flat_map(|callbacks| self::callbacks(callbacks, figures.interrupted)),
    );
    rows.extend(figures.probes.iter().flat_map(probes));
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_header(["figure", "value"]);
    for (name, value) in rows {
        table.add_row([Cell::new(name), Cell::new(value)]);
    }
    format!("{table}\n{}\n{}", times(figures), verdict(figures))
}

/// The last line: what the run comes to.
pub fn verdict(figures: &Figures) -> String {
    let failures = figures.failures();
    let creates = &figures.creates;
    if !failures.is_empty() {
        let hint = if creates.refused.contains_key(&CODE_PAST) {
            " (creates arrived after their due: raise --delay)"
        } else {
            ""
        };
        return format!("FAIL: {}{hint}", failures.join(", "));
    }
    if figures.interrupted {
        return "INTERRUPTED: the figures cover what was done until then".to_owned();
    }
    let (created, asked) = (thousands(creates.acked), thousands(u64::from(figures.tasks)));
    match &figures.callbacks {
        None => format!("PASS: {created} of {asked} created, callbacks not waited for"),
        Some(callbacks) => format!(
            "PASS: {created} of {asked} created, all of these called back, none early, {} repeated",
            thousands(callbacks.repeated)
        ),
    }
}

fn creates(creates: &Creates, tasks: u32) -> Rows {
    let mut rows = vec![
        ("creates/s", rate(creates.per_s)),
        (
            "created",
            format!(
                "{} of {} in {:.2} s",
                thousands(creates.acked),
                thousands(u64::from(tasks)),
                creates.took_s
            ),
        ),
        ("refused", refused(&creates.refused)),
        (
            "unknown",
            with_example(creates.unknown, creates.unknown_example.as_deref()),
        ),
    ];
    if creates.not_tried > 0 {
        rows.push(("not tried", with_example(creates.not_tried, creates.gave_up.as_deref())));
    }
    rows
}

fn queries(queries: &Queries) -> Rows {
    vec![
        ("queries/s", rate(queries.per_s)),
        ("queries found", thousands(queries.found)),
        ("queries refused", refused(&queries.refused)),
        (
            "queries failed",
            with_example(queries.failed, queries.failed_example.as_deref()),
        ),
    ]
}

fn callbacks(callbacks: &Callbacks, interrupted: bool) -> Rows {
    let drained = match callbacks.drained_per_s {
        Some(drained) => format!(
            "{} ({} due in one second)",
            rate(drained),
            thousands(callbacks.burst_tasks)
        ),
        None => "-".to_owned(),
    };
    let mut rows = vec![
        ("drained callbacks/s", drained),
        ("called", thousands(callbacks.called)),
        (
            if interrupted { "not yet called" } else { "missing" },
            thousands(callbacks.missing),
        ),
        ("early", early(callbacks)),
        ("repeated", thousands(callbacks.repeated)),
    ];
    let rare = [
        ("repeated as another fire", callbacks.refired),
        ("first seen on a retry", callbacks.retried),
        ("called, create unknown", callbacks.unknown_called),
        ("called, create refused", callbacks.refused_called),
    ];
    rows.extend(
        rare.into_iter()
            .filter(|&(_, count)| count > 0)
            .map(|(name, count)| (name, thousands(count))),
    );
    if callbacks.strange > 0 {
        rows.push((
            "strange requests",
            with_example(callbacks.strange, callbacks.strange_example.as_deref()),
        ));
    }
    rows
}

fn early(callbacks: &Callbacks) -> String {
    match callbacks.early {
        0 => "0".to_owned(),
        early => format!("{} (by up to {})", thousands(early), ms(callbacks.earliest_ms)),
    }
}

fn probes(probes: &Probes) -> Rows {
    let both = |of: fn(&Probe) -> f64| {
        let after = probes
            .after
            .as_ref()
            .map_or_else(|| "-".to_owned(), |after| rate(of(after)));
        format!(
            "{} (before {}, after {after})",
            rate(of(&probes.mean)),
            rate(of(&probes.before))
        )
    };
    let drained = probes
        .drained_per_sink_post
        .map_or_else(|| "-".to_owned(), |ratio| format!("{:.1} %", ratio * 100.0));
    vec![
        ("fdatasync/s", both(|probe| probe.fdatasyncs_per_s)),
        ("sink limit POST/s", both(|probe| probe.sink_posts_per_s)),
        ("creates : fdatasync", format!("{:.2}", probes.creates_per_fdatasync)),
        ("drained : sink limit", drained),
    ]
}

/// The table of latencies and lateness.
fn times(figures: &Figures) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["time", "p50", "p99", "p99.9", "max"]);
    let rows = [
        ("create latency", figures.creates.latency_ms),
        (
            "query latency",
            figures.queries.as_ref().and_then(|queries| queries.latency_ms),
        ),
        (
            "lateness",
            figures.callbacks.as_ref().and_then(|callbacks| callbacks.lateness_ms),
        ),
    ];
    for (name, percentiles) in rows {
        if let Some(Percentiles { p50, p99, p999, max }) = percentiles {
            let times = [p50, p99, p999, max].map(|time| Cell::new(ms(time)).set_alignment(CellAlignment::Right));
            table.add_row([Cell::new(name)].into_iter().chain(times));
        }
    }
    table
}

fn refused(refusals: &BTreeMap<i64, Refusal>) -> String {
    let codes: Vec<_> = refusals
        .iter()
        .map(|(code, refusal)| format!("{} x code {code}: {}", thousands(refusal.count), refusal.message))
        .collect();
    if codes.is_empty() {
        "0".to_owned()
    } else {
        codes.join("\n")
    }
}

fn with_example(count: u64, example: Option<&str>) -> String {
    match example {
        Some(example) if count > 0 => format!("{} (the first: {example})", thousands(count)),
        _ => thousands(count),
    }
}

/// `1234567` as `1,234,567`.
pub fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate: whole, unless it is small.
fn rate(per_s: f64) -> String {
    if per_s < 100.0 {
        format!("{per_s:.1}")
    } else {
        thousands(whole(per_s))
    }
}

/// Milliseconds with about three digits.
fn ms(time: f64) -> String {
    match time {
        ..9.995 => format!("{time:.2} ms"),
        ..99.95 => format!("{time:.1} ms"),
        _ => format!("{} ms", thousands(whole(time))),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and no figure is negative"
)]
fn whole(figure: f64) -> u64 {
    figure.round() as u64
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::good_run;
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        for (count, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(count), text);
        }
        for (time, text) in [
            (0.0, "0.00 ms"),
            (0.456, "0.46 ms"),
            (9.996, "10.0 ms"),
            (12.34, "12.3 ms"),
            (99.96, "100 ms"),
            (1_234.5, "1,235 ms"),
        ] {
            assert_eq!(ms(time), text);
        }
        assert_eq!((rate(12.34), rate(12_345.6)), ("12.3".to_owned(), "12,346".to_owned()));
    }

    #[test]
    fn the_text_shows_every_kind_of_trouble() {
        let mut figures = good_run();
        Refusal::count(&mut figures.creates.refused, 1009, "too many");
        figures.creates.unknown = 2;
        figures.creates.unknown_example = Some("connection reset".to_owned());
        let callbacks = figures.callbacks.as_mut().expect("present");
        (callbacks.missing, callbacks.early, callbacks.earliest_ms) = (1_007, 5, 3.0);
        let text = text(&figures);
        for part in [
            "1 x code 1009: too many",
            "2 (the first: connection reset)",
            "1,007",
            "5 (by up to 3.00 ms)",
            "FAIL: callbacks missing: 1007, callbacks early: 5",
            "500 (1,000 due in one second)",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn the_verdict_says_what_the_run_comes_to() {
        let mut figures = good_run();
        assert!(verdict(&figures).starts_with("PASS: 1,000 of 1,000 created"));
        figures.interrupted = true;
        assert!(verdict(&figures).starts_with("INTERRUPTED"));
        figures.creates.acked = 0;
        Refusal::count(&mut figures.creates.refused, CODE_PAST, "past");
        assert!(verdict(&figures).contains("raise --delay"));
    }

    #[test]
    fn the_json_holds_the_figures_under_stable_names() {
        let probe = Probe {
            fdatasyncs_per_s: 250.0,
            sink_posts_per_s: 1_000.0,
        };
        let text = json(&good_run().with_probes(probe, Some(probe))).expect("plain data");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        for (pointer, expected) in [
            ("/passed", serde_json::json!(true)),
            ("/creates/per_s", serde_json::json!(500.0)),
            ("/creates/latency_ms/p999", serde_json::json!(99.96)),
            ("/callbacks/missing", serde_json::json!(0)),
            ("/callbacks/drained_per_s", serde_json::json!(500.0)),
            ("/probes/creates_per_fdatasync", serde_json::json!(2.0)),
            ("/probes/drained_per_sink_post", serde_json::json!(0.5)),
        ] {
            assert_eq!(value.pointer(pointer), Some(&expected), "{pointer} in {text}");
        }
        assert!(!text.contains('\n'));
    }
}

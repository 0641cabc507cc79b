//! The figures of one run: what each phase measured, put together, with the ratios and the verdict.
//!
//! Pure arithmetic over what load, ledger and probes hand in. Serialized as it stands it is the `--json` output, so
//! the names of the fields are for users too. How it looks as a table is the report's business.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::args::Settings;
use super::ledger::{Arrivals, Burst, Counts, Ledger};
use super::load::Tally;
use super::query::QueryTally;

/// Largest time a histogram tells apart from larger ones: one hour, in microseconds.
const HISTOGRAM_US_MAX: u64 = 3_600_000_000;

/// An empty histogram of microseconds with three significant digits.
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, HISTOGRAM_US_MAX, 3).expect("the bounds are valid constants")
}

/// Milliseconds that this share of the values did not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half.
    pub p50: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// All.
    pub max: f64,
}

impl Percentiles {
    /// Of a histogram of microseconds; `None` if it is empty.
    pub fn of(histogram_us: &Histogram<u64>) -> Option<Self> {
        let max = histogram_us.max();
        // A bucket's upper edge may pass the largest value seen.
        let at = |quantile| float(histogram_us.value_at_quantile(quantile).min(max)) / 1_000.0;
        (!histogram_us.is_empty()).then(|| Self {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: float(max) / 1_000.0,
        })
    }
}

/// Answers with one code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// How many.
    pub count: u64,
    /// The message of the first.
    pub message: String,
}

impl Refusal {
    /// Counts one more answer with `code`.
    pub fn count(refusals: &mut BTreeMap<i64, Self>, code: i64, message: &str) {
        let first = || Self {
            count: 0,
            message: message.to_owned(),
        };
        refusals.entry(code).or_insert_with(first).count += 1;
    }
}

/// What the machine gave in one minute.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Probe {
    /// Appends of 256 bytes, each followed by fdatasync.
    pub fdatasyncs_per_s: f64,
    /// POSTs straight at the sink.
    pub sink_posts_per_s: f64,
}

/// The probes around a run, and the run in proportion to them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Probes {
    /// Right before.
    pub before: Probe,
    /// Right after; absent if the run was interrupted.
    pub after: Option<Probe>,
    /// The mean of both.
    pub mean: Probe,
    /// Creates per fdatasync of the mean.
    pub creates_per_fdatasync: f64,
    /// Drained callbacks per POST at the sink.
    pub drained_per_sink_post: Option<f64>,
}

/// The creates.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Creates {
    /// Acknowledged with code 0.
    pub acked: u64,
    /// Answered with another code, by code.
    pub refused: BTreeMap<i64, Refusal>,
    /// Sent without an answer that can be read: they may exist, and nothing is expected of them.
    pub unknown: u64,
    /// Why the first of them is unknown.
    pub unknown_example: Option<String>,
    /// Never sent, or in flight at the interrupt.
    pub not_tried: u64,
    /// Why sending ended before all were sent, if a connection could not be had.
    pub gave_up: Option<String>,
    /// From the start to the last answer.
    pub took_s: f64,
    /// Acknowledged per second.
    pub per_s: f64,
    /// Of all answered.
    pub latency_ms: Option<Percentiles>,
}

/// The queries.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Queries {
    /// Answered with the task.
    pub found: u64,
    /// Answered with another code than 0, by code.
    pub refused: BTreeMap<i64, Refusal>,
    /// Not answered, or with another task.
    pub failed: u64,
    /// Why the first of them failed.
    pub failed_example: Option<String>,
    /// Answers per second.
    pub per_s: f64,
    /// Of all answered.
    pub latency_ms: Option<Percentiles>,
}

/// The callbacks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Callbacks {
    /// Tasks called that were acknowledged.
    pub called: u64,
    /// Tasks acknowledged and not called within the wait; or not yet, if the run was interrupted.
    pub missing: u64,
    /// Calls before the due.
    pub early: u64,
    /// How much too early the earliest came.
    pub earliest_ms: f64,
    /// Calls after the first of their task.
    pub repeated: u64,
    /// Those of them with another fire id than the first.
    pub refired: u64,
    /// Tasks whose first call was not the first attempt.
    pub retried: u64,
    /// Tasks called whose create is unknown.
    pub unknown_called: u64,
    /// Tasks called whose create was refused.
    pub refused_called: u64,
    /// Requests that fit no task of the run, or whose headers contradict it.
    pub strange: u64,
    /// Why the first of them is strange.
    pub strange_example: Option<String>,
    /// First arrival minus due.
    pub lateness_ms: Option<Percentiles>,
    /// Tasks in the second in which most were due.
    pub burst_tasks: u64,
    /// Callbacks per second from the first to the last arrival of that burst.
    pub drained_per_s: Option<f64>,
}

/// All figures of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Nodes under load.
    pub nodes: usize,
    /// Tasks to be created.
    pub tasks: u32,
    /// Requests in flight.
    pub concurrency: u16,
    /// The creates.
    pub creates: Creates,
    /// The queries, if any were asked for.
    pub queries: Option<Queries>,
    /// The callbacks, if they were waited for.
    pub callbacks: Option<Callbacks>,
    /// The probes, unless switched off.
    pub probes: Option<Probes>,
    /// Whether the run was cut short.
    pub interrupted: bool,
}

impl Creates {
    /// From what the load counted, of `tasks` asked for.
    pub fn of(tally: Tally, tasks: u32) -> Self {
        let took_s = tally.took.as_secs_f64();
        Self {
            acked: tally.acked,
            not_tried: u64::from(tasks).saturating_sub(tally.answered() + tally.unknown),
            took_s,
            per_s: ratio(float(tally.acked), took_s).unwrap_or(0.0),
            latency_ms: Percentiles::of(&tally.latency_us),
            refused: tally.refused,
            unknown: tally.unknown,
            unknown_example: tally.unknown_example,
            gave_up: tally.gave_up,
        }
    }
}

impl From<QueryTally> for Queries {
    fn from(tally: QueryTally) -> Self {
        Self {
            found: tally.found,
            per_s: ratio(float(tally.latency_us.len()), tally.took.as_secs_f64()).unwrap_or(0.0),
            latency_ms: Percentiles::of(&tally.latency_us),
            refused: tally.refused,
            failed: tally.failed,
            failed_example: tally.failed_example,
        }
    }
}

impl Callbacks {
    /// From the ledger, at the end of the wait.
    pub fn of(ledger: &Ledger) -> Self {
        Self::from_sums(ledger.counts(), ledger.arrivals())
    }

    fn from_sums(counts: Counts, arrivals: Arrivals) -> Self {
        let burst = arrivals
            .bursts
            .values()
            .max_by_key(|burst| burst.tasks)
            .copied()
            .unwrap_or_default();
        Self {
            called: counts.acked - counts.missing,
            missing: counts.missing,
            early: arrivals.early,
            earliest_ms: float(arrivals.earliest_us) / 1_000.0,
            repeated: arrivals.repeated,
            refired: arrivals.refired,
            retried: arrivals.retried,
            unknown_called: counts.unknown_called,
            refused_called: counts.refused_called,
            strange: arrivals.strange,
            strange_example: arrivals.strange_example,
            lateness_ms: Percentiles::of(&arrivals.lateness_us),
            burst_tasks: burst.tasks,
            drained_per_s: drained_per_s(burst),
        }
    }
}

/// Intervals, not arrivals, make a rate: the first callback only starts the watch.
fn drained_per_s(burst: Burst) -> Option<f64> {
    let intervals = burst.tasks.checked_sub(1).filter(|&intervals| intervals > 0)?;
    ratio(float(intervals), float(burst.last_us - burst.first_us) / 1e6)
}

impl Figures {
    /// Puts the phases together.
    pub fn new(
        settings: &Settings,
        creates: Creates,
        queries: Option<Queries>,
        callbacks: Option<Callbacks>,
        interrupted: bool,
    ) -> Self {
        Self {
            nodes: settings.nodes.len(),
            tasks: settings.tasks,
            concurrency: settings.concurrency,
            creates,
            queries,
            callbacks,
            probes: None,
            interrupted,
        }
    }

    /// The same, in proportion to the probes around the run.
    #[must_use]
    pub fn with_probes(mut self, before: Probe, after: Option<Probe>) -> Self {
        let last = after.unwrap_or(before);
        let mean = Probe {
            fdatasyncs_per_s: f64::midpoint(before.fdatasyncs_per_s, last.fdatasyncs_per_s),
            sink_posts_per_s: f64::midpoint(before.sink_posts_per_s, last.sink_posts_per_s),
        };
        let drained_per_s = self.callbacks.as_ref().and_then(|callbacks| callbacks.drained_per_s);
        self.probes = Some(Probes {
            before,
            after,
            mean,
            creates_per_fdatasync: ratio(self.creates.per_s, mean.fdatasyncs_per_s).unwrap_or(0.0),
            drained_per_sink_post: drained_per_s.and_then(|drained| ratio(drained, mean.sink_posts_per_s)),
        });
        self
    }

    /// What makes the run fail; nothing if it passed. Of an interrupted run nothing is missing yet.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        if self.creates.acked == 0 {
            failures.push("no task was created".to_owned());
        }
        if self.creates.not_tried > 0 && !self.interrupted {
            let why = self.creates.gave_up.as_deref().unwrap_or("no node could be reached");
            failures.push(format!("creates never tried: {} ({why})", self.creates.not_tried));
        }
        if let Some(callbacks) = &self.callbacks {
            if callbacks.missing > 0 && !self.interrupted {
                failures.push(format!("callbacks missing: {}", callbacks.missing));
            }
            if callbacks.early > 0 {
                failures.push(format!("callbacks early: {}", callbacks.early));
            }
        }
        failures
    }
}

fn ratio(of: f64, to: f64) -> Option<f64> {
    (to > 0.0).then(|| of / to)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people; none comes near 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
pub(super) mod tests;

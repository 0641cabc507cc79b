//! Every metric of the product: its name, meaning and buckets, and one function for each thing that is counted.
//!
//! Owns names and numbers, decides nothing. Handles with labels are made here once or keyed by plain values, so counting
//! allocates nothing. Made in `node.rs`, used by whoever counts, encoded by `api/`.

mod cluster;
mod fires;
mod process;
mod store;

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

use crate::core::machine::Tally;

pub use cluster::GroupFigures;
pub use fires::AnswerClass;

/// Content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// From the cost of a write to memory to a stalled disk.
const WORK_SECONDS: [f64; 14] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0,
];
/// Up to the default request timeout.
const API_SECONDS: [f64; 13] = [
    0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 10.0,
];
/// Doubling, up to `ENTRY_OPS_MAX` and a busy node's log round.
const BATCH_COUNTS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0];
/// From one small entry to several full ones.
const BATCH_BYTES: [f64; 9] = [
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
];

/// Labels of `xcron_outcomes_total`. Label values are the program's own text, never a client's: so they are few.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    verdict: &'static str,
}

/// Labels of `xcron_api_duration_seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    call: &'static str,
}

/// Labels of `xcron_api_answers_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallCodeLabels {
    call: &'static str,
    code: u16,
}

/// Makes the histograms of a family.
#[derive(Clone, Copy, Debug)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

/// The node's metrics; share it in an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    fires: fires::Fires,
    tasks: Tasks,
    api: Api,
    log: Log,
    cluster: cluster::Cluster,
    store: store::Store,
    ready: Gauge,
}

#[derive(Debug)]
struct Tasks {
    pending: Gauge,
    creates: Counter,
    updates: Counter,
    deletes: Counter,
    delivered: Counter,
    failed: Counter,
    skipped_misfire: Counter,
    skipped_overlap: Counter,
    skipped_unknown: Counter,
    cancelled: Counter,
}

#[derive(Debug)]
struct Api {
    answers: Family<CallCodeLabels, Counter>,
    duration: Family<CallLabels, Histogram, Buckets>,
    connections: Gauge,
}

#[derive(Debug)]
struct Log {
    batch_jobs: Histogram,
    batch_bytes: Histogram,
    sync: Histogram,
    proposal_ops: Histogram,
    apply: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(process::Process));
        let r = registry.sub_registry_with_prefix("xcron");
        r.register(
            "build",
            "The running program",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let ready = register(r, "ready", "1 while the node serves requests, else 0", Gauge::default());
        let (fires, tasks, api, log) = (fires::Fires::new(r), Tasks::new(r), Api::new(r), Log::new(r));
        let cluster = cluster::Cluster::new(r);
        let store = store::Store::new(r);
        Self {
            registry,
            fires,
            tasks,
            api,
            log,
            cluster,
            store,
            ready,
        }
    }
}

/// Registers a metric and keeps a handle of it. The encoder adds `_total` to the name of a counter.
fn register<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

fn histogram(registry: &mut Registry, name: &str, help: &str, buckets: &'static [f64]) -> Histogram {
    register(registry, name, help, Buckets(buckets).new_metric())
}

impl Tasks {
    fn new(r: &mut Registry) -> Self {
        let outcomes = Family::<OutcomeLabels, Counter>::default();
        let outcome = |verdict| outcomes.get_or_create_owned(&OutcomeLabels { verdict });
        let tasks = Self {
            pending: register(
                r,
                "tasks_pending",
                "Tasks with a due or a retry ahead",
                Gauge::default(),
            ),
            creates: register(r, "creates", "Tasks created", Counter::default()),
            updates: register(r, "updates", "Tasks replaced by clients", Counter::default()),
            deletes: register(r, "deletes", "Tasks deleted by clients", Counter::default()),
            delivered: outcome("delivered"),
            failed: outcome("failed"),
            skipped_misfire: outcome("skipped_misfire"),
            skipped_overlap: outcome("skipped_overlap"),
            skipped_unknown: outcome("skipped_unknown"),
            cancelled: outcome("cancelled"),
        };
        r.register("outcomes", "Due instants that reached their final outcome", outcomes);
        tasks
    }
}

impl Api {
    fn new(r: &mut Registry) -> Self {
        let duration = Family::new_with_constructor(Buckets(&API_SECONDS));
        Self {
            answers: register(
                r,
                "api_answers",
                "Requests answered, by call and code",
                Family::default(),
            ),
            duration: register(r, "api_duration_seconds", "Time to answer a request, by call", duration),
            connections: register(r, "api_connections", "Open connections to the API", Gauge::default()),
        }
    }
}

impl Log {
    fn new(r: &mut Registry) -> Self {
        let jobs = "Writes of all groups that shared one sync of the log";
        Self {
            batch_jobs: histogram(r, "log_batch_jobs", jobs, &BATCH_COUNTS),
            batch_bytes: histogram(
                r,
                "log_batch_bytes",
                "Bytes written for one sync of the log",
                &BATCH_BYTES,
            ),
            sync: histogram(r, "log_sync_seconds", "Time of one sync of the log", &WORK_SECONDS),
            proposal_ops: histogram(r, "proposal_batch_ops", "Operations in one log entry", &BATCH_COUNTS),
            apply: histogram(
                r,
                "apply_seconds",
                "Time to apply one batch of entries to the state",
                &WORK_SECONDS,
            ),
        }
    }
}

impl Metrics {
    /// The metrics as text, in the format of [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("a String takes any text");
        text
    }

    /// Tasks with a due or a retry ahead.
    pub fn set_tasks_pending(&self, count: u64) {
        self.tasks.pending.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// What one applied batch did.
    pub fn count(&self, tally: &Tally) {
        let Tally {
            created,
            deleted,
            delivered,
            failed,
            skipped_misfire,
            skipped_overlap,
            skipped_unknown,
            cancelled,
            updated,
            rescheduled,
        } = *tally;
        self.cluster.count_corrected(rescheduled);
        self.tasks.creates.inc_by(created);
        self.tasks.updates.inc_by(updated);
        self.tasks.skipped_unknown.inc_by(skipped_unknown);
        self.tasks.deletes.inc_by(deleted);
        self.tasks.delivered.inc_by(delivered);
        self.tasks.failed.inc_by(failed);
        self.tasks.skipped_misfire.inc_by(skipped_misfire);
        self.tasks.skipped_overlap.inc_by(skipped_overlap);
        self.tasks.cancelled.inc_by(cancelled);
    }

    /// The API answered `call` with `code` (the envelope's, or the HTTP status where there is no envelope).
    pub fn observe_api_answer(&self, call: &'static str, code: u16, duration: Duration) {
        self.api.answers.get_or_create(&CallCodeLabels { call, code }).inc();
        self.api
            .duration
            .get_or_create(&CallLabels { call })
            .observe(duration.as_secs_f64());
    }

    /// A client connected.
    pub fn inc_api_connections(&self) {
        self.api.connections.inc();
    }

    /// A client's connection ended.
    pub fn dec_api_connections(&self) {
        self.api.connections.dec();
    }

    /// One sync made `jobs` writes of together `bytes` durable.
    pub fn observe_log_sync(&self, jobs: usize, bytes: usize, duration: Duration) {
        self.log.batch_jobs.observe(sample(jobs));
        self.log.batch_bytes.observe(sample(bytes));
        self.log.sync.observe(duration.as_secs_f64());
    }

    /// `ops` operations went into one log entry.
    pub fn observe_proposal_batch(&self, ops: usize) {
        self.log.proposal_ops.observe(sample(ops));
    }

    /// A batch of entries was applied to the state.
    pub fn observe_apply(&self, duration: Duration) {
        self.log.apply.observe(duration.as_secs_f64());
    }

    /// Whether the node serves requests.
    pub fn set_ready(&self, ready: bool) {
        self.ready.set(ready.into());
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Exact below 2^32, which no bounded batch passes.
fn sample(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

#[cfg(test)]
mod tests;

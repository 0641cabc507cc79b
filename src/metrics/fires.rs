//! Metrics of the firing: lateness, attempts, what came back, what waits. Part of `Metrics`.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{Metrics, gauge, histogram, register};

/// From a millisecond, the resolution of a due, to a minute.
const LATENESS_SECONDS: [f64; 15] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
];

/// From a target on the same machine to a timeout that was set long.
const CALLBACK_SECONDS: [f64; 14] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0,
];

/// What came back from one attempt; label `class` of `xcron_attempt_answers_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AnswerClass {
    /// The target took it.
    Status2xx,
    /// A redirect, which is not followed.
    Status3xx,
    /// The target refused it.
    Status4xx,
    /// The target failed.
    Status5xx,
    /// No connection.
    Connect,
    /// No answer in time.
    Timeout,
    /// The connection ended before the answer.
    Reset,
    /// Anything else.
    Other,
}

impl AnswerClass {
    const ALL: [Self; 8] = [
        Self::Status2xx,
        Self::Status3xx,
        Self::Status4xx,
        Self::Status5xx,
        Self::Connect,
        Self::Timeout,
        Self::Reset,
        Self::Other,
    ];

    /// Class of an HTTP status.
    pub fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Status2xx,
            300..=399 => Self::Status3xx,
            400..=499 => Self::Status4xx,
            500..=599 => Self::Status5xx,
            _ => Self::Other,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Status2xx => "2xx",
            Self::Status3xx => "3xx",
            Self::Status4xx => "4xx",
            Self::Status5xx => "5xx",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Other => "other",
        }
    }
}

/// Labels of `xcron_attempt_answers_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    class: &'static str,
}

/// Labels of `xcron_attempt_failures_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// Labels of `xcron_attempts_not_tried_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LackLabels {
    lacks: &'static str,
}

#[derive(Debug)]
pub(super) struct Fires {
    lateness: Histogram,
    attempts: Counter,
    answers: Family<AnswerLabels, Counter>,
    failures: Family<ReasonLabels, Counter>,
    not_tried: Family<LackLabels, Counter>,
    callback: Histogram,
    overdue: Gauge,
    behind: Gauge,
    in_flight: Gauge,
    queued: Gauge,
}

impl Fires {
    pub(super) fn new(r: &mut Registry) -> Self {
        let late = "Time from the due instant to the start of a fire's first attempt";
        let callback = "Time from the start of a callback request to its answer, or to the end of waiting for one";
        let answers = Family::<AnswerLabels, Counter>::default();
        for class in AnswerClass::ALL {
            drop(answers.get_or_create(&AnswerLabels { class: class.label() }));
        }
        Self {
            lateness: histogram(r, "fire_lateness_seconds", late, &LATENESS_SECONDS),
            attempts: register(
                r,
                "attempts",
                "Callback requests started, retries included",
                Counter::default(),
            ),
            answers: register(
                r,
                "attempt_answers",
                "Callback requests ended, by what came back",
                answers,
            ),
            failures: register(
                r,
                "attempt_failures",
                "Callback requests that were not answered with 2xx, by reason",
                Family::default(),
            ),
            not_tried: register(
                r,
                "attempts_not_tried",
                "Callback requests put off since this node had no means to make them, by what it lacks",
                Family::default(),
            ),
            callback: histogram(r, "callback_duration_seconds", callback, &CALLBACK_SECONDS),
            overdue: register(
                r,
                "fires_overdue",
                "Fires whose time has come and that wait to start, as far as they are in memory; all in groups without a leader",
                Gauge::default(),
            ),
            behind: register(
                r,
                "fires_behind_ms",
                "Age of the oldest due without an outcome in the groups led here or by nobody, in milliseconds",
                Gauge::default(),
            ),
            in_flight: register(r, "fires_in_flight", "Callback requests in progress", Gauge::default()),
            queued: register(
                r,
                "fires_queued",
                "Fires held back by the limits per target or in all",
                Gauge::default(),
            ),
        }
    }
}

impl Metrics {
    /// An attempt (from 1) started `lateness_ms` after its due. Lateness counts for first attempts: a retry is late by intent.
    pub fn observe_attempt(&self, lateness_ms: u64, attempt: u16) {
        self.fires.attempts.inc();
        if attempt == 1 {
            self.fires
                .lateness
                .observe(Duration::from_millis(lateness_ms).as_secs_f64());
        }
    }

    /// An attempt took so long.
    pub fn observe_callback(&self, duration: Duration) {
        self.fires.callback.observe(duration.as_secs_f64());
    }

    /// An attempt ended.
    pub fn inc_attempt_answer(&self, class: AnswerClass) {
        self.fires
            .answers
            .get_or_create(&AnswerLabels { class: class.label() })
            .inc();
    }

    /// An attempt failed; `reason` is one of few words.
    pub fn inc_attempt_failure(&self, reason: &'static str) {
        self.fires.failures.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// An attempt was put off, since this node lacked something.
    pub fn inc_attempt_not_tried(&self, lacks: &'static str) {
        self.fires.not_tried.get_or_create(&LackLabels { lacks }).inc();
    }

    /// Fires in memory whose time has come and that wait to start.
    pub fn set_fires_overdue(&self, count: usize) {
        self.fires.overdue.set(gauge(count));
    }

    /// Age of the oldest due without an outcome.
    pub fn set_fires_behind_ms(&self, age_ms: u64) {
        self.fires.behind.set(i64::try_from(age_ms).unwrap_or(i64::MAX));
    }

    /// Callback requests in progress.
    pub fn set_fires_in_flight(&self, count: usize) {
        self.fires.in_flight.set(gauge(count));
    }

    /// Fires held back by the limits.
    pub fn set_fires_queued(&self, count: usize) {
        self.fires.queued.set(gauge(count));
    }
}

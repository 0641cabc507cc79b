//! The API from the first moment on: a node that waits for its cluster, or reads its disk, answers `/healthz` and `/readyz`.
//!
//! Owns the API's task and the switch from what a waiting node answers to the whole API. Started and ended by `node.rs`.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::observers::ApiMetrics;
use super::{ANSWER_GRACE, Basics};
use crate::api;
use crate::cluster::init::{self, Init, Wishes};
use crate::config::Config;
use crate::readiness::Readiness;

/// What a node has before it knows who it is: where it says that it is not ready, and where it is told to found a cluster.
#[derive(Debug)]
pub struct Waiting {
    /// What `/readyz` tells.
    pub readiness: watch::Sender<Readiness>,
    /// Wishes of `xcron cluster init`.
    pub wishes: Wishes,
}

/// The API's end of the same, for [`super::run`].
#[derive(Debug)]
pub struct Shown {
    readiness: watch::Receiver<Readiness>,
    init: Init,
}

/// Both ends.
pub fn waiting() -> (Waiting, Shown) {
    let (init, wishes) = init::channel();
    let (readiness, seen) = watch::channel(Readiness::Starting);
    let waiting = Waiting { readiness, wishes };
    (waiting, Shown { readiness: seen, init })
}

/// The API server.
pub(super) struct Front {
    whole: Arc<OnceLock<api::App>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Front {
    /// Begins to answer as a node that waits.
    pub(super) fn start<L: api::Listen>(config: &Config, basics: &Basics, shown: Shown, listener: L) -> Self {
        let whole = Arc::<OnceLock<api::App>>::default();
        let metrics = basics.metrics.clone();
        let state = api::WaitingState {
            readiness: shown.readiness,
            metrics_text: Arc::new(move || metrics.encode()),
            init: shown.init,
            entropy: basics.entropy.clone(),
        };
        let limits = api::ServeLimits {
            connections_max: config.connections_max,
            header_timeout: Duration::from_millis(config.header_timeout_ms),
            keep_alive: Duration::from_millis(config.keep_alive_ms),
            // Longer than the router's own deadline, so that its answer still gets out.
            request_timeout: Duration::from_millis(config.request_timeout_ms) + ANSWER_GRACE,
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let parts = api::Parts {
            app: api::app_until(state, whole.clone()),
            guard: api::Guard {
                is_loopback: config.listen.ip().to_canonical().is_loopback(),
                hosts: config.allowed_hosts.0.clone().into(),
                entropy: basics.entropy.clone(),
            },
            bodies: api::Bodies::new(basics.clock.clone()),
            limits,
            observe: Arc::new(ApiMetrics(basics.metrics.clone())),
        };
        let shutdown = async move { drop(stopped.await) };
        Self {
            whole,
            stop,
            task: tokio::spawn(api::serve(listener, parts, shutdown)),
        }
    }

    /// From now on every call is answered by `app`.
    pub(super) fn show(&self, app: api::App) {
        // Shown once: a node enters its cluster once.
        let _ = self.whole.set(app);
    }

    /// Takes no more connections; completes when the open requests have ended.
    pub(super) fn stop(self) -> impl Future<Output = ()> {
        drop(self.stop);
        async move { drop(self.task.await) }
    }
}

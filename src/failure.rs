//! The node's first fatal fault. Whoever meets one reports it here; `node.rs` waits for it and ends the process.
//!
//! A failed fsync, a full disk or a damaged record is never survived in the same process: what could not be written must
//! not be acknowledged, and only a restart re-reads what is really on disk.

use std::sync::Arc;

use tokio::sync::watch;

/// A cheap handle shared by all parts of a node.
#[derive(Clone, Debug)]
pub struct Failure(Arc<watch::Sender<Option<String>>>);

impl Default for Failure {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Failure {
    /// Reports a fatal fault; only the first one is kept.
    pub fn report(&self, what: impl Into<String>) {
        self.0.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert_with(|| what.into());
            is_first
        });
    }

    /// The fault, if there was one.
    pub fn get(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Completes with the first fault.
    pub async fn wait(&self) -> String {
        let mut faults = self.0.subscribe();
        let fault = faults
            .wait_for(Option::is_some)
            .await
            .expect("this handle keeps the sender");
        fault.clone().expect("waited for it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_fault_stays() {
        let failure = Failure::default();
        assert_eq!(failure.get(), None);
        failure.report("one");
        failure.report("two");
        assert_eq!(failure.wait().await, "one");
    }
}

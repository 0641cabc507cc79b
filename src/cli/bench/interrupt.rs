//! Ctrl-C as a state that every phase of the bench can look at or wait for.
//!
//! A phase that sees it stops early and returns what it has, so the report is printed all the same.

use std::future::pending;

use tokio::sync::watch;

/// Whether the person at the keyboard has had enough. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Listens for Ctrl-C from now on. Must be called inside a `LocalSet`.
    pub fn on_ctrl_c() -> Self {
        let (sender, receiver) = watch::channel(false);
        tokio::task::spawn_local(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                sender.send_replace(true);
            }
        });
        Self(receiver)
    }

    /// One that follows `receiver`.
    #[cfg(test)]
    pub fn following(receiver: watch::Receiver<bool>) -> Self {
        Self(receiver)
    }

    /// Whether it has happened.
    pub fn happened(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once it has happened; never, if it can no longer happen.
    pub async fn wait(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|happened| *happened).await.is_err() {
            pending::<()>().await;
        }
    }
}

//! The runtime that openraft runs on: tokio's, with its ticks on a common grid.
//!
//! Every group has a ticker of its own, at a phase of its own. Hundreds of them would wake the process a thousand times a second
//! to find that there is nothing to do; on one grid a wake serves all of them. Used by `types.rs` alone.
use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use openraft::async_runtime::AsyncRuntime;
use openraft::{Instant as _, OptionalSend};
use openraft_rt_tokio::{TokioInstant, TokioRuntime};

/// Distance of the grid's lines, a fraction of a second. A tick comes late by at most this; election timeouts are many times as long.
const GRID: Duration = Duration::from_millis(100);

/// Tokio, with sleeps until an instant rounded up to the grid.
#[derive(Debug)]
pub struct GridRuntime(TokioRuntime);

/// The first instant on the grid that is not before `deadline`.
fn on_grid(deadline: TokioInstant) -> TokioInstant {
    static ORIGIN: OnceLock<TokioInstant> = OnceLock::new();
    let origin = *ORIGIN.get_or_init(TokioInstant::now);
    let since = deadline.saturating_duration_since(origin);
    let over = since.subsec_nanos() % GRID.subsec_nanos();
    if over == 0 {
        return deadline;
    }
    deadline + GRID.saturating_sub(Duration::from_nanos(over.into()))
}

impl AsyncRuntime for GridRuntime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = TokioInstant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <TokioRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(on_grid(deadline))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        TokioRuntime::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wakes_between_two_lines_wakes_on_the_later() {
        let line = on_grid(TokioInstant::now() + GRID);
        let step = Duration::from_millis(1);
        assert_eq!(on_grid(line), line);
        assert_eq!(on_grid(line - step), line);
        assert_eq!(on_grid(line + step), line + GRID);
        assert_eq!(on_grid(line + GRID), line + GRID);
    }
}

//! What signals mean to a node. Called by `cli/serve.rs`.
//!
//! | signal | |
//! |---|---|
//! | TERM, INT, QUIT, HUP | the node stops in order; the same or another of them a second later: at once |
//! | USR1, USR2 | logged, nothing else |
//!
//! HUP and QUIT are left alone where the process was started with them ignored, as `nohup` does. Every stop ends with exit
//! code 0, that at once included: the log on disk is made for a process that is gone from one moment to the next.

use std::future::{Future, poll_fn};
use std::io;
use std::task::Poll;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::logging;

/// A signal that comes again within this time is the same wish: supervisors and shells send some of them twice.
const SAME_WISH: Duration = Duration::from_secs(1);
/// Time that a stop may take beyond its setting: what is still there then hangs.
pub(super) const END_GRACE: Duration = Duration::from_millis(1_500);

/// Signals that one stream each waits for.
struct Signals(Vec<(&'static str, Signal)>);

impl Signals {
    fn new(kinds: &[(&'static str, SignalKind)]) -> io::Result<Self> {
        let streams = kinds.iter().map(|(name, kind)| Ok((*name, signal(*kind)?)));
        streams.collect::<io::Result<_>>().map(Self)
    }

    /// The next of them.
    async fn next(&mut self) -> &'static str {
        poll_fn(|context| {
            let mut came = self.0.iter_mut();
            let came = came.find_map(|(name, stream)| stream.poll_recv(context).is_ready().then_some(*name));
            came.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// Resolves at the first signal to stop. From then on the process ends at the next one that is not the same wish, or when
/// the stop has taken longer than `stop_timeout`, whatever hangs.
pub(super) fn stop(stop_timeout: Duration) -> io::Result<impl Future<Output = ()>> {
    let ignored = ignored(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
    let mut kinds = vec![
        ("SIGTERM", SignalKind::terminate()),
        ("SIGINT", SignalKind::interrupt()),
    ];
    let optional = [("SIGQUIT", SignalKind::quit()), ("SIGHUP", SignalKind::hangup())];
    kinds.extend(optional.iter().filter(|(_, kind)| !is_in(ignored, *kind)));
    let mut ends = Signals::new(&kinds)?;
    let unused = [
        ("SIGUSR1", SignalKind::user_defined1()),
        ("SIGUSR2", SignalKind::user_defined2()),
    ];
    let mut unused = Signals::new(&unused)?;
    tokio::spawn(async move {
        loop {
            let signal = unused.next().await;
            info!(signal, "this signal means nothing to a node");
        }
    });
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(async move {
        let signal = ends.next().await;
        info!(signal, "stopping; signal again after a second to stop at once");
        // Nobody listens any more when the node has ended by itself.
        let _ = stop.send(());
        let same_wish = SAME_WISH.min(stop_timeout);
        let left = (stop_timeout + END_GRACE).saturating_sub(same_wish);
        let _ = timeout(same_wish, repeated(&mut ends)).await;
        tokio::select! {
            signal = ends.next() => warn!(signal, "stopped at once"),
            () = sleep(left) => warn!("stopped at once: stop_timeout_ms has passed, and something still hangs"),
        }
        logging::flush();
        std::process::exit(0);
    });
    // A sender that was dropped means that the runtime ends: a reason to stop as well.
    Ok(async move { stopped.await.unwrap_or(()) })
}

/// Takes signals that mean nothing new, for ever.
async fn repeated(ends: &mut Signals) -> std::convert::Infallible {
    loop {
        ends.next().await;
    }
}

/// The signals that this process was told to ignore, one bit each from the lowest on: field `SigIgn` of proc(5).
fn ignored(status: &str) -> u64 {
    let field = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    field
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

fn is_in(mask: u64, kind: SignalKind) -> bool {
    let bit = kind.as_raw_value() - 1;
    u32::try_from(bit).is_ok_and(|bit| mask.checked_shr(bit).is_some_and(|rest| rest & 1 == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nohup_leaves_is_read() {
        let status = "Name:\tx\nSigBlk:\t0000000000000004\nSigIgn:\t0000000000001005\nSigCgt:\t0\n";
        let mask = ignored(status);
        assert!(is_in(mask, SignalKind::hangup()) && is_in(mask, SignalKind::quit()));
        assert!(!is_in(mask, SignalKind::terminate()) && !is_in(ignored(""), SignalKind::hangup()));
    }
}

//! Lines on their way to the log: a bounded queue, and the thread that writes it. Used by `logging.rs` alone.
//!
//! Whoever logs never waits: what finds the queue full, and what cannot be written, is lost and counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Lines that wait to be written; more are lost.
const LINES_WAITING_MAX: usize = 4_096;
/// How long an ending process waits for its last lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);
/// Pause between two tries to get the wish to flush into a full queue.
const FLUSH_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A cheap handle to the queue.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

impl Lines {
    /// Starts the thread that writes to `out`. `tell_lost` is called on it, with their number, when a line could be written
    /// after others were lost.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        tell_lost: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, waiting) = sync_channel(LINES_WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = lost.clone();
        std::thread::Builder::new()
            .name("xcron-log".to_owned())
            .spawn(move || write_all(out, &waiting, &counted, tell_lost))?;
        Ok(Self { queue, lost })
    }

    /// Takes a line, or counts it as lost.
    pub(super) fn push(&self, line: Vec<u8>) {
        if self.queue.try_send(Message::Line(line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until every line taken so far is written, but not for ever.
    pub(super) fn flush(&self) {
        let (done, is_done) = sync_channel(1);
        let mut wish = Message::Flush(done);
        for _ in 0..FLUSH_TIMEOUT.as_millis() / FLUSH_POLL_INTERVAL.as_millis() {
            match self.queue.try_send(wish) {
                Ok(()) => {
                    // An error is that it takes too long: whoever reads the log has stopped.
                    let _ = is_done.recv_timeout(FLUSH_TIMEOUT);
                    return;
                }
                Err(TrySendError::Full(unsent)) => wish = unsent,
                Err(TrySendError::Disconnected(_)) => return,
            }
            std::thread::sleep(FLUSH_POLL_INTERVAL);
        }
    }
}

fn write_all(mut out: impl Write, waiting: &Receiver<Message>, lost: &AtomicU64, tell_lost: impl Fn(u64)) {
    while let Ok(message) = waiting.recv() {
        match message {
            Message::Line(line) => match out.write_all(&line) {
                Ok(()) => {
                    let lines = lost.swap(0, Ordering::Relaxed);
                    if lines > 0 {
                        tell_lost(lines);
                    }
                }
                Err(_) => {
                    lost.fetch_add(1, Ordering::Relaxed);
                }
            },
            Message::Flush(done) => {
                let _ = out.flush();
                let _ = done.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// Fails as long as it is told to, then keeps what it is given.
    #[derive(Clone, Default)]
    struct Device(Arc<Mutex<(u32, Vec<u8>)>>);

    impl Write for Device {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut device = self.0.lock();
            if device.0 > 0 {
                device.0 -= 1;
                return Err(io::ErrorKind::StorageFull.into());
            }
            device.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_told() {
        let device = Device::default();
        device.0.lock().0 = 2;
        let told = Arc::new(AtomicU64::new(0));
        let telling = told.clone();
        let lines = Lines::start(device.clone(), move |lost| telling.store(lost, Ordering::SeqCst));
        let lines = lines.expect("a thread");
        for line in ["one\n", "two\n", "three\n"] {
            lines.push(line.as_bytes().to_vec());
        }
        lines.flush();
        assert_eq!(device.0.lock().1, b"three\n");
        assert_eq!(told.load(Ordering::SeqCst), 2);
    }

    /// Never takes anything.
    struct Stuck(Arc<Mutex<()>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            drop(self.0.lock());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_that_nobody_reads_makes_nobody_wait() {
        let stuck = Arc::new(Mutex::new(()));
        let held = stuck.lock();
        let lines = Lines::start(Stuck(stuck.clone()), |_| {}).expect("a thread");
        for _ in 0..LINES_WAITING_MAX + 10 {
            lines.push(b"line\n".to_vec());
        }
        assert!(
            lines.lost.load(Ordering::SeqCst) >= 9,
            "one may be in the writer's hand"
        );
        lines.flush();
        drop(held);
    }
}

//! Work that blocks for long - an install's commits, a sync, a read of old entries - away from the runtime's threads.
//!
//! Owns a few threads and nothing of what is done on them. A node that is sent a large snapshot would otherwise stand still
//! with every commit and sync of it. Made in `node/world.rs`; a simulation gives the turns itself, in virtual time.

use std::fmt::Debug;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Threads of a node for such work: two may sync at once, and there is one left for what is short.
const THREADS: usize = 3;

/// One piece of work.
pub type Job = Box<dyn FnOnce() + Send>;

/// Does work away from the runtime's threads.
pub trait Blocking: Debug + Send + Sync + 'static {
    /// Begins the job as soon as there is a place for it. It is done also if nobody waits for it any more.
    fn offload(&self, job: Job);
}

impl dyn Blocking {
    /// Does `work` away from the runtime's threads, and waits for what comes of it. Dropping the future does not stop it.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = oneshot::channel();
        // Nobody may wait any more.
        self.offload(Box::new(move || drop(done.send(work()))));
        result.await.expect("the work does not panic, and is never left undone")
    }
}

/// Threads of their own. They end when this is gone and nothing waits any more.
#[derive(Clone, Debug)]
pub struct Threads(mpsc::Sender<Job>);

impl Threads {
    /// Starts them.
    pub fn start() -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..THREADS {
            let receiver = Arc::clone(&receiver);
            let thread = std::thread::Builder::new().name("xcron-blocking".into());
            thread.spawn(move || work(&receiver))?;
        }
        Ok(Self(sender))
    }
}

fn work(receiver: &Mutex<mpsc::Receiver<Job>>) {
    loop {
        // Whoever waits for work holds the lock, and leaves it before doing any.
        let next = receiver.lock().recv();
        let Ok(next) = next else { return };
        // The panic hook has told where; who waits sees that there is no result. The thread has more to do.
        drop(catch_unwind(AssertUnwindSafe(next)));
    }
}

impl Blocking for Threads {
    fn offload(&self, job: Job) {
        // The threads live as long as this sender.
        drop(self.0.send(job));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn work_is_done_elsewhere_and_also_if_nobody_waits() {
        let threads: Arc<dyn Blocking> = Arc::new(Threads::start().expect("threads"));
        let here = std::thread::current().id();
        assert_ne!(threads.run(|| std::thread::current().id()).await, here);
        let (begun, is_begun) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        let (done, is_done) = mpsc::channel();
        let waiting = threads.run(move || {
            begun.send(()).expect("awaited");
            may_go.recv().expect("sent");
            done.send(()).expect("awaited");
        });
        assert!(tokio::time::timeout(Duration::from_millis(20), waiting).await.is_err());
        is_begun.recv().expect("it was begun");
        go.send(()).expect("awaited");
        is_done.recv().expect("it was done, although nobody waited");
    }

    #[tokio::test]
    async fn a_panic_takes_no_thread_away() {
        let threads: Arc<dyn Blocking> = Arc::new(Threads::start().expect("threads"));
        for _ in 0..2 * THREADS {
            threads.offload(Box::new(|| panic!("expected in this test")));
        }
        assert_eq!(threads.run(|| 7).await, 7);
    }
}

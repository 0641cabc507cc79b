//! The memory that the bodies of all requests may take together. `server.rs` gives each request a handle, `body.rs` takes
//! room as the bytes arrive, and the room is held until the request is answered.
//!
//! When it is full, uploads that have stalled are given up first; when none has, the one that asks for more is refused.

use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::limits::REQUEST_BODIES_BYTES_MAX;

/// An upload of which nothing has come for this long has stalled.
const STALLED_AFTER: Duration = Duration::from_secs(1);

/// A cheap handle to the room.
#[derive(Clone)]
pub struct Bodies(Arc<Shared>);

struct Shared {
    inner: Mutex<Inner>,
    clock: Arc<dyn Clock>,
    bytes_max: usize,
}

#[derive(Default)]
struct Inner {
    used_bytes: usize,
    last: u64,
    /// Those that wait for more, by the order of their last bytes.
    uploads: BTreeMap<u64, Waiting>,
}

/// An upload that waits for its next bytes.
struct Waiting {
    bytes: usize,
    since: Duration,
    given_up: Arc<Notify>,
}

/// There is no room for these bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Bodies {
    /// Room for [`REQUEST_BODIES_BYTES_MAX`].
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::with_room(clock, REQUEST_BODIES_BYTES_MAX)
    }

    pub(super) fn with_room(clock: Arc<dyn Clock>, bytes_max: usize) -> Self {
        Self(Arc::new(Shared {
            inner: Mutex::default(),
            clock,
            bytes_max,
        }))
    }

    /// The room of a request that has sent nothing yet.
    pub(super) fn begin(&self) -> Room {
        Room {
            shared: self.0.clone(),
            bytes: 0,
            waiting: None,
            given_up: None,
            is_given_up: false,
        }
    }
}

impl fmt::Debug for Bodies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bodies")
            .field("bytes_max", &self.0.bytes_max)
            .finish_non_exhaustive()
    }
}

/// What one request's body takes, until dropped.
pub(super) struct Room {
    shared: Arc<Shared>,
    bytes: usize,
    /// Its number among those that wait for more.
    waiting: Option<u64>,
    /// How it is told that it has been given up; made when it waits for the first time.
    given_up: Option<Arc<Notify>>,
    is_given_up: bool,
}

impl Room {
    /// Takes room for `bytes` more.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Full> {
        let now = self.shared.clock.monotonic();
        let shared = self.shared.clone();
        let mut inner = shared.inner.lock();
        self.stop_waiting(&mut inner);
        if self.is_given_up {
            return Err(Full);
        }
        while inner.used_bytes + bytes > shared.bytes_max {
            let oldest = inner.uploads.first_entry();
            let stalled = oldest.filter(|oldest| now.saturating_sub(oldest.get().since) >= STALLED_AFTER);
            let Some(stalled) = stalled else { return Err(Full) };
            let stalled = stalled.remove();
            // Its task drops the bytes as soon as it is told.
            inner.used_bytes -= stalled.bytes;
            stalled.given_up.notify_one();
        }
        inner.used_bytes += bytes;
        self.bytes += bytes;
        Ok(())
    }

    /// More of the body is to come: until then it can be given up.
    pub(super) fn wait(&mut self) {
        let since = self.shared.clock.monotonic();
        let given_up = self.given_up.get_or_insert_default().clone();
        let shared = self.shared.clone();
        let mut inner = shared.inner.lock();
        self.stop_waiting(&mut inner);
        if self.is_given_up {
            return;
        }
        inner.last += 1;
        self.waiting = Some(inner.last);
        let (number, bytes) = (inner.last, self.bytes);
        inner.uploads.insert(number, Waiting { bytes, since, given_up });
    }

    /// Completes when it has been given up.
    pub(super) fn given_up(&self) -> impl Future<Output = ()> + use<> {
        let given_up = self.given_up.clone();
        async move {
            match given_up {
                Some(given_up) => given_up.notified().await,
                None => pending().await,
            }
        }
    }

    /// All of it has come.
    pub(super) fn set_whole(&mut self) {
        if self.waiting.is_some() {
            let shared = self.shared.clone();
            self.stop_waiting(&mut shared.inner.lock());
        }
    }

    fn stop_waiting(&mut self, inner: &mut Inner) {
        if self
            .waiting
            .take()
            .is_some_and(|number| inner.uploads.remove(&number).is_none())
        {
            // Its bytes are not counted any more.
            self.is_given_up = true;
            self.bytes = 0;
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let shared = self.shared.clone();
        let mut inner = shared.inner.lock();
        self.stop_waiting(&mut inner);
        inner.used_bytes -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// Shows what it is set to.
    #[derive(Debug, Default)]
    struct SetClock(Mutex<Duration>);

    impl Clock for SetClock {
        fn wall_ms(&self) -> u64 {
            0
        }

        fn monotonic(&self) -> Duration {
            *self.0.lock()
        }
    }

    fn bodies(bytes_max: usize) -> (Bodies, Arc<SetClock>) {
        let clock = Arc::new(SetClock::default());
        (Bodies::with_room(clock.clone(), bytes_max), clock)
    }

    fn used_bytes(bodies: &Bodies) -> usize {
        bodies.0.inner.lock().used_bytes
    }

    #[test]
    fn what_is_full_refuses_and_room_comes_back() {
        let (bodies, _) = bodies(100);
        let mut first = bodies.begin();
        assert_eq!(first.grow(60), Ok(()));
        assert_eq!(first.grow(41), Err(Full));
        assert_eq!(first.grow(40), Ok(()));
        let mut second = bodies.begin();
        assert_eq!(second.grow(1), Err(Full));
        drop(first);
        assert_eq!(second.grow(100), Ok(()));
        drop(second);
        assert_eq!(used_bytes(&bodies), 0);
    }

    #[test]
    fn a_stalled_upload_makes_room_and_one_that_goes_on_does_not() {
        let (bodies, clock) = bodies(100);
        let [mut stalled, mut slow, mut whole] = [bodies.begin(), bodies.begin(), bodies.begin()];
        for room in [&mut stalled, &mut slow, &mut whole] {
            assert_eq!(room.grow(30), Ok(()));
            room.wait();
        }
        whole.set_whole();
        let given_up = stalled.given_up();
        *clock.0.lock() = STALLED_AFTER;
        assert_eq!(slow.grow(5), Ok(()));
        slow.wait();
        let mut next = bodies.begin();
        assert_eq!(next.grow(20), Ok(()));
        assert!(given_up.now_or_never().is_some());
        assert!(slow.given_up().now_or_never().is_none());
        assert_eq!(stalled.grow(1), Err(Full), "it is given up for good");
        assert_eq!(
            next.grow(50),
            Err(Full),
            "the others have not stalled, or have come whole"
        );
        drop((stalled, slow, whole, next));
        assert_eq!(used_bytes(&bodies), 0);
        assert!(bodies.0.inner.lock().uploads.is_empty());
    }
}

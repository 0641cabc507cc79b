//! How many connections may be open, and which of them goes when another one comes. Used by `server.rs` alone.
//!
//! At the bound an idle connection is closed for a new one: the oldest of those that have never asked anything, and without
//! such the one that has been idle longest. Thousands who only hold on keep no client out, and push none out either. While
//! every connection has a request, further ones wait to be accepted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::limits::CONNECTIONS_LEAVING_MAX;

/// Added to the number of an idle connection that has had a request.
const ASKED: u64 = 1 << 63;

/// The places of one server.
#[derive(Debug)]
pub(super) struct Places {
    inner: Arc<Mutex<Inner>>,
    freed: Arc<Notify>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    open: usize,
    /// By the order in which they became idle, those that have had a request after all others: see [`ASKED`].
    idle: BTreeMap<u64, Arc<Call>>,
    /// Told to go, and not gone yet.
    leaving: usize,
}

/// How a connection is told to go.
#[derive(Debug, Default)]
struct Call {
    leave: Notify,
    is_leaving: AtomicBool,
}

impl Places {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            inner: Arc::default(),
            freed: Arc::new(Notify::new()),
            limit: limit.max(1),
        }
    }

    /// Completes when one more connection can be accepted. Only one may wait.
    pub(super) async fn room(&self) {
        while !self.has_room() {
            self.freed.notified().await;
        }
    }

    fn has_room(&self) -> bool {
        let inner = self.inner.lock();
        inner.open < self.limit || (inner.leaving < CONNECTIONS_LEAVING_MAX && !inner.idle.is_empty())
    }

    /// A place for a new connection, which is idle until it has a request.
    pub(super) fn enter(&self) -> Place {
        let mut inner = self.inner.lock();
        if inner.open >= self.limit
            && let Some((_, oldest)) = inner.idle.pop_first()
        {
            inner.leaving += 1;
            oldest.is_leaving.store(true, Ordering::SeqCst);
            oldest.leave.notify_one();
        }
        inner.open += 1;
        drop(inner);
        let place = Place {
            inner: self.inner.clone(),
            freed: self.freed.clone(),
            number: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            call: Arc::default(),
        };
        place.set_idle();
        place
    }
}

/// A connection's place, until dropped.
#[derive(Debug)]
pub(super) struct Place {
    inner: Arc<Mutex<Inner>>,
    freed: Arc<Notify>,
    /// Under which it is among the idle ones; 0 while it has a request.
    number: AtomicU64,
    /// Requests that have begun so far.
    requests: AtomicU64,
    call: Arc<Call>,
}

impl Place {
    /// It has a request from now on.
    pub(super) fn set_busy(&self) {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let mut inner = self.inner.lock();
        inner.idle.remove(&self.number.swap(0, Ordering::SeqCst));
    }

    /// How many requests it has had.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    /// It has been answered.
    pub(super) fn set_idle(&self) {
        let mut inner = self.inner.lock();
        if self.call.is_leaving.load(Ordering::SeqCst) {
            return;
        }
        inner.last += 1;
        let number = if self.requests() > 0 {
            inner.last + ASKED
        } else {
            inner.last
        };
        self.number.store(number, Ordering::SeqCst);
        inner.idle.insert(number, self.call.clone());
        drop(inner);
        self.freed.notify_one();
    }

    /// Whether it has a request.
    pub(super) fn is_busy(&self) -> bool {
        self.number.load(Ordering::SeqCst) == 0
    }

    /// Completes when the connection has to go.
    pub(super) async fn told_to_leave(&self) {
        self.call.leave.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.inner.lock();
        inner.open -= 1;
        inner.idle.remove(&self.number.load(Ordering::SeqCst));
        if self.call.is_leaving.load(Ordering::SeqCst) {
            inner.leaving -= 1;
        }
        drop(inner);
        self.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn is_told(place: &Place) -> bool {
        place.told_to_leave().now_or_never().is_some()
    }

    #[test]
    fn the_oldest_idle_one_goes_for_a_new_one() {
        let places = Places::new(2);
        let [first, second] = [places.enter(), places.enter()];
        first.set_busy();
        first.set_idle();
        assert!(places.room().now_or_never().is_some());
        let third = places.enter();
        assert!(
            is_told(&second) && !is_told(&first) && !is_told(&third),
            "the first was used after the second"
        );
        drop(second);
        first.set_busy();
        third.set_busy();
        assert!(places.room().now_or_never().is_none(), "nobody is idle");
        third.set_idle();
        assert!(places.room().now_or_never().is_some());
    }

    #[test]
    fn who_only_holds_on_pushes_no_client_out() {
        let places = Places::new(2);
        let client = places.enter();
        client.set_busy();
        client.set_idle();
        let mut holding = places.enter();
        for _ in 0..10 {
            let next = places.enter();
            assert!(is_told(&holding) && !is_told(&client));
            holding = next;
        }
        drop(holding);
        let second = places.enter();
        second.set_busy();
        let third = places.enter();
        assert!(
            is_told(&client) && !is_told(&third),
            "without such the longest idle one goes"
        );
    }

    #[test]
    fn only_so_many_are_told_to_go_at_once() {
        let places = Places::new(100);
        let mut held: Vec<Place> = (0..100 + CONNECTIONS_LEAVING_MAX).map(|_| places.enter()).collect();
        assert!(places.room().now_or_never().is_none());
        assert_eq!(
            held.iter().filter(|place| is_told(place)).count(),
            CONNECTIONS_LEAVING_MAX
        );
        // One that got a request at the same moment is answered and goes then.
        held[0].set_busy();
        held[0].set_idle();
        assert!(places.room().now_or_never().is_none());
        held.remove(0);
        assert!(
            places.room().now_or_never().is_some(),
            "one has gone, another may be told"
        );
        drop(held);
        let inner = places.inner.lock();
        assert_eq!((inner.open, inner.leaving, inner.idle.len()), (0, 0, 0));
    }
}

//! The addresses of targets' names: one lookup a name at a time, its answer kept for as long as the name server says, and the
//! last good one used while no name server answers.
//!
//! Owns the cache and its bounds; how a name server is asked is `names/system.rs`'s. Used by the HTTP clients of `deliver.rs`
//! alone. A name without an answer holds the attempts that wait for it, and nobody else: a lookup takes no thread, and no more
//! of them run than attempts may be in flight.

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::clock::Clock;
use crate::limits::{
    LOOKUP_MS_MAX, NAME_FAILED_MS, NAME_FRESH_MS_MAX, NAME_FRESH_MS_MIN, NAME_STALE_MS, NAMES_MAX, STALE_PATIENCE_MS,
};

mod system;

pub(super) use self::system::SystemLookup;

/// What a name server says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// At least one address, in the order in which they are to be tried.
    pub(super) addresses: Arc<[IpAddr]>,
    /// For how long that holds.
    pub(super) ttl: Duration,
}

/// Why there is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LookupError {
    /// A name server says so.
    #[error("there is no such name, or it has no address")]
    NoAddress,
    /// Nobody has said anything.
    #[error("no name server answered in time")]
    NoAnswer,
    /// A name server could not tell, or gave an answer that cannot be read.
    #[error("the name servers failed: {0}")]
    Failed(String),
    /// Nobody was asked: too many lookups are running.
    #[error("the lookup was not begun: as many as may run at once are waiting for their name servers")]
    NotBegun,
    /// Nobody could be asked: this node lacks a file, a port or a route. Carries the number of the system's error.
    #[error("no name server could be asked: {}", std::io::Error::from_raw_os_error(*.0))]
    Local(i32),
}

impl LookupError {
    /// Whether a name server has spoken about the name, so that what was known before is over.
    fn is_final(&self) -> bool {
        matches!(self, Self::NoAddress)
    }

    /// Whether it says something about the name or its servers, and not about this node alone.
    fn is_remembered(&self) -> bool {
        !matches!(self, Self::NotBegun | Self::Local(_))
    }
}

/// What [`Lookup::lookup`] gives.
pub(super) type Asked = Pin<Box<dyn Future<Output = Result<Found, LookupError>> + Send>>;

/// Asks for the addresses of a name. Behind it a test puts its own name servers.
pub(super) trait Lookup: Debug + Send + Sync {
    /// `name` as it stands in a URL. Dropping the future gives the lookup up.
    fn lookup(&self, name: &str) -> Asked;
}

/// Cheap handle to what is known of names.
#[derive(Clone, Debug)]
pub(super) struct Names(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    lookup: Arc<dyn Lookup>,
    clock: Arc<dyn Clock>,
    names: Mutex<HashMap<Box<str>, Known>>,
    /// A place for each lookup that may run.
    places: Arc<Semaphore>,
    /// How long a lookup may take in all. Shorter than the time for a connection: the reason is then the name, and not the target.
    lookup_time: Duration,
}

type Outcome = Result<Arc<[IpAddr]>, LookupError>;

/// What is known of a name.
#[derive(Debug, Default)]
struct Known {
    found: Option<Kept>,
    /// The last lookup has failed, and is not repeated before this instant.
    failed: Option<(LookupError, Duration)>,
    /// The lookup that runs.
    running: Option<watch::Receiver<Option<Outcome>>>,
}

#[derive(Debug)]
struct Kept {
    addresses: Arc<[IpAddr]>,
    /// Until then nobody is asked again.
    fresh_until: Duration,
}

impl Kept {
    /// Whether the addresses may still be used where nobody answers.
    fn is_usable(&self, now: Duration) -> bool {
        now < self.fresh_until + Duration::from_millis(NAME_STALE_MS)
    }
}

/// What is to be done about a name.
enum Next {
    Done(Outcome),
    /// A lookup runs; while it does, the old addresses are there.
    Wait(watch::Receiver<Option<Outcome>>, Option<Arc<[IpAddr]>>),
}

impl Names {
    /// `lookups_max`: how many may run at once. `connect_time`: what an attempt has for its connection, this included.
    pub(super) fn new(
        lookup: Arc<dyn Lookup>,
        clock: Arc<dyn Clock>,
        lookups_max: usize,
        connect_time: Duration,
    ) -> Self {
        Self(Arc::new(Inner {
            lookup,
            clock,
            names: Mutex::default(),
            places: Arc::new(Semaphore::new(lookups_max.clamp(1, Semaphore::MAX_PERMITS))),
            lookup_time: (connect_time * 4 / 5).min(Duration::from_millis(LOOKUP_MS_MAX)),
        }))
    }

    /// The addresses of a name. Ends within the time of a lookup.
    pub(super) async fn addresses(&self, name: &str) -> Outcome {
        let (mut running, old) = match self.next(name) {
            Next::Done(outcome) => return outcome,
            Next::Wait(running, old) => (running, old),
        };
        let ended = running.wait_for(Option::is_some);
        let Some(old) = old else {
            // Its sender goes only with the node.
            return ended
                .await
                .ok()
                .and_then(|outcome| outcome.clone())
                .unwrap_or(Err(LookupError::NoAnswer));
        };
        match timeout(Duration::from_millis(STALE_PATIENCE_MS), ended).await {
            Ok(Ok(outcome)) => match outcome.as_ref() {
                Some(Ok(addresses)) => Ok(addresses.clone()),
                Some(Err(error)) if error.is_final() => Err(error.clone()),
                _ => Ok(old),
            },
            _ => Ok(old),
        }
    }

    fn next(&self, name: &str) -> Next {
        let now = self.0.clock.monotonic();
        let mut names = self.0.names.lock();
        if !names.contains_key(name) && names.len() >= NAMES_MAX {
            make_room(&mut names, now);
        }
        let known = names.entry(name.into()).or_default();
        let found = known.found.as_ref().filter(|found| found.is_usable(now));
        if let Some(found) = found
            && now < found.fresh_until
        {
            return Next::Done(Ok(found.addresses.clone()));
        }
        let old = found.map(|found| found.addresses.clone());
        if let Some((error, until)) = &known.failed
            && now < *until
        {
            return Next::Done(old.ok_or_else(|| error.clone()));
        }
        // A lookup that has died, and not ended, must not be waited for again.
        known.running = known.running.take().filter(|running| running.has_changed().is_ok());
        let running = known.running.get_or_insert_with(|| self.begin(name.into()));
        Next::Wait(running.clone(), old)
    }

    /// A task of its own: whoever began it may be given up, and others wait for it as well.
    fn begin(&self, name: Box<str>) -> watch::Receiver<Option<Outcome>> {
        let (sender, receiver) = watch::channel(None);
        let names = self.clone();
        tokio::spawn(async move {
            let answer = names.ask(&name).await;
            let outcome = names.learn(&name, answer);
            sender.send_replace(Some(outcome));
        });
        receiver
    }

    async fn ask(&self, name: &str) -> Result<Found, LookupError> {
        let began = self.0.clock.monotonic();
        let place = timeout(self.0.lookup_time / 2, self.0.places.acquire()).await;
        let Ok(Ok(_place)) = place else {
            return Err(LookupError::NotBegun);
        };
        let waited = self.0.clock.monotonic().saturating_sub(began);
        let left = self.0.lookup_time.saturating_sub(waited);
        timeout(left, self.0.lookup.lookup(name))
            .await
            .unwrap_or(Err(LookupError::NoAnswer))
    }

    /// Keeps what a lookup has brought.
    fn learn(&self, name: &str, answer: Result<Found, LookupError>) -> Outcome {
        let now = self.0.clock.monotonic();
        let mut names = self.0.names.lock();
        // Nobody forgets a name while its lookup runs.
        let known = names.entry(name.into()).or_default();
        known.running = None;
        match answer {
            Ok(found) => {
                let fresh = found.ttl.clamp(
                    Duration::from_millis(NAME_FRESH_MS_MIN),
                    Duration::from_millis(NAME_FRESH_MS_MAX),
                );
                known.failed = None;
                known.found = Some(Kept {
                    addresses: found.addresses.clone(),
                    fresh_until: now + fresh,
                });
                Ok(found.addresses)
            }
            Err(error) => {
                if error.is_final() {
                    known.found = None;
                }
                let until = now + Duration::from_millis(NAME_FAILED_MS);
                known.failed = error.is_remembered().then(|| (error.clone(), until));
                Err(error)
            }
        }
    }
}

/// Forgets names of which nothing is needed now; where there are none, the one whose answer is the oldest.
fn make_room(names: &mut HashMap<Box<str>, Known>, now: Duration) {
    names.retain(|_, known| {
        known.running.is_some() || known.found.as_ref().is_some_and(|found| now < found.fresh_until)
    });
    if names.len() < NAMES_MAX {
        return;
    }
    let idle = names.iter().filter(|(_, known)| known.running.is_none());
    let oldest = idle.min_by_key(|(_, known)| known.found.as_ref().map(|found| found.fresh_until));
    if let Some(name) = oldest.map(|(name, _)| name.clone()) {
        names.remove(&name);
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let names = self.clone();
        Box::pin(async move {
            let addresses = names.addresses(name.as_str()).await?;
            // The port is the URL's.
            let addresses: Vec<_> = addresses.iter().map(|address| SocketAddr::new(*address, 0)).collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests;

//! The network between hosts: connections and datagrams with latency, loss, partitions; nothing of it on the machine.
//!
//! Owns who listens where, what is on its way, and which links work. A host is a number; its address is 10.0.0.(host + 1).
//! Things arrive only between two steps of the world (`Net::deliver`), never sooner than one step after they were sent: so the
//! order in which hosts are stepped does not matter. Sockets on it are `net/stream.rs` and `net/datagram.rs`.

mod datagram;
mod link;
mod stream;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::Waker;

use parking_lot::Mutex;
use xxhash_rust::xxh3::Xxh3Default;

use crate::dice::Dice;
pub use datagram::Captured;
pub use link::{Link, Weather};
use stream::{Ends, Parcel};
pub use stream::{SimListener, SimStream};

/// A machine on the network.
pub type Host = usize;

/// Pause before a segment that was lost is sent again, in microseconds.
const RESEND_US: u64 = 200_000;
/// Pause before an attempt to connect is repeated, as kernels do, in microseconds.
const RECONNECT_US: u64 = 1_000_000;
/// Datagrams that wait at a socket; more are lost, as in a kernel.
const DATAGRAMS_WAITING_MAX: usize = 1_024;

/// The address of a host.
pub fn address(host: Host, port: u16) -> SocketAddr {
    let last = u8::try_from(host + 1).expect("few hosts");
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)), port)
}

/// The host at an address.
pub fn host_at(address: SocketAddr) -> Option<Host> {
    match address.ip() {
        IpAddr::V4(ip) => usize::from(ip.octets()[3]).checked_sub(1),
        IpAddr::V6(_) => None,
    }
}

/// One host's access to the network, for one run of its process: after that run nothing goes out any more.
#[derive(Clone, Debug)]
pub struct Net {
    shared: Arc<Mutex<Inner>>,
    host: Host,
    run: u64,
}

#[derive(Debug)]
struct Inner {
    now_us: u64,
    dice: Dice,
    weather: Weather,
    links: BTreeMap<(Host, Host), Link>,
    /// The run of each host's process that may use the network; `None` while there is none.
    runs: BTreeMap<Host, Option<u64>>,
    /// Hosts without power: they do not even refuse.
    dark: BTreeMap<Host, bool>,
    listeners: BTreeMap<SocketAddr, stream::Queue>,
    sockets: BTreeMap<SocketAddr, datagram::Inbox>,
    connections: BTreeMap<u64, Ends>,
    connecting: BTreeMap<u64, stream::Connecting>,
    next_id: u64,
    sent: u64,
    arrivals: BinaryHeap<Reverse<(u64, u64)>>,
    travelling: BTreeMap<u64, Travel>,
    /// Datagrams that were sent, since somebody asked for them.
    captured: Option<Vec<Captured>>,
    /// Woken once the lock is free.
    wake: Vec<Waker>,
    /// Bytes that went over the network.
    bytes: u64,
    /// Hash of everything that arrived, and when.
    trace: Trace,
}

/// A hash in the making.
struct Trace(Xxh3Default);

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0.digest())
    }
}

/// Something on its way.
#[derive(Debug)]
struct Travel {
    from: Host,
    to: Host,
    what: What,
}

#[derive(Debug)]
enum What {
    /// An attempt to connect.
    Knock { connection: u64, to: SocketAddr },
    /// Its success, or its refusal.
    Answer { connection: u64, is_open: bool },
    /// The next parcel of one direction of a connection.
    Parcel { connection: u64, is_forth: bool },
    /// A datagram.
    Datagram {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
}

impl Net {
    /// A network without hosts.
    pub fn new(dice: Dice, weather: Weather) -> Self {
        let inner = Inner {
            now_us: 0,
            dice,
            weather,
            links: BTreeMap::new(),
            runs: BTreeMap::new(),
            dark: BTreeMap::new(),
            listeners: BTreeMap::new(),
            sockets: BTreeMap::new(),
            connections: BTreeMap::new(),
            connecting: BTreeMap::new(),
            next_id: 0,
            sent: 0,
            arrivals: BinaryHeap::new(),
            travelling: BTreeMap::new(),
            captured: None,
            wake: Vec::new(),
            bytes: 0,
            trace: Trace(Xxh3Default::new()),
        };
        Self {
            shared: Arc::new(Mutex::new(inner)),
            host: Host::MAX,
            run: 0,
        }
    }

    /// The network as a new process on `host` sees it.
    #[must_use]
    pub fn join(&self, host: Host) -> Self {
        let mut inner = self.shared.lock();
        inner.next_id += 1;
        let run = inner.next_id;
        inner.runs.insert(host, Some(run));
        inner.dark.insert(host, false);
        Self {
            shared: self.shared.clone(),
            host,
            run,
        }
    }

    /// The process on `host` is gone. With `is_dark` its machine as well: nobody is told, and nobody answers.
    pub fn leave(&self, host: Host, is_dark: bool) {
        self.change(|inner| {
            inner.runs.insert(host, None);
            inner.dark.insert(host, is_dark);
            inner.listeners.retain(|address, _| host_at(*address) != Some(host));
            inner.sockets.retain(|address, _| host_at(*address) != Some(host));
            inner.connecting.retain(|_, connecting| connecting.from != host);
            stream::abandon(inner, host, is_dark);
        });
    }

    /// Changes the weather on all links.
    pub fn set_weather(&self, weather: Weather) {
        self.shared.lock().weather = weather;
    }

    /// Changes what one direction between two hosts does.
    pub fn set_link(&self, from: Host, to: Host, link: Link) {
        self.shared.lock().links.insert((from, to), link);
    }

    /// Every link works again.
    pub fn heal(&self) {
        self.shared.lock().links.clear();
    }

    /// Ends every connection between two hosts with a reset on both sides.
    pub fn reset(&self, one: Host, other: Host) {
        self.change(|inner| stream::reset(inner, one, other));
    }

    /// Bytes that were sent so far.
    pub fn bytes(&self) -> u64 {
        self.shared.lock().bytes
    }

    /// Hash of everything that arrived so far, and when.
    pub fn trace(&self) -> u64 {
        self.shared.lock().trace.0.digest()
    }

    /// Lets everything arrive that is due by `now_us`.
    pub fn deliver(&self, now_us: u64) {
        self.change(|inner| {
            inner.now_us = now_us;
            while let Some(Reverse((at_us, id))) = inner.arrivals.peek().copied()
                && at_us <= now_us
            {
                inner.arrivals.pop();
                if let Some(travel) = inner.travelling.remove(&id) {
                    inner.trace.0.update(&at_us.to_le_bytes());
                    inner.arrive(travel);
                }
            }
        });
    }

    /// Works on the network, then wakes whom that concerns.
    fn change<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.shared.lock();
        let done = work(&mut inner);
        let wake = std::mem::take(&mut inner.wake);
        drop(inner);
        wake.into_iter().for_each(Waker::wake);
        done
    }

    /// Works on the network unless this process is gone.
    fn live<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> Option<T> {
        self.change(|inner| {
            let is_live = inner.runs.get(&self.host).copied().flatten() == Some(self.run);
            is_live.then(|| work(inner))
        })
    }
}

impl Inner {
    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn is_open(&self, from: Host, to: Host) -> bool {
        self.links.get(&(from, to)).is_none_or(|link| !link.is_cut)
    }

    fn link(&self, from: Host, to: Host) -> Link {
        self.links.get(&(from, to)).copied().unwrap_or_default()
    }

    /// How long something takes from one host to another, in microseconds: at least one step of the world.
    fn latency_us(&mut self, from: Host, to: Host) -> u64 {
        let extra_us = self.link(from, to).extra_us;
        let (least, most) = (self.weather.latency_us_min, self.weather.latency_us_max);
        extra_us + self.dice.within(least..most.max(least + 1))
    }

    fn is_lost(&mut self, from: Host, to: Host) -> bool {
        let permille = self.weather.loss_permille.max(self.link(from, to).loss_permille);
        permille > 0 && self.dice.chance(permille)
    }

    fn send(&mut self, after_us: u64, travel: Travel) {
        self.sent += 1;
        let id = self.sent;
        self.arrivals.push(Reverse((self.now_us + after_us, id)));
        self.travelling.insert(id, travel);
    }

    fn is_dark(&self, host: Host) -> bool {
        self.dark.get(&host).copied().unwrap_or(false)
    }

    fn arrive(&mut self, travel: Travel) {
        let is_open = self.is_open(travel.from, travel.to);
        match travel.what {
            What::Knock { connection, to } => {
                if !is_open || self.is_dark(travel.to) {
                    // Whoever knocks goes on knocking until it gives up.
                    if self.connecting.contains_key(&connection) {
                        self.send(RECONNECT_US, travel);
                    }
                    return;
                }
                stream::knock(self, connection, travel.from, to);
            }
            What::Answer {
                connection,
                is_open: answer,
            } => {
                if is_open {
                    stream::answer(self, connection, answer);
                } else {
                    self.send(RESEND_US, travel);
                }
            }
            What::Parcel { connection, is_forth } => {
                if is_open {
                    stream::arrive(self, connection, is_forth);
                } else if self.connections.contains_key(&connection) {
                    self.send(RESEND_US, travel);
                }
            }
            What::Datagram { from, to, bytes } => {
                self.trace.0.update(&bytes);
                if is_open && let Some(inbox) = self.sockets.get_mut(&to) {
                    datagram::arrive(inbox, &mut self.wake, from, bytes);
                }
            }
        }
    }
}

/// What waits for somebody who reads it.
#[derive(Debug)]
struct Waiting<T> {
    items: VecDeque<T>,
    reader: Option<Waker>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self {
            items: VecDeque::new(),
            reader: None,
        }
    }
}

impl<T> Waiting<T> {
    fn push(&mut self, item: T, wake: &mut Vec<Waker>) {
        self.items.push_back(item);
        wake.extend(self.reader.take());
    }
}

impl Inner {
    fn parcel(&mut self, connection: u64, is_forth: bool, parcel: Parcel) {
        stream::put(self, connection, is_forth, parcel);
    }
}

//! The loop around chitchat: starts it, hands it this node's facts, makes views of what it knows, speaks to contacts it does
//! not know, and starts it anew should it end. Started by `mod.rs`.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use chitchat::{ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, spawn_chitchat};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::contacts::Contacts;
use super::facts::{self, Facts};
use super::readings::Readings;
use super::transport::SealedTransport;
use super::view::{Book, ClusterView};
use super::{DEAD_GRACE, HEARTBEAT_IGNORED, HEARTBEAT_PRIOR, PHI, SAMPLES};
use crate::clock::Clock;

/// chitchat's own name of a cluster: the same everywhere, since the seal tells clusters apart.
const CHITCHAT_CLUSTER: &str = "xcron";
/// Time between two looks at everything: what chitchat does not announce (the dead it forgets) is seen this late.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pause before a gossip that ended is started anew; doubled each time that it cannot be.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);
const REOPEN_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Most members told in person that this node leaves; they tell the others.
const FAREWELLS_MAX: usize = 16;
/// Rounds that a leaving node waits for its farewell to be fetched.
const FAREWELL_ROUNDS: u32 = 2;

/// How the gossip is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Not at all.
    No,
    /// Without a word, as if crashed.
    Silently,
    /// After telling the others.
    Politely,
}

/// What handles and the loop share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) facts: Mutex<Facts>,
    /// The facts changed.
    pub(super) changed: Notify,
    pub(super) stop: watch::Sender<Stop>,
    pub(super) view: watch::Sender<Arc<ClusterView>>,
}

/// The loop's own state.
pub(super) struct Gossip {
    pub(super) shared: Arc<Shared>,
    pub(super) transport: SealedTransport,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) listen: SocketAddr,
    pub(super) interval: Duration,
    pub(super) incarnation: u64,
    pub(super) seeds: watch::Receiver<BTreeSet<SocketAddr>>,
    pub(super) contacts: Contacts,
    pub(super) book: Book,
    pub(super) readings: Readings,
}

/// Why a session is over.
enum End {
    Stopped,
    /// chitchat ended by itself.
    Failed(String),
}

impl Gossip {
    /// Opens the socket and starts chitchat on it.
    pub(super) async fn open(&self) -> Result<ChitchatHandle, String> {
        let me = self.shared.facts.lock().clone();
        let config = ChitchatConfig {
            chitchat_id: ChitchatId::new(facts::name(me.node), self.incarnation, me.peer),
            cluster_id: CHITCHAT_CLUSTER.to_owned(),
            gossip_interval: self.interval,
            listen_addr: self.listen,
            // Contacts does their part: with names that a simulation can resolve, and without forgetting.
            seed_nodes: Vec::new(),
            failure_detector_config: FailureDetectorConfig::new(
                PHI,
                SAMPLES,
                HEARTBEAT_IGNORED,
                HEARTBEAT_PRIOR,
                DEAD_GRACE,
            ),
            marked_for_deletion_grace_period: DEAD_GRACE,
            catchup_callback: None,
            extra_liveness_predicate: None,
        };
        let told = me.tell(false).map(|(key, value)| (key.to_owned(), value));
        spawn_chitchat(config, told.to_vec(), &self.transport)
            .await
            .map_err(|error| format!("{error:#}"))
    }

    /// Gossips until told to stop.
    pub(super) async fn run(mut self, first: ChitchatHandle) {
        let mut opened = Ok(first);
        let mut pause = REOPEN_PAUSE;
        loop {
            let error = match opened {
                Ok(handle) => match self.session(&handle).await {
                    End::Stopped => {
                        // It ends either way: an error here says that it had ended already.
                        let _ = handle.shutdown().await;
                        return;
                    }
                    End::Failed(error) => {
                        pause = REOPEN_PAUSE;
                        error
                    }
                },
                Err(error) => {
                    pause = (pause * 2).min(REOPEN_PAUSE_MAX);
                    error
                }
            };
            self.transport.reporter.reopened(&error);
            tokio::select! {
                () = sleep(pause) => {}
                _ = stopped(&self.shared) => return,
            }
            // What chitchat knew went with it: under the old incarnation its versions would begin below what others have.
            self.incarnation = self.clock.wall_ms().max(self.incarnation + 1);
            opened = self.open().await;
        }
    }

    async fn session(&mut self, handle: &ChitchatHandle) -> End {
        let mut ended = pin!(handle.termination_watcher());
        let mut live = handle.with_chitchat(|chitchat| chitchat.live_nodes_watcher()).await;
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shared = self.shared.clone();
        loop {
            tokio::select! {
                stop = stopped(&shared) => {
                    if stop == Stop::Politely {
                        self.say_farewell(handle).await;
                    }
                    return End::Stopped;
                }
                ended = &mut ended => {
                    let error = ended.err().map_or_else(|| "no reason given".to_owned(), |error| format!("{error:#}"));
                    return End::Failed(error);
                }
                () = shared.changed.notified() => self.tell(handle).await,
                Ok(()) = live.changed() => self.look(handle).await,
                Ok(()) = self.seeds.changed() => self.contact(handle),
                _ = look.tick() => {
                    self.look(handle).await;
                    self.contact(handle);
                }
            }
        }
    }

    /// Hands this node's facts to chitchat, which passes on those that changed.
    async fn tell(&mut self, handle: &ChitchatHandle) {
        let told = self.shared.facts.lock().tell(false);
        set(handle, told).await;
        self.look(handle).await;
    }

    /// Makes a view of what chitchat knows, and shows it if it is another one.
    async fn look(&mut self, handle: &ChitchatHandle) {
        let (readings, reporter) = (&mut self.readings, &self.transport.reporter);
        let heard = handle
            .with_chitchat(|chitchat| readings.sightings(chitchat, reporter))
            .await;
        let me = self.shared.facts.lock().clone();
        let view = self.book.view(&me, self.incarnation, heard, self.clock.monotonic_ms());
        for member in view.live().filter(|member| member.facts.node != me.node) {
            self.contacts.remember(member.facts.peer);
        }
        self.shared.view.send_if_modified(|shown| {
            let is_new = **shown != view;
            if is_new {
                *shown = Arc::new(view);
            }
            is_new
        });
    }

    /// Speaks to whom chitchat would not.
    fn contact(&mut self, handle: &ChitchatHandle) {
        let is_reachable = |address: &&SocketAddr| address.is_ipv4() == self.listen.is_ipv4();
        let seeds = self.seeds.borrow_and_update();
        self.contacts
            .set_seeds(seeds.iter().filter(is_reachable).copied().collect());
        drop(seeds);
        let live = others(&self.shared.view.borrow());
        for address in self.contacts.due(&live) {
            // Fails only when chitchat has ended, which the session sees.
            let _ = handle.gossip(address);
        }
    }

    async fn say_farewell(&mut self, handle: &ChitchatHandle) {
        let told = self.shared.facts.lock().tell(true);
        set(handle, told).await;
        let live = others(&self.shared.view.borrow());
        for address in live.into_iter().take(FAREWELLS_MAX) {
            let _ = handle.gossip(address);
        }
        sleep(self.interval * FAREWELL_ROUNDS).await;
    }
}

async fn set(handle: &ChitchatHandle, told: [(&'static str, String); 4]) {
    let told = &told;
    handle
        .with_chitchat(|chitchat| {
            for (key, value) in told {
                chitchat.self_node_state().set(key, value);
            }
        })
        .await;
}

/// Completes when the gossip is to stop. Never fails: the sender lives as long as what is borrowed.
async fn stopped(shared: &Shared) -> Stop {
    let mut stop = shared.stop.subscribe();
    let stop = stop.wait_for(|stop| *stop != Stop::No).await;
    stop.map_or(Stop::Silently, |stop| *stop)
}

/// The addresses of the other members that are alive.
fn others(view: &ClusterView) -> BTreeSet<SocketAddr> {
    let others = view.live().filter(|member| member.facts.node != view.me);
    others.map(|member| member.facts.peer).collect()
}

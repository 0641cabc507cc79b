//! Whoever reaches the gossip port sends garbage, the nodes' own words under another secret and from another cluster with the same
//! secret, earlier datagrams again, and the news of a node that is dead: nothing comes of it.

use std::sync::Arc;
use std::time::Duration;

use xcron::clock::Clock;
use xcron::membership::{DATAGRAM_BYTES_MAX, Sealer};
use xcron::secret::ClusterSecret;

use crate::dice::{Dice, SeededEntropy};
use crate::history::START_WALL_MS;
use crate::host::PEER_PORT;
use crate::net::{Captured, address};
use crate::stage::{Act, Stage, once};

/// No cluster's id.
const ANOTHER_CLUSTER: u128 = 7;

/// A clock that stands at this instant of the run, in milliseconds.
#[derive(Debug)]
struct At(u64);

impl Clock for At {
    fn wall_ms(&self) -> u64 {
        START_WALL_MS + self.0
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0)
    }
}

pub(super) async fn play(stage: Stage) {
    let first = stage.net.capture();
    stage.demand(first.is_empty(), "nothing was said before");
    stage.found_at_rest(3).await;
    let old = stage.net.capture();
    stage.sleep_ms(5_000).await;
    let fresh = stage.net.capture();
    stage.demand(old.len() > 50 && fresh.len() > 20, "datagrams were captured");
    let before = leaders(&stage);
    let mut client = stage.client(0, 1);
    for number in 0..20 {
        let second = stage.now_secs() + 3 + number;
        client.create(once(format!("calm-{number}"), second, "http://ok.test/")).await;
    }
    let mut dice = stage.dice("lies");
    let words = words(&stage, &fresh);
    stage.demand(words.len() == fresh.len(), "what the nodes say can be read with their secret");
    for round in 0..150 {
        lie(&stage, &mut dice, &old, &fresh);
        strangers(&stage, round, &words[round % words.len()]);
        if round % 10 == 0 {
            // What was true just now, and another node's word as one's own.
            stage.net.capture().iter().for_each(|(_, to, bytes)| stage.net.forge(address(9, PEER_PORT), *to, bytes));
        }
        stage.sleep_ms(200).await;
    }
    stage.demand(leaders(&stage) == before, "lies move no leadership");
    the_dead(&stage, &mut dice).await;
    stage.recover(15_000).await;
}

fn leaders(stage: &Stage) -> Vec<Option<usize>> {
    (0..stage.options.groups).map(|group| stage.leader(group)).collect()
}

fn lie(stage: &Stage, dice: &mut Dice, old: &[Captured], fresh: &[Captured]) {
    for node in 0..3 {
        let (from, to) = (address(dice.index(3), PEER_PORT), address(node, PEER_PORT));
        let length = dice.index(2 * DATAGRAM_BYTES_MAX);
        let garbage: Vec<u8> = (0..length).map(|_| dice.bits().to_le_bytes()[0]).collect();
        stage.net.forge(from, to, &garbage);
    }
    for captured in [old, fresh] {
        let (from, to, bytes) = &captured[dice.index(captured.len())];
        stage.net.forge(*from, *to, bytes);
        stage.net.forge(*from, address(dice.index(3), PEER_PORT), bytes);
        let mut bent = bytes.clone();
        let place = dice.index(bent.len());
        bent[place] ^= 1 << dice.index(8);
        stage.net.forge(*from, *to, &bent);
        bent.truncate(place);
        stage.net.forge(*from, *to, &bent);
    }
}

fn sealer(stage: &Stage, secret: &str, cluster: Option<u128>, what: &str) -> Sealer {
    let entropy = |of: &str| SeededEntropy::new(Dice::new(stage.options.seed, of));
    let keys = ClusterSecret::generate(&entropy(secret)).1;
    let clock = Arc::new(At(stage.now_us() / 1_000));
    Sealer::new(keys.gossip_keys(), cluster, clock, Arc::new(entropy(what))).expect("a secret has keys")
}

/// What the nodes have said to each other, opened with their own secret.
fn words(stage: &Stage, said: &[Captured]) -> Vec<Captured> {
    let opener = sealer(stage, "secret", None, "opener");
    let words = said.iter().filter_map(|(from, to, bytes)| {
        let mut datagram = bytes.clone();
        let message = opener.open(&mut datagram).ok()?.to_vec();
        Some((*from, *to, message))
    });
    words.collect()
}

/// The same words, sealed now: with another secret under the cluster's id, and with the secret under another id.
fn strangers(stage: &Stage, round: usize, (from, to, message): &Captured) {
    let cluster = stage.disks[0].identity().map(|identity| identity.cluster);
    let mut datagram = Vec::new();
    for (secret, cluster) in [("another secret", cluster), ("secret", Some(ANOTHER_CLUSTER))] {
        sealer(stage, secret, cluster, &format!("{secret} {round}")).seal(message, &mut datagram);
        stage.net.forge(*from, *to, &datagram);
    }
}

/// A node is dead, and what it said goes on being said.
async fn the_dead(stage: &Stage, dice: &mut Dice) {
    stage.net.capture();
    stage.sleep_ms(3_000).await;
    let dead = dice.index(3);
    let said: Vec<_> = stage.net.capture();
    let own = said.iter().filter(|(from, ..)| *from == address(dead, PEER_PORT));
    let own: Vec<Captured> = own.cloned().collect();
    stage.breaks(Some(dead), "Kill");
    stage.act(Act::Kill(dead)).await;
    for _ in 0..60 {
        let (from, to, bytes) = &own[dice.index(own.len())];
        stage.net.forge(*from, *to, bytes);
        stage.sleep_ms(200).await;
    }
    let asks = stage.others(dead)[0];
    let picture = stage.picture(asks).await.unwrap_or_default();
    let nodes = picture["nodes"].as_array().cloned().unwrap_or_default();
    let alive = nodes.iter().filter(|node| node["alive"] == true).count();
    stage.demand(alive == 2, &format!("the dead node is dead: {nodes:?}"));
}

//! Reads the members' facts out of chitchat's state, each only when it has changed. Used by `gossip.rs` alone.

use std::collections::{BTreeMap, BTreeSet};

use chitchat::{Chitchat, ChitchatId, NodeState};

use super::facts::{self, Told};
use super::observe::Reporter;
use super::view::Sighting;

/// What was read of each member.
#[derive(Debug, Default)]
pub(super) struct Readings {
    read: BTreeMap<ChitchatId, Reading>,
}

#[derive(Debug)]
struct Reading {
    /// chitchat's version of the member's state.
    version: u64,
    /// `None` if it cannot be read.
    told: Option<Told>,
    was_logged: bool,
}

impl Readings {
    /// Everything heard of other members. One whose facts cannot be read is counted, logged once, and left out.
    pub(super) fn sightings(&mut self, chitchat: &Chitchat, reporter: &Reporter) -> Vec<Sighting> {
        let live: BTreeSet<&ChitchatId> = chitchat.live_nodes().collect();
        let mut before = std::mem::take(&mut self.read);
        let mut sightings = Vec::new();
        for (id, state) in chitchat.node_states() {
            // Version 0: others know of it, its facts are still on their way.
            if id == chitchat.self_chitchat_id() || state.max_version() == 0 {
                continue;
            }
            let reading = match before.remove(id) {
                Some(reading) if reading.version == state.max_version() => reading,
                old => read(state, old.is_some_and(|old| old.was_logged), reporter),
            };
            if let Some(told) = &reading.told {
                sightings.push(Sighting {
                    facts: told.facts.clone(),
                    incarnation: id.generation_id,
                    is_alive: live.contains(id) && !told.has_left,
                    has_left: told.has_left,
                });
            }
            self.read.insert(id.clone(), reading);
        }
        sightings
    }
}

fn read(state: &NodeState, was_logged: bool, reporter: &Reporter) -> Reading {
    let id = state.chitchat_id();
    let told =
        facts::node_of(&id.node_id).and_then(|node| facts::hear(node, id.gossip_advertise_addr, |key| state.get(key)));
    if let Err(error) = &told {
        reporter.unreadable(&id.node_id, id.gossip_advertise_addr, error, !was_logged);
    }
    Reading {
        version: state.max_version(),
        was_logged: was_logged || told.is_err(),
        told: told.ok(),
    }
}

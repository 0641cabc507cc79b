//! What a node tells the others about itself, and the few key-values in which it travels.
//!
//! Owns their text and reads them as coming from a stranger: a node of another version, or one that lies. Hints only: no
//! fact decides who owns what. Used by `gossip.rs`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::id::{GroupCount, GroupId, NodeHex, NodeId};
use crate::limits::{SHARDS, ZONE_BYTES_MAX};

/// Longest version a node may show, in bytes.
pub const VERSION_BYTES_MAX: usize = 64;
/// Most groups that a node shows as led by it. Led groups beyond are not hinted at: whoever looks for their leader has to
/// ask their replicas. Reached only by few nodes with more groups than their number calls for.
pub const LED_MAX: usize = 512;
/// The commands that a release reads that says nothing of them.
const COMMANDS_FIRST: u16 = 1;
/// Longest value that is looked at, in bytes; [`LED_MAX`] groups with the largest numbers fit.
const VALUE_BYTES_MAX: usize = 16 << 10;

/// What does not change while the process runs: `{"api":..,"zone":..,"version":..,"commands":..,"replicas":..}`.
const ABOUT: &str = "about";
/// What changes now and then: `{"cluster":..,"groups":..,"draining":..,"ready":..,"left":..}`.
const STATE: &str = "state";
/// Offset of the wall clock in milliseconds, in decimal.
const CLOCK: &str = "clock";
/// `group:generation` in ascending order, with commas between.
const LED: &str = "led";

/// What a node tells the others about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Who it is.
    pub node: NodeId,
    /// Where peers reach it: TCP for calls, UDP for gossip.
    pub peer: SocketAddr,
    /// Where clients reach it.
    pub api: SocketAddr,
    /// Where it stands, for the spread of replicas; may be empty.
    pub zone: String,
    /// The program's version.
    pub version: String,
    /// The newest commands that it reads (`core/command.rs`).
    pub commands: u16,
    /// The cluster it belongs to; `None` while it is joining.
    pub cluster: Option<u128>,
    /// That cluster's number of groups.
    pub groups: Option<GroupCount>,
    /// Copies of every group that it was started with as wanted; 0 if it does not say. The most that any node says counts.
    pub replicas: u8,
    /// It is to be left out of the plan.
    pub draining: bool,
    /// It serves.
    pub ready: bool,
    /// The groups it leads, with their generations.
    pub led: Vec<(GroupId, u64)>,
    /// Its wall clock against the median of its peers.
    pub clock_offset_ms: i64,
}

/// Why a node's facts cannot be read or told.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// The name of the member is not a node id.
    #[error("{0:?} is not a node id: 16 hex digits")]
    Node(String),
    /// A value is not there.
    #[error("there is no value {0}")]
    Missing(&'static str),
    /// A value is longer than anything a node sends.
    #[error("value {key} has {bytes} bytes; at most {VALUE_BYTES_MAX} are read")]
    Long {
        /// Of which key.
        key: &'static str,
        /// How long it is.
        bytes: usize,
    },
    /// A value is not the JSON it should be.
    #[error("value {key}: {error}")]
    Json {
        /// Of which key.
        key: &'static str,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// The zone or the version is too long, or holds control characters.
    #[error("{what} must have at most {bytes_max} bytes and no control characters")]
    Text {
        /// Which of them.
        what: &'static str,
        /// How long it may be.
        bytes_max: usize,
    },
    /// Cluster and number of groups do not make a cluster.
    #[error(
        "cluster and groups must both be there or both be missing; the cluster's id is 32 hex digits other than 0, the \
         number of groups divides {SHARDS}"
    )]
    Cluster,
    /// The clock's offset is not a number.
    #[error("value {CLOCK} is not a number of milliseconds")]
    Clock,
    /// The list of led groups is not one.
    #[error("value {LED} is not a list of at most {LED_MAX} ascending group:generation")]
    Led,
}

/// What a member's key-values say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) facts: Facts,
    /// It has said good-bye: dead, without waiting for its silence.
    pub(super) has_left: bool,
}

#[derive(Serialize, Deserialize)]
struct About {
    api: SocketAddr,
    zone: String,
    version: String,
    #[serde(default = "commands_first")]
    commands: u16,
    #[serde(default)]
    replicas: u8,
}

fn commands_first() -> u16 {
    COMMANDS_FIRST
}

// New fields get `#[serde(default)]`: a node of the release before does not send them. Unknown ones are ignored.
#[derive(Serialize, Deserialize)]
struct State {
    cluster: Option<String>,
    groups: Option<u16>,
    draining: bool,
    ready: bool,
    left: bool,
}

/// The name under which a node gossips.
pub(super) fn name(node: NodeId) -> String {
    NodeHex(node).to_string()
}

/// The node id of a member's name.
pub(super) fn node_of(text: &str) -> Result<NodeId, FactsError> {
    let node = NodeId::from_str_radix(text, 16).ok().filter(|node| name(*node) == text);
    node.ok_or_else(|| FactsError::Node(text.chars().take(32).collect()))
}

impl Facts {
    /// Whether others will be able to read them.
    pub(super) fn check(&self) -> Result<(), FactsError> {
        text("zone", &self.zone, ZONE_BYTES_MAX)?;
        text("version", &self.version, VERSION_BYTES_MAX)?;
        if self.cluster.is_some() != self.groups.is_some() || self.cluster == Some(0) {
            return Err(FactsError::Cluster);
        }
        Ok(())
    }

    /// Puts what the node leads in the order in which it is told; the highest generation of a group counts.
    pub(super) fn sort_led(&mut self) {
        self.led.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        self.led.dedup_by_key(|(group, _)| *group);
        self.led.truncate(LED_MAX);
    }

    /// The key-values that carry the facts; who it is and where stands in the member's name.
    pub(super) fn tell(&self, has_left: bool) -> [(&'static str, String); 4] {
        let about = About {
            api: self.api,
            zone: self.zone.clone(),
            version: self.version.clone(),
            commands: self.commands,
            replicas: self.replicas,
        };
        let state = State {
            cluster: self.cluster.map(|cluster| format!("{cluster:032x}")),
            groups: self.groups.map(GroupCount::get),
            draining: self.draining,
            ready: self.ready,
            left: has_left,
        };
        let led: Vec<String> = self
            .led
            .iter()
            .map(|(group, generation)| format!("{group}:{generation}"))
            .collect();
        [
            (ABOUT, json(&about)),
            (STATE, json(&state)),
            (CLOCK, self.clock_offset_ms.to_string()),
            (LED, led.join(",")),
        ]
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a struct of texts, numbers and booleans is JSON")
}

/// Reads what the member `node` at `peer` tells; `value` gives the text of a key.
pub(super) fn hear<'a>(
    node: NodeId,
    peer: SocketAddr,
    value: impl Fn(&str) -> Option<&'a str>,
) -> Result<Told, FactsError> {
    let value = |key: &'static str| {
        let text = value(key).ok_or(FactsError::Missing(key))?;
        let bytes = text.len();
        if bytes > VALUE_BYTES_MAX {
            return Err(FactsError::Long { key, bytes });
        }
        Ok(text)
    };
    let about: About = serde_json::from_str(value(ABOUT)?).map_err(|error| FactsError::Json { key: ABOUT, error })?;
    let state: State = serde_json::from_str(value(STATE)?).map_err(|error| FactsError::Json { key: STATE, error })?;
    let facts = Facts {
        node,
        peer,
        api: about.api,
        zone: about.zone,
        version: about.version,
        commands: about.commands,
        cluster: state.cluster.as_deref().map(cluster).transpose()?,
        groups: state
            .groups
            .map(|groups| GroupCount::new(groups).ok_or(FactsError::Cluster))
            .transpose()?,
        replicas: about.replicas,
        draining: state.draining,
        ready: state.ready,
        led: led(value(LED)?)?,
        clock_offset_ms: value(CLOCK)?.parse().map_err(|_| FactsError::Clock)?,
    };
    facts.check()?;
    Ok(Told {
        facts,
        has_left: state.left,
    })
}

fn text(what: &'static str, text: &str, bytes_max: usize) -> Result<(), FactsError> {
    if text.len() > bytes_max || text.chars().any(char::is_control) {
        return Err(FactsError::Text { what, bytes_max });
    }
    Ok(())
}

fn cluster(text: &str) -> Result<u128, FactsError> {
    let cluster = u128::from_str_radix(text, 16).map_err(|_| FactsError::Cluster)?;
    if format!("{cluster:032x}") != text {
        return Err(FactsError::Cluster);
    }
    Ok(cluster)
}

fn led(text: &str) -> Result<Vec<(GroupId, u64)>, FactsError> {
    let mut led: Vec<(GroupId, u64)> = Vec::new();
    if text.is_empty() {
        return Ok(led);
    }
    for entry in text.split(',') {
        let (group, generation) = entry.split_once(':').ok_or(FactsError::Led)?;
        let group = GroupId(group.parse().map_err(|_| FactsError::Led)?);
        let generation = generation.parse().map_err(|_| FactsError::Led)?;
        let is_next = led.last().is_none_or(|(last, _)| *last < group);
        if !is_next || group.0 >= SHARDS || led.len() == LED_MAX {
            return Err(FactsError::Led);
        }
        led.push((group, generation));
    }
    Ok(led)
}

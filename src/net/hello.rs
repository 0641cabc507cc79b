//! What two nodes tell each other before anything else, and whether they go on: a pure judgement that both sides make alike.
//!
//! Carried inside the handshake (`session.rs`). Its bytes are frozen: fields are only ever added at the end, and what a newer
//! node added is not read.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{NodeHex, NodeId, Progress};

/// Lowest version of the frames' meaning that this build speaks.
pub(super) const VERSION_MIN: u16 = 1;
/// Highest version of the frames' meaning that this build speaks.
pub(super) const VERSION_MAX: u16 = 1;
/// Longest a handshake may take, from the connection to the first sealed message.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(2);

/// In the place of a cluster's id: the node waits for its cluster.
pub(super) const NO_CLUSTER: u128 = 0;

/// One side of a connection, as it presents itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// Lowest version it speaks.
    pub version_min: u16,
    /// Highest version it speaks.
    pub version_max: u16,
    /// Its cluster; [`NO_CLUSTER`] while it has none.
    pub cluster: u128,
    /// Who it is.
    pub node: NodeId,
    /// Whom it means to talk to, so that both sides know it if it is someone else.
    pub to: NodeId,
    /// What it is doing: one of the `PHASE_` numbers.
    pub phase: u8,
    /// How far it has come.
    pub progress: Progress,
    /// How far it has last known the other side to be.
    pub seen: Progress,
}

/// The node serves its peers.
pub(super) const PHASE_SERVES: u8 = 0;
/// It does not yet: it waits for its cluster, or reads its disk.
pub(super) const PHASE_STARTS: u8 = 1;
/// It has no cluster and was told to found one: whether it may is being found out.
pub(super) const PHASE_FOUNDS: u8 = 2;

impl Hello {
    pub(super) fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("numbers can be encoded")
    }

    /// `None` for anything else than a hello, of this version or a later one.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::take_from_bytes(bytes).ok().map(|(hello, _)| hello)
    }
}

/// Why a connection did not come about. What the other side is not told, it decides itself from the same facts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The secrets differ.
    #[error("it does not know this cluster's secret: give both nodes the same --secret-file")]
    Secret,
    /// Its bytes are no handshake.
    #[error("it does not speak this protocol: is it the peer port of an xcron node?")]
    Protocol,
    /// It belongs to another cluster.
    #[error("it belongs to cluster {theirs:032x}, this node to {own:032x}: check --join")]
    Cluster {
        /// This node's.
        own: u128,
        /// The other's.
        theirs: u128,
    },
    /// One of the two does not serve yet.
    #[error("one of the two nodes is starting, or waits for its cluster")]
    Starting,
    /// No version of the protocol is spoken by both.
    #[error("it speaks versions {} to {} of the protocol, this node {} to {}: upgrade one release at a time",
        theirs.0, theirs.1, own.0, own.1)]
    Version {
        /// This node's lowest and highest.
        own: (u16, u16),
        /// The other's.
        theirs: (u16, u16),
    },
    /// Another node answers there.
    #[error("node {} is there, but node {} was meant: the address is out of date", NodeHex(*found), NodeHex(*wanted))]
    Node {
        /// Who was dialed.
        wanted: NodeId,
        /// Who answered.
        found: NodeId,
    },
    /// It has this node's own id.
    #[error("it has this node's own id {}: was a data directory copied?", NodeHex(*.0))]
    OwnId(NodeId),
    /// A node runs on an older copy of its data directory: it has been seen further on.
    #[error(
        "node {0:016x} has been seen further on than it is: its data directory is an older copy, and must not vote"
    )]
    Superseded(NodeId),
    /// What the other side tells of itself could not be kept on disk, so it was not answered.
    #[error("what it tells of itself cannot be kept: {0}")]
    NotKept(String),
    /// The handshake took too long.
    #[error("the handshake did not end within {} ms", HANDSHAKE.as_millis())]
    Deadline,
    /// There are too many connections; one that is only half made gives way first.
    #[error("too many connections are open")]
    Crowded,
    /// There is no connection to be had.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// The connection ended before the handshake did.
    #[error("the connection broke during the handshake: {0}")]
    Broken(String),
}

impl Refusal {
    /// A short name, for counters.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Protocol => "protocol",
            Self::Cluster { .. } => "cluster",
            Self::Starting => "starting",
            Self::Version { .. } => "version",
            Self::Node { .. } => "node",
            Self::OwnId(_) => "own_id",
            Self::Superseded(_) => "superseded",
            Self::NotKept(_) => "not_kept",
            Self::Deadline => "deadline",
            Self::Crowded => "crowded",
            Self::Unreachable(_) => "unreachable",
            Self::Broken(_) => "broken",
        }
    }
}

/// The version that both speak, or why they do not go on.
pub(super) fn judge(own: &Hello, theirs: &Hello) -> Result<u16, Refusal> {
    if own.cluster == NO_CLUSTER || theirs.cluster == NO_CLUSTER {
        return Err(Refusal::Starting);
    }
    if own.cluster != theirs.cluster {
        return Err(Refusal::Cluster {
            own: own.cluster,
            theirs: theirs.cluster,
        });
    }
    let version = own.version_max.min(theirs.version_max);
    if version < own.version_min.max(theirs.version_min) {
        return Err(Refusal::Version {
            own: (own.version_min, own.version_max),
            theirs: (theirs.version_min, theirs.version_max),
        });
    }
    if own.node == theirs.node {
        return Err(Refusal::OwnId(own.node));
    }
    if own.phase != PHASE_SERVES || theirs.phase != PHASE_SERVES {
        return Err(Refusal::Starting);
    }
    for (meant, is) in [(own, theirs), (theirs, own)] {
        if meant.to != is.node {
            return Err(Refusal::Node {
                wanted: meant.to,
                found: is.node,
            });
        }
    }
    for (node, progress, seen) in [
        (own.node, own.progress, theirs.seen),
        (theirs.node, theirs.progress, own.seen),
    ] {
        if progress.is_behind(seen) {
            return Err(Refusal::Superseded(node));
        }
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Start;

    const fn at(counter: u64) -> Progress {
        Progress {
            start: Start {
                counter,
                nonce: counter * 10,
            },
            log: counter * 100,
        }
    }

    const ONE: Hello = Hello {
        version_min: 1,
        version_max: 3,
        cluster: 0x00c0_ffee,
        node: 1,
        to: 2,
        phase: PHASE_SERVES,
        progress: at(3),
        seen: at(0),
    };
    const TWO: Hello = Hello { node: 2, to: 1, ..ONE };

    /// Both sides refuse alike; the first side's reason is given.
    fn refusal(one: &Hello, two: &Hello) -> Refusal {
        let other = judge(two, one).expect_err("the other side refuses too");
        let refusal = judge(one, two).expect_err("refused");
        assert_eq!(refusal.name(), other.name());
        refusal
    }

    #[test]
    fn the_bytes_are_frozen_and_later_fields_are_passed_over() {
        let hello = Hello {
            version_min: 1,
            version_max: 300,
            cluster: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
            node: 7,
            to: u64::MAX,
            phase: PHASE_FOUNDS,
            progress: at(1),
            seen: at(2),
        };
        let golden = [
            1, 172, 2, 144, 158, 184, 232, 192, 225, 130, 133, 137, 144, 156, 176, 208, 128, 193, 129, 130, 2, 7, 255,
            255, 255, 255, 255, 255, 255, 255, 255, 1, 2, 1, 10, 100, 2, 20, 200, 1,
        ];
        assert_eq!(hello.encode(), golden);
        let later = [&golden[..], &[9, 9]].concat();
        assert_eq!(Hello::decode(&later), Some(hello));
        assert_eq!(Hello::decode(&golden[..golden.len() - 1]), None);
    }

    #[test]
    fn the_highest_common_version_is_spoken() {
        assert_eq!(judge(&ONE, &TWO), Ok(3));
        let next = Hello {
            version_min: 2,
            version_max: 4,
            ..TWO
        };
        assert_eq!(judge(&ONE, &next), Ok(3));
        assert_eq!(judge(&next, &ONE), Ok(3));
    }

    #[test]
    fn what_does_not_belong_together_is_refused_alike_on_both_sides() {
        let later = Hello {
            version_min: 4,
            version_max: 5,
            ..TWO
        };
        let versions = Refusal::Version {
            own: (1, 3),
            theirs: (4, 5),
        };
        assert_eq!(refusal(&ONE, &later), versions);
        let foreign = Hello { cluster: 5, ..later };
        assert_eq!(
            refusal(&ONE, &foreign),
            Refusal::Cluster {
                own: 0x00c0_ffee,
                theirs: 5
            }
        );
        let waiting = Hello {
            cluster: NO_CLUSTER,
            ..later
        };
        assert_eq!(refusal(&ONE, &waiting), Refusal::Starting);
        let starting = Hello {
            phase: PHASE_STARTS,
            ..TWO
        };
        assert_eq!(refusal(&ONE, &starting), Refusal::Starting);
        let knowing = Hello { seen: at(3), ..TWO };
        assert_eq!(judge(&ONE, &knowing), Ok(3), "it is where it was seen");
        let knowing = Hello { seen: at(4), ..TWO };
        assert_eq!(refusal(&ONE, &knowing), Refusal::Superseded(1));
        let moved = Hello { node: 3, ..TWO };
        assert_eq!(refusal(&ONE, &moved), Refusal::Node { wanted: 2, found: 3 });
        let copy = Hello { node: 1, ..TWO };
        assert_eq!(refusal(&ONE, &copy), Refusal::OwnId(1));
    }
}

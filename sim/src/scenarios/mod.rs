//! Stories with a name, one small file each; `swarm` makes its own from the seed.

mod smoke;
mod swarm;

use crate::world::{Options, Scenario};

/// A story and the world it is played in.
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// What it shows, in a sentence.
    pub about: &'static str,
    /// The world for a seed.
    pub options: fn(u64) -> Options,
    /// The story.
    pub play: Scenario,
}

/// Every scenario.
pub const ALL: &[Entry] = &[
    Entry {
        name: "smoke",
        about: "three nodes, a few tasks of each kind, no fault",
        options: |seed| Options::calm(seed, 3),
        play: |stage| Box::pin(smoke::play(stage)),
    },
    Entry {
        name: "swarm",
        about: "everything follows from the seed",
        options: swarm::options,
        play: |stage| Box::pin(swarm::play(stage)),
    },
];

/// The scenario of this name.
pub fn find(name: &str) -> Option<&'static Entry> {
    ALL.iter().find(|entry| entry.name == name)
}

//! Stories with a name, one small file each; `swarm` makes its own from the seed.
//!
//! A story demands that it has reached its point (`Stage::demand`): one that passes because nothing happened is a failure.

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

/// The module, and the entry, of each name.
macro_rules! scenarios {
    ($($name:ident($options:expr): $about:literal;)*) => {
        $(mod $name;)*

        /// Every scenario.
        pub const ALL: &[Entry] = &[$(Entry {
            name: stringify!($name),
            about: $about,
            options: $options,
            play: |stage| Box::pin($name::play(stage)),
        }),*];
    };
}

scenarios! {
    smoke(three): "three nodes, a few tasks of each kind, no fault";
    swarm(swarm::options): "everything follows from the seed";
    leader_crash_between_commit_and_post(three): "a leader dies at the moment of its request, and before its answer";
    delete_races_a_fire_on_a_partitioned_old_leader(three): "deleted by the majority while the old leader may still fire";
    deleted_while_it_connects(three): "tasks are deleted and updated while their targets take seconds to accept";
    update_races_a_fire_on_a_partitioned_old_leader(three): "updated by the majority while the old leader may still fire";
    at_most_once_under_every_fault(three): "no target sees a fire twice, whatever becomes of its leader";
    growth_one_to_five_with_churn(five): "a node becomes five under load, and some are killed meanwhile";
    drain_during_load(|seed| Options::calm(seed, 4)): "a node is asked to leave, and nobody notices";
    snapshot_to_a_lagging_node_during_partition(three): "a node that missed much catches up over one link that fails";
    marks_rise_after_a_standstill(marks_rise_after_a_standstill::options): "what a node missed comes while its low-water marks rise";
    power_cut_of_all(three): "all nodes lose their power at once, three times";
    torn_log_on_a_minority(three): "one node's power is cut in the middle of a write, again and again";
    clock_jump_over_a_due(three): "one wall clock jumps, by seconds, hours and days";
    disk_full_during_group_commit(three): "the disk of one node is full, then of two";
    gossip_lies(three): "garbage, replays and stale truths on the gossip port";
    herd(herd::options): "thousands of tasks in one second";
    target_outage_with_retries(three): "targets that come back in time, and one that does not";
    rolling_restart(three): "every node is restarted in order under load: no fire is late or repeated";
    one_away_during_restarts(one_away_during_restarts::options): "one node is away while the others are restarted, and comes back";
    grow_and_shrink(three): "one node becomes two and three, and one again by draining, under load";
    five_copies(five): "five copies wanted at two, four and five nodes";
    replicas_by_restart(five): "three copies become five, and three again, by restarts with another setting";
    slow_hand_over(slow_hand_over::options): "leadership is handed over while its old leader hears everything late";
    handed_over_while_it_connects(handed_over_while_it_connects::options): "deleted by the next leader while the old one connects";
    two_nodes(|seed| Options::calm(seed, 2)): "a voter and a learner: either is lost";
    wiped_node_returns(wiped_node_returns::options): "a node loses its disk and comes back as a new one";
    one_slow_target(three): "a target that hangs makes no other late";
    many_hung_targets(many_hung_targets::options): "more dues at targets that hang than windows and places hold: nobody else is late";
    few_places(few_places::options): "more dues at targets that hang than places, all of them in memory: nobody else is late";
    idle_group_moves_fires_once(three): "an idle cluster, leadership moves, one task";
    straggler_of_a_former_leadership(straggler_of_a_former_leadership::options): "callbacks that end after their leader has lost its leadership, and has it again";
    power_cut_during_an_install(three): "the power goes while a snapshot takes the place of a node's rows";
    power_cut_of_a_voter(one_group): "a vote that was never on disk counts for nobody";
    majority_lost_is_told(three): "who serves nobody says so, and is ready again by itself";
    slow_disks_of_a_majority(one_group): "a sync takes more than a second on two of three nodes";
    asymmetric_partitions(asymmetric_partitions::options): "links that work one way, and rings";
}

fn three(seed: u64) -> Options {
    Options::calm(seed, 3)
}

/// Three nodes and one group, so that one leader is everybody's.
fn one_group(seed: u64) -> Options {
    Options {
        groups: 1,
        ..three(seed)
    }
}

fn five(seed: u64) -> Options {
    Options::calm(seed, 5)
}

/// The scenario of this name.
pub fn find(name: &str) -> Option<&'static Entry> {
    ALL.iter().find(|entry| entry.name == name)
}

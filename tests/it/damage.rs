//! Damage at rest: a data directory is prepared once, and every trial starts a node on a copy with one thing broken.
//! The node refuses and says why, or it serves and everything acknowledged is there. Anything between is a silent loss.
//!
//! `XCRON_TEST_DAMAGE_TRIALS` sets the trials for each kind of damage and each sort of file.

mod prepared;
mod trial;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::harness::node::Place;
use crate::harness::{random, setting};
use prepared::{Prepared, overwrite};
use trial::{Kind, Outcome, Target, Trial};

/// Trials of each kind on each sort of file that the gate runs; the promise is stated with 60.
const TRIALS: u64 = 3;
/// Tasks with large bodies that are created and deleted until old parts of the log are dropped and memory is written out.
const FILLERS: usize = 700;
/// Nodes that are tried at the same time.
const AT_ONCE: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_refused_or_harmless_and_never_silent() {
    let trials = setting("XCRON_TEST_DAMAGE_TRIALS", TRIALS);
    let mut random = random(3);
    let (young, grown) = tokio::join!(Prepared::new(0), Prepared::new(FILLERS));
    let prepared = [Arc::new(young), Arc::new(grown)];
    let mut all = Vec::new();
    // An odd number of trials leaves the larger part to the directory that has everything.
    for (_, prepared) in (0..trials).zip(prepared.iter().rev().cycle()) {
        for target in Target::ALL {
            for kind in Kind::ALL {
                let trial = Trial::draw(&prepared.image, kind, target, &mut random);
                all.push((trial, Arc::clone(prepared)));
            }
        }
    }
    let table = run_all(all).await;
    let mut silent = Vec::new();
    for ((target, kind), outcomes) in &table {
        let count = |wanted: fn(&Outcome) -> bool| outcomes.iter().filter(|(_, outcome)| wanted(outcome)).count();
        println!(
            "{target:?} {kind:?}: {} refused, {} stopped later, {} harmless of {}",
            count(|outcome| matches!(outcome, Outcome::Refused)),
            count(|outcome| matches!(outcome, Outcome::Stopped)),
            count(|outcome| matches!(outcome, Outcome::Harmless)),
            outcomes.len(),
        );
        for (trial, outcome) in outcomes {
            if let Outcome::Wrong(what) = outcome {
                silent.push(format!("{trial:?}: {what}"));
            }
        }
    }
    silent.extend(prepared.iter().flat_map(|prepared| prepared.strange_arrivals()));
    assert!(
        silent.is_empty(),
        "{} of {trials} trials each:\n{}",
        silent.len(),
        silent.join("\n")
    );
    let refused = table
        .values()
        .flatten()
        .filter(|(_, outcome)| matches!(outcome, Outcome::Refused));
    assert!(
        refused.count() > 0,
        "no damage was ever noticed: the trials do not reach what they aim at"
    );
}

type Table = BTreeMap<(Target, Kind), Vec<(Trial, Outcome)>>;

/// Runs all trials, a few at a time.
async fn run_all(mut trials: Vec<(Trial, Arc<Prepared>)>) -> Table {
    trials.reverse();
    let (waiting, table) = (Arc::new(Mutex::new(trials)), Arc::new(Mutex::new(Table::new())));
    let workers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (waiting, table) = (Arc::clone(&waiting), Arc::clone(&table));
            tokio::spawn(async move {
                loop {
                    let next = waiting.lock().pop();
                    let Some((trial, prepared)) = next else { return };
                    let outcome = trial.run(&prepared).await;
                    let mut table = table.lock();
                    table
                        .entry((trial.target, trial.kind))
                        .or_default()
                        .push((trial, outcome));
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("a trial judges and does not panic");
    }
    std::mem::take(&mut table.lock())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_torn_tail_opens_with_everything_acknowledged() {
    let prepared = Prepared::new(0).await;
    let segment = prepared.newest_segment();
    let end = prepared.end_of_frames(&segment);
    let mut random = random(4);
    let mut tails: Vec<Vec<u8>> = vec![prepared.first_frame(&segment)];
    // A frame of which only the beginning reached the disk, and a write of which only garbage did.
    for _ in 0..3 {
        let frame = prepared.first_frame(&segment);
        let cut = random.random_range(1..frame.len());
        tails.push(frame[..cut].to_vec());
        tails.push(garbage(&mut random));
    }
    for tail in tails {
        let place = Place::new();
        prepared.image.write(&place.data());
        overwrite(&place.data().join(&segment), end, &tail);
        let outcome = prepared.judge(&place).await;
        assert!(
            matches!(outcome, Outcome::Harmless),
            "{} bytes behind the end: {outcome:?}",
            tail.len()
        );
    }
}

fn garbage(random: &mut StdRng) -> Vec<u8> {
    let bytes = random.random_range(1..3_000);
    let mut own = StdRng::seed_from_u64(random.random());
    (0..bytes).map(|_| own.random()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rejoin_sets_the_damaged_data_aside_and_starts_as_a_new_node() {
    let prepared = Prepared::new(0).await;
    let place = Place::new();
    prepared.image.write(&place.data());
    std::fs::remove_file(place.data().join("log/watermark")).expect("it is there");
    let refused = place.node().try_start().await.expect_err("the log is damaged");
    assert_ne!(refused.status.code(), Some(0));
    for part in ["watermark", "--rejoin"] {
        assert!(refused.stderr.contains(part), "{part} is missing in {refused}");
    }
    // As it is now: the start that failed has been counted.
    let old_identity = std::fs::read(place.data().join("identity")).expect("it is there");
    let node = place.node().argument("--rejoin").start().await;
    let mut client = node.client();
    for id in prepared.ids() {
        assert_eq!(
            client.query(id).await.refused(),
            1008,
            "{id}: the new node starts empty"
        );
    }
    let fresh = crate::harness::client::one_shot("fresh", 4_000_000_000, "http://127.0.0.1:9/", "{}");
    client.create(fresh).await.done();
    node.kill();
    let new_identity = std::fs::read(place.data().join("identity")).expect("it is there");
    // Behind the version stands the node's id.
    assert_ne!(
        old_identity[1..9],
        new_identity[1..9],
        "never the old id with an empty log"
    );
    let entries = std::fs::read_dir(place.data()).expect("it is there");
    let mut names = entries.map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"));
    let aside = names
        .find(|name| name.starts_with("set-aside-"))
        .expect("the old data is kept");
    let aside = place.data().join(aside);
    assert_eq!(std::fs::read(aside.join("identity")).ok(), Some(old_identity));
    assert!(aside.join("state").is_dir());
    for file in prepared
        .image
        .files()
        .iter()
        .filter(|file| file.path.starts_with("log"))
    {
        let is_kept = aside.join(&file.path).exists();
        assert_eq!(is_kept, !file.path.ends_with("watermark"), "{}", file.path.display());
    }
    let node = place.node().start().await;
    assert_eq!(node.client().query("fresh").await.done()["task_id"], "fresh");
}

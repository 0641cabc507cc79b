//! The data directory that every trial starts from, and the judgement of a node on a copy of it.
//!
//! It is of a node that was killed after real work: young, with all of it in its log, or grown, with some of its log
//! purged and some of its state in tables.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use super::trial::Outcome;
use crate::harness::client::{Client, Told, one_shot, periodic};
use crate::harness::image::Image;
use crate::harness::node::{Node, Place};
use crate::harness::sink::Sink;
use crate::harness::{eventually, wall_ms, wall_secs};

/// A year that no trial will see.
const FAR_SECS: u64 = 4_000_000_000;
/// Time to create what is to come due while no node runs.
const OVERDUE_AFTER_SECS: u64 = 6;
const FILLER_BYTES: usize = 60_000;
/// A segment begins with a header of this size.
const SEGMENT_HEADER_BYTES: usize = 4096;
const FRAME_HEADER_BYTES: usize = 40;

/// The prepared directory and what a node on it must know.
pub struct Prepared {
    pub image: Image,
    sink: Sink,
    /// Task id and the answer of its query.
    kept: Vec<(String, Value)>,
    /// Due since the node was killed.
    overdue: Vec<String>,
    deleted: Vec<String>,
}

impl Prepared {
    /// Prepares a directory; before its tasks, so many with large bodies come and go.
    pub async fn new(fillers: usize) -> Self {
        let (place, sink) = (Place::new(), Sink::start().await);
        let node = place.node().start().await;
        let mut client = node.client();
        fill(&node, &sink, fillers).await;
        let finished: Vec<String> = (0..20).map(|number| format!("finished-{number}")).collect();
        for id in &finished {
            let task = one_shot(id, wall_secs() + 1, &sink.url("/ok"), r#"{"finished":true}"#);
            client.create(task).await.done();
        }
        let mut ids = finished.clone();
        for number in 0..200 {
            ids.push(format!("far-{number}"));
            let body = format!(r#"{{"far":{number}, "text":"{}"}}"#, "y".repeat(number));
            let task = one_shot(&ids[ids.len() - 1], FAR_SECS + number as u64, &sink.url("/ok"), &body);
            client.create(task).await.done();
        }
        for number in 0..20 {
            ids.push(format!("cron-{number}"));
            let task = periodic(&ids[ids.len() - 1], "0 0 29 2 *", &sink.url("/ok"), "{}");
            client.create(task).await.done();
        }
        eventually("the finished tasks", async || {
            for id in &finished {
                if client.run_count(id).await == 0 {
                    return None;
                }
            }
            Some(())
        })
        .await;
        let due = wall_secs() + OVERDUE_AFTER_SECS;
        let (overdue, deleted) = create_overdue(&mut client, &sink, due).await;
        ids.extend(overdue.iter().cloned());
        let mut kept = Vec::new();
        for id in ids {
            let answer = client.query(&id).await.done();
            kept.push((id, answer));
        }
        node.kill();
        assert!(
            wall_secs() < due,
            "the machine was too slow to prepare: nothing can be said"
        );
        eventually("the due", async || (wall_ms() > due * 1_000).then_some(())).await;
        Self {
            image: Image::read(&place.data()),
            sink,
            kept,
            overdue,
            deleted,
        }
    }

    /// The tasks that a node on the directory has.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.kept.iter().map(|(id, _)| id.as_str())
    }

    /// Starts a node on `place` and judges what it knows, and that it fires what is overdue.
    pub async fn judge(&self, place: &Place) -> Outcome {
        let mut node = match place.node().try_start().await {
            Ok(node) => node,
            Err(ended) => return Outcome::of_end(&ended, Outcome::Refused),
        };
        let judged = self.judge_running(&mut node.client()).await;
        match judged {
            Ok(()) => Outcome::Harmless,
            Err(Trouble::Wrong(what)) => Outcome::Wrong(what),
            Err(Trouble::NoAnswer(why)) => {
                let ended = tokio::time::timeout(std::time::Duration::from_secs(20), node.ended()).await;
                match ended {
                    Ok(ended) => Outcome::of_end(&ended, Outcome::Stopped),
                    Err(_) => Outcome::Wrong(format!("neither answers nor ends: {why}")),
                }
            }
        }
    }

    async fn judge_running(&self, client: &mut Client) -> Result<(), Trouble> {
        for (id, expected) in &self.kept {
            let mut told = client.query(id).await;
            if let Told::Done(data) = &mut told
                && self.overdue.contains(id)
            {
                // It may have been delivered by now.
                data["run_count"] = 0.into();
            }
            check(id, &told, &Told::Done(expected.clone()))?;
        }
        for id in &self.deleted {
            match client.query(id).await {
                Told::Refused(1008, _) => {}
                Told::Unknown(why) => return Err(Trouble::NoAnswer(why)),
                other => return Err(Trouble::Wrong(format!("{id}: deleted, and now {other:?}"))),
            }
        }
        self.wait_for_overdue(client).await?;
        let pending = client.request(hyper::Method::GET, "/metrics", "").await;
        let pending = pending.map_err(Trouble::NoAnswer)?.text();
        let pending = crate::harness::client::count(&pending, "xcron_tasks_pending");
        let expected = self.kept.len() - self.overdue.len() - 20;
        if pending != Some(expected as u64) {
            return Err(Trouble::Wrong(format!(
                "{pending:?} tasks are pending in place of {expected}"
            )));
        }
        Ok(())
    }

    /// A task can be known and yet never fire: what is overdue must be delivered.
    async fn wait_for_overdue(&self, client: &mut Client) -> Result<(), Trouble> {
        let mut waiting: Vec<&String> = self.overdue.iter().collect();
        for _ in 0..400 {
            let mut still = Vec::new();
            for id in waiting {
                match client.query(id).await {
                    Told::Done(data) if data["run_count"] == 1 => {}
                    Told::Done(_) => still.push(id),
                    Told::Unknown(why) => return Err(Trouble::NoAnswer(why)),
                    Told::Refused(code, why) => return Err(Trouble::Wrong(format!("{id}: {code} {why}"))),
                }
            }
            if still.is_empty() {
                return Ok(());
            }
            waiting = still;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        Err(Trouble::Wrong(format!("overdue and never delivered: {waiting:?}")))
    }

    /// Arrivals that no trial may cause: of tasks that were finished, deleted or not yet due.
    pub fn strange_arrivals(&self) -> Vec<String> {
        let allowed: BTreeSet<&String> = self.overdue.iter().collect();
        let mut seen_finished = BTreeSet::new();
        let mut strange = Vec::new();
        for arrival in self.sink.arrivals() {
            let is_first_of_finished =
                arrival.task.starts_with("finished-") && seen_finished.insert(arrival.task.clone());
            if !allowed.contains(&arrival.task) && !is_first_of_finished {
                strange.push(format!("in some trial {} arrived", arrival.task));
            }
        }
        strange
    }

    /// The segment that holds the last frame.
    pub fn newest_segment(&self) -> PathBuf {
        let files = self.image.files().iter();
        let segments = files.filter(|file| file.path.to_string_lossy().contains("segment-"));
        let mut with_frames = segments.filter(|file| file.used().any(|(at, _)| at >= SEGMENT_HEADER_BYTES as u64));
        with_frames.next_back().expect("the log has frames").path.clone()
    }

    /// Offset behind the last frame of a segment.
    pub fn end_of_frames(&self, segment: &Path) -> u64 {
        let content = self.content(segment);
        let mut end = SEGMENT_HEADER_BYTES;
        while let Some(bytes) = frame_bytes(&content[end..]) {
            end += bytes;
        }
        end as u64
    }

    /// The bytes of the first frame of a segment.
    pub fn first_frame(&self, segment: &Path) -> Vec<u8> {
        let content = self.content(segment);
        let bytes = frame_bytes(&content[SEGMENT_HEADER_BYTES..]).expect("the segment has frames");
        content[SEGMENT_HEADER_BYTES..][..bytes].to_vec()
    }

    fn content(&self, path: &Path) -> Vec<u8> {
        let place = Place::new();
        self.image.write(&place.data());
        std::fs::read(place.data().join(path)).expect("just written")
    }
}

/// Writes bytes into a file that is there.
pub fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).expect("it is there");
    file.write_all_at(bytes, offset).expect("the disk takes it");
}

/// Why a running node is not harmless.
enum Trouble {
    Wrong(String),
    NoAnswer(String),
}

fn check(id: &str, told: &Told, expected: &Told) -> Result<(), Trouble> {
    match told {
        Told::Unknown(why) => Err(Trouble::NoAnswer(why.clone())),
        told if told == expected => Ok(()),
        told => Err(Trouble::Wrong(format!("{id}: {told:?} in place of {expected:?}"))),
    }
}

/// Length of the frame at the start of `bytes` in its segment; `None` where no frame begins.
fn frame_bytes(bytes: &[u8]) -> Option<usize> {
    let length = bytes.strip_prefix(b"xWf1")?.get(8..12)?;
    let length = u32::from_le_bytes(length.try_into().expect("four bytes"));
    Some((FRAME_HEADER_BYTES + length as usize).next_multiple_of(8))
}

/// Creates and deletes enough to make the node purge its log and write tables.
async fn fill(node: &Node, sink: &Sink, fillers: usize) {
    let workers = (0..8).map(|worker| {
        let (mut client, url) = (node.client(), sink.url("/ok"));
        tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(worker);
            for number in 0..fillers / 8 {
                let id = format!("filler-{worker}-{number}");
                let text: String = (0..FILLER_BYTES).map(|_| random.random_range('#'..='Z')).collect();
                let body = format!(r#"{{"text":"{text}"}}"#);
                client.create(one_shot(&id, FAR_SECS, &url, &body)).await.done();
                client.delete(&id).await.done();
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.expect("every call is done");
    }
}

/// Creates tasks that come due when the node is dead; deletes some of them, and some others.
async fn create_overdue(client: &mut Client, sink: &Sink, due: u64) -> (Vec<String>, Vec<String>) {
    let (mut overdue, mut deleted) = (Vec::new(), Vec::new());
    for number in 0..30 {
        for (name, due) in [("overdue", due), ("deleted-overdue", due), ("deleted-far", FAR_SECS)] {
            let id = format!("{name}-{number}");
            let task = one_shot(&id, due, &sink.url("/ok"), r#"{"a": 1}"#);
            client.create(task).await.done();
            if name == "overdue" {
                overdue.push(id);
            } else {
                client.delete(&id).await.done();
                deleted.push(id);
            }
        }
    }
    (overdue, deleted)
}

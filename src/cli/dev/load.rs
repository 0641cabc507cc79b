//! The demo's own tasks: created through all nodes in turn, due in the next seconds.

use std::sync::Arc;

use anyhow::bail;
use futures_util::StreamExt;
use futures_util::stream;
use hyper::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::tally::Tally;
use crate::cli::client;

/// The first of the tasks is due after so many seconds, the last after so many.
const DUE_SECS: (u64, u64) = (3, 20);
/// Creates that are on their way at the same time.
const IN_FLIGHT: usize = 8;
/// Attempts to create one task, each at another node. Its id makes a repeat harmless.
const ATTEMPTS_MAX: usize = 6;

/// What is created.
pub struct Load {
    /// Tells the ids of one load from those of another.
    pub batch: u32,
    /// How many tasks.
    pub tasks: u32,
    /// The APIs of the nodes that run.
    pub apis: Vec<String>,
    /// Where the callbacks go.
    pub target: String,
    /// The second in which it begins.
    pub now_secs: u64,
}

impl Load {
    /// Creates all of them. Returns how many no node acknowledged, and why the last of them was not.
    pub async fn create(self, tally: Arc<Mutex<Tally>>) -> (usize, Option<String>) {
        let creates = (0..self.tasks).map(|number| self.create_one(number, &tally));
        let results: Vec<anyhow::Result<()>> = stream::iter(creates).buffer_unordered(IN_FLIGHT).collect().await;
        let failures = results.into_iter().filter_map(Result::err);
        failures.fold((0, None), |(count, _), error| (count + 1, Some(format!("{error:#}"))))
    }

    async fn create_one(&self, number: u32, tally: &Mutex<Tally>) -> anyhow::Result<()> {
        let id = format!("demo-{}-{number}", self.batch);
        let (first, last) = DUE_SECS;
        let due_secs = self.now_secs + first + u64::from(number) * (last - first + 1) / u64::from(self.tasks);
        let task = json!({
            "type": 2, "format": due_secs.to_string(), "task_id": id,
            "callback": { "url": self.target, "body": { "number": number } },
        });
        tally.lock().creating(&id, due_secs * 1_000);
        let mut failure = None;
        for attempt in 0..ATTEMPTS_MAX {
            let api = &self.apis[(number as usize + attempt) % self.apis.len()];
            match create(api, &task).await {
                Ok(()) => {
                    tally.lock().created(&id);
                    return Ok(());
                }
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.expect("there was an attempt"))
    }
}

async fn create(api: &str, task: &Value) -> anyhow::Result<()> {
    let url = format!("{api}/xcron/createTask");
    let answer = client::send(&url, Method::POST, task.to_string().into()).await?;
    let answer: Value = serde_json::from_slice(&answer)?;
    if answer["code"] != 0 {
        bail!("{api} answered {}: {}", answer["code"], answer["message"]);
    }
    Ok(())
}

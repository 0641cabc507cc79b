//! What a scenario can look at, and what it demands: that it has reached its point, so that it does not pass for nothing.

use hyper::Method;
use serde_json::Value;
use xcron::id::{GroupCount, GroupId, TaskId};
use xcron::store::key::{self, Fact, Table};

use super::{Act, Client, Stage};
use crate::history::{Attempt, Draining, Task, Told, When};
use crate::invariants;
use crate::world::seconds;

/// The client that looks: no other has its number.
const LOOKER: usize = 150;
/// How long a cluster may take to come to its plan, in milliseconds.
const PLAN_MS: u64 = 120_000;

/// A one-shot task.
pub fn once(id: impl Into<String>, second: u64, url: &str) -> Task {
    Task {
        id: id.into(),
        when: When::Once(second),
        url: url.to_owned(),
        body: "{}".to_owned(),
        at_most_once: false,
    }
}

/// A task by a crontab line in UTC.
pub fn cron(id: impl Into<String>, line: &str, url: &str) -> Task {
    let when = When::Cron {
        line: line.to_owned(),
        zone: "UTC".to_owned(),
    };
    Task {
        when,
        ..once(id, 0, url)
    }
}

impl Stage {
    /// Unless `holds`, the run fails: the scenario did not reach its point, or saw something that must not be.
    pub fn demand(&self, holds: bool, what: &str) {
        if !holds {
            let what = format!("{:.3} s: it does not hold that {what}", seconds(self.now_us()));
            self.inner.lock().complaints.push(("scenario", what));
        }
    }

    /// The group of a task.
    pub fn group_of(&self, task: &str) -> u16 {
        let count = GroupCount::new(self.options.groups).expect("checked by the world");
        let id = TaskId::parse(task).expect("scenarios choose good ids");
        count.group_of(id.key().shard()).0
    }

    /// The generation of a group's leadership, as the running node knows it that is the furthest.
    pub fn generation(&self, group: u16) -> Option<u64> {
        self.leadership(group).map(|(generation, _)| generation)
    }

    /// Who leads a group, as the same node knows it.
    pub fn leader(&self, group: u16) -> Option<usize> {
        let (_, leader) = self.leadership(group)?;
        self.nodes().iter().position(|shown| shown.node_id == Some(leader))
    }

    fn leadership(&self, group: u16) -> Option<(u64, u64)> {
        let nodes = self.nodes();
        let newest = self.disks.iter().enumerate().filter_map(|(node, disk)| {
            nodes.get(node).filter(|shown| shown.is_running)?;
            let rows = disk.rows();
            let row = rows
                .get(Table::State, &key::fact(Fact::Applied, GroupId(group)))
                .ok()??;
            let state = invariants::meta(&row)?.state;
            Some((state.generation, state.leader?))
        });
        newest.max()
    }

    /// Who leads the group of a task; waits until somebody does that runs.
    pub async fn leader_of(&self, task: &str) -> usize {
        let group = self.group_of(task);
        loop {
            if let Some(leader) = self.leader(group)
                && self.nodes()[leader].is_running
            {
                return leader;
            }
            self.sleep_ms(20).await;
        }
    }

    /// Whether a node has a copy of a group on its disk.
    pub fn holds(&self, node: usize, group: u16) -> bool {
        let row = self.disks[node]
            .rows()
            .get(Table::State, &key::fact(Fact::Applied, GroupId(group)));
        matches!(row, Ok(Some(_)))
    }

    /// Whether a node's disk says that rows of a group are being replaced by a snapshot's.
    pub fn is_installing(&self, node: usize) -> bool {
        let rows = self.disks[node].rows();
        (0..self.options.groups).any(|group| {
            let row = rows.get(Table::State, &key::fact(Fact::Installing, GroupId(group)));
            matches!(row, Ok(Some(_)))
        })
    }

    /// Waits until a node installs a snapshot, but not longer than that; whether it does. Looks at every step: it is short.
    pub async fn until_installing(&self, node: usize, within_ms: u64) -> bool {
        let until_us = self.now_us() + within_ms * 1_000;
        while !self.is_installing(node) {
            if self.now_us() > until_us {
                return false;
            }
            self.sleep_ms(crate::world::STEP_US / 1_000).await;
        }
        true
    }

    /// Ids that begin with `prefix`, all of the group of the first one.
    pub fn ids_of_one_group(&self, prefix: &str, count: usize) -> Vec<String> {
        let group = self.group_of(&format!("{prefix}-0"));
        let ids = (0..).map(|number| format!("{prefix}-{number}"));
        ids.filter(|id| self.group_of(id) == group).take(count).collect()
    }

    /// The nodes but this one.
    pub fn others(&self, node: usize) -> Vec<usize> {
        (0..self.options.nodes).filter(|other| *other != node).collect()
    }

    /// `GET /v1/cluster` of a node.
    pub async fn picture(&self, node: usize) -> Option<Value> {
        let mut client = self.client(LOOKER, node);
        let asked = client.send(Method::GET, "/v1/cluster", String::new());
        tokio::time::timeout(std::time::Duration::from_secs(4), asked)
            .await
            .ok()?
    }

    /// `POST /v1/cluster/nodes/{id}:drain` of a node, through another. Whether it was accepted.
    pub async fn drain(&self, node: usize, through: usize) -> bool {
        let Some(id) = self.nodes()[node].node_id else {
            return false;
        };
        let mut client = self.client(LOOKER, through);
        let path = format!("/v1/cluster/nodes/{id:x}:drain");
        // Unknown whether it was heard: then it may leave.
        let asked = Draining {
            from_us: self.now_us(),
            until_us: u64::MAX,
        };
        self.recorder.lock().roster.draining.insert(id, asked);
        let answer = client.send(Method::POST, &path, String::new()).await;
        answer.is_some_and(|answer| answer["draining"] == true)
    }

    /// A cluster of so many nodes, up to three, with every copy where it should be.
    pub async fn found_at_rest(&self, nodes: usize) {
        self.found(nodes).await;
        self.until_planned(0, nodes, nodes).await;
    }

    /// Waits until every group is led where it is planned, and has so many copies, of which so many vote.
    pub async fn until_planned(&self, through: usize, voters: usize, copies: usize) {
        let until_us = self.now_us() + PLAN_MS * 1_000;
        let length = |list: &Value| list.as_array().map_or(0, Vec::len);
        while self.now_us() < until_us {
            let picture = self.picture(through).await.unwrap_or_default();
            let groups = picture["groups"].as_array().cloned().unwrap_or_default();
            let is_done = |group: &Value| {
                !group["leader"].is_null()
                    && group["leader"] == group["planned"][0]
                    && length(&group["voters"]) == voters
                    && length(&group["voters"]) + length(&group["learners"]) == copies
                    && group["lag"].as_u64().unwrap_or(0) < 100
            };
            if !groups.is_empty() && groups.iter().all(is_done) {
                return;
            }
            self.sleep_ms(500).await;
        }
        let what = format!("the cluster came to its plan: {:?}", self.picture(through).await);
        self.demand(false, &what);
    }

    /// The ids of the voters of every group, as a node shows them.
    pub async fn voters_of(&self, through: usize) -> Vec<Vec<String>> {
        let picture = self.picture(through).await.unwrap_or_default();
        let groups = picture["groups"].as_array().cloned().unwrap_or_default();
        let ids = |list: &Value| -> Vec<String> {
            let ids = list.as_array().into_iter().flatten();
            ids.filter_map(|id| id.as_str().map(str::to_owned)).collect()
        };
        groups.iter().map(|group| ids(&group["voters"])).collect()
    }

    /// The attempts of a task so far.
    pub fn attempts(&self, task: &str) -> Vec<Attempt> {
        let history = self.recorder.lock();
        let attempts = history.attempts.iter().filter(|attempt| attempt.task == task);
        attempts.cloned().collect()
    }

    /// Calls of known outcome, and of unknown, so far.
    pub fn told(&self) -> (usize, usize) {
        let history = self.recorder.lock();
        let unknown = history.ops.iter().filter(|op| op.told == Told::Unknown).count();
        (history.ops.len() - unknown, unknown)
    }

    /// Everything is repaired, every node runs and serves; then `settle_ms` pass, and every node is asked for every task.
    pub async fn recover(&self, settle_ms: u64) {
        self.heal().await;
        for node in 0..self.options.nodes {
            self.restart(node).await;
        }
        self.rest(60_000).await;
        self.fixed(0);
        self.sleep_ms(settle_ms).await;
        for node in 0..self.options.nodes {
            if self.nodes()[node].is_running {
                self.demand_ready(node).await;
            }
        }
        self.look_at_all().await;
    }

    /// Why a node says that it is not ready; `None` if it is, or does not answer.
    pub async fn not_ready(&self, node: usize) -> Option<String> {
        let answer = self.readiness(node).await?;
        answer["reason"].as_str().map(str::to_owned)
    }

    /// Demands that a node calls itself ready: it serves.
    pub async fn demand_ready(&self, node: usize) {
        let answer = self.readiness(node).await;
        let is_ready = answer.as_ref().is_some_and(|answer| answer["status"] == "ready");
        self.demand(is_ready, &format!("node {node} says that it is ready: {answer:?}"));
    }

    async fn readiness(&self, node: usize) -> Option<Value> {
        let mut client = self.client(LOOKER, node);
        let asked = client.send(Method::GET, "/readyz", String::new());
        tokio::time::timeout(std::time::Duration::from_secs(4), asked)
            .await
            .ok()?
    }

    /// Stops a node in order, and waits until it has ended; what it said.
    pub async fn stop(&self, node: usize) {
        self.act(Act::Stop(node)).await;
        let is_over = self.until_or("a node to stop", 40_000, |shown| !shown[node].is_running);
        let is_over = is_over.await;
        let ended = self.nodes()[node].ended.clone();
        self.demand(
            is_over && ended == Some(Ok(())),
            &format!("node {node} stops in order: {ended:?}"),
        );
    }
}

impl Client {
    /// Creates a task, again and again on every node until it is acknowledged or refused.
    pub async fn create_surely(&mut self, task: Task) -> Told {
        for node in (0..self.stage.options.nodes).cycle().take(40) {
            match self.create(task.clone()).await {
                Told::Unknown => self.stage.sleep_ms(50).await,
                told => return told,
            }
            self.turn_to(node);
        }
        Told::Unknown
    }

    /// Replaces a task, again and again on these nodes until that is acknowledged.
    pub async fn update_surely(&mut self, task: Task, nodes: &[usize]) -> Told {
        for node in nodes.iter().cycle().take(60) {
            self.turn_to(*node);
            match self.update(task.clone(), None).await {
                Told::Unknown => self.stage.sleep_ms(20).await,
                told => return told,
            }
        }
        Told::Unknown
    }

    /// Deletes a task, again and again on these nodes until that is acknowledged.
    pub async fn delete_surely(&mut self, task: &str, nodes: &[usize]) -> Told {
        for node in nodes.iter().cycle().take(60) {
            self.turn_to(*node);
            match self.delete(task).await {
                Told::Unknown => self.stage.sleep_ms(20).await,
                told => return told,
            }
        }
        Told::Unknown
    }
}

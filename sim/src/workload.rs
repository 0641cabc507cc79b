//! Clients that create, update, query and delete tasks of every kind on all nodes, as the dice fall.
//!
//! Most tasks are one client's own. A few ids are everybody's, so that calls about one task meet. Used by the swarm and by scenarios.

use futures_util::future::join_all;

use crate::dice::Dice;
use crate::history::{Task, Told, When};
use crate::stage::{Client, Stage};
use crate::targets::Behaviour;

/// Ids that all clients use, and the most calls about each: its history must stay short enough to be judged.
const SHARED_IDS: usize = 6;
/// A task that is not due in any run, in seconds from its creation.
const FAR_SECS: u64 = 50_000;

/// How much is asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Clients.
    pub clients: usize,
    /// Calls each makes.
    pub calls: usize,
    /// Longest pause between two of them, in milliseconds.
    pub pause_ms_max: u64,
    /// Latest due of a task from its creation, in seconds.
    pub delay_secs_max: u64,
    /// So many of a thousand tasks go to targets that do not behave.
    pub bad_targets_permille: u64,
    /// So many of a thousand calls are updates instead.
    pub updates_permille: u64,
    /// So many of a thousand tasks are delivered at most once.
    pub once_permille: u64,
}

/// Runs the load to its end. `prefix` sets its tasks apart from those of other loads.
pub async fn run(stage: &Stage, load: Load, prefix: &str, first_client: usize) {
    let clients = (0..load.clients).map(|number| {
        let stage = stage.clone();
        let dice = stage.dice(&format!("client {prefix} {number}"));
        let changes = stage.dice(&format!("changes {prefix} {number}"));
        let prefix = format!("{prefix}-{number}");
        async move {
            let client = stage.client(first_client + number, 0);
            let mut worker = Worker {
                client,
                dice,
                changes,
                stage,
                load,
                prefix,
                own: Vec::new(),
            };
            worker.work().await;
        }
    });
    join_all(clients).await;
}

struct Worker {
    client: Client,
    dice: Dice,
    /// Apart from the others, so that a load without changes is what it was before there were any.
    changes: Dice,
    stage: Stage,
    load: Load,
    prefix: String,
    own: Vec<Task>,
}

impl Worker {
    async fn work(&mut self) {
        for call in 0..self.load.calls {
            let pause_ms = self.dice.within(0..self.load.pause_ms_max + 1);
            self.stage.sleep_ms(pause_ms).await;
            let node = self.dice.index(self.stage.options.nodes);
            self.client.turn_to(node);
            if self.changes.chance(self.load.updates_permille) {
                self.update(call).await;
                continue;
            }
            match self.dice.within(0..100) {
                0..55 => self.create(call).await,
                55..70 => self.shared(call).await,
                70..85 => self.query().await,
                _ => self.delete().await,
            }
        }
    }

    async fn create(&mut self, call: usize) {
        let task = Task {
            id: format!("{}-{call}", self.prefix),
            when: self.when(),
            url: self.url(),
            body: format!("{{\"n\":{call}}}"),
            at_most_once: self.changes.chance(self.load.once_permille),
        };
        self.own.push(task.clone());
        if self.client.create(task.clone()).await == Told::Unknown && self.dice.chance(700) {
            self.stage.reach("a create of unknown outcome was repeated");
            let node = self.dice.index(self.stage.options.nodes);
            self.client.turn_to(node);
            self.client.create(task).await;
        }
    }

    fn when(&mut self) -> When {
        let now = self.stage.now_secs();
        match self.dice.within(0..100) {
            0..70 => When::Once(now + self.dice.within(0..self.load.delay_secs_max + 1)),
            70..80 => When::Once(now + FAR_SECS),
            80..83 => When::Once(now - 10),
            _ => When::Cron {
                line: self
                    .dice
                    .pick(&["* * * * *", "*/2 * * * *", "@hourly", "1-59/2 * * * *"])
                    .into(),
                zone: self.dice.pick(&["UTC", "Asia/Shanghai", "America/New_York"]).into(),
            },
        }
    }

    fn url(&mut self) -> String {
        let is_bad = self.dice.chance(self.load.bad_targets_permille);
        let place = if is_bad {
            self.dice.index(Behaviour::ALL.len())
        } else {
            0
        };
        format!("http://{}{}.test/", Behaviour::ALL[place].0, self.dice.within(0..3))
    }

    /// Calls about an id that all clients use.
    async fn shared(&mut self, call: usize) {
        let id = format!("shared-{}", self.dice.index(SHARED_IDS));
        match self.dice.within(0..10) {
            0..4 => {
                let task = Task {
                    id,
                    when: When::Once(crate::history::START_WALL_MS / 1_000 + FAR_SECS),
                    url: "http://ok.test/".into(),
                    body: format!("{{\"version\":{}}}", self.dice.within(0..3)),
                    at_most_once: false,
                };
                self.client.create(task).await;
            }
            // Rarely: a deleted id stays deleted.
            4 if call > self.load.calls / 2 => drop(self.client.delete(&id).await),
            _ => drop(self.client.query(&id).await),
        }
    }

    /// Replaces a task: one that all clients use, or one of its own, often right when it is due.
    async fn update(&mut self, call: usize) {
        if self.changes.chance(400) {
            return self.update_shared(call).await;
        }
        if self.own.is_empty() {
            return;
        }
        let place = self.changes.index(self.own.len());
        let old = self.own[place].clone();
        if let When::Once(second) = old.when
            && self.changes.chance(500)
            && let Some(until_ms) = self.is_near(second)
        {
            self.stage.reach("an update that races a fire");
            let shift_ms = self.changes.within(0..60);
            self.stage.sleep_ms((until_ms + shift_ms).saturating_sub(30)).await;
        }
        let task = Task {
            when: self.when(),
            url: self.url(),
            // No two contents of a task are alike: what is fired tells which it was.
            body: format!("{{\"n\":{call},\"updated\":true}}"),
            at_most_once: self.changes.chance(self.load.once_permille),
            ..old
        };
        let told = self.client.update(task.clone(), None).await;
        if told != Told::Unknown {
            self.own[place] = task;
        } else if self.changes.chance(500) {
            self.stage.reach("an update of unknown outcome was repeated");
            self.client.update(task, None).await;
        }
    }

    /// Half of them of the revision that was seen before.
    async fn update_shared(&mut self, call: usize) {
        let id = format!("shared-{}", self.changes.index(SHARED_IDS));
        let mut replaces = None;
        if self.changes.chance(500) {
            let Told::Shown(shown) = self.client.show(&id).await else {
                return;
            };
            replaces = shown.revision;
        }
        let task = Task {
            id,
            when: When::Once(crate::history::START_WALL_MS / 1_000 + FAR_SECS),
            url: "http://ok.test/".into(),
            body: format!("{{\"client\":\"{}\",\"call\":{call}}}", self.prefix),
            at_most_once: false,
        };
        self.client.update(task, replaces).await;
    }

    async fn query(&mut self) {
        let Some(task) = self.any() else { return };
        self.client.query(&task.id).await;
    }

    /// Deletes a task, often right when it is due.
    async fn delete(&mut self) {
        let Some(task) = self.any() else { return };
        if let When::Once(second) = task.when
            && self.dice.chance(500)
            && let Some(until_ms) = self.is_near(second)
        {
            self.stage.reach("a delete that races a fire");
            let shift_ms = self.dice.within(0..60);
            self.stage.sleep_ms((until_ms + shift_ms).saturating_sub(30)).await;
        }
        self.client.delete(&task.id).await;
    }

    /// How many milliseconds it is until this second, if that is worth waiting for.
    fn is_near(&self, second: u64) -> Option<u64> {
        let now_ms = self.stage.now_us() / 1_000 + crate::history::START_WALL_MS;
        let until_ms = (second * 1_000).saturating_sub(now_ms);
        (until_ms > 0 && until_ms < 10_000).then_some(until_ms)
    }

    fn any(&mut self) -> Option<Task> {
        if self.own.is_empty() {
            return None;
        }
        let place = self.dice.index(self.own.len());
        Some(self.own[place].clone())
    }
}

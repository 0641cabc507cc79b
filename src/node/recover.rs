//! What is done on a data directory while no node runs on it: reading what it holds, and `xcron recover`.
//!
//! Everything is done under the directory's lock. Called by the command line.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

use crate::clock::SystemClock;
use crate::config::Config;
use crate::core::record;
use crate::core::task::{TaskSpec, TaskState};
use crate::entropy::SystemEntropy;
use crate::id::{GroupCount, NodeId};
use crate::identity::{DataDirectory, Home, Identity, IdentityError, Stage};
use crate::node::NodeError;
use crate::raft::recover::{self, Held};
use crate::store::fjall_kv::FjallKv;
use crate::store::key::{self, Table};
use crate::store::{Kv, KvError};
use crate::wal::{self, OwnThread, Run, Wal};

/// Tasks read from the disk at a time.
const PAGE: usize = 1_000;
/// Above the number of every shard: where the tasks' rows end.
const END: [u8; 2] = [0xff, 0xff];

/// A data directory, locked, without a node on it.
pub struct Offline {
    data: DataDirectory,
    identity: Identity,
    kv: Arc<dyn Kv>,
    /// Opened when it is first asked for: what only reads the state does without it. Once: its lock is let go by a thread of
    /// its own, some time after the last handle.
    log: OnceCell<Wal>,
}

/// What a directory holds of its cluster.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The cluster.
    pub cluster: u128,
    /// The node.
    pub node: NodeId,
    /// How many groups the cluster has.
    pub groups: GroupCount,
    /// The directory is an older copy of itself.
    pub is_superseded: bool,
    /// The groups that are here.
    pub held: Vec<Held>,
    /// Every other node that votes in one of them.
    pub others: BTreeSet<NodeId>,
}

/// The log's figures are nobody's here.
#[derive(Debug)]
struct Unobserved;

impl wal::Observe for Unobserved {
    fn synced(&self, _: u64, _: usize, _: usize, _: Duration) {}
}

impl Offline {
    /// Opens what `config` names, if a node was ever in a cluster there.
    pub fn open(config: &Config) -> Result<Self, NodeError> {
        let path: &Path = &config.data;
        if !path.is_dir() {
            let what = "there is no such directory".to_owned();
            return Err(IdentityError::Nothing(path.to_owned(), what).into());
        }
        let data = DataDirectory::open(path)?;
        let Some(identity) = data.stored()? else {
            let what = "no node of a cluster has ever run here".to_owned();
            return Err(IdentityError::Nothing(path.to_owned(), what).into());
        };
        let kv = FjallKv::open(&data.state(), config.store.cache_bytes, config.files.tables)?;
        Ok(Self {
            data,
            identity,
            kv: Arc::new(kv),
            log: OnceCell::new(),
        })
    }

    async fn log(&self) -> Result<&Wal, NodeError> {
        self.log.get_or_try_init(async || self.open_log()).await
    }

    fn open_log(&self) -> Result<Wal, NodeError> {
        let files = Arc::new(self.data.open_log()?);
        let clock = Arc::new(SystemClock::default());
        let (wal, writer) = wal::open(files, wal::Options::default(), clock, Arc::new(Unobserved))?;
        // A fault is told to every job that waits for it.
        OwnThread.start(writer, Box::new(drop)).map_err(NodeError::Thread)?;
        Ok(wal)
    }

    /// What is here.
    pub async fn survey(&self) -> Result<Survey, NodeError> {
        self.survey_in(self.log().await?).await
    }

    async fn survey_in(&self, wal: &Wal) -> Result<Survey, NodeError> {
        let Identity {
            node, cluster, groups, ..
        } = self.identity;
        let held = recover::held(wal, &self.kv, groups).await?;
        let voters = held.iter().flat_map(|held| &held.voters).copied();
        Ok(Survey {
            cluster,
            node,
            groups,
            is_superseded: self.identity.stage == Stage::Superseded,
            others: voters.filter(|voter| *voter != node).collect(),
            held,
        })
    }

    /// Makes the node the only one of a new cluster, which holds what is here. Returns the cluster's id. Cut short, it can be
    /// repeated: the directory belongs to no cluster that others are in from the first step on.
    pub async fn become_sole_voter(self) -> Result<u128, NodeError> {
        let fresh = Identity::founding(self.identity.groups, &SystemEntropy::default());
        let wal = self.log().await?;
        let survey = self.survey_in(wal).await?;
        self.data.keep(&Identity {
            node: self.identity.node,
            start: self.identity.start,
            ..fresh
        })?;
        self.data.keep_peers(Vec::new()).await?;
        recover::make_sole_voter(wal, &survey.held, survey.node).await?;
        self.data.note_sound()?;
        Ok(fresh.cluster)
    }

    /// Gives every task that the state holds to `take`, in the order of their keys, until that fails.
    pub fn each_task<E: From<NodeError>>(
        &self,
        mut take: impl FnMut(TaskSpec, TaskState) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut from = key::shard(0).to_vec();
        loop {
            let rows = self.kv.scan(Table::Spec, &from, &END, PAGE).map_err(NodeError::from)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            from = [last.as_ref(), &[0]].concat();
            for (key, spec) in rows {
                let state = self.kv.get(Table::State, &key).map_err(NodeError::from)?;
                let task = self.task(&key, &spec, state.as_deref()).map_err(NodeError::from)?;
                if let Some((spec, state)) = task {
                    take(spec, state)?;
                }
            }
        }
    }

    /// `None`: a spec whose task is gone.
    fn task(&self, key: &[u8], spec: &[u8], state: Option<&[u8]>) -> Result<Option<(TaskSpec, TaskState)>, KvError> {
        let Some(state) = state else { return Ok(None) };
        let damaged = |what: String| KvError::Damaged {
            path: self.data.state().display().to_string(),
            what: format!("row {key:02x?}: {what}"),
        };
        let spec = record::decode_spec(spec).map_err(|error| damaged(error.to_string()))?;
        let state = record::decode_state(state).map_err(|error| damaged(error.to_string()))?;
        Ok(Some((spec, state)))
    }
}

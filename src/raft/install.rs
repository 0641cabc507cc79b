//! Installs what another node has sent, and tells it how far that is for as long as it takes: a large snapshot is never sent
//! again because it takes long to be installed.
//!
//! Who sends asks again and again (`network.rs`). The first request begins the install, which goes on whether anybody waits
//! or not; each is answered after a moment at the latest. Called by `serve.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::raft::SnapshotResponse;
use openraft::type_config::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::blocking::Blocking;
use crate::id::{GroupId, NodeId};
use crate::raft::group::Group;
use crate::raft::groups::Groups;
use crate::raft::machine;
use crate::raft::types::TypeConfig;
use crate::raft::wire::Answer;
use crate::store::{Inbox, Snapshot};

/// How long a request is held back while the install goes on.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Which snapshot is asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    /// Who has sent it.
    pub from: NodeId,
    /// The sender's vote.
    pub vote: VoteOf<TypeConfig>,
    /// Last entry in it.
    pub last: Option<LogIdOf<TypeConfig>>,
    /// Membership at that entry.
    pub membership: StoredMembershipOf<TypeConfig>,
}

type Result = std::result::Result<SnapshotResponse<TypeConfig>, String>;
/// What comes of an install, once it has ended.
type Following = watch::Receiver<Option<Result>>;

/// The latest install of each group, while it goes on and after it has succeeded: its answer may have been lost.
#[derive(Debug, Default)]
pub(super) struct Installs(Mutex<BTreeMap<GroupId, (Wanted, Following)>>);

impl Installs {
    /// The group begins anew: what was installed before says nothing of it.
    pub(super) fn forget(&self, group: GroupId) {
        self.0.lock().remove(&group);
    }

    /// The result of the install that is wanted, of one that goes on or of a new one that `begin` begins. `None` while
    /// another goes on.
    fn follow(&self, group: GroupId, wanted: &Wanted, begin: impl FnOnce() -> Following) -> Option<Following> {
        let mut installs = self.0.lock();
        if let Some((before, result)) = installs.get(&group) {
            // One whose task is gone without a result goes on no more.
            let goes_on = result.borrow().is_none() && result.has_changed().is_ok();
            let has_succeeded = matches!(&*result.borrow(), Some(Ok(_)));
            if before == wanted && (goes_on || has_succeeded) {
                return Some(result.clone());
            }
            if goes_on {
                return None;
            }
        }
        let result = begin();
        installs.insert(group, (wanted.clone(), result.clone()));
        Some(result)
    }
}

impl Groups {
    /// Answers a request to install what was sent before it.
    pub(super) async fn install(&self, group: &Group, wanted: Wanted) -> Answer {
        let id = group.id();
        let begin = || {
            let (done, result) = watch::channel(None);
            let work = install(
                group.clone(),
                self.inbox().clone(),
                self.0.parts.blocking.clone(),
                wanted.clone(),
            );
            tokio::spawn(async move { done.send_replace(Some(work.await)) });
            result
        };
        let Some(mut result) = self.0.installs.follow(id, &wanted, begin) else {
            return Answer::Failed("another snapshot of this group is being installed: try again".into());
        };
        let ended = tokio::time::timeout(REPORT_EVERY, result.wait_for(Option::is_some)).await;
        match ended {
            Err(_) => Answer::Installing(self.inbox().progress(id).unwrap_or(0)),
            Ok(Err(_)) => Answer::Failed("the install was cut short: begin again".into()),
            Ok(Ok(result)) => match result.clone() {
                None => unreachable!("waited for"),
                Some(Ok(response)) => Answer::Installed(response),
                Some(Err(what)) => Answer::Failed(what),
            },
        }
    }
}

async fn install(group: Group, inbox: Arc<Inbox>, blocking: Arc<dyn Blocking>, wanted: Wanted) -> Result {
    let (id, from) = (group.id(), wanted.from);
    let finished = blocking.run(move || inbox.finish(id, from)).await;
    let snapshot = match finished {
        Ok(snapshot) => snapshot,
        // This node was started anew meanwhile, and has finished at its start what it had begun.
        Err(_) if group.has_installed(&wanted) => return Ok(SnapshotResponse::new(wanted.vote)),
        Err(error) => return Err(error.to_string()),
    };
    // The sender may have begun a newer one, whose request is still on its way.
    match machine::position_of(&snapshot.meta) {
        Ok(position) if position == (wanted.last, wanted.membership.clone()) => {}
        Ok(_) => return Err("this is not the snapshot that was sent: begin again".into()),
        Err(error) => return Err(error.to_string()),
    }
    let meta = SnapshotMetaOf::<TypeConfig> {
        last_log_id: wanted.last,
        last_membership: wanted.membership,
    };
    let snapshot: SnapshotOf<TypeConfig, Snapshot> = openraft::storage::Snapshot { meta, snapshot };
    let installed = group.raft().install_full_snapshot(wanted.vote, snapshot).await;
    if installed.as_ref().is_ok_and(|response| response.vote == wanted.vote) {
        group.hear(wanted.vote.leader_id.term);
    }
    installed.map_err(|error| error.to_string())
}

//! An update: reads the task, and replaces the revision that was read, so that a try that is repeated, or comes late, never
//! undoes the change of somebody else.

use super::{LIMIT, Miss, RETRY_AFTER_MS, Router};
use crate::core::command::{Op, Reply, UPDATES_AND_CLAIMS};
use crate::core::record;
use crate::core::target::{Target, target_of};
use crate::core::task::{Life, Schedule, TaskSpec};
use crate::router::{Change, QueryError, UpdateError};

/// How often a change of whichever revision is tried anew when others change the task at the same time.
const TRIES_MAX: u32 = 8;

/// What one try came to.
enum Tried {
    /// The task has this revision, and is what was asked for.
    Done(u32),
    /// Somebody was faster.
    Overtaken,
}

impl Router {
    pub(super) async fn update(&self, change: Change) -> Result<u32, UpdateError> {
        self.all_read(UPDATES_AND_CLAIMS).map_err(UpdateError::Unavailable)?;
        let target = target_of(&change.url);
        let first_due_ms = change.first_due_ms;
        let mut spec = TaskSpec {
            id: change.id,
            schedule: change.schedule,
            url: change.url,
            body: change.body,
            created_ms: 0,
            delivery: change.delivery,
            revision: 0,
        };
        for _ in 0..TRIES_MAX {
            if let Tried::Done(revision) = self.replace(&mut spec, change.replaces, first_due_ms, target).await? {
                return Ok(revision);
            }
        }
        Err(UpdateError::Unavailable(
            "others change it at the same time, again and again".into(),
        ))
    }

    /// One try: on the revision that the task has now.
    async fn replace(
        &self,
        spec: &mut TaskSpec,
        replaces: Option<u32>,
        due_ms: u64,
        target: Target,
    ) -> Result<Tried, UpdateError> {
        let now = self.query(spec.id.clone()).await.map_err(|error| match error {
            QueryError::NotFound => UpdateError::NotFound,
            QueryError::Unavailable(why) => UpdateError::Unavailable(why),
        })?;
        let revision = now.state.revision;
        // Whoever does not say which revision means that the task shall be so. A periodic one that was ended is begun anew; a
        // one-shot that has fired at this very instant has not to be fired again.
        let is_once = matches!(spec.schedule, Schedule::Once { .. });
        let is_done = match replaces {
            None => is_once || now.state.life == Life::Pending,
            Some(replaced) => replaced.checked_add(1) == Some(revision),
        };
        if is_done && now.spec.is_same_request(spec) {
            return Ok(Tried::Done(revision));
        }
        if replaces.is_some_and(|replaced| replaced != revision) {
            return Err(UpdateError::Outdated { revision });
        }
        let Some(next) = revision.checked_add(1) else {
            return Err(UpdateError::Unavailable("its revisions are used up".into()));
        };
        (spec.created_ms, spec.revision) = (now.spec.created_ms, next);
        let record = record::encode_spec(spec);
        let op = Op::Update {
            key: spec.id.key(),
            spec: &record,
            due_ms,
            target,
            revision: next,
            at_ms: self.0.clock.wall_ms(),
        };
        match self.propose(&spec.id, op).await {
            Ok((Reply::Done | Reply::Existed, _)) => Ok(Tried::Done(next)),
            // An earlier try may have been done, and was overtaken or deleted since.
            Ok((_, true)) | Err(Miss::Unknown) => Err(UpdateError::Unknown),
            Ok((Reply::NotFound, false)) => Err(UpdateError::NotFound),
            Ok((_, false)) => Ok(Tried::Overtaken),
            Err(Miss::Overloaded) => Err(UpdateError::TooMany {
                limit: LIMIT,
                retry_after_ms: RETRY_AFTER_MS,
            }),
            Err(Miss::DiskReserve) => Err(UpdateError::DiskReserve),
            Err(Miss::Unavailable(why)) => Err(UpdateError::Unavailable(why)),
        }
    }
}

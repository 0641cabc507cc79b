//! Work that blocks, without threads: each piece takes as long as a sync of the disk, and is done at the end of that time.
//! What else the node does goes on meanwhile.

use tokio::time::sleep;
use xcron::blocking::{Blocking, Job};

use crate::disk::Mount;

/// Pieces as long as the disk's syncs.
#[derive(Debug)]
pub(super) struct Slow(pub Mount);

impl Blocking for Slow {
    fn offload(&self, job: Job) {
        let takes = self.0.sync_time();
        tokio::spawn(async move {
            sleep(takes).await;
            job();
        });
    }
}

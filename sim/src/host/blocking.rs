//! Work that blocks: a job of its own, which takes turns with everything else (`strands.rs`).

use xcron::blocking::{Blocking, Job};

use crate::disk::Mount;

/// The jobs of one run of a process.
#[derive(Debug)]
pub(super) struct Jobs(pub Mount);

impl Blocking for Jobs {
    fn offload(&self, job: Job) {
        self.0.workshop().strands.begin(job);
    }
}

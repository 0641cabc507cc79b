//! A disk's other ends: how much room it has, and work that blocks, a job of its own that takes turns with everything else
//! (`strands.rs`).

use xcron::blocking::{Blocking, Job};
use xcron::space::{Disk, Room};

use crate::disk::Mount;

/// The jobs of one run of a process.
#[derive(Debug)]
pub(super) struct Jobs(pub Mount);

impl Blocking for Jobs {
    fn offload(&self, job: Job) {
        self.0.workshop().strands.begin(job);
    }
}

/// A disk that always says that there is room: that it has none shows in its writes, as on one that fills up between two looks.
#[derive(Debug)]
pub(super) struct Roomy;

impl Disk for Roomy {
    fn room(&self) -> std::io::Result<Room> {
        Ok(Room {
            free_bytes: 1 << 40,
            total_bytes: 2 << 40,
        })
    }
}

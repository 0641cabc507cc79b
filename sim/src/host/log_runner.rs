//! Gives the log's writer its turns without a thread: one whenever there is work, each as long as a sync takes.

use std::io;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use xcron::wal::{Ended, Run, Step, Writer};

use crate::disk::Mount;

/// Turns as long as the disk's syncs.
#[derive(Debug)]
pub(super) struct Turns(pub Mount);

impl Run for Turns {
    fn start(&self, writer: Writer, ended: Ended) -> io::Result<()> {
        tokio::spawn(run(self.0.clone(), writer, ended));
        Ok(())
    }
}

async fn run(mount: Mount, mut writer: Writer, ended: Ended) {
    let work = Arc::new(Notify::new());
    let told = work.clone();
    writer.on_work(move || told.notify_one());
    // What was handed over before this runs for the first time told nobody.
    work.notify_one();
    loop {
        match writer.due_in() {
            Some(wait) => drop(timeout(wait, work.notified()).await),
            None => work.notified().await,
        }
        loop {
            // What comes meanwhile goes into the same batch, as with a real disk.
            sleep(mount.sync_time()).await;
            match writer.step(Some(std::time::Duration::ZERO)) {
                Step::Worked(_) => {}
                Step::Idle => break,
                Step::Ended => return ended(writer.finish()),
            }
        }
    }
}

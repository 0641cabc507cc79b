//! Who gives the writer its turns: a thread of its own, or whatever a [`Run`] puts in its place.
//!
//! A simulation has one thread for all nodes and gives turns itself, through [`Writer::step`].

use std::fmt::Debug;
use std::io;

use super::{WalError, Writer};

/// Called once the writer has ended: with its failure, if it has failed.
pub type Ended = Box<dyn FnOnce(Option<WalError>) + Send>;

/// Runs the writers of logs.
pub trait Run: Debug + Send + Sync + 'static {
    /// Lets `writer` run until it ends, and calls `ended` then.
    fn start(&self, writer: Writer, ended: Ended) -> io::Result<()>;
}

/// A thread for each writer: it blocks in the disk's calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnThread;

impl Run for OwnThread {
    fn start(&self, writer: Writer, ended: Ended) -> io::Result<()> {
        let thread = std::thread::Builder::new().name("xcron-log".into());
        thread.spawn(move || ended(writer.run())).map(drop)
    }
}

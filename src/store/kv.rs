//! The seam to the disk of the state: three ordered tables of bytes, atomic batches, consistent views.
//!
//! Knows nothing of tasks or groups. Every error is final for the node: a store that failed once is not written again.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::store::key::Table;

/// A failed read or write. The node that sees one stops acknowledging and ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// Stored data is damaged or missing.
    #[error("the state in {path} is damaged: {what}. Start with --rejoin to set the directory aside")]
    Damaged {
        /// Directory of the state.
        path: String,
        /// What was found.
        what: String,
    },
    /// The disk refused: full, failing, or the store was failed by an earlier error.
    #[error("the state in {path} cannot be read or written: {what}")]
    Disk {
        /// Directory of the state.
        path: String,
        /// What the operating system said.
        what: String,
    },
    /// Another process has the directory open.
    #[error("the state in {path} is in use by another process; stop it, or choose another data directory")]
    InUse {
        /// Directory of the state.
        path: String,
    },
}

/// One put, or with no value one removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub table: Table,
    /// Which row.
    pub key: Vec<u8>,
    /// The new value, or `None` to remove the row.
    pub value: Option<Vec<u8>>,
}

/// A row of a scan.
pub type Row = (Bytes, Bytes);

/// Reads from one table or view.
pub trait ReadKv: Send + Sync {
    /// The value of a row.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, KvError>;
    /// Rows with `from <= key < to` in key order, at most `limit`.
    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, KvError>;
}

/// The store of a node.
pub trait Kv: ReadKv + Debug + 'static {
    /// Writes all or nothing; visible at once, on disk only after [`Kv::persist`] or when the store chooses to.
    fn commit(&self, writes: Vec<Write>) -> Result<(), KvError>;
    /// Everything committed before this call is on disk when it completes.
    fn persist(&self) -> Pin<Box<dyn Future<Output = Result<(), KvError>> + Send>>;
    /// Whether it still takes writes: one that was failed by its own work in the background tells so here, also where nobody
    /// writes. Blocks for a moment.
    fn check(&self) -> Result<(), KvError>;
    /// A view that later commits do not change.
    fn view(&self) -> Arc<dyn ReadKv>;
}

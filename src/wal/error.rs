//! What can go wrong in the log: at open ([`OpenError`]) and afterwards ([`WalError`]).
//!
//! Owns the words an operator reads about the log. Made by every file of this folder.

use std::io;

/// Why a log could not be opened. Nothing has been thrown away: the files are as they were found.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Data that was acknowledged is missing or no longer has the bytes that were written.
    #[error(
        "the log is damaged: {file} at byte {offset}: {what}. Affected groups: {}. This node must not take part with a \
         log shorter than what it promised; start it with `xcron serve --rejoin`, which sets this directory aside and \
         joins with an empty log under a new identity",
        listed(.groups)
    )]
    Damaged {
        /// Name of the file, relative to the log's directory.
        file: String,
        /// Where in the file the first bad or missing byte is, as far as known.
        offset: u64,
        /// Groups that have records in the damaged part, as far as known; ascending.
        groups: Vec<u16>,
        /// What was found and what should have been there.
        what: String,
    },
    /// A file was written by a later version of the product.
    #[error(
        "{file} has log format {version}, this version of xcron reads up to {known}: start the newer version again"
    )]
    Version {
        /// Name of the file, relative to the log's directory.
        file: String,
        /// Format version found.
        version: u32,
        /// Highest format version this program reads.
        known: u32,
    },
    /// A value of `Options` cannot be used.
    #[error("log option {name}: {what}")]
    Option {
        /// Field of `Options`.
        name: &'static str,
        /// What is wrong with it and what would be right.
        what: String,
    },
    /// The disk refused an operation.
    #[error("log: cannot {action} {file}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Name of the file, relative to the log's directory.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The log could be read, but its first write was refused.
    #[error(transparent)]
    Failed(#[from] WalError),
}

impl OpenError {
    pub(super) fn io(action: &'static str, file: &str) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_owned();
        move |source| Self::Io { action, file, source }
    }
}

/// Why an operation on an open log failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalError {
    /// The disk refused a write, a sync or an allocation. Final: nothing is retried, nothing is acknowledged any more.
    #[error("the log has failed and takes nothing more until xcron is restarted: cannot {action} {file}: {message}")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// Name of the file, relative to the log's directory.
        file: String,
        /// The system's answer.
        message: String,
    },
    /// The writer has ended (or has been dropped) while a handle still submits.
    #[error("the log's writer has ended: nothing more is written")]
    Stopped,
    /// Appended entries do not follow the last one. The log is unchanged.
    #[error("group {group}: entries from index {first_index} on do not follow its log, whose next index is {expected}")]
    Gap {
        /// Group of the append.
        group: u16,
        /// First index that was appended.
        first_index: u64,
        /// The only index an append can start at.
        expected: u64,
    },
    /// Something does not fit. The log is unchanged.
    #[error("group {group}: {what} of {bytes} bytes is more than the log takes ({bytes_max} bytes)")]
    TooLarge {
        /// Group of the operation.
        group: u16,
        /// What is too large.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The largest that is taken.
        bytes_max: usize,
    },
    /// An entry read back from the disk is not what was written.
    #[error(
        "the log is damaged: entry {index} of group {group} in {file} at byte {offset} does not have the bytes that \
         were written. Stop this node and start it with `xcron serve --rejoin`"
    )]
    Damaged {
        /// Group of the entry.
        group: u16,
        /// Index of the entry.
        index: u64,
        /// Name of the file, relative to the log's directory.
        file: String,
        /// Where in the file.
        offset: u64,
    },
    /// A read from the disk failed.
    #[error("log: cannot read entry {index} of group {group} from {file}: {message}")]
    Read {
        /// Group of the entry.
        group: u16,
        /// Index of the entry.
        index: u64,
        /// Name of the file, relative to the log's directory.
        file: String,
        /// The system's answer.
        message: String,
    },
}

impl WalError {
    pub(super) fn failed(action: &'static str, file: &str) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_owned();
        move |error| Self::Failed {
            action,
            file,
            message: error.to_string(),
        }
    }
}

/// The groups of a message: all of them up to 16, then a count.
fn listed(groups: &[u16]) -> String {
    const SHOWN: usize = 16;
    if groups.is_empty() {
        return "unknown, take all".to_owned();
    }
    let shown: Vec<String> = groups.iter().take(SHOWN).map(u16::to_string).collect();
    let more = match groups.len().saturating_sub(SHOWN) {
        0 => String::new(),
        rest => format!(" and {rest} more"),
    };
    format!("{}{more}", shown.join(", "))
}

//! Who this node is: its id and its cluster's facts, made once and kept in the data directory.
//!
//! Also owns the directory: the lock that keeps a second process out, and `--rejoin`, which sets a damaged directory's
//! contents aside so that the node returns with a new id. Called by `node.rs` before anything else is opened.

use std::fmt::Debug;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::core::record;
use crate::entropy::Entropy;
use crate::id::{GroupCount, NodeId};
use crate::store::DirSpools;
use crate::wal::DirFiles;

const IDENTITY_FILE: &str = "identity";
const LOCK_FILE: &str = "lock";
/// Subdirectory of the log stream.
const LOG_DIRECTORY: &str = "log";
/// Subdirectory of the state.
const STATE_DIRECTORY: &str = "state";
/// The cluster's secret, where no setting names another file.
const SECRET_FILE: &str = "secret";
/// Subdirectory of snapshots that other nodes send.
const SPOOL_DIRECTORY: &str = "incoming";
const IDENTITY_V1: u8 = 1;

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The operating system refused.
    #[error("data directory {}: {what}: {error}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        error: io::Error,
    },
    /// Another process holds the lock.
    #[error("data directory {} is in use by another xcron; stop it, or choose another with --data", .0.display())]
    InUse(PathBuf),
    /// The identity is damaged, or gone while data is there.
    #[error(
        "data directory {}: {what}. The node does not know who it is and must not vote: start with --rejoin to set the \
         directory aside and return as a new node", path.display()
    )]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What was found.
        what: String,
    },
}

/// What the identity file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// This node.
    pub node: NodeId,
    /// Random name of the cluster.
    pub cluster: u128,
    /// Number of groups, fixed at the cluster's birth.
    pub groups: GroupCount,
    /// How far the node has come.
    pub stage: Stage,
}

/// How far a node has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// The cluster is being born here: groups that this node does not have are still to be made.
    Founding,
    /// It has joined a cluster; its log and state are still to be made.
    Joining,
    /// Log and state have been made. A log that is missing is lost, and a group that is missing lives elsewhere.
    Settled,
}

impl Identity {
    /// A fresh node of a cluster that exists.
    pub fn joining(node: NodeId, cluster: u128, groups: GroupCount) -> Self {
        Self {
            node,
            cluster,
            groups,
            stage: Stage::Joining,
        }
    }

    /// The first node of a new cluster.
    pub fn founding(groups: GroupCount, entropy: &dyn Entropy) -> Self {
        Self {
            node: fresh_node_id(entropy),
            cluster: (u128::from(entropy.next_u64()) << 64) | u128::from(entropy.next_u64()),
            groups,
            stage: Stage::Founding,
        }
    }
}

/// An id that no other node has; 0 is no node.
pub fn fresh_node_id(entropy: &dyn Entropy) -> NodeId {
    entropy.next_u64().max(1)
}

/// Where a node's identity is kept: its data directory, or a simulation's own.
pub trait Home: Debug + Send + Sync + 'static {
    /// The identity; `None` where there is no data.
    fn identity(&self) -> Result<Option<Identity>, IdentityError>;
    /// Keeps the identity: on disk when this returns, whole or not at all.
    fn keep(&self, identity: &Identity) -> Result<(), IdentityError>;
}

/// The data directory, locked for this process.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    /// Held open: the lock goes with it.
    _lock: File,
}

impl DataDirectory {
    /// Creates the directory if need be, and locks it.
    pub fn open(path: &Path) -> Result<Self, IdentityError> {
        create_private(path).map_err(|error| io_error(path, "cannot be created", error))?;
        // Its own name must outlive a power cut as well: without it the node would found a cluster anew.
        if let Some(parent) = path.canonicalize().ok().as_deref().and_then(Path::parent) {
            sync_directory(parent).map_err(|error| io_error(parent, "cannot be synced", error))?;
        }
        let lock_path = path.join(LOCK_FILE);
        let lock = File::create(&lock_path).map_err(|error| io_error(&lock_path, "cannot be created", error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(IdentityError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(io_error(&lock_path, "cannot be locked", error)),
        }
    }

    /// The directory of the log stream, made if need be.
    pub fn open_log(&self) -> Result<DirFiles, IdentityError> {
        let path = self.log();
        create_private(&path).map_err(|error| io_error(&path, "cannot be created", error))?;
        DirFiles::open(&path).map_err(|error| io_error(&path, "cannot be opened", error))
    }

    /// The directory of snapshots on their way here, made if need be.
    pub fn open_spools(&self) -> Result<DirSpools, IdentityError> {
        let path = self.path.join(SPOOL_DIRECTORY);
        DirSpools::open(&path).map_err(|error| io_error(&path, "cannot be created", error))
    }

    fn log(&self) -> PathBuf {
        self.path.join(LOG_DIRECTORY)
    }

    /// Where the state lives.
    pub fn state(&self) -> PathBuf {
        self.path.join(STATE_DIRECTORY)
    }

    /// Where the cluster's secret is kept unless a setting names another file.
    pub fn secret(&self) -> PathBuf {
        self.path.join(SECRET_FILE)
    }

    /// Moves everything of a damaged node into `set-aside-<stamp>` below the directory; returns where, if there was
    /// anything.
    pub fn set_aside(&self, stamp: u64) -> Result<Option<PathBuf>, IdentityError> {
        let aside = self.path.join(format!("set-aside-{stamp}"));
        let mut is_moved = false;
        for name in [IDENTITY_FILE, LOG_DIRECTORY, STATE_DIRECTORY, SPOOL_DIRECTORY] {
            let from = self.path.join(name);
            if !from.exists() {
                continue;
            }
            create_private(&aside).map_err(|error| io_error(&aside, "cannot be created", error))?;
            fs::rename(&from, aside.join(name)).map_err(|error| io_error(&from, "cannot be set aside", error))?;
            is_moved = true;
        }
        sync_directory(&self.path).map_err(|error| io_error(&self.path, "cannot be synced", error))?;
        Ok(is_moved.then_some(aside))
    }

    /// A settled node without its log has forgotten its votes: it must not come back under its old id.
    fn with_its_data(&self, identity: Identity) -> Result<Identity, IdentityError> {
        if identity.stage != Stage::Settled {
            return Ok(identity);
        }
        let has_files = |path: &Path| fs::read_dir(path).is_ok_and(|mut files| files.next().is_some());
        for (directory, what) in [(self.log(), "the log"), (self.state(), "the state")] {
            if !has_files(&directory) {
                return Err(self.damaged(format!("{what} is missing, but the node has had one")));
            }
        }
        Ok(identity)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Identity, IdentityError> {
        let (body, crc) = bytes
            .split_last_chunk::<4>()
            .ok_or_else(|| self.damaged("file identity is cut".into()))?;
        if crc32fast::hash(body) != u32::from_be_bytes(*crc) {
            return Err(self.damaged("the checksum of file identity is wrong".into()));
        }
        record::decode("identity", IDENTITY_V1, body).map_err(|error| self.damaged(error.to_string()))
    }

    fn damaged(&self, what: String) -> IdentityError {
        IdentityError::Damaged {
            path: self.path.clone(),
            what,
        }
    }
}

impl Home for DataDirectory {
    fn identity(&self) -> Result<Option<Identity>, IdentityError> {
        let path = self.path.join(IDENTITY_FILE);
        match fs::read(&path) {
            Ok(bytes) => self
                .decode(&bytes)
                .and_then(|identity| self.with_its_data(identity))
                .map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if self.log().exists() || self.state().exists() {
                    return Err(self.damaged("file identity is missing, but there is data".into()));
                }
                Ok(None)
            }
            Err(error) => Err(io_error(&path, "cannot be read", error)),
        }
    }

    // Written aside, then renamed.
    fn keep(&self, identity: &Identity) -> Result<(), IdentityError> {
        let path = self.path.join(IDENTITY_FILE);
        let mut bytes = record::versioned(IDENTITY_V1, identity);
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        let fresh = path.with_extension("new");
        let written = File::create(&fresh)
            .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&fresh, &path))
            .and_then(|()| sync_directory(&self.path));
        written.map_err(|error| io_error(&path, "cannot be written", error))
    }
}

fn io_error(path: &Path, what: &'static str, error: io::Error) -> IdentityError {
    IdentityError::Io {
        path: path.to_owned(),
        what,
        error,
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Callback bodies and URLs are nobody else's business on this machine.
fn create_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SystemEntropy;

    fn groups() -> GroupCount {
        GroupCount::new(32).expect("a divisor")
    }

    fn founded(directory: &DataDirectory) -> Identity {
        let identity = Identity::founding(groups(), &SystemEntropy::default());
        directory.keep(&identity).expect("writable");
        identity
    }

    fn refusal(directory: &DataDirectory) -> String {
        directory.identity().expect_err("damaged").to_string()
    }

    #[test]
    fn an_identity_is_kept() {
        let temporary = tempfile::tempdir().expect("a temporary directory");
        let directory = DataDirectory::open(temporary.path()).expect("free");
        assert_eq!(directory.identity().expect("undamaged"), None);
        let kept = founded(&directory);
        assert_eq!(directory.identity().expect("undamaged"), Some(kept.clone()));
        for directory in [directory.log(), directory.state()] {
            fs::create_dir(&directory).expect("free");
            fs::write(directory.join("file"), "").expect("writable");
        }
        let born = Identity {
            stage: Stage::Settled,
            ..kept
        };
        directory.keep(&born).expect("writable");
        assert_eq!(directory.identity().expect("undamaged"), Some(born));
        fs::remove_file(directory.log().join("file")).expect("there");
        assert!(refusal(&directory).contains("the log is missing"));
    }

    #[test]
    fn a_second_process_is_kept_out() {
        let temporary = tempfile::tempdir().expect("a temporary directory");
        let _first = DataDirectory::open(temporary.path()).expect("free");
        assert!(matches!(
            DataDirectory::open(temporary.path()),
            Err(IdentityError::InUse(_))
        ));
    }

    #[test]
    fn a_damaged_or_missing_identity_is_refused_and_can_be_set_aside() {
        let temporary = tempfile::tempdir().expect("a temporary directory");
        let directory = DataDirectory::open(temporary.path()).expect("free");
        founded(&directory);
        let file = temporary.path().join(IDENTITY_FILE);
        let mut bytes = fs::read(&file).expect("there");
        bytes[3] ^= 1;
        fs::write(&file, bytes).expect("writable");
        assert!(refusal(&directory).contains("checksum"));
        fs::remove_file(&file).expect("there");
        fs::create_dir(directory.log()).expect("free");
        assert!(refusal(&directory).contains("--rejoin"));
        let aside = directory.set_aside(7).expect("works").expect("there was data");
        assert!(aside.join(LOG_DIRECTORY).exists() && !directory.log().exists());
        assert_eq!(directory.identity().expect("undamaged"), None, "never the old id");
    }
}

//! Who this node is: its id, its cluster's facts and its count of starts, kept in the data directory.
//!
//! Also owns the directory: the lock that keeps a second process out, what is remembered of other nodes (`identity/peers.rs`),
//! and `--rejoin`, which sets the contents of a damaged or superseded directory aside so that the node returns with a new
//! id. Called by `node.rs` before anything else is opened.

mod peers;

use std::fmt::Debug;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::core::record;
use crate::entropy::Entropy;
use crate::id::{GroupCount, NodeId, Start};
use crate::store::DirSpools;
use crate::wal::DirFiles;

pub use peers::{KNOWN_PEERS_MAX, KnownPeer};

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
/// What is remembered of the other nodes.
const PEERS_FILE: &str = "peers";
/// What was found to be damaged, by a start that failed because of it.
const DAMAGE_FILE: &str = "damage";
/// Version 1 had no count of starts.
const IDENTITY_V2: u8 = 2;
const PEERS_V1: u8 = 1;

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
    /// Its peers have seen this node further on than it is here.
    #[error(
        "data directory {}: an older copy of this node's directory. The other nodes have seen the node further on, so it has \
         forgotten what it confirmed, and must not vote. Start with --rejoin and --join to set the directory aside and return \
         as a new node: the others hold what it held. If they are lost for good: xcron recover", .0.display()
    )]
    Superseded(PathBuf),
    /// There is no data of a node.
    #[error("data directory {}: {_1}", .0.display())]
    Nothing(PathBuf, String),
    /// Nothing is wrong with it.
    #[error(
        "data directory {}: not set aside, since no start has found it damaged: --rejoin would throw away a good copy of the \
         tasks. Start without --rejoin; if the directory is damaged, that start says so, and --rejoin is accepted from then on. \
         To take a healthy node out: xcron cluster drain", .0.display()
    )]
    Healthy(PathBuf),
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
    /// Its newest start.
    pub start: Start,
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
    /// The directory is an older copy of itself: other nodes have seen the node further on. It never starts again.
    Superseded,
}

impl Identity {
    /// A fresh node of a cluster that exists.
    pub fn joining(node: NodeId, cluster: u128, groups: GroupCount) -> Self {
        Self {
            node,
            cluster,
            groups,
            stage: Stage::Joining,
            start: Start::default(),
        }
    }

    /// The first node of a new cluster.
    pub fn founding(groups: GroupCount, entropy: &dyn Entropy) -> Self {
        Self {
            node: fresh_node_id(entropy),
            cluster: (u128::from(entropy.next_u64()) << 64) | u128::from(entropy.next_u64()),
            groups,
            stage: Stage::Founding,
            start: Start::default(),
        }
    }

    /// The same at its next start.
    #[must_use]
    pub fn started(self, entropy: &dyn Entropy) -> Self {
        let start = Start {
            counter: self.start.counter + 1,
            nonce: entropy.next_u64(),
        };
        Self { start, ..self }
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
    /// What is remembered of the other nodes.
    fn peers(&self) -> Result<Vec<KnownPeer>, IdentityError>;
    /// Keeps that in place of what was: on disk when this completes, whole or not at all.
    fn keep_peers(&self, peers: Vec<KnownPeer>) -> BoxFuture<'_, Result<(), IdentityError>>;
    /// What is here has been read, and is not damaged.
    fn note_sound(&self) -> Result<(), IdentityError>;
    /// The refusal of a directory that was found to be an older copy.
    fn superseded(&self) -> IdentityError;
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

    /// The identity as it is stored, whatever has become of the rest.
    pub fn stored(&self) -> Result<Option<Identity>, IdentityError> {
        self.read(IDENTITY_FILE, IDENTITY_V2)
    }

    /// Whether `--rejoin` may set the contents aside: a start has found them damaged, or older than the node once was, or the
    /// identity cannot be read. An empty directory may be as well.
    pub fn may_be_set_aside(&self) -> bool {
        self.path.join(DAMAGE_FILE).exists() || !matches!(self.identity(), Ok(Some(_)))
    }

    /// Notes why a start has failed, so that `--rejoin` is accepted.
    pub fn note_damage(path: &Path, what: &str) -> Result<(), IdentityError> {
        let file = path.join(DAMAGE_FILE);
        write_whole(&file, what.as_bytes()).map_err(|error| io_error(&file, "cannot be written", error))
    }

    /// The refusal of `--rejoin` where nothing is wrong.
    pub fn healthy(&self) -> IdentityError {
        IdentityError::Healthy(self.path.clone())
    }

    /// Moves everything of a damaged node into `set-aside-<stamp>` below the directory; returns where, if there was
    /// anything.
    pub fn set_aside(&self, stamp: u64) -> Result<Option<PathBuf>, IdentityError> {
        let aside = self.path.join(format!("set-aside-{stamp}"));
        let mut is_moved = false;
        for name in [
            IDENTITY_FILE,
            PEERS_FILE,
            DAMAGE_FILE,
            LOG_DIRECTORY,
            STATE_DIRECTORY,
            SPOOL_DIRECTORY,
        ] {
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
        match identity.stage {
            Stage::Founding | Stage::Joining => return Ok(identity),
            Stage::Superseded => return Err(self.superseded()),
            Stage::Settled => {}
        }
        let has_files = |path: &Path| fs::read_dir(path).is_ok_and(|mut files| files.next().is_some());
        for (directory, what) in [(self.log(), "the log"), (self.state(), "the state")] {
            if !has_files(&directory) {
                return Err(self.damaged(format!("{what} is missing, but the node has had one")));
            }
        }
        Ok(identity)
    }

    /// The record in a file that ends in its checksum; `None` where there is no file.
    fn read<T: serde::de::DeserializeOwned>(
        &self,
        name: &'static str,
        version: u8,
    ) -> Result<Option<T>, IdentityError> {
        let path = self.path.join(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error(&path, "cannot be read", error)),
        };
        let (body, crc) = bytes
            .split_last_chunk::<4>()
            .ok_or_else(|| self.damaged(format!("file {name} is cut")))?;
        if crc32fast::hash(body) != u32::from_be_bytes(*crc) {
            return Err(self.damaged(format!("the checksum of file {name} is wrong")));
        }
        let value = record::decode(name, version, body);
        value.map(Some).map_err(|error| self.damaged(error.to_string()))
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
        match self.read(IDENTITY_FILE, IDENTITY_V2)? {
            Some(identity) => self.with_its_data(identity).map(Some),
            None if self.log().exists() || self.state().exists() => {
                Err(self.damaged("file identity is missing, but there is data".into()))
            }
            None => Ok(None),
        }
    }

    fn keep(&self, identity: &Identity) -> Result<(), IdentityError> {
        let path = self.path.join(IDENTITY_FILE);
        let written = write_whole(&path, &with_checksum(IDENTITY_V2, identity));
        written.map_err(|error| io_error(&path, "cannot be written", error))
    }

    fn peers(&self) -> Result<Vec<KnownPeer>, IdentityError> {
        Ok(self.read(PEERS_FILE, PEERS_V1)?.unwrap_or_default())
    }

    fn keep_peers(&self, peers: Vec<KnownPeer>) -> BoxFuture<'_, Result<(), IdentityError>> {
        let path = self.path.join(PEERS_FILE);
        let bytes = with_checksum(PEERS_V1, &peers);
        Box::pin(async move {
            let file = path.clone();
            let written = tokio::task::spawn_blocking(move || write_whole(&file, &bytes)).await;
            let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
            written.map_err(|error| io_error(&path, "cannot be written", error))
        })
    }

    fn note_sound(&self) -> Result<(), IdentityError> {
        let path = self.path.join(DAMAGE_FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(&path, "cannot be removed", error)),
            _ => Ok(()),
        }
    }

    fn superseded(&self) -> IdentityError {
        IdentityError::Superseded(self.path.clone())
    }
}

fn with_checksum(version: u8, value: &impl Serialize) -> Vec<u8> {
    let mut bytes = record::versioned(version, value);
    bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
    bytes
}

/// Writes a file aside, then renames it: it is on disk when this returns, whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    path.parent().map_or(Ok(()), sync_directory)
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
    use crate::id::Progress;

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

    #[test]
    fn only_what_is_damaged_or_superseded_may_be_set_aside() {
        let temporary = tempfile::tempdir().expect("a temporary directory");
        let directory = DataDirectory::open(temporary.path()).expect("free");
        assert!(directory.may_be_set_aside(), "there is nothing to lose");
        let identity = founded(&directory);
        assert!(!directory.may_be_set_aside());
        DataDirectory::note_damage(temporary.path(), "the log is damaged").expect("writable");
        assert!(directory.may_be_set_aside());
        directory.note_sound().expect("removable");
        directory.note_sound().expect("it is gone already");
        assert!(!directory.may_be_set_aside());
        let superseded = Identity {
            stage: Stage::Superseded,
            ..identity
        };
        directory.keep(&superseded).expect("writable");
        assert!(refusal(&directory).contains("--rejoin"));
        assert!(directory.may_be_set_aside());
    }

    #[tokio::test]
    async fn what_is_remembered_of_other_nodes_is_kept_and_its_damage_seen() {
        let temporary = tempfile::tempdir().expect("a temporary directory");
        let directory = DataDirectory::open(temporary.path()).expect("free");
        assert_eq!(directory.peers().expect("undamaged"), []);
        let peer = KnownPeer {
            node: 7,
            address: Some("10.0.0.7:8100".parse().expect("an address")),
            progress: Progress {
                start: Start { counter: 3, nonce: 9 },
                log: 100,
            },
            heard_ms: 5,
        };
        directory.keep_peers(vec![peer.clone()]).await.expect("writable");
        assert_eq!(directory.peers().expect("undamaged"), [peer]);
        let file = temporary.path().join(PEERS_FILE);
        let mut bytes = fs::read(&file).expect("there");
        bytes[2] ^= 1;
        fs::write(&file, bytes).expect("writable");
        assert!(directory.peers().expect_err("damaged").to_string().contains("--rejoin"));
    }

    #[test]
    fn every_start_is_counted_and_has_a_number_of_its_own() {
        let entropy = SystemEntropy::default();
        let first = Identity::founding(groups(), &entropy).started(&entropy);
        let second = first.clone().started(&entropy);
        let again = first.clone().started(&entropy);
        assert_eq!(
            (first.start.counter, second.start.counter, again.start.counter),
            (1, 2, 2)
        );
        assert_ne!(second.start.nonce, again.start.nonce);
    }
}

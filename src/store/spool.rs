//! Where a snapshot that comes from another node is kept until it is installed: one spool a group.
//!
//! Owns files and nothing of what is in them: a spool is a sequence of pieces. `snapshot.rs` writes and reads it; a simulator
//! puts its own [`Spools`] in the place of [`DirSpools`].

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::id::GroupId;

/// Largest piece, in bytes: one chunk of a snapshot.
pub const PIECE_BYTES_MAX: usize = 1 << 20;

/// The pieces of a spool, in order.
pub type Pieces = Box<dyn Iterator<Item = io::Result<Bytes>> + Send>;

/// The spools of a node. All calls block.
pub trait Spools: Debug + Send + Sync + 'static {
    /// Begins the group's spool anew.
    fn begin(&self, group: GroupId) -> io::Result<()>;
    /// Adds a piece at its end.
    fn add(&self, group: GroupId, piece: &[u8]) -> io::Result<()>;
    /// Everything added is on disk when this returns.
    fn sync(&self, group: GroupId) -> io::Result<()>;
    /// The pieces in order; `None` if the group has no spool.
    fn read(&self, group: GroupId) -> io::Result<Option<Pieces>>;
    /// Removes the spool, if there is one.
    fn remove(&self, group: GroupId) -> io::Result<()>;
}

/// Spools in a directory, one file each: pieces with their lengths before them.
#[derive(Debug)]
pub struct DirSpools {
    path: PathBuf,
    /// Spools being written; none is read meanwhile.
    open: Mutex<BTreeMap<GroupId, Arc<File>>>,
}

impl DirSpools {
    /// Spools in `path`, which is made if need be.
    pub fn open(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(Self {
            path: path.to_owned(),
            open: Mutex::default(),
        })
    }

    fn file(&self, group: GroupId) -> PathBuf {
        self.path.join(format!("group-{group}"))
    }

    /// The group's spool that is being written. Not written under the lock: another group's need not wait for its sync.
    fn begun(&self, group: GroupId) -> io::Result<Arc<File>> {
        let file = self.open.lock().get(&group).cloned();
        file.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no spool was begun"))
    }
}

impl Spools for DirSpools {
    fn begin(&self, group: GroupId) -> io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.file(group))?;
        self.open.lock().insert(group, Arc::new(file));
        Ok(())
    }

    fn add(&self, group: GroupId, piece: &[u8]) -> io::Result<()> {
        let length = u32::try_from(piece.len()).map_err(|_| io::Error::other("a piece is too long"))?;
        let mut file: &File = &*self.begun(group)?;
        file.write_all(&length.to_be_bytes())?;
        file.write_all(piece)
    }

    fn sync(&self, group: GroupId) -> io::Result<()> {
        self.begun(group)?.sync_all()?;
        self.open.lock().remove(&group);
        File::open(&self.path)?.sync_all()
    }

    fn read(&self, group: GroupId) -> io::Result<Option<Pieces>> {
        match File::open(self.file(group)) {
            Ok(file) => Ok(Some(Box::new(FilePieces(BufReader::new(file))))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn remove(&self, group: GroupId) -> io::Result<()> {
        self.open.lock().remove(&group);
        match fs::remove_file(self.file(group)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

struct FilePieces(BufReader<File>);

impl FilePieces {
    fn piece(&mut self) -> io::Result<Option<Bytes>> {
        let mut length = [0; 4];
        match self.0.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > PIECE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a length that no piece has"));
        }
        let mut piece = vec![0; length];
        self.0.read_exact(&mut piece)?;
        Ok(Some(piece.into()))
    }
}

impl Iterator for FilePieces {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        self.piece().transpose()
    }
}

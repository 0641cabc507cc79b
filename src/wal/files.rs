//! The log's seam to the disk: [`Files`] is its directory, [`LogFile`] one file of it; [`DirFiles`] is the real one.
//!
//! Nothing else in `wal` touches a file, so a simulator that implements these two traits owns every fault a disk has.
//! Owns no format.

use std::fmt::Debug;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// A flat directory of files with plain names.
pub trait Files: Debug + Send + Sync {
    /// Names of all files, in any order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes a file of exactly `bytes` bytes: `head` first, zeros after it, its space reserved on the disk.
    /// Atomic and durable: when this returns, file and name survive a power cut; after a crash in between, the file is
    /// there whole or not at all. Replaces a file of that name.
    fn create(&self, name: &str, bytes: u64, head: &[u8]) -> io::Result<Arc<dyn LogFile>>;
    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>>;
    /// Takes the name away. Handles that are open still read. Not durable before [`Files::sync_dir`] or a `create`.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes earlier removals durable.
    fn sync_dir(&self) -> io::Result<()>;
}

/// One open file. All calls block.
pub trait LogFile: Debug + Send + Sync {
    /// Fills `into` from `offset` on; an end of file in between is an error.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`. Durable only after [`LogFile::sync_data`].
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything written so far durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Current length of the file, in bytes.
    fn size_bytes(&self) -> io::Result<u64>;
}

/// Suffix of a file that is being made; it gets its name when it is whole.
const UNFINISHED: &str = ".new";
/// File whose lock says that a process has this directory open.
const LOCK: &str = "lock";

/// A directory of the machine's file system, locked for as long as this lives.
#[derive(Debug)]
pub struct DirFiles {
    path: PathBuf,
    dir: File,
    _lock: File,
}

impl DirFiles {
    /// Opens an existing directory and locks it. [`io::ErrorKind::WouldBlock`] when another process has it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let dir = File::open(path)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join(LOCK))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::Error(error) => error,
            TryLockError::WouldBlock => io::Error::new(
                io::ErrorKind::WouldBlock,
                format!("{} is in use by another process: stop it first", path.display()),
            ),
        })?;
        Ok(Self {
            path: path.to_owned(),
            dir,
            _lock: lock,
        })
    }

    fn reserve(file: &File, bytes: u64) -> io::Result<()> {
        match fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => Ok(()),
            // A file system without fallocate: zeros take the space just as well.
            Err(Errno::OPNOTSUPP) => zeros(file, bytes),
            Err(error) => Err(error.into()),
        }
    }
}

fn zeros(file: &File, bytes: u64) -> io::Result<()> {
    static BLOCK: [u8; 64 << 10] = [0; 64 << 10];
    let mut offset = 0;
    while offset < bytes {
        let part = usize::try_from(bytes - offset).map_or(BLOCK.len(), |left| left.min(BLOCK.len()));
        file.write_all_at(&BLOCK[..part], offset)?;
        offset += part as u64;
    }
    Ok(())
}

impl Files for DirFiles {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            if let Ok(name) = entry?.file_name().into_string()
                && name != LOCK
                && !name.ends_with(UNFINISHED)
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str, bytes: u64, head: &[u8]) -> io::Result<Arc<dyn LogFile>> {
        let unfinished = self.path.join(format!("{name}{UNFINISHED}"));
        // From a crash in here.
        match std::fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)?;
        Self::reserve(&file, bytes)?;
        file.write_all_at(head, 0)?;
        file.sync_all()?;
        std::fs::rename(&unfinished, self.path.join(name))?;
        self.dir.sync_all()?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path.join(name))?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.dir.sync_all()
    }
}

#[derive(Debug)]
struct DiskFile(File);

impl LogFile for DiskFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(into, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_made_whole_private_and_listed_under_its_name_alone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let files = DirFiles::open(dir.path()).expect("free");
        std::fs::write(dir.path().join("a.new"), "left by a crash").expect("writable");
        let file = files.create("a", 100_000, b"head").expect("created");
        file.write_at(99_996, b"tail").expect("inside the file");
        file.sync_data().expect("synced");
        let mut ends = [[0; 6]; 2];
        file.read_at(0, &mut ends[0]).expect("read");
        file.read_at(99_994, &mut ends[1]).expect("read");
        assert_eq!(ends, [*b"head\0\0", *b"\0\0tail"]);
        assert!(file.read_at(99_995, &mut ends[0]).is_err(), "beyond the end");
        assert_eq!(file.size_bytes().expect("measured"), 100_000);
        let mode = std::fs::metadata(dir.path().join("a"))
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(files.list().expect("listed"), ["a"]);
        files.remove("a").expect("removed");
        assert!(file.read_at(0, &mut ends[0]).is_ok(), "an open handle still reads");
        assert!(files.open("a").is_err());
    }

    #[test]
    fn zeros_stand_in_for_a_missing_fallocate() {
        let file = tempfile::tempfile().expect("a temporary file");
        zeros(&file, 150_001).expect("written");
        assert_eq!(file.metadata().expect("measured").len(), 150_001);
    }
}

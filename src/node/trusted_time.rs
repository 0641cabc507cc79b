//! The file `trusted-time` of the data directory: the highest wall time that was ever trusted.
//!
//! Eight bytes and their checksum, replaced whole. One that cannot be read counts as none: then no jump over a stop is seen, which
//! is how it was before there was a file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;
use xxhash_rust::xxh3::xxh3_64;

use crate::steady::TrustedTime;

/// Its name.
pub(super) const TRUSTED_TIME_FILE: &str = "trusted-time";

/// The file.
#[derive(Debug)]
pub(super) struct TrustedTimeFile(PathBuf);

impl TrustedTimeFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }
}

impl TrustedTime for TrustedTimeFile {
    fn load(&self) -> Option<u64> {
        let bytes = match fs::read(&self.0) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(file = %self.0.display(), %error, "the trusted time cannot be read: a jump of the clock before this start is not seen");
                return None;
            }
        };
        let time = decode(&bytes);
        if time.is_none() {
            tracing::warn!(file = %self.0.display(), "the trusted time is damaged: a jump of the clock before this start is not seen");
        }
        time
    }

    fn keep(&self, wall_ms: u64) -> BoxFuture<'_, io::Result<()>> {
        let path = self.0.clone();
        // Syncing blocks.
        let written = tokio::task::spawn_blocking(move || write(&path, wall_ms));
        Box::pin(async move { written.await.map_err(io::Error::other)? })
    }
}

fn encode(wall_ms: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&wall_ms.to_be_bytes());
    let sum = xxh3_64(&bytes[..8]);
    bytes[8..].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let wall_ms = u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?);
    (bytes == encode(wall_ms)).then_some(wall_ms)
}

fn write(path: &Path, wall_ms: u64) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&encode(wall_ms))?;
    file.sync_all()?;
    // The name need not survive a power cut: then the time before it does.
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_kept_comes_back_and_damage_is_none() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = TrustedTimeFile::new(directory.path().join(TRUSTED_TIME_FILE));
        assert_eq!(file.load(), None);
        for wall_ms in [1, 1_772_323_200_000] {
            file.keep(wall_ms).await.expect("written");
            assert_eq!(file.load(), Some(wall_ms));
        }
        let mut bytes = fs::read(&file.0).expect("there");
        bytes[3] ^= 1;
        fs::write(&file.0, &bytes[..]).expect("written");
        assert_eq!(file.load(), None);
        fs::write(&file.0, &bytes[..7]).expect("written");
        assert_eq!(file.load(), None);
    }

    #[test]
    fn bytes_are_frozen() {
        let bytes = encode(0x0102_0304_0506_0708);
        assert_eq!(bytes[..8], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(decode(&bytes), Some(0x0102_0304_0506_0708));
    }
}

//! How much room is left on the disk of the data directory, and from when on nothing new is taken.
//!
//! A disk without room ends the node, and with it what it was to do. So a part is kept for what must go on: deletes, outcomes,
//! and what log and state need to put their own files in order. Creates and updates are refused by `router/` before that part
//! is touched, and taken again once there is room. Watched by `node.rs`.

use std::fmt::Debug;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::blocking::Blocking;
use crate::metrics::Metrics;

/// Kept for what must go on: a few segments of the log, and what the state writes out at once; of a small disk a fifth.
const RESERVE_BYTES: u64 = 512 << 20;
const RESERVE_PART: u64 = 5;
/// Less than this is told; of a small disk three tenths.
const LOW_BYTES: u64 = 4 << 30;
const LOW_TENTHS: u64 = 3;
/// How often the disk is looked at while there is room.
const LOOK: Duration = Duration::from_secs(1);
/// And while there is little: what comes in between must fit into the reserve.
const LOOK_CLOSELY: Duration = Duration::from_millis(100);

const _: () = assert!(RESERVE_BYTES < LOW_BYTES);
const _: () = assert!(10 < RESERVE_PART * LOW_TENTHS);

/// What a disk says of itself, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Free for this process.
    pub free_bytes: u64,
    /// In all.
    pub total_bytes: u64,
}

/// A disk that can be asked. Blocks.
pub trait Disk: Debug + Send + Sync + 'static {
    /// The room on it now.
    fn room(&self) -> io::Result<Room>;
}

/// The disk below a directory.
#[derive(Debug)]
pub struct DiskOf(pub PathBuf);

impl Disk for DiskOf {
    fn room(&self) -> io::Result<Room> {
        let found = rustix::fs::statvfs(&self.0)?;
        Ok(Room {
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }
}

/// How much is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Level {
    Ample,
    Low,
    /// What is left is kept for what must go on.
    Reserve,
}

impl Level {
    /// The level in this room. One that was left is reached again only with a little more room: it must not come and go.
    fn of(room: Room, before: Self) -> Self {
        let reserve_bytes = reserve_bytes(room.total_bytes);
        let low_bytes = LOW_BYTES.min(room.total_bytes / 10 * LOW_TENTHS);
        let is_below = |bound: u64, level: Self| {
            let more = if before >= level { bound / 8 } else { 0 };
            room.free_bytes < bound + more
        };
        if is_below(reserve_bytes, Self::Reserve) {
            Self::Reserve
        } else if is_below(low_bytes, Self::Low) {
            Self::Low
        } else {
            Self::Ample
        }
    }
}

fn reserve_bytes(total_bytes: u64) -> u64 {
    RESERVE_BYTES.min(total_bytes / RESERVE_PART)
}

/// What is known of the room. A cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Space(Arc<AtomicU8>);

impl Space {
    /// Whether something new may be taken.
    pub fn takes_more(&self) -> bool {
        self.level() < Level::Reserve
    }

    fn level(&self) -> Level {
        let level = self.0.load(Ordering::SeqCst);
        let known = [Level::Low, Level::Reserve]
            .into_iter()
            .find(|known| *known as u8 == level);
        known.unwrap_or(Level::Ample)
    }

    /// Takes note of the room, and tells when it becomes little, or enough again.
    pub fn see(&self, room: Room, metrics: &Metrics) {
        metrics.set_disk(room.free_bytes, room.total_bytes.saturating_sub(room.free_bytes));
        let before = self.level();
        let level = Level::of(room, before);
        self.0.store(level as u8, Ordering::SeqCst);
        if level == before {
            return;
        }
        let (free_mib, reserve_mib) = (room.free_bytes >> 20, reserve_bytes(room.total_bytes) >> 20);
        match level {
            Level::Ample => tracing::info!(free_mib, "the disk of the data directory has room again"),
            Level::Low => tracing::warn!(
                free_mib,
                reserve_mib,
                "the disk of the data directory is nearly full: make room; below the reserve creates and updates are refused"
            ),
            Level::Reserve => tracing::error!(
                free_mib,
                reserve_mib,
                "the disk of the data directory is full but for the reserve: creates and updates are refused until there is room"
            ),
        }
    }

    /// Looks at the disk from time to time.
    pub async fn watch(self, disk: Arc<dyn Disk>, blocking: Arc<dyn Blocking>, metrics: Arc<Metrics>) {
        let mut is_told = false;
        loop {
            let asked = disk.clone();
            match blocking.run(move || asked.room()).await {
                Ok(room) => self.see(room, &metrics),
                Err(error) if !is_told => {
                    is_told = true;
                    tracing::warn!(%error, "the disk of the data directory does not say how much room it has");
                }
                Err(_) => {}
            }
            let is_ample = self.level() == Level::Ample;
            tokio::time::sleep(if is_ample { LOOK } else { LOOK_CLOSELY }).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn seen(space: &Space, free_bytes: u64, total_bytes: u64) -> Level {
        let room = Room {
            free_bytes,
            total_bytes,
        };
        space.see(room, &Metrics::default());
        space.level()
    }

    #[test]
    fn little_room_is_told_before_it_is_refused_on_disks_of_any_size() {
        for (total, low, reserve) in [
            (400 << 20, 119 << 20, 79 << 20),
            (10 * GIB, 3 * GIB - 1, (512 << 20) - 1),
            (2_000 * GIB, 4 * GIB - 1, (512 << 20) - 1),
        ] {
            let space = Space::default();
            assert_eq!(seen(&space, total / 2, total), Level::Ample);
            assert_eq!(seen(&space, low, total), Level::Low);
            assert!(space.takes_more());
            assert_eq!(seen(&space, reserve, total), Level::Reserve);
            assert!(!space.takes_more());
        }
    }

    #[test]
    fn room_comes_back_with_a_margin() {
        let (space, total) = (Space::default(), 100 * GIB);
        assert_eq!(seen(&space, 500 << 20, total), Level::Reserve);
        assert_eq!(seen(&space, 520 << 20, total), Level::Reserve, "not at once");
        assert_eq!(seen(&space, 600 << 20, total), Level::Low);
        assert!(space.takes_more());
        assert_eq!(seen(&space, 4 * GIB + 1, total), Level::Low, "not at once");
        assert_eq!(seen(&space, 5 * GIB, total), Level::Ample);
    }

    #[test]
    fn the_disk_of_a_directory_can_be_asked() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let room = DiskOf(directory.path().to_owned()).room().expect("a file system");
        assert!(room.total_bytes > 0 && room.free_bytes <= room.total_bytes);
        assert!(DiskOf(directory.path().join("missing")).room().is_err());
    }
}

//! One trial: what is broken where, and what came of it.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rand::RngExt;
use rand::rngs::StdRng;

use super::prepared::Prepared;
use crate::harness::image::{Image, ImageFile};
use crate::harness::node::{Ended, Place};

const SECTOR_BYTES: u64 = 512;

/// What is done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One bit is inverted.
    Flip,
    /// One sector is zeros.
    Zero,
    /// The file is cut.
    Truncate,
    /// The file is gone.
    Delete,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Flip, Self::Zero, Self::Truncate, Self::Delete];
}

/// Which sort of file it is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A segment of the log.
    Segment,
    /// The log's watermark.
    Watermark,
    /// A file of the state.
    State,
    /// The node's identity.
    Identity,
}

impl Target {
    pub const ALL: [Self; 4] = [Self::Segment, Self::Watermark, Self::State, Self::Identity];

    fn has(self, path: &Path) -> bool {
        let path = path.to_string_lossy();
        match self {
            Self::Segment => path.starts_with("log/segment-"),
            Self::Watermark => path == "log/watermark",
            Self::State => path.starts_with("state/") && !path.ends_with("lock"),
            Self::Identity => path == "identity",
        }
    }
}

/// One thing broken.
#[derive(Clone, Debug)]
pub struct Trial {
    pub kind: Kind,
    pub target: Target,
    file: PathBuf,
    /// The byte that is hit, or the length that is left.
    offset: u64,
    bit: u8,
}

/// What came of a trial.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The node did not start, and said why.
    Refused,
    /// The node served, met the damage, and ended with the reason.
    Stopped,
    /// The node serves, and everything acknowledged is there.
    Harmless,
    /// A silent loss, or a refusal that helps nobody.
    Wrong(String),
}

impl Outcome {
    /// `or`, if the end says what is wrong where and what to do about it.
    pub fn of_end(ended: &Ended, or: Self) -> Self {
        let text = &ended.stderr;
        let wrong = |what: &str| Self::Wrong(format!("{what}: {ended}"));
        if ended.status.code().is_none_or(|code| code == 0) {
            return wrong("the exit code does not say that it failed");
        }
        if text.contains("panicked") {
            return wrong("a panic is no reason");
        }
        let names = ["segment-", "watermark", "identity", "state", "group"];
        if !names.iter().any(|name| text.contains(name)) {
            return wrong("no file and no group is named");
        }
        if !text.contains("--rejoin") {
            return wrong("it does not say what to do");
        }
        or
    }
}

impl Trial {
    /// A trial of this kind, at a place drawn at random: mostly where there is data, sometimes anywhere.
    pub fn draw(image: &Image, kind: Kind, target: Target, random: &mut StdRng) -> Self {
        let files: Vec<&ImageFile> = image.files().iter().filter(|file| target.has(&file.path)).collect();
        assert!(!files.is_empty(), "the prepared directory has no file for {target:?}");
        let file = files[random.random_range(0..files.len())];
        let used: Vec<(u64, u64)> = file.used().collect();
        let offset = if used.is_empty() || random.random_range(0..5) == 0 {
            random.random_range(0..file.bytes.max(1))
        } else {
            let (start, bytes) = used[random.random_range(0..used.len())];
            start + random.random_range(0..bytes)
        };
        Self {
            kind,
            target,
            file: file.path.clone(),
            offset,
            bit: random.random_range(0..8),
        }
    }

    /// Copies the directory, breaks the copy, and starts a node on it.
    pub async fn run(&self, prepared: &Prepared) -> Outcome {
        let place = Place::new();
        prepared.image.write(&place.data());
        self.damage(&place.data());
        prepared.judge(&place).await
    }

    fn damage(&self, root: &Path) {
        let path = root.join(&self.file);
        if self.kind == Kind::Delete {
            std::fs::remove_file(path).expect("it is there");
            return;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .expect("it is there");
        let length = file.metadata().expect("it is open").len();
        match self.kind {
            Kind::Truncate => file.set_len(self.offset.min(length)).expect("the disk takes it"),
            Kind::Flip if length > 0 => {
                let mut byte = [0];
                file.read_exact_at(&mut byte, self.offset).expect("it is in the file");
                file.write_all_at(&[byte[0] ^ (1 << self.bit)], self.offset)
                    .expect("the disk takes it");
            }
            Kind::Zero => {
                let start = self.offset / SECTOR_BYTES * SECTOR_BYTES;
                let end = (start + SECTOR_BYTES).min(length);
                let zeros = vec![0; usize::try_from(end.saturating_sub(start)).expect("at most a sector")];
                file.write_all_at(&zeros, start).expect("the disk takes it");
            }
            Kind::Flip | Kind::Delete => {}
        }
    }
}

//! A data directory kept in memory, to be written out again as often as a test needs a fresh copy.
//!
//! Blocks of zeros are left out: most of a log segment is reserved space.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const BLOCK_BYTES: usize = 4096;

/// One file.
#[derive(Clone, Debug)]
pub struct ImageFile {
    /// Its path, relative to the data directory.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Blocks that hold anything but zeros, by their offset.
    blocks: Vec<(u64, Vec<u8>)>,
}

impl ImageFile {
    fn read(root: &Path, path: PathBuf) -> Self {
        let content = fs::read(root.join(&path)).expect("the file can be read");
        let offsets = (0_u64..).step_by(BLOCK_BYTES);
        let blocks = offsets.zip(content.chunks(BLOCK_BYTES));
        let used = blocks.filter(|(_, block)| block.iter().any(|byte| *byte != 0));
        Self {
            path,
            bytes: content.len() as u64,
            blocks: used.map(|(offset, block)| (offset, block.to_vec())).collect(),
        }
    }

    /// Offset and length of the parts that hold anything but zeros.
    pub fn used(&self) -> impl ExactSizeIterator<Item = (u64, u64)> + '_ {
        self.blocks.iter().map(|(offset, block)| (*offset, block.len() as u64))
    }
}

/// A data directory.
#[derive(Clone, Debug)]
pub struct Image {
    directories: Vec<PathBuf>,
    files: Vec<ImageFile>,
}

impl Image {
    /// Reads a directory that no process writes to.
    pub fn read(root: &Path) -> Self {
        let mut image = Self {
            directories: Vec::new(),
            files: Vec::new(),
        };
        image.read_into(root, Path::new(""));
        image.files.sort_by(|a, b| a.path.cmp(&b.path));
        image
    }

    fn read_into(&mut self, root: &Path, directory: &Path) {
        self.directories.push(directory.to_owned());
        for entry in fs::read_dir(root.join(directory)).expect("the directory can be read") {
            let entry = entry.expect("the directory can be read");
            let path = directory.join(entry.file_name());
            if entry.file_type().expect("it has a type").is_dir() {
                self.read_into(root, &path);
            } else {
                self.files.push(ImageFile::read(root, path));
            }
        }
    }

    /// Writes all of it below `root`.
    pub fn write(&self, root: &Path) {
        for directory in &self.directories {
            fs::create_dir_all(root.join(directory)).expect("the directory can be made");
        }
        for image in &self.files {
            let file = File::create(root.join(&image.path)).expect("the file can be made");
            file.set_len(image.bytes).expect("the disk takes it");
            for (offset, block) in &image.blocks {
                file.write_all_at(block, *offset).expect("the disk takes it");
            }
        }
    }

    /// The files, in the order of their paths.
    pub fn files(&self) -> &[ImageFile] {
        &self.files
    }
}

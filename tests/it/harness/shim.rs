//! Libraries that are loaded before the C library and change what a process sees of its machine.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds a library from its source, a path below `tests/it`, in `directory`; `None` where there is no C compiler.
pub fn build(source: &str, directory: &Path) -> Option<PathBuf> {
    let shim = directory.join("shim.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&shim)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(source))
        .output();
    let Ok(output) = built else { return None };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(shim)
}

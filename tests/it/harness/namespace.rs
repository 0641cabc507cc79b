//! Runs a test again inside fresh Linux namespaces, where it has rights of its own that nobody else feels.

use std::io::Write;
use std::process::Command;

/// Set in the process that runs inside.
const INSIDE: &str = "XCRON_TEST_NAMESPACE";

/// Whether the caller is inside and goes on. If not, the test called `test` (its full name) has been run inside by now, in a
/// process of its own whose failure is the caller's - or could not be, which is said aloud.
pub fn is_inside(unshare: &[&str], test: &str, needs: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let allowed = Command::new("unshare").args(unshare).arg("true").output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        not_run(test, needs);
        return false;
    }
    let program = std::env::current_exe().expect("a test knows its program");
    let inner = Command::new("unshare")
        .args(unshare)
        .arg(program)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("it could be run a moment ago");
    let written = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (written(&inner.stdout), written(&inner.stderr));
    assert!(
        inner.status.success() && stdout.contains("1 passed"),
        "{test}, in {unshare:?}: {}\n{stdout}\n{stderr}",
        inner.status
    );
    println!("{stdout}");
    false
}

/// Past the capture of the test's output: a test that did not run must be seen.
pub fn not_run(test: &str, needs: &str) {
    let _ = writeln!(std::io::stderr(), "NOT RUN: {test}: {needs} (doc/testing.md)");
}

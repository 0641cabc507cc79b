//! `xcron dev`: a cluster to play with loses nothing when a node is killed, and leaves nothing behind.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Far beyond what any step needs.
const PATIENCE: Duration = Duration::from_mins(2);

/// A running `xcron dev`, killed when dropped: its nodes end with it.
struct Dev {
    process: Child,
    lines: Receiver<String>,
}

impl Dev {
    fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_xcron"))
            .arg("dev")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the program starts");
        let output = BufReader::new(process.stdout.take().expect("it is a pipe"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { process, lines }
    }

    fn say(&mut self, line: &str) {
        let stdin = self.process.stdin.as_mut().expect("it is a pipe");
        writeln!(stdin, "{line}").expect("it reads");
    }

    /// The next line that contains `text`.
    fn hear(&self, text: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|error| panic!("no line with '{text}': {error}"));
            if line.contains(text) {
                return line;
            }
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The processes whose command line names `text`.
fn processes(text: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").expect("Linux shows its processes");
    entries
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("cmdline")).ok())
        .filter(|line| line.contains(text))
        .collect()
}

#[test]
fn a_node_dies_and_nothing_is_missed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let name = directory.path().to_str().expect("it is plain text").to_owned();
    let mut dev = Dev::start(&["--port", "0", "--dir", &name]);
    dev.hear("Type a command");
    assert_eq!(processes(&name).iter().filter(|line| line.contains("serve")).count(), 3);
    dev.say("l 40");
    dev.hear("40 tasks are created");
    dev.say("k 2");
    dev.hear("node 2 is killed; 2 of 3 run");
    dev.say("k 2");
    dev.hear("node 2 does not run; 'r 2' starts it");
    let log_of_one = directory.path().join("node-1.log");
    wait_for_line(&log_of_one, "a node is lost");
    dev.say("r 2");
    dev.hear("node 2 is back");
    wait_for_line(&log_of_one, "a node is back");
    let summary = loop {
        dev.say("s");
        let summary = dev.hear("tasks created: ");
        if summary.contains(" 0 still to come") {
            break summary;
        }
        std::thread::sleep(Duration::from_secs(1));
    };
    assert!(
        summary.starts_with("40 tasks created: 40 fired, 0 still to come, 0 missing, 0 early"),
        "{summary}"
    );
    // A node that cannot be ready alone holds up nothing.
    for node in 1..=3 {
        dev.say(&format!("k {node}"));
        dev.hear(&format!("node {node} is killed"));
    }
    dev.say("r 1");
    dev.hear("node 1 is started; it is not ready until 1 more runs");
    dev.say("q");
    assert!(dev.process.wait().expect("it ends").success());
    assert_eq!(processes(&name), Vec::<String>::new());
    let log = std::fs::read_to_string(log_of_one).expect("node 1 has a log");
    the_log_is_short_and_tells(&log);
}

/// Waits until a node's log has a line with `text`.
fn wait_for_line(log: &Path, text: &str) {
    const POLL: Duration = Duration::from_millis(100);
    let tries = PATIENCE.as_millis() / POLL.as_millis();
    let is_there = || std::fs::read_to_string(log).is_ok_and(|log| log.contains(text));
    let is_found = (0..tries).any(|_| {
        is_there() || {
            std::thread::sleep(POLL);
            false
        }
    });
    assert!(is_found, "no line with '{text}' in {}", log.display());
}

/// The birth of a cluster and the death of a node fit one screen, and each is there.
fn the_log_is_short_and_tells(log: &str) {
    assert!(log.lines().count() < 40, "{log}");
    for told in ["xcron starts version=", "a node is lost", "a node is back"] {
        assert!(log.lines().any(|line| line.contains(told)), "{told}:\n{log}");
    }
    // Of ids, and of nothing else in this log, a decimal number has so many digits.
    let is_decimal_id = |word: &str| word.len() > 16 && word.bytes().all(|byte| byte.is_ascii_digit());
    let words = log.split(|character: char| !character.is_alphanumeric());
    assert_eq!(
        words.filter(|word| is_decimal_id(word)).collect::<Vec<_>>(),
        Vec::<&str>::new()
    );
}

#[test]
fn nodes_end_with_a_dev_that_is_killed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let name = directory.path().to_str().expect("it is plain text").to_owned();
    let mut dev = Dev::start(&["--port", "0", "--nodes", "1", "--dir", &name]);
    dev.hear("Type a command");
    dev.process.kill().expect("it runs");
    dev.process.wait().expect("it has ended");
    for _ in 0..PATIENCE.as_secs() * 10 {
        if processes(&name).is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("left behind: {:?}", processes(&name));
}

//! The transcript in README.md, run line by line against a fresh node: what a newcomer copies must work as it stands there.

use std::process::Command;

use crate::harness::node::Place;

/// Where the README's node listens.
const README_API: &str = "http://127.0.0.1:8000";
/// Stands for any text, such as a request id or a time.
const ANYTHING: &str = "...";

#[tokio::test(flavor = "multi_thread")]
async fn the_transcript_in_the_readme_is_true() {
    let readme = include_str!("../../README.md");
    let steps = transcript(readme);
    assert!(steps.len() >= 4, "the README has a transcript: {steps:?}");
    let place = Place::new();
    let node = place.node().start().await;
    let api = format!("http://{}", node.address());
    for (command, wanted) in steps {
        let command = command.replace(README_API, &api);
        let output = Command::new("sh").arg("-c").arg(&command).output().expect("sh runs");
        let printed = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        assert!(
            matches(&wanted, &printed),
            "{command}\nprinted: {printed}\nREADME:  {wanted}"
        );
    }
}

/// The commands after `$ ` in the console block, each with the text below it.
fn transcript(readme: &str) -> Vec<(String, String)> {
    let block = readme
        .split("```console\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .unwrap_or_default();
    let steps = block.split("$ ").skip(1).filter_map(|step| step.split_once('\n'));
    steps
        .map(|(command, wanted)| (command.to_owned(), wanted.trim_end().to_owned()))
        .collect()
}

/// Whether the text is what is wanted, where `...` stands for anything.
fn matches(wanted: &str, printed: &str) -> bool {
    let parts: Vec<_> = wanted.split(ANYTHING).collect();
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else {
        return false;
    };
    let Some(mut rest) = printed.strip_prefix(first) else {
        return false;
    };
    for part in parts.iter().skip(1) {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || (parts.len() > 1 && last.is_empty())
}

#[test]
fn a_transcript_is_compared_strictly() {
    assert!(matches("a...c", "abbc"));
    assert!(matches("a...", "abbc"));
    assert!(!matches("a", "ab"));
    assert!(!matches("a...d", "abbc"));
}

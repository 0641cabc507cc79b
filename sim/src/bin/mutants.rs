//! Proof of the harness: known bugs are put into a copy of the product, and each must be found.
//!
//! A bug is a file of `sim/mutations/`: a line that says what it breaks, and texts to find and to replace. All of them go into one
//! copy, built once, behind a switch that the environment turns; the product itself knows nothing of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, ensure};
use clap::Parser;
use parking_lot::Mutex;

/// The variable that switches one bug on.
const VARIABLE: &str = "XCRON_MUTATION";
/// The module that the copy gets.
const SWITCH: &str = r#"//! Which bug is switched on.

/// Whether it is this one.
pub fn is_on(name: &str) -> bool {
    static ON: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    ON.get_or_init(|| std::env::var("XCRON_MUTATION").unwrap_or_default()) == name
}
"#;

/// What tells where no invariant does.
const SCENARIO: &str = "scenario";

/// Puts known bugs into a copy of the product, one at a time, and counts the seeds until each is found.
#[derive(Debug, Parser)]
struct Args {
    /// Most seeds for one bug
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// Runs at the same time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Only these bugs
    names: Vec<String>,
}

/// A known bug.
struct Mutation {
    name: String,
    about: String,
    /// The scenario that is to find it.
    scenario: String,
    edits: Vec<Edit>,
}

struct Edit {
    file: String,
    find: String,
    replace: String,
}

fn main() -> ExitCode {
    match prove(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn prove(args: &Args) -> anyhow::Result<()> {
    let sim = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = sim.parent().context("sim/ lies in the repository")?;
    let mutations = read(&sim.join("mutations"))?;
    let program = build(root, &mutations)?;
    let chosen = mutations
        .iter()
        .filter(|mutation| args.names.is_empty() || args.names.contains(&mutation.name));
    let chosen: Vec<_> = chosen.collect();
    ensure!(!chosen.is_empty(), "there are no such bugs in sim/mutations");
    println!(
        "{:<26} {:<34} {:>6}  {:<28} what it breaks",
        "bug", "scenario", "seeds", "found by"
    );
    let mut missed = 0;
    for mutation in &chosen {
        let found = hunt(&program, mutation, args);
        if let Some((seed, _)) = found {
            let without = breaks(&program, mutation, seed, "");
            ensure!(
                without.is_none(),
                "{}, seed {seed}: it fails without the bug as well",
                mutation.scenario
            );
        }
        missed += usize::from(found.is_none());
        let (seeds, by) = found.map_or(("-".to_owned(), "NOT FOUND".to_owned()), |(seed, by)| {
            (seed.to_string(), by)
        });
        println!(
            "{:<26} {:<34} {seeds:>6}  {by:<28} {}",
            mutation.name, mutation.scenario, mutation.about
        );
    }
    ensure!(
        missed == 0,
        "{missed} of {} bugs were not found within {} seeds",
        chosen.len(),
        args.seeds
    );
    println!("OK: {} bugs, each found", chosen.len());
    Ok(())
}

/// Reads every bug.
fn read(directory: &Path) -> anyhow::Result<Vec<Mutation>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).context("sim/mutations cannot be read")? {
        let path = entry?.path();
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let text = fs::read_to_string(&path)?;
        let parsed = parse(&text).with_context(|| format!("{} is not a bug's file", path.display()))?;
        found.push(Mutation {
            name: name.context("a file has a name")?,
            ..parsed
        });
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

fn parse(text: &str) -> Option<Mutation> {
    let mut parts = text.split("--- file ");
    let (about, scenario) = match parts.next()?.trim().split_once("\n--- scenario ") {
        Some((about, scenario)) => (about, scenario),
        None => (text.lines().next()?, "swarm"),
    };
    let edits = parts.map(|part| {
        let (file, rest) = part.split_once("\n--- find\n")?;
        let (find, replace) = rest.split_once("\n--- replace\n")?;
        Some(Edit {
            file: file.to_owned(),
            find: find.to_owned(),
            replace: replace.trim_end_matches('\n').to_owned(),
        })
    });
    Some(Mutation {
        name: String::new(),
        about: about.trim_start_matches("# ").to_owned(),
        scenario: scenario.to_owned(),
        edits: edits.collect::<Option<_>>()?,
    })
}

/// Builds the copy with all bugs in it; returns its program.
fn build(root: &Path, mutations: &[Mutation]) -> anyhow::Result<PathBuf> {
    let target = std::env::var("CARGO_TARGET_DIR").map_or_else(|_| root.join("target"), PathBuf::from);
    let tree = target.join("mutants");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    for part in [
        "Cargo.toml",
        "Cargo.lock",
        "src",
        "sim/Cargo.toml",
        "sim/Cargo.lock",
        "sim/regressions.txt",
        "sim/src",
    ] {
        copy(&root.join(part), &tree.join(part))?;
    }
    for mutation in mutations {
        for edit in &mutation.edits {
            let path = tree.join(&edit.file);
            let text = fs::read_to_string(&path)?;
            let places = text.matches(&edit.find).count();
            ensure!(
                places == 1,
                "sim/mutations/{}.txt: its text is {places} times in {}: bring it up to date with the source",
                mutation.name,
                edit.file
            );
            fs::write(&path, text.replace(&edit.find, &edit.replace))?;
        }
    }
    fs::write(tree.join("src/mutation.rs"), SWITCH)?;
    replace(
        &tree.join("src/lib.rs"),
        "pub mod net;",
        "pub mod mutation;\npub mod net;",
    )?;
    // A name of its own: it must not take the place of the program without bugs.
    let (name, lib) = ("name = \"xcron-sim\"", "name = \"xcron-mutants\"");
    let run = "default-run = \"xcron-sim\"";
    replace(&tree.join("sim/Cargo.toml"), run, "default-run = \"xcron-mutants\"")?;
    replace(&tree.join("sim/Cargo.toml"), name, lib)?;
    replace(
        &tree.join("sim/Cargo.toml"),
        "[dependencies]",
        "[lib]\nname = \"xcron_sim\"\n\n[dependencies]",
    )?;
    replace(&tree.join("sim/Cargo.lock"), name, lib)?;
    println!("building the product with {} bugs ...", mutations.len());
    let built = Command::new("cargo")
        .args([
            "build",
            "--quiet",
            "--locked",
            "--bin",
            "xcron-mutants",
            "--manifest-path",
        ])
        .arg(tree.join("sim/Cargo.toml"))
        .env("CARGO_TARGET_DIR", &target)
        .output()?;
    // Its warnings are about the bugs.
    let said = String::from_utf8_lossy(&built.stderr);
    ensure!(built.status.success(), "the product with bugs does not build:\n{said}");
    Ok(target.join("debug/xcron-mutants"))
}

fn replace(path: &Path, find: &str, with: &str) -> anyhow::Result<()> {
    let text = fs::read_to_string(path)?;
    ensure!(text.contains(find), "{} has no {find:?}", path.display());
    Ok(fs::write(path, text.replacen(find, with, 1))?)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else {
        fs::create_dir_all(to.parent().context("a file lies in a directory")?)?;
        fs::copy(from, to).with_context(|| format!("{} cannot be copied", from.display()))?;
    }
    Ok(())
}

/// The first seed that finds the bug, and the invariant that told.
fn hunt(program: &Path, mutation: &Mutation, args: &Args) -> Option<(u64, String)> {
    let next = AtomicU64::new(1);
    let found: Mutex<Option<(u64, String)>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    let is_over = found.lock().as_ref().is_some_and(|(first, _)| *first < seed);
                    if seed > args.seeds || is_over {
                        return;
                    }
                    if let Some(by) = breaks(program, mutation, seed, &mutation.name) {
                        let mut found = found.lock();
                        if found.as_ref().is_none_or(|(first, _)| seed < *first) {
                            *found = Some((seed, by));
                        }
                    }
                }
            });
        }
    });
    found.into_inner()
}

/// The invariant that a run with this bug breaks.
fn breaks(program: &Path, mutation: &Mutation, seed: u64, switched_on: &str) -> Option<String> {
    let mut command = Command::new("timeout");
    command
        .arg("120")
        .arg(program)
        .args(["--seed", &seed.to_string(), "--scenario", &mutation.scenario])
        .env(VARIABLE, switched_on);
    let output = command.output().ok()?;
    if output.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Some(teller(&text).unwrap_or("a panic, or no end").to_owned())
}

/// The first invariant that a run says is broken. That a scenario saw something says less: it counts where nothing else tells.
fn teller(text: &str) -> Option<&str> {
    let told = text
        .lines()
        .filter_map(|line| line.strip_prefix("VIOLATION ")?.split_once(':'));
    let mut tellers = told.map(|(by, _)| by);
    let first = tellers.next()?;
    if first == SCENARIO {
        return Some(tellers.find(|by| *by != SCENARIO).unwrap_or(first));
    }
    Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bug_is_read() {
        let text = "# It breaks.\n--- scenario herd\n--- file src/a.rs\n--- find\none\ntwo\n--- replace\nthree\n";
        let mutation = parse(text).expect("well formed");
        assert_eq!(
            (mutation.about.as_str(), mutation.scenario.as_str()),
            ("It breaks.", "herd")
        );
        let plain = parse("# It breaks.\n--- file a\n--- find\n1\n--- replace\n2\n").expect("well formed");
        assert_eq!((plain.about.as_str(), plain.scenario.as_str()), ("It breaks.", "swarm"));
        let edit = &mutation.edits[0];
        assert_eq!((edit.find.as_str(), edit.replace.as_str()), ("one\ntwo", "three"));
        assert!(parse("# It breaks.\n--- file src/a.rs\n").is_none());
    }

    #[test]
    fn an_invariant_tells_before_a_scenario() {
        let both = "VIOLATION scenario: a\nVIOLATION I5 delete is final: b\nVIOLATION I6 x: c\n";
        assert_eq!(teller(both), Some("I5 delete is final"));
        assert_eq!(teller("acts\nVIOLATION scenario: a\n"), Some("scenario"));
        assert_eq!(teller("thread panicked"), None);
    }

    /// Also without a build: what the bugs look for is in the source.
    #[test]
    fn every_bug_fits_the_source() {
        let sim = Path::new(env!("CARGO_MANIFEST_DIR"));
        for mutation in read(&sim.join("mutations")).expect("readable") {
            assert!(!mutation.edits.is_empty(), "{} changes nothing", mutation.name);
            for edit in &mutation.edits {
                let text = fs::read_to_string(sim.join("..").join(&edit.file)).expect("a file of the product");
                assert_eq!(text.matches(&edit.find).count(), 1, "{}: {}", mutation.name, edit.find);
            }
        }
    }
}

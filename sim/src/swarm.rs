//! Many runs, each in a process of its own (see `os.rs`), several at a time. Owns the progress bar, and the sums.

use std::collections::BTreeMap;
use std::io;
use std::process::{Command, ExitCode, Output};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;

/// States that some run of the swarm must reach, or its runs are not worth their time.
pub const SOMETIMES: &[&str] = &[
    "a retry",
    "an answer that nobody heard",
    "a group fired by a second leader",
    "a fire repeated by another leader",
    "a call of unknown outcome",
    "a create of unknown outcome was repeated",
    "a delete that races a fire",
    "an update that races a fire",
    "an update of unknown outcome was repeated",
    "an attempt that was not repeated since nobody knows of it",
    "a snapshot was received",
    "a node that its disk ended",
    "a power cut in the middle of a write",
    "damage that was refused",
    "a due while a clock was off",
    "an attempt in flight when its node died",
    "a misfire was skipped",
    "a node that joined under load",
    "a rolling restart",
    "a restart of all others while a node was away",
    "a node that left",
    "another secret",
    "an attempt withdrawn once it had connected",
    "a directory that was put back, and refused",
];
/// Failures that are printed whole.
const PRINTED_MAX: usize = 3;
/// A run that takes longer, in real time, hangs.
const RUN_SECS_MAX: u64 = 300;

/// Seeds from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeds {
    first: u64,
    last: u64,
}

impl Seeds {
    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = u64> {
        self.first..=self.last
    }

    /// One seed.
    pub fn one(seed: u64) -> Self {
        Self {
            first: seed,
            last: seed,
        }
    }
}

/// Not a range of seeds.
#[derive(Debug, PartialEq, Eq)]
pub struct NoSeeds;

impl std::error::Error for NoSeeds {}

impl std::fmt::Display for NoSeeds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("give two numbers, the first not above the second, as 1..200")
    }
}

impl FromStr for Seeds {
    type Err = NoSeeds;

    fn from_str(text: &str) -> Result<Self, NoSeeds> {
        let (first, last) = text.split_once("..").ok_or(NoSeeds)?;
        let number = |text: &str| text.parse::<u64>().map_err(|_| NoSeeds);
        let (first, last) = (number(first)?, number(last)?);
        (first <= last).then_some(Self { first, last }).ok_or(NoSeeds)
    }
}

/// What all runs came to.
#[derive(Default)]
struct Sums {
    failed: Vec<(String, u64, String)>,
    reached: BTreeMap<String, u64>,
    simulated_ms: u64,
}

/// Runs each scenario with its seed.
pub fn run(work: &[(&str, u64)], jobs: usize, twice: bool, sometimes: bool) -> ExitCode {
    let began = began();
    let bar = ProgressBar::new(work.len() as u64);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} runs, {msg} failed, {elapsed} ({eta} left)");
    bar.set_style(style.expect("a constant template"));
    bar.set_message("0");
    bar.enable_steady_tick(Duration::from_secs(1));
    let (next, sums) = (AtomicUsize::new(0), Mutex::new(Sums::default()));
    let is_stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some((name, seed)) = work.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if is_stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    judge(name, *seed, twice, &bar, &sums);
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let sums = sums.into_inner();
    report(&sums, work.len(), began.elapsed(), sometimes)
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long the runs take for people, outside every run"
)]
fn began() -> Instant {
    Instant::now()
}

fn judge(name: &str, seed: u64, twice: bool, bar: &ProgressBar, sums: &Mutex<Sums>) {
    let verdict = child(name, seed, twice).and_then(|first| {
        if !twice || !first.status.success() {
            return Ok(first);
        }
        let second = child(name, seed, twice)?;
        if first.stdout == second.stdout {
            return Ok(second);
        }
        Err(io::Error::other(difference(&first.stdout, &second.stdout)))
    });
    let mut sums = sums.lock();
    match verdict {
        Ok(output) if output.status.success() => sums.count(&String::from_utf8_lossy(&output.stdout)),
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            sums.failed
                .push((name.to_owned(), seed, String::from_utf8_lossy(&text).into_owned()));
        }
        Err(error) => sums.failed.push((name.to_owned(), seed, error.to_string())),
    }
    bar.set_message(sums.failed.len().to_string());
}

fn child(name: &str, seed: u64, twice: bool) -> io::Result<Output> {
    let mut command = Command::new("timeout");
    command.arg(RUN_SECS_MAX.to_string()).arg(std::env::current_exe()?);
    command.args(["--seed", &seed.to_string(), "--scenario", name]);
    if twice {
        command.args(["--trace", "debug"]);
    }
    command.output()
}

fn difference(first: &[u8], second: &[u8]) -> String {
    let (first, second) = (String::from_utf8_lossy(first), String::from_utf8_lossy(second));
    let same = first
        .lines()
        .zip(second.lines())
        .take_while(|(one, other)| one == other)
        .count();
    let line = |text: &str| text.lines().nth(same).unwrap_or("(the end)").to_owned();
    format!(
        "the same seed gave two traces; they differ from line {}:\n- {}\n+ {}\n",
        same + 1,
        line(&first),
        line(&second)
    )
}

impl Sums {
    fn count(&mut self, output: &str) {
        for line in output.lines() {
            if let Some(reached) = line.strip_prefix("reached ") {
                for what in reached.split("; ").filter(|what| !what.is_empty()) {
                    *self.reached.entry(what.to_owned()).or_default() += 1;
                }
            }
            let simulated = line.strip_prefix("simulated ").and_then(|rest| rest.split_once(" s,"));
            if let Some((secs, _)) = simulated {
                let ms: u64 = secs.replace('.', "").parse().unwrap_or(0);
                self.simulated_ms += ms;
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn report(sums: &Sums, runs: usize, took: Duration, sometimes: bool) -> ExitCode {
    for (name, seed, text) in sums.failed.iter().take(PRINTED_MAX) {
        println!("---- {name}, seed {seed}\n{text}");
    }
    let seeds: Vec<String> = sums
        .failed
        .iter()
        .map(|(name, seed, _)| format!("{name} {seed}"))
        .collect();
    let (wall, simulated) = (took.as_secs_f64(), sums.simulated_ms as f64 / 1e3);
    println!(
        "{runs} runs in {wall:.0} s: {:.0} a minute, {:.0} simulated seconds in a second",
        runs as f64 * 60.0 / wall,
        simulated / wall
    );
    for (what, count) in &sums.reached {
        println!("{count:>7} x {what}");
    }
    let missing: Vec<_> = SOMETIMES
        .iter()
        .filter(|what| !sums.reached.contains_key(**what))
        .collect();
    for what in missing.iter().filter(|_| sometimes) {
        println!("never reached: {what}");
    }
    if !seeds.is_empty() {
        println!("FAILED: {} of {runs}: {}", seeds.len(), seeds.join(", "));
        return ExitCode::FAILURE;
    }
    if sometimes && !missing.is_empty() {
        println!(
            "FAILED: the runs never reached {} states that make them worth their time",
            missing.len()
        );
        return ExitCode::FAILURE;
    }
    println!("OK: {runs} runs, no promise was broken");
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_range() {
        assert_eq!("3..9".parse(), Ok(Seeds { first: 3, last: 9 }));
        for bad in ["", "3", "9..3", "a..b", "1..=2"] {
            assert_eq!(bad.parse::<Seeds>(), Err(NoSeeds), "{bad}");
        }
    }

    #[test]
    fn what_a_run_says_is_counted() {
        let mut sums = Sums::default();
        sums.count("reached a; b\nsimulated 12.500 s, 3 nodes, 1 calls, 2 attempts\ntrace 00");
        sums.count("reached b\nsimulated 0.500 s, 3 nodes, 1 calls, 2 attempts\ntrace 00");
        assert_eq!(sums.simulated_ms, 13_000);
        assert_eq!(sums.reached.get("b"), Some(&2));
    }

    #[test]
    fn the_first_difference_is_told() {
        let told = difference(b"a\nb\nc", b"a\nx\nc");
        assert!(
            told.contains("from line 2") && told.contains("- b") && told.contains("+ x"),
            "{told}"
        );
    }
}

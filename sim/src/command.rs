//! The command line: one run, or many at once, each in a process of its own.
//!
//! One run ends with the lines that [`crate::swarm`] reads: what was reached, how much was simulated, and the hash of the trace.

use std::process::ExitCode;

use clap::Parser;

use crate::invariants;
use crate::scenarios::{self, Entry};
use crate::swarm::{self, Seeds};
use crate::world::{Options, Outcome, World, seconds};

/// Exit code of a run in which a promise was broken.
const BROKEN: u8 = 1;
/// Stack of the thread of a run: futures of a whole node are large without optimisation.
const STACK_BYTES: usize = 16 << 20;
/// Most violations that are printed of one run.
const PRINTED_MAX: usize = 5;

const EXAMPLES: &str = "\
Examples:
  scripts/sim.sh --seed 7                          one run of the swarm
  scripts/sim.sh --seed 7 --trace info             the same, with the nodes' logs
  scripts/sim.sh --seeds 1..2000 --jobs 2          many runs
  scripts/sim.sh --seed 7 --scenario power-cut-of-all
  scripts/sim.sh --seeds 1..10 --scenario all      every scenario with ten seeds
  scripts/sim.sh --list";

/// Runs the whole cluster on one thread from one seed, and judges what happened.
#[derive(Debug, Parser)]
#[command(name = "sim.sh", after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct Args {
    /// One run, from this seed
    #[arg(long, required_unless_present_any = ["seeds", "list", "regressions"], conflicts_with = "seeds")]
    seed: Option<u64>,
    /// A run for each of these seeds, both ends included
    #[arg(long, value_name = "A..B")]
    seeds: Option<Seeds>,
    /// Which story; `all`: each but the swarm
    #[arg(long, default_value = "swarm")]
    scenario: String,
    /// Print the nodes' logs: a level (info, debug, trace), or target=level pairs separated by commas
    #[arg(long, value_name = "FILTER", num_args = 0..=1, default_missing_value = "info")]
    trace: Option<String>,
    /// Runs at the same time, with --seeds
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// With --seeds: each seed twice, and both traces must be equal, down to every log line
    #[arg(long)]
    twice: bool,
    /// With --seeds: fail if a state that makes the runs worth their time was never reached
    #[arg(long)]
    sometimes: bool,
    /// Run the seeds that once found a bug (sim/regressions.txt)
    #[arg(long, conflicts_with_all = ["seed", "seeds", "scenario"])]
    regressions: bool,
    /// List the scenarios
    #[arg(long)]
    list: bool,
}

/// Runs the program.
pub fn run() -> ExitCode {
    let args = Args::parse();
    if args.list {
        for entry in scenarios::ALL {
            println!("{:<28} {}", entry.name, entry.about);
        }
        return ExitCode::SUCCESS;
    }
    if args.regressions {
        return regressions(args.jobs);
    }
    let chosen: Vec<&Entry> = match args.scenario.as_str() {
        "all" => scenarios::ALL.iter().filter(|entry| entry.name != "swarm").collect(),
        name => scenarios::find(name).into_iter().collect(),
    };
    if chosen.is_empty() {
        eprintln!("there is no scenario {:?}; --list names them", args.scenario);
        return ExitCode::from(2);
    }
    match (args.seed, args.seeds) {
        (Some(seed), _) if chosen.len() == 1 => one(chosen[0], seed, args.trace.as_deref()),
        (Some(seed), _) => swarm::run(&works(&chosen, Seeds::one(seed)), args.jobs, args.twice, args.sometimes),
        (None, Some(seeds)) => swarm::run(&works(&chosen, seeds), args.jobs, args.twice, args.sometimes),
        (None, None) => unreachable!("clap asks for one of them"),
    }
}

/// Every scenario with every seed.
fn works(chosen: &[&Entry], seeds: Seeds) -> Vec<(&'static str, u64)> {
    let names = chosen.iter().map(|entry| entry.name);
    names
        .flat_map(|name| seeds.iter().map(move |seed| (name, seed)))
        .collect()
}

/// Runs what is listed: a scenario and a seed a line, then what was found.
fn regressions(jobs: usize) -> ExitCode {
    let lines = include_str!("../regressions.txt").lines();
    let listed = lines.filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let read = listed.map(|line| {
        let mut words = line.split_whitespace();
        let entry = scenarios::find(words.next()?)?;
        Some((entry.name, words.next()?.parse().ok()?))
    });
    if let Some(works) = read.collect::<Option<Vec<_>>>() {
        return swarm::run(&works, jobs, false, false);
    }
    eprintln!("sim/regressions.txt: a line is not a scenario, a seed, and what was found");
    ExitCode::from(2)
}

fn one(entry: &Entry, seed: u64, trace: Option<&str>) -> ExitCode {
    if let Some(filter) = trace {
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(false)
            .with_timer(VirtualTime)
            .with_writer(std::io::stdout)
            .init();
    }
    let options = (entry.options)(seed);
    // A thread of its own: its hash maps are seeded by the run, whatever this one has done before.
    let (played, play) = (options.clone(), entry.play);
    let run = std::thread::Builder::new().stack_size(STACK_BYTES);
    let run = run
        .spawn(move || World::new(&played).play(play))
        .expect("there is room for one thread");
    let Ok(outcome) = run.join() else {
        println!("seed {} of {} panicked", options.seed, entry.name);
        return ExitCode::from(BROKEN);
    };
    if !outcome.violations.is_empty() {
        explain(entry, &options, &outcome);
    }
    println!("reached {}", outcome.reached.join("; "));
    println!(
        "simulated {:.3} s, {} nodes, {} calls, {} attempts",
        seconds(outcome.simulated_us),
        options.nodes,
        outcome.history.ops.len(),
        outcome.history.attempts.len()
    );
    println!("trace {:016x}", outcome.trace);
    if outcome.violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(BROKEN)
    }
}

/// Everything somebody needs to find out why.
fn explain(entry: &Entry, options: &Options, outcome: &Outcome) {
    println!("seed {} of {} broke a promise", options.seed, entry.name);
    let Options {
        nodes,
        groups,
        replicas,
        weather,
        rates_ppm,
        disk,
        ..
    } = options;
    println!("{nodes} nodes, {groups} groups, {replicas} copies, clocks {rates_ppm:?}\n{weather:?}\n{disk:?}");
    for line in outcome.described.iter().chain(&outcome.acts) {
        println!("{line}");
    }
    for violation in outcome.violations.iter().take(PRINTED_MAX) {
        println!("\nVIOLATION {}: {}", violation.invariant, violation.what);
        if let Some(task) = &violation.task {
            println!("history of task {task}:\n{}", invariants::story(&outcome.history, task));
        }
    }
    if outcome.violations.len() > PRINTED_MAX {
        println!("\n... and {} more", outcome.violations.len() - PRINTED_MAX);
    }
    println!(
        "\nreproduce: scripts/sim.sh --seed {} --scenario {} --trace\n",
        options.seed, entry.name
    );
}

/// Stamps log lines with virtual time.
struct VirtualTime;

impl tracing_subscriber::fmt::time::FormatTime for VirtualTime {
    fn format_time(&self, writer: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        write!(writer, "{:>9.3}", seconds(crate::os::now_us()))
    }
}

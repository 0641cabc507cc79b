//! `xcron bench`: measures nodes from outside, over the API that every client has.
//!
//! Owns the order of the phases: probes, creates, queries, callbacks, probes, report. It knows nothing of the product
//! but its wire, so it measures any build and any number of nodes the same way. Called by the command line.

mod answer;
mod args;
mod client;
mod figures;
mod interrupt;
mod ledger;
mod load;
mod probes;
mod progress;
mod query;
mod report;
mod sink;
mod wall;

#[cfg(test)]
mod tests;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::task::LocalSet;
use tokio::time::sleep;

pub use self::args::Args;
use self::args::Settings;
use self::figures::{Callbacks, Creates, Figures, Probe};
use self::interrupt::Interrupt;
use self::ledger::Ledger;
use self::progress::Progress;
use self::sink::Sink;
use self::wall::wall_us;
use super::print;
use crate::clock::Clock;

/// How long to stay after the last callback that is owed, to see repeats.
const LINGER: Duration = Duration::from_secs(1);
const EXIT_INTERRUPTED: u8 = 130;

/// Runs the bench and prints its report. The exit code is 0 if it passed, 1 if callbacks are missing or early or
/// nothing was created, 130 if it was interrupted.
pub fn run(args: Args, clock: Arc<dyn Clock>) -> anyhow::Result<ExitCode> {
    let json = args.json;
    let settings = Settings::try_from(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let figures = LocalSet::new().block_on(&runtime, async {
        measure(&settings, clock, Interrupt::on_ctrl_c()).await
    })?;
    if json {
        print(&format!("{}\n", report::json(&figures)?))?;
    } else {
        print(&format!("{}\n", report::text(&figures)))?;
    }
    Ok(match (figures.failures().is_empty(), figures.interrupted) {
        (false, _) => ExitCode::FAILURE,
        (true, true) => ExitCode::from(EXIT_INTERRUPTED),
        (true, false) => ExitCode::SUCCESS,
    })
}

/// All phases in their order; an interrupt leaves out the rest of them. Must run in a `LocalSet`.
async fn measure(settings: &Settings, clock: Arc<dyn Clock>, interrupt: Interrupt) -> anyhow::Result<Figures> {
    let ledger = Arc::new(Ledger::new(settings.tasks));
    let sink = Sink::start(settings.sink, Arc::clone(&ledger))?;
    reach_all(settings).await?;
    let before = probe(settings, &sink, &clock, &interrupt).await?;
    let mut tally = load::run(settings, sink.callback_base(), &ledger, &clock, &interrupt).await;
    let (ids, last_due_s, acked) = (std::mem::take(&mut tally.ids), tally.last_due_s, tally.acked);
    let queries = match settings.queries {
        0 => None,
        _ => Some(query::run(settings, ids, &clock, &interrupt).await),
    };
    if let Some(wait) = settings.wait {
        let until_us = last_due_s.saturating_mul(1_000_000).saturating_add(load::micros(wait));
        await_callbacks(&ledger, acked, until_us, &clock, &interrupt).await;
    }
    // Taken before the probe, so that it counts nothing that came after the wait.
    let callbacks = settings.wait.map(|_| Callbacks::of(&ledger));
    let interrupted = interrupt.happened();
    let creates = Creates::of(tally, settings.tasks);
    let figures = Figures::new(settings, creates, queries.map(Into::into), callbacks, interrupted);
    let after = probe(settings, &sink, &clock, &interrupt).await?;
    Ok(match before {
        Some(before) => figures.with_probes(before, after),
        None => figures,
    })
}

async fn reach_all(settings: &Settings) -> anyhow::Result<()> {
    for node in &settings.nodes {
        let reached = client::reach(node).await.map_err(anyhow::Error::msg);
        reached.with_context(|| {
            let authority = &node.authority;
            format!("no node takes connections at {authority}; start one, or name another with --api")
        })?;
    }
    Ok(())
}

async fn probe(
    settings: &Settings,
    sink: &Sink,
    clock: &Arc<dyn Clock>,
    interrupt: &Interrupt,
) -> anyhow::Result<Option<Probe>> {
    match &settings.probe_dir {
        Some(dir) if !interrupt.happened() => probes::run(settings, dir, sink, clock).await.map(Some),
        _ => Ok(None),
    }
}

/// Waits until every acknowledged task was called and a little longer, or until `until_us` since the epoch.
async fn await_callbacks(ledger: &Ledger, acked: u64, until_us: u64, clock: &Arc<dyn Clock>, interrupt: &Interrupt) {
    let mut progress = Progress::new("callbacks", acked, clock);
    while !interrupt.happened() && wall_us() < until_us {
        // Going through all tasks is worth it only when enough calls have come; calls of unknown creates count too.
        if ledger.tasks_called() >= acked && ledger.counts().missing == 0 {
            tokio::select! {
                () = sleep(LINGER) => {}
                () = interrupt.wait() => {}
            }
            break;
        }
        tokio::select! {
            () = sleep(Progress::TICK) => progress.show(ledger.tasks_called(), ""),
            () = interrupt.wait() => {}
        }
    }
    progress.finish(ledger.tasks_called());
}

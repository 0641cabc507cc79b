//! Shows how far a phase is, on stderr: a bar on a terminal, else a line every few seconds.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::super::complain;
use super::report::thousands;
use crate::clock::Clock;

const LINE_EVERY: Duration = Duration::from_secs(5);

/// The progress of one phase.
#[derive(Debug)]
pub struct Progress {
    label: &'static str,
    total: u64,
    /// `None` if stderr is no terminal.
    bar: Option<ProgressBar>,
    clock: Arc<dyn Clock>,
    last_line: Duration,
}

impl Progress {
    /// How often a phase should call [`Progress::show`].
    pub const TICK: Duration = Duration::from_millis(100);

    /// Begins a phase of `total` steps.
    pub fn new(label: &'static str, total: u64, clock: &Arc<dyn Clock>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let template = "{prefix:>10} [{bar:40}] {human_pos}/{human_len} {per_sec} {msg}";
            let style = ProgressStyle::with_template(template).expect("the template is a valid constant");
            bar.set_style(style);
            bar.set_prefix(label);
            bar
        });
        Self {
            label,
            total,
            bar,
            clock: Arc::clone(clock),
            last_line: clock.monotonic(),
        }
    }

    /// `done` steps are done; `note` is shown beside them.
    pub fn show(&mut self, done: u64, note: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(note.to_owned());
        } else if self.clock.monotonic().saturating_sub(self.last_line) >= LINE_EVERY {
            self.line(done, note);
        }
    }

    /// The phase is over.
    pub fn finish(&mut self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.abandon();
        } else {
            self.line(done, "");
        }
    }

    fn line(&mut self, done: u64, note: &str) {
        self.last_line = self.clock.monotonic();
        complain(&format!(
            "{}: {} of {} {note}",
            self.label,
            thousands(done),
            thousands(self.total)
        ));
    }
}

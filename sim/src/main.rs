//! The simulation's program.

use std::process::ExitCode;

fn main() -> ExitCode {
    xcron_sim::command::run()
}

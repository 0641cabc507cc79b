//! The one integration binary: the program as its users meet it.

#![allow(clippy::print_stdout, reason = "what a failing test has to tell")]

mod cli;
mod clock;
mod cluster;
mod damage;
mod defaults;
mod delivery;
mod dev;
mod disk;
mod firing;
mod harness;
mod kill;
mod linear;
mod memory;
mod power;
mod process;
mod readme;
mod targets;

//! The one integration binary: the program as its users meet it.

mod cli;
mod damage;
mod disk;
mod firing;
mod harness;
mod kill;
mod memory;
mod readme;

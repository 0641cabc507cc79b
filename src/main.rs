//! The `xcron` program.
fn main() {}

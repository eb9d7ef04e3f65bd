//! Commands for those who work on Ropeway.

fn main() {}

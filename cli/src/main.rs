//! The program `ropeway`.

fn main() {}

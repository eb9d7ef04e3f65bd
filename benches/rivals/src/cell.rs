//! The list of cells: what is measured beside what, and the target.
//!
//! Not here: the work itself (`arms/`), the interleaving (`rounds.rs`).

use crate::{
    Result,
    arms::{Against, Publish},
    rounds::{Plan, Turn},
};
use std::path::Path;

/// Two who do the same work in turns.
pub(crate) trait Pair {
    /// Ropeway's turn, in an empty directory.
    fn ours(&mut self, dir: &Path) -> Result<Turn>;
    /// The rival's turn, in an empty directory.
    fn rival(&mut self, dir: &Path) -> Result<Turn>;
}

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Cell {
    /// How it is chosen.
    pub(crate) name: &'static str,
    /// What ours does, and what the rival.
    pub(crate) what: &'static str,
    /// The least ratio of messages a second.
    pub(crate) target: f64,
    /// Makes the two.
    pub(crate) pair: fn(&Plan) -> Box<dyn Pair>,
}

/// All of them, in the order in which they run.
pub(crate) const CELLS: &[Cell] = &[
    Cell {
        name: "publish-64-fjall",
        what: "1 KiB messages, 64 at once, each acked when synced; a bare fjall loop with batches of the same size",
        target: 0.85,
        pair: |plan| Publish::pair(plan, 64, 60_000, Against::Fjall),
    },
    Cell {
        name: "publish-1024-fjall",
        what: "1 KiB messages, 1,024 at once, each acked when synced; a bare fjall loop with batches of the same size",
        target: 0.85,
        pair: |plan| Publish::pair(plan, 1024, 200_000, Against::Fjall),
    },
    Cell {
        name: "publish-1-file",
        what: "1 KiB messages, one at a time, each acked when synced; write and fdatasync of the same bytes",
        target: 0.85,
        pair: |plan| Publish::pair(plan, 1, 6_000, Against::File),
    },
    Cell {
        name: "publish-64-redb",
        what: "1 KiB messages, 64 at once, each acked when synced; redb, a transaction for each 64",
        target: 1.5,
        pair: |plan| Publish::pair(plan, 64, 60_000, Against::Redb),
    },
    Cell {
        name: "publish-1024-redb",
        what: "1 KiB messages, 1,024 at once, each acked when synced; redb, a transaction for each 1,024",
        target: 1.5,
        pair: |plan| Publish::pair(plan, 1024, 100_000, Against::Redb),
    },
    Cell {
        name: "publish-64-sqlite",
        what: "1 KiB messages, 64 at once, each acked when synced; SQLite (WAL, synchronous=FULL), a transaction for each 64",
        target: 2.0,
        pair: |plan| Publish::pair(plan, 64, 60_000, Against::Sqlite),
    },
    Cell {
        name: "publish-1024-sqlite",
        what: "1 KiB messages, 1,024 at once, each acked when synced; SQLite (WAL, synchronous=FULL), a transaction for each 1,024",
        target: 2.0,
        pair: |plan| Publish::pair(plan, 1024, 100_000, Against::Sqlite),
    },
];

/// The list of cells, for `--help`.
pub(crate) fn help() -> String {
    let mut text = String::from("Cells (ours; the rival):\n");
    for cell in CELLS {
        text += &format!("  {:<20} {} (>= {})\n", cell.name, cell.what, cell.target);
    }
    text += "\nExit codes: 0 done, 1 failed, 2 wrong usage, 3 a target is missed (with --assert)";
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_help_has_them_all() {
        let help = help();
        for (at, cell) in CELLS.iter().enumerate() {
            assert!(help.contains(cell.name) && help.contains(cell.what));
            assert!(CELLS[at + 1..].iter().all(|other| other.name != cell.name), "{}", cell.name);
        }
    }
}

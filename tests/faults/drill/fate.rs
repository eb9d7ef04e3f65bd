//! What became of a message, as far as the history says.
//!
//! Not here: what follows of it (`judge.rs`).

use super::judge::Place;

/// What became of a message.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fate {
    pub(super) publisher: u32,
    pub(super) invoked: u64,
    pub(super) answered: u64,
    /// Where it lies, unless the ack did not say so; and what that survives.
    pub(super) acked: Option<(Option<Place>, u8)>,
    pub(super) refused: bool,
    pub(super) unknown: bool,
    /// Its first completion: how many things had happened by then (`None`: a fault went on), and whether it was rejected.
    pub(super) completed: Option<(Option<u64>, bool)>,
    pub(super) settled: Option<u64>,
    pub(super) dead: u32,
    pub(super) rejections: u32,
    pub(super) places: u32,
    /// It lies where the ack says.
    pub(super) met: bool,
}

impl Fate {
    pub(super) const fn is_answered(&self) -> bool {
        self.acked.is_some() || self.refused || self.unknown
    }
}

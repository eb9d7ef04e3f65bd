//! What is printed: data on stdout ([`Out`]), everything else on stderr ([`Notes`], [`Progress`]).

pub(crate) mod message;
mod notes;
mod out;
mod progress;
pub(crate) mod table;

pub(crate) use notes::{Notes, colored, visible};
pub(crate) use out::Out;
pub(crate) use progress::Progress;
pub(crate) use table::{Row, or_dash};

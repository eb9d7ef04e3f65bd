//! What is printed: data on stdout ([`Out`]), everything else on stderr ([`Notes`]).

mod notes;
mod out;

pub(crate) use notes::Notes;
pub(crate) use out::Out;

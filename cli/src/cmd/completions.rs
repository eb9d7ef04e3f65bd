//! `ropeway completions SHELL`: a script that completes the program's words.

use crate::{args::Cli, failure::Failure, output::Out};
use clap::CommandFactory;
use clap_complete::Shell;

/// What `completions` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// Where stdout does not take it.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ropeway", &mut script);
    let mut out = Out::stdout();
    out.bytes(&script)?;
    out.flush()
}

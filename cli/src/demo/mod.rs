//! `ropeway demo`: the main job on real records.

mod fault;
mod ledger;
mod order;
mod record;
mod source;
mod totals;

use crate::{failure::Failure, session::Session};

/// What `demo` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Start anew: forget what an earlier run left
    #[arg(long)]
    pub(crate) reset: bool,
}

/// Runs the demo.
///
/// # Errors
/// Those of the broker.
pub(crate) async fn run(args: Args, session: &mut Session) -> Result<(), Failure> {
    let broker = session.broker().await?;
    session.notes.say(&format!("connected to {} (reset: {})", broker.capabilities().backend, args.reset));
    Ok(())
}

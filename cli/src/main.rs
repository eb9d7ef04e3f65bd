//! The program `ropeway`: the only place that turns settings into objects.
//!
//! Here: start, and the way out with an exit code. Not here: the grammar (`args.rs`), one verb each (`cmd/`), the main job on real
//! records (`demo/`), settings and their origins (`settings/`), what is printed and how (`output/`).

mod args;
mod cmd;
mod demo;
mod exit;
mod failure;
mod listen;
mod offset;
mod opening;
mod output;
mod session;
mod settings;
mod stop;
mod time;

use args::{Cli, Command, OnBus};
use clap::{
    Parser,
    error::{ContextKind, ContextValue},
};
use exit::Exit;
use failure::Failure;
use output::Notes;
use session::{Failures, Session};
use settings::Sources;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(mut error) => {
            shorten(&mut error);
            // Nothing can be done about a stderr that does not take it.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok }.into();
        }
    };
    let notes = Notes::new(&cli.globals);
    match start(cli, &notes) {
        Ok(exit) => exit,
        Err(failure) => {
            notes.failure(&failure);
            failure.exit()
        }
    }
    .into()
}

/// What was given is repeated in the error, and may be large.
fn shorten(error: &mut clap::Error) {
    const MOST: usize = 100;
    if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue)
        && value.chars().count() > MOST
    {
        let start: String = value.chars().take(MOST).collect();
        error.insert(ContextKind::InvalidValue, ContextValue::String(start + "..."));
    }
}

fn start(cli: Cli, notes: &Notes) -> Result<Exit, Failure> {
    let sources = Sources::of_process(&cli.globals.config, cli.globals.flags());
    let command = match cli.command {
        Command::OnBus(command) => command,
        Command::Config { verb } => return cmd::config::run(&verb, &cli.globals, sources.load(), notes),
        Command::Completions(args) => return cmd::completions::run(&args).map(|()| Exit::Ok),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("could not start the runtime").caused_by(&error))?;
    let done = runtime.block_on(async {
        let demo = matches!(command, OnBus::Demo(_));
        let failures = if demo { Failures::Expected } else { Failures::Told };
        let mut session = Session::start(&cli.globals, sources.load(), failures)?;
        let done = Box::pin(run(command, &mut session)).await.map_err(|failure| session.named(failure));
        let end = session.end().await;
        done.and(end).map(|()| session.stop.exit())
    });
    // A read of stdin that nobody waits for any more must not hold the program.
    runtime.shutdown_background();
    done
}

async fn run(command: OnBus, session: &mut Session) -> Result<(), Failure> {
    match command {
        OnBus::Demo(args) => demo::run(args, session).await,
        OnBus::Topic { verb } => cmd::topic::run(verb, session).await,
        OnBus::Pub(args) => cmd::publish::run(*args, session).await,
        OnBus::Sub(args) => cmd::subscribe::run(args, session).await,
        OnBus::Group { verb } => cmd::group::run(verb, session).await,
        #[cfg(feature = "embedded")]
        OnBus::Data { verb } => cmd::directory::run(verb, session).await,
        OnBus::Dlq { verb } => cmd::dlq::run(verb, session).await,
        OnBus::Doctor(args) => cmd::doctor::run(args, session).await,
        OnBus::Bench { verb } => Box::pin(cmd::bench::run(*verb, session)).await,
    }
}

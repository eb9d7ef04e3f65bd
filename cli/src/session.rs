//! One run of the program: its settings, where it prints, how it stops, and the broker it opened.

use crate::{
    args::Globals,
    exit::Exit,
    failure::Failure,
    output::{Notes, Out},
    settings::{Loaded, Settings, Sources},
    stop::Stop,
};
use ropeway_broker::MessageBroker;
use std::sync::Arc;

/// What a verb works with.
#[derive(Debug)]
pub(crate) struct Session {
    /// The settings in force.
    pub(crate) settings: Settings,
    /// Stdout.
    pub(crate) out: Out,
    /// Stderr.
    pub(crate) notes: Notes,
    /// Whether it should stop.
    pub(crate) stop: Stop,
    loaded: Loaded,
    broker: Option<Arc<dyn MessageBroker>>,
}

impl Session {
    /// Reads settings and watches signals.
    ///
    /// # Errors
    /// A wrong setting.
    pub(crate) fn start(globals: &Globals) -> Result<Self, Failure> {
        let loaded = Sources::of_process(&globals.config, globals.flags()).load().check()?;
        let settings = loaded.settings.clone();
        let notes = Notes::of(&settings);
        let stop = Stop::watch(notes.clone())
            .map_err(|error| Failure::new("could not watch for Ctrl-C").caused_by(&error))?;
        Ok(Self { settings, out: Out::stdout(), notes, stop, loaded, broker: None })
    }

    /// The broker of the settings, opened at the first call.
    ///
    /// # Errors
    /// A wrong URL (78), a broker that cannot be reached (69), or one out of time (5).
    pub(crate) async fn broker(&mut self) -> Result<Arc<dyn MessageBroker>, Failure> {
        if let Some(broker) = &self.broker {
            return Ok(broker.clone());
        }
        let url = &self.settings.broker.url;
        let wait = self.settings.time.request;
        let opened =
            tokio::time::timeout(wait, ropeway_broker::connect(url.reveal())).await.map_err(|_| {
                Failure::new(format!("the broker {url} did not open within {wait:?}")).exits(Exit::Partial)
            })?;
        let broker = opened.map_err(|error| {
            let exit = Exit::of_connecting(error.kind());
            let origin = self.loaded.origin("broker.url");
            Failure::from(error)
                .exits(exit)
                .hint(format!("the broker is {url} ({origin}); --broker URL names another"))
        })?;
        self.broker = Some(broker.clone());
        Ok(broker)
    }

    /// Ends in order: what was printed is out, the broker is closed.
    ///
    /// # Errors
    /// Where stdout does not take the rest.
    pub(crate) async fn end(&mut self) -> Result<(), Failure> {
        let flushed = self.out.flush();
        if let Some(broker) = self.broker.take() {
            broker.close(self.settings.time.stop).await;
        }
        flushed
    }
}

//! One run of the program: its settings, where it prints, how it stops, and the broker it opened.
//!
//! Not here: where settings come from (`settings/`), what is served over HTTP meanwhile (`listen.rs`).

use crate::{
    args::Globals,
    exit::Exit,
    failure::{self, Failure},
    listen, opening,
    output::{Notes, Out},
    settings::{Format, Level, Loaded, Origin, Settings},
    stop::Stop,
};
use prometheus::Registry;
use ropeway_broker::{BrokerUrl, ErrorKind, MessageBroker, wrap::Meter};
use std::{
    io::{BufRead, IsTerminal},
    sync::Arc,
    time::Duration,
};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

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
    /// What `/metrics` shows.
    pub(crate) metrics: Registry,
    yes: bool,
    loaded: Loaded,
    broker: Option<Arc<dyn MessageBroker>>,
}

impl Session {
    /// Takes the settings, watches signals, and logs to stderr.
    ///
    /// # Errors
    /// A wrong setting.
    pub(crate) fn start(globals: &Globals, loaded: Loaded, failures: Failures) -> Result<Self, Failure> {
        let loaded = loaded.check()?;
        let settings = loaded.settings.clone();
        let notes = Notes::of(&settings);
        let told = failures == Failures::Told || *loaded.origin("output.log") != Origin::Default;
        log(settings.output.log, told, &notes);
        let stop = Stop::watch(notes.clone())
            .map_err(|error| Failure::new("could not watch for Ctrl-C").caused_by(&error))?;
        let (out, metrics) = (Out::stdout(), Registry::new());
        Ok(Self { settings, out, notes, stop, metrics, yes: globals.yes, loaded, broker: None })
    }

    /// The broker of the settings, opened at the first call; from then on metrics and health are served, where asked for.
    ///
    /// # Errors
    /// A wrong URL (78), a broker that cannot be reached (69) or is out of time (5), an address that cannot be listened on (78).
    pub(crate) async fn broker(&mut self) -> Result<Arc<dyn MessageBroker>, Failure> {
        if let Some(broker) = &self.broker {
            return Ok(broker.clone());
        }
        let address = &self.settings.broker.url;
        let wait = self.settings.time.request;
        // Boxed, since all that waits for it would be as long.
        let opening = Box::pin(opening::open(address, &self.settings.kafka));
        let opened = tokio::time::timeout(wait, opening).await;
        let mut broker = opened.map_err(|_| out_of_time("open the broker", wait))?.map_err(|error| {
            let exit = Exit::of_connecting(error.kind());
            let origin = self.loaded.origin("broker.url");
            let hint = match BrokerUrl::parse(address.reveal()) {
                Ok(url) if error.kind() == ErrorKind::Corrupt && url.scheme == "embedded" => {
                    failure::damaged(&url.path)
                }
                _ => match self.settings.kafka.named_in(&error.to_string()) {
                    Some(set) if error.kind() == ErrorKind::Invalid => {
                        format!("{set}; the broker is {address} ({origin})")
                    }
                    _ => format!("the broker is {address} ({origin}); --broker URL names another"),
                },
            };
            Failure::from(error).exits(exit).hint(hint)
        })?;
        if let Some(address) = self.settings.http.listen.0 {
            broker = Meter::around(broker, &self.metrics)?;
            let serving = listen::serve(address, broker.clone(), self.metrics.clone()).await?;
            self.notes.say(&format!("serving /metrics, /healthz and /readyz on http://{serving}"));
        }
        self.broker = Some(broker.clone());
        Ok(broker)
    }

    /// A failure of the broker says on which server it happened, or in which directory, unless it does already or there is something better to say.
    pub(crate) fn named(&self, failure: Failure) -> Failure {
        let address = &self.settings.broker.url;
        let (Some(kind), Some(_), None) = (failure.of_broker(), &self.broker, failure.advice()) else {
            return failure;
        };
        if kind == ErrorKind::Corrupt
            && let Ok(url) = BrokerUrl::parse(address.reveal())
            && url.scheme == "embedded"
        {
            return failure.hint(failure::damaged(&url.path));
        }
        if !matches!(failure.exit(), Exit::Error | Exit::Partial | Exit::Unreachable) {
            return failure;
        }
        let Some(servers) = servers_of(address.reveal()) else { return failure };
        if [failure.what()]
            .into_iter()
            .chain(failure.causes().iter().map(String::as_str))
            .any(|told| told.contains(servers))
        {
            return failure;
        }
        failure.hint(format!("the broker is {address} ({})", self.loaded.origin("broker.url")))
    }

    /// The time a request may take.
    pub(crate) const fn request(&self) -> Duration {
        self.settings.time.request
    }

    /// Whether a setting was given by a flag.
    pub(crate) fn by_flag(&self, key: &str) -> bool {
        self.loaded.by_flag(key)
    }

    /// The form of what is printed.
    pub(crate) const fn format(&self) -> Format {
        self.settings.output.format
    }

    /// Whether `--yes` was given.
    pub(crate) const fn is_yes(&self) -> bool {
        self.yes
    }

    /// Asks before something is destroyed; `what` is the whole question without its mark.
    ///
    /// # Errors
    /// Nobody agreed, or nobody can be asked (2).
    pub(crate) async fn confirm(&self, what: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            let refused = format!("this needs somebody to agree: {what}?");
            return Err(Failure::usage(refused).hint("say --yes where nobody can be asked"));
        }
        self.notes.ask(&format!("{what}? [y/N] "));
        let answer = tokio::task::spawn_blocking(|| {
            let mut answer = String::new();
            std::io::stdin().lock().read_line(&mut answer).map(|_| answer)
        });
        let answer = tokio::select! {
            biased;
            () = self.stop.asked() => return Err(Failure::new("nothing was done").exits(self.stop.exit())),
            answer = answer => answer.map_err(std::io::Error::other).flatten(),
        };
        let answer = answer.map_err(|error| Failure::new("could not read the answer").caused_by(&error))?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(Failure::usage("nothing was done: the answer was not yes")),
        }
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

/// Waits for an answer of the broker, to `doing`, no longer than `wait`.
///
/// # Errors
/// Those of the broker; out of time (5).
pub(crate) async fn within<T>(
    wait: Duration,
    doing: &str,
    answer: impl Future<Output = ropeway_broker::Result<T>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(wait, answer).await {
        Ok(answered) => answered.map_err(Failure::from),
        Err(_) => Err(out_of_time(doing, wait)),
    }
}

/// The failure of an answer that did not come in time (5).
pub(crate) fn out_of_time(doing: &str, wait: Duration) -> Failure {
    let wait = humantime::format_duration(wait);
    Failure::new(format!("could not {doing}: no answer within {wait}"))
        .exits(Exit::Partial)
        .hint("--timeout allows more time; what was asked may have been done all the same")
}

/// Whether failures of handlers are logged where nothing was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failures {
    /// One by one.
    Told,
    /// Not at all: the verb makes them itself, and tells them in sum.
    Expected,
}

/// What is logged, by who says it.
fn targets(level: Level, failures: bool) -> Targets {
    let level = match level {
        Level::Error => tracing::Level::ERROR,
        Level::Warn => tracing::Level::WARN,
        Level::Info => tracing::Level::INFO,
        Level::Debug => tracing::Level::DEBUG,
        Level::Trace => tracing::Level::TRACE,
    };
    let of_handlers = if failures { level } else { tracing::Level::ERROR };
    // What libraries find worth saying is for those who want to see everything.
    let others = if level == tracing::Level::TRACE { level } else { level.min(tracing::Level::WARN) };
    // What these have to say the broker tells in its own errors, with what to do.
    let of_those_below =
        if level >= tracing::Level::INFO { LevelFilter::from_level(others) } else { LevelFilter::OFF };
    Targets::new()
        .with_default(others)
        .with_target("fjall", of_those_below)
        .with_target("librdkafka", of_those_below)
        .with_target("lsm_tree", of_those_below)
        .with_target("rdkafka", of_those_below)
        .with_target("ropeway", level)
        .with_target("ropeway_processor", of_handlers)
}

fn log(level: Level, failures: bool, notes: &Notes) {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(notes.is_colored())
        .with_target(false)
        .with_filter(targets(level, failures));
    let subscriber = tracing_subscriber::registry().with(lines);
    // A second session of one process (a test) keeps the first one's log.
    let _ = subscriber.try_init();
}

/// What errors of the bus call the servers of a URL; `None` where it names none.
fn servers_of(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let rest = rest.split('?').next()?.rsplit('@').next()?;
    match rest.split('/').next() {
        // A socket.
        None | Some("") => Some(rest),
        servers => servers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_of_a_url_are_what_errors_call_them() {
        for (url, servers) in [
            ("redis://:secret@h:1/2?prefix=p", Some("h:1")),
            ("redis+sentinel://h:1,h:2/main", Some("h:1,h:2")),
            ("redis+cluster://h:1,h:2?lease=3s", Some("h:1,h:2")),
            ("unix:///run/redis.sock?db=1", Some("/run/redis.sock")),
            ("memory:", None),
        ] {
            assert_eq!(servers_of(url), servers, "{url}");
        }
    }

    #[test]
    fn what_brokers_are_made_of_is_heard_with_verbose_only() {
        for (level, heard) in [(Level::Error, false), (Level::Warn, false), (Level::Info, true)] {
            for target in ["fjall::journal::writer", "librdkafka", "lsm_tree::tree", "rdkafka::client"] {
                let told = targets(level, true).would_enable(target, &tracing::Level::ERROR);
                assert_eq!(told, heard, "{target} at {level:?}");
            }
            assert!(targets(level, true).would_enable("ropeway_broker", &tracing::Level::ERROR));
        }
    }
}

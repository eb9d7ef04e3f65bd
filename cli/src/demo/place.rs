//! Where the demo's things are: topics, group, ledger.

use super::{audit, books::Books, ledger::Ledger};
use crate::{
    cmd::scan::{Found, scan},
    failure::Failure,
    stop::Stop,
};
use ropeway_broker::{
    BrokerUrl, Error, ErrorKind, Group, Message, MessageBroker, Result, Start, Topic, TopicSpec,
};
use std::{collections::BTreeSet, io, ops::ControlFlow, path::PathBuf, time::Duration};
use tokio::time::{Instant, sleep};

/// Where the demo's things are.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) topic: Topic,
    pub(crate) group: Group,
    pub(crate) dead_letters: Topic,
    /// `None`: the broker forgets everything with the process, and so does the demo.
    ledger: Option<PathBuf>,
}

const PARTITIONS: u32 = 8;
const LEDGER: &str = "demo.ledger";
/// How long a reset waits for members of an earlier run: beyond the default session of a member of Kafka (30 s).
const LEAVING: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);
/// How long each answer of the broker may take while a topic is read.
const ANSWER: Duration = Duration::from_secs(30);

impl Place {
    /// For the broker of that URL: the ledger lies in the directory of an embedded one, and in `./.ropeway` for a server.
    ///
    /// # Errors
    /// `Invalid` for a URL that is none.
    pub(crate) fn of(url: &str) -> Result<Self> {
        let (topic, group) = (Topic::new("demo.strikes")?, Group::new("demo")?);
        let url = BrokerUrl::parse(url)?;
        let ledger = match url.scheme.as_str() {
            "memory" => None,
            "embedded" => Some(PathBuf::from(url.path).join(LEDGER)),
            _ => Some(PathBuf::from("./.ropeway").join(LEDGER)),
        };
        Ok(Self { dead_letters: topic.dead_letters_of(&group), topic, group, ledger })
    }

    /// Deletes what earlier runs left, and nothing else. Kafka keeps members that have names until their session is over, also of a run that ended
    /// in order: they are waited for, and `tell` is told so.
    ///
    /// # Errors
    /// Those of the broker and of the file system; where it is to stop meanwhile.
    pub(crate) async fn reset(
        &self,
        broker: &dyn MessageBroker,
        stop: &Stop,
        tell: impl Fn(&str),
    ) -> Result<(), Failure> {
        let admin = broker.admin();
        let until = Instant::now() + LEAVING;
        let mut told = false;
        while let Err(error) = gone(admin.delete_group(&self.group).await) {
            let stays = broker.capabilities().backend == "kafka" && error.kind() == ErrorKind::Conflict;
            if !stays || Instant::now() >= until {
                return Err(error.into());
            }
            if !std::mem::replace(&mut told, true) {
                let most = humantime::format_duration(LEAVING);
                tell(&format!(
                    "waiting, at most {most}, until Kafka lets members of an earlier run go: {error}"
                ));
            }
            tokio::select! {
                biased;
                () = stop.asked() => return Err(Failure::new("nothing was deleted").exits(stop.exit())),
                () = sleep(PAUSE) => {}
            }
        }
        gone(admin.delete_topic(&self.topic).await)?;
        gone(admin.delete_topic(&self.dead_letters).await)?;
        match self.ledger.as_deref().map(std::fs::remove_file) {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(self.ledger_failure(&error)),
            _ => Ok(()),
        }
    }

    /// Makes the topics, where they are not there.
    ///
    /// # Errors
    /// Those of the broker.
    pub(crate) async fn prepare(&self, broker: &dyn MessageBroker) -> Result<()> {
        for topic in [&self.topic, &self.dead_letters] {
            match broker.admin().create_topic(topic, TopicSpec::partitions(PARTITIONS)).await {
                Err(error) if error.kind() != ErrorKind::Exists => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Opens the ledger, and the books from it. Call it while the broker is open: who has the directory has the ledger.
    ///
    /// # Errors
    /// Those of the file system, and where the file is no ledger.
    pub(crate) fn open_ledger(&self) -> Result<(Ledger, Books), Failure> {
        let Some(path) = &self.ledger else {
            return Ok((Ledger::nowhere(), Books::default()));
        };
        let opened = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| Ledger::open(path));
        let (ledger, entries) = opened.map_err(|error| self.ledger_failure(&error))?;
        let mut books = Books::default();
        for entry in &entries {
            books.enter(entry);
        }
        Ok((ledger, books))
    }

    /// The numbers of the reports in the log.
    ///
    /// # Errors
    /// Those of the broker.
    pub(crate) async fn logged(&self, broker: &dyn MessageBroker) -> Result<BTreeSet<u64>, Failure> {
        let mut logged = BTreeSet::new();
        read(broker, &self.topic, |message| logged.extend(audit::number(message))).await?;
        Ok(logged)
    }

    /// Three commands to try next, as they can be typed: with the program as it was called and the broker that was used.
    pub(crate) fn next(&self, program: &str, broker: &str) -> Vec<String> {
        const DEFAULT: &str = "embedded:./.ropeway";
        if self.ledger.is_none() {
            // Nothing is left to look at.
            return vec![format!("{program} demo"), format!("{program} help")];
        }
        let broker = if broker == DEFAULT { String::new() } else { format!(" --broker {broker}") };
        let command = |rest: String| format!("{program} {rest}{broker}");
        vec![
            command(format!("dlq list {}", self.dead_letters)),
            command(format!("group lag {}", self.group)),
            command(format!("sub {} --until end --count 5", self.topic)),
        ]
    }

    /// The failure for an error of the ledger.
    pub(crate) fn ledger_failure(&self, error: &io::Error) -> Failure {
        let path = self.ledger.as_deref().unwrap_or_else(|| LEDGER.as_ref()).display();
        Failure::new(format!("the demo's ledger {path} cannot be used"))
            .caused_by(error)
            .hint("`demo --reset` starts anew")
    }
}

/// Shows all messages of a topic, as it is now.
///
/// # Errors
/// Those of the broker.
pub(crate) async fn read(
    broker: &dyn MessageBroker,
    topic: &Topic,
    mut see: impl FnMut(&Message),
) -> Result<(), Failure> {
    let visit = |_: &_, found: Found<'_>| {
        if let Found::Message(delivery) = found {
            see(&delivery.message);
        }
        ControlFlow::Continue(())
    };
    scan(broker, topic, None, Start::Earliest, ANSWER, visit).await
}

/// What was not there is gone as well.
fn gone(done: Result<()>) -> Result<(), Error> {
    match done {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

//! Waiting in a cluster until something comes to one of several logs: a connection for each, that waits.
//!
//! What a connection brings is not used: it says only that there is something. So nothing is lost with it, and a log whose slot moves is waited
//! for where it is then. Logs beyond [`MOST`] are looked at every [`LOOK`] instead. Not here: reading what came (`feed.rs`).

use super::{failure::failed, request::Request};
use crate::{Position, Result};
use ropeway_store::redis::{Dedicated, Redis, Reply};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    task::AbortHandle,
    time::{Instant, sleep_until},
};

/// How many connections wait at the most.
const MOST: usize = 64;
/// How often logs are looked at for which no connection waits.
const LOOK: Duration = Duration::from_millis(25);
/// How long a connection waits before it asks again.
const WAIT: Duration = Duration::from_secs(10);
/// How long an answer may take beyond that.
const ANSWER: Duration = Duration::from_secs(10);
/// For how long a log whose connection failed is looked at instead.
const PAUSE: Duration = Duration::from_secs(1);

/// Why a wait is over.
#[derive(Debug)]
pub(super) enum Rang {
    /// Something came to these.
    Some(HashSet<String>),
    /// Nobody knows: all are to be looked at.
    All,
    /// It was ended from outside.
    Woken,
}

/// The connections that wait.
#[derive(Debug)]
pub(super) struct Bells {
    redis: Redis,
    bells: HashMap<String, Bell>,
    rings: mpsc::UnboundedSender<Ring>,
    rung: mpsc::UnboundedReceiver<Ring>,
}

#[derive(Debug)]
enum Bell {
    Idle(Option<Box<Dedicated>>),
    Waits(AbortHandle),
    /// Not to be tried before.
    Failed(Instant),
}

impl Drop for Bell {
    fn drop(&mut self) {
        if let Self::Waits(task) = self {
            task.abort();
        }
    }
}

/// What became of a wait: its log, and the connection with whether something came.
type Ring = (String, Result<(Option<Box<Dedicated>>, bool)>);

impl Bells {
    pub(super) fn new(redis: Redis) -> Self {
        let (rings, rung) = mpsc::unbounded_channel();
        Self { redis, bells: HashMap::new(), rings, rung }
    }

    /// Waits until something lies behind a position in one of the logs, it is `woken`, or `limit` is over. Cancel safe.
    pub(super) async fn wait(&mut self, logs: &[(&str, Position)], limit: Duration, woken: &Notify) -> Rang {
        let wanted: HashSet<&str> = logs.iter().map(|(log, _)| *log).collect();
        self.bells.retain(|log, _| wanted.contains(log.as_str()));
        let all = logs
            .iter()
            .take(MOST)
            .fold(logs.len() <= MOST, |all, (log, after)| self.hang(log, *after) && all);
        let end = Instant::now() + if all { limit } else { limit.min(LOOK) };
        loop {
            tokio::select! {
                biased;
                Some(ring) = self.rung.recv() => {
                    let mut came = HashSet::new();
                    came.extend(self.take(ring));
                    while let Ok(ring) = self.rung.try_recv() {
                        came.extend(self.take(ring));
                    }
                    if !came.is_empty() {
                        return Rang::Some(came);
                    }
                    for (log, after) in logs.iter().take(MOST) {
                        self.hang(log, *after);
                    }
                }
                () = woken.notified() => return Rang::Woken,
                () = sleep_until(end) => return Rang::All,
            }
        }
    }

    /// Lets a connection wait for a log, unless one does; whether one does now.
    fn hang(&mut self, log: &str, after: Position) -> bool {
        let open = match self.bells.get_mut(log) {
            Some(Bell::Waits(_)) => return true,
            Some(Bell::Failed(until)) if *until > Instant::now() => return false,
            Some(Bell::Idle(open)) => open.take(),
            Some(Bell::Failed(_)) | None => None,
        };
        let (redis, rings, name) = (self.redis.clone(), self.rings.clone(), log.to_owned());
        let task = tokio::spawn(async move {
            let waited = wait(&redis, open, &name, after).await;
            _ = rings.send((name, waited));
        });
        self.bells.insert(log.to_owned(), Bell::Waits(task.abort_handle()));
        true
    }

    /// The log to which something came.
    fn take(&mut self, (log, waited): Ring) -> Option<String> {
        let bell = self.bells.get_mut(&log)?;
        let came = match waited {
            Ok((open, came)) => {
                *bell = Bell::Idle(open);
                came
            }
            Err(error) => {
                tracing::debug!(%error, log, "a log is looked at instead of waited for");
                *bell = Bell::Failed(Instant::now() + PAUSE);
                true
            }
        };
        came.then_some(log)
    }
}

/// Waits until something lies in a log behind a position, or long enough. The connection is not given back where its log is elsewhere by now: who
/// reads finds out where.
async fn wait(
    redis: &Redis,
    open: Option<Box<Dedicated>>,
    log: &str,
    after: Position,
) -> Result<(Option<Box<Dedicated>>, bool)> {
    let mut open = match open {
        Some(open) if !open.has_ended() => open,
        _ => Box::new(redis.dedicated(Some(log.as_bytes())).await.map_err(failed)?),
    };
    let (wait, after) = (WAIT.as_millis().to_string(), after.to_string());
    let mut request = Request::default();
    request.command(&["XREAD", "COUNT", "1", "BLOCK", &wait, "STREAMS", log, &after]);
    open.send_packed(request.into_bytes(), 1).await.map_err(failed)?;
    match open.receive(WAIT + ANSWER).await.map_err(failed)? {
        Reply::Nil => Ok((Some(open), false)),
        Reply::Error(_) => Ok((None, true)),
        _ => Ok((Some(open), true)),
    }
}

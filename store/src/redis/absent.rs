//! Nodes of a cluster to which there is no connection: each is connected to by a task of its own, so that one that is away keeps nobody waiting
//! who asks others as well.
//!
//! Who asks a node waits for its connection. Once that took too long, or an answer did, the node counts as away: what is asked of it fails at once, while
//! the task goes on, until there is a connection. Not here: what is asked over it (`nodes.rs`), how it is opened (`dial.rs`).

use super::{
    dedicated::Dedicated,
    error::{Error, ErrorKind},
    node::Node,
    routed::{Greeting, open, straight},
};
use std::{fmt, sync::Arc, time::Duration};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

/// For how long a node to which no connection could be made is left alone.
const REST: Duration = Duration::from_millis(250);
/// How long who asks waits for a connection to a node that was away: one that is back answers at once.
const GLANCE: Duration = Duration::from_millis(250);

/// A connection that ended with something open, and the start of the server that it led to.
type Ended = (i64, Option<String>);

/// A connection that is being made; what ended before it, where none came of it.
struct Opening(JoinHandle<Result<Dedicated, (Error, Option<Ended>)>>);

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A node to which there is no connection.
#[derive(Default)]
pub(super) struct Absent {
    ended: Option<Ended>,
    opening: Option<Opening>,
    /// Why it counts as away, and until when it is left alone.
    away: Option<(Error, Instant)>,
}

impl fmt::Debug for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Absent").field("away", &self.away).finish_non_exhaustive()
    }
}

impl Absent {
    /// One to which no connection could be made now.
    pub(super) fn because(why: Error) -> Self {
        Self { away: Some((why, Instant::now() + REST)), ..Self::default() }
    }

    /// One whose connection is not used any more; `why`, where its server was silent.
    pub(super) fn after(line: &Dedicated, why: Option<&Error>) -> Self {
        let away = why.map(|why| (why.clone(), Instant::now()));
        Self { ended: Some((line.client_id(), line.server().run_id.clone())), opening: None, away }
    }

    /// The connection, where it comes in time: within `limit` where nothing says that the node is away.
    ///
    /// # Errors
    /// Why there is none, and what is to be known when it is asked for again.
    pub(super) async fn connect(
        mut self,
        node: &Arc<Node>,
        greeting: &Arc<Greeting>,
        limit: Duration,
    ) -> Result<Dedicated, (Error, Self)> {
        let name = node.dialer.name();
        let (mut opening, patience) = match (self.opening.take(), &self.away) {
            (Some(opening), _) => (opening, Duration::ZERO),
            (None, Some((why, until))) if *until > Instant::now() => return Err((again(why, &name), self)),
            (None, away) => {
                let patience = if away.is_some() { GLANCE.min(limit) } else { limit };
                let opened = open_after(Arc::clone(node), Arc::clone(greeting), self.ended.take());
                (Opening(tokio::spawn(opened)), patience)
            }
        };
        match timeout(patience, &mut opening.0).await {
            Ok(Ok(Ok(line))) => Ok(line),
            Ok(Ok(Err((why, ended)))) => Err((why.clone(), Self { ended, ..Self::because(why) })),
            // It goes on.
            Err(_) => {
                let late =
                    || Error::new(ErrorKind::Timeout, &name, format!("no connection within {limit:?}"));
                let why = self.away.take().map_or_else(late, |(why, _)| again(&why, &name));
                let away = Some((why.clone(), Instant::now()));
                Err((why, Self { ended: None, opening: Some(opening), away }))
            }
            Ok(Err(error)) => {
                let why = Error::new(ErrorKind::Unavailable, &name, error.to_string());
                Err((why.clone(), Self::because(why)))
            }
        }
    }
}

/// The same of something else, that was not done.
fn again(why: &Error, name: &Arc<str>) -> Error {
    Error::new(why.kind(), name, why.what())
}

/// Connects. What the connection before was sent and its server did not read yet would come behind what is asked now: it is ended there first,
/// where this user may.
async fn open_after(
    node: Arc<Node>,
    greeting: Arc<Greeting>,
    ended: Option<Ended>,
) -> Result<Dedicated, (Error, Option<Ended>)> {
    let mut line = match open(&node, &greeting).await {
        Ok(line) => line,
        Err(error) => return Err((error, ended)),
    };
    let Some((id, run)) = ended else { return Ok(line) };
    if run.is_some() && run == line.server().run_id {
        let mut kill = Vec::new();
        ::redis::cmd("CLIENT").arg("KILL").arg("ID").arg(id).write_packed_command(&mut kill);
        let limit = node.dialer.settings.connect_timeout;
        if let Some(Err(error)) = straight(&mut line, kill, 1, limit).await.pop() {
            return Err((error, Some((id, run))));
        }
    }
    Ok(line)
}

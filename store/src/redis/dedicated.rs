//! A connection for one reader that waits for what comes, with replies whose strings are not copied.
//!
//! Not here: connections that are shared (`lane.rs`, `node.rs`), how replies are parsed (`wire.rs`).

use super::{
    Redis,
    dial::{self, Line},
    error::{Error, ErrorKind, Result, error_of},
    server::{Identity, Server},
    slots::slot_of_key,
    turn::Turn,
    wire::Reply,
};
use ::redis::Cmd;
use futures::{FutureExt, SinkExt, StreamExt};
use std::{fmt, sync::Arc, time::Duration};
use tokio::time::timeout;

/// A connection that nobody else uses: for `XREAD BLOCK` and the like. Outside of the pool, without a time limit of its own, never mended.
/// Closed when it is dropped.
pub struct Dedicated {
    line: Line,
    address: Arc<str>,
    server: Arc<Server>,
    client_id: i64,
    /// Replies that are still to come.
    owed: usize,
    failed: Option<Error>,
    turn: Turn,
}

impl fmt::Debug for Dedicated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dedicated to {}", self.address)
    }
}

impl Redis {
    /// Opens a [`Dedicated`] connection: in a cluster to the server that has `key`, else to the one there is.
    ///
    /// # Errors
    /// As for [`Redis::connect`].
    pub async fn dedicated(&self, key: Option<&[u8]>) -> Result<Dedicated> {
        let node = self.0.topology.owner(key.map(slot_of_key)).await?;
        Ok(Dedicated::of(node.dialer.open().await?))
    }
}

impl Dedicated {
    pub(super) fn of(opened: dial::Opened) -> Self {
        let dial::Opened { line, address, server, client_id, turn } = opened;
        Self { line, address, server, client_id, owed: 0, failed: None, turn }
    }

    /// Writes commands; each is answered by one reply, in order ([`Dedicated::receive`]).
    ///
    /// Dropping the call loses nothing: what was begun is written with the next call of any kind.
    ///
    /// # Errors
    /// The connection has ended: it is not known what was done of what is not answered.
    pub async fn send(&mut self, commands: &[Cmd]) -> Result<()> {
        let mut packed = Vec::new();
        for command in commands {
            command.write_packed_command(&mut packed);
        }
        self.send_packed(packed, commands.len()).await
    }

    /// The same for commands that the caller has encoded already, and that will be answered by so many replies.
    ///
    /// # Errors
    /// As for [`Dedicated::send`].
    pub async fn send_packed(&mut self, packed: Vec<u8>, replies: usize) -> Result<()> {
        self.check()?;
        if self.turn.is_over() {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                &self.address,
                "another server is the primary by now",
            ));
        }
        self.owed += replies;
        // Gathered at once: a call that is dropped while it writes leaves all of it to the next one, and not a part.
        self.line.write_buffer_mut().extend_from_slice(&packed);
        self.line.flush().await.map_err(|error| self.fail(dial::broken(&self.address, &error)))
    }

    /// The next reply, within `limit`. An error that the server answers is a reply ([`Reply::Error`]); [`Dedicated::query`] tells them apart.
    ///
    /// Dropping the call loses nothing. Bytes of the reply are slices of what was read with them ([`Reply`]).
    ///
    /// # Errors
    /// `Timeout` after `limit`: the reply is still to come. Anything else: the connection has ended.
    pub async fn receive(&mut self, limit: Duration) -> Result<Reply> {
        self.check().map_err(|error| error.after_writing(self.owed > 0))?;
        let next = async {
            let flushed = self.line.flush().await;
            match flushed {
                Ok(()) => self.line.next().await,
                Err(error) => Some(Err(error)),
            }
        };
        match timeout(limit, next).await {
            Ok(Some(Ok(reply))) => {
                self.owed = self.owed.saturating_sub(1);
                if matches!(&reply, Reply::Error(text) if text.starts_with(b"READONLY")) {
                    self.turn.end();
                }
                Ok(reply)
            }
            Ok(Some(Err(error))) => Err(self.fail(dial::broken(&self.address, &error))),
            Ok(None) => {
                Err(self.fail(Error::new(ErrorKind::Cut, &self.address, "the server ended the connection")))
            }
            Err(_) => {
                let what = format!("no answer within {limit:?}");
                Err(Error::new(ErrorKind::Timeout, &self.address, what).after_writing(true))
            }
        }
    }

    /// The next reply, and those behind it that are there already, at the end of `into`; `limit` as for [`Dedicated::receive`].
    ///
    /// Dropping the call loses nothing.
    ///
    /// # Errors
    /// As for [`Dedicated::receive`]. What came before a failure is in `into`, and the failure is told by the next call.
    pub async fn receive_many(&mut self, limit: Duration, into: &mut Vec<Reply>) -> Result<()> {
        into.push(self.receive(limit).await?);
        // Nothing is awaited from here on.
        while self.owed > 0 {
            match self.line.next().now_or_never() {
                Some(Some(Ok(reply))) => {
                    self.owed -= 1;
                    into.push(reply);
                }
                Some(Some(Err(error))) => {
                    _ = self.fail(dial::broken(&self.address, &error));
                    break;
                }
                // Where the connection has ended, the next call sees it too.
                Some(None) | None => break,
            }
        }
        Ok(())
    }

    /// Asks one thing and waits for its reply, `limit` for each of those that earlier calls left behind (they are thrown away) and for this
    /// one.
    ///
    /// # Errors
    /// As for [`Dedicated::receive`], and what the server refused.
    pub async fn query(&mut self, command: &Cmd, limit: Duration) -> Result<Reply> {
        self.check()?;
        while self.owed > 0 {
            self.receive(limit).await?;
        }
        self.send(std::slice::from_ref(command)).await?;
        let reply = self.receive(limit).await?;
        match error_of(&self.address, &reply) {
            Some(error) => Err(error),
            None => Ok(reply),
        }
    }

    /// Whether nothing can be asked any more: it has ended, or its server is not the primary that sentinels name any more. Replies that are still
    /// to come may come.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.failed.is_some() || self.turn.is_over()
    }

    /// Replies that are still to come.
    #[must_use]
    pub fn owed(&self) -> usize {
        self.owed
    }

    /// What the server said of itself when this connection was made.
    #[must_use]
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Which server this is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity { address: Arc::clone(&self.address), run_id: self.server.run_id.clone() }
    }

    /// The number that the server gave this connection, for `CLIENT UNBLOCK`.
    #[must_use]
    pub fn client_id(&self) -> i64 {
        self.client_id
    }

    fn check(&self) -> Result<()> {
        match &self.failed {
            None => Ok(()),
            Some(_) => Err(Error::new(ErrorKind::Cut, &self.address, "the connection had ended before")),
        }
    }

    fn fail(&mut self, error: Error) -> Error {
        self.failed = Some(error.clone());
        error.after_writing(self.owed > 0)
    }
}

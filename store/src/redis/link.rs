//! One connection on which many requests may be open at a time, each answered in the order in which they were written.
//!
//! What of a request may have been done is told from the bytes that its socket took. Not here: who holds a connection (`node.rs`, `lane.rs`),
//! when a request is tried again (`request.rs`).

use super::{
    dial::Opened,
    error::{Error, ErrorKind, Result},
    server::Server,
    stream::Traffic,
    tls,
    turn::Turn,
};
use ::redis::{
    AsyncConnectionConfig, Cmd, Pipeline, RedisConnectionInfo, RedisError, ServerError, Value,
    aio::MultiplexedConnection,
};
use std::{error::Error as _, io, sync::Arc, time::Duration};
use tokio::task::AbortHandle;

/// Requests that wait to be written, at most. The default of redis-rs (50) costs a third of what concurrent callers reach.
const WAITING: usize = 1024;
/// Bytes that are gathered before they are written while callers are faster than the socket.
const GATHERED: usize = 1 << 20;

/// What is asked at once.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request<'a> {
    One(&'a Cmd),
    Many(&'a Pipeline),
    /// With `MULTI` and `EXEC` already asked for ([`Pipeline::atomic`]).
    Atomic(&'a Pipeline),
}

/// An open connection. Closed when it is dropped.
pub(super) struct Link {
    connection: MultiplexedConnection,
    driver: AbortHandle,
    traffic: Arc<Traffic>,
    pub(super) address: Arc<str>,
    pub(super) server: Arc<Server>,
    pub(super) client_id: i64,
    turn: Turn,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    /// Uses what was opened.
    pub(super) async fn of(opened: Opened) -> Result<Self> {
        Self::new(opened, RedisConnectionInfo::default(), AsyncConnectionConfig::new()).await
    }

    async fn new(opened: Opened, info: RedisConnectionInfo, config: AsyncConnectionConfig) -> Result<Self> {
        let Opened { line, address, server, client_id, turn } = opened;
        let socket = line.into_inner();
        let traffic = socket.traffic();
        // Time limits are set for each request here, where it is known what was written.
        let config = config
            .set_response_timeout(None)
            .set_connection_timeout(None)
            .set_pipeline_buffer_size(WAITING)
            .set_write_backpressure_boundary(GATHERED);
        let info = info.set_skip_set_lib_name();
        let (connection, driver) = MultiplexedConnection::new_with_config(&info, socket, config)
            .await
            .map_err(|error| failed(&address, &error))?;
        let driver = tokio::spawn(driver).abort_handle();
        Ok(Self { connection, driver, traffic, address, server, client_id, turn })
    }

    /// Whether it has ended, or does not lead to the primary any more: every later request fails as not done.
    pub(super) fn ended(&self) -> bool {
        self.traffic.ended() || self.turn.is_over()
    }

    /// Asks, and gives one answer for each command.
    ///
    /// # Errors
    /// What kept the answers away. An answer that is itself an error is in the list.
    pub(super) async fn run(&self, request: Request<'_>, within: Duration) -> Result<Vec<Result<Value>>> {
        if self.ended() {
            return Err(Error::new(ErrorKind::Cut, &self.address, "the connection had ended before"));
        }
        let before = self.traffic.written();
        let asked = tokio::time::timeout(within, self.ask(request)).await;
        let written = self.traffic.written() != before;
        match asked {
            Err(_) => {
                // What was not written until now may be gathered already, and be written later.
                let what = format!("no answer within {within:?}");
                Err(Error::new(ErrorKind::Timeout, &self.address, what).after_writing(true))
            }
            Ok(Ok(values)) => self.answers(request, values),
            Ok(Err(error)) => Err(match error.clone().into_server_errors().as_deref() {
                // A transaction that was refused while it was being gathered.
                Some([(_, first), ..]) => self.refused(first),
                _ => self.failed(&error).after_writing(written),
            }),
        }
    }

    async fn ask(&self, request: Request<'_>) -> std::result::Result<Vec<Value>, RedisError> {
        let mut connection = self.connection.clone();
        match request {
            Request::One(command) => connection.send_packed_command(command).await.map(|value| vec![value]),
            Request::Many(commands) => connection.send_packed_commands(commands, 0, commands.len()).await,
            Request::Atomic(commands) => {
                connection.send_packed_commands(commands, commands.len() + 1, 1).await
            }
        }
    }

    fn answers(&self, request: Request<'_>, values: Vec<Value>) -> Result<Vec<Result<Value>>> {
        let values = match request {
            Request::One(_) | Request::Many(_) => values,
            Request::Atomic(_) => match values.into_iter().next() {
                Some(Value::Array(values)) => values,
                Some(Value::ServerError(error)) => return Err(self.refused(&error)),
                _ => {
                    return Err(Error::new(
                        ErrorKind::Aborted,
                        &self.address,
                        "the transaction was given up",
                    ));
                }
            },
        };
        Ok(values.into_iter().map(|value| self.answer(value)).collect())
    }

    fn answer(&self, value: Value) -> Result<Value> {
        match value {
            Value::ServerError(error) => Err(self.refused(&error)),
            value => Ok(value),
        }
    }

    fn refused(&self, error: &ServerError) -> Error {
        let error = Error::of_answer(&self.address, error.code(), error.details().unwrap_or_default());
        if error.is_demotion() {
            self.turn.end();
        }
        error
    }

    fn failed(&self, error: &RedisError) -> Error {
        // An answer that was cut off looks like a wrong one.
        if error.kind() == ::redis::ErrorKind::Parse && self.traffic.cut() {
            return Error::new(ErrorKind::Cut, &self.address, "the connection ended within an answer");
        }
        failed(&self.address, error)
    }
}

fn failed(address: &Arc<str>, error: &RedisError) -> Error {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    match cause {
        Some(cause) if cause.get_ref().is_some_and(|inner| inner.is::<tokio_rustls::rustls::Error>()) => {
            tls::failed(address, cause)
        }
        _ if error.kind() == ::redis::ErrorKind::Parse => {
            Error::new(ErrorKind::NotRedis, address, "an answer is not Redis' protocol")
        }
        _ => Error::new(ErrorKind::Cut, address, format!("the connection ended: {error}")),
    }
}

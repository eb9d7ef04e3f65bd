//! One server: the pool of connections to it, and its circuit breaker.
//!
//! A request has a connection for itself until it is answered; one that is cut off or given up takes its connection with it, so that no late
//! answer meets another request. Not here: which server a request goes to (`topology.rs`), when it is tried again (`request.rs`).

use super::{
    breaker::Breaker,
    dialer::Dialer,
    error::{Error, ErrorKind, Outcome, Result},
    link::{Link, Request},
};
use ::redis::Value;
use deadpool::{
    Runtime,
    managed::{Manager, Metrics, Object, Pool, PoolError, QueueMode, RecycleError, RecycleResult, Timeouts},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// A server and the connections to it.
pub(super) struct Node {
    pub(super) dialer: Arc<Dialer>,
    pool: Pool<Connections>,
    breaker: Mutex<Breaker>,
}

struct Connections {
    dialer: Arc<Dialer>,
}

impl Manager for Connections {
    type Type = Link;
    type Error = Error;

    async fn create(&self) -> Result<Link> {
        Link::of(self.dialer.open().await?).await
    }

    async fn recycle(&self, link: &mut Link, metrics: &Metrics) -> RecycleResult<Error> {
        let old = metrics.age() >= self.dialer.settings.max_lifetime;
        if old || link.ended() { Err(RecycleError::message("it has ended")) } else { Ok(()) }
    }
}

impl Node {
    pub(super) fn new(dialer: Arc<Dialer>) -> Result<Self> {
        let settings = Arc::clone(&dialer.settings);
        let connections = Connections { dialer: Arc::clone(&dialer) };
        let waits = Timeouts { wait: Some(settings.connect_timeout), create: None, recycle: None };
        let pool = Pool::builder(connections)
            .max_size(settings.pool_size)
            .timeouts(waits)
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| Error::settings(error.to_string()))?;
        let breaker = Mutex::new(Breaker::new(settings.breaker_failures, settings.breaker_pause));
        Ok(Self { dialer, pool, breaker })
    }

    /// Asks on a connection of the pool. One answer for each command.
    pub(super) async fn run(&self, request: Request<'_>) -> Result<Vec<Result<Value>>> {
        let address = self.dialer.name();
        if let Err(pause) = self.breaker().admit(Instant::now()) {
            let what =
                format!("it failed several times in a row and is left alone for {} ms", pause.as_millis());
            return Err(Error::new(ErrorKind::BreakerOpen, &address, what));
        }
        let result = self.attempt(request).await;
        self.learn(result.as_ref().err());
        result
    }

    /// The same, though the breaker may be open: what a probe does.
    pub(super) async fn ask(&self, request: Request<'_>) -> Result<Vec<Result<Value>>> {
        let result = self.attempt(request).await;
        self.learn(result.as_ref().err());
        result
    }

    pub(super) async fn probe(&self) -> Result<()> {
        let answers = self.ask(Request::One(&::redis::cmd("PING"))).await?;
        answers.into_iter().collect::<Result<Vec<_>>>().map(drop)
    }

    async fn attempt(&self, request: Request<'_>) -> Result<Vec<Result<Value>>> {
        let mut held = Held(Some(self.pool.get().await.map_err(|error| self.no_connection(error))?));
        let Some(link) = &held.0 else { return Ok(Vec::new()) };
        let result = link.run(request, self.dialer.settings.request_timeout).await;
        if result.as_ref().is_ok() || result.as_ref().is_err_and(|error| error.outcome() == Outcome::NotDone)
        {
            held.give_back();
        }
        result
    }

    fn no_connection(&self, error: PoolError<Error>) -> Error {
        match error {
            PoolError::Backend(error) => error,
            PoolError::Timeout(_) => {
                let settings = &self.dialer.settings;
                let what = format!(
                    "all {} connections were in use for {:?}",
                    settings.pool_size, settings.connect_timeout
                );
                Error::new(ErrorKind::Exhausted, &self.dialer.name(), what)
            }
            other => Error::new(ErrorKind::Unavailable, &self.dialer.name(), other.to_string()),
        }
    }

    fn learn(&self, error: Option<&Error>) {
        let server = self.dialer.name();
        match error.map(Error::kind) {
            Some(kind) if kind.is_absence() => {
                if self.breaker().failed(Instant::now()) {
                    tracing::warn!(%server, "redis failed several times in a row: requests are refused until it answers");
                }
                self.dialer.board.answered(&server, error);
            }
            // It waited for a connection of ours: that says nothing of the server.
            Some(ErrorKind::Exhausted) => {}
            _ => {
                if self.breaker().succeeded() {
                    tracing::info!(%server, "redis answers again");
                }
                self.dialer.board.answered(&server, None);
            }
        }
    }

    /// Closes what lay idle too long or grew too old, and opens what is missing to the least that is kept.
    pub(super) async fn maintain(&self) -> Result<()> {
        let settings = &self.dialer.settings;
        let least = settings.min_idle.min(settings.pool_size);
        let mut size = self.pool.status().size;
        drop(self.pool.retain(|link, metrics| {
            let idle = size > least && metrics.last_used() >= settings.idle_timeout;
            let keep = !idle && !link.ended() && metrics.age() < settings.max_lifetime;
            size -= usize::from(!keep);
            keep
        }));
        let now = Timeouts { wait: Some(std::time::Duration::ZERO), create: None, recycle: None };
        let status = self.pool.status();
        let missing = least.saturating_sub(status.size);
        if missing == 0 {
            return Ok(());
        }
        // Those that are idle are taken too, else the pool would hand them out instead of opening others.
        let wanted = (0..status.available + missing).map(|_| self.pool.timeout_get(&now));
        for taken in futures::future::join_all(wanted).await {
            match taken {
                Ok(_) | Err(PoolError::Timeout(_)) => {}
                Err(error) => return Err(self.no_connection(error)),
            }
        }
        Ok(())
    }

    /// Connections of the pool: in use, and idle.
    pub(super) fn connections(&self) -> (usize, usize) {
        let status = self.pool.status();
        (status.size.saturating_sub(status.available), status.available.min(status.size))
    }

    /// Whether requests are refused because the server failed.
    pub(super) fn is_open(&self) -> bool {
        self.breaker().is_open()
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection in use. One that is not given back is closed: its answer may still come.
struct Held(Option<Object<Connections>>);

impl Held {
    fn give_back(&mut self) {
        self.0 = None;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}

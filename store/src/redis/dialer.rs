//! Which server is dialled: a fixed address, or the primary that sentinels name at this moment.
//!
//! Not here: how a connection is opened (`dial.rs`).

use super::{
    dial::{self, Opened},
    error::{Error, ErrorKind, Result},
    server::Role,
    settings::RedisSettings,
    status::Board,
    turn::Turns,
    url::Address,
};
use ::redis::cmd;
use std::sync::{Arc, Mutex, PoisonError};

/// Opens connections to one server and tells the board what it finds.
pub(super) struct Dialer {
    pub(super) settings: Arc<RedisSettings>,
    to: To,
    pub(super) board: Arc<Board>,
    /// The address that was dialled last.
    last: Mutex<Arc<str>>,
    turns: Turns,
}

/// What is dialled.
pub(super) enum To {
    Address(Address),
    Service { sentinels: Vec<Address>, service: String },
}

impl Dialer {
    pub(super) fn new(settings: Arc<RedisSettings>, to: To, board: Arc<Board>) -> Self {
        let last: Arc<str> = match &to {
            To::Address(address) => address.to_string().into(),
            To::Service { .. } => settings.target.to_string().into(),
        };
        Self { settings, to, board, last: Mutex::new(last), turns: Turns::default() }
    }

    /// The address that was dialled last, for errors.
    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether another dial may reach another server.
    pub(super) fn follows_failover(&self) -> bool {
        matches!(self.to, To::Service { .. })
    }

    /// Opens a connection.
    pub(super) async fn open(&self) -> Result<Opened> {
        let opened = match &self.to {
            To::Address(address) => dial::open(&self.settings, address).await?,
            To::Service { sentinels, service } => self.primary(sentinels, service).await?,
        };
        self.board.connected(&opened.address, &opened.server);
        Ok(opened)
    }

    /// Asks the sentinels in order; the first that knows the service decides, if what it names is a primary.
    async fn primary(&self, sentinels: &[Address], service: &str) -> Result<Opened> {
        let mut last = None;
        for sentinel in sentinels {
            let turn = self.turns.now();
            match self.primary_of(sentinel, service).await {
                Ok(opened) => {
                    let turn =
                        if self.is_another(&opened.address, service) { self.turns.now() } else { turn };
                    return Ok(Opened { turn, ..opened });
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::settings("no sentinel is named")))
    }

    /// Takes note of who is the primary; whether that is another one than before: then earlier connections are not used again.
    fn is_another(&self, address: &Arc<str>, service: &str) -> bool {
        let before = std::mem::replace(
            &mut *self.last.lock().unwrap_or_else(PoisonError::into_inner),
            Arc::clone(address),
        );
        if before == *address {
            return false;
        }
        tracing::info!(service, server = %address, "sentinels name this primary");
        self.turns.end();
        self.board.keep(|used| used == &**address);
        true
    }

    /// Asks the sentinels whether the primary is still the one that was dialled last, where they know. One that is silent may have been replaced
    /// without a word to those who are connected to it.
    pub(super) async fn look(&self) {
        let To::Service { sentinels, service } = &self.to else { return };
        for sentinel in sentinels {
            match self.named_by(sentinel, service).await {
                Ok(address) if address.to_string() == *self.name() => return,
                // It is believed when it says itself that it is the primary.
                Ok(_) => return drop(self.open().await),
                Err(_) => {}
            }
        }
    }

    async fn named_by(&self, sentinel: &Address, service: &str) -> Result<Address> {
        let ask = cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(service).take();
        let reply = dial::ask_sentinel(&self.settings, sentinel, ask).await?;
        let [host, port] = reply.items() else {
            let what = format!("this sentinel knows no service {service:?} (SENTINEL MASTERS tells which)");
            return Err(Error::new(ErrorKind::Unavailable, &sentinel.to_string().into(), what));
        };
        let port = port.int().and_then(|port| u16::try_from(port).ok()).unwrap_or_default();
        Ok(Address::Tcp { host: host.text().unwrap_or_default().to_owned(), port })
    }

    async fn primary_of(&self, sentinel: &Address, service: &str) -> Result<Opened> {
        let address = self.named_by(sentinel, service).await?;
        let opened = dial::open(&self.settings, &address).await?;
        if opened.server.role == Some(Role::Replica) {
            // The sentinels have not finished: what they name is no primary yet, or no longer.
            return Err(Error::new(
                ErrorKind::Unavailable,
                &opened.address,
                "it is named as primary and is a replica",
            ));
        }
        Ok(opened)
    }
}

//! Which server is dialled: a fixed address, or the primary that sentinels name at this moment.
//!
//! Not here: how a connection is opened (`dial.rs`).

use super::{
    dial::{self, Opened},
    error::{Error, ErrorKind, Result},
    server::Role,
    settings::RedisSettings,
    status::Board,
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
        Self { settings, to, board, last: Mutex::new(last) }
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
            match self.primary_of(sentinel, service).await {
                Ok(opened) => {
                    let before = self.name();
                    if before != opened.address {
                        *self.last.lock().unwrap_or_else(PoisonError::into_inner) =
                            Arc::clone(&opened.address);
                        tracing::info!(service, server = %opened.address, "sentinels name this primary");
                        self.board.keep(|address| address == &*opened.address);
                    }
                    return Ok(opened);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::settings("no sentinel is named")))
    }

    async fn primary_of(&self, sentinel: &Address, service: &str) -> Result<Opened> {
        let ask = cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(service).take();
        let reply = dial::ask_sentinel(&self.settings, sentinel, ask).await?;
        let [host, port] = reply.items() else {
            let what = format!("this sentinel knows no service {service:?}");
            return Err(Error::new(ErrorKind::Unavailable, &sentinel.to_string().into(), what));
        };
        let port = port.int().and_then(|port| u16::try_from(port).ok()).unwrap_or_default();
        let address = Address::Tcp { host: host.text().unwrap_or_default().to_owned(), port };
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

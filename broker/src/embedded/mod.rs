//! The embedded broker: `memory:` and `embedded:DIR`.
use crate::*;
use std::sync::Arc;
/// x
#[derive(Debug)]
pub struct Embedded;
/// x
#[derive(Debug)]
pub struct EmbeddedSettings;
pub(crate) async fn open_memory(_: &BrokerUrl) -> Result<Arc<dyn MessageBroker>> {
    Err(Error::new(ErrorKind::Unsupported, "not landed"))
}
pub(crate) async fn open_directory(_: &BrokerUrl) -> Result<Arc<dyn MessageBroker>> {
    Err(Error::new(ErrorKind::Unsupported, "not landed"))
}

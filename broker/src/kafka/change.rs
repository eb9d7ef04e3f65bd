//! Has the servers change topics: the one that is their controller, and where that does not answer, the one that is named after it.
//!
//! Not here: what is changed, and when all nodes know it (`admin.rs`).

use super::{broker::Shared, failure::failed_by_crate, raw::Code};
use crate::{Error, ErrorKind, Result};
use rdkafka::{
    admin::{AdminOptions, TopicResult},
    error::KafkaError,
};
use std::{future::Future, time::Duration};

/// How long a server may take to do what it is asked.
const DONE: Duration = Duration::from_secs(8);
/// How long its answer may take: two of them, and the question who is the controller now, fit into a call.
const ANSWER: Duration = Duration::from_secs(10);

/// What the servers say to a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// Done, or why it is refused.
    pub(super) answer: Result<(), Code>,
    /// Nobody answered at first: it may have been done then.
    pub(super) doubted: bool,
}

/// Has them do it.
///
/// # Errors
/// Those of the connection: it may be done all the same.
pub(super) async fn change<F>(shared: &Shared, ask: impl Fn(AdminOptions) -> F + Send) -> Result<Said>
where
    F: Future<Output = Result<Vec<TopicResult>, KafkaError>> + Send,
{
    let options = || AdminOptions::new().request_timeout(Some(ANSWER)).operation_timeout(Some(DONE));
    match code_of(shared, ask(options()).await) {
        Ok(answer) if !answer.is_err_and(is_passing) => return Ok(Said { answer, doubted: false }),
        Err(error) if !error.is_retryable() => return Err(error),
        _ => {}
    }
    shared.topics.look_for_controller().await;
    let answer = code_of(shared, ask(options()).await)?;
    Ok(Said { answer, doubted: true })
}

/// REQUEST_TIMED_OUT, NOT_CONTROLLER: it may be done yet, or another one is asked.
fn is_passing(code: Code) -> bool {
    matches!(code.0, 7 | 41)
}

/// The code of the one topic that was asked for.
fn code_of(shared: &Shared, answer: Result<Vec<TopicResult>, KafkaError>) -> Result<Result<(), Code>> {
    let all = answer.map_err(|error| failed_by_crate(shared.servers(), &error))?;
    Ok(all.into_iter().try_for_each(|one| one.map(drop).map_err(|(_, code)| Code(code as i32))))
}

/// The same error, which says that it may be done all the same where nobody knows.
pub(super) fn perhaps(error: Error) -> Error {
    if error.kind() != ErrorKind::Unavailable {
        return error;
    }
    let context = format!(
        "{}; it may be done all the same, now or later: look before you do it again",
        error.context()
    );
    Error::new(ErrorKind::Unavailable, context)
}

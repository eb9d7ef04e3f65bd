//! Names of headers: the wire form every service agrees on.
//!
//! Events carry CloudEvents attributes as `ce_` headers (binary mode of its Kafka binding, on every backend). Our own headers start
//! with [`OWN_PREFIX`]; they are dropped, and counted, when they come from outside ([`from_outside`]).
//! Not here: the failure record of dead letters (`ropeway-processor`).

use crate::Headers;

/// What our own headers begin with.
pub const OWN_PREFIX: &str = "ropeway-";
/// The type of the event.
pub const TYPE: &str = "ce_type";
/// The id of the event.
pub const ID: &str = "ce_id";
/// Who made the event.
pub const SOURCE: &str = "ce_source";
/// What ties all messages of one business transaction together.
pub const CORRELATION_ID: &str = "ce_correlationid";
/// The id of the message whose handling made this one.
pub const CAUSATION_ID: &str = "ce_causationid";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// W3C trace context, vendor part.
pub const TRACESTATE: &str = "tracestate";
/// The media type of the payload.
pub const CONTENT_TYPE: &str = "content-type";

/// The headers without our own, and how many were dropped: for whatever comes from outside.
#[must_use]
pub fn from_outside(headers: &Headers) -> (Headers, usize) {
    let own = headers.iter().filter(|(name, _)| name.starts_with(OWN_PREFIX)).count();
    if own == 0 {
        return (headers.clone(), 0);
    }
    (headers.filtered(|name| !name.starts_with(OWN_PREFIX)), own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_headers_do_not_come_in_from_outside() {
        let headers: Headers =
            [("ropeway-attempt", "9"), ("a", "b"), ("ropeway-x", "")].into_iter().collect();
        let (kept, dropped) = from_outside(&headers);
        assert_eq!(dropped, 2);
        assert_eq!(kept.iter().collect::<Vec<_>>(), [("a", Some(&b"b"[..]))]);
    }
}

//! Doubles for the checks of `fidelity.rs`.
//!
//! Not here: what doubles share (`lost.rs`).

use super::{
    hooks::{Double, double},
    lost::{delivering, publishing},
};
use bytes::Bytes;
use ropeway_broker::{Headers, Message, Timestamp};

pub(crate) fn doubles() -> Vec<Double> {
    vec![
        double(
            "payloads_from_nothing_to_the_largest_arrive_and_one_byte_more_is_refused",
            "cuts a long payload",
            || {
                publishing(|_, message| {
                    if let Some(payload) = message.payload.as_mut().filter(|p| p.len() == 65_535) {
                        payload.truncate(65_534);
                    }
                })
            },
        ),
        double("bytes_of_every_value_arrive_in_key_and_payload", "takes payloads for text", || {
            delivering(|message| {
                if let Some(payload) = message.payload.as_mut().filter(|p| p.len() == 256) {
                    *payload = Bytes::from(String::from_utf8_lossy(payload).into_owned());
                }
            })
        }),
        double("headers_keep_order_repeats_null_empty_and_any_bytes", "knows no null in headers", || {
            delivering(|message| {
                if message.deliver_at.is_none() && message.headers.iter().any(|(_, value)| value.is_none()) {
                    message.headers = with_all(message, |value| Some(value.unwrap_or_default()));
                }
            })
        }),
        double("a_thousand_headers_arrive", "keeps only 999 headers", || {
            delivering(|message| {
                if message.headers.count() == 1000 {
                    message.headers = first(&message.headers, 999);
                }
            })
        }),
        double("ten_thousand_headers_are_refused", "takes the first of too many headers", || {
            publishing(|_, message| {
                if message.headers.count() > Headers::MAX_COUNT {
                    message.headers = first(&message.headers, 100);
                }
            })
        }),
        double("no_key_and_an_empty_key_differ", "takes an empty key for none", || {
            delivering(|message| message.key = message.key.take().filter(|key| !key.is_empty()))
        }),
        double("a_tombstone_and_an_empty_payload_differ", "takes a tombstone for empty", || {
            delivering(|message| {
                if message.deliver_at.is_none() {
                    message.payload.get_or_insert_default();
                }
            })
        }),
        double("the_longest_key_arrives_and_a_longer_one_is_refused", "cuts a key that is too long", || {
            publishing(|_, message| {
                if let Some(key) = &mut message.key {
                    key.truncate(Message::MAX_KEY);
                }
            })
        }),
        double("id_and_time_arrive_as_sent", "has no first millisecond", || {
            delivering(|message| {
                if message.timestamp.as_millis() == 1 {
                    message.timestamp = Timestamp::from_millis(2);
                }
            })
        }),
    ]
}

fn with_all(message: &Message, value_of: fn(Option<&[u8]>) -> Option<&[u8]>) -> Headers {
    let headers = message.headers.iter();
    headers.fold(Headers::builder(), |out, (name, value)| out.add(name, value_of(value))).build()
}

fn first(headers: &Headers, count: usize) -> Headers {
    let headers = headers.iter().take(count);
    headers.fold(Headers::builder(), |out, (name, value)| out.add(name, value)).build()
}

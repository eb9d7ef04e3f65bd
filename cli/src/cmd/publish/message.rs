//! A message out of a record and what the command line adds to it.

use super::{Args, pick::Pick, records::Record};
use ropeway_broker::{Headers, Message, Timestamp, wire};
use std::time::Duration;

/// What every message of the run gets.
#[derive(Debug)]
pub(super) struct Recipe {
    key: Option<String>,
    headers: Headers,
    after: Option<Duration>,
    at: Option<Timestamp>,
}

impl Recipe {
    /// What the command line says, taken out of it.
    pub(super) fn of(args: &mut Args) -> Self {
        let mut headers = Headers::builder();
        if let Some(event_type) = &args.event_type {
            headers = headers.add(wire::TYPE, Some(event_type));
        }
        for (name, value) in std::mem::take(&mut args.headers) {
            headers = headers.add(&name, Some(value));
        }
        Self { key: args.key.take(), headers: headers.build(), after: args.after, at: args.at }
    }

    /// The message of a record.
    pub(super) fn message(&self, record: &Record) -> Message {
        let mut message = Message::builder().headers(&self.headers).payload(record.payload.clone());
        for (name, value) in &record.headers {
            message = message.header(name, value);
        }
        let mut message = message.build();
        message.key = record.key.as_ref().or(self.key.as_ref()).map(|key| key.clone().into());
        message.deliver_at = self.at.or_else(|| self.after.map(|after| message.timestamp + after));
        message
    }
}

/// `NAME=VALUE`.
///
/// # Errors
/// What it takes instead.
pub(super) fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it takes NAME=VALUE")?;
    name_of(name)?;
    Ok((name.to_owned(), value.to_owned()))
}

/// `NAME=EXPRESSION`.
///
/// # Errors
/// What it takes instead.
pub(super) fn picked_header(text: &str) -> Result<(String, Pick), String> {
    let (name, expression) = text.split_once('=').ok_or("it takes NAME=EXPRESSION")?;
    name_of(name)?;
    Ok((name.to_owned(), expression.parse()?))
}

fn name_of(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("a header needs a name".to_owned());
    }
    if name.starts_with(wire::OWN_PREFIX) {
        return Err(format!(
            "headers that begin with {} are Ropeway's own; choose another name",
            wire::OWN_PREFIX
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_and_our_own_names_refused() {
        assert_eq!(header("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(header("ropeway-attempt=1").unwrap_err().contains("Ropeway's own"));
        assert!(picked_header("ropeway-x=.a").is_err());
        for bad in ["", "a", "=b"] {
            assert!(header(bad).is_err(), "{bad}");
        }
        assert_eq!(picked_header("region=.a?").unwrap().1.to_string(), ".a?");
    }

    #[test]
    fn what_a_record_brings_goes_before_what_all_get() {
        let headers = [("a", "1")].into_iter().collect();
        let recipe =
            Recipe { key: Some("all".into()), headers, after: Some(Duration::from_secs(5)), at: None };
        let mut record = Record { headers: vec![("b".into(), "2".into())], ..Record::of(1, "x".into()) };
        let message = recipe.message(&record);
        assert_eq!(message.key.as_deref(), Some(&b"all"[..]));
        assert_eq!(message.headers.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(message.deliver_at, Some(message.timestamp + Duration::from_secs(5)));
        record.key = Some("own".into());
        assert_eq!(recipe.message(&record).key.as_deref(), Some(&b"own"[..]));
    }
}

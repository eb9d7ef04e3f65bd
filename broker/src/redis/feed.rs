//! The connection over which logs are read: one read of several logs, that may wait for what comes, and what each says of itself.
//!
//! Both go out together: `XREAD BLOCK`, and behind it `HMGET` of each partition's marks, which Redis answers when the read is over. So one round
//! trip brings entries and whether something before them was removed. Not here: which logs, and what it means (`follow.rs`).

use super::{
    bells::{Bells, Rang},
    commands::{self, Commands, Home},
    failure::{failed, named, refused, strange},
    follow::{Entry, Marks},
    keys::PartitionKeys,
    lasting::is_refusal,
    request::Request,
    topics::{marks, position},
    wake::Blocked,
};
use crate::{Error, ErrorKind, Position, Result};
use ropeway_store::redis::{self, Dedicated, Redis, Reply, Routed};
use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// How long an answer may take beyond the time a read waits.
const ANSWER: Duration = Duration::from_secs(10);

/// A log that is read.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) keys: PartitionKeys,
    /// Entries behind this one.
    pub(super) after: Position,
}

/// What a read of a log brought.
#[derive(Debug, Default)]
pub(super) struct Brought {
    pub(super) entries: Vec<Entry>,
    pub(super) marks: Marks,
}

/// Reads logs, over a connection of its own that is opened again when it ended.
#[derive(Debug)]
pub(super) struct Feed {
    redis: Redis,
    /// What errors call the server.
    server: Arc<str>,
    commands: Commands,
    connection: Option<Dedicated>,
    /// The home that is read.
    home: Home,
    /// In a cluster.
    spread: Option<Spread>,
    /// A connection was made since this was asked last.
    connected: bool,
}

/// How the logs of a cluster are read: those to which something came, each where it is.
#[derive(Debug)]
struct Spread {
    server: Arc<str>,
    line: Option<Routed>,
    bells: Bells,
    /// Something could not be read since this was asked last.
    failed: bool,
}

impl Feed {
    pub(super) fn new(redis: Redis, commands: Commands) -> Self {
        let server = named(&redis);
        let spread = || Spread {
            server: Arc::clone(&server),
            line: None,
            bells: Bells::new(redis.clone()),
            failed: false,
        };
        Self {
            spread: redis.is_cluster().then(spread),
            home: commands.home(),
            redis,
            server,
            commands,
            connection: None,
            connected: false,
        }
    }

    /// Which home was read last: a read succeeds only where it was the home before and after, in a cluster only of those logs of which that is so.
    pub(super) const fn home(&self) -> &Home {
        &self.home
    }

    /// Whether another server may have been read since this was asked last: one that has less than the one before.
    pub(super) fn may_be_another(&mut self) -> bool {
        let failed = self.spread.as_mut().is_some_and(|spread| std::mem::take(&mut spread.failed));
        std::mem::take(&mut self.connected) || failed
    }

    /// Reads at most `count` entries of each log, all at once; waits up to `wait` for the first where there is none (zero: not at all), or until
    /// something is added to the stream `news`, whose last id is in it. One answer for each, in order; none where it is not known what there is
    /// (in a cluster). `blocked` is how its wait is ended ([`super::wake`]). Not cancel safe: it belongs to one task.
    ///
    /// # Errors
    /// Those of the connection; it is opened again with the next call.
    pub(super) async fn read(
        &mut self,
        asks: &[Ask],
        count: usize,
        wait: Duration,
        news: Option<(&str, &mut Position)>,
        blocked: &Blocked,
    ) -> Result<Vec<Option<Brought>>> {
        if let Some(spread) = &mut self.spread {
            let chosen = spread.chosen(asks, wait, &news, blocked).await;
            self.home = self.commands.home();
            return match chosen {
                Some(chosen) => spread.read(&self.redis, asks, count, chosen, news, self.home.number).await,
                None => Ok(asks.iter().map(|_| None).collect()),
            };
        }
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                self.connected = true;
                self.connect().await?
            }
        };
        let request = request(asks, count, wait, news.as_ref().map(|(key, last)| (*key, **last)));
        if !wait.is_zero() {
            blocked.home.store(self.home.number, Ordering::SeqCst);
            blocked.connection.store(connection.client_id(), Ordering::SeqCst);
        }
        let answers = ask(&mut connection, request, wait + ANSWER).await;
        blocked.connection.store(0, Ordering::SeqCst);
        let (read, all_marks) = answers.map_err(|error| naming(failed(error), asks))?;
        if self.commands.home().number != self.home.number {
            return Err(elsewhere());
        }
        self.connection = Some(connection);
        if let Reply::Error(text) = &read {
            return Err(read_refused(&self.commands, asks, text).await);
        }
        let mut streams = streams(&self.server, "of several logs", read)?;
        if let Some((key, last)) = news
            && let Some(entry) = streams.remove(key.as_bytes()).and_then(|entries| entries.last().cloned())
        {
            *last = entry.at;
        }
        let brought = asks.iter().zip(&all_marks).map(|(ask, said)| match said {
            Reply::Error(text) => Err(refused(&self.server, format_args!("HMGET {}", ask.keys.part()), text)),
            said => {
                let entries = streams.remove(ask.keys.log().as_bytes()).unwrap_or_default();
                Ok(Some(Brought { entries, marks: marks(said) }))
            }
        });
        brought.collect()
    }
}

impl Feed {
    /// Connects to the home, and to no other: where something was asked of the server before, that is asked to look who is the primary.
    async fn connect(&mut self) -> Result<Dedicated> {
        let home = self.commands.home();
        let connection = self.redis.dedicated(None).await.map_err(failed)?;
        if !home.is(&connection.identity()) {
            self.commands.one(&["PING"]).await?;
            return Err(elsewhere());
        }
        self.home = home;
        Ok(connection)
    }
}

/// The error of a read that was refused. Which of the logs it is about, Redis does not say: it is looked for.
async fn read_refused(commands: &Commands, asks: &[Ask], text: &[u8]) -> Error {
    let mut about = asks.first();
    if asks.len() > 1 && text.starts_with(b"WRONGTYPE") {
        let mut request = Request::default();
        asks.iter().for_each(|ask| _ = request.command(&["TYPE", ask.keys.log()]));
        let kinds = commands.read(request).await.unwrap_or_default();
        let other = |kind: &Reply| kind.text().is_some_and(|kind| kind != "stream" && kind != "none");
        about = asks.iter().zip(&kinds).find(|(_, kind)| other(kind)).map(|(ask, _)| ask).or(about);
    }
    refused(commands.server(), format_args!("XREAD {}", about.map_or("", |ask| ask.keys.log())), text)
}

/// An error that says what was read where one message is more than is taken.
fn naming(error: Error, asks: &[Ask]) -> Error {
    match asks {
        [Ask { keys, after }] if error.kind() == ErrorKind::TooLarge => {
            error.during(format!("read the entry behind {after} of {}", keys.log()))
        }
        _ => error,
    }
}

fn elsewhere() -> Error {
    Error::new(ErrorKind::Unavailable, "another server is the primary by now")
}

impl Spread {
    /// Waits until there is something to read: of which logs, and whether of the news. `None`: it was ended from outside.
    async fn chosen(
        &mut self,
        asks: &[Ask],
        wait: Duration,
        news: &Option<(&str, &mut Position)>,
        blocked: &Blocked,
    ) -> Option<(Vec<usize>, bool)> {
        let all = (0..asks.len()).collect();
        if wait.is_zero() {
            return Some((all, true));
        }
        let mut logs: Vec<_> = news.iter().map(|(key, last)| (*key, **last)).collect();
        logs.extend(asks.iter().map(|ask| (ask.keys.log(), ask.after)));
        match self.bells.wait(&logs, wait, &blocked.here).await {
            Rang::All => Some((all, true)),
            Rang::Woken => None,
            Rang::Some(rung) => {
                let rang = |at: &usize| rung.contains(asks[*at].keys.log());
                let news = news.as_ref().is_some_and(|(key, _)| rung.contains(*key));
                Some((all.into_iter().filter(rang).collect(), news))
            }
        }
    }

    /// `home`: the number of the home that is read; of a log that has another one by then nothing is read.
    async fn read(
        &mut self,
        redis: &Redis,
        asks: &[Ask],
        count: usize,
        (chosen, hears): (Vec<usize>, bool),
        news: Option<(&str, &mut Position)>,
        home: u64,
    ) -> Result<Vec<Option<Brought>>> {
        let news = news.filter(|_| hears);
        let mut request = Request::default();
        for at in &chosen {
            request.append(&self::request(&asks[*at..=*at], count, Duration::ZERO, None));
        }
        let mut only = vec![home; request.commands()];
        if let Some((key, last)) = &news {
            request.append(&self::request(&[], 1, Duration::ZERO, Some((key, **last))));
        }
        only.resize(request.commands(), u64::MAX);
        let mut replies = self.ask(redis, request, only).await.map_err(failed)?.into_iter();
        let mut brought: Vec<Option<Brought>> = asks.iter().map(|_| None).collect();
        let mut failure = None;
        for at in chosen {
            match replies
                .next()
                .zip(replies.next())
                .map(|(read, said)| of_one(&self.server, &asks[at], read, said))
            {
                Some(Ok(one)) => brought[at] = Some(one),
                Some(Err(error)) if !failure.as_ref().is_some_and(is_refusal) => failure = Some(error),
                Some(Err(_)) => {}
                None => {}
            }
        }
        if let (Some((key, last)), Some(Ok(read))) = (news, replies.next())
            && let Some(entry) = streams(&self.server, key, read)?
                .remove(key.as_bytes())
                .and_then(|entries| entries.last().cloned())
        {
            *last = entry.at;
        }
        self.failed |= failure.is_some();
        // What one node has is read while another one is away; but what is refused would never be told.
        match failure {
            Some(error) if is_refusal(&error) || brought.iter().all(Option::is_none) => Err(error),
            _ => Ok(brought),
        }
    }

    async fn ask(
        &mut self,
        redis: &Redis,
        request: Request,
        only: Vec<u64>,
    ) -> Result<Vec<Result<Reply, redis::Error>>, redis::Error> {
        let mut line = match self.line.take() {
            Some(line) => line,
            None => commands::open(redis).await?,
        };
        let commands = request.commands();
        let replies = line.ask_only(request.into_bytes(), commands, only, ANSWER).await;
        self.line = Some(line);
        Ok(replies)
    }
}

/// What a read of one log brought.
fn of_one(
    server: &str,
    ask: &Ask,
    read: Result<Reply, redis::Error>,
    said: Result<Reply, redis::Error>,
) -> Result<Brought> {
    let mut streams = streams(server, ask.keys.log(), read.map_err(failed)?)?;
    let about = format_args!("HMGET {}", ask.keys.part());
    let said = commands::checked(server, about, said.map_err(failed)?)?;
    Ok(Brought {
        entries: streams.remove(ask.keys.log().as_bytes()).unwrap_or_default(),
        marks: marks(&said),
    })
}

/// What was answered, with what it is of: what is not known is left out of both.
pub(super) fn answered<T>(
    asks: &mut Vec<Ask>,
    of: &mut Vec<T>,
    brought: Vec<Option<Brought>>,
) -> Vec<Brought> {
    if brought.iter().any(Option::is_none) {
        let mut known = brought.iter().map(Option::is_some);
        asks.retain(|_| known.next().unwrap_or(false));
        let mut known = brought.iter().map(Option::is_some);
        of.retain(|_| known.next().unwrap_or(false));
    }
    brought.into_iter().flatten().collect()
}

fn request(asks: &[Ask], count: usize, wait: Duration, news: Option<(&str, Position)>) -> Request {
    let mut request = Request::default();
    let streams = asks.len() + usize::from(news.is_some());
    let waits = !wait.is_zero();
    request
        .begin(4 + 2 * usize::from(waits) + 2 * streams)
        .word("XREAD")
        .word("COUNT")
        .word(count.max(1).to_string());
    if waits {
        request.word("BLOCK").word(wait.as_millis().max(1).to_string());
    }
    request.word("STREAMS");
    asks.iter().for_each(|ask| _ = request.word(ask.keys.log()));
    news.iter().for_each(|(key, _)| _ = request.word(key));
    asks.iter().for_each(|ask| _ = request.word(ask.after.to_string()));
    news.iter().for_each(|(_, last)| _ = request.word(last.to_string()));
    asks.iter().for_each(|ask| _ = request.command(&["HMGET", &ask.keys.part(), "life", "removed"]));
    request
}

async fn ask(
    connection: &mut Dedicated,
    request: Request,
    limit: Duration,
) -> Result<(Reply, Vec<Reply>), redis::Error> {
    let more = request.commands() - 1;
    connection.send_packed(request.into_bytes(), more + 1).await?;
    let read = connection.receive(limit).await?;
    let mut marks = Vec::with_capacity(more);
    for _ in 0..more {
        marks.push(connection.receive(ANSWER).await?);
    }
    Ok((read, marks))
}

/// What `XREAD` answered, by the name of the log; `of`: what was read, for errors.
fn streams(server: &str, of: &str, read: Reply) -> Result<HashMap<bytes::Bytes, Vec<Entry>>> {
    let strange = |seen: &[Reply]| strange(server, format_args!("XREAD {of}"), seen);
    let items = match read {
        Reply::Nil => return Ok(HashMap::new()),
        Reply::Array(items) => items,
        // Unblocked from outside, or a log that became something else.
        Reply::Error(text) => return Err(refused(server, format_args!("XREAD {of}"), &text)),
        other => return Err(strange(&[other])),
    };
    let mut streams = HashMap::with_capacity(items.len());
    for item in items {
        let Reply::Array(pair) = item else { return Err(strange(&[])) };
        let Ok([Reply::Bulk(log), Reply::Array(entries)]) = <[Reply; 2]>::try_from(pair) else {
            return Err(strange(&[]));
        };
        let entries: Option<Vec<Entry>> = entries.into_iter().map(entry).collect();
        streams.insert(log, entries.ok_or_else(|| strange(&[]))?);
    }
    Ok(streams)
}

fn entry(reply: Reply) -> Option<Entry> {
    let Reply::Array(pair) = reply else { return None };
    let [id, Reply::Array(words)] = <[Reply; 2]>::try_from(pair).ok()? else { return None };
    let mut fields = Vec::with_capacity(words.len() / 2);
    let mut words = words.into_iter();
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        let (Reply::Bulk(name), Reply::Bulk(value)) = (name, value) else { return None };
        fields.push((name, value));
    }
    Some(Entry { at: position(&id)?, fields })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Topic, redis::keys::Keys};

    #[test]
    fn a_read_asks_for_entries_and_marks_at_once() {
        let keys = Keys::new("x").unwrap().partition(&Topic::new("t").unwrap(), 3);
        let asks = [Ask { keys, after: Position(7, 1) }];
        let request = request(&asks, 9, Duration::from_secs(1), Some(("news", Position(2, 0))));
        assert_eq!(request.commands(), 2);
        let bytes = request.into_bytes();
        let words: Vec<_> = std::str::from_utf8(&bytes).unwrap().split("\r\n").skip(2).step_by(2).collect();
        let read = "XREAD,COUNT,9,BLOCK,1000,STREAMS,x:{t/3}:log,news,7-1,2-0";
        assert!(words.join(",").starts_with(read), "{words:?}");
    }

    #[test]
    fn what_a_server_refuses_is_told_with_its_name() {
        let text = Reply::Error("WRONGTYPE Operation against a key".into());
        let told = streams("h:1", "x:{t/3}:log", text).unwrap_err().to_string();
        assert!(told.starts_with("redis h:1 answers \"WRONGTYPE") && told.contains("x:{t/3}:log"), "{told}");
    }

    #[test]
    fn what_is_no_answer_to_a_read_is_refused() {
        let bulk = |text: &'static str| Reply::Bulk(text.as_bytes().into());
        let entry = |fields: Vec<Reply>| Reply::Array(vec![bulk("5-1"), Reply::Array(fields)]);
        let of =
            |entries: Vec<Reply>| Reply::Array(vec![Reply::Array(vec![bulk("log"), Reply::Array(entries)])]);
        let read = streams("h:1", "log", of(vec![entry(vec![bulk("a"), bulk("b")])])).unwrap();
        assert_eq!(read[&b"log"[..]][0].at, Position(5, 1));
        assert!(streams("h:1", "log", Reply::Nil).unwrap().is_empty());
        for bad in [Reply::Int(1), of(vec![Reply::Nil]), of(vec![entry(vec![Reply::Nil, bulk("b")])])] {
            assert!(streams("h:1", "log", bad).is_err());
        }
    }
}

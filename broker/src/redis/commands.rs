//! The connection over which a broker asks what needs no waiting: administration, scripts, descriptions. Many callers, one order; in a cluster one for
//! each slot, and a connection for each node.
//!
//! Requests that come while others are under way are sent together. A connection that ends fails what was under way and is opened
//! again with the next request. Not here: what goes to which node of a cluster (`lanes.rs`), publishing (`publish.rs`), reading (`feed.rs`).

use super::{
    failure::{failed, is_unknown_script, late, named, refused, strange},
    lanes::{Lanes, Part},
    request::Request,
    scripts::{self, Script},
};
use crate::Result;
use futures::future::join_all;
use ropeway_store::redis::{self, Homes, Identity, Redis, Reply, Routed};
use std::{
    collections::HashMap,
    fmt::Display,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::timeout,
};

/// Requests that may wait; who asks more waits with them.
const WAITING: usize = 1024;
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// The same in a cluster, where what is asked of others at the same time waits for one.
const NODE_ANSWER: Duration = Duration::from_secs(3);
/// How many keys of a script errors name.
const NAMED: usize = 5;
/// How long a call may take, as the contract says.
const CALL: Duration = Duration::from_secs(30);

/// What became of each command; nothing where they were only for a server that is not the home any more.
type Answered = Result<Option<Vec<Result<Reply, redis::Error>>>, redis::Error>;

/// The server that is asked, or the servers of a cluster. After a failover it is another one, which need not have all that the one before had: what was
/// decided by that one must not be done here.
#[derive(Clone, Debug)]
pub(super) struct Home {
    /// Goes up when it becomes another one, in a cluster when one of its nodes does.
    pub(super) number: u64,
    /// Nobody in a cluster.
    server: Option<Identity>,
    /// Where what is in a cluster.
    slots: Option<Homes>,
}

impl Home {
    fn of_cluster(slots: Homes) -> Self {
        Self { number: slots.number(), server: None, slots: Some(slots) }
    }

    /// With which number a key came to where it is: in a cluster its node may be the one that it was, though another became another one.
    pub(super) fn since(&self, key: &str) -> u64 {
        self.slots.as_ref().map_or(self.number, |slots| slots.since(key.as_bytes()))
    }

    /// One server, by that number.
    #[cfg(test)]
    pub(super) const fn numbered(number: u64) -> Self {
        Self { number, server: None, slots: None }
    }

    /// Whether this is the one.
    pub(super) fn is(&self, server: &Identity) -> bool {
        self.server.as_ref().is_none_or(|home| !server.is_another(home))
    }

    /// Takes note of which server is asked from now on.
    fn lead_to(&mut self, server: Option<Identity>) {
        let Some(server) = server else { return };
        if !self.is(&server) {
            self.number += 1;
            tracing::warn!(%server, "another server is the primary: what only the one before had is lost; members take their partitions over again");
        }
        self.server = Some(server);
    }
}

struct Asked {
    request: Request,
    /// Only for this home, by its number.
    only: Option<u64>,
    answer: oneshot::Sender<Answered>,
}

/// Asks. Cloning is cheap; the connection is closed with the last clone.
#[derive(Clone, Debug)]
pub(super) struct Commands {
    ways: Arc<Ways>,
    redis: Redis,
    server: Arc<str>,
    /// Of one server.
    home: Arc<Mutex<Home>>,
}

/// Which way what is asked goes, and the ways by their names.
type ByNode = (Lanes, HashMap<Arc<str>, mpsc::Sender<Asked>>);

/// The ways to who is asked: one, or in a cluster one to each node, which begins when it is asked something.
#[derive(Debug)]
enum Ways {
    One(mpsc::Sender<Asked>),
    Nodes(Handle, Mutex<ByNode>),
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Asked({} commands)", self.request.commands())
    }
}

impl Commands {
    /// Asks over a connection that is open, and over others when it ends.
    pub(super) fn over(redis: Redis, first: Routed) -> Self {
        let server = named(&redis);
        let home = Home { number: 1, server: first.identity(), slots: None };
        let home = Arc::new(Mutex::new(home));
        let ways = if redis.is_cluster() {
            Ways::Nodes(Handle::current(), Mutex::default())
        } else {
            let (sender, receiver) = mpsc::channel(WAITING);
            tokio::spawn(serve(redis.clone(), Some(first), receiver, Arc::clone(&home)));
            Ways::One(sender)
        };
        Self { ways: Arc::new(ways), redis, server, home }
    }

    /// The server that was asked last; of a cluster, where it was seen last to be.
    pub(super) fn home(&self) -> Home {
        let one = || self.home.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.redis.homes().map_or_else(one, Home::of_cluster)
    }

    /// One answer for each command, in order; an answer may be an error of the server.
    ///
    /// # Errors
    /// What kept the answers away. `Unavailable` after 30 s.
    pub(super) async fn ask(&self, request: Request) -> Result<Vec<Reply>> {
        Ok(self.ask_only(request, None).await?.unwrap_or_default())
    }

    /// The same, only of the home of that number; `None`: it is another one by now, and nothing was asked. In a cluster that is an error, of the commands
    /// whose node is another one.
    ///
    /// # Errors
    /// As for [`Self::ask`].
    pub(super) async fn ask_only(&self, request: Request, only: Option<u64>) -> Result<Option<Vec<Reply>>> {
        let answers = self.ask_each(request, only).await?;
        answers.map(|answers| answers.into_iter().collect()).transpose()
    }

    /// The same, with what kept the answer to a command away in its place: in a cluster the nodes that are away have not those of the others.
    ///
    /// # Errors
    /// What kept all answers away.
    pub(super) async fn ask_each(
        &self,
        request: Request,
        only: Option<u64>,
    ) -> Result<Option<Vec<Result<Reply>>>> {
        let ways = match &*self.ways {
            Ways::One(sender) => return self.send(sender, request, only).await,
            Ways::Nodes(runtime, ways) => (runtime, ways),
        };
        let mut answers: Vec<_> = (0..request.commands()).map(|_| Err(late(&self.server))).collect();
        let parts = self.parts(request, ways);
        let asked = parts.into_iter().map(async |(way, Part { request, at, .. })| {
            let answers = match self.send(&way, request, only).await {
                Ok(answers) => answers.unwrap_or_default(),
                Err(error) => vec![Err(error); at.len()],
            };
            at.into_iter().zip(answers)
        });
        for (at, answer) in join_all(asked).await.into_iter().flatten() {
            // Of what goes everywhere, one that did it.
            if answers[at].is_err() {
                answers[at] = answer;
            }
        }
        Ok(Some(answers))
    }

    /// What goes over which way in a cluster.
    fn parts(
        &self,
        request: Request,
        (runtime, ways): (&Handle, &Mutex<ByNode>),
    ) -> Vec<(mpsc::Sender<Asked>, Part)> {
        let mut ways = ways.lock().unwrap_or_else(PoisonError::into_inner);
        let (lanes, ways) = &mut *ways;
        let begin = || {
            let (sender, receiver) = mpsc::channel(WAITING);
            let (redis, scripts) = (self.redis.clone(), scripts::load());
            let replies = scripts.commands();
            let line = redis.routed_by_need(scripts.into_bytes(), replies);
            runtime.spawn(serve(redis, line, receiver, Arc::clone(&self.home)));
            sender
        };
        let parts = lanes.parts(&self.redis, request, ways.keys());
        let parts = parts.into_iter().map(|part| {
            let way = ways.entry(Arc::clone(&part.way)).or_insert_with(begin);
            (way.clone(), part)
        });
        parts.collect()
    }

    /// Asks over one way.
    async fn send(
        &self,
        way: &mpsc::Sender<Asked>,
        request: Request,
        only: Option<u64>,
    ) -> Result<Option<Vec<Result<Reply>>>> {
        let call = async {
            let (answer, answered) = oneshot::channel();
            let sent = way.send(Asked { request, only, answer }).await;
            sent.map_err(|_| super::failure::closed())?;
            answered.await.map_err(|_| super::failure::closed())?.map_err(failed)
        };
        let answers = timeout(CALL, call).await.unwrap_or_else(|_| Err(late(&self.server)))?;
        Ok(answers.map(|answers| answers.into_iter().map(|answer| answer.map_err(failed)).collect()))
    }

    /// The same for commands that change nothing: where the connection had ended, they are asked once more.
    ///
    /// # Errors
    /// As for [`Self::ask`].
    pub(super) async fn read(&self, request: Request) -> Result<Vec<Reply>> {
        match self.ask(request.clone()).await {
            Err(error) if error.is_retryable() => self.ask(request).await,
            answers => answers,
        }
    }

    /// The answer to one command.
    ///
    /// # Errors
    /// As for [`Self::ask`], and what the server refused.
    pub(super) async fn one<W: AsRef<[u8]>>(&self, words: &[W]) -> Result<Reply> {
        let mut request = Request::default();
        request.command(words);
        let mut answers = self.ask(request).await?;
        let answer = answers.pop().unwrap_or(Reply::Nil);
        self.checked(Words(words), answer)
    }

    /// The server, as errors call it.
    pub(super) const fn server(&self) -> &Arc<str> {
        &self.server
    }

    /// The answer, unless it is an error; `about`: what was asked, and of which key.
    ///
    /// # Errors
    /// What the server refused.
    pub(super) fn checked(&self, about: impl Display, answer: Reply) -> Result<Reply> {
        checked(&self.server, about, answer)
    }

    /// The same of what a script answered about these keys.
    ///
    /// # Errors
    /// What the server refused; `Corrupt` where it is no answer of a script.
    pub(super) fn told<K: AsRef<[u8]>>(&self, script: &Script, keys: &[K], answer: Reply) -> Result<Told> {
        let about = About { script: script.name, keys };
        match self.checked(&about, answer)? {
            Reply::Array(items) if items.first().is_some_and(|word| word.text().is_some()) => {
                Ok(Told { server: Arc::clone(&self.server), script: script.name, items })
            }
            other => Err(strange(&self.server, about, &[other])),
        }
    }

    /// What a script answers: a list that begins with a word.
    ///
    /// # Errors
    /// As for [`Self::one`].
    pub(super) async fn script<K, A>(&self, script: &Script, keys: &[K], args: &[A]) -> Result<Told>
    where
        K: AsRef<[u8]>,
        A: AsRef<[u8]>,
    {
        let mut told = self.scripts(script, &[(keys, args)]).await?;
        told.pop().ok_or_else(|| strange(&self.server, script.name, &[]))?
    }

    /// The same script for several sets of keys, at once: one answer for each, in order, or what kept it away.
    ///
    /// # Errors
    /// What kept all answers away.
    pub(super) async fn scripts<K, A>(
        &self,
        script: &Script,
        calls: &[(&[K], &[A])],
    ) -> Result<Vec<Result<Told>>>
    where
        K: AsRef<[u8]>,
        A: AsRef<[u8]>,
    {
        Ok(self.scripts_only(script, calls, None).await?.unwrap_or_default())
    }

    /// The same, only of the home of that number; `None`: it is another one by now, and nothing was done.
    ///
    /// # Errors
    /// What kept all answers away.
    pub(super) async fn scripts_only<K, A>(
        &self,
        script: &Script,
        calls: &[(&[K], &[A])],
        only: Option<u64>,
    ) -> Result<Option<Vec<Result<Told>>>>
    where
        K: AsRef<[u8]>,
        A: AsRef<[u8]>,
    {
        let ask = |calls: &[&(&[K], &[A])]| {
            let mut request = Request::default();
            calls.iter().for_each(|(keys, args)| request.script(script, keys, args));
            self.ask_each(request, only)
        };
        let all: Vec<_> = calls.iter().collect();
        let Some(mut answers) = ask(&all).await? else { return Ok(None) };
        let is_unknown = |at: &usize| answers[*at].as_ref().is_ok_and(is_unknown_script);
        let unknown: Vec<usize> = (0..answers.len()).filter(is_unknown).collect();
        if !unknown.is_empty() {
            // The server forgot its scripts (a restart, SCRIPT FLUSH): none of these did anything.
            self.ask(scripts::load()).await?;
            let again: Vec<_> = unknown.iter().map(|at| &calls[*at]).collect();
            let Some(more) = ask(&again).await? else { return Ok(None) };
            for (at, answer) in unknown.into_iter().zip(more) {
                answers[at] = answer;
            }
        }
        let told = answers.into_iter().zip(calls).map(|(answer, (keys, _))| self.told(script, keys, answer?));
        Ok(Some(told.collect()))
    }
}

/// A command, as errors name it: with its key.
struct Words<'a, W>(&'a [W]);

impl<W: AsRef<[u8]>> Display for Words<'_, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut words = self.0.iter().take(2).map(|word| String::from_utf8_lossy(word.as_ref()));
        f.write_str(&words.next().unwrap_or_default())?;
        words.try_for_each(|word| write!(f, " {word}"))
    }
}

/// A script, as errors name it: with its first key, or all that may be meant.
struct About<'a, K> {
    script: &'static str,
    keys: &'a [K],
}

impl<K: AsRef<[u8]>> Display for About<'_, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "script {} of", self.script)?;
        self.keys
            .iter()
            .take(NAMED)
            .try_for_each(|key| write!(f, " {}", String::from_utf8_lossy(key.as_ref())))?;
        if self.keys.len() > NAMED { f.write_str(" and others") } else { Ok(()) }
    }
}

/// What a script answered.
#[derive(Clone, Debug)]
pub(super) struct Told {
    server: Arc<str>,
    script: &'static str,
    pub(super) items: Vec<Reply>,
}

impl Told {
    /// The word it begins with.
    pub(super) fn word(&self) -> &str {
        self.text(0)
    }

    /// What stands at that place, as text; empty where nothing does.
    pub(super) fn text(&self, at: usize) -> &str {
        self.items.get(at).and_then(Reply::text).unwrap_or_default()
    }

    /// The error for an answer that nobody expects.
    pub(super) fn strange(&self) -> crate::Error {
        strange(&self.server, self.script, &self.items)
    }
}

/// The answer of a server, unless it is an error.
pub(super) fn checked(server: &str, about: impl Display, answer: Reply) -> Result<Reply> {
    match answer {
        Reply::Error(text) => Err(refused(server, about, &text)),
        answer => Ok(answer),
    }
}

/// Opens a connection on which our scripts are known.
pub(super) async fn open(redis: &Redis) -> Result<Routed, redis::Error> {
    let scripts = scripts::load();
    let commands = scripts.commands();
    redis.routed(scripts.into_bytes(), commands).await
}

/// A connection that ended with something open: the number that its server gave it, and the start of that server.
pub(super) type Ended = (i64, Option<String>);

/// What is to be known of a connection that is given up; nothing in a cluster, where it ends by itself what is left at the nodes.
pub(super) fn ended(connection: &Routed) -> Option<Ended> {
    connection.client_id().map(|id| (id, connection.server().run_id.clone()))
}

/// The same as [`open`] after another one, which is ended at the server first: what it was sent and did not read yet would come behind what is asked
/// now. Where this user may not do that, it is not done.
pub(super) async fn open_after(redis: &Redis, ended: Option<&Ended>) -> Result<Routed, redis::Error> {
    let mut connection = open(redis).await?;
    if let Some((id, run)) = ended
        && run.is_some()
        && *run == connection.server().run_id
    {
        let mut end = Request::default();
        end.command(&["CLIENT", "KILL", "ID", &id.to_string()]);
        converse(&mut connection, end, ANSWER, &mut Vec::new()).await?;
    }
    Ok(connection)
}

/// Sends commands and takes their answers, each within `limit`. What was answered before a failure is in `answers`.
async fn converse(
    connection: &mut Routed,
    request: Request,
    limit: Duration,
    answers: &mut Vec<Reply>,
) -> Result<(), redis::Error> {
    let commands = request.commands();
    connection.send_packed(request.into_bytes(), commands).await?;
    for _ in 0..commands {
        answers.push(connection.receive(limit).await?);
    }
    Ok(())
}

async fn serve(
    redis: Redis,
    mut connection: Option<Routed>,
    mut receiver: mpsc::Receiver<Asked>,
    home: Arc<Mutex<Home>>,
) {
    let mut together = Vec::new();
    let mut left = None;
    let limit = if redis.is_cluster() { NODE_ANSWER } else { ANSWER };
    while receiver.recv_many(&mut together, WAITING).await > 0 {
        if let Some(line) = connection.take_if(|line| line.has_ended()) {
            left = ended(&line);
        }
        let mut line = match connection.take() {
            Some(open) => open,
            None => match open_after(&redis, left.as_ref()).await {
                Ok(open) => {
                    left = None;
                    open
                }
                Err(error) => {
                    together.drain(..).for_each(|asked| _ = asked.answer.send(Err(error.clone())));
                    continue;
                }
            },
        };
        let number = {
            let mut home = home.lock().unwrap_or_else(PoisonError::into_inner);
            home.lead_to(line.identity());
            home.number
        };
        let one = !redis.is_cluster();
        for asked in together.extract_if(.., |asked| one && asked.only.is_some_and(|only| only != number)) {
            _ = asked.answer.send(Ok(None));
        }
        let mut request = Request::default();
        together.iter().for_each(|asked| request.append(&asked.request));
        let of_each = |asked: &Asked| vec![asked.only.unwrap_or(u64::MAX); asked.request.commands()];
        let only = if one { Vec::new() } else { together.iter().flat_map(of_each).collect() };
        let commands = request.commands();
        // In a cluster each has its own: a node that is away fails what is its own.
        let mut answers = line.ask_only(request.into_bytes(), commands, only, limit).await.into_iter();
        for asked in together.drain(..) {
            let mine = answers.by_ref().take(asked.request.commands()).collect();
            _ = asked.answer.send(Ok(Some(mine)));
        }
        connection = Some(line);
    }
}

//! The two tasks of a member: one acts on the server, one thing after the other; one reads what it owns.
//!
//! Not here: what is to be done (`core.rs`), the connections (`../commands.rs`, `../feed.rs`).

use super::{
    Member,
    duty::{AT_ONCE, Job, Stored},
    reading::Plan,
    share::{Commit, done_before},
    table::{Counts, Table, name, partition},
};
use crate::{
    Error, ErrorKind, Owned, Position, Result,
    balance::TopicPartition,
    members::{Core as _, Shell as _, Stirred},
    redis::{
        commands::Told,
        feed::{Ask, Feed, answered},
        keys::PartitionKeys,
        lasting::{Refusals, is_refusal},
        scripts::{self, Script},
    },
};
use futures::future::join_all;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, sleep_until};

/// How long a read waits for what comes.
const WAIT: Duration = Duration::from_secs(1);
/// The longest pause of who reads after a failure; it begins at a twentieth.
const PAUSE: Duration = Duration::from_secs(1);

/// Leaves a group that was joined by an answer nobody waited for.
struct Joining<'a> {
    member: &'a Arc<Member>,
    token: Option<String>,
}

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        if let Some(token) = self.token.take() {
            let member = Arc::clone(self.member);
            // Behind the request to join, on the same connection.
            let runtime = member.runtime.clone();
            runtime.spawn(async move { member.release(&token, "leave", "", &[]).await });
        }
    }
}

/// Joins; answers the token of the membership.
pub(super) async fn join(member: &Arc<Member>) -> Result<String> {
    let token = member.token();
    let mut joining = Joining { member, token: Some(token.clone()) };
    let (sent, topics) = (Instant::now(), member.core().topics());
    let told = member.lease(&token, "join", &topics).await?;
    let table = Table::of(&told);
    let counts = member.counts(&table).await?;
    _ = member.core().held(table, counts, None, sent);
    joining.token = None;
    Ok(token)
}

/// Leaves forwards to nobody when the task that sends them ends, also where that is with its runtime.
struct Sender(Arc<Member>);

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.core().rounds.leave();
    }
}

/// Does what is to be done, until the member has ended.
pub(super) async fn keep(member: Arc<Member>, mut token: String) {
    let _sender = Sender(Arc::clone(&member));
    loop {
        let (job, home, waker) = {
            let home = member.shared.topics().commands.home();
            let mut core = member.core();
            let now = Instant::now();
            let moved = core.moved(&home);
            let waker = core.tick(now).or(moved);
            let job = core.next_job(now);
            member.count(&mut core);
            (job, core.home, waker)
        };
        member.stir(Stirred { waker, ..Stirred::default() });
        match job {
            Job::Wait(until) => tokio::select! {
                () = sleep_until(until) => {}
                () = member.keeper.notified() => {}
            },
            Job::End => break,
            job => {
                let result = watched(&member, member.act(&job, home, &mut token)).await;
                let stirred = match result {
                    Ok(stirred) => {
                        member.core().did(&job);
                        stirred
                    }
                    Err(error) => {
                        let error = member.failed(error);
                        let waker = member.core().failed(&job, &error, Instant::now());
                        Stirred { waker, ..Stirred::default() }
                    }
                };
                member.stir(stirred);
            }
        }
    }
    // Who reads, and who polls, see the end.
    let stirred = Stirred { waker: member.core().owner.waker.take(), keeper: false, feed: true };
    member.stir(stirred);
}

/// Waits for what is under way; what is due by the clock is done meanwhile.
async fn watched<T>(member: &Member, act: impl Future<Output = T>) -> T {
    tokio::pin!(act);
    loop {
        let due = member.core().due().unwrap_or_else(|| Instant::now() + WAIT);
        tokio::select! {
            biased;
            done = &mut act => return done,
            () = sleep_until(due) => {
                let waker = member.core().tick(Instant::now());
                member.stir(Stirred { waker, ..Stirred::default() });
                // Where the time is over and the server is awaited.
                sleep(Duration::from_millis(1)).await;
            }
            // It looks for all there is to do when this is over; what is due by the clock may have changed.
            () = member.keeper.notified() => {}
        }
    }
}

impl Member {
    async fn act(&self, job: &Job, home: u64, token: &mut String) -> Result<Stirred> {
        let waker = |waker| Stirred { waker, ..Stirred::default() };
        match job {
            Job::Wait(_) | Job::End => Ok(Stirred::default()),
            Job::Renew { ask } => self.renew(token, ask.as_deref()).await,
            Job::Join { topics } => {
                *token = self.token();
                let sent = Instant::now();
                let table = Table::of(&self.lease(token, "join", topics).await?);
                let counts = self.counts(&table).await?;
                let mut core = self.core();
                core.joined();
                Ok(waker(core.held(table, counts, Some(topics), sent)))
            }
            Job::Commit(commits) => {
                for commits in commits.chunks(AT_ONCE) {
                    let stored = self.commit(commits, home).await?;
                    self.stir(waker(self.core().stored(commits, stored, Instant::now())));
                }
                Ok(Stirred::default())
            }
            Job::Forward => self.forward().await,
            Job::Release { verb, whom, partitions } => {
                self.release(token, verb, whom, partitions).await?;
                self.core().released(partitions);
                Ok(Stirred::default())
            }
            Job::Claim(partitions) => self.claim(token, partitions).await,
            Job::TakeOver(partitions) => {
                let mut taken = self.take_over(partitions, home).await?;
                let mut core = self.core();
                if core.home != home {
                    taken.fill_with(|| Ok(None));
                }
                Ok(core.taken(partitions, taken, Instant::now()))
            }
            Job::Leave => {
                self.release(token, "leave", "", &[]).await?;
                Ok(waker(self.core().left()))
            }
        }
    }

    async fn run(&self, script: &Script, keys: &[String], args: &[&str]) -> Result<Told> {
        self.shared.topics().commands.script(script, keys, args).await
    }

    async fn lease(&self, token: &str, verb: &str, topics: &str) -> Result<Told> {
        let keys = &self.keys;
        let keys = [keys.members(), keys.asked(), keys.owners(), keys.news(), keys.had()];
        let lease = self.core().rules.lease.as_millis().to_string();
        self.run(&scripts::LEASE, &keys, &[&self.name, token, &lease, verb, topics]).await
    }

    async fn renew(&self, token: &str, ask: Option<&str>) -> Result<Stirred> {
        let sent = Instant::now();
        let verb = if ask.is_some() { "ask" } else { "renew" };
        let told = self.lease(token, verb, ask.unwrap_or_default()).await?;
        let waker = match told.word() {
            "held" => {
                let table = Table::of(&told);
                let counts = self.counts(&table).await?;
                self.core().held(table, counts, ask, sent)
            }
            "fenced" => self.core().fenced(self.group.as_str()),
            "lost" => self.core().lost(),
            _ => return Err(told.strange()),
        };
        Ok(Stirred { waker, keeper: false, feed: false })
    }

    /// How many partitions the topics have that somebody in the table consumes; all are asked for at once. One that cannot be asked for now has as many as it
    /// had, or as are owned, as those see it who know more: the lease holds without it.
    async fn counts(&self, table: &Table) -> Result<Counts> {
        let topics = table.topics();
        let asked = self.shared.topics();
        let described = join_all(topics.iter().map(|topic| asked.ask(topic))).await;
        let mut counts = Counts::new();
        for (topic, described) in topics.into_iter().zip(described) {
            let count = match described {
                Ok(description) => Some(description.spec.partitions),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) if error.is_retryable() => {
                    let known = self.core().counts.get(&topic).copied();
                    known.or_else(|| table.owned_of(&topic))
                }
                Err(error) => return Err(error),
            };
            counts.extend(count.map(|count| (topic, count)));
        }
        Ok(counts)
    }

    async fn release(
        &self,
        token: &str,
        verb: &str,
        whom: &str,
        partitions: &[TopicPartition],
    ) -> Result<()> {
        let keys = &self.keys;
        let keys = [keys.members(), keys.asked(), keys.owners(), keys.news(), keys.had()];
        let names: Vec<String> = partitions.iter().map(name).collect();
        let mut args = vec![self.name.as_str(), token, verb, whom];
        args.extend(names.iter().map(String::as_str));
        let told = self.run(&scripts::RELEASE, &keys, &args).await?;
        if told.word() == "released" { Ok(()) } else { Err(told.strange()) }
    }

    async fn claim(&self, token: &str, partitions: &[TopicPartition]) -> Result<Stirred> {
        let keys = &self.keys;
        let keys = [keys.asked(), keys.owners(), keys.had(), keys.news()];
        let names: Vec<String> = partitions.iter().map(name).collect();
        let mut args = vec![self.name.as_str(), token];
        args.extend(names.iter().map(String::as_str));
        let told = self.run(&scripts::CLAIM, &keys, &args).await?;
        let mut core = self.core();
        match told.word() {
            "claimed" => {
                let won = (1..told.items.len()).filter_map(|at| partition(told.text(at))).collect();
                core.claimed(partitions.len(), won);
            }
            // The next renewal tells why.
            "fenced" => core.news(),
            _ => return Err(told.strange()),
        }
        Ok(Stirred::default())
    }

    /// What each commit came to. Where the server is another one by now than the one they are for, all are over.
    async fn commit(&self, commits: &[Commit], home: u64) -> Result<Vec<Result<Stored>>> {
        let number = |number: Option<u64>| number.map(|n| n.to_string()).unwrap_or_default();
        let arguments = |commit: &Commit| {
            let mut args: Vec<Vec<u8>> = vec![
                number(commit.life).into(),
                self.group.as_str().into(),
                commit.of.epoch.to_string().into(),
            ];
            match &commit.store {
                None => args.resize(8, Vec::new()),
                Some(store) => args.extend([
                    store.position.to_string().into(),
                    number(store.read).into(),
                    store.map.clone(),
                    number(store.beyond).into(),
                    done_before(store.position).to_string().into(),
                ]),
            }
            (self.partition_keys(&commit.keys), args)
        };
        let calls: Vec<_> = commits.iter().map(arguments).collect();
        let calls: Vec<_> = calls.iter().map(|(keys, args)| (&keys[..], &args[..])).collect();
        let answers = self.shared.topics().commands.scripts_only(&scripts::COMMIT, &calls, Some(home));
        let Some(answers) = answers.await? else {
            return Ok(commits.iter().map(|_| Ok(Stored::Over)).collect());
        };
        let stored = answers.into_iter().map(|told| {
            let told = told.map_err(|error| self.failed(error))?;
            match told.word() {
                "stored" => Ok(Stored::Yes),
                "fenced" | "life" => Ok(Stored::Over),
                _ => Err(self.failed(told.strange())),
            }
        });
        Ok(stored.collect())
    }

    /// What is told of a failure.
    pub(super) fn failed(&self, error: Error) -> Error {
        tracing::debug!(%error, group = %self.group, "a member of a group tries again");
        error.during(format!("consume in group {:?}", self.group))
    }

    pub(super) fn partition_keys(&self, keys: &PartitionKeys) -> [String; 3] {
        [keys.log().to_owned(), keys.part(), keys.group(&self.group)]
    }
}

/// Reads what the member owns, and hears the news of its group, until it has ended.
pub(super) async fn read(member: Arc<Member>) {
    let mut feed = Feed::new(member.shared.redis().clone(), member.shared.topics().commands.clone());
    let news = member.keys.news();
    let mut heard = Position(0, 0);
    let mut pause = PAUSE / 20;
    let (mut looked, mut doubtful) = (Instant::now(), false);
    let (mut refusals, mut blind) = (Refusals::default(), Refusals::default());
    loop {
        member.wake.turn();
        let mut plan = {
            let mut core = member.core();
            if core.owner.over {
                return;
            }
            core.plan(WAIT, Instant::now())
        };
        let before = heard;
        let read =
            feed.read(&plan.asks, plan.count, plan.wait, Some((&news, &mut heard)), member.wake.blocked());
        match read.await {
            Ok(brought) => {
                pause = PAUSE / 20;
                refusals.over();
                let brought = answered(&mut plan.asks, &mut plan.of, brought);
                let came = brought.iter().any(|brought| !brought.entries.is_empty());
                let (waker, lost) = {
                    let mut core = member.core();
                    if heard != before {
                        core.news();
                    }
                    let moved = core.moved(feed.home());
                    let (waker, lost) = if core.home == feed.home().number {
                        core.take(&plan, brought, Instant::now())
                    } else {
                        (None, false)
                    };
                    (waker.or(moved), lost || core.look)
                };
                member.stir(Stirred { waker, keeper: lost || heard != before, feed: false });
                doubtful |= came || feed.may_be_another();
                if looked.elapsed() >= WAIT {
                    looked = Instant::now();
                    let verified = if doubtful { member.verify(&plan).await } else { Ok(()) };
                    doubtful = verified.is_err();
                    match verified.and(member.check(&plan).await) {
                        Err(error) if blind.last(&error, looked) => return member.fail(error),
                        Err(error) => {
                            tracing::debug!(%error, group = %member.group, "a member looks for its logs again");
                        }
                        Ok(()) => blind.over(),
                    }
                }
            }
            Err(error) if member.core().can_do_with_less(&error) => {
                tracing::debug!(%error, group = %member.group, "a member of a group asks for less");
            }
            Err(error) => {
                if refusals.last(&error, Instant::now()) {
                    return member.fail(error);
                }
                tracing::debug!(%error, group = %member.group, "a member of a group reads again");
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE);
            }
        }
    }
}

impl Member {
    /// Nobody but the user can change what keeps it from reading.
    fn fail(&self, error: Error) {
        let error = error.during(format!("consume in group {:?}", self.group));
        let waker = self.core().fail(error, Instant::now());
        self.stir(Stirred { waker, keeper: true, feed: false });
    }

    /// Looks whether the logs that are read are there; where one is not, the next read tells what was lost.
    async fn check(&self, plan: &Plan) -> Result<()> {
        let ours = |of: &Owned| self.core().is_ours(of);
        let logs = plan.of.iter().zip(&plan.asks).filter(|(of, _)| ours(of));
        let logs: Vec<_> = logs.map(|(of, ask)| (&of.topic, &ask.keys)).collect();
        self.shared.topics().check(&logs, self.shared.redis().is_cluster()).await
    }

    /// Looks whether somebody else removed what was not read yet, or the log lost its end. What cannot be asked now is asked the next time; what the
    /// server refuses to tell is an error.
    async fn verify(&self, plan: &Plan) -> Result<()> {
        let mut extents = Vec::with_capacity(plan.of.len());
        let topics = self.shared.topics();
        let asked = |(of, ask): (&Owned, &Ask)| {
            let (topic, keys) = (of.topic.clone(), ask.keys.clone());
            async move { topics.extents(&topic, std::slice::from_ref(&keys)).await }
        };
        // Nothing is read meanwhile: at once, whatever their number.
        let asked = join_all(plan.of.iter().zip(&plan.asks).map(asked)).await;
        for (of, found) in plan.of.iter().zip(asked) {
            match found {
                Ok(found) => extents.extend(found.into_iter().map(|extent| (of.clone(), extent))),
                Err(error) if is_refusal(&error) => return Err(error),
                Err(_) => {}
            }
        }
        let home = self.shared.topics().commands.home();
        let mut core = self.core();
        let moved = core.moved(&home);
        let (waker, lost) = core.verify(&extents);
        drop(core);
        self.stir(Stirred { waker: waker.or(moved), keeper: lost, feed: false });
        Ok(())
    }
}

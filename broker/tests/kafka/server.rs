//! A real Kafka for tests, topics on it, and consumers that keep what they are told.
//!
//! Not here: servers (`cargo xtask servers`).

use super::raw::{
    Answered, Code, Conf, Consumer, HeaderList, Notes, Place, Producer, Record, Report, Told, Trouble, Valued,
};
use crate::trials::ignore;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use std::{
    sync::{Arc, mpsc},
    time::Duration,
};
use tokio::time::Instant;
use uuid::Uuid;

const NONE: &str = "no Kafka: run `cargo xtask test`, or set ROPEWAY_TEST_KAFKA_URL (`cargo xtask servers up kafka` prints it)";

/// How long anything may take that must happen.
pub(super) const LONG: Duration = Duration::from_secs(40);

/// Where the server is.
pub(super) fn bootstrap() -> String {
    let url = std::env::var("ROPEWAY_TEST_KAFKA_URL").ok().filter(|url| !url.is_empty());
    let Some(url) = url else { ignore(NONE) };
    url.trim_start_matches("kafka://").split(['/', '?']).next().unwrap().to_owned()
}

/// A name that nobody else uses.
pub(super) fn unique(what: &str) -> String {
    format!("raw-{what}-{}", &Uuid::new_v4().simple().to_string()[..12])
}

/// The crate's own administration.
pub(super) fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", bootstrap()).create().unwrap()
}

/// Waits for something of the crate.
pub(super) fn block_on<T>(what: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(what)
}

/// A new topic, with settings.
pub(super) fn topic(partitions: i32, settings: &[(&str, &str)]) -> Arc<str> {
    let name = unique("topic");
    let mut new = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
    for (name, value) in settings {
        new = new.set(name, value);
    }
    let made = block_on(admin().create_topics([&new], &AdminOptions::new())).unwrap();
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    let (admin, until) = (admin(), Instant::now() + LONG);
    // A busy server answers before it knows of the topic itself.
    let is_there = || {
        let told = admin.inner().fetch_metadata(Some(&name), LONG).unwrap();
        let parts = told.topics()[0].partitions();
        parts.len() == partitions as usize && parts.iter().all(|part| part.leader() >= 0)
    };
    while !is_there() {
        assert!(Instant::now() < until, "topic {name} is not seen");
        std::thread::sleep(Duration::from_millis(20));
    }
    name.into()
}

/// Settings of a client of the server.
pub(super) fn conf(settings: &[(&str, &str)]) -> Conf {
    conf_at(&bootstrap(), settings)
}

/// The same of a client of another one.
pub(super) fn conf_at(servers: &str, settings: &[(&str, &str)]) -> Conf {
    let mut conf = Conf::new();
    conf.set("bootstrap.servers", servers).unwrap();
    conf.set("reconnect.backoff.max.ms", "500").unwrap();
    for (name, value) in settings {
        conf.set(name, value).unwrap();
    }
    conf
}

pub(super) fn producer(settings: &[(&str, &str)]) -> Producer {
    Producer::open(conf(settings), Arc::default()).unwrap()
}

/// No headers.
pub(super) type None = fn(&mut HeaderList);

impl Valued for Vec<u8> {
    fn value(&self) -> Option<&[u8]> {
        Some(self)
    }
}

/// One value, for a batch of one record.
pub(super) fn one() -> Arc<Vec<Vec<u8>>> {
    Arc::new(vec![b"x".to_vec()])
}

/// A record without headers, of now.
pub(super) fn plain(partition: i32, at: usize) -> Record<'static, None> {
    Record { at, partition, key: None, timestamp: 0, headers: |_| {} }
}

/// Sends values to a partition, and what became of them.
pub(super) fn send(producer: &Producer, topic: &str, partition: i32, values: &[Vec<u8>]) -> Vec<Report> {
    let (done, reports) = mpsc::channel();
    let topic = producer.topic(topic).unwrap();
    let records = (0..values.len()).map(|at| plain(partition, at));
    producer.send(
        &topic,
        &Arc::new(values.to_vec()),
        records,
        Box::new(move |reports| done.send(reports).unwrap()),
    );
    reports.recv_timeout(LONG).unwrap()
}

/// Values that say which they are.
pub(super) fn values(from: usize, to: usize) -> Vec<Vec<u8>> {
    (from..to).map(|number| number.to_string().into_bytes()).collect()
}

/// Writes values, all of which are taken.
pub(super) fn write(topic: &str, partition: i32, values: &[Vec<u8>]) {
    let reports = send(&producer(&[]), topic, partition, values);
    assert!(reports.iter().all(|report| report.code == Code::NONE), "{reports:?}");
}

/// What a consumer was told, kept.
#[derive(Debug, Clone)]
pub(super) enum Seen {
    Record { partition: i32, offset: i64, value: Option<Vec<u8>> },
    Problem { code: Code, place: Option<Place> },
    Assigned(Vec<Place>),
    Revoked { partitions: Vec<Place>, lost: bool },
    Committed { result: Result<(), Trouble>, partitions: Vec<Answered>, token: u64 },
}

/// A consumer, and what it was told.
pub(super) struct Member {
    pub(super) consumer: Consumer,
    pub(super) notes: Arc<Notes>,
    pub(super) seen: Vec<Seen>,
}

impl Member {
    /// One of a group, on the classic cooperative protocol, unless settings say another.
    pub(super) fn of(group: &str, settings: &[(&str, &str)]) -> Self {
        let classic = !settings.iter().any(|(name, _)| *name == "group.protocol");
        let mut conf = conf(&[("group.id", group)]);
        if classic {
            conf.set("partition.assignment.strategy", "cooperative-sticky").unwrap();
            conf.set("session.timeout.ms", "6000").unwrap();
            conf.set("heartbeat.interval.ms", "300").unwrap();
        }
        for (name, value) in settings {
            conf.set(name, value).unwrap();
        }
        Self::open(conf)
    }

    pub(super) fn open(conf: Conf) -> Self {
        let notes = Arc::<Notes>::default();
        Self { consumer: Consumer::open(conf, Arc::clone(&notes)).unwrap(), notes, seen: Vec::new() }
    }

    /// One without a group that reads a partition.
    pub(super) fn reading(topic: &Arc<str>, partition: i32, offset: i64, settings: &[(&str, &str)]) -> Self {
        let member = Self::of(&unique("none"), settings);
        member.consumer.assign(&[Place::new(topic, partition, offset)]).unwrap();
        member
    }

    /// Polls once.
    pub(super) fn poll(&mut self, wait: Duration) -> usize {
        let seen = &mut self.seen;
        self.consumer.next(wait, 1_000, &mut |told| {
            seen.push(match told {
                Told::Record(record) => Seen::Record {
                    partition: record.partition,
                    offset: record.offset,
                    value: record.value.map(<[u8]>::to_vec),
                },
                Told::Problem { code, place, .. } => Seen::Problem { code, place },
                Told::Assigned(places) => Seen::Assigned(places),
                Told::Revoked { partitions, lost } => Seen::Revoked { partitions, lost },
                Told::Committed { result, partitions, token } => {
                    Seen::Committed { result, partitions, token }
                }
            });
        })
    }

    /// Polls for a while.
    pub(super) fn poll_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.poll(Duration::from_millis(20));
        }
    }

    /// Polls until what was seen has something, which is taken out.
    pub(super) fn until<T>(&mut self, what: &str, mut is: impl FnMut(&Seen) -> Option<T>) -> T {
        let until = Instant::now() + LONG;
        loop {
            if let Some((at, found)) =
                self.seen.iter().enumerate().find_map(|(at, seen)| Some((at, is(seen)?)))
            {
                self.seen.remove(at);
                return found;
            }
            assert!(Instant::now() < until, "no {what}: {:?}", self.seen);
            self.poll(Duration::from_millis(100));
        }
    }

    pub(super) fn assigned(&mut self) -> Vec<Place> {
        self.until(
            "assignment",
            |seen| if let Seen::Assigned(places) = seen { Some(places.clone()) } else { None },
        )
    }

    pub(super) fn revoked(&mut self) -> (Vec<Place>, bool) {
        self.until("revocation", |seen| match seen {
            Seen::Revoked { partitions, lost } => Some((partitions.clone(), *lost)),
            _ => None,
        })
    }

    /// Joins, and takes what it is given, from the beginning, until it has so many partitions.
    pub(super) fn join(&mut self, topic: &str, partitions: usize) -> Vec<Place> {
        self.consumer.subscribe(&[topic]).unwrap();
        let mut has = Vec::new();
        while has.len() < partitions {
            has.extend(self.take());
        }
        has
    }

    /// Takes what it is given next.
    pub(super) fn take(&mut self) -> Vec<Place> {
        let mut places = self.assigned();
        places.iter_mut().for_each(|place| place.offset = 0);
        self.consumer.incremental_assign(&places).unwrap();
        places
    }

    /// Commits, and the answer; again where a server that was just started does not know yet who answers for groups.
    pub(super) fn commit(&mut self, places: &[Place]) -> (Result<(), Trouble>, Vec<Answered>) {
        let early = [Code::WAIT_COORD, Code::COORDINATOR_LOAD_IN_PROGRESS, Code::NOT_COORDINATOR];
        let until = Instant::now() + LONG;
        loop {
            let answer = self.commit_once(places);
            let is_early = answer.0.as_ref().is_err_and(|trouble| early.contains(&trouble.code));
            if !is_early || Instant::now() > until {
                return answer;
            }
            self.poll_for(Duration::from_millis(100));
        }
    }

    fn commit_once(&mut self, places: &[Place]) -> (Result<(), Trouble>, Vec<Answered>) {
        self.consumer.commit(places, 7).unwrap();
        self.until("answer to the commit", |seen| match seen {
            Seen::Committed { result, partitions, token: 7 } => Some((result.clone(), partitions.clone())),
            _ => None,
        })
    }

    /// Values of records that were read, until there are so many.
    pub(super) fn values(&mut self, count: usize) -> Vec<Vec<u8>> {
        let until = Instant::now() + LONG;
        loop {
            let values: Vec<Vec<u8>> = self.records().into_iter().map(|(_, value)| value).collect();
            if values.len() >= count {
                return values;
            }
            assert!(Instant::now() < until, "{} of {count}: {:?}", values.len(), self.seen.last());
            self.poll(Duration::from_millis(100));
        }
    }

    /// Offsets and values of what was read so far.
    pub(super) fn records(&self) -> Vec<(i64, Vec<u8>)> {
        let record = |seen: &Seen| match seen {
            Seen::Record { offset, value, .. } => Some((*offset, value.clone().unwrap_or_default())),
            _ => None,
        };
        self.seen.iter().filter_map(record).collect()
    }
}

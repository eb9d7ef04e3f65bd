//! What is known of topics: asked from the servers, and kept for a short time.
//!
//! The one place that knows ids of topics. What is kept may be old for [`FRESH`] (how a topic is configured for [`CONFIG`]): that long another process may
//! not know of added partitions. A topic that does not exist is answered at once. Not here: changing topics (`admin.rs`), what follows from what is
//! known (`facts.rs`).

use super::{
    facts::{Described, PartitionFacts, TopicConfig, fold},
    failure::{failed, failed_by_crate, late, not_found, refused},
    raw::{self, Code},
};
use crate::{Result, Topic};
use rdkafka::{
    admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier},
    client::DefaultClientContext,
    types::RDKafkaErrorCode,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// For how long a description is believed.
const FRESH: Duration = Duration::from_secs(1);
/// For how long it is believed how a topic is configured.
const CONFIG: Duration = Duration::from_secs(10);
/// How many descriptions are kept.
const KEPT: usize = 4096;
/// How long it is asked which server is the controller, after one did not answer.
const CONTROLLER: Duration = Duration::from_secs(1);
/// How often.
const TRIES: usize = 3;
/// How long one question may take.
pub(super) const ANSWER: Duration = Duration::from_secs(10);

/// Descriptions of topics.
pub(super) struct Topics {
    admin: Arc<raw::Admin>,
    client: Arc<AdminClient<DefaultClientContext>>,
    servers: Arc<str>,
    known: Mutex<HashMap<Topic, Known>>,
    changes: AtomicU64,
    /// Held by who asks for many.
    asking: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Topics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topics").field("known", &self.known().len()).finish_non_exhaustive()
    }
}

/// Which topic of that name it is, and which partitions it has; not how it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// The id, folded.
    pub(super) life: u64,
    /// Its partitions, by number: whether each has a leader now.
    pub(super) led: Vec<bool>,
}

impl Identity {
    /// How many partitions it has.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.led.len()).unwrap_or(u32::MAX)
    }

    /// Those of these partitions that can be asked about now.
    pub(super) fn askable(&self, partitions: impl IntoIterator<Item = u32>) -> Vec<u32> {
        let led = |partition: &u32| self.led.get(*partition as usize).is_some_and(|led| *led);
        partitions.into_iter().filter(led).collect()
    }
}

/// What servers say of topics: id and partitions of each, or why not.
type Told = BTreeMap<Topic, Result<([u8; 16], Vec<PartitionFacts>)>>;

#[derive(Debug)]
struct Known {
    described: Arc<Described>,
    at: Instant,
    configured_at: Instant,
}

impl Topics {
    pub(super) fn new(
        admin: Arc<raw::Admin>,
        client: Arc<AdminClient<DefaultClientContext>>,
        servers: Arc<str>,
    ) -> Self {
        Self {
            admin,
            client,
            servers,
            known: Mutex::default(),
            changes: AtomicU64::new(0),
            asking: tokio::sync::Mutex::default(),
        }
    }

    /// The description, which may be a moment old.
    ///
    /// # Errors
    /// `NotFound`; those of the connection.
    pub(super) async fn get(&self, topic: &Topic) -> Result<Arc<Described>> {
        match self.kept(topic, |at| at.elapsed() < FRESH) {
            Some(kept) => Ok(kept),
            None => self.describe(topic).await,
        }
    }

    /// The description, asked for after that moment. Those who want it at the same time wait for one question, and the next one is for all that came
    /// meanwhile.
    ///
    /// # Errors
    /// `NotFound`; those of the connection.
    pub(super) async fn since(&self, topic: &Topic, since: Instant) -> Result<Arc<Described>> {
        let _one = self.asking.lock().await;
        match self.kept(topic, |at| at >= since) {
            Some(kept) => Ok(kept),
            None => self.describe(topic).await,
        }
    }

    /// What is kept, if it was asked for at an acceptable time.
    fn kept(&self, topic: &Topic, is_acceptable: impl Fn(Instant) -> bool) -> Option<Arc<Described>> {
        let known = self.known();
        let known = known.get(topic).filter(|known| is_acceptable(known.at));
        known.map(|known| Arc::clone(&known.described))
    }

    /// The description as it is now; how it is configured may be some seconds old.
    ///
    /// # Errors
    /// `NotFound`; those of the connection.
    pub(super) async fn describe(&self, topic: &Topic) -> Result<Arc<Described>> {
        let at = Instant::now();
        let changes = self.changes();
        let (id, partitions) = match self.look_at(topic).await {
            Ok(found) => found,
            Err(error) => {
                if error.kind() == crate::ErrorKind::NotFound {
                    self.known().remove(topic);
                }
                return Err(error);
            }
        };
        let kept = {
            let known = self.known();
            let known = known
                .get(topic)
                .filter(|known| known.described.id == id && known.configured_at.elapsed() < CONFIG);
            known.map(|known| (known.described.config.clone(), known.configured_at))
        };
        let (config, configured_at) = match kept {
            Some(kept) => kept,
            None => (self.config(topic).await?, at),
        };
        let described = Arc::new(Described::new(id, partitions, config));
        // What was asked before somebody changed something is not kept.
        if changes == self.changes() {
            let mut known = self.known();
            if known.len() >= KEPT {
                known.clear();
            }
            known.insert(topic.clone(), Known { described: Arc::clone(&described), at, configured_at });
        }
        Ok(described)
    }

    /// Does not believe what is kept any more: somebody here changed the topic, or a server said something else.
    pub(super) fn forget(&self, topic: &Topic) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.known().remove(topic);
    }

    /// How often something was forgotten: what was learned at another count may be wrong.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Which topics these are now, all by one question: of each what it is, or why that is not known.
    ///
    /// # Errors
    /// Those of the connection.
    pub(super) async fn identify(
        &self,
        topics: impl IntoIterator<Item = &Topic>,
    ) -> Result<BTreeMap<Topic, Result<Identity>>> {
        let topics: BTreeSet<Topic> = topics.into_iter().cloned().collect();
        let identity = |(id, partitions): ([u8; 16], Vec<PartitionFacts>)| Identity {
            life: fold(id),
            led: partitions.iter().map(|partition| partition.led).collect(),
        };
        let told = self.look(topics).await?;
        Ok(told.into_iter().map(|(topic, told)| (topic, told.map(identity))).collect())
    }

    /// Id and partitions of one.
    async fn look_at(&self, topic: &Topic) -> Result<([u8; 16], Vec<PartitionFacts>)> {
        self.look([topic.clone()].into()).await?.remove(topic).unwrap_or_else(|| Err(not_found(topic)))
    }

    /// Id and partitions.
    async fn look(&self, topics: BTreeSet<Topic>) -> Result<Told> {
        if topics.is_empty() {
            return Ok(Told::new());
        }
        let admin = Arc::clone(&self.admin);
        let asked = tokio::task::spawn_blocking(move || {
            let names: Vec<&str> = topics.iter().map(Topic::as_str).collect();
            admin.describe_topics(&names, ANSWER).map(|told| (topics, told))
        });
        let answered = asked.await.map_err(|_| late(&self.servers))?;
        let (topics, told) = answered.map_err(|trouble| failed(&self.servers, &trouble))?;
        let facts = |partition: &raw::PartitionDescription| PartitionFacts {
            led: partition.leader.is_some(),
            replicas: u32::try_from(partition.replicas.len()).unwrap_or(0),
            in_sync: u32::try_from(partition.isr.len()).unwrap_or(0),
        };
        let one = |(topic, told): (Topic, Result<raw::TopicDescription, raw::Trouble>)| {
            let told = match told {
                Ok(described) => Ok((described.id, described.partitions.iter().map(facts).collect())),
                Err(trouble) if matches!(trouble.code, Code::UNKNOWN_TOPIC_OR_PART | Code::UNKNOWN_TOPIC) => {
                    Err(not_found(&topic))
                }
                Err(trouble) => Err(failed(&self.servers, &trouble)),
            };
            (topic, told)
        };
        Ok(topics.into_iter().zip(told).map(one).collect())
    }

    /// How it is configured.
    async fn config(&self, topic: &Topic) -> Result<TopicConfig> {
        let options = AdminOptions::new().request_timeout(Some(ANSWER));
        let what = [ResourceSpecifier::Topic(topic.as_str())];
        let answered = self.client.describe_configs(&what, &options).await;
        if answered.is_err() {
            self.look_for_controller().await;
        }
        let answered = answered.map_err(|error| failed_by_crate(&self.servers, &error))?;
        let resource: ConfigResource = match answered.into_iter().next() {
            Some(Ok(resource)) => resource,
            Some(Err(RDKafkaErrorCode::UnknownTopicOrPartition)) => {
                return Err(not_found(topic));
            }
            Some(Err(code)) => {
                let what = format!("the configuration of topic {topic:?}");
                return Err(refused(&self.servers, &what, Code(code as i32)));
            }
            None => return Err(late(&self.servers)),
        };
        let values: HashMap<_, _> = resource.entry_map();
        Ok(TopicConfig::parse(|name| values.get(name)?.value.as_deref()))
    }

    /// The crate's client waits for the server that was the controller when it was last told, also where that stands still. Who it is now comes with metadata:
    /// that of all topics, as the crate gives a topic that is named back before it asks for it.
    pub(super) async fn look_for_controller(&self) {
        let client = Arc::clone(&self.client);
        // The one that stands still may be asked that, too.
        let asked = move || (0..TRIES).any(|_| client.inner().fetch_metadata(None, CONTROLLER).is_ok());
        _ = tokio::task::spawn_blocking(asked).await;
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Topic, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

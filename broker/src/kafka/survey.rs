//! What a cluster says of itself, for who looks at how it is set up: brokers, topics, and what is set of both. Nothing but questions.
//!
//! Not here: what follows from it (`ropeway doctor`), what publishing needs to know of a topic (`topics.rs`).

use super::{
    broker::{Kafka, Shared},
    failure::{BACKEND, failed_by_crate, late},
    topics::ANSWER,
};
use crate::{Answer, Result};
use rdkafka::{
    admin::{AdminOptions, ConfigResource, ResourceSpecifier},
    metadata::Metadata,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Of how many topics it is asked how they are set up; of the others nothing is told.
const TOPICS: usize = 1000;
/// Of how many topics in one question.
const TOGETHER: usize = 100;

/// What a cluster says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaSurvey {
    /// The name that the cluster gave itself when it was made.
    pub cluster: String,
    /// The brokers that work, by number.
    pub brokers: Vec<SurveyedBroker>,
    /// The first 1,000 topics by name, also those of Kafka itself.
    pub topics: Vec<SurveyedTopic>,
}

/// A broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SurveyedBroker {
    /// `host:port`, as it tells clients.
    pub address: String,
    /// What is set, by name; empty where it refuses to say.
    pub settings: BTreeMap<String, String>,
}

/// A topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SurveyedTopic {
    /// Its name.
    pub name: String,
    /// Its partitions, by number.
    pub partitions: Vec<SurveyedPartition>,
    /// What holds for it, by name, also where the brokers' settings decide; empty where that is refused.
    pub settings: BTreeMap<String, String>,
}

/// A partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SurveyedPartition {
    /// It has a leader: it can be read and written.
    pub led: bool,
    /// On how many brokers it is to be.
    pub replicas: usize,
    /// On how many of them it is up to date.
    pub in_sync: usize,
}

impl Kafka {
    /// Asks the cluster how it is set up. Changes nothing; dropping the answer ends the questions.
    ///
    /// # Errors
    /// Those of the connection. What the user may not see is left out, and is no error.
    pub fn survey(&self) -> Answer<Result<KafkaSurvey>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.call(survey(&shared)).await.map_err(|error| error.on(BACKEND)) })
    }
}

async fn survey(shared: &Shared) -> Result<KafkaSurvey> {
    let admin = Arc::clone(&shared.admin);
    let asked = tokio::task::spawn_blocking(move || {
        let cluster = admin.inner().fetch_cluster_id(ANSWER);
        admin.inner().fetch_metadata(None, ANSWER).map(|metadata| (cluster, metadata))
    });
    let answered = asked.await.map_err(|_| late(shared.servers()))?;
    let (cluster, metadata) = answered.map_err(|error| failed_by_crate(shared.servers(), &error))?;
    let mut survey =
        KafkaSurvey { cluster: cluster.unwrap_or_default(), brokers: Vec::new(), topics: topics(&metadata) };
    let mut brokers: Vec<(i32, String)> = metadata
        .brokers()
        .iter()
        .map(|broker| (broker.id(), format!("{}:{}", broker.host(), broker.port())))
        .collect();
    brokers.sort_unstable();
    for (number, address) in brokers {
        // Each broker is asked by itself: it alone knows what is set of it.
        let settings = settings(shared, &[ResourceSpecifier::Broker(number)]).await;
        survey
            .brokers
            .push(SurveyedBroker { address, settings: settings.into_iter().next().unwrap_or_default() });
    }
    for part in survey.topics.chunks_mut(TOGETHER) {
        let names: Vec<ResourceSpecifier<'_>> =
            part.iter().map(|topic| ResourceSpecifier::Topic(&topic.name)).collect();
        let told = settings(shared, &names).await;
        part.iter_mut().zip(told).for_each(|(topic, settings)| topic.settings = settings);
    }
    Ok(survey)
}

/// The topics and their partitions, by name.
fn topics(metadata: &Metadata) -> Vec<SurveyedTopic> {
    let mut topics: Vec<SurveyedTopic> = metadata
        .topics()
        .iter()
        .map(|topic| {
            let partition = |of: &rdkafka::metadata::MetadataPartition| SurveyedPartition {
                led: of.leader() >= 0,
                replicas: of.replicas().len(),
                in_sync: of.isr().len(),
            };
            SurveyedTopic {
                name: topic.name().to_owned(),
                partitions: topic.partitions().iter().map(partition).collect(),
                settings: BTreeMap::new(),
            }
        })
        .collect();
    topics.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    topics.truncate(TOPICS);
    topics
}

/// What is set of each of these, in their order; nothing of those that are refused.
async fn settings(shared: &Shared, of: &[ResourceSpecifier<'_>]) -> Vec<BTreeMap<String, String>> {
    let options = AdminOptions::new().request_timeout(Some(ANSWER));
    let answered = shared.admin.describe_configs(of, &options).await.unwrap_or_default();
    let told = answered.into_iter().map(|resource| resource.map(pairs).unwrap_or_default());
    let mut told: Vec<BTreeMap<String, String>> = told.collect();
    told.resize(of.len(), BTreeMap::new());
    told
}

fn pairs(resource: ConfigResource) -> BTreeMap<String, String> {
    let entries: HashMap<_, _> = resource.entry_map();
    let told = entries.into_iter().filter_map(|(name, entry)| Some((name.to_owned(), entry.value.clone()?)));
    told.collect()
}

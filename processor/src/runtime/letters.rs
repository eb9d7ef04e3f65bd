//! Where dead letters go, and writing them.
//!
//! Not here: what a letter says (`dead_letter/`), what follows when it could not be written (`outcome.rs`).

use ropeway_broker::{
    Admin, Answer, Control, Error, ErrorKind, Message, MessageBroker, Outcomes, Owned, Position, Result,
    Subscription, Target, Topic, TopicSpec,
};
use std::{collections::HashMap, sync::Arc};

/// The dead-letter topics of a subscription.
#[derive(Debug)]
pub(crate) struct Letters {
    boxes: HashMap<Topic, LetterBox>,
}

/// The dead-letter topic of one topic.
#[derive(Clone, Debug)]
pub(crate) struct LetterBox {
    pub(crate) topic: Topic,
    /// How many partitions it gets where it has to be made: as many as its source.
    partitions: u32,
    pub(crate) max_message: usize,
}

impl Letters {
    /// Finds the dead-letter topic of each topic, and makes those that are missing.
    pub(crate) async fn open(
        admin: &dyn Admin,
        subscription: &Subscription,
        named: Option<&Topic>,
    ) -> Result<Self> {
        let mut boxes = HashMap::new();
        for source in &subscription.topics {
            let partitions = admin.describe_topic(source).await?.spec.partitions;
            let topic = named.cloned().unwrap_or_else(|| source.dead_letters_of(&subscription.group));
            if subscription.topics.contains(&topic) {
                let what = format!(
                    "topic {topic} is subscribed to and takes its own dead letters: they would come back for ever; name another"
                );
                return Err(Error::new(ErrorKind::Invalid, what));
            }
            create(admin, &topic, partitions).await?;
            let max_message = admin.describe_topic(&topic).await?.max_message;
            boxes.insert(source.clone(), LetterBox { topic, partitions, max_message });
        }
        Ok(Self { boxes })
    }

    /// Where the dead letters of a topic go.
    pub(crate) fn of(&self, source: &Topic) -> Option<&LetterBox> {
        self.boxes.get(source)
    }
}

impl LetterBox {
    /// Writes a letter and acks its source.
    pub(crate) fn write(
        &self,
        broker: &Arc<dyn MessageBroker>,
        control: &Arc<dyn Control>,
        of: &Owned,
        done: Position,
        letter: Message,
        create_first: bool,
    ) -> Answer<Outcomes> {
        let target = Target::from(&self.topic);
        if !create_first {
            return control.forward(of, &[done], vec![(target, letter)]);
        }
        let (broker, control, of, partitions) =
            (broker.clone(), control.clone(), of.clone(), self.partitions);
        Box::pin(async move {
            if let Err(error) = create(broker.admin(), &target.topic, partitions).await {
                return Outcomes::all_not_written(&error, vec![letter]);
            }
            control.forward(&of, &[done], vec![(target, letter)]).await
        })
    }
}

/// Makes a topic, unless it is there.
async fn create(admin: &dyn Admin, topic: &Topic, partitions: u32) -> Result<()> {
    match admin.create_topic(topic, TopicSpec::partitions(partitions)).await {
        Err(error) if error.kind() == ErrorKind::Exists => Ok(()),
        result => result,
    }
}

//! What the broker has of a batch, until it is answered; and what comes right behind an answer.
//!
//! Not here: what goes into which batch (`queue.rs`), calling the broker and telling who waits (`mod.rs`).

use super::{
    Inner, Lane, PublishOrder, Waiting,
    queue::{Done, Ticket},
};
use crate::{Answer, Error, ErrorKind, Message, Outcomes, Part, Published, ext::no_outcome};
use std::{
    future::ready,
    mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{task::yield_now, time::Instant};

/// So many who are told at once are waited for.
const MANY: usize = 16;
/// How often others are let run first, as long as that brings messages. A runtime lets some dozens run in between.
const TURNS: usize = 16;

/// Messages of a part and their places in the batch.
type Tickets = Vec<(u32, Ticket<Waiting>)>;

/// Gives each part its tickets. What a backend, against the contract, leaves out is a part without outcomes.
pub(super) fn deal(tickets: Vec<Ticket<Waiting>>, parts: Vec<Part>) -> Vec<(Tickets, Answer<Outcomes>)> {
    let count = tickets.len();
    let mut tickets: Vec<_> = tickets.into_iter().map(Some).collect();
    let mut all = Vec::with_capacity(parts.len());
    for Part { places, answer } in parts {
        let mut of_part = Vec::with_capacity(places.len().min(count));
        for place in places {
            if let Some(ticket) = tickets.get_mut(place as usize).and_then(Option::take) {
                of_part.push((place, ticket));
            }
        }
        if !of_part.is_empty() {
            all.push((of_part, answer));
        }
    }
    let left: Tickets = (0..).zip(tickets).filter_map(|(place, ticket)| Some((place, ticket?))).collect();
    if !left.is_empty() {
        all.push((left, Box::pin(ready(Outcomes(Vec::new())))));
    }
    all
}

/// A part of a batch the broker has. Dropped without an answer (its runtime ended, or the backend panicked), it gives everything back.
pub(super) struct Asked {
    pub(super) inner: Arc<Inner>,
    pub(super) lane: Lane,
    /// The whole batch.
    pub(super) messages: Arc<Vec<Message>>,
    pub(super) tickets: Tickets,
    /// How many parts are not answered.
    pub(super) left: Arc<AtomicUsize>,
}

impl Asked {
    /// Tells who waits. What is to be done next, where that is more than to publish what is there.
    pub(super) fn answered(mut self, outcomes: Outcomes) -> Option<Gathering> {
        let tickets = mem::take(&mut self.tickets);
        let gathering = (tickets.len() >= MANY).then(|| Gathering::new(&self.inner, &self.lane));
        let mut outcomes = outcomes.0.into_iter();
        let answered = tickets.into_iter().map(|(place, ticket)| {
            let published = outcomes.next().unwrap_or_else(|| no_outcome(self.copy(place)));
            (place, ticket, published)
        });
        match self.inner.settings.order {
            PublishOrder::Pipelined => {
                self.inner.tell(answered.map(|(_, ticket, published)| ticket.done(published)));
            }
            PublishOrder::Ordered { .. } => {
                let done = self.inner.settle(&self.lane, &self.messages, answered);
                self.inner.tell(done);
            }
        }
        self.end();
        if gathering.is_none() {
            self.inner.pump(&self.lane);
        }
        gathering
    }

    /// Counts the part as answered.
    fn end(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(on_the_way) = self.inner.lock().lanes.get_mut(&self.lane)
        {
            on_the_way.queue.answered();
        }
    }

    fn copy(&self, place: u32) -> Message {
        self.messages.get(place as usize).cloned().unwrap_or_else(|| Message::builder().build())
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if self.tickets.is_empty() {
            return;
        }
        let error = over();
        let lost = mem::take(&mut self.tickets).into_iter().map(|(place, ticket)| {
            let published = Published::unknown(error.clone(), self.copy(place));
            (place, ticket, published)
        });
        let done = self.inner.settle(&self.lane, &self.messages, lost);
        self.end();
        self.inner.tell(done);
        self.inner.give_back(&self.lane, &error);
    }
}

/// Lets those who were told an outcome publish what they publish next, and then publishes all of that at once: so it is one batch and not many small ones.
pub(super) struct Gathering {
    inner: Arc<Inner>,
    lane: Lane,
    over: bool,
}

impl Gathering {
    fn new(inner: &Arc<Inner>, lane: &Lane) -> Self {
        if let Some(on_the_way) = inner.lock().lanes.get_mut(lane) {
            on_the_way.queue.gather();
        }
        Self { inner: Arc::clone(inner), lane: lane.clone(), over: false }
    }

    pub(super) async fn gather(mut self) {
        let mut before = None;
        for _ in 0..TURNS {
            yield_now().await;
            let ready = self.inner.lock().lanes.get(&self.lane).map(|on_the_way| on_the_way.queue.ready());
            if ready == before {
                break;
            }
            before = ready;
        }
        self.end();
        self.over = true;
        self.inner.pump(&self.lane);
    }

    fn end(&self) {
        if let Some(on_the_way) = self.inner.lock().lanes.get_mut(&self.lane) {
            on_the_way.queue.gathered();
        }
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        if !self.over {
            // Nobody is left to publish what was gathered.
            self.end();
            self.inner.give_back(&self.lane, &over());
        }
    }
}

fn over() -> Error {
    Error::new(ErrorKind::Closed, "the runtime in which the message was published ended")
}

impl Inner {
    /// Takes outcomes where order is kept through failures; answers those that are final.
    fn settle(
        &self,
        lane: &Lane,
        messages: &[Message],
        answered: impl IntoIterator<Item = (u32, Ticket<Waiting>, Published)>,
    ) -> Vec<Done<Waiting>> {
        let mut state = self.lock();
        let on_the_way = state.lanes.get_mut(lane);
        on_the_way.map(|lane| lane.queue.settle(messages, answered, Instant::now())).unwrap_or_default()
    }

    /// Gives back what waits, where nobody is left to publish it.
    fn give_back(&self, lane: &Lane, error: &Error) {
        let done = self.lock().lanes.get_mut(lane).map(|lane| lane.queue.give_back(error));
        self.tell(done.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publisher::{Tell, queue::Entry};
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn each_message_is_in_one_part_even_where_a_backend_says_otherwise() {
        let ticket = |flush| {
            let waiting = Waiting { tell: Tell::Pending(oneshot::channel().0), flush, bytes: 1 };
            Entry::new(Message::builder().build(), None, Instant::now(), waiting).into_ticket()
        };
        let part =
            |places: &[u32]| Part { places: places.to_vec(), answer: Box::pin(ready(Outcomes(Vec::new()))) };
        let places = |parts: Vec<(Tickets, Answer<Outcomes>)>| {
            let places = |(tickets, _): &(Tickets, _)| tickets.iter().map(|(place, _)| *place).collect();
            parts.iter().map(places).collect::<Vec<Vec<u32>>>()
        };
        let tickets = || (0..4).map(ticket).collect::<Vec<_>>();
        assert_eq!(places(deal(tickets(), vec![part(&[0, 2]), part(&[1, 3])])), [vec![0, 2], vec![1, 3]]);
        let wrong = deal(tickets(), vec![part(&[2, 0]), part(&[2, 9])]);
        assert_eq!(places(wrong), [vec![2, 0], vec![1, 3]], "what was left out is told, too");
        assert_eq!(places(deal(tickets(), Vec::new())), [vec![0, 1, 2, 3]]);
    }
}

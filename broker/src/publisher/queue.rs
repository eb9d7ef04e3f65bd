//! What of one target goes into which batch, and when: pure, takes `now`.
//!
//! Not here: calling the broker, waiting, answering (`mod.rs`).

use super::{PublishOrder, PublisherSettings};
use crate::{Durability, Error, Failed, Message, PublishFailed, Published, Receipt, ext::receipt};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};
use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// So many batches go with one message each if there are no more; so many again with at least two, and so on.
const ALONE: usize = 4;

/// A message that was taken over; `T` is whom to answer.
#[derive(Debug)]
pub(super) struct Entry<T> {
    message: Message,
    ticket: Ticket<T>,
}

/// What is known of a message that was taken over, beside the message itself.
#[derive(Debug)]
pub(super) struct Ticket<T> {
    at_least: Option<Durability>,
    size: usize,
    since: Instant,
    tries: Option<Tries>,
    /// An earlier try may have written it, so that no later outcome can be *not written*.
    maybe_written: bool,
    answer: T,
}

#[derive(Clone, Copy, Debug)]
struct Tries {
    first: Instant,
    failed: u32,
}

impl<T> Entry<T> {
    pub(super) fn new(message: Message, at_least: Option<Durability>, now: Instant, answer: T) -> Self {
        let size = message.size();
        let ticket = Ticket { at_least, size, since: now, tries: None, maybe_written: false, answer };
        Self { message, ticket }
    }

    #[cfg(test)]
    pub(super) fn into_ticket(self) -> Ticket<T> {
        self.ticket
    }
}

impl<T> Ticket<T> {
    /// What is final.
    pub(super) fn done(self, published: Published) -> Done<T> {
        let maybe_written = self.maybe_written;
        let mut result = receipt(published);
        if let Err(failed) = &mut result {
            failed.may_be_written |= maybe_written;
        }
        (self.answer, result)
    }
}

/// Messages that are published in one call.
#[derive(Debug)]
pub(super) struct Batch<T> {
    /// Kept while the broker has them, so that they can be given back whatever happens.
    pub(super) messages: Vec<Message>,
    /// One for each message, in the same order.
    pub(super) tickets: Vec<Ticket<T>>,
    pub(super) at_least: Option<Durability>,
}

/// What to do next.
#[derive(Debug)]
pub(super) enum Next<T> {
    /// Publish these, in one call.
    Batch(Batch<T>),
    /// Ask again then.
    Wait(Instant),
    /// Ask again after a push or an outcome.
    Idle,
}

/// An outcome that is final.
pub(super) type Done<T> = (T, Result<Receipt, PublishFailed>);

/// The messages of one target that were taken over.
#[derive(Debug)]
pub(super) struct Queue<T> {
    settings: PublisherSettings,
    ready: VecDeque<Entry<T>>,
    ready_bytes: usize,
    /// Keys with an open message, and what waits behind it. Only in ordered mode.
    held: HashMap<Bytes, VecDeque<Entry<T>>>,
    /// Messages whose next try is due then. Their keys are held.
    pauses: BTreeMap<(Instant, u64), Entry<T>>,
    pause_number: u64,
    open: usize,
    /// How many look forward to messages of those whom they just told an outcome.
    gathering: usize,
}

impl<T> Queue<T> {
    pub(super) fn new(settings: PublisherSettings) -> Self {
        Self {
            settings,
            ready: VecDeque::new(),
            ready_bytes: 0,
            held: HashMap::new(),
            pauses: BTreeMap::new(),
            pause_number: 0,
            open: 0,
            gathering: 0,
        }
    }

    /// Whether nothing is left of it.
    pub(super) fn is_empty(&self) -> bool {
        let idle = self.open == 0 && self.gathering == 0;
        idle && self.ready.is_empty() && self.held.is_empty() && self.pauses.is_empty()
    }

    /// Whether so many batches are on their way, or more comes so soon, that nothing goes and nothing is due before that.
    pub(super) fn is_busy(&self) -> bool {
        !self.may_open() && self.pauses.is_empty()
    }

    /// Whether another batch may go. The more are on their way, the more messages it has to have, so that what is published meanwhile is
    /// there when the backend can write it, and is not a batch for each message. While many are told at once only whole batches go: most of them publish
    /// again at once.
    fn may_open(&self) -> bool {
        let whole = self.ready_bytes >= self.settings.batch.bytes;
        let enough = match self.gathering {
            0 => whole || self.ready.len() > self.open / ALONE,
            _ => whole || self.ready.len() >= self.settings.batch.messages,
        };
        self.open < self.settings.open_batches && enough
    }

    /// How many messages may go.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Many are told at once: what they publish next is gathered until [`Self::gathered`].
    pub(super) const fn gather(&mut self) {
        self.gathering += 1;
    }

    pub(super) const fn gathered(&mut self) {
        self.gathering = self.gathering.saturating_sub(1);
    }

    pub(super) fn push(&mut self, entry: Entry<T>) {
        if self.is_ordered()
            && let Some(key) = &entry.message.key
        {
            if let Some(behind) = self.held.get_mut(key) {
                behind.push_back(entry);
                return;
            }
            self.held.insert(key.clone(), VecDeque::new());
        }
        self.make_ready(entry);
    }

    /// What to do now. `urged`: somebody flushes, so nobody lingers.
    pub(super) fn next(&mut self, now: Instant, urged: bool) -> Next<T> {
        while let Some(first) = self.pauses.first_entry().filter(|first| first.key().0 <= now) {
            let entry = first.remove();
            self.make_ready(entry);
        }
        let paused_until = self.pauses.first_key_value().map(|((due, _), _)| *due);
        let Some(first) = self.ready.front().filter(|_| self.may_open()) else {
            return paused_until.map_or(Next::Idle, Next::Wait);
        };
        let bound = self.settings.batch;
        let full = self.ready.len() >= bound.messages || self.ready_bytes >= bound.bytes;
        let lingers_until = first.ticket.since + self.settings.linger;
        if !full && !urged && first.ticket.tries.is_none() && lingers_until > now {
            return Next::Wait(paused_until.map_or(lingers_until, |due| due.min(lingers_until)));
        }
        let at_least = first.ticket.at_least;
        let most = self.ready.len().min(bound.messages);
        let (mut messages, mut tickets) = (Vec::with_capacity(most), Vec::with_capacity(most));
        let mut bytes = 0usize;
        while let Some(Entry { ticket, .. }) = self.ready.front() {
            let size = ticket.size;
            let fits = messages.len() < bound.messages
                && bytes.saturating_add(size) <= bound.bytes
                && ticket.at_least == at_least;
            let next = (fits || messages.is_empty()).then(|| self.ready.pop_front()).flatten();
            let Some(Entry { message, mut ticket }) = next else { break };
            ticket.tries.get_or_insert(Tries { first: now, failed: 0 });
            bytes = bytes.saturating_add(size);
            self.ready_bytes -= size;
            messages.push(message);
            tickets.push(ticket);
        }
        self.open += 1;
        Next::Batch(Batch { messages, tickets, at_least })
    }

    /// All parts of a batch have their outcomes.
    pub(super) const fn answered(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// Takes outcomes, with their places in `messages`; answers those that are final. Where nothing is held back or tried again, that is all of them, and
    /// [`Ticket::done`] says so without this.
    pub(super) fn settle(
        &mut self,
        messages: &[Message],
        answered: impl IntoIterator<Item = (u32, Ticket<T>, Published)>,
        now: Instant,
    ) -> Vec<Done<T>> {
        let mut done = Vec::new();
        for (place, mut ticket, published) in answered {
            ticket.maybe_written |= matches!(published, Published::Unknown(_));
            let message = messages.get(place as usize);
            if let (Some(due), Some(message)) = (self.try_again_at(&ticket, &published, now), message) {
                if let Some(tries) = &mut ticket.tries {
                    tries.failed += 1;
                }
                self.pause_number += 1;
                let entry = Entry { message: message.clone(), ticket };
                self.pauses.insert((due, self.pause_number), entry);
                continue;
            }
            self.release(message.and_then(|message| message.key.as_ref()));
            done.push(ticket.done(published));
        }
        done
    }

    /// Gives back what was never handed to the broker.
    pub(super) fn give_back(&mut self, error: &Error) -> Vec<Done<T>> {
        self.ready_bytes = 0;
        let ready = std::mem::take(&mut self.ready).into_iter();
        let paused = std::mem::take(&mut self.pauses).into_values();
        let held = std::mem::take(&mut self.held).into_values().flatten();
        let give = |Entry { message, ticket }: Entry<T>| {
            let failed = Box::new(Failed { error: error.clone(), message });
            (ticket.answer, Err(PublishFailed { may_be_written: ticket.maybe_written, failed }))
        };
        ready.chain(paused).chain(held).map(give).collect()
    }

    /// When to try again, where that is what ordered mode does.
    fn try_again_at(&self, ticket: &Ticket<T>, published: &Published, now: Instant) -> Option<Instant> {
        let PublishOrder::Ordered { retry_for } = self.settings.order else {
            return None;
        };
        let tries = ticket.tries?;
        let pause = FIRST_PAUSE.saturating_mul(1 << tries.failed.min(10)).min(LONGEST_PAUSE);
        let retryable = published.failed().is_some_and(|failed| failed.error.is_retryable());
        (retryable && now + pause < tries.first + retry_for).then(|| now + pause)
    }

    /// The open message of that key has its outcome: the next one goes on.
    fn release(&mut self, key: Option<&Bytes>) {
        let Some(key) = key.filter(|_| self.is_ordered()) else {
            return;
        };
        match self.held.get_mut(key).and_then(VecDeque::pop_front) {
            Some(entry) => self.make_ready(entry),
            None => _ = self.held.remove(key),
        }
    }

    fn make_ready(&mut self, entry: Entry<T>) {
        self.ready_bytes += entry.ticket.size;
        self.ready.push_back(entry);
    }

    /// Whether something may be held back or tried again.
    pub(super) const fn is_ordered(&self) -> bool {
        matches!(self.settings.order, PublishOrder::Ordered { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bound, ErrorKind};
    use proptest::prelude::*;

    fn entry(key: &'static str, number: usize, now: Instant) -> Entry<usize> {
        Entry::new(Message::builder().key(key).payload(vec![0; 10]).build(), None, now, number)
    }

    fn acked() -> Published {
        Published::Acked { partition: 0, position: None, durability: Durability::Volatile }
    }

    fn batch(next: Next<usize>) -> Batch<usize> {
        match next {
            Next::Batch(batch) => batch,
            other => panic!("expected a batch, got {other:?}"),
        }
    }

    fn numbers(batch: &Batch<usize>) -> Vec<usize> {
        batch.tickets.iter().map(|ticket| ticket.answer).collect()
    }

    /// Answers a whole batch.
    fn answer(
        queue: &mut Queue<usize>,
        batch: Batch<usize>,
        mut outcome: impl FnMut(&Message) -> Published,
        now: Instant,
    ) -> Vec<Done<usize>> {
        let Batch { messages, tickets, .. } = batch;
        queue.answered();
        let outcomes: Vec<_> = messages.iter().map(&mut outcome).collect();
        let answered = (0..).zip(tickets).zip(outcomes);
        queue.settle(&messages, answered.map(|((place, ticket), outcome)| (place, ticket, outcome)), now)
    }

    #[tokio::test(start_paused = true)]
    async fn linger_is_the_age_of_the_first_message_however_many_follow() {
        let settings = PublisherSettings { linger: Duration::from_millis(50), ..Default::default() };
        let mut queue = Queue::new(settings);
        let start = Instant::now();
        queue.push(entry("a", 0, start));
        for i in 1..5 {
            let now = start + Duration::from_millis(10 * i);
            assert!(
                matches!(queue.next(now, false), Next::Wait(at) if at == start + Duration::from_millis(50))
            );
            queue.push(entry("a", i as usize, now));
        }
        assert_eq!(numbers(&batch(queue.next(start + Duration::from_millis(50), false))).len(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn the_more_batches_are_open_the_more_messages_the_next_one_has() {
        let mut queue = Queue::new(PublisherSettings { open_batches: 10, ..Default::default() });
        let now = Instant::now();
        let mut batches = Vec::new();
        for number in 0..40 {
            queue.push(entry("a", number, now));
            while let Next::Batch(batch) = queue.next(now, false) {
                batches.push(batch);
            }
        }
        let sizes: Vec<usize> = batches.iter().map(|batch| batch.messages.len()).collect();
        assert_eq!(sizes, [1, 1, 1, 1, 2, 2, 2, 2, 3, 3], "and what is left waits");
        let mut left = 22;
        while let Some(batch) = batches.pop() {
            answer(&mut queue, batch, |_| acked(), now);
            while let Next::Batch(batch) = queue.next(now, false) {
                left -= batch.messages.len();
                batches.push(batch);
            }
        }
        assert_eq!((left, queue.is_empty()), (0, true), "all of it goes, however little there is");
    }

    #[tokio::test(start_paused = true)]
    async fn while_many_are_told_only_whole_batches_go() {
        let batch = Bound { messages: 3, bytes: 1000 };
        let mut queue = Queue::new(PublisherSettings { batch, ..Default::default() });
        let now = Instant::now();
        queue.gather();
        queue.gather();
        for number in 0..5 {
            queue.push(entry("a", number, now));
        }
        assert_eq!(queue.ready(), 5);
        let Next::Batch(whole) = queue.next(now, false) else { panic!("it is whole") };
        assert_eq!(numbers(&whole), [0, 1, 2]);
        assert!(queue.is_busy() && matches!(queue.next(now, true), Next::Idle));
        queue.gathered();
        assert!(matches!(queue.next(now, false), Next::Idle), "somebody else is still telling");
        answer(&mut queue, whole, |_| acked(), now);
        queue.gathered();
        let Next::Batch(rest) = queue.next(now, false) else { panic!("all have been told") };
        assert_eq!(numbers(&rest), [3, 4]);
        answer(&mut queue, rest, |_| acked(), now);
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_batch_of_bytes_goes_however_few_messages_it_has() {
        let batch = Bound { messages: 500, bytes: 10 };
        let mut queue = Queue::new(PublisherSettings { batch, open_batches: 10, ..Default::default() });
        let now = Instant::now();
        for number in 0..10 {
            queue.push(entry("a", number, now));
            assert!(matches!(queue.next(now, false), Next::Batch(_)), "{number}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ordered_mode_holds_a_key_and_tries_again_until_the_time_is_over() {
        let order = PublishOrder::Ordered { retry_for: Duration::from_millis(25) };
        let mut queue = Queue::new(PublisherSettings { order, ..Default::default() });
        let now = Instant::now();
        for (i, key) in ["a", "a", "b"].into_iter().enumerate() {
            queue.push(entry(key, i, now));
        }
        let fail = |message: &Message| {
            Published::unknown(Error::new(ErrorKind::Unavailable, "away"), message.clone())
        };
        let first = batch(queue.next(now, false));
        assert_eq!(numbers(&first), [0, 2]);
        assert!(answer(&mut queue, first, fail, now).is_empty());
        let Next::Wait(due) = queue.next(now, false) else { panic!("waits") };
        let second = batch(queue.next(due, false));
        assert_eq!(second.messages.len(), 2);
        let given_back = answer(&mut queue, second, fail, due);
        assert_eq!(given_back.len(), 2, "tried for longer than retry_for");
        assert!(given_back.iter().all(|(_, result)| result.as_ref().is_err_and(|f| f.may_be_written)));
        let third = batch(queue.next(due, false));
        assert_eq!(numbers(&third), [1]);
        answer(&mut queue, third, |_| acked(), due);
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_earlier_try_may_have_written_is_never_called_not_written() {
        let order = PublishOrder::Ordered { retry_for: Duration::from_secs(10) };
        let mut queue = Queue::new(PublisherSettings { order, ..Default::default() });
        let now = Instant::now();
        queue.push(entry("a", 0, now));
        let first = batch(queue.next(now, false));
        let lost =
            |sent: &Message| Published::unknown(Error::new(ErrorKind::Unavailable, "away"), sent.clone());
        assert!(answer(&mut queue, first, lost, now).is_empty());
        let Next::Wait(due) = queue.next(now, false) else { panic!("waits") };
        let second = batch(queue.next(due, false));
        let refused =
            |sent: &Message| Published::not_written(Error::new(ErrorKind::Closed, "closed"), sent.clone());
        let done = answer(&mut queue, second, refused, due);
        assert!(done[0].1.as_ref().is_err_and(|failed| failed.may_be_written));
    }

    proptest! {
        #[test]
        fn ordered_mode_never_has_two_of_a_key_open_and_answers_each_once(
            keys in proptest::collection::vec(0usize..4, 1..60), choices in proptest::collection::vec(0u8..4, 400), open in 1usize..4,
        ) {
            const KEYS: [&str; 4] = ["a", "b", "c", "d"];
            let order = PublishOrder::Ordered { retry_for: Duration::from_millis(80) };
            let batch = Bound { messages: 3, bytes: 1000 };
            let mut queue = Queue::new(PublisherSettings { order, batch, open_batches: open, ..Default::default() });
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let mut now = runtime.block_on(async { Instant::now() });
            for (i, key) in keys.iter().enumerate() { queue.push(entry(KEYS[*key], i, now)); }
            let mut on_the_way: VecDeque<Batch<usize>> = VecDeque::new();
            let mut answered: Vec<usize> = Vec::new();
            let mut choices = choices.into_iter().cycle();
            while !queue.is_empty() {
                match queue.next(now, false) {
                    Next::Batch(batch) => on_the_way.push_back(batch),
                    Next::Wait(at) if on_the_way.is_empty() => now = at,
                    _ => {
                        let batch = on_the_way.pop_front().unwrap();
                        let outcome = |message: &Message| if choices.next() == Some(0) {
                            Published::not_written(Error::new(ErrorKind::Throttled, "full"), message.clone())
                        } else { acked() };
                        answered.extend(answer(&mut queue, batch, outcome, now).into_iter().map(|(t, _)| t));
                    }
                }
                let mut open_keys: Vec<_> = on_the_way.iter().flat_map(|batch| &batch.messages).map(|message| message.key.clone()).collect();
                let count = open_keys.len();
                open_keys.sort();
                open_keys.dedup();
                prop_assert_eq!(open_keys.len(), count);
                prop_assert!(on_the_way.len() <= open);
            }
            for key in 0..4 {
                let order: Vec<_> = answered.iter().filter(|i| keys[**i] == key).collect();
                prop_assert!(order.is_sorted());
            }
            prop_assert_eq!(answered.len(), keys.len());
        }
    }
}

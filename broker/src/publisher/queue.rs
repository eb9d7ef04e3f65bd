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
    /// Kept while the broker has it, so that it can be given back whatever happens. Cloning it is cheap.
    pub(super) message: Message,
    pub(super) at_least: Option<Durability>,
    size: usize,
    since: Instant,
    tries: Option<Tries>,
    /// An earlier try may have written it, so that no later outcome can be *not written*.
    maybe_written: bool,
    pub(super) answer: T,
}

#[derive(Clone, Copy, Debug)]
struct Tries {
    first: Instant,
    failed: u32,
}

impl<T> Entry<T> {
    pub(super) fn new(message: Message, at_least: Option<Durability>, now: Instant, answer: T) -> Self {
        let size = message.size();
        Self { message, at_least, size, since: now, tries: None, maybe_written: false, answer }
    }
}

/// What to do next.
#[derive(Debug)]
pub(super) enum Next<T> {
    /// Publish these, in one call.
    Batch(Vec<Entry<T>>),
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
        }
    }

    /// Whether nothing is left of it.
    pub(super) fn is_empty(&self) -> bool {
        self.open == 0 && self.ready.is_empty() && self.held.is_empty() && self.pauses.is_empty()
    }

    /// Whether so many batches are on their way that nothing goes and nothing is due before one of them has its outcome, or more comes.
    pub(super) fn is_busy(&self) -> bool {
        !self.may_open() && self.pauses.is_empty()
    }

    /// Whether another batch may go. The more are on their way, the more messages it has to have, so that what is published meanwhile is
    /// there when the backend can write it, and is not a batch for each message.
    fn may_open(&self) -> bool {
        let enough = self.ready.len() > self.open / ALONE || self.ready_bytes >= self.settings.batch.bytes;
        self.open < self.settings.open_batches && enough
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
        let lingers_until = first.since + self.settings.linger;
        if !full && !urged && first.tries.is_none() && lingers_until > now {
            return Next::Wait(paused_until.map_or(lingers_until, |due| due.min(lingers_until)));
        }
        let at_least = first.at_least;
        let mut batch = Vec::with_capacity(self.ready.len().min(bound.messages));
        let mut bytes = 0usize;
        while let Some(entry) = self.ready.front() {
            let size = entry.size;
            let fits = batch.len() < bound.messages
                && bytes.saturating_add(size) <= bound.bytes
                && entry.at_least == at_least;
            let Some(mut entry) = (fits || batch.is_empty()).then(|| self.ready.pop_front()).flatten() else {
                break;
            };
            entry.tries.get_or_insert(Tries { first: now, failed: 0 });
            bytes = bytes.saturating_add(size);
            self.ready_bytes -= size;
            batch.push(entry);
        }
        self.open += 1;
        Next::Batch(batch)
    }

    /// Takes the outcomes of a batch; answers those that are final.
    pub(super) fn settle(
        &mut self,
        batch: impl IntoIterator<Item = (Entry<T>, Published)>,
        now: Instant,
    ) -> Vec<Done<T>> {
        self.open -= 1;
        let mut done = Vec::new();
        for (mut entry, published) in batch {
            entry.maybe_written |= matches!(published, Published::Unknown(_));
            if let Some(due) = self.try_again_at(&entry, &published, now) {
                if let Some(tries) = &mut entry.tries {
                    tries.failed += 1;
                }
                self.pause_number += 1;
                self.pauses.insert((due, self.pause_number), entry);
                continue;
            }
            self.release(entry.message.key.as_ref());
            let mut result = receipt(published);
            if let Err(failed) = &mut result {
                failed.may_be_written |= entry.maybe_written;
            }
            done.push((entry.answer, result));
        }
        done
    }

    /// Gives back what was never handed to the broker.
    pub(super) fn give_back(&mut self, error: &Error) -> Vec<Done<T>> {
        self.ready_bytes = 0;
        let ready = std::mem::take(&mut self.ready).into_iter();
        let paused = std::mem::take(&mut self.pauses).into_values();
        let held = std::mem::take(&mut self.held).into_values().flatten();
        let give = |entry: Entry<T>| {
            let failed = Box::new(Failed { error: error.clone(), message: entry.message });
            (entry.answer, Err(PublishFailed { may_be_written: entry.maybe_written, failed }))
        };
        ready.chain(paused).chain(held).map(give).collect()
    }

    /// When to try again, where that is what ordered mode does.
    fn try_again_at(&self, entry: &Entry<T>, published: &Published, now: Instant) -> Option<Instant> {
        let PublishOrder::Ordered { retry_for } = self.settings.order else {
            return None;
        };
        let tries = entry.tries?;
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
        self.ready_bytes += entry.size;
        self.ready.push_back(entry);
    }

    const fn is_ordered(&self) -> bool {
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

    fn batch(next: Next<usize>) -> Vec<Entry<usize>> {
        match next {
            Next::Batch(batch) => batch,
            other => panic!("expected a batch, got {other:?}"),
        }
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
        assert_eq!(batch(queue.next(start + Duration::from_millis(50), false)).len(), 5);
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
        let sizes: Vec<usize> = batches.iter().map(Vec::len).collect();
        assert_eq!(sizes, [1, 1, 1, 1, 2, 2, 2, 2, 3, 3], "and what is left waits");
        let mut left = 22;
        while let Some(batch) = batches.pop() {
            queue.settle(batch.into_iter().map(|entry| (entry, acked())), now);
            while let Next::Batch(batch) = queue.next(now, false) {
                left -= batch.len();
                batches.push(batch);
            }
        }
        assert_eq!((left, queue.is_empty()), (0, true), "all of it goes, however little there is");
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
        let fail = |entry: Entry<usize>| {
            let published =
                Published::unknown(Error::new(ErrorKind::Unavailable, "away"), entry.message.clone());
            (entry, published)
        };
        let first = batch(queue.next(now, false));
        assert_eq!(first.iter().map(|e| e.answer).collect::<Vec<_>>(), [0, 2]);
        assert!(queue.settle(first.into_iter().map(fail), now).is_empty());
        let Next::Wait(due) = queue.next(now, false) else { panic!("waits") };
        let second = batch(queue.next(due, false));
        assert_eq!(second.len(), 2);
        let given_back = queue.settle(second.into_iter().map(fail), due);
        assert_eq!(given_back.len(), 2, "tried for longer than retry_for");
        assert!(given_back.iter().all(|(_, result)| result.as_ref().is_err_and(|f| f.may_be_written)));
        let third = batch(queue.next(due, false));
        assert_eq!(third.iter().map(|e| e.answer).collect::<Vec<_>>(), [1]);
        queue.settle(third.into_iter().map(|e| (e, acked())), due);
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_earlier_try_may_have_written_is_never_called_not_written() {
        let order = PublishOrder::Ordered { retry_for: Duration::from_secs(10) };
        let mut queue = Queue::new(PublisherSettings { order, ..Default::default() });
        let now = Instant::now();
        queue.push(entry("a", 0, now));
        let first = batch(queue.next(now, false)).remove(0);
        let lost = Published::unknown(Error::new(ErrorKind::Unavailable, "away"), first.message.clone());
        assert!(queue.settle([(first, lost)], now).is_empty());
        let Next::Wait(due) = queue.next(now, false) else { panic!("waits") };
        let second = batch(queue.next(due, false)).remove(0);
        let refused = Published::not_written(Error::new(ErrorKind::Closed, "closed"), second.message.clone());
        let done = queue.settle([(second, refused)], due);
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
            let mut on_the_way: VecDeque<Vec<Entry<usize>>> = VecDeque::new();
            let mut answered: Vec<usize> = Vec::new();
            let mut choices = choices.into_iter().cycle();
            while !queue.is_empty() {
                match queue.next(now, false) {
                    Next::Batch(batch) => on_the_way.push_back(batch),
                    Next::Wait(at) if on_the_way.is_empty() => now = at,
                    _ => {
                        let batch = on_the_way.pop_front().unwrap();
                        let outcomes: Vec<_> = batch.into_iter().map(|e| {
                            let published = if choices.next() == Some(0) {
                                Published::not_written(Error::new(ErrorKind::Throttled, "full"), e.message.clone())
                            } else { acked() };
                            (e, published)
                        }).collect();
                        answered.extend(queue.settle(outcomes, now).into_iter().map(|(t, _)| t));
                    }
                }
                let mut open_keys: Vec<_> = on_the_way.iter().flatten().map(|e| e.message.key.clone()).collect();
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

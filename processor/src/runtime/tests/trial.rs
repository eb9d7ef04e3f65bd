//! Random trials: many keys, handlers that do anything, partitions that go and come back; and what has to hold whatever happens.
//!
//! Drawn from a seed, so that a trial that fails fails again where it has one thread and a paused clock.
//! Not here: single cases (`work.rs`, `ends.rs`, `look.rs`).

use super::fake::{Asked, Fake};
use super::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use ropeway_broker::{GoneReason, Message};
use std::collections::{HashMap, HashSet};

/// Partitions of a trial.
const PARTITIONS: u32 = 3;
/// Positions of a turn begin at so many times its epoch, so that a position says whose it is.
const TURN: u64 = 1_000_000;
/// Rounds of a trial: in each some is delivered, and some partitions may go.
const ROUNDS: u64 = 12;

/// One trial.
#[derive(Clone, Copy, Debug)]
struct Trial {
    seed: u64,
    concurrency: usize,
    keys: u64,
    /// One thread and a paused clock: nothing is begun in a turn once the driver was told that it ends.
    exact: bool,
}

/// What a handler does with a message.
#[derive(Clone, Copy, Debug)]
enum Does {
    Returns,
    Yields(u8),
    Sleeps(u64),
    Blocks,
    Fails,
    Panics,
    Rejects,
}

impl Does {
    fn draw(random: &mut StdRng) -> Self {
        match random.random_range(0..100) {
            0..50 => Self::Returns,
            50..60 => Self::Yields(random.random_range(1..4)),
            60..85 => Self::Sleeps(random.random_range(0..4)),
            85..88 => Self::Blocks,
            88..94 => Self::Fails,
            94..97 => Self::Panics,
            _ => Self::Rejects,
        }
    }

    async fn handle(self) -> Result<Verdict, BoxError> {
        match self {
            Self::Returns => {}
            Self::Yields(times) => {
                for _ in 0..times {
                    tokio::task::yield_now().await;
                }
            }
            Self::Sleeps(millis) => tokio::time::sleep(ms(millis)).await,
            Self::Blocks => std::thread::sleep(Duration::from_micros(60)),
            Self::Fails => return Err("fails".into()),
            // Without the words on the terminal.
            Self::Panics => std::panic::resume_unwind(Box::new("panics")),
            Self::Rejects => return Ok(Verdict::reject("rejects")),
        }
        Ok(Verdict::Done)
    }
}

/// What the handlers of a trial did.
#[derive(Default)]
struct Seen {
    running: usize,
    most: usize,
    /// Keys at work.
    open: HashSet<(u32, String)>,
    /// Begun attempts of each key, in order: position and number.
    begun: HashMap<(u32, String), Vec<(u64, u32)>>,
    done: HashSet<(u32, u64)>,
    wrong: Vec<String>,
}

type Shared = Arc<Mutex<Seen>>;

fn look<T>(seen: &Shared, with: impl FnOnce(&mut Seen) -> T) -> T {
    with(&mut seen.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A handler at work, also where it is dropped half-way.
struct AtWork(Shared, (u32, String));

impl AtWork {
    fn begin(seen: &Shared, trial: Trial, fake: &Fake, event: &Event, attempt: u32) -> Self {
        let place = event.place().unwrap();
        let (partition, position) = (place.partition, place.position.1);
        let key = (partition, event.key_str().map_or_else(|| format!("none {position}"), str::to_owned));
        look(seen, |seen| {
            seen.running += 1;
            seen.most = seen.most.max(seen.running);
            if !seen.open.insert(key.clone()) {
                seen.wrong.push(format!("two of {key:?} at once, at {position}"));
            }
            if trial.exact && fake.ended(partition, place.epoch.0).is_some() {
                seen.wrong.push(format!("{position} of partition {partition} begun after its turn"));
            }
            seen.begun.entry(key.clone()).or_default().push((position, attempt));
        });
        Self(seen.clone(), key)
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        look(&self.0, |seen| {
            seen.running -= 1;
            seen.open.remove(&self.1);
        });
    }
}

fn router(trial: Trial, fake: &Fake, seen: &Shared) -> Router {
    let (fake, seen) = (fake.clone(), seen.clone());
    Router::new().on(
        "e",
        raw(move |event, cx| {
            let (fake, seen) = (fake.clone(), seen.clone());
            async move {
                let place = event.place().unwrap();
                let at = (place.partition, place.position.1);
                let drawn = trial.seed ^ at.1 << 20 ^ u64::from(at.0) << 8 ^ u64::from(cx.attempt());
                let does = Does::draw(&mut StdRng::seed_from_u64(drawn));
                let _at_work = AtWork::begin(&seen, trial, &fake, &event, cx.attempt());
                let handled = does.handle().await;
                if matches!(handled, Ok(Verdict::Done)) {
                    look(&seen, |seen| seen.done.insert(at));
                }
                handled
            }
        }),
    )
}

/// What is delivered in a turn: the key of each position.
type Delivered = HashMap<(u32, u64), Vec<Option<String>>>;

fn deliver(random: &mut StdRng, trial: Trial, fake: &Fake, delivered: &mut Delivered, turn: (u32, u64)) {
    for _ in 0..random.random_range(0..4) {
        let so_far = delivered.entry(turn).or_default();
        let first = turn.1 * TURN + so_far.len() as u64;
        let keys: Vec<Option<String>> = (0..random.random_range(1..60))
            .map(|_| (!random.random_bool(0.1)).then(|| format!("k{}", random.random_range(0..trial.keys))))
            .collect();
        let messages = keys.iter().map(|key| {
            let known = if random.random_bool(0.02) { "nobody's" } else { "e" };
            let message = Message::builder().event_type(known).payload("p");
            match key {
                Some(key) => message.key(key.clone()).build(),
                None => message.build(),
            }
        });
        fake.deliver(turn.0, turn.1, first, messages);
        so_far.extend(keys);
    }
}

/// Runs a trial and answers what was delivered, with the last turn of each partition.
async fn run(trial: Trial, fake: &Fake, processor: &Processor) -> (Delivered, Vec<u64>) {
    let mut random = StdRng::seed_from_u64(trial.seed);
    let mut delivered = Delivered::new();
    let mut epochs = vec![1; PARTITIONS as usize];
    (0..PARTITIONS).for_each(|partition| fake.assign(partition, 1));
    for round in 1..=ROUNDS {
        for partition in 0..PARTITIONS {
            let epoch = &mut epochs[partition as usize];
            deliver(&mut random, trial, fake, &mut delivered, (partition, *epoch));
            if round < ROUNDS && random.random_bool(0.3) {
                let reason = if random.random_bool(0.5) {
                    let left = random.random_range(0..8);
                    fake.revoke(partition, *epoch, ms(left));
                    pass(ms(random.random_range(0..=left))).await;
                    GoneReason::GivenUp
                } else {
                    GoneReason::Lost
                };
                fake.gone(partition, *epoch, reason);
                *epoch += 1;
                fake.assign(partition, *epoch);
            }
            pass(ms(random.random_range(0..3))).await;
        }
    }
    let all: u64 = delivered.values().map(|keys| keys.len() as u64).sum();
    for _ in 0..60_000 {
        let snapshot = processor.snapshot();
        if snapshot.delivered == all && snapshot.in_flight == 0 {
            break;
        }
        pass(ms(1)).await;
    }
    (delivered, epochs)
}

/// What was acked or dead-lettered of a partition, in order, and how much of it was before the driver was told that its turn is over.
fn settled(fake: &Fake, of: u32) -> Vec<(u64, usize)> {
    let mut settled = Vec::new();
    for (at, asked) in fake.asked().into_iter().enumerate() {
        match asked {
            Asked::Ack(partition, positions) if partition == of => {
                settled.extend(positions.into_iter().map(|position| (position, at)));
            }
            Asked::Letter(partition, position, _) if partition == of => settled.push((position, at)),
            _ => {}
        }
    }
    settled
}

/// Acks are given of what is done, once, in the order of each key, and only while the partition is held; in its last turn for all.
fn check_acks(trial: Trial, fake: &Fake, seen: &Seen, delivered: &Delivered, last: &[u64]) {
    for partition in 0..PARTITIONS {
        let mut last_of_key: HashMap<(u64, &str), u64> = HashMap::new();
        let mut once = HashSet::new();
        let acks = fake.acked(partition);
        for (position, at) in settled(fake, partition) {
            let epoch = position / TURN;
            let key = delivered[&(partition, epoch)][(position % TURN) as usize].as_deref();
            assert!(once.insert(position), "{trial:?}: {position} of {partition} settled twice");
            if let Some(before) = key.and_then(|key| last_of_key.insert((epoch, key), position)) {
                assert!(before < position, "{trial:?}: {position} of {partition} settled after {before}");
            }
            let over = (epoch < last[partition as usize]).then(|| fake.ended(partition, epoch)).flatten();
            assert!(
                over.is_none_or(|over| at < over),
                "{trial:?}: {position} of {partition} settled too late"
            );
        }
        let undone = acks.iter().find(|position| !seen.done.contains(&(partition, **position)));
        assert_eq!(undone, None, "{trial:?}: acked, and its handler did not say that it is done");
        let epoch = last[partition as usize];
        let all = delivered.get(&(partition, epoch)).map_or(0, Vec::len) as u64;
        let missing: Vec<u64> =
            (epoch * TURN..epoch * TURN + all).filter(|position| !once.contains(position)).collect();
        assert!(missing.is_empty(), "{trial:?}: {missing:?} of {partition} were never settled");
    }
}

/// Of a key one after the other, each begun with its first attempt and tried again with the next.
fn check_order(trial: Trial, seen: &Seen) {
    for (key, begun) in &seen.begun {
        for pair in begun.windows(2) {
            let ((before, number), (next, again)) = (pair[0], pair[1]);
            let in_order = if next == before { again == number + 1 } else { next > before && again == 1 };
            assert!(in_order, "{trial:?}: {key:?} had {pair:?}");
        }
    }
    assert!(seen.wrong.is_empty(), "{trial:?}: {:?}", seen.wrong);
}

async fn check(trial: Trial) {
    let (fake, seen) = (Fake::default(), Shared::default());
    let retry = RetryPolicy { max_attempts: 3, first_delay: ms(2), ..RetryPolicy::default() };
    let settings =
        ProcessorSettings { concurrency: trial.concurrency, retry, seed: Some(trial.seed), ..settings() };
    let registry = prometheus::Registry::new();
    let metrics = crate::Metrics::register(&registry).unwrap();
    let router = router(trial, &fake, &seen);
    let processor = start_counted(&fake, settings, router, Some(&metrics)).await;
    let (delivered, last) = run(trial, &fake, &processor).await;
    pass(ms(5)).await;
    look(&seen, |seen| {
        check_order(trial, seen);
        check_acks(trial, &fake, seen, &delivered, &last);
        assert!(seen.most <= trial.concurrency, "{trial:?}: {} at a time", seen.most);
        assert_eq!((seen.running, seen.open.len()), (0, 0), "{trial:?}");
    });
    let snapshot = processor.snapshot();
    let left = [snapshot.in_flight, snapshot.running, snapshot.waiting, snapshot.keys, snapshot.held];
    assert_eq!(left, [0; 5], "{trial:?}: {snapshot:?}");
    let over = snapshot.handled + snapshot.dead_lettered + snapshot.given_up + snapshot.late;
    assert_eq!(over, snapshot.delivered, "{trial:?}: {snapshot:?}");
    for family in registry.gather() {
        if ["ropeway_handler_inflight", "ropeway_worker_pool_queue_depth", "ropeway_worker_pool_busy_workers"]
            .contains(&family.name())
        {
            let value = family.get_metric()[0].get_gauge().get_value();
            assert_eq!(value, 0.0, "{trial:?}: {}", family.name());
        }
    }
}

#[test]
fn whatever_handlers_do_and_partitions_go_order_and_acks_and_bounds_hold() {
    for seed in 0..40 {
        let (concurrency, keys) = ([1, 2, 6, 16][seed as usize % 4], [3, 17, 83][seed as usize % 3]);
        let trial = Trial { seed, concurrency, keys, exact: true };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(check(trial));
    }
}

#[test]
fn the_same_holds_on_several_threads() {
    for seed in 0..6 {
        let (concurrency, keys) = ([2, 6, 16][seed as usize % 3], [3, 83][seed as usize % 2]);
        let trial = Trial { seed, concurrency, keys, exact: false };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(check(trial));
    }
}

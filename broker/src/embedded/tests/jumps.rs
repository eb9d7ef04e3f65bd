//! The machine's clock is set back or forward, while the broker runs and while it is closed: what goes by the time of day, what does not.
//!
//! Not here: the same promises with a clock that nobody sets (`time.rs`).

use super::{disk::Disk, support::*};
use crate::{
    Consumer, Control, Embedded, EmbeddedSettings, Event, GoneReason, Message, MessageBroker, Owned,
    Published, ReaderExt, Retention, Start, Timestamp, TopicSpec,
};
use futures::FutureExt;
use std::{sync::Arc, time::Duration};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const NOON: i64 = 1_700_000_000_000;

/// An hour and a day, back and forward, in milliseconds; and 1970.
const JUMPS: [i64; 6] = [-3_600_000, 3_600_000, -86_400_000, 86_400_000, -NOON, -NOON - 5];

/// A machine: its disk, and its clock.
struct Machine {
    store: Arc<Disk>,
    clock: Arc<HandClock>,
    settings: EmbeddedSettings,
}

impl Machine {
    fn new(change: impl FnOnce(&mut EmbeddedSettings)) -> Self {
        let clock = HandClock::starting_at(NOON);
        let mut settings = EmbeddedSettings { clock: clock.clone(), ..EmbeddedSettings::default() };
        change(&mut settings);
        Self { store: Arc::default(), clock, settings }
    }

    fn open(&self) -> Arc<Embedded> {
        Embedded::over(self.store.clone(), self.settings.clone()).unwrap()
    }

    fn shift(&self, by: i64) {
        use crate::Clock;
        self.clock.set(self.clock.now().as_millis() + by);
    }

    /// Switched off, and on again when its clock shows that.
    fn reboot(&mut self, shows: i64) {
        self.clock = HandClock::booted(shows, 2);
        self.settings.clock = self.clock.clone();
    }
}

async fn owner(broker: &Embedded, change: impl FnOnce(&mut crate::Subscription)) -> Box<dyn Consumer> {
    subscribe(broker, change, "g", &[&topic("orders")]).await
}

/// What comes at once, without time.
fn now_or_never(consumer: &mut dyn Consumer) -> Option<Event> {
    use crate::ConsumerExt;
    consumer.next().now_or_never().map(Result::unwrap)
}

fn delayed(payload: &str, due: i64) -> Message {
    Message::builder().payload(payload.to_owned()).deliver_at(Timestamp::from_millis(due)).build()
}

async fn ends(broker: &Embedded) -> (u64, u64, Option<u64>) {
    broker.engine().catch_up();
    let info = broker.admin().describe_topic(&topic("orders")).await.unwrap();
    (info.partitions[0].low.1, info.partitions[0].end.1, info.delayed)
}

#[tokio::test]
async fn a_delayed_message_waits_for_the_time_of_day_wherever_that_jumps_and_comes_once() {
    for restart in [false, true] {
        let machine = Machine::new(|_| ());
        let mut broker = machine.open();
        let orders = make(&broker, "orders", 1).await;
        let batch = vec![delayed("soon", NOON + 10_000), delayed("late", NOON + 7_200_000)];
        broker.publish(&(&orders).into(), batch).await.into_result().unwrap();
        for (shift, expected) in [
            // Back: it waits for its time, however long that takes.
            (-3_600_000, (0, 0, Some(2))),
            (3_600_000 - 1, (0, 0, Some(2))),
            (10_000, (0, 0, Some(2))),
            (1, (0, 1, Some(1))),
            // Forward: what is due by the clock comes.
            (7_200_000, (0, 2, Some(0))),
            // Back again: what came does not come again.
            (-86_400_000, (0, 2, Some(0))),
        ] {
            if restart {
                drop(broker);
                machine.shift(shift);
                broker = machine.open();
            } else {
                machine.shift(shift);
            }
            assert_eq!(ends(&broker).await, expected, "{shift}, restart: {restart}");
        }
        let mut reader = broker.read().await.unwrap();
        reader.follow(&orders, None, Start::Earliest).await.unwrap();
        let Some(Ok(Event::Batch(batch))) = reader.next().now_or_never() else { panic!() };
        assert_eq!(texts(&contents(&batch)), ["soon", "late"]);
    }
}

#[tokio::test(start_paused = true)]
async fn who_sleeps_until_a_delayed_message_is_due_notices_that_the_clock_was_set() {
    let clock = Arc::new(crate::TokioClock::starting_at(Timestamp::from_millis(NOON)));
    let broker = memory_with(|settings| settings.clock = clock.clone());
    let orders = make(&broker, "orders", 1).await;
    broker.publish(&(&orders).into(), vec![delayed("x", NOON + 3_600_000)]).await.into_result().unwrap();
    let mut consumer = owner(&broker, |_| ()).await;
    assigned(&mut *consumer).await;
    assert!(matches!(next(&mut *consumer).await, Event::CaughtUp(_)));
    let begun = tokio::time::Instant::now();
    let setter = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(10)).await;
        clock.set(Timestamp::from_millis(NOON + 3_600_000));
    });
    assert_eq!(texts(&batch(&mut *consumer).await.1), ["x"]);
    setter.await.unwrap();
    assert!(begun.elapsed() <= Duration::from_secs(12), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn the_window_of_remembered_ids_is_as_long_as_it_is_whatever_the_clock_shows() {
    for jump in JUMPS {
        for restart in [false, true] {
            let machine = Machine::new(|settings| settings.dedup_window = Some(HOUR));
            let mut broker = machine.open();
            let orders = make(&broker, "orders", 1).await;
            let one = text("one");
            for (passes, end) in
                [(Duration::ZERO, 1), (HOUR - Duration::from_millis(1), 1), (Duration::from_millis(1), 2)]
            {
                machine.clock.pass(passes);
                if restart {
                    drop(broker);
                    machine.shift(jump);
                    broker = machine.open();
                } else {
                    machine.shift(jump);
                }
                let outcomes = broker.publish(&(&orders).into(), vec![one.clone()]).await;
                assert!(matches!(outcomes.0[0], Published::Acked { .. }), "{outcomes:?}");
                assert_eq!(ends(&broker).await.1, end, "{jump}, restart: {restart}");
            }
        }
    }
}

#[tokio::test]
async fn time_for_which_the_machine_was_off_counts_and_its_clock_never_makes_time_go_back() {
    for (shows, remembered) in
        [(NOON + 3_600_000, false), (NOON + 3_500_000, true), (NOON - 86_400_000, true), (0, true)]
    {
        let mut machine = Machine::new(|settings| settings.dedup_window = Some(HOUR));
        let broker = machine.open();
        let orders = make(&broker, "orders", 1).await;
        let one = text("one");
        broker.publish(&(&orders).into(), vec![one.clone()]).await.into_result().unwrap();
        drop(broker);
        machine.reboot(shows);
        let broker = machine.open();
        broker.publish(&(&orders).into(), vec![one.clone()]).await.into_result().unwrap();
        assert_eq!(ends(&broker).await.1, if remembered { 1 } else { 2 }, "{shows}");
        machine.clock.pass(HOUR);
        broker.publish(&(&orders).into(), vec![one.clone()]).await.into_result().unwrap();
        assert_eq!(
            ends(&broker).await.1,
            if remembered { 2 } else { 3 },
            "{shows}: the window ends all the same"
        );
    }
}

#[tokio::test]
async fn time_goes_on_from_what_a_killed_process_stored_last() {
    let mut machine = Machine::new(|settings| settings.dedup_window = Some(HOUR));
    let broker = machine.open();
    let orders = make(&broker, "orders", 1).await;
    let one = text("one");
    broker.publish(&(&orders).into(), vec![one.clone()]).await.into_result().unwrap();
    for _ in 0..30 {
        machine.clock.pass(Duration::from_secs(100));
        publish(&broker, &orders, 0, &["x"]).await;
    }
    // Killed: nothing is closed. The machine starts again with a clock that lost its battery.
    std::mem::forget(broker);
    machine.reboot(0);
    let broker = machine.open();
    machine.clock.pass(Duration::from_secs(590));
    broker.publish(&(&orders).into(), vec![one.clone()]).await.into_result().unwrap();
    assert_eq!(ends(&broker).await.1, 31, "recognised");
    machine.clock.pass(Duration::from_secs(11));
    broker.publish(&(&orders).into(), vec![one]).await.into_result().unwrap();
    assert_eq!(ends(&broker).await.1, 32, "the window began 3,600 s ago");
}

#[tokio::test]
async fn epochs_lives_and_stamps_grow_wherever_the_clock_jumps() {
    let machine = Machine::new(|_| ());
    let (mut epoch, mut position) = (crate::Epoch(0), crate::Position(0, 0));
    for restart in [false, true] {
        for jump in JUMPS {
            let mut broker = machine.open();
            machine.shift(jump);
            if restart {
                drop(broker);
                broker = machine.open();
            }
            let orders = make(&broker, "orders", 1).await;
            let at = publish(&broker, &orders, 0, &["a"]).await[0];
            assert!(at > position, "{at} after {position}");
            machine.shift(-1000);
            position = publish(&broker, &orders, 0, &["b"]).await[0];
            for _ in 0..2 {
                let mut consumer = owner(&broker, |_| ()).await;
                let of = assigned(&mut *consumer).await.remove(0).of;
                assert!(of.epoch > epoch, "{} after {epoch}", of.epoch);
                epoch = of.epoch;
            }
            // The second was taken by an earlier clock, and is found behind the first all the same.
            let mut reader = broker.read().await.unwrap();
            reader.follow(&orders, None, Start::Time(Timestamp::from_millis(i64::MIN))).await.unwrap();
            let Some(Ok(Event::Batch(batch))) = reader.next().now_or_never() else { panic!() };
            assert_eq!(texts(&contents(&batch)), ["a", "b"]);
            broker.admin().delete_topic(&orders).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_drain_takes_as_long_as_it_takes_whatever_the_clock_shows() {
    for jump in JUMPS {
        let machine = Machine::new(|_| ());
        let broker = machine.open();
        let orders = make(&broker, "orders", 2).await;
        publish(&broker, &orders, 0, &["a"]).await;
        publish(&broker, &orders, 1, &["b"]).await;
        let mut first = owner(&broker, |s| s.drain = HOUR).await;
        while now_or_never(&mut *first).is_some() {}
        let _second = owner(&broker, |_| ()).await;
        let Some(Event::Revoking { left, .. }) = now_or_never(&mut *first) else { panic!("{jump}") };
        assert_eq!(left, HOUR);
        machine.shift(jump);
        machine.clock.pass(HOUR - Duration::from_millis(1));
        assert!(now_or_never(&mut *first).is_none(), "{jump}: early");
        machine.clock.pass(Duration::from_millis(1));
        let gone = now_or_never(&mut *first);
        assert!(matches!(gone, Some(Event::Gone(_, GoneReason::DrainOver))), "{jump}: {gone:?}");
    }
}

#[tokio::test]
async fn a_close_ends_at_its_deadline_whatever_the_clock_shows() {
    for jump in JUMPS {
        let machine = Machine::new(|_| ());
        let broker = machine.open();
        let orders = make(&broker, "orders", 1).await;
        publish(&broker, &orders, 0, &["a"]).await;
        let mut consumer = owner(&broker, |_| ()).await;
        batch_of(&mut *consumer);
        let mut closing = consumer.control().close(HOUR);
        machine.shift(jump);
        machine.clock.pass(HOUR - Duration::from_millis(1));
        broker.engine().catch_up();
        assert!((&mut closing).now_or_never().is_none(), "{jump}: early");
        machine.clock.pass(Duration::from_millis(1));
        broker.engine().catch_up();
        let unacked = (&mut closing).now_or_never();
        assert_eq!(unacked.map(|list| list.len()), Some(1), "{jump}");
    }
}

#[tokio::test]
async fn acks_are_stored_with_their_interval_whatever_the_clock_shows() {
    for jump in JUMPS {
        let machine = Machine::new(|_| ());
        let broker = machine.open();
        let orders = make(&broker, "orders", 1).await;
        let positions = publish(&broker, &orders, 0, &["a"]).await;
        let mut consumer = owner(&broker, |s| s.ack_interval = MINUTE).await;
        let of = batch_of(&mut *consumer);
        let control: Arc<dyn Control> = consumer.control();
        control.ack(&of, &positions).unwrap();
        machine.shift(jump);
        machine.clock.pass(MINUTE);
        broker.engine().catch_up();
        // Killed: what was stored is stored.
        std::mem::forget((consumer, broker));
        let broker = machine.open();
        let info = broker.admin().describe_group(&group("g")).await.unwrap();
        assert_eq!(info.partitions[0].lag, Some(0), "{jump}");
    }
}

#[tokio::test]
async fn a_group_without_members_holds_retention_back_for_its_time_whatever_the_clock_shows() {
    for jump in JUMPS {
        for restart in [false, true] {
            let machine = Machine::new(|settings| {
                settings.group_expiry = 2 * DAY;
                settings.segment = 1;
            });
            let mut broker = machine.open();
            let orders = topic("orders");
            let spec = TopicSpec {
                retention: Retention { bytes: Some(1), ..Retention::default() },
                ..TopicSpec::partitions(1)
            };
            broker.admin().create_topic(&orders, spec).await.unwrap();
            drop(owner(&broker, |_| ()).await);
            publish(&broker, &orders, 0, &["a"; 10]).await;
            machine.shift(jump);
            if restart {
                drop(broker);
                broker = machine.open();
            }
            machine.clock.pass(2 * DAY - Duration::from_secs(1));
            assert_eq!(ends(&broker).await.0, 0, "{jump}, restart: {restart}");
            machine.clock.pass(Duration::from_secs(2));
            publish(&broker, &orders, 0, &["b"]).await;
            machine.clock.pass(Duration::from_secs(2));
            assert!(ends(&broker).await.0 > 0, "{jump}, restart: {restart}");
        }
    }
}

/// The first batch, which is there already.
fn batch_of(consumer: &mut dyn Consumer) -> Owned {
    loop {
        match now_or_never(consumer) {
            Some(Event::Batch(batch)) => return batch.of,
            Some(_) => {}
            None => panic!("there is a message"),
        }
    }
}

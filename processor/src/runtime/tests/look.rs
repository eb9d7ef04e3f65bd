//! Messages that the driver runs itself, as far as they go at once.
//! Not here: which handlers are quick (`router/pace.rs`), what holds for all runs (`work.rs`, `ends.rs`).

use super::fake::{Asked, Fake, message};
use super::*;
use crate::{FailureClass, FailureRecord};
use ropeway_broker::GoneReason;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// More than workers have to see, and as many as count.
const WARM: u64 = 128;

/// A processor whose handler was seen to be quick. It notes what it begins, and whether the driver runs it: `driver: text`.
pub(super) async fn warm<U>(
    fake: &Fake,
    log: &Log,
    settings: ProcessorSettings,
    handle: impl Fn(Event, crate::Context) -> U + Send + Sync + 'static,
) -> Processor
where
    U: Future<Output = Result<Verdict, BoxError>> + Send + 'static,
{
    let (noted, of) = (log.clone(), fake.clone());
    let router = Router::new().on(
        "e",
        raw(move |event, cx| {
            let (warms, text) = (text(&event) == "warm", text(&event));
            let handling = (!warms).then(|| handle(event, cx));
            let (log, fake) = (noted.clone(), of.clone());
            async move {
                let Some(handling) = handling else { return Ok(Verdict::Done) };
                let who = if fake.driver() == tokio::task::try_id() { "driver" } else { "worker" };
                log.note(format!("{who}: {text}"));
                handling.await
            }
        }),
    );
    let processor = start_router(fake, settings, router).await;
    fake.assign(0, 1);
    // In two batches, so that the second one is looked at.
    for first in [1_000_000, 2_000_000] {
        fake.deliver(0, 1, first, (0..WARM).map(|n| message(&format!("warm {n}"), "warm")));
        pass(s(1)).await;
    }
    assert_eq!(fake.acked(0).len() as u64, 2 * WARM);
    processor
}

/// What was acked beside the warming up.
fn acked(fake: &Fake) -> Vec<u64> {
    fake.acked(0).into_iter().filter(|position| *position < 1_000_000).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_quick_is_run_by_the_driver_and_all_of_it_is_counted() {
    let (fake, log) = (Fake::default(), Log::default());
    let processor = warm(&fake, &log, settings(), |_, _| async { Ok(Verdict::Done) }).await;
    // Two of a key too, and one without.
    let keyless = ropeway_broker::Message::builder().event_type("e").payload("none").build();
    fake.deliver(0, 1, 0, [message("a", "1"), message("a", "2"), message("b", "3"), keyless]);
    pass(ms(1)).await;
    assert_eq!(log.all(), ["driver: 1", "driver: 2", "driver: 3", "driver: none"]);
    assert_eq!(acked(&fake), [0, 1, 2, 3]);
    let snapshot = processor.snapshot();
    let counted = (snapshot.delivered, snapshot.handled, snapshot.in_flight, snapshot.keys, snapshot.running);
    assert_eq!(counted, (2 * WARM + 4, 2 * WARM + 4, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn keys_keep_their_order_where_some_are_ready_at_once_and_some_are_not() {
    let (fake, log) = (Fake::default(), Log::default());
    let ends = Log::default();
    let noted = ends.clone();
    let _processor = warm(&fake, &log, settings(), move |event, _| {
        let (text, ends) = (text(&event), noted.clone());
        async move {
            let n: u64 = text[1..].parse().unwrap();
            if n % 11 == 3 {
                tokio::time::sleep(ms(1 + n % 7)).await;
            }
            ends.note(text);
            Ok(Verdict::Done)
        }
    })
    .await;
    for batch in 0..10 {
        let keys = ["a", "b", "c"];
        let of = |n: u64| message(keys[n as usize % 3], &format!("{}{n}", keys[n as usize % 3]));
        fake.deliver(0, 1, batch * 30, (batch * 30..batch * 30 + 30).map(of));
        pass(ms(batch % 3)).await;
    }
    pass(s(1)).await;
    let log: Vec<String> = log.all();
    assert!(["driver", "worker"].iter().all(|who| log.iter().any(|entry| entry.starts_with(who))), "{log:?}");
    let begun: Vec<String> = log.iter().map(|entry| entry[8..].to_owned()).collect();
    for key in ["a", "b", "c"] {
        let of_key = |all: &[String]| -> Vec<u64> {
            all.iter()
                .filter(|entry| entry.starts_with(key))
                .map(|entry| entry[1..].parse().unwrap())
                .collect()
        };
        let (begun, ended) = (of_key(&begun), of_key(&ends.all()));
        assert!(begun.len() == 100 && begun.is_sorted() && begun == ended, "{key}: {begun:?}, {ended:?}");
    }
    let acked = acked(&fake);
    assert_eq!(acked.len(), 300);
    for key in 0..3 {
        assert!(acked.iter().filter(|n| *n % 3 == key).is_sorted(), "{acked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_ready_goes_on_with_a_worker_and_was_called_once() {
    let (fake, log) = (Fake::default(), Log::default());
    let processor = warm(&fake, &log, settings(), |event, _| async move {
        if text(&event) == "slow" {
            tokio::task::yield_now().await;
            tokio::time::sleep(s(1)).await;
        }
        Ok(Verdict::Done)
    })
    .await;
    fake.deliver(0, 1, 0, [message("a", "slow"), message("a", "behind"), message("b", "beside")]);
    pass(ms(500)).await;
    assert_eq!(log.all(), ["driver: slow", "driver: beside"]);
    let snapshot = processor.snapshot();
    assert_eq!((snapshot.running, snapshot.in_flight, snapshot.keys), (1, 2, 1));
    pass(s(1)).await;
    assert_eq!(log.all().len(), 3);
    assert_eq!(acked(&fake), [2, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_at_a_look_is_a_failure_and_the_driver_lives_on() {
    let (fake, log) = (Fake::default(), Log::default());
    let settings = ProcessorSettings { retry: RetryPolicy::never(), ..settings() };
    let _processor = warm(&fake, &log, settings, |event, _| {
        assert!(text(&event) != "calling", "panics before it is a future");
        async move {
            assert!(text(&event) != "polling", "panics when it is polled");
            Ok(Verdict::Done)
        }
    })
    .await;
    fake.deliver(0, 1, 0, [message("a", "polling"), message("b", "calling"), message("a", "after")]);
    pass(ms(1)).await;
    let letters = fake.letters();
    let records = letters.iter().map(|letter| FailureRecord::parse(letter).unwrap().unwrap());
    let failures: Vec<_> = records.map(|record| (record.class, record.error, record.attempts)).collect();
    let panics = |said: &str| (FailureClass::Panic, said.to_owned(), 1);
    assert_eq!(failures, [panics("panics when it is polled"), panics("panics before it is a future")]);
    assert_eq!(log.all(), ["driver: polling", "driver: after"]);
    assert_eq!(acked(&fake), [2]);
}

#[tokio::test(start_paused = true)]
async fn the_time_of_an_attempt_is_counted_from_the_look() {
    let (fake, log) = (Fake::default(), Log::default());
    let settings =
        ProcessorSettings { attempt_timeout: Some(s(3)), retry: RetryPolicy::never(), ..settings() };
    let told = Log::default();
    let noted = told.clone();
    let _processor = warm(&fake, &log, settings, move |_, cx| {
        let told = noted.clone();
        async move {
            tokio::spawn(async move {
                cx.cancelled().await;
                told.note("cancelled");
            });
            std::future::pending().await
        }
    })
    .await;
    fake.deliver(0, 1, 0, [message("a", "hangs")]);
    pass(ms(2999)).await;
    assert_eq!((log.all(), fake.letters().len()), (vec!["driver: hangs".to_owned()], 0));
    pass(ms(2)).await;
    let record = FailureRecord::parse(&fake.letters()[0]).unwrap().unwrap();
    assert_eq!(record.class, FailureClass::Timeout);
    assert_eq!(told.all(), ["cancelled"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_handed_over_is_cancelled_and_dropped_with_its_partition() {
    let (fake, log) = (Fake::default(), Log::default());
    let processor = warm(&fake, &log, settings(), |event, cx| async move {
        if text(&event) == "listens" {
            cx.cancelled().await;
        } else {
            std::future::pending::<()>().await;
        }
        Ok(Verdict::Done)
    })
    .await;
    fake.deliver(0, 1, 0, [message("a", "listens"), message("b", "deaf"), message("b", "waits")]);
    pass(s(1)).await;
    assert_eq!(log.all(), ["driver: listens", "driver: deaf"]);
    fake.gone(0, 1, GoneReason::Lost);
    pass(s(1)).await;
    let snapshot = processor.snapshot();
    assert_eq!((snapshot.late, snapshot.running, snapshot.given_up), (1, 1, 1));
    pass(s(2)).await;
    let snapshot = processor.snapshot();
    assert_eq!((snapshot.late, snapshot.running, snapshot.in_flight), (1, 0, 0));
    assert!(acked(&fake).is_empty() && fake.letters().is_empty());
}

#[tokio::test(start_paused = true)]
async fn never_more_run_than_may_though_some_are_looked_at() {
    let (fake, log) = (Fake::default(), Log::default());
    let (now, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let counted = (now.clone(), most.clone());
    let settings = ProcessorSettings { concurrency: 3, ..settings() };
    let processor = warm(&fake, &log, settings, move |event, _| {
        let (now, most) = counted.clone();
        async move {
            most.fetch_max(now.fetch_add(1, Relaxed) + 1, Relaxed);
            if text(&event) == "slow" {
                tokio::time::sleep(s(1)).await;
            }
            now.fetch_sub(1, Relaxed);
            Ok(Verdict::Done)
        }
    })
    .await;
    for batch in 0..20 {
        let text = |n: u64| if n.is_multiple_of(5) { "slow" } else { "quick" };
        fake.deliver(0, 1, batch * 20, (0..20).map(|n| message(&format!("{batch} {n}"), text(n))));
        pass(ms(300)).await;
        assert!(processor.snapshot().running <= 3);
    }
    pass(s(60)).await;
    assert_eq!((most.load(Relaxed), now.load(Relaxed), acked(&fake).len()), (3, 0, 400));
    assert!(log.all().iter().any(|entry| entry == "driver: slow"), "some were looked at");
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_written_after_the_acks_of_what_was_before_it() {
    let (fake, log) = (Fake::default(), Log::default());
    let _processor = warm(&fake, &log, settings(), |event, _| async move {
        Ok(if text(&event) == "bad" { Verdict::reject("bad") } else { Verdict::Done })
    })
    .await;
    let before = fake.asked().len();
    fake.deliver(0, 1, 0, [message("k", "good"), message("k", "bad"), message("k", "behind")]);
    pass(ms(1)).await;
    let asked: Vec<_> = fake.asked().split_off(before);
    let shown: Vec<String> = asked
        .iter()
        .map(|asked| match asked {
            Asked::Ack(_, positions) => format!("ack {positions:?}"),
            Asked::Letter(_, position, _) => format!("letter {position}"),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(shown, ["ack [0]", "letter 1", "ack [2]"]);
    assert_eq!(log.all(), ["driver: good", "driver: bad", "driver: behind"]);
}

#[tokio::test(start_paused = true)]
async fn others_run_between_batches_though_the_consumer_always_has_more() {
    let (fake, log) = (Fake::default(), Log::default());
    let processor = warm(&fake, &log, settings(), |_, _| async { Ok(Verdict::Done) }).await;
    for batch in 0..100 {
        fake.deliver(0, 1, batch * 100, (0..100).map(|n| message(&format!("{n}"), "m")));
    }
    // Each turn of this task is one that the driver left to others.
    let mut turns = 0;
    while processor.snapshot().in_flight > 0 || acked(&fake).len() < 10_000 {
        turns += 1;
        tokio::task::yield_now().await;
    }
    assert!(turns >= 20, "{turns} turns beside 10,000 messages");
    assert!(log.all().iter().all(|entry| entry == "driver: m"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_blocks_holds_the_driver_up_once() {
    let (fake, log) = (Fake::default(), Log::default());
    let router = Router::new().on("e", {
        let (fake, log) = (fake.clone(), log.clone());
        raw(move |event, _| {
            let (fake, log) = (fake.clone(), log.clone());
            async move {
                let blocks = text(&event) == "blocks";
                if fake.driver() == tokio::task::try_id() {
                    log.note(text(&event));
                }
                if blocks {
                    std::thread::sleep(ms(5));
                }
                Ok::<_, BoxError>(Verdict::Done)
            }
        })
    });
    let _processor = start_router(&fake, settings(), router).await;
    fake.assign(0, 1);
    let mut next = 0;
    let patience = Instant::now();
    // The driver runs them once they were quick, which takes some time where the machine is busy.
    while log.all().is_empty() {
        assert!(patience.elapsed() < s(60), "never looked at");
        fake.deliver(0, 1, next, (0..64).map(|n| message(&format!("{n}"), "quick")));
        next += 64;
        while (fake.acked(0).len() as u64) < next {
            tokio::time::sleep(ms(1)).await;
        }
    }
    fake.deliver(0, 1, next, (0..20).map(|n| message(&format!("{n}"), "blocks")));
    while (fake.acked(0).len() as u64) < next + 20 {
        assert!(patience.elapsed() < s(90), "not all were handled");
        tokio::time::sleep(ms(1)).await;
    }
    assert!(log.all().iter().filter(|entry| *entry == "blocks").count() <= 1, "{:?}", log.all());
}

/// An error that cannot be told.
#[derive(Debug)]
struct Untold;

impl std::fmt::Display for Untold {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("panics when it is told")
    }
}

impl std::error::Error for Untold {}

#[tokio::test(start_paused = true)]
async fn an_error_that_panics_when_it_is_told_is_a_failure_and_the_driver_lives_on() {
    let (fake, log) = (Fake::default(), Log::default());
    let settings = ProcessorSettings { retry: RetryPolicy::never(), ..settings() };
    let _processor = warm(&fake, &log, settings, |event, _| async move {
        if text(&event) == "untold" { Err(Untold.into()) } else { Ok(Verdict::Done) }
    })
    .await;
    fake.deliver(0, 1, 0, [message("a", "untold"), message("a", "after")]);
    pass(ms(1)).await;
    let letters = fake.letters();
    let records = letters.iter().map(|letter| FailureRecord::parse(letter).unwrap().unwrap());
    let failures: Vec<_> = records.map(|record| (record.class, record.error)).collect();
    assert_eq!(failures, [(FailureClass::Panic, "panics when it is told".to_owned())]);
    assert_eq!(
        (log.all(), acked(&fake)),
        (vec!["driver: untold".to_owned(), "driver: after".to_owned()], vec![1])
    );
}

/// What a registry shows of the only handler: how many run, how many were handled, how long their attempts took in all.
fn shown(registry: &prometheus::Registry) -> (f64, f64, f64) {
    let families = registry.gather();
    let find = |name: &str| families.iter().find(|family| family.name() == name).unwrap().get_metric();
    let ok =
        |metric: &&prometheus::proto::Metric| metric.get_label().iter().any(|label| label.value() == "ok");
    let handled = find("ropeway_handler_events_total").iter().find(ok).unwrap();
    (
        find("ropeway_handler_inflight")[0].get_gauge().get_value(),
        handled.get_counter().get_value(),
        find("messaging_process_duration_seconds")[0].get_histogram().get_sample_sum(),
    )
}

/// A processor that counts there, and fails what says `fails`.
async fn counted(fake: &Fake, registry: &prometheus::Registry) -> Processor {
    let handle = |event: Event, _| async move {
        Ok::<_, BoxError>(if text(&event) == "fails" { Verdict::reject("fails") } else { Verdict::Done })
    };
    let router = Router::new().on("e", raw(handle));
    let metrics = crate::Metrics::register(registry).unwrap();
    let processor = start_counted(fake, settings(), router, Some(&metrics)).await;
    fake.assign(0, 1);
    processor
}

#[tokio::test(start_paused = true)]
async fn what_was_run_is_counted_and_acked_before_others_have_their_turn() {
    let (fake, registry) = (Fake::default(), prometheus::Registry::new());
    let processor = counted(&fake, &registry).await;
    let batch = |first: u64| (first..first + 300).map(|n| message(&n.to_string(), "m"));
    fake.deliver(0, 1, 0, batch(0));
    pass(ms(1)).await;
    fake.deliver(0, 1, 300, batch(300));
    // The driver has one turn, and leaves the next to others.
    tokio::task::yield_now().await;
    processor.abort();
    pass(ms(1)).await;
    let (running, handled, _) = shown(&registry);
    assert_eq!((running, handled, fake.acked(0).len()), (0.0, 600.0, 600));
}

#[tokio::test]
async fn what_the_driver_does_between_two_looks_does_not_count_for_the_second() {
    let (fake, registry) = (Fake::default(), prometheus::Registry::new());
    let _processor = counted(&fake, &registry).await;
    let patience = Instant::now();
    let mut next = 0;
    // The driver runs them once they were quick, which takes some time where the machine is busy: then letters are written in its turn.
    let before = loop {
        assert!(patience.elapsed() < s(60), "never looked at");
        fake.deliver(0, 1, next, (0..64).map(|n| message(&n.to_string(), "m")));
        next += 64;
        while (fake.acked(0).len() as u64) < next {
            tokio::time::sleep(ms(1)).await;
        }
        let (_, handled, took) = shown(&registry);
        if handled >= 128.0 {
            break took;
        }
    };
    fake.acks_take(s(1));
    fake.deliver(0, 1, next, [message("a", "m"), message("b", "fails"), message("c", "m")]);
    while (fake.acked(0).len() as u64) < next + 2 {
        assert!(patience.elapsed() < s(90), "not all were handled");
        tokio::time::sleep(ms(1)).await;
    }
    let (_, _, took) = shown(&registry);
    assert!(took - before < 0.5, "{} s for two that do nothing", took - before);
}

#[tokio::test]
async fn a_handler_that_blocks_the_driver_does_not_hold_a_shutdown_up_for_ever() {
    let (fake, blocks) = (Fake::default(), Arc::new(AtomicBool::new(false)));
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = Arc::new(Mutex::new(blocked));
    let (of, noted) = (fake.clone(), blocks.clone());
    let handle = move |event: Event, _| {
        let (blocked, fake, blocks) = (blocked.clone(), of.clone(), noted.clone());
        async move {
            if text(&event) == "blocks" && fake.driver() == tokio::task::try_id() {
                blocks.store(true, Relaxed);
                let _ = blocked.lock().unwrap().recv();
            }
            Ok::<_, BoxError>(Verdict::Done)
        }
    };
    // One thread: there nothing counts as too long to be looked at, however busy the machine is.
    let theirs = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let of = fake.clone();
    let starts =
        theirs.spawn(async move { start_router(&of, settings(), Router::new().on("e", raw(handle))).await });
    let processor = starts.await.unwrap();
    fake.assign(0, 1);
    let patience = Instant::now();
    let mut next = 0;
    // Nothing slows the others down, or none of them is looked at.
    while !blocks.load(Relaxed) {
        assert!(patience.elapsed() < s(60), "never looked at");
        // No more than what is handled by then: where much waits in lanes there are no first looks.
        if fake.acked(0).len() as u64 >= next {
            let kind = |n| if n == 63 { "blocks" } else { "quick" };
            fake.deliver(0, 1, next, (0..64).map(|n| message(&n.to_string(), kind(n))));
            next += 64;
        }
        tokio::time::sleep(ms(5)).await;
    }
    let since = Instant::now();
    let report = tokio::time::timeout(s(20), processor.shutdown(ms(100))).await;
    let took = since.elapsed();
    release.send(()).unwrap();
    theirs.shutdown_background();
    let report = report.unwrap();
    assert!(took < s(10) && !report.is_clean() && report.dropped_handlers > 0, "{took:?}: {report:?}");
    assert_eq!(processor.finished().await.unwrap_err().kind(), ErrorKind::Closed);
}

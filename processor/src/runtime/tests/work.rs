//! Retries, dead letters, order, what a slow key costs others.
//! Not here: what ends it (`ends.rs`).

use super::fake::{Asked, Fake, message, owned};
use super::*;
use crate::{FailureClass, FailureRecord, HandlerOptions, Unknown};
use ropeway_broker::{Error, ErrorKind, Event as BusEvent, Position};

#[tokio::test(start_paused = true)]
async fn keys_keep_their_order_and_acks_come_in_that_order() {
    let (fake, log) = (Fake::default(), Log::default());
    let _processor = start(&fake, &log, settings(), |event, _| async move {
        // Later messages are faster.
        let n: u64 = text(&event)[1..].parse().unwrap();
        tokio::time::sleep(ms(100 - n)).await;
        Ok(Verdict::Done)
    })
    .await;
    fake.assign(0, 1);
    fake.deliver(0, 1, 0, (0..20).map(|n| message(["a", "b"][n % 2], &format!("{}{n}", ["a", "b"][n % 2]))));
    pass(s(5)).await;
    let log = log.all();
    for key in ["a", "b"] {
        let of_key: Vec<&String> = log.iter().filter(|entry| entry.starts_with(key)).collect();
        let mut sorted = of_key.clone();
        sorted.sort_by_key(|entry| entry[1..entry.len() - 2].parse::<u64>().unwrap());
        assert_eq!(of_key, sorted);
    }
    let acked = fake.acked(0);
    assert_eq!(acked.len(), 20);
    for parity in 0..2 {
        let of_key: Vec<u64> = acked.iter().copied().filter(|n| n % 2 == parity).collect();
        assert!(of_key.is_sorted(), "{acked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_key_waits_and_others_go_on() {
    let (fake, log) = (Fake::default(), Log::default());
    let processor = start(&fake, &log, settings(), |event, cx| async move {
        if text(&event) == "bad" && cx.attempt() < 3 {
            return Err("flaky".into());
        }
        Ok(Verdict::Done)
    })
    .await;
    fake.assign(0, 1);
    fake.deliver(0, 1, 0, [message("k", "bad"), message("k", "behind"), message("o", "other")]);
    pass(ms(50)).await;
    assert_eq!(log.all(), ["bad/1", "other/1"]);
    assert_eq!(processor.snapshot().waiting, 1);
    pass(ms(60)).await;
    assert_eq!(log.all(), ["bad/1", "other/1", "bad/2"]);
    pass(s(1)).await;
    assert_eq!(log.all(), ["bad/1", "other/1", "bad/2", "bad/3", "behind/1"]);
    assert_eq!(fake.acked(0), [2, 0, 1]);
    let snapshot = processor.snapshot();
    assert_eq!(
        (snapshot.handled, snapshot.retried, snapshot.in_flight, snapshot.dead_lettered),
        (3, 2, 0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_asks_for_a_wait_gets_it() {
    let (fake, log) = (Fake::default(), Log::default());
    let _processor = start(&fake, &log, settings(), |_, cx| async move {
        Ok(if cx.attempt() == 1 { Verdict::retry_after(s(60)) } else { Verdict::Done })
    })
    .await;
    fake.assign(0, 1);
    fake.deliver(0, 1, 0, [message("k", "m")]);
    pass(ms(59_990)).await;
    assert_eq!(log.all(), ["m/1"]);
    pass(ms(20)).await;
    assert_eq!(log.all(), ["m/1", "m/2"]);
}

#[tokio::test(start_paused = true)]
async fn the_exhausted_is_dead_lettered_with_its_record_and_its_key_goes_on() {
    let (fake, log) = (Fake::default(), Log::default());
    let processor = start(&fake, &log, settings(), |event, _| async move {
        if text(&event) == "bad" { Err("order 7 is odd".into()) } else { Ok(Verdict::Done) }
    })
    .await;
    fake.assign(3, 9);
    let original = message("k", "bad");
    fake.deliver(3, 9, 5, [original.clone(), message("k", "good")]);
    pass(s(10)).await;
    assert_eq!(log.all(), ["bad/1", "bad/2", "bad/3", "good/1"]);
    assert!(fake.asked().contains(&Asked::Create("t.g.dlq".into())), "its topic is made at the start");
    let letters = fake.letters();
    assert_eq!(letters.len(), 1);
    assert_eq!((&letters[0].key, &letters[0].payload), (&original.key, &original.payload));
    assert_eq!(letters[0].timestamp, original.timestamp);
    let record = FailureRecord::parse(&letters[0]).unwrap().unwrap();
    assert_eq!(record.class, FailureClass::Error);
    assert_eq!(
        (record.error.as_str(), record.handler.as_deref(), record.attempts),
        ("order 7 is odd", Some("e"), 3)
    );
    assert_eq!((record.partition, record.position, record.id), (3, Position(0, 5), original.id));
    assert_eq!((record.group.as_str(), record.topic.as_str(), record.node.as_str()), ("g", "t", "test"));
    assert_eq!(record.last.since(record.first), ms(300));
    assert_eq!(fake.acked(3), [6], "a dead letter is acked together with its writing");
    assert_eq!(processor.snapshot().dead_lettered, 1);
}

#[tokio::test(start_paused = true)]
async fn what_no_retry_can_help_is_dead_lettered_at_once() {
    let (fake, log) = (Fake::default(), Log::default());
    let _processor = start(&fake, &log, settings(), |event, _| async move {
        match text(&event).as_str() {
            "reject" => Ok(Verdict::reject("no such customer")),
            "decode" => Err(crate::Undecodable::new("a.b: missing").into()),
            _ => Ok(Verdict::Done),
        }
    })
    .await;
    fake.assign(0, 1);
    let untyped = ropeway_broker::Message::builder().key("u").payload("x").build();
    fake.deliver(0, 1, 0, [message("a", "reject"), message("b", "decode"), untyped]);
    let why = Error::new(ErrorKind::Corrupt, "bad checksum");
    let raw = Some(bytes::Bytes::from_static(b"\xff\xfe"));
    fake.tell(Ok(BusEvent::Unreadable { of: owned(0, 1), position: Position(0, 9), raw: raw.clone(), why }));
    pass(ms(10)).await;
    let records: Vec<FailureRecord> =
        fake.letters().iter().map(|letter| FailureRecord::parse(letter).unwrap().unwrap()).collect();
    let classes: Vec<(FailureClass, u32)> = records.iter().map(|r| (r.class, r.attempts)).collect();
    let expected = [
        (FailureClass::UnknownType, 0),
        (FailureClass::Unreadable, 0),
        (FailureClass::Rejected, 1),
        (FailureClass::Undecodable, 1),
    ];
    assert!(expected.iter().all(|e| classes.contains(e)) && classes.len() == 4, "{classes:?}");
    let unreadable = fake.letters().into_iter().find(|letter| letter.payload == raw).unwrap();
    assert_eq!(FailureRecord::parse(&unreadable).unwrap().unwrap().error, "bad checksum");
    assert_eq!(log.all().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn unknown_types_are_ignored_only_where_that_is_spelled_out() {
    let fake = Fake::default();
    let router = Router::new()
        .on("x", raw(|_, _| async { Ok::<_, BoxError>(Verdict::Done) }))
        .unknown(Unknown::Ignore);
    let processor = start_router(&fake, settings(), router).await;
    fake.assign(0, 1);
    fake.deliver(0, 1, 0, [message("a", "m")]);
    pass(ms(10)).await;
    assert_eq!((fake.acked(0), fake.letters().len(), processor.snapshot().skipped), (vec![0], 0, 1));
}

#[tokio::test(start_paused = true)]
async fn panics_and_timeouts_are_failures_of_their_class_and_the_processor_lives_on() {
    let (fake, log) = (Fake::default(), Log::default());
    let settings =
        ProcessorSettings { attempt_timeout: Some(s(3)), retry: RetryPolicy::never(), ..settings() };
    let _processor = start(&fake, &log, settings, |event, _| async move {
        match text(&event).as_str() {
            "panic" => panic!("boom"),
            "hang" => std::future::pending().await,
            _ => Ok(Verdict::Done),
        }
    })
    .await;
    fake.assign(0, 1);
    fake.deliver(
        0,
        1,
        0,
        [message("a", "panic"), message("b", "hang"), message("a", "after"), message("b", "after")],
    );
    pass(s(4)).await;
    let records: Vec<(FailureClass, String)> = fake
        .letters()
        .iter()
        .map(|letter| FailureRecord::parse(letter).unwrap().unwrap())
        .map(|record| (record.class, record.error))
        .collect();
    assert_eq!(
        records,
        [
            (FailureClass::Panic, "boom".into()),
            (FailureClass::Timeout, "the attempt took longer than 3s".into())
        ]
    );
    assert_eq!(fake.acked(0), [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_topic_that_refuses_holds_its_source_and_nothing_else() {
    let (fake, log) = (Fake::default(), Log::default());
    fake.refuse_for_ever(true);
    let processor = start(&fake, &log, settings(), |event, _| async move {
        Ok(if text(&event) == "bad" { Verdict::reject("bad") } else { Verdict::Done })
    })
    .await;
    fake.assign(0, 1);
    fake.deliver(0, 1, 0, [message("k", "bad"), message("k", "behind"), message("o", "other")]);
    pass(s(600)).await;
    assert_eq!(log.all(), ["bad/1", "other/1"]);
    assert_eq!(fake.acked(0), [2], "what is not dead-lettered is never acked");
    let snapshot = processor.snapshot();
    assert_eq!((snapshot.held, snapshot.waiting), (1, 1));
    assert!((20..60).contains(&snapshot.letters_refused), "{snapshot:?}");
    fake.refuse_for_ever(false);
    pass(s(31)).await;
    assert_eq!(fake.letters().len(), 1);
    assert_eq!(log.all(), ["bad/1", "other/1", "behind/1"]);
    assert_eq!(processor.snapshot().held, 0);
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_is_too_large_gets_smaller_and_a_topic_that_is_missing_is_made_again() {
    let (fake, log) = (Fake::default(), Log::default());
    let _processor = start(&fake, &log, settings(), |_, _| async { Ok(Verdict::reject("no")) }).await;
    fake.refuse([ErrorKind::TooLarge, ErrorKind::NotFound]);
    fake.assign(0, 1);
    fake.deliver(0, 1, 0, [message("k", &"x".repeat(5000))]);
    pass(s(60)).await;
    let letters = fake.letters();
    let record = FailureRecord::parse(&letters[0]).unwrap().unwrap();
    assert_eq!((letters[0].payload.clone(), record.payload_left_out), (None, Some(5000)));
    let made = fake.asked().iter().filter(|asked| **asked == Asked::Create("t.g.dlq".into())).count();
    assert_eq!(made, 2);
}

#[tokio::test(start_paused = true)]
async fn slow_keys_leave_a_fast_one_alone() {
    let (fake, log) = (Fake::default(), Log::default());
    let settings = ProcessorSettings { concurrency: 4, ..settings() };
    let _processor = start(&fake, &log, settings, |event, _| async move {
        if text(&event).starts_with("slow") {
            tokio::time::sleep(s(30)).await;
        }
        Ok(Verdict::Done)
    })
    .await;
    fake.assign(0, 1);
    let slow = (0..100).map(|n| message("slow", &format!("slow{n}")));
    let fast = (0..100).map(|n| message("fast", &format!("fast{n}")));
    fake.deliver(0, 1, 0, slow.zip(fast).flat_map(|(slow, fast)| [slow, fast]));
    pass(ms(100)).await;
    assert_eq!(
        fake.acked(0).len(),
        100,
        "every message of the fast key, while the first of the slow one runs"
    );
}

#[tokio::test(start_paused = true)]
async fn no_more_run_at_a_time_than_may() {
    let (fake, log) = (Fake::default(), Log::default());
    let processor = start(&fake, &log, ProcessorSettings { concurrency: 3, ..settings() }, |_, _| async {
        tokio::time::sleep(s(1)).await;
        Ok(Verdict::Done)
    })
    .await;
    fake.assign(0, 1);
    fake.deliver(0, 1, 0, (0..10).map(|n| message(&format!("k{n}"), "m")));
    for second in 0..4 {
        pass(ms(500)).await;
        assert_eq!(processor.snapshot().running, if second < 3 { 3 } else { 1 });
        pass(ms(500)).await;
    }
    pass(ms(10)).await;
    assert_eq!(fake.acked(0).len(), 10);
}

#[tokio::test(start_paused = true)]
async fn of_several_handlers_only_those_that_did_not_finish_run_again() {
    let (fake, log) = (Fake::default(), Log::default());
    let note = |name: &'static str, fail_until: u32| {
        let log = log.clone();
        raw(move |_, cx| {
            log.note(format!("{name}/{}", cx.attempt()));
            async move {
                if cx.attempt() < fail_until {
                    Err::<Verdict, BoxError>("x".into())
                } else {
                    Ok(Verdict::Done)
                }
            }
        })
    };
    let often = HandlerOptions::named("second").retry(RetryPolicy {
        max_attempts: 9,
        jitter: false,
        ..RetryPolicy::default()
    });
    let router = Router::new()
        .on("e", note("first", 2))
        .register("*", "e", often, note("second", 5))
        .on("*", note("third", 1));
    let _processor = start_router(&fake, settings(), router).await;
    fake.assign(0, 1);
    fake.deliver(0, 1, 0, [message("k", "m")]);
    pass(s(60)).await;
    let expected =
        ["first/1", "first/2", "second/1", "second/2", "second/3", "second/4", "second/5", "third/1"];
    assert_eq!(log.all(), expected);
    assert_eq!((fake.acked(0), fake.letters().len()), (vec![0], 0));
}

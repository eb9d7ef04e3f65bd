//! Partitions that go, shutdown, abort, a consumer that fails.
//! Not here: work that goes its way (`work.rs`).

use super::fake::{self, Asked, Fake, message};
use super::*;
use ropeway_broker::{Error, ErrorKind, GoneReason};

#[tokio::test(start_paused = true)]
async fn a_revoked_partition_is_given_up_when_what_runs_is_done_and_what_waits_is_left() {
    let (fake, log) = (Fake::default(), Log::default());
    let processor = start(&fake, &log, settings(), |_, _| async {
        tokio::time::sleep(s(1)).await;
        Ok(Verdict::Done)
    })
    .await;
    fake.assign(0, 1);
    fake.assign(1, 1);
    fake.deliver(0, 1, 0, [message("k", "runs"), message("k", "waits")]);
    fake.deliver(1, 1, 0, [message("k", "kept"), message("k", "kept too")]);
    pass(ms(500)).await;
    fake.revoke(0, 1, s(10));
    pass(s(2)).await;
    let asked = fake.asked();
    let ack = asked.iter().position(|asked| *asked == Asked::Ack(0, vec![0])).unwrap();
    let given_up = asked.iter().position(|asked| *asked == Asked::GiveUp(0)).unwrap();
    assert!(ack < given_up, "acks first: {asked:?}");
    assert_eq!(fake.acked(1), [0, 1], "the other partition goes on");
    assert!(!log.all().contains(&"waits/1".to_owned()));
    assert_eq!(processor.snapshot().given_up, 1);
    fake.revoke(1, 1, s(10));
    pass(ms(10)).await;
    assert!(fake.asked().contains(&Asked::GiveUp(1)), "with nothing in flight it goes at once");
}

#[tokio::test(start_paused = true)]
async fn a_failure_in_a_revoked_partition_burns_no_attempt_and_is_no_dead_letter() {
    let (fake, log) = (Fake::default(), Log::default());
    let _processor = start(&fake, &log, settings(), |_, _| async {
        tokio::time::sleep(s(1)).await;
        Err("x".into())
    })
    .await;
    fake.assign(0, 1);
    fake.deliver(0, 1, 0, [message("k", "m")]);
    pass(ms(500)).await;
    fake.revoke(0, 1, s(10));
    pass(s(60)).await;
    assert_eq!(log.all(), ["m/1"]);
    assert_eq!((fake.letters().len(), fake.acked(0).len()), (0, 0));
    assert!(fake.asked().contains(&Asked::GiveUp(0)));
}

#[tokio::test(start_paused = true)]
async fn handlers_of_a_lost_partition_are_cancelled_then_dropped_and_their_results_ignored() {
    let (fake, log) = (Fake::default(), Log::default());
    let processor = start(&fake, &log, settings(), |event, cx| async move {
        if text(&event) == "listens" {
            cx.cancelled().await;
        } else {
            std::future::pending::<()>().await;
        }
        Ok(Verdict::Done)
    })
    .await;
    fake.assign(0, 1);
    fake.deliver(0, 1, 0, [message("a", "listens"), message("b", "deaf"), message("b", "waits")]);
    pass(s(1)).await;
    fake.gone(0, 1, GoneReason::Lost);
    pass(s(1)).await;
    let snapshot = processor.snapshot();
    assert_eq!((snapshot.late, snapshot.running, snapshot.given_up), (1, 1, 1));
    pass(s(2)).await;
    let snapshot = processor.snapshot();
    assert_eq!((snapshot.late, snapshot.running, snapshot.in_flight), (1, 0, 0));
    assert!(fake.acked(0).is_empty() && fake.letters().is_empty());
}

#[tokio::test(start_paused = true)]
async fn no_other_handler_of_an_event_is_begun_once_its_partition_is_gone() {
    let (fake, log) = (Fake::default(), Log::default());
    let first = |_, _| async {
        tokio::time::sleep(s(1)).await;
        Ok::<_, BoxError>(Verdict::Done)
    };
    let noted = log.clone();
    let second = move |event: Event, _| {
        noted.note(text(&event));
        async { Ok::<_, BoxError>(Verdict::Done) }
    };
    let router = Router::new().on("e", raw(first)).on("e", raw(second));
    let _processor = start_router(&fake, settings(), router).await;
    fake.assign(0, 1);
    fake.assign(1, 1);
    fake.deliver(0, 1, 0, [message("k", "goes")]);
    fake.deliver(1, 1, 0, [message("k", "stays")]);
    pass(ms(500)).await;
    fake.gone(0, 1, GoneReason::Lost);
    pass(s(2)).await;
    assert_eq!(log.all(), ["stays"]);
    assert_eq!((fake.acked(0).len(), fake.acked(1).len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_comes_back_waits_for_the_handlers_it_left_behind() {
    let (fake, log) = (Fake::default(), Log::default());
    let _processor = start(&fake, &log, settings(), |event, _| async move {
        if text(&event) == "old" {
            tokio::time::sleep(s(1)).await;
        }
        Ok(Verdict::Done)
    })
    .await;
    fake.assign(0, 1);
    fake.deliver(0, 1, 0, [message("k", "old")]);
    pass(ms(100)).await;
    fake.gone(0, 1, GoneReason::Lost);
    fake.assign(0, 2);
    fake.deliver(0, 2, 0, [message("k", "old again"), message("o", "other")]);
    pass(ms(100)).await;
    assert_eq!(log.all(), ["old/1", "other/1"]);
    pass(s(2)).await;
    assert_eq!(log.all(), ["old/1", "other/1", "old again/1"]);
    assert_eq!(fake.acked(0), [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_an_epoch_that_is_over_is_left_alone() {
    let (fake, log) = (Fake::default(), Log::default());
    let _processor = start(&fake, &log, settings(), |_, _| async { Ok(Verdict::Done) }).await;
    fake.assign(0, 2);
    fake.deliver(0, 1, 0, [message("k", "stale")]);
    pass(ms(10)).await;
    assert!(log.all().is_empty() && fake.acked(0).is_empty());
}

#[tokio::test(start_paused = true)]
async fn shutdown_finishes_what_was_delivered_retries_included() {
    let (fake, log) = (Fake::default().closes(), Log::default());
    let processor =
        start(&fake, &log, ProcessorSettings { concurrency: 1, ..settings() }, |_, cx| async move {
            tokio::time::sleep(ms(100)).await;
            if cx.attempt() == 1 { Err("first".into()) } else { Ok(Verdict::Done) }
        })
        .await;
    fake.assign(0, 1);
    fake.deliver(0, 1, 0, (0..5).map(|n| message(&format!("k{n}"), "m")));
    pass(ms(50)).await;
    let report = processor.shutdown(s(30)).await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.finished, fake.acked(0).len()), (5, 5));
    assert!(fake.asked().contains(&Asked::GiveUp(0)));
    processor.finished().await.unwrap();
    assert_eq!(processor.shutdown(s(1)).await, ShutdownReport::default());
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_of_a_shutdown_handlers_are_dropped_and_nothing_is_dead_lettered() {
    let (fake, log) = (Fake::default().closes(), Log::default());
    let settings = ProcessorSettings { retry: RetryPolicy::never(), ..settings() };
    let processor = start(&fake, &log, settings, |event, cx| async move {
        if text(&event) == "listens" {
            let since = Instant::now();
            cx.cancelled().await;
            let told = since.elapsed();
            // Nobody is cancelled before the grace, which is 2 s.
            return if told > s(8) { Err("cancelled".into()) } else { Ok(Verdict::Done) };
        }
        std::future::pending().await
    })
    .await;
    fake.assign(0, 1);
    fake.deliver(0, 1, 0, [message("a", "listens"), message("b", "deaf"), message("b", "waits")]);
    pass(ms(10)).await;
    let since = Instant::now();
    let shutdown = tokio::spawn(async move { (processor.shutdown(s(10)).await, processor) });
    let (report, processor) = shutdown.await.unwrap();
    assert!(since.elapsed() < s(11), "{:?}", since.elapsed());
    assert_eq!((report.finished, report.given_up, report.dropped_handlers), (0, 3, 1));
    assert!(fake.letters().is_empty() && fake.acked(0).is_empty());
    assert_eq!(log.all().len(), 2, "what waits behind a given up one does not overtake it");
    processor.finished().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn shutdown_does_not_wait_for_retries_that_are_due_too_late() {
    let (fake, log) = (Fake::default(), Log::default());
    let processor = start(&fake, &log, settings(), |_, _| async { Ok(Verdict::retry_after(s(3600))) }).await;
    fake.assign(0, 1);
    fake.deliver(0, 1, 0, [message("k", "m"), message("k", "behind")]);
    pass(ms(10)).await;
    let reply = tokio::spawn(async move { processor.shutdown(s(30)).await });
    pass(ms(10)).await;
    assert!(fake.asked().contains(&Asked::GiveUp(0)));
    fake.gone(0, 1, GoneReason::Closed);
    fake.tell(Err(Error::new(ErrorKind::Closed, "closed")));
    let report = reply.await.unwrap();
    assert!(report.took < s(1));
    assert_eq!((report.given_up, log.all().len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn what_comes_after_a_shutdown_gave_up_is_left_alone() {
    let (fake, log) = (Fake::default().closes(), Log::default());
    let processor = start(&fake, &log, settings(), |_, _| async { Ok(Verdict::retry_after(s(3600))) }).await;
    fake.assign(0, 1);
    fake.deliver(0, 1, 0, [message("k", "m")]);
    pass(ms(10)).await;
    let shutdown = tokio::spawn(async move { processor.shutdown(s(5)).await });
    pass(s(1)).await;
    fake.deliver(0, 1, 1, [message("k", "would overtake it")]);
    assert_eq!(shutdown.await.unwrap().given_up, 1);
    assert_eq!(log.all(), ["m/1"]);
    assert!(fake.acked(0).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_never_ends_does_not_hold_a_shutdown_up_for_ever() {
    let (fake, log) = (Fake::default(), Log::default());
    let processor = start(&fake, &log, settings(), |_, _| async { Ok(Verdict::Done) }).await;
    fake.assign(0, 1);
    let report = processor.shutdown(s(10)).await;
    assert!(report.took <= s(15), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_no_clock_can_show_is_a_late_one() {
    let (fake, log) = (Fake::default(), Log::default());
    let processor = start(&fake, &log, settings(), |_, _| async {
        tokio::time::sleep(s(60)).await;
        Ok(Verdict::Done)
    })
    .await;
    fake.assign(0, 1);
    fake.deliver(0, 1, 0, [message("k", "m")]);
    pass(ms(10)).await;
    let reply = tokio::spawn(async move { processor.shutdown(Duration::MAX).await });
    pass(s(61)).await;
    assert_eq!(fake.acked(0), [0]);
    fake.gone(0, 1, GoneReason::Closed);
    fake.tell(Err(Error::new(ErrorKind::Closed, "closed")));
    let report = reply.await.unwrap();
    assert!(report.is_clean() && report.finished == 1, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn abort_drops_handlers_and_acks_nothing_more() {
    let (fake, log) = (Fake::default(), Log::default());
    let processor = start(&fake, &log, settings(), |_, cx| async move {
        tokio::spawn(async move {
            cx.cancelled().await;
        });
        tokio::time::sleep(s(1)).await;
        Ok(Verdict::Done)
    })
    .await;
    fake.assign(0, 1);
    fake.deliver(0, 1, 0, [message("k", "m")]);
    pass(ms(10)).await;
    processor.abort();
    assert_eq!(processor.finished().await.unwrap_err().kind(), ErrorKind::Closed);
    pass(s(5)).await;
    assert!(fake.acked(0).is_empty());
    assert_eq!(log.all(), ["m/1"]);
}

#[tokio::test(start_paused = true)]
async fn what_ends_the_consumer_is_told() {
    let (fake, log) = (Fake::default(), Log::default());
    let processor = start(&fake, &log, settings(), |_, cx| async move {
        cx.cancelled().await;
        Ok(Verdict::Done)
    })
    .await;
    fake.assign(0, 1);
    fake.deliver(0, 1, 0, [message("k", "m")]);
    pass(ms(10)).await;
    fake.tell(Err(Error::new(ErrorKind::Fenced, "another member took over")));
    assert_eq!(processor.finished().await.unwrap_err().kind(), ErrorKind::Fenced);
    assert!(fake.acked(0).is_empty());
}

#[tokio::test(start_paused = true)]
async fn caught_up_needs_every_partition() {
    let (fake, log) = (Fake::default(), Log::default());
    let processor = start(&fake, &log, settings(), |_, _| async { Ok(Verdict::Done) }).await;
    fake.assign(0, 1);
    fake.assign(1, 1);
    fake.tell(Ok(ropeway_broker::Event::CaughtUp(fake::owned(0, 1))));
    pass(ms(10)).await;
    assert!(!processor.snapshot().caught_up);
    fake.tell(Ok(ropeway_broker::Event::CaughtUp(fake::owned(1, 1))));
    pass(ms(10)).await;
    assert!(processor.snapshot().caught_up);
    assert_eq!(processor.snapshot().partitions, 2);
}

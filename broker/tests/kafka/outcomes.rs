//! What a producer says of each record: written, not written, perhaps. By the status of the report, never by its code.
//!
//! Not here: what the records hold (`records.rs`).

use super::{
    raw::{Code, Notes, Producer, Report, Written},
    server::{self, LONG, Member, conf_at, one, plain, producer, send, topic, values},
    tests,
};
use rdkafka::{
    mocking::MockCluster,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};
use tokio::time::Instant;

tests![
    what_was_sent_and_purged_is_perhaps_written_and_what_was_not_sent_is_not,
    what_times_out_unsent_is_not_written,
    what_only_a_later_request_vouches_for_is_perhaps_written,
    one_oversize_record_fails_its_neighbours,
    a_refused_record_is_told_with_the_others,
    a_batch_that_is_refused_is_told_at_once,
    a_topic_of_another_producer_is_refused,
    an_iterator_that_lies_loses_no_report,
    a_panic_of_who_waits_ends_nothing,
    flush_waits_for_who_is_told,
    what_is_left_when_a_producer_goes_is_told,
    values_stay_until_all_records_are_reported_and_not_until_somebody_hears_of_it,
];

type Reports = mpsc::Receiver<Vec<Report>>;

/// Sends without waiting.
fn begin(producer: &Producer, topic: &str, values: &[Vec<u8>]) -> Reports {
    let (done, reports) = mpsc::channel();
    let topic = producer.topic(topic).unwrap();
    let records = (0..values.len()).map(|at| plain(0, at));
    producer.send(
        &topic,
        &Arc::new(values.to_vec()),
        records,
        Box::new(move |reports| done.send(reports).unwrap()),
    );
    reports
}

fn at(servers: &str, settings: &[(&str, &str)]) -> Producer {
    Producer::open(conf_at(servers, settings), Arc::default()).unwrap()
}

fn what_was_sent_and_purged_is_perhaps_written_and_what_was_not_sent_is_not() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("slow", 1, 1).unwrap();
    let settings = [("max.in.flight", "1"), ("batch.num.messages", "10"), ("linger.ms", "0")];
    // One request may be under way. Where a question of the library's own is just that when the server becomes slow, none of ours goes: then once more.
    let purged = || {
        cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();
        let producer = at(&cluster.bootstrap_servers(), &settings);
        let first = begin(&producer, "slow", &values(0, 1)).recv_timeout(LONG).unwrap();
        assert_eq!(first[0].written, Written::Yes);
        cluster.broker_round_trip_time(1, Duration::from_secs(20)).unwrap();
        let all = begin(&producer, "slow", &values(0, 100));
        // Ten of them go, and are not answered.
        thread::sleep(Duration::from_millis(500));
        producer.purge(true, true);
        let reports = all.recv_timeout(LONG).unwrap();
        assert_eq!(reports.len(), 100);
        (producer, reports)
    };
    let is_sent = |report: &Report| report.written == Written::Perhaps;
    let (producer, reports) =
        (0..4).map(|_| purged()).find(|(_, reports)| reports.iter().any(is_sent)).unwrap_or_else(purged);
    let (sent, unsent): (Vec<Report>, Vec<Report>) = reports.iter().partition(|report| is_sent(report));
    assert!(!sent.is_empty() && sent.len() <= 20, "{} of 100 were sent", sent.len());
    assert!(sent.iter().all(|report| report.code == Code::PURGE_INFLIGHT && report.offset == -1));
    let not = |report: &Report| report.written == Written::No && report.code == Code::PURGE_QUEUE;
    assert!(unsent.iter().all(|report| not(report) && report.offset == -1), "{unsent:?}");
    // Their order is that of the batch: what was sent first is first.
    assert!(reports[..sent.len()].iter().all(|report| report.written == Written::Perhaps));
    producer.flush(LONG).unwrap();
    assert_eq!(producer.queued(), 0);
}

fn what_times_out_unsent_is_not_written() {
    let producer = at("127.0.0.1:1", &[("message.timeout.ms", "1000")]);
    let began = Instant::now();
    let reports = send(&producer, "any", 0, &values(0, 5));
    assert!(began.elapsed() < LONG);
    let not = Report { written: Written::No, code: Code::MSG_TIMED_OUT, partition: 0, offset: -1 };
    assert_eq!(reports, [not; 5]);
}

/// With several requests under way, of which a server refuses the first and takes the second, the library concludes that the first was written.
fn what_only_a_later_request_vouches_for_is_perhaps_written() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("some", 1, 1).unwrap();
    let settings = [
        ("enable.idempotence", "true"),
        ("max.in.flight", "5"),
        ("batch.num.messages", "1"),
        ("linger.ms", "0"),
    ];
    let producer = at(&cluster.bootstrap_servers(), &settings);
    assert_eq!(send(&producer, "some", 0, &values(0, 1))[0].written, Written::Yes);
    // The second goes before the first is answered.
    cluster.broker_round_trip_time(1, Duration::from_millis(500)).unwrap();
    let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS];
    cluster.request_errors(RDKafkaApiKey::Produce, &refused);
    let reports = begin(&producer, "some", &values(1, 3)).recv_timeout(LONG).unwrap();
    let told: Vec<_> = reports.iter().map(|report| (report.written, report.code)).collect();
    assert_eq!(told, [(Written::Perhaps, Code::NONE), (Written::Yes, Code::NONE)], "{reports:?}");
    // It is not there: of three there are two.
    assert_eq!(reports[1].offset, 1);
}

fn one_oversize_record_fails_its_neighbours() {
    let topic = topic(1, &[("max.message.bytes", "5000")]);
    let producer = producer(&[("linger.ms", "300"), ("enable.idempotence", "true")]);
    // The first batch is small: the producer is ready then, so that the next goes as one.
    assert_eq!(send(&producer, &topic, 0, &values(0, 1))[0].written, Written::Yes);
    let mut batch = values(1, 21);
    batch[10] = (0_u32..20_000).flat_map(u32::to_be_bytes).collect();
    let reports = send(&producer, &topic, 0, &batch);
    for report in &reports {
        assert_eq!((report.written, report.code), (Written::No, Code::MSG_SIZE_TOO_LARGE), "{reports:?}");
    }
    // None of them is there, and what is sent again goes through.
    let again = send(&producer, &topic, 0, &values(1, 21));
    assert!(again.iter().all(|report| report.written == Written::Yes));
    let mut member = Member::reading(&topic, 0, 0, &[]);
    assert_eq!(member.values(21), values(0, 21));
}

fn a_refused_record_is_told_with_the_others() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("some", 1, 1).unwrap();
    let producer = at(&cluster.bootstrap_servers(), &[("message.max.bytes", "1000")]);
    let mut batch = values(0, 4);
    batch[1] = vec![1; 2_000];
    let reports = send(&producer, "some", 0, &batch);
    let written: Vec<Written> = reports.iter().map(|report| report.written).collect();
    assert_eq!(written, [Written::Yes, Written::No, Written::Yes, Written::Yes]);
    assert_eq!((reports[1].code, reports[1].offset), (Code::MSG_SIZE_TOO_LARGE, -1));
    assert_eq!(reports[3].offset, 2);
}

fn a_batch_that_is_refused_is_told_at_once() {
    // A server that can be reached: of one that cannot, the library has errors to tell, which it counts among what is queued.
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("any", 1, 1).unwrap();
    let settings = [("queue.buffering.max.messages", "5"), ("linger.ms", "60000")];
    let producer = at(&cluster.bootstrap_servers(), &settings);
    let kept = begin(&producer, "any", &values(0, 5));
    let refused = begin(&producer, "any", &values(5, 8));
    // Told before `send` returned.
    let reports = refused.try_recv().unwrap();
    assert_eq!(
        reports,
        [Report { written: Written::No, code: Code::QUEUE_FULL, partition: 0, offset: -1 }; 3]
    );
    assert_eq!(begin(&producer, "any", &[]).try_recv().unwrap(), []);
    assert!(kept.try_recv().is_err());
    assert_eq!(producer.queued(), 5);
    producer.purge(true, true);
    let given_up = Report { written: Written::No, code: Code::PURGE_QUEUE, partition: 0, offset: -1 };
    assert_eq!(kept.recv_timeout(LONG).unwrap(), [given_up; 5]);
    producer.flush(LONG).unwrap();
    assert_eq!(producer.queued(), 0);
}

fn a_topic_of_another_producer_is_refused() {
    let (first, other) = (at("127.0.0.1:1", &[]), at("127.0.0.1:1", &[]));
    let topic = other.topic("any").unwrap();
    let (done, reports) = mpsc::channel();
    first.send(
        &topic,
        &one(),
        [plain(0, 0)].into_iter(),
        Box::new(move |reports| done.send(reports).unwrap()),
    );
    let reports = reports.try_recv().unwrap();
    assert_eq!((reports[0].written, reports[0].code), (Written::No, Code::INVALID_ARG));
    assert!(first.topic("with\0nul").is_err());
}

/// The library reads values where they lie: small ones when it makes a request of them, large ones while it sends that.
fn values_stay_until_all_records_are_reported_and_not_until_somebody_hears_of_it() {
    let topic = topic(1, &[]);
    let producer = producer(&[("linger.ms", "300")]);
    let to = producer.topic(&topic).unwrap();
    let value = |at: usize| vec![at as u8; if at.is_multiple_of(2) { 10 } else { 100_000 }];
    let all = || (0..8).map(value).collect::<Vec<_>>();
    let values = Arc::new(all());
    let seen = Arc::downgrade(&values);
    let (done, reports) = mpsc::channel();
    let kept = seen.clone();
    let tell = Box::new(move |reports: Vec<Report>| done.send((reports, kept.strong_count())).unwrap());
    producer.send(&to, &values, (0..8).map(|at| plain(0, at)), tell);
    drop(values);
    assert_eq!(seen.strong_count(), 1, "kept for the library");
    let (reports, kept) = reports.recv_timeout(LONG).unwrap();
    assert!(reports.len() == 8 && reports.iter().all(|report| report.written == Written::Yes), "{reports:?}");
    assert_eq!(kept, 0, "who is told is alone with what it has");
    assert_eq!(Member::reading(&topic, 0, 0, &[]).values(8), all());
}

/// Says that it has `says`, and has `has`, or panics at the end.
struct Lying {
    says: usize,
    has: usize,
    panics: bool,
}

impl Iterator for Lying {
    type Item = super::raw::Record<'static, server::None>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has == 0 {
            assert!(!self.panics, "the end");
            return None;
        }
        self.has -= 1;
        Some(plain(0, 0))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.says, Some(self.says))
    }
}

impl ExactSizeIterator for Lying {}

fn an_iterator_that_lies_loses_no_report() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("some", 1, 1).unwrap();
    let producer = at(&cluster.bootstrap_servers(), &[]);
    let topic = producer.topic("some").unwrap();
    for (says, has, panics, told) in [(5, 3, false, 3), (3, 5, false, 3), (5, 2, true, 2), (5, 0, true, 0)] {
        let (done, reports) = mpsc::channel();
        let done = Box::new(move |reports| done.send(reports).unwrap());
        let sends =
            std::panic::AssertUnwindSafe(|| producer.send(&topic, &one(), Lying { says, has, panics }, done));
        assert_eq!(std::panic::catch_unwind(sends).is_err(), panics);
        let reports: Vec<Report> = reports.recv_timeout(LONG).unwrap();
        assert_eq!(reports.len(), told);
        assert!(reports.iter().all(|report| report.written == Written::Yes));
    }
    producer.flush(LONG).unwrap();
}

fn a_panic_of_who_waits_ends_nothing() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("some", 1, 1).unwrap();
    let producer = at(&cluster.bootstrap_servers(), &[]);
    let topic = producer.topic("some").unwrap();
    producer.send(&topic, &one(), [plain(0, 0)].into_iter(), Box::new(|_| panic!("as a test does")));
    producer.flush(LONG).unwrap();
    assert_eq!(send(&producer, "some", 0, &values(0, 1))[0].written, Written::Yes);
}

fn flush_waits_for_who_is_told() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("some", 1, 1).unwrap();
    let producer = at(&cluster.bootstrap_servers(), &[("linger.ms", "120000")]);
    for round in 0..20 {
        let topic = producer.topic("some").unwrap();
        let (done, reports) = mpsc::channel();
        let slow = move |reports| {
            thread::sleep(Duration::from_millis(20));
            done.send(reports).unwrap();
        };
        producer.send(&topic, &one(), [plain(0, 0)].into_iter(), Box::new(slow));
        let began = Instant::now();
        producer.flush(LONG).unwrap();
        assert!(began.elapsed() < LONG, "a flush does not wait for linger");
        let reports: Vec<Report> = reports.try_recv().unwrap();
        assert_eq!(reports[0].offset, round);
    }
    cluster.broker_round_trip_time(1, Duration::from_secs(20)).unwrap();
    let open = begin(&producer, "some", &values(0, 1));
    assert_eq!(producer.flush(Duration::from_millis(300)).unwrap_err().code, Code::TIMED_OUT);
    producer.purge(true, true);
    open.recv_timeout(LONG).unwrap();
}

fn what_is_left_when_a_producer_goes_is_told() {
    let producer = Producer::open(conf_at("127.0.0.1:1", &[]), Arc::<Notes>::default()).unwrap();
    let clone = producer.clone();
    let open = begin(&producer, "any", &values(0, 1_000));
    drop(producer);
    thread::sleep(Duration::from_millis(100));
    assert!(open.try_recv().is_err(), "a clone still has it");
    drop(clone);
    let reports = open.recv_timeout(LONG).unwrap();
    assert_eq!(
        reports,
        [Report { written: Written::No, code: Code::PURGE_QUEUE, partition: 0, offset: -1 }; 1_000]
    );
}

//! Records that this module writes and reads are the same as those of the crate's own producer and consumer.
//!
//! Not here: what becomes of records that cannot be written (`outcomes.rs`).

use super::{
    raw::{Code, HeaderList, Record, Told, Valued, Written},
    server::{LONG, Member, bootstrap, conf, producer, topic, unique},
    tests,
};
use rdkafka::{
    ClientConfig, Message as _, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::{Header, Headers as _, OwnedHeaders},
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
};
use std::{
    borrow::Cow,
    sync::{Arc, mpsc},
};

tests![
    the_crate_reads_what_we_write,
    we_read_what_the_crate_writes,
    headers_are_read_where_they_lie,
    keys_go_where_java_puts_them,
];

/// A record, as it is told everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Same {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp: i64,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Valued for Same {
    fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }
}

/// A null value.
struct Tombstone;

impl Valued for Tombstone {
    fn value(&self) -> Option<&[u8]> {
        None
    }
}

const TIME: i64 = 1_700_000_000_123;

/// Everything that a record can be.
fn all_kinds() -> Vec<Same> {
    let some = |bytes: &[u8]| Some(bytes.to_vec());
    let bytes = [None, some(b""), some(b"a"), some(&[0, 255, 0, 10]), Some(vec![7; 100_000])];
    let headers = [
        vec![],
        vec![("a", some(b"1"))],
        vec![("a", some(b"1")), ("b", None), ("a", some(b"")), ("a", some(b"1"))],
        vec![("", some(b"of no name")), ("käse", some(&[0, 255, 128]))],
        (0..40).map(|_| ("many", some(b"x"))).collect(),
    ];
    let mut all = Vec::new();
    for key in &bytes {
        for value in &bytes {
            for headers in &headers {
                let headers =
                    headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
                let (key, value, timestamp) = (key.clone(), value.clone(), TIME + all.len() as i64);
                all.push(Same { key, value, timestamp, headers });
            }
        }
    }
    all
}

/// A topic of one partition that keeps them: their times are years ago, and Kafka counts their age from there.
fn keeping() -> Arc<str> {
    topic(1, &[("retention.ms", "-1")])
}

/// Headers as they lie in a record, taken apart.
fn taken(mut bytes: &[u8]) -> Vec<(String, Option<Vec<u8>>)> {
    fn number(bytes: &mut &[u8]) -> i64 {
        let (mut number, mut shift) = (0u64, 0);
        loop {
            let (byte, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return (number >> 1) as i64 ^ -((number & 1) as i64);
            }
        }
    }
    fn part(bytes: &mut &[u8]) -> Option<Vec<u8>> {
        let len = usize::try_from(number(bytes)).ok()?;
        let (part, rest) = bytes.split_at(len);
        *bytes = rest;
        Some(part.to_vec())
    }
    let count = number(&mut bytes);
    let mut one = |_| (String::from_utf8(part(&mut bytes).unwrap()).unwrap(), part(&mut bytes));
    let all = (0..count).map(&mut one).collect();
    assert!(bytes.is_empty());
    all
}

/// Writes them by this module.
fn write(topic: &str, records: &[Same], codec: &str) {
    let producer =
        producer(&[("enable.idempotence", "true"), ("linger.ms", "5"), ("compression.codec", codec)]);
    let to = producer.topic(topic).unwrap();
    let (done, reports) = mpsc::channel();
    let values = Arc::new(records.to_vec());
    let given = records.iter().enumerate().map(|(at, record)| Record {
        at,
        partition: 0,
        key: record.key.as_deref(),
        timestamp: record.timestamp,
        headers: |headers: &mut HeaderList| {
            record.headers.iter().for_each(|(name, value)| headers.add(name.as_bytes(), value.as_deref()));
        },
    });
    producer.send(&to, &values, given, Box::new(move |reports| done.send(reports).unwrap()));
    let reports = reports.recv_timeout(LONG).unwrap();
    assert_eq!(reports.len(), records.len());
    for (offset, report) in reports.iter().enumerate() {
        let is = (report.written, report.code, report.partition, report.offset);
        assert_eq!(is, (Written::Yes, Code::NONE, 0, offset as i64));
    }
}

/// Reads so many by this module.
fn read(topic: &Arc<str>, count: usize) -> Vec<Same> {
    let mut member = Member::reading(topic, 0, 0, &[]);
    let mut read = Vec::new();
    let until = tokio::time::Instant::now() + LONG;
    while read.len() < count && tokio::time::Instant::now() < until {
        member.consumer.next(std::time::Duration::from_millis(500), 100, &mut |told| {
            let Told::Record(record) = told else { panic!("{told:?}") };
            assert_eq!((&**record.topic, record.partition), (&**topic, 0));
            assert_eq!(record.offset, read.len() as i64);
            let headers = taken(&record.headers().unwrap());
            read.push(Same {
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                timestamp: record.timestamp.unwrap(),
                headers,
            });
        });
    }
    read
}

fn the_crate_reads_what_we_write() {
    let topic = keeping();
    let records = all_kinds();
    write(&topic, &records, "none");
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap())
        .set("group.id", unique("crate"))
        // A poll ends without a record where a commit was answered, which would happen by itself to who reads for 5 s.
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(&topic, 0, rdkafka::Offset::Beginning).unwrap();
    consumer.assign(&from).unwrap();
    for (at, expected) in records.iter().enumerate() {
        let message = consumer.poll(LONG).unwrap().unwrap();
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers.iter().map(|Header { key, value }| (key.to_owned(), value.map(<[u8]>::to_vec))).collect()
        });
        let is = Same {
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            timestamp: message.timestamp().to_millis().unwrap(),
            headers,
        };
        assert_eq!(&is, expected, "record {at}");
    }
    assert!(read(&topic, records.len()) == records, "this module reads something else than it wrote");
}

fn we_read_what_the_crate_writes() {
    let topic = keeping();
    let records = all_kinds();
    let producer: ThreadedProducer<DefaultProducerContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap()).create().unwrap();
    for record in &records {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &record.headers {
            headers = headers.insert(Header { key, value: value.as_ref() });
        }
        let mut given: BaseRecord<'_, Vec<u8>, Vec<u8>> =
            BaseRecord::to(&topic).partition(0).timestamp(record.timestamp);
        given.key = record.key.as_ref();
        given.payload = record.value.as_ref();
        if !record.headers.is_empty() {
            given = given.headers(headers);
        }
        producer.send(given).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(LONG).unwrap();
    for (at, (is, expected)) in read(&topic, records.len()).iter().zip(&records).enumerate() {
        assert_eq!(is, expected, "record {at}");
    }
}

/// As long as the library is of a version of which it is known how it keeps records (`READ_MESSAGE` in `native.rs`): of a newer one that has to be looked up. Without
/// it all is read as well, and slower.
fn headers_are_read_where_they_lie() {
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = keeping();
        let records = all_kinds();
        write(&topic, &records, codec);
        assert!(read(&topic, records.len()) == records, "{codec}");
        let mut member = Member::reading(&topic, 0, 0, &[]);
        let (mut seen, until) = (0, tokio::time::Instant::now() + LONG);
        while seen < records.len() && tokio::time::Instant::now() < until {
            member.consumer.next(std::time::Duration::from_millis(500), 100, &mut |told| {
                let Told::Record(record) = told else { panic!("{told:?}") };
                let headers = record.headers().unwrap();
                // Where there is neither key nor value, nothing says where headers lie.
                let full = |part: Option<&[u8]>| part.is_some_and(|part| !part.is_empty());
                let lie = full(record.key) || full(record.value);
                assert_eq!(matches!(headers, Cow::Borrowed(_)), lie, "{codec}: record {}", record.offset);
                seen += 1;
            });
        }
        assert_eq!(seen, records.len(), "{codec}");
    }
}

/// A partition of -1 lets the library choose, by the hash that other clients use if that is set. Keys and partitions of twelve are Java's.
fn keys_go_where_java_puts_them() {
    let topic = topic(12, &[]);
    let producer =
        super::raw::Producer::open(conf(&[("partitioner", "murmur2_random")]), Arc::default()).unwrap();
    let to = producer.topic(&topic).unwrap();
    let keys: [&[u8]; 7] = [b"a", b"key-1", b"key-2", b"hello", b"12345678", "käse".as_bytes(), b""];
    let (done, reports) = mpsc::channel();
    let records = keys.iter().map(|key| Record {
        at: 0,
        partition: -1,
        key: Some(key),
        timestamp: TIME,
        headers: |_: &mut HeaderList| {},
    });
    producer.send(
        &to,
        &Arc::new(vec![Tombstone]),
        records,
        Box::new(move |reports| done.send(reports).unwrap()),
    );
    let reports = reports.recv_timeout(LONG).unwrap();
    for (key, report) in keys.iter().zip(&reports) {
        let expected = ropeway_broker::partition_for_key(key, 12);
        assert_eq!((report.written, report.partition), (Written::Yes, expected as i32), "{key:?}");
    }
}

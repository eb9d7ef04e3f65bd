//! What a server refuses for good is the end of who reads, told with the server, the key and the way out; what it refuses in passing breaks no order.

use super::{proxy::Proxy, server::Server};
use ropeway_broker::{
    Admin, Consumer, ConsumerExt, Error, ErrorKind, Event, GoneReason, Group, Message, MessageBroker,
    Outcomes, Published, Reader, ReaderExt, RedisStreams, RedisStreamsSettings, Retention, Start,
    Subscription, Target, Timestamp, Topic, TopicSpec,
};
use ropeway_store::redis::RedisSettings;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::mpsc,
    time::{sleep, timeout},
};

/// How long a reader or member may take to find out that it is refused for good.
const SOON: Duration = Duration::from_secs(20);

/// A server with a user whose rights change, and a broker of that user.
struct Stage {
    server: Server,
    proxy: Proxy,
    broker: Arc<RedisStreams>,
    topic: Topic,
}

impl Stage {
    async fn set() -> Self {
        let mut server = Server::own();
        let _: String = server.ask("ACL SETUSER u on >p ~* &* +@all");
        let proxy = Proxy::before(server.socket()).await;
        let url = format!("redis://u:p@{}?prefix={}&lease=30s", proxy.address, server.prefix);
        let broker = RedisStreams::of_url(&url).await.unwrap();
        let topic = Topic::new("t").unwrap();
        broker.create_topic(&topic, TopicSpec::partitions(3)).await.unwrap();
        Self { server, proxy, broker, topic }
    }

    async fn reader(&self) -> Box<dyn Reader> {
        let mut reader = self.broker.read().await.unwrap();
        reader.follow(&self.topic, None, Start::Earliest).await.unwrap();
        self.publish().await;
        loop {
            if let Event::Batch(_) = timeout(SOON, reader.next()).await.unwrap().unwrap() {
                return reader;
            }
        }
    }

    /// A member that owns all three.
    async fn member(&self) -> Box<dyn Consumer> {
        let subscription = Subscription {
            start: Start::Earliest,
            ..Subscription::new(Group::new("g").unwrap(), [self.topic.clone()])
        };
        let mut member = self.broker.subscribe(subscription).await.unwrap();
        self.publish().await;
        loop {
            if let Event::Batch(batch) = timeout(SOON, member.next()).await.unwrap().unwrap() {
                let done: Vec<_> = batch.deliveries.iter().map(|delivery| delivery.position).collect();
                member.control().ack(&batch.of, &done).unwrap();
                assert!(member.control().flush().await.is_empty());
                return member;
            }
        }
    }

    async fn publish(&self) {
        let message = Message::builder().payload("1").build();
        assert!(self.broker.publish(&self.topic.clone().into(), vec![message]).await.all_acked());
    }

    /// Puts something else in the place of a key, in one step.
    fn replace(&mut self, key: &str) -> String {
        let key = format!("{}:{key}", self.server.prefix);
        let text = "redis.call('DEL', KEYS[1]) redis.call('SET', KEYS[1], 'x') return {'done'}";
        self.server.run_text(text, &[&key], &[]);
        key
    }

    /// Takes a right away.
    fn deny(&mut self, command: &str) {
        let _: String = self.server.ask(&format!("ACL SETUSER u -{command}"));
    }

    /// That an error names the server, these words, and the way out.
    fn names(&self, error: &Error, words: &[&str]) {
        let told = error.to_string();
        assert!(told.contains(&format!("redis {} answers", self.proxy.address)), "{told}");
        words.iter().for_each(|word| assert!(told.contains(word), "{word} in {told}"));
    }
}

/// The error that ends a reader, which it answers from then on.
async fn end_of_reader(mut reader: Box<dyn Reader>) -> Error {
    loop {
        if let Err(error) = timeout(SOON, reader.next()).await.unwrap() {
            assert_eq!(reader.next().await.unwrap_err().to_string(), error.to_string());
            return error;
        }
    }
}

/// The error that ends a member, after it lost all it owned; it answers that from then on.
async fn end_of_member(mut member: Box<dyn Consumer>) -> Error {
    let mut lost = 0;
    loop {
        match timeout(SOON, member.next()).await.unwrap() {
            Ok(Event::Gone(_, why)) => {
                assert_eq!(why, GoneReason::Lost);
                lost += 1;
            }
            Ok(_) => {}
            Err(error) => {
                assert_eq!(lost, 3, "{error}");
                assert_eq!(member.next().await.unwrap_err().to_string(), error.to_string());
                return error;
            }
        }
    }
}

async fn a_reader_that_may_not_read_any_more_is_told_and_ends() {
    let mut stage = Stage::set().await;
    let reader = stage.reader().await;
    stage.deny("xread");
    let error = end_of_reader(reader).await;
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    stage.names(&error, &["NOPERM", "XREAD", "{t/0}:log", "ACL SETUSER", "could not read"]);
}

async fn a_reader_that_cannot_see_losses_any_more_is_told_and_ends() {
    let mut stage = Stage::set().await;
    let reader = stage.reader().await;
    stage.deny("exists");
    let error = end_of_reader(reader).await;
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    stage.names(&error, &["NOPERM", "EXISTS", "ACL SETUSER"]);
}

async fn a_reader_of_a_key_that_became_something_else_is_told_which_and_ends() {
    for key in ["{t/1}:log", "{t/2}:part"] {
        let mut stage = Stage::set().await;
        let reader = stage.reader().await;
        let key = stage.replace(key);
        let error = end_of_reader(reader).await;
        assert_eq!(error.kind(), ErrorKind::Conflict);
        stage.names(&error, &["WRONGTYPE", &key, "prefix"]);
    }
}

async fn a_member_that_may_not_go_on_is_told_and_ends_after_all_it_owned_is_gone() {
    for (command, named) in [("xread", "{t/0}:log"), ("evalsha", "script ")] {
        let mut stage = Stage::set().await;
        let member = stage.member().await;
        stage.deny(command);
        let error = end_of_member(member).await;
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
        stage.names(&error, &["NOPERM", named, "ACL SETUSER", "could not consume in group"]);
    }
}

async fn a_member_of_a_key_that_became_something_else_is_told_which_and_ends() {
    let mut stage = Stage::set().await;
    let member = stage.member().await;
    let key = stage.replace("{t/1}:log");
    let error = end_of_member(member).await;
    assert_eq!(error.kind(), ErrorKind::Conflict);
    stage.names(&error, &["WRONGTYPE", &key, "prefix"]);
}

async fn a_member_whose_acks_cannot_be_stored_is_told_and_ends() {
    let mut stage = Stage::set().await;
    let mut member = stage.member().await;
    for partition in 0..3 {
        stage.replace(&format!("{{t/{partition}}}:group:g"));
    }
    stage.publish().await;
    loop {
        if let Event::Batch(batch) = timeout(SOON, member.next()).await.unwrap().unwrap() {
            let done: Vec<_> = batch.deliveries.iter().map(|delivery| delivery.position).collect();
            member.control().ack(&batch.of, &done).unwrap();
            break;
        }
    }
    let error = end_of_member(member).await;
    assert_eq!(error.kind(), ErrorKind::Conflict);
    stage.names(&error, &["WRONGTYPE", "script commit", ":group:g", "prefix"]);
}

async fn who_is_refused_for_a_moment_only_goes_on() {
    let mut stage = Stage::set().await;
    let (mut reader, mut member) = (stage.reader().await, stage.member().await);
    stage.deny("xread");
    sleep(Duration::from_millis(1200)).await;
    let _: String = stage.server.ask("ACL SETUSER u +xread");
    sleep(Duration::from_secs(4)).await;
    stage.publish().await;
    loop {
        if let Event::Batch(_) = timeout(SOON, reader.next()).await.unwrap().unwrap() {
            break;
        }
    }
    loop {
        if let Event::Batch(_) = timeout(SOON, member.next()).await.unwrap().unwrap() {
            break;
        }
    }
}

/// Stands before a server, and refuses the next writes that come over one connection, once two of them are there.
struct Refusing {
    address: String,
    arm: mpsc::UnboundedSender<Refuse>,
}

/// What it answers.
#[derive(Clone, Copy)]
struct Refuse {
    answer: &'static str,
    what: What,
}

/// Which writes it refuses.
#[derive(Clone, Copy, PartialEq)]
enum What {
    First,
    Both,
    /// The first, and nobody is told: the server does the second, and the connection ends before its answers.
    FirstUnseen,
}

impl Refusing {
    async fn before(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (arm, armed) = mpsc::unbounded_channel();
        let armed = Arc::new(tokio::sync::Mutex::new(armed));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&socket).await.unwrap();
                tokio::spawn(refuse(client, server, Arc::clone(&armed)));
            }
        });
        Self { address, arm }
    }
}

async fn refuse(
    mut client: TcpStream,
    mut server: UnixStream,
    armed: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Refuse>>>,
) {
    let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
    let mut held: Option<(Refuse, usize)> = None;
    loop {
        tokio::select! {
            Ok(read @ 1..) = client.read(&mut asked) => {
                let text = String::from_utf8_lossy(&asked[..read]).into_owned();
                let writes = text.matches("\r\nXADD\r\n").count();
                if writes > 0 {
                    if let Some((refuse, first)) = held.take() {
                        if refuse.what == What::FirstUnseen {
                            server.write_all(&asked[..read]).await.unwrap();
                            _ = server.read(&mut answered).await;
                            return;
                        }
                        let both = refuse.what == What::Both;
                        let refused = if both { first + writes } else { first };
                        client.write_all(refuse.answer.repeat(refused).as_bytes()).await.unwrap();
                        if both {
                            continue;
                        }
                    } else if let Ok(refuse) = armed.lock().await.try_recv() {
                        held = Some((refuse, writes));
                        continue;
                    }
                }
                server.write_all(&asked[..read]).await.unwrap();
            }
            Ok(read @ 1..) = server.read(&mut answered) => {
                if client.write_all(&answered[..read]).await.is_err() {
                    return;
                }
            }
            else => return,
        }
    }
}

/// A sentinel that names that address, whatever it is asked.
async fn sentinel(primary: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (host, port) = primary.rsplit_once(':').unwrap();
    let answer = format!("*2\r\n${}\r\n{host}\r\n${}\r\n{port}\r\n", host.len(), port.len());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut asked = vec![0; 4096];
                while let Ok(1..) = client.read(&mut asked).await {
                    client.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    address
}

async fn what_is_refused_in_passing_never_comes_behind_what_was_sent_after_it() {
    const LOADING: &str = "-LOADING Redis is loading the dataset in memory\r\n";
    const READONLY: &str = "-READONLY You can't write against a read only replica.\r\n";
    for (scheme, answer, what) in [
        ("redis", LOADING, What::First),
        ("redis", LOADING, What::Both),
        ("redis", LOADING, What::FirstUnseen),
        ("redis+sentinel", READONLY, What::First),
        ("redis+sentinel", READONLY, What::Both),
        ("redis+sentinel", READONLY, What::FirstUnseen),
    ] {
        let mut server = Server::own();
        let proxy = Refusing::before(server.socket()).await;
        let at = match scheme {
            "redis" => proxy.address.clone(),
            _ => format!("{}/main", sentinel(&proxy.address).await),
        };
        let broker =
            RedisStreams::of_url(&format!("{scheme}://{at}?prefix={}", server.prefix)).await.unwrap();
        let topic = Topic::new("t").unwrap();
        broker.create_topic(&topic, TopicSpec::partitions(2)).await.unwrap();
        let publish = |partition: u32, payload: &str| {
            let message = Message::builder().payload(payload.to_owned()).build();
            broker.publish(&Target { partition: Some(partition), ..topic.clone().into() }, vec![message])
        };
        assert!(publish(0, "0").await.all_acked());
        proxy.arm.send(Refuse { answer, what }).unwrap();
        // The first write: one of each partition. The second: one of the first partition only.
        let first = (publish(0, "1"), publish(1, "2"));
        sleep(Duration::from_millis(500)).await;
        let second = publish(0, "3");
        let told: [Outcomes; 3] =
            timeout(SOON, async { [first.0.await, first.1.await, second.await] }).await.unwrap();
        assert!(told[1].all_acked() && told[2].all_acked(), "{told:?}");
        let mut log = |partition: u32| -> Vec<String> {
            let key = format!("{}:{{t/{partition}}}:log", server.prefix);
            let entries: Vec<(String, Vec<Vec<u8>>)> = server.ask(&format!("XRANGE {key} - +"));
            entries
                .iter()
                .map(|(_, fields)| String::from_utf8_lossy(fields.last().unwrap()).into_owned())
                .collect()
        };
        assert_eq!(log(1), ["2"]);
        if what == What::Both {
            assert!(told[0].all_acked(), "{told:?}");
            assert_eq!(log(0), ["0", "1", "3"]);
        } else {
            let [Published::NotWritten(failed)] = &told[0].0[..] else { panic!("{told:?}") };
            assert!(
                failed.error.is_retryable() && failed.error.to_string().contains("behind"),
                "{}",
                failed.error
            );
            assert_eq!(log(0), ["0", "3"]);
        }
    }
}

async fn times_that_no_clock_can_add_are_bounded_or_refused() {
    let server = Server::own();
    let open = async |settings| {
        let url = format!("unix://{}", server.socket().display());
        RedisStreams::connect(RedisSettings::from_url(&url).unwrap(), settings).await
    };
    let most = RedisStreamsSettings {
        publish_deadline: Duration::MAX,
        wait: Duration::MAX,
        group_expiry: Duration::MAX,
        ..RedisStreamsSettings::default()
    };
    let broker = open(most).await.unwrap();
    let topic = Topic::new("t").unwrap();
    let retention = Retention { age: Some(Duration::MAX), ..Retention::default() };
    broker.create_topic(&topic, TopicSpec { partitions: 1, retention }).await.unwrap();
    let message = || Message::builder().payload("1").build();
    let told = broker.publish(&topic.clone().into(), vec![message()]).await;
    assert!(told.all_acked(), "{told:?}");
    let later = Message { deliver_at: Some(Timestamp::from_millis(253_402_300_799_000)), ..message() };
    let told = broker.publish(&topic.clone().into(), vec![later]).await;
    assert!(told.all_acked(), "{told:?}");
    let soon = Message { deliver_at: Some(Timestamp::now() + Duration::from_millis(50)), ..message() };
    assert!(broker.publish(&topic.clone().into(), vec![soon]).await.all_acked());
    let mut member =
        broker.subscribe(Subscription::new(Group::new("g").unwrap(), [topic.clone()])).await.unwrap();
    let mut seen = 0;
    while seen < 2 {
        if let Event::Batch(batch) = timeout(SOON, member.next()).await.unwrap().unwrap() {
            seen += batch.deliveries.len();
        }
    }
    for lease in [Duration::ZERO, Duration::MAX] {
        let error =
            open(RedisStreamsSettings { lease, ..RedisStreamsSettings::default() }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("lease"), "{error}");
    }
}

/// Nobody can own the partition; who would is told what is wrong and where.
async fn a_member_that_finds_an_epoch_which_cannot_grow_is_told_and_ends() {
    let mut stage = Stage::set().await;
    let key = format!("{}:{{t/1}}:group:g", stage.server.prefix);
    stage.server.ask::<i64>(&format!("HSET {key} epoch 9007199254740992"));
    let subscription = Subscription::new(Group::new("g").unwrap(), [stage.topic.clone()]);
    let mut member = stage.broker.subscribe(subscription).await.unwrap();
    let error = loop {
        if let Err(error) = timeout(SOON, member.next()).await.unwrap() {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let told = error.to_string();
    for word in [&key, "9007199254740992", "HDEL", "epoch"] {
        assert!(told.contains(word), "{word} in {told}");
    }
}

super::async_tests! {
    times_that_no_clock_can_add_are_bounded_or_refused,
    a_member_that_finds_an_epoch_which_cannot_grow_is_told_and_ends,
    a_reader_that_may_not_read_any_more_is_told_and_ends,
    a_reader_that_cannot_see_losses_any_more_is_told_and_ends,
    a_reader_of_a_key_that_became_something_else_is_told_which_and_ends,
    a_member_that_may_not_go_on_is_told_and_ends_after_all_it_owned_is_gone,
    a_member_of_a_key_that_became_something_else_is_told_which_and_ends,
    a_member_whose_acks_cannot_be_stored_is_told_and_ends,
    who_is_refused_for_a_moment_only_goes_on,
    what_is_refused_in_passing_never_comes_behind_what_was_sent_after_it,
}

//! `--listen`: serves `/metrics`, `/healthz` and `/readyz` while a verb runs.
//!
//! Metrics of the broker's traffic are those of `wrap::Meter`; here are added, on each scrape, what only administration knows: the lag of
//! groups and how many messages dead-letter topics hold.
//! Not here: when it is served (`session.rs`), metrics of handlers (`ropeway-processor`).

use crate::failure::Failure;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Bytes, header::CONTENT_TYPE, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Encoder, Gauge, GaugeVec, IntGaugeVec, Opts, Registry, TextEncoder};
use ropeway_broker::{Health, MessageBroker};
use std::{collections::BTreeMap, convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore};

/// The most connections at a time.
const MOST_CONNECTIONS: usize = 64;
/// How long a scrape may ask the broker.
const SCRAPE: Duration = Duration::from_secs(5);
/// The most groups, and the most dead-letter topics, that are asked about in a scrape.
const MOST_ASKED: usize = 500;

type Answer = Response<Full<Bytes>>;

/// Serves until the runtime ends; answers with the address, whose port may have been chosen by the system.
///
/// # Errors
/// An address that cannot be listened on (78).
pub(crate) async fn serve(
    address: SocketAddr,
    broker: Arc<dyn MessageBroker>,
    registry: Registry,
) -> Result<SocketAddr, Failure> {
    let cannot = |error: std::io::Error| {
        Failure::config(format!("could not listen on {address}"))
            .caused_by(&error)
            .hint("--listen names another")
    };
    let listener = TcpListener::bind(address).await.map_err(cannot)?;
    let serving = listener.local_addr().map_err(cannot)?;
    let state =
        Arc::new(State::new(broker, registry).map_err(|error| {
            Failure::new("could not register the metrics of the program").caused_by(&error)
        })?);
    tokio::spawn(accept(listener, state));
    Ok(serving)
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors and the like: others may give some back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let state = state.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let state = state.clone();
                async move { Ok::<_, Infallible>(state.answer(&request).await) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = served.await {
                tracing::debug!(%error, "a connection ended");
            }
            drop(permit);
        });
    }
}

#[derive(Debug)]
struct State {
    broker: Arc<dyn MessageBroker>,
    registry: Registry,
    ready: Gauge,
    lag: IntGaugeVec,
    lag_known: IntGaugeVec,
    lag_seconds: GaugeVec,
    dead: IntGaugeVec,
}

impl State {
    fn new(broker: Arc<dyn MessageBroker>, registry: Registry) -> prometheus::Result<Self> {
        let of_group = ["system", "topic", "group"];
        let whole = |name: &str, help: &str, labels: &[&str]| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let lag =
            whole("ropeway_consumer_lag", "Messages between a group's position and the end", &of_group)?;
        let lag_known = whole("ropeway_consumer_lag_known", "1 where the lag is known, else 0", &of_group)?;
        let dead = whole("ropeway_dlq_messages", "Messages in a dead-letter topic", &["dlq"])?;
        let lag_seconds = GaugeVec::new(
            Opts::new("ropeway_consumer_lag_seconds", "Age of the oldest message that is not done"),
            &of_group,
        )?;
        registry.register(Box::new(lag_seconds.clone()))?;
        let ready = Gauge::new("ropeway_ready", "1 where the broker answers, else 0")?;
        registry.register(Box::new(ready.clone()))?;
        let about = Opts::new("ropeway_build_info", "Always 1; the labels say what this build is")
            .const_label("version", env!("CARGO_PKG_VERSION"))
            .const_label("features", ropeway_broker::BACKENDS.join(","));
        let build = Gauge::with_opts(about)?;
        build.set(1.0);
        registry.register(Box::new(build))?;
        Ok(Self { broker, registry, ready, lag, lag_known, lag_seconds, dead })
    }

    async fn answer<B>(&self, request: &Request<B>) -> Answer {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        }
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => match self.broker.health().await {
                Health::Up => text(StatusCode::OK, "ready\n"),
                Health::Degraded(why) => text(StatusCode::OK, format!("ready, in part: {why}\n")),
                Health::Down(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
            },
            "/metrics" => self.metrics().await,
            _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n"),
        }
    }

    async fn metrics(&self) -> Answer {
        self.ready.set(f64::from(u8::from(self.broker.health().await.is_ready())));
        let asked = tokio::time::timeout(SCRAPE, async {
            self.ask_groups().await?;
            self.ask_dead_letters().await
        });
        match asked.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "lag is not in this scrape"),
            Err(_) => {
                tracing::warn!("lag is not in this scrape: the broker did not answer within {SCRAPE:?}")
            }
        }
        let mut page = Vec::new();
        let encoder = TextEncoder::new();
        if let Err(error) = encoder.encode(&self.registry.gather(), &mut page) {
            return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"));
        }
        answer(StatusCode::OK, "text/plain; version=0.0.4", page)
    }

    /// What is unknown is absent, never 0.
    async fn ask_groups(&self) -> ropeway_broker::Result<()> {
        self.lag.reset();
        self.lag_known.reset();
        self.lag_seconds.reset();
        let system = self.broker.capabilities().backend;
        for group in self.broker.admin().groups().await?.into_iter().take(MOST_ASKED) {
            let described = self.broker.admin().describe_group(&group).await?;
            let mut topics: BTreeMap<&str, (Option<u64>, Option<Duration>)> = BTreeMap::new();
            for partition in &described.partitions {
                let (lag, age) =
                    topics.entry(partition.topic.as_str()).or_insert((Some(0), Some(Duration::ZERO)));
                *lag = lag.zip(partition.lag).map(|(a, b)| a + b);
                *age = (*age).zip(partition.lag_time).map(|(a, b)| a.max(b));
            }
            for (topic, (lag, age)) in topics {
                let labels = [system, topic, group.as_str()];
                self.lag_known.with_label_values(&labels).set(i64::from(lag.is_some()));
                if let Some(lag) = lag {
                    self.lag.with_label_values(&labels).set(i64::try_from(lag).unwrap_or(i64::MAX));
                }
                if let Some(age) = age {
                    self.lag_seconds.with_label_values(&labels).set(age.as_secs_f64());
                }
            }
        }
        Ok(())
    }

    async fn ask_dead_letters(&self) -> ropeway_broker::Result<()> {
        self.dead.reset();
        let topics = self.broker.admin().topics().await?;
        for topic in topics.iter().filter(|topic| topic.as_str().ends_with(".dlq")).take(MOST_ASKED) {
            let described = self.broker.admin().describe_topic(topic).await?;
            let counts = described.partitions.iter().map(|partition| partition.messages);
            if let Some(sum) = counts.sum::<Option<u64>>() {
                self.dead.with_label_values(&[topic.as_str()]).set(i64::try_from(sum).unwrap_or(i64::MAX));
            }
        }
        Ok(())
    }
}

fn text(status: StatusCode, body: impl Into<String>) -> Answer {
    answer(status, "text/plain; charset=utf-8", body.into().into_bytes())
}

fn answer(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    answer
}

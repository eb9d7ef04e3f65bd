//! The backends of this build as the conformance suites want them: `memory:` under a paused clock, `embedded:` in a directory.
//!
//! Not here: what is checked (`broker/src/conformance`).

use crate::{disk::Disk, redis::Redis};
use bytes::Bytes;
use prometheus::Registry;
use ropeway_broker::{
    Answer, Clock, Embedded, EmbeddedSettings, Error, ErrorKind, MessageBroker, Position, Result, Timestamp,
    TokioClock, Topic,
    conformance::{Backend, Provides, Setup, Store},
    wrap::{Fault, Meter},
};
use std::{
    fmt::Debug,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// All backends of this build.
#[must_use]
pub fn all() -> Vec<Arc<dyn Backend>> {
    vec![
        Arc::new(Memory),
        Arc::new(Outlived),
        Arc::new(Directory),
        Arc::new(Redis::Alone),
        Arc::new(Redis::Sentinel),
        Arc::new(Redis::Cluster),
        Arc::new(crate::kafka::OnKafka::Classic),
        Arc::new(crate::kafka::OnKafka::Consumer),
    ]
}

/// The wrappers of this build around a correct broker: each is to keep the whole contract.
#[must_use]
pub fn wrapped() -> Vec<Arc<dyn Backend>> {
    let metered = |inner| {
        let meter = Meter::around(inner, &Registry::new());
        meter.map(|meter| meter as Arc<dyn MessageBroker>)
    };
    let faulty = |inner| Ok(Fault::around(inner) as Arc<dyn MessageBroker>);
    vec![
        Arc::new(Wrapped { name: "metered", wrap: metered }),
        Arc::new(Wrapped { name: "fault", wrap: faulty }),
    ]
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn settings(setup: Setup) -> EmbeddedSettings {
    let defaults = EmbeddedSettings::default();
    EmbeddedSettings {
        dedup_window: setup.dedup_window,
        segment: setup.piece.unwrap_or(defaults.segment),
        ..defaults
    }
}

fn paused() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().start_paused(true).build()
}

/// How late a broker may be on a paused clock.
const PAUSED_SLACK: Duration = Duration::from_millis(20);

/// `memory:` on a paused clock.
#[derive(Debug)]
pub struct Memory;

impl Backend for Memory {
    fn name(&self) -> &str {
        "memory"
    }

    fn provides(&self) -> Provides {
        Provides { unreadable: true, dedup: true, retention: true, ..Provides::default() }
    }

    fn runtime(&self) -> io::Result<Runtime> {
        paused()
    }

    fn slack(&self) -> Duration {
        PAUSED_SLACK
    }

    fn store(&self, setup: Setup) -> Result<Box<dyn Store>> {
        Ok(Box::new(MemoryPlace { outlives: false, ..MemoryPlace::new(setup) }))
    }
}

/// The machine of `embedded:` on a paused clock, over a store in memory that outlives it: restarts without a disk.
#[derive(Debug)]
pub struct Outlived;

impl Backend for Outlived {
    fn name(&self) -> &str {
        "outlived"
    }

    fn runs_on(&self) -> String {
        "this process, over a store in memory that outlives each broker".into()
    }

    fn provides(&self) -> Provides {
        Provides {
            reopen: true,
            crash: true,
            unreadable: true,
            dedup: true,
            retention: true,
            ..Provides::default()
        }
    }

    fn runtime(&self) -> io::Result<Runtime> {
        paused()
    }

    fn slack(&self) -> Duration {
        PAUSED_SLACK
    }

    fn store(&self, setup: Setup) -> Result<Box<dyn Store>> {
        Ok(Box::new(MemoryPlace::new(setup)))
    }
}

/// [`Outlived`] inside a wrapper.
#[derive(Debug)]
struct Wrapped {
    name: &'static str,
    wrap: Wrap,
}

type Wrap = fn(Arc<dyn MessageBroker>) -> Result<Arc<dyn MessageBroker>>;

impl Backend for Wrapped {
    fn name(&self) -> &str {
        self.name
    }

    fn provides(&self) -> Provides {
        Outlived.provides()
    }

    fn runtime(&self) -> io::Result<Runtime> {
        Outlived.runtime()
    }

    fn slack(&self) -> Duration {
        Outlived.slack()
    }

    fn store(&self, setup: Setup) -> Result<Box<dyn Store>> {
        Ok(Box::new(WrappedPlace { place: MemoryPlace::new(setup), wrap: self.wrap }))
    }
}

#[derive(Debug)]
struct WrappedPlace {
    place: MemoryPlace,
    wrap: Wrap,
}

impl Store for WrappedPlace {
    fn open(&self) -> Answer<Result<Arc<dyn MessageBroker>>> {
        let (opened, wrap) = (self.place.open(), self.wrap);
        Box::pin(async move { wrap(opened.await?) })
    }

    fn crash(&self, broker: Arc<dyn MessageBroker>) -> Answer<()> {
        self.place.crash(broker)
    }

    fn plant_unreadable(
        &self,
        broker: &Arc<dyn MessageBroker>,
        topic: &Topic,
        partition: u32,
        raw: &[u8],
    ) -> Answer<Result<Position>> {
        self.place.plant_unreadable(broker, topic, partition, raw)
    }

    fn now(&self) -> Timestamp {
        self.place.now()
    }
}

/// Where a broker in memory keeps what it keeps.
#[derive(Debug)]
pub struct MemoryPlace {
    disk: Disk,
    outlives: bool,
    clock: OnceLock<Arc<dyn Clock>>,
    opened: Opened,
    setup: Setup,
}

impl MemoryPlace {
    /// An empty one that outlives its brokers.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        Self {
            disk: Disk::default(),
            outlives: true,
            clock: OnceLock::new(),
            opened: Opened::default(),
            setup,
        }
    }

    /// The clock of its brokers, which starts when it is first asked for, in a runtime.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(self.clock.get_or_init(|| Arc::new(TokioClock::default())))
    }
}

impl Store for MemoryPlace {
    fn open(&self) -> Answer<Result<Arc<dyn MessageBroker>>> {
        let settings = EmbeddedSettings { clock: self.clock(), ..settings(self.setup) };
        let opened = if self.outlives {
            Embedded::over(self.disk.start(), settings)
        } else {
            Embedded::memory(settings)
        };
        let opened = opened.map(|broker| known(&self.opened, broker));
        Box::pin(std::future::ready(opened))
    }

    /// What runs goes on and reaches its disk no more.
    fn crash(&self, broker: Arc<dyn MessageBroker>) -> Answer<()> {
        self.disk.kill();
        drop(broker);
        Box::pin(std::future::ready(()))
    }

    fn plant_unreadable(
        &self,
        _: &Arc<dyn MessageBroker>,
        topic: &Topic,
        partition: u32,
        raw: &[u8],
    ) -> Answer<Result<Position>> {
        plant(&self.opened, topic, partition, raw)
    }

    fn now(&self) -> Timestamp {
        self.clock().now()
    }
}

/// The broker that was opened last.
type Opened = Arc<Mutex<Weak<Embedded>>>;

fn known(opened: &Opened, broker: Arc<Embedded>) -> Arc<dyn MessageBroker> {
    *lock(opened) = Arc::downgrade(&broker);
    broker
}

fn plant(opened: &Opened, topic: &Topic, partition: u32, raw: &[u8]) -> Answer<Result<Position>> {
    match lock(opened).upgrade() {
        Some(broker) => broker.plant_unreadable(topic, partition, Bytes::copy_from_slice(raw)),
        None => Box::pin(std::future::ready(Err(Error::new(ErrorKind::Closed, "no broker is open")))),
    }
}

/// `embedded:` in a directory of its own.
#[derive(Debug)]
pub struct Directory;

impl Backend for Directory {
    fn name(&self) -> &str {
        "embedded"
    }

    fn runs_on(&self) -> String {
        "this process, in a directory".into()
    }

    fn provides(&self) -> Provides {
        Provides {
            reopen: true,
            crash: true,
            unreadable: true,
            dedup: true,
            retention: true,
            ..Provides::default()
        }
    }

    fn store(&self, setup: Setup) -> Result<Box<dyn Store>> {
        Ok(Box::new(DirectoryPlace::new(setup).map_err(no_directory)?))
    }
}

fn no_directory(error: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "there is no temporary directory").caused_by(error)
}

/// A directory of an `embedded:`, and what crashes left behind.
#[derive(Debug)]
pub struct DirectoryPlace {
    root: TempDir,
    current: Mutex<PathBuf>,
    opened: Opened,
    setup: Setup,
}

impl DirectoryPlace {
    /// An empty one.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn new(setup: Setup) -> io::Result<Self> {
        let root = TempDir::with_prefix("ropeway-conformance-")?;
        let current = Mutex::new(root.path().join("0"));
        Ok(Self { root, current, opened: Opened::default(), setup })
    }
}

impl Store for DirectoryPlace {
    fn open(&self) -> Answer<Result<Arc<dyn MessageBroker>>> {
        let (path, settings) = (lock(&self.current).clone(), settings(self.setup));
        let last = Arc::clone(&self.opened);
        Box::pin(async move {
            let opened = tokio::task::spawn_blocking(move || Embedded::open(path, settings)).await;
            let opened = opened.map_err(|error| {
                Error::new(ErrorKind::Unavailable, "opening was interrupted").caused_by(error)
            })?;
            opened.map(|broker| known(&last, broker))
        })
    }

    /// The files as they are at this moment are what is opened next; what runs goes on over the old ones.
    fn crash(&self, broker: Arc<dyn MessageBroker>) -> Answer<()> {
        let mut current = lock(&self.current);
        let crashes = std::fs::read_dir(self.root.path()).map_or(0, Iterator::count);
        let next = self.root.path().join(crashes.to_string());
        if copy_directory(&current, &next).is_ok() {
            *current = next;
        }
        drop(broker);
        Box::pin(std::future::ready(()))
    }

    fn plant_unreadable(
        &self,
        _: &Arc<dyn MessageBroker>,
        topic: &Topic,
        partition: u32,
        raw: &[u8],
    ) -> Answer<Result<Position>> {
        plant(&self.opened, topic, partition, raw)
    }
}

fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_directory(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
